"""The targets: what sessions may cost at most, as a ratio to something that everybody knows, in the same run.

    python -m session_kit.benchmarks.maintainers.targets [PART ...] [--write]

Overhead is the time of an application with sessions less that of the bare one, as in peers.py. Redis and S3 stand for
servers that the run starts itself, on this machine.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import NamedTuple

from session_kit.benchmarks.maintainers.apps import NONE, Place, named
from session_kit.benchmarks.maintainers.calls import SITES, AsgiSite, Browser
from session_kit.benchmarks.maintainers.growth import Scale, Stock, operations
from session_kit.benchmarks.maintainers.peers import SIZE, Costs, call_of, measure_apart, servers
from session_kit.benchmarks.maintainers.results import ROOT, Case, compare, markdown, write
from session_kit.benchmarks.measure import Noise, conditions, microseconds, warning

VALUE = b"x" * 200
COOKIE, LOCMEM = "its-own:cookie", "its-own:memory"


class Result(NamedTuple):
    """What was measured for one target, in seconds."""

    what: str
    against: str
    ours: float
    theirs: float
    limit: float

    @property
    def ratio(self) -> float:
        return self.ours / self.theirs


Part = Callable[[Place, Noise], Iterator[Result]]


def repeat(call: Callable[[], object]) -> Case:
    """So many calls."""

    def do(number: int) -> None:
        for _ in range(number):
            call()

    return do


# --- frameworks, in memory ---

# Framework, size of a session, what the others are called, which they are, and by kind of request what we may cost.
IN_MEMORY: list[tuple[str, int, str, str, dict[str, float]]] = [
    ("Starlette", SIZE, "Starlette", COOKIE, {"read": 0.33, "write": 0.20, "untouched": 0.07, "login": 0.35}),
    ("Starlette", SIZE, "starsessions", "starsessions:memory", {"read": 0.25, "write": 0.32}),
    ("Starlette", 4096, "Starlette", COOKIE, {"read": 0.20, "write": 0.10}),
    ("Flask", SIZE, "Flask's cookie", COOKIE, {"read": 0.20, "write": 0.12, "untouched": 0.05}),
    ("Django", SIZE, "cache on locmem", LOCMEM, {"read": 0.80, "write": 0.50}),
]


def frameworks(place: Place, noise: Noise) -> Iterator[Result]:
    """In memory, beside what each framework brings; the cookies of Starlette and Flask have no store at all."""
    for framework, size, against, theirs, limits in IN_MEMORY:
        both = ["session_kit:memory", theirs]
        # Django's settings allow one beside the bare one.
        turns = [[one] for one in both] if framework == "Django" else [both]
        found = [costs for turn in turns for costs in _cost(framework, turn, place, size, noise)]
        large = "" if size == SIZE else ", 4 KB"
        for kind, limit in limits.items():
            ours, other = (max(costs[kind], 1e-9) for costs in found)  # never nothing: it is divided by
            yield Result(f"{framework}, memory{large}: {kind}", against, ours, other, limit)


def _cost(framework: str, sessions: list[str], place: Place, size: int, noise: Noise) -> list[Costs]:
    peers = [named(f"{framework}:{one}") for one in (NONE, *sessions)]
    rows, spread = measure_apart(peers, place, visits=50, rounds=40, size=size)
    noise.hear(spread)
    return [row.costs for row in rows[1:]]


# --- frameworks, on Valkey ---


def valkey(place: Place, noise: Noise) -> Iterator[Result]:
    """One at a time and fifty at once, beside bare calls of redis-py's clients, and beside starsessions."""
    import redis
    import redis.asyncio

    with ExitStack() as stack:
        client = stack.enter_context(redis.Redis.from_url(place.redis))
        client.set("raw", VALUE)
        runner = stack.enter_context(asyncio.Runner())
        aclient = redis.asyncio.Redis.from_url(place.redis)
        stack.callback(lambda: runner.run(aclient.aclose()))
        together = {
            kind: {name: _together(stack, f"Starlette:{peer}", place, kind) for name, peer in ASGI.items()}
            for kind in ("read", "write")
        }
        together["read"]["raw"] = _tasks(runner, lambda: aclient.get("raw"), 50)
        best = compare(together["read"], 20, rounds=11, noise=noise)
        over = {name: max(1e-9, best[name] - best["bare"]) for name in ASGI}
        yield Result("ASGI, Valkey: read, 50 at once", "redis.asyncio GET", over["ours"] / 50, best["raw"] / 50, 0.30)
        yield Result(
            "ASGI, Valkey: read, 50 at once", "starsessions", over["ours"] / 50, over["starsessions"] / 50, 0.12
        )
        best = compare(together["write"], 20, rounds=11, noise=noise)
        over = {name: max(1e-9, best[name] - best["bare"]) for name in ASGI}
        yield Result(
            "ASGI, Valkey: write, 50 at once", "starsessions", over["ours"] / 50, over["starsessions"] / 50, 0.20
        )
        raw = {
            "GET": _tasks(runner, lambda: aclient.get("raw"), 1),
            "one redis-py call": repeat(lambda: client.get("raw")),
            "two redis-py calls": repeat(lambda: (client.get("raw"), client.set("raw", VALUE, ex=60))),
        }
        best = compare(raw, 500, rounds=11, noise=noise)
    (asgi,), (wsgi,) = (_cost(name, ["session_kit:Valkey"], place, SIZE, noise) for name in ("Starlette", "WSGI"))
    yield Result("ASGI, Valkey: read, one at a time", "redis.asyncio GET", asgi["read"], best["GET"], 1.0)
    for kind, calls in (("read", "one redis-py call"), ("write", "two redis-py calls")):
        yield Result(f"WSGI, Valkey: {kind}", calls, wsgi[kind], best[calls], 1.15)


