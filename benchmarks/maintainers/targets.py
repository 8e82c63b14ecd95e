"""The targets: what sessions may cost at most, as a ratio to something that everybody knows, in the same run.

    python -m session_kit.benchmarks.maintainers.targets [PART ...] [--write]

Overhead is the time of an application with sessions less that of the bare one, as in peers.py. Redis and S3 stand for
servers that the run starts itself, on this machine.
"""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from typing import NamedTuple

from session_kit.benchmarks.maintainers import results
from session_kit.benchmarks.maintainers.apps import NONE, Backends, named, open_backends
from session_kit.benchmarks.maintainers.growth import full_store, time_calls
from session_kit.benchmarks.maintainers.peers import measure_apart
from session_kit.benchmarks.maintainers.results import Case, Figures, compare, url_in
from session_kit.benchmarks.maintainers.visits import SIZE, Guest
from session_kit.benchmarks.measure import Noise, microseconds
from session_kit.drivers import open_driver
from tests.harness.loops import LoopThread
from tests.harness.sites import ASGIInProcess, InProcess

PACKAGES = ("starlette", "starsessions", "flask", "django", "redis", "diskcache", "boto3")
VALUE = b"x" * 200
VISITORS = 50  # at once
TIMES = 20 * VISITORS  # requests, or calls, in a round


class Result(NamedTuple):
    """What was measured for one target, in seconds."""

    what: str
    against: str
    ours: float
    theirs: float
    limit: float

    @property
    def cells(self) -> list[str]:
        """One row of the table."""
        ratio = self.ours / self.theirs
        figures = [microseconds(self.ours), microseconds(self.theirs), f"{ratio:.2f}", f"{self.limit:.2f}"]
        return [self.what, self.against, *figures, "" if ratio <= self.limit else "missed"]


COOKIE, LOCMEM = "its-own:cookie", "its-own:memory"
# Framework, size of a session, what the others are called, which they are, and by kind of request what we may cost.
IN_MEMORY: list[tuple[str, int, str, str, dict[str, float]]] = [
    ("Starlette", SIZE, "Starlette", COOKIE, {"read": 0.33, "write": 0.20, "untouched": 0.07, "login": 0.35}),
    ("Starlette", SIZE, "starsessions", "starsessions:memory", {"read": 0.25, "write": 0.32}),
    ("Starlette", 4096, "Starlette", COOKIE, {"read": 0.20, "write": 0.10}),
    ("Flask", SIZE, "Flask's cookie", COOKIE, {"read": 0.20, "write": 0.12, "untouched": 0.05}),
    ("Django", SIZE, "cache on locmem", LOCMEM, {"read": 0.80, "write": 0.50}),
]


def frameworks(backends: Backends, noise: Noise) -> Iterator[Result]:
    """In memory, beside what each framework brings; the cookies of Starlette and Flask have no store at all."""
    for framework, size, against, theirs, limits in IN_MEMORY:
        ours, other = overheads(framework, ["session_kit:memory", theirs], backends, noise, size)
        large = "" if size == SIZE else ", 4 KB"
        for kind, limit in limits.items():
            yield Result(f"{framework}, memory{large}: {kind}", against, ours[kind], other[kind], limit)


def overheads(framework: str, sessions: list[str], backends: Backends, noise: Noise, size: int = SIZE) -> list[Figures]:
    """What these sessions cost, with so many bytes in them."""
    peers = [named(f"{framework}:{one}") for one in (NONE, *sessions)]
    return list(measure_apart(peers, backends, 50, 40, noise, size).values())[1:]


