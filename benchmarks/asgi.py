"""What the ASGI middleware costs over the bare application, beside Starlette's cookie middleware, in one run.

    python benchmarks/asgi.py [STORE_URL]

Each figure is the best of several interleaved rounds, so that the noise of the machine falls on all alike.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from typing import Any

from starlette.middleware.sessions import SessionMiddleware as StarletteSessions

from session_kit.asgi import SessionMiddleware

SECRET = "benchmark-secret-of-more-than-32-bytes"
PROFILE = {"user": "ada", "roles": ["admin", "editor"], "theme": "dark", "name": "Ada Lovelace", "note": "x" * 100}
REQUESTS = 1000
ROUNDS = 7

Scope = dict[str, Any]


def read(session: Any) -> None:
    session.get("user")


def write(session: Any) -> None:
    session["visits"] = session.get("visits", 0) + 1


def untouched(session: Any) -> None:
    pass


def login(session: Any) -> None:
    session.update(PROFILE)


def application(handle: Callable[[Any], None]) -> Any:
    async def app(scope: Scope, receive: Any, send: Any) -> None:
        handle(scope.get("session", {}))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    return app


async def request(app: Any, cookie: bytes) -> bytes:
    """Make one request and return the cookie to send with the next."""
    headers = [(b"host", b"localhost"), (b"accept", b"*/*"), (b"cookie", b"theme=dark; " + cookie)]
    answers: list[Any] = []

    async def send(message: Any) -> None:
        answers.append(message)

    await app({"type": "http", "method": "GET", "path": "/", "headers": headers}, None, send)
    sent = dict(answers[0]["headers"]).get(b"set-cookie", cookie)
    return bytes(sent.split(b";")[0])


async def measure(app: Any, cookie: bytes) -> float:
    begin = time.perf_counter()
    for _ in range(REQUESTS):
        await request(app, cookie)
    return (time.perf_counter() - begin) / REQUESTS * 1e6


async def main(url: str) -> None:
    ours: dict[str, Any] = {"store": url, "secret": SECRET}
    print(f"microseconds over the bare application; {url}\n{'':12}{'session_kit':>14}{'Starlette':>12}{'ratio':>8}")
    for handle in (read, write, untouched, login):
        bare, kit = application(handle), SessionMiddleware(application(handle), **ours)
        peer = StarletteSessions(application(handle), secret_key=SECRET)
        apps = {"bare": (bare, b""), "ours": (kit, b""), "peer": (peer, b"")}
        if handle is not login:
            logged_in = SessionMiddleware(application(login), manager=kit.manager)
            cookies = (
                await request(logged_in, b""),
                await request(StarletteSessions(application(login), secret_key=SECRET), b""),
            )
            apps |= {"ours": (kit, cookies[0]), "peer": (peer, cookies[1])}
        best = dict.fromkeys(apps, float("inf"))
        for _ in range(ROUNDS):
            for name, (app, cookie) in apps.items():
                best[name] = min(best[name], await measure(app, cookie))
        kit_cost, peer_cost = best["ours"] - best["bare"], best["peer"] - best["bare"]
        print(f"{handle.__name__:12}{kit_cost:14.1f}{peer_cost:12.1f}{kit_cost / peer_cost:8.2f}")
        kit.manager.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:] or ["memory://"]))