ASGI = {"bare": NONE, "ours": "session_kit:Valkey", "starsessions": "starsessions:Valkey"}


def _together(stack: ExitStack, name: str, place: Place, kind: str) -> Case:
    """Fifty visitors at once, each with a session of their own, so many times."""
    peer = named(name)
    site = stack.enter_context(closing(SITES["asgi"](peer.app(place))))
    assert isinstance(site, AsgiSite)
    visitors = [Browser(site) for _ in range(50)]
    for visitor in visitors:
        visitor.ask(call_of("login", peer))
        visitor.ask(call_of("write", peer))
    return repeat(lambda: site.together([(call_of(kind, peer), visitor.cookie) for visitor in visitors]))


def _tasks(runner: asyncio.Runner, call: Callable[[], Awaitable[object]], tasks: int) -> Case:
    """So many times so many awaited calls at once."""

    async def do(number: int) -> None:
        for _ in range(number):
            await asyncio.gather(*[call() for _ in range(tasks)]) if tasks > 1 else await call()

    return lambda number: runner.run(do(number))


# --- drivers ---


def disk(place: Place, noise: Noise) -> Iterator[Result]:
    """The disk and SQLite drivers, beside diskcache as it comes."""
    import diskcache

    from session_kit.drivers.disk import DiskDriver
    from session_kit.drivers.sqlite import SQLiteDriver

    with ExitStack() as stack:
        cache = stack.enter_context(closing(diskcache.Cache(str(place.folder / "theirs"))))
        driver = stack.enter_context(closing(DiskDriver(place.folder / "ours")))
        sqlite = stack.enter_context(closing(SQLiteDriver(place.folder / "ours.db")))
        names = [f"session-{number}" for number in range(1000)]

        def case(call: Callable[[str], object]) -> Case:
            return lambda number: [call(name) for name in names[:number]]

        calls = {
            "set": {
                "disk": case(lambda name: driver.set(name, VALUE, ttl=3600)),
                "sqlite": case(lambda name: sqlite.set(name, VALUE, ttl=3600)),
                "theirs": case(lambda name: cache.set(name, VALUE, expire=3600)),
            },
            "get": {"disk": case(driver.get), "sqlite": case(sqlite.get), "theirs": case(cache.get)},
        }
        for kind, limits in {"set": {"disk": 0.8, "sqlite": 0.6}, "get": {"disk": 1.2, "sqlite": 1.0}}.items():
            best = compare(calls[kind], len(names), rounds=9, noise=noise)
            for name, limit in limits.items():
                yield Result(f"{name}: {kind}", "diskcache", best[name], best["theirs"], limit)