def valkey(backends: Backends, noise: Noise) -> Iterator[Result]:
    """One at a time and fifty at once, beside bare calls of redis-py's clients, and beside starsessions."""
    import redis.asyncio

    get, peer, once, twice = "redis.asyncio GET", "starsessions", "one redis-py call", "two redis-py calls"
    with ExitStack() as stack:
        client = stack.enter_context(redis.Redis.from_url(backends.redis))
        client.set("raw", VALUE)
        loop = stack.enter_context(closing(LoopThread()))
        aclient = redis.asyncio.Redis.from_url(backends.redis)
        stack.callback(lambda: loop.run(aclient.aclose()))

        async def get_by_turns() -> None:
            for _ in range(TIMES):
                await aclient.get("raw")

        async def get_at_once() -> None:
            for _ in range(TIMES // VISITORS):
                await asyncio.gather(*[aclient.get("raw") for _ in range(VISITORS)])

        for kind, limits in {"read": {get: 0.30, peer: 0.12}, "write": {peer: 0.20}}.items():
            names = {"bare": NONE, "ours": "session_kit:Valkey", peer: "starsessions:Valkey"}
            cases = {name: crowd(stack, f"Starlette:{one}", backends, kind) for name, one in names.items()}
            best = compare({**cases, get: lambda: loop.run(get_at_once())}, TIMES, 11, noise)
            costs = {name: max(1e-9, best[name] - best["bare"]) for name in ("ours", peer)} | {get: best[get]}
            for against, limit in limits.items():
                what = f"ASGI, Valkey: {kind}, {VISITORS} at once"
                yield Result(what, against, costs["ours"], costs[against], limit)
        raw = {
            get: lambda: loop.run(get_by_turns()),
            once: lambda: [client.get("raw") for _ in range(TIMES)],
            twice: lambda: [(client.get("raw"), client.set("raw", VALUE, ex=60)) for _ in range(TIMES)],
        }
        best = compare(raw, TIMES, 11, noise)
    (asgi,), (wsgi,) = (overheads(name, ["session_kit:Valkey"], backends, noise) for name in ("Starlette", "WSGI"))
    yield Result("ASGI, Valkey: read, one at a time", get, asgi["read"], best[get], 1.0)
    yield Result("WSGI, Valkey: read", once, wsgi["read"], best[once], 1.15)
    yield Result("WSGI, Valkey: write", twice, wsgi["write"], best[twice], 1.15)


def crowd(stack: ExitStack, name: str, backends: Backends, kind: str) -> Case:
    """Requests of fifty visitors at once, each with a session of their own."""
    peer = named(name)
    site = stack.enter_context(InProcess(peer.app(backends)))
    transport, guests = site.transport, [Guest(site, peer) for _ in range(VISITORS)]
    assert isinstance(transport, ASGIInProcess)
    for guest in guests:
        guest.ask("login")
        guest.ask("write")
    # Two, so that each write is of another value than the one before.
    turns = itertools.cycle([[guest.request(kind) for guest in guests] for _ in range(2)])
    return lambda: [transport.handle_together(next(turns)) for _ in range(TIMES // VISITORS)]


def disk(backends: Backends, noise: Noise) -> Iterator[Result]:
    """The disk and SQLite drivers, beside diskcache as it comes."""
    import diskcache

    names = [f"session-{number}" for number in range(1000)]
    with (
        closing(diskcache.Cache(str(backends.folder / "theirs"))) as cache,
        closing(open_driver(url_in(backends.folder, "disk"))) as disk,
        closing(open_driver(url_in(backends.folder, "sqlite"))) as sqlite,
    ):
        sets = {
            "disk": lambda: [disk.set(name, VALUE, ttl=3600) for name in names],
            "sqlite": lambda: [sqlite.set(name, VALUE, ttl=3600) for name in names],
            "diskcache": lambda: [cache.set(name, VALUE, expire=3600) for name in names],
        }
        gets = {
            "disk": lambda: [disk.get(name) for name in names],
            "sqlite": lambda: [sqlite.get(name) for name in names],
            "diskcache": lambda: [cache.get(name) for name in names],
        }
        yield from beside("diskcache", sets, len(names), {"disk: set": 0.8, "sqlite: set": 0.6}, noise)
        yield from beside("diskcache", gets, len(names), {"disk: get": 1.2, "sqlite: get": 1.0}, noise)


def s3(backends: Backends, noise: Noise) -> Iterator[Result]:
    """The S3 driver, beside boto3: both by one client."""
    from botocore.config import Config

    from session_kit.drivers.s3 import S3Driver
    from tests.harness.servers import start_seaweed

    bucket, many = "bench", 32
    names = [str(number % many) for number in range(many * 10)]
    with ExitStack() as stack:
        server = stack.enter_context(start_seaweed(backends.folder))
        config = Config(max_pool_connections=many)
        raw = stack.enter_context(closing(server.client(config=config)))
        raw.create_bucket(Bucket=bucket)
        driver = S3Driver(bucket, client=raw)
        driver.prepare()
        pool = stack.enter_context(ThreadPoolExecutor(many))

        def case(call: Callable[[str], object]) -> Case:
            return lambda: list(pool.map(call, names))

        sets = {
            "boto3": case(lambda name: raw.put_object(Bucket=bucket, Key=f"raw-{name}", Body=VALUE)),
            "S3": case(lambda name: driver.set(f"own-{name}", VALUE, ttl=3600)),
        }
        gets = {
            "boto3": case(lambda name: raw.get_object(Bucket=bucket, Key=f"raw-{name}")["Body"].read()),
            "S3": case(lambda name: driver.get(f"own-{name}")),
        }
        yield from beside("boto3", sets, len(names), {f"S3: set, {many} at once": 1.05}, noise)
        yield from beside("boto3", gets, len(names), {f"S3: get, {many} at once": 1.05}, noise)


def beside(
    theirs: str, cases: Mapping[str, Case], number: int, limits: dict[str, float], noise: Noise
) -> Iterator[Result]:
    """Compare cases with one of them; the limits begin with the names of the others."""
    best = compare(cases, number, 9, noise)
    for what, limit in limits.items():
        yield Result(what, theirs, best[what.partition(":")[0]], best[theirs], limit)


def memory(backends: Backends, noise: Noise) -> Iterator[Result]:
    """The memory driver with a million sessions, beside one with a thousand: the 99th percentile of each call."""
    few, many = 1_000, 1_000_000
    best: dict[int, Figures] = {}
    for size in (few, many):
        with full_store(backends.folder, "memory", size) as store:
            best[size] = time_calls(store.driver, size, noise)
    for call in ("get, p99", "set, p99"):
        yield Result(f"memory, a million sessions: {call}", "a thousand", best[many][call], best[few][call], 2.0)


def imports(backends: Backends, noise: Noise) -> Iterator[Result]:
    """The first import of the library, beside that of json, each in a new interpreter."""
    program = "import sys, time; sys.path.insert(0, sys.argv[1]); begin = time.perf_counter(); import {}\n"
    program += "print(time.perf_counter() - begin)"

    def first(name: str) -> float:
        command = [sys.executable, "-I", "-S", "-c", program.format(name), str(results.ROOT)]
        return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    cases = {"both": lambda: {name: first(name) for name in ("session_kit", "json")}}
    best = results.best_of(cases, 25, noise)["both"]
    yield Result("import session_kit", "import json", best["session_kit"], best["json"], 5.0)


PARTS: dict[str, Callable[[Backends, Noise], Iterator[Result]]] = {
    part.__name__: part for part in (frameworks, valkey, disk, s3, memory, imports)
}


def main() -> None:
    chosen, noise, rows = results.make_parser("targets", PARTS).parse_args(), Noise(), []
    with open_backends() as backends:
        for name in chosen.parts or PARTS:
            for result in PARTS[name](backends, noise):
                rows.append(result.cells)
                print(*rows[-1], sep=" | ", file=sys.stderr)
    head = ["what", "against", "ours, µs", "theirs, µs", "ratio", "at most", ""]
    results.publish("targets", results.markdown(head, rows, 2), PACKAGES, noise, write=chosen.write)


if __name__ == "__main__":
    main()
