"""The targets: what sessions may cost at most, as a ratio to something that everybody knows, in the same run.

    python -m session_kit.benchmarks.targets [PART ...] [--write]

Overhead is the time of an application with the middleware less that of the bare one. Redis and S3 stand for servers
that the run starts itself, on this machine.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import session_kit
from session_kit.asgi import SessionMiddleware
from session_kit.benchmarks import harness
from session_kit.benchmarks.harness import (
    HANDLERS,
    SECRET,
    asgi_app,
    asgi_case,
    ask,
    ask_wsgi,
    coroutines_case,
    wsgi_app,
    wsgi_case,
    wsgi_cookie,
)
from session_kit.benchmarks.measure import Case, Noise, compare, conditions, microseconds, summarize
from session_kit.benchmarks.readme import PERFORMANCE, keep, put_into
from session_kit.wsgi import KEY
from session_kit.wsgi import SessionMiddleware as WSGISessionMiddleware

NUMBER = 1000
VALUE = b"x" * 200


class Result(NamedTuple):
    """What was measured for one target, in seconds (for memory: in bytes)."""

    what: str
    against: str
    ours: float
    theirs: float
    limit: float

    @property
    def ratio(self) -> float:
        return self.ours / self.theirs


Part = Callable[[Noise], Iterator[Result]]


def over(best: dict[str, float], name: str, bare: str = "bare") -> float:
    """What an application costs over the bare one; never nothing at all, since it is divided by."""
    return max(best[name] - best[bare], 1e-9)


# --- ASGI ---


def asgi_memory(noise: Noise) -> Iterator[Result]:
    """In memory, beside the cookie of Starlette, which has no store at all, and starsessions."""
    limits = {"read": (0.33, 0.25), "write": (0.20, 0.32), "untouched": (0.07, None), "first visit": (0.35, None)}
    for kind, (starlette, starsessions) in limits.items():
        best = _asgi("memory://", kind, harness.login, noise)
        yield Result(f"ASGI, memory: {kind}", "Starlette", over(best, "ours"), over(best, "starlette"), starlette)
        if starsessions is not None:
            yield Result(
                f"ASGI, memory: {kind}", "starsessions", over(best, "ours"), over(best, "starsessions"), starsessions
            )


def asgi_large(noise: Noise) -> Iterator[Result]:
    """The same with 4 KB."""
    for kind, limit in {"read": 0.20, "write": 0.10}.items():
        best = _asgi("memory://", kind, harness.login_large, noise)
        yield Result(f"ASGI, memory, 4 KB: {kind}", "Starlette", over(best, "ours"), over(best, "starlette"), limit)


def _asgi(url: str, kind: str, login: harness.Handler, noise: Noise) -> dict[str, float]:
    from starlette.middleware.sessions import SessionMiddleware as StarletteSessions
    from starsessions import InMemoryStore, SessionAutoloadMiddleware
    from starsessions import SessionMiddleware as Starsessions

    memory = InMemoryStore()

    def starsessions(app: Any) -> Any:
        return Starsessions(SessionAutoloadMiddleware(app), store=memory)

    ours = SessionMiddleware(asgi_app(login), store=url, secret=SECRET)
    wrappers: dict[str, Callable[[Any], Any]] = {
        "bare": lambda app: app,
        "ours": lambda app: SessionMiddleware(app, manager=ours.manager),
        "starlette": lambda app: StarletteSessions(app, secret_key=SECRET),
        "starsessions": starsessions,
    }
    with asyncio.Runner() as runner:
        cases: dict[str, Case] = {}
        for name, wrap in wrappers.items():
            cookie = b""
            if name != "bare" and kind != "first visit":
                cookie = runner.run(ask(wrap(asgi_app(login)), b"")).cookie()
            cases[name] = asgi_case(runner, wrap(asgi_app(HANDLERS[kind])), cookie)
        best = compare(cases, NUMBER, rounds=15, noise=noise)
        runner.run(ours.manager.aclose())
    return best


# --- WSGI frameworks ---


def flask(noise: Noise) -> Iterator[Result]:
    """Flask, beside its own cookie."""
    from flask import Flask, session

    from session_kit.integrations.flask import SessionKit

    def make(kind: str, ours: bool) -> Any:
        app = Flask("benchmark")
        if kind != "bare":
            app.secret_key = SECRET
        if ours:
            SessionKit(app, store="memory://")
        for path, handle in {"/": HANDLERS.get(kind, harness.untouched), "/login": harness.login}.items():
            app.add_url_rule(path, path, lambda handle=handle: handle(session) or "")
        return app

    def log_in(app: Any) -> str:
        return wsgi_cookie(ask_wsgi(app, "", "/login"))

    for kind, limit in {"read": 0.20, "write": 0.12, "untouched": 0.05}.items():
        cases = {"bare": wsgi_case(make("bare", ours=False), "")}
        for name in ("theirs", "ours"):
            app = make(kind, ours=name == "ours")
            cases[name] = wsgi_case(app, log_in(app))
        best = compare(cases, NUMBER // 2, rounds=15, noise=noise)
        yield Result(f"Flask, memory: {kind}", "Flask's cookie", over(best, "ours"), over(best, "theirs"), limit)


def django(noise: Noise) -> Iterator[Result]:
    """The Django engine in memory, beside Django's cache sessions on locmem, both under Django's own middleware."""
    import django as package
    from django.conf import settings
    from django.contrib.sessions.middleware import SessionMiddleware as DjangoSessions
    from django.http import HttpRequest, HttpResponse

    settings.configure(SECRET_KEY=SECRET, SESSION_KIT={"store": "memory://"})
    package.setup()

    def ask_django(application: Any, cookie: str) -> Any:
        request = HttpRequest()
        request.META = {"HTTP_HOST": "localhost"}
        request.COOKIES = {"theme": "dark", "sessionid": cookie}
        return application(request)

    def case(application: Any, cookie: str) -> Case:
        def ask_all(number: int) -> None:
            for _ in range(number):
                ask_django(application, cookie)

        return ask_all

    def view(handle: harness.Handler) -> Callable[[Any], Any]:
        def respond(request: Any) -> HttpResponse:
            handle(getattr(request, "session", {}))
            return HttpResponse()

        return respond

    engines = {"theirs": "django.contrib.sessions.backends.cache", "ours": "session_kit.integrations.django"}
    for kind, limit in {"read": 0.8, "write": 0.5}.items():
        cases = {"bare": case(view(HANDLERS[kind]), "")}
        for name, engine in engines.items():
            settings.SESSION_ENGINE = engine
            cookie = ask_django(DjangoSessions(view(harness.login)), "").cookies["sessionid"].value
            cases[name] = case(DjangoSessions(view(HANDLERS[kind])), cookie)
        best = compare(cases, NUMBER // 2, rounds=15, noise=noise)
        yield Result(f"Django, memory: {kind}", "cache on locmem", over(best, "ours"), over(best, "theirs"), limit)


# --- on servers ---


@contextmanager
def valkey() -> Iterator[str]:
    """The URL of a Valkey that runs as long as this."""
    from tests.harness.servers import start_valkey

    with tempfile.TemporaryDirectory() as folder, start_valkey(Path(folder)) as server:
        yield server.url


def asgi_valkey(noise: Noise) -> Iterator[Result]:
    """One at a time and fifty at once, beside bare calls of redis-py's asyncio client, and beside starsessions."""
    import redis.asyncio
    from starsessions import SessionAutoloadMiddleware
    from starsessions import SessionMiddleware as Starsessions
    from starsessions.stores.redis import RedisStore

    with valkey() as url, asyncio.Runner() as runner:
        client = redis.asyncio.Redis.from_url(url)
        coroutines_case(runner, lambda: client.set("raw", VALUE))(1)
        ours = SessionMiddleware(asgi_app(harness.login), store=url, secret=SECRET)
        store = RedisStore(url)
        wrappers: dict[str, Callable[[Any], Any]] = {
            "ours": lambda app: SessionMiddleware(app, manager=ours.manager),
            "starsessions": lambda app: Starsessions(SessionAutoloadMiddleware(app), store=store),
        }
        cookies = {
            name: runner.run(ask(wrap(asgi_app(harness.login)), b"")).cookie() for name, wrap in wrappers.items()
        }

        def cases(kind: str, at_once: int) -> dict[str, Case]:
            handler = asgi_app(HANDLERS[kind])
            found = {"bare": asgi_case(runner, handler, b"", at_once)}
            for name, wrap in wrappers.items():
                if kind == "write" and at_once > 1:
                    # Each its own session, as fifty visitors have.
                    found[name] = _visitors(runner, wrap, at_once)
                else:
                    found[name] = asgi_case(runner, wrap(handler), cookies[name], at_once)
            found["raw"] = coroutines_case(runner, lambda: client.get("raw"), at_once)
            return found

        best = compare(cases("read", 1), NUMBER // 2, rounds=11, noise=noise)
        yield Result("ASGI, Valkey: read, one at a time", "redis.asyncio GET", over(best, "ours"), best["raw"], 1.0)
        best = compare(cases("read", 50), NUMBER, rounds=11, noise=noise)
        yield Result("ASGI, Valkey: read, 50 at once", "redis.asyncio GET", over(best, "ours"), best["raw"], 0.30)
        yield Result(
            "ASGI, Valkey: read, 50 at once", "starsessions", over(best, "ours"), over(best, "starsessions"), 0.12
        )
        best = compare(cases("write", 50), NUMBER, rounds=11, noise=noise)
        yield Result(
            "ASGI, Valkey: write, 50 at once", "starsessions", over(best, "ours"), over(best, "starsessions"), 0.20
        )
        runner.run(ours.manager.aclose())
        runner.run(client.aclose())
        runner.run(store._connection.aclose())


def _visitors(runner: asyncio.Runner, wrap: Callable[[Any], Any], count: int) -> Case:
    """So many visitors that write at once, each to a session of their own."""
    app = wrap(asgi_app(harness.write))

    async def log_in() -> list[bytes]:
        return [(await ask(wrap(asgi_app(harness.login)), b"")).cookie() for _ in range(count)]

    cookies = runner.run(log_in())

    async def ask_all(number: int) -> None:
        for _ in range(number // count):
            await asyncio.gather(*[ask(app, cookie) for cookie in cookies])

    return lambda number: runner.run(ask_all(number))


def wsgi_valkey(noise: Noise) -> Iterator[Result]:
    """WSGI, beside one or two bare calls of redis-py."""
    import redis

    with valkey() as url, redis.Redis.from_url(url) as client:
        client.set("raw", VALUE)
        ours = WSGISessionMiddleware(wsgi_app(harness.login, KEY), store=url, secret=SECRET)
        cookie = wsgi_cookie(ask_wsgi(ours, ""))

        def get(number: int) -> None:
            for _ in range(number):
                client.get("raw")

        def get_and_set(number: int) -> None:
            for _ in range(number):
                client.get("raw")
                client.set("raw", VALUE, ex=60)

        for kind, raw, calls in (("read", get, "one redis-py call"), ("write", get_and_set, "two redis-py calls")):
            app = wsgi_app(HANDLERS[kind], KEY)
            middleware = WSGISessionMiddleware(app, manager=ours.manager)
            cases = {"bare": wsgi_case(app, ""), "ours": wsgi_case(middleware, cookie), "raw": raw}
            best = compare(cases, NUMBER, rounds=11, noise=noise)
            yield Result(f"WSGI, Valkey: {kind}", calls, over(best, "ours"), best["raw"], 1.15)
        ours.manager.close()


def s3(noise: Noise) -> Iterator[Result]:
    """The S3 driver, beside boto3 with the same pool of connections."""
    import boto3
    from botocore.config import Config

    from session_kit.drivers.s3 import S3Driver
    from tests.harness.servers import start_seaweed

    at_once = 32
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        server = stack.enter_context(start_seaweed(Path(folder)))
        raw, own = (
            stack.enter_context(
                closing(
                    boto3.client(
                        "s3",
                        endpoint_url=server.endpoint_url,
                        region_name="us-east-1",
                        aws_access_key_id=server.access_key,
                        aws_secret_access_key=server.secret_key,
                        config=Config(max_pool_connections=at_once),
                    )
                )
            )
            for _ in range(2)
        )
        raw.create_bucket(Bucket="benchmark")
        driver = S3Driver("benchmark", client=own)
        driver.prepare()
        pool = stack.enter_context(ThreadPoolExecutor(at_once))

        def case(call: Callable[[int], object]) -> Case:
            return lambda number: list(pool.map(call, [name % at_once for name in range(number)]))

        setting = {
            "raw": case(lambda name: raw.put_object(Bucket="benchmark", Key=f"raw-{name}", Body=VALUE)),
            "ours": case(lambda name: driver.set(f"own-{name}", VALUE, ttl=3600)),
        }
        best = compare(setting, at_once * 10, rounds=9, noise=noise)
        yield Result("S3: set, 32 at once", "boto3", best["ours"], best["raw"], 1.05)
        getting = {
            "raw": case(lambda name: raw.get_object(Bucket="benchmark", Key=f"raw-{name}")["Body"].read()),
            "ours": case(lambda name: driver.get(f"own-{name}")),
        }
        best = compare(getting, at_once * 10, rounds=9, noise=noise)
        yield Result("S3: get, 32 at once", "boto3", best["ours"], best["raw"], 1.05)


# --- embedded ---


def disk(noise: Noise) -> Iterator[Result]:
    """The disk and SQLite drivers, beside diskcache as it comes."""
    import diskcache

    from session_kit.drivers.disk import DiskDriver
    from session_kit.drivers.sqlite import SQLiteDriver

    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        cache = stack.enter_context(closing(diskcache.Cache(str(folder / "theirs"))))
        driver = stack.enter_context(closing(DiskDriver(folder / "ours")))
        sqlite = stack.enter_context(closing(SQLiteDriver(folder / "ours.db")))
        names = [f"session-{number}" for number in range(1000)]

        def case(call: Callable[[str], object]) -> Case:
            def call_all(number: int) -> None:
                for name in names[:number]:
                    call(name)

            return call_all

        setting = {
            "disk": case(lambda name: driver.set(name, VALUE, ttl=3600)),
            "sqlite": case(lambda name: sqlite.set(name, VALUE, ttl=3600)),
            "theirs": case(lambda name: cache.set(name, VALUE, expire=3600)),
        }
        best = compare(setting, NUMBER, rounds=9, noise=noise)
        yield Result("disk: set", "diskcache", best["disk"], best["theirs"], 0.8)
        yield Result("sqlite: set", "diskcache", best["sqlite"], best["theirs"], 0.6)
        getting = {"disk": case(driver.get), "sqlite": case(sqlite.get), "theirs": case(cache.get)}
        best = compare(getting, NUMBER, rounds=9, noise=noise)
        yield Result("disk: get", "diskcache", best["disk"], best["theirs"], 1.2)
        yield Result("sqlite: get", "diskcache", best["sqlite"], best["theirs"], 1.0)


def memory(noise: Noise) -> Iterator[Result]:
    """The memory driver with a million sessions, beside one with a thousand: the 99th percentile of each call."""
    from session_kit.drivers.memory import MemoryDriver

    populations = {"few": 1000, "many": 1_000_000}
    drivers: dict[str, MemoryDriver] = {}
    for name, count in populations.items():
        driver = drivers[name] = MemoryDriver()
        for number in range(count):
            driver.set(f"sess:{number:064}", VALUE, ttl=3600)

    def p99(driver: MemoryDriver, count: int, kind: str) -> float:
        keys = [f"sess:{random.randrange(count):064}" for _ in range(20_000)]
        durations = []
        for key in keys:
            begin = time.perf_counter()
            if kind == "get":
                driver.get(key)
            else:
                driver.set(key, VALUE, ttl=3600)
            durations.append(time.perf_counter() - begin)
        return summarize(durations, 1.0).p99

    for kind in ("get", "set"):
        best = dict.fromkeys(drivers, float("inf"))
        for _ in range(9):
            noise.probe()
            for name, driver in drivers.items():
                best[name] = min(best[name], p99(driver, populations[name], kind))
        yield Result(f"memory, a million sessions: {kind}, p99", "a thousand", best["many"], best["few"], 2.0)


def imports(noise: Noise) -> Iterator[Result]:
    """The first import of the library, beside that of json, each in a new interpreter."""
    path = str(Path(session_kit.__file__).parent.parent)
    program = "import sys, time; sys.path.insert(0, sys.argv[1]); begin = time.perf_counter(); import {}\n"
    program += "print(time.perf_counter() - begin)"
    best = {"session_kit": float("inf"), "json": float("inf")}
    for _ in range(25):
        noise.probe()
        for name in best:
            command = [sys.executable, "-I", "-S", "-c", program.format(name), path]
            printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            best[name] = min(best[name], float(printed))
    yield Result("import session_kit", "import json", best["session_kit"], best["json"], 5.0)


PARTS: list[Part] = [asgi_memory, asgi_large, flask, django, asgi_valkey, wsgi_valkey, disk, s3, memory, imports]


HEAD = (
    "| what | against | ours, µs | theirs, µs | ratio | at most | |\n| --- | --- | ---: | ---: | ---: | ---: | --- |\n"
)
PACKAGES = ("starlette", "starsessions", "flask", "django", "redis", "diskcache", "boto3")


def row(result: Result) -> str:
    """One row of the table in Markdown."""
    verdict = "" if result.ratio <= result.limit else "missed"
    figures = f"{microseconds(result.ours)} | {microseconds(result.theirs)} | {result.ratio:.2f}"
    return f"| {result.what} | {result.against} | {figures} | {result.limit:.2f} | {verdict} |\n"


def main() -> None:
    parts = {part.__name__: part for part in PARTS}
    parser = argparse.ArgumentParser(description="What sessions may cost, as ratios in one run.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(parts)}; default: all")
    parser.add_argument(
        "--write", action="store_true", help="into docs/performance.md and benchmarks/results/targets.txt"
    )
    chosen = parser.parse_args()
    if unknown := [name for name in chosen.parts if name not in parts]:
        parser.error(f"unknown: {unknown[0]}; known are {', '.join(parts)}")
    noise, made = Noise(), HEAD
    print(made, end="")
    for name in chosen.parts or parts:
        for result in parts[name](noise):
            made += row(result)
            print(row(result), end="", flush=True)
    below = f"\n{conditions(PACKAGES)}. {str(noise).capitalize()}.\n"
    print(below, end="")
    if chosen.write:
        PERFORMANCE.write_text(put_into(PERFORMANCE.read_text(), "targets", made + below))
        keep("targets.txt", made + below)


if __name__ == "__main__":
    main()