def s3(place: Place, noise: Noise) -> Iterator[Result]:
    """The S3 driver, beside boto3 with the same pool of connections."""
    from botocore.config import Config

    from session_kit.drivers.s3 import S3Driver
    from tests.harness.servers import start_seaweed

    at_once = 32
    with ExitStack() as stack:
        server = stack.enter_context(start_seaweed(place.folder))
        config = Config(max_pool_connections=at_once)
        raw, own = (stack.enter_context(closing(server.client(config=config))) for _ in range(2))
        raw.create_bucket(Bucket="benchmark")
        driver = S3Driver("benchmark", client=own)
        driver.prepare()
        pool = stack.enter_context(ThreadPoolExecutor(at_once))

        def case(call: Callable[[int], object]) -> Case:
            return lambda number: list(pool.map(call, [name % at_once for name in range(number)]))

        calls = {
            "set": {
                "raw": case(lambda name: raw.put_object(Bucket="benchmark", Key=f"raw-{name}", Body=VALUE)),
                "ours": case(lambda name: driver.set(f"own-{name}", VALUE, ttl=3600)),
            },
            "get": {
                "raw": case(lambda name: raw.get_object(Bucket="benchmark", Key=f"raw-{name}")["Body"].read()),
                "ours": case(lambda name: driver.get(f"own-{name}")),
            },
        }
        for kind, cases in calls.items():
            best = compare(cases, at_once * 10, rounds=9, noise=noise)
            yield Result(f"S3: {kind}, 32 at once", "boto3", best["ours"], best["raw"], 1.05)


def memory(place: Place, noise: Noise) -> Iterator[Result]:
    """The memory driver with a million sessions, beside one with a thousand: the 99th percentile of each call."""
    few, many = 1_000, 1_000_000
    best = {}
    for size in (few, many):
        with Stock(place.folder).store("memory", size) as store:
            best[size] = operations(store.driver, size, Scale(), noise)
    for kind in ("get", "set"):
        p99 = {size: found[kind][1] for size, found in best.items()}
        yield Result(f"memory, a million sessions: {kind}, p99", "a thousand", p99[many], p99[few], 2.0)


def imports(place: Place, noise: Noise) -> Iterator[Result]:
    """The first import of the library, beside that of json, each in a new interpreter."""
    program = "import sys, time; sys.path.insert(0, sys.argv[1]); begin = time.perf_counter(); import {}\n"
    program += "print(time.perf_counter() - begin)"
    best = {"session_kit": float("inf"), "json": float("inf")}
    for _ in range(25):
        noise.probe()
        for name in best:
            command = [sys.executable, "-I", "-S", "-c", program.format(name), str(ROOT)]
            printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            best[name] = min(best[name], float(printed))
    yield Result("import session_kit", "import json", best["session_kit"], best["json"], 5.0)


PARTS: dict[str, Part] = {part.__name__: part for part in (frameworks, valkey, disk, s3, memory, imports)}
HEAD = ["what", "against", "ours, µs", "theirs, µs", "ratio", "at most", ""]
PACKAGES = ("starlette", "starsessions", "flask", "django", "redis", "diskcache", "boto3")


def cells(result: Result) -> list[str]:
    """One row of the table."""
    figures = [microseconds(result.ours), microseconds(result.theirs), f"{result.ratio:.2f}", f"{result.limit:.2f}"]
    return [result.what, result.against, *figures, "" if result.ratio <= result.limit else "missed"]


def main() -> None:
    parser = argparse.ArgumentParser(description="What sessions may cost, as ratios in one run.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; default: all")
    parser.add_argument("--write", action="store_true", help="into the documentation and results/targets.txt")
    chosen = parser.parse_args()
    if unknown := [name for name in chosen.parts if name not in PARTS]:
        parser.error(f"unknown: {unknown[0]}; known are {', '.join(PARTS)}")
    noise, rows = Noise(), []
    with servers() as urls, tempfile.TemporaryDirectory() as folder:
        for name in chosen.parts or PARTS:
            for result in PARTS[name](Place(Path(folder), *urls), noise):
                rows.append(cells(result))
                print(*rows[-1], sep=" | ", file=sys.stderr)
    made = warning(noise.spread, "**{}**\n\n") + markdown(HEAD, rows, 2)
    made += f"\n{conditions(PACKAGES)}. {str(noise).capitalize()}.\n"
    print(made)
    if chosen.write:
        write("targets", made)


if __name__ == "__main__":
    main()
