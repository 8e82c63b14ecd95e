"""Who visits the applications, what they ask for, and what it takes: the clock stands at the application's edge."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from session_kit.benchmarks.maintainers.apps import NONE, Backends, Peer
from session_kit.benchmarks.maintainers.results import Figures
from tests.harness.sites import InProcess, Site, UnderAiohttp
from tests.harness.visitors import Browser

VISIT = ["first page", "login", *["read"] * 4, *["write"] * 2, "untouched", "logout"]
KINDS = list(dict.fromkeys(VISIT))
WHOLE = "ten requests"
SIZE = 200  # bytes of a session
NUMBERS = itertools.count()


class Guest(Browser):
    """Somebody new, who has a cookie of another application. size: bytes of the session."""

    def __init__(self, site: Site, peer: Peer, size: int = SIZE) -> None:
        super().__init__(site, trusting=True)
        self.client.cookies.set("theme", "dark")
        self._peer, self._size = peer, size

    def request(self, kind: str) -> httpx.Request:
        """A request of a visit. A write is of another value each time."""
        method, path, query = {
            "login": ("POST", "/write", {"key": "user", "value": "ada" + "x" * (self._size - 20)}),
            "read": ("GET", "/read", {"key": "user"}),
            "write": ("POST", "/write", {"key": "visits", "value": str(next(NUMBERS))}),
            "logout": ("POST", self._peer.logout, {}),
        }.get(kind, ("GET", "/untouched", {}))
        return self.client.build_request(method, path, params=query)

    def ask(self, kind: str) -> None:
        """Make a request of a visit, which must succeed."""
        self.client.send(self.request(kind)).raise_for_status()


class Unfaithful(AssertionError):
    """An application does not keep a session as it should."""


def validate(site: Site, peer: Peer) -> None:
    """Visit a site as two visitors who must not be taken for each other. `Unfaithful` says what went wrong."""
    ada, bob = Guest(site, peer), Guest(site, peer)

    def expect(guest: Guest, key: str, value: str | None) -> None:
        guest.get("/untouched")
        found = guest.read(key)
        if found != value:
            raise Unfaithful(f"{peer.name}: {key} is {found!r} where {value!r} is right")

    for guest, name in ((ada, "ada"), (bob, "bob")):
        expect(guest, "user", None)
        guest.write("user", name)
        guest.write("visits", "1")
    ada.write("visits", "2")
    expect(ada, "user", "ada")
    expect(ada, "visits", "2")
    expect(bob, "visits", "1")
    ada.do(peer.logout)
    expect(ada, "user", None)
    expect(bob, "user", "bob")
    ada.write("user", "eve")
    expect(ada, "user", "eve")
    expect(ada, "visits", None)


class TimedSite(Site):
    """An application in this process; aiohttp's behind the server that it brings.

    seconds: that its last request took, without what the client and the network take.
    """

    seconds = 0.0

    def __init__(self, app: Any, interface: str) -> None:
        timed = {"asgi": self._asgi, "wsgi": self._wsgi, "aiohttp": self._aiohttp}[interface](app)
        self.inner = UnderAiohttp(timed) if interface == "aiohttp" else InProcess(timed)
        self.url, self.transport = self.inner.url, self.inner.transport

    def stop(self) -> None:
        self.inner.stop()

    def _asgi(self, app: Any) -> Any:
        async def timed(scope: Any, receive: Any, send: Any) -> None:
            begin = time.perf_counter()
            await app(scope, receive, send)
            self.seconds = time.perf_counter() - begin

        return timed

    def _wsgi(self, app: Any) -> Any:
        def timed(environ: Any, start_response: Callable[..., Any]) -> list[bytes]:
            begin = time.perf_counter()
            parts = app(environ, start_response)
            body = list(parts)
            if hasattr(parts, "close"):
                parts.close()
            self.seconds = time.perf_counter() - begin
            return body

        return timed

    def _aiohttp(self, app: Any) -> Any:
        from aiohttp import web

        @web.middleware
        async def begin(request: Any, handler: Any) -> Any:
            self._begun = time.perf_counter()  # one request comes at a time
            return await handler(request)

        async def end(request: Any, response: Any) -> None:
            self.seconds = time.perf_counter() - self._begun

        app.middlewares.insert(0, begin)
        app.on_response_prepare.append(end)
        return app


@contextmanager
def open_site(peer: Peer, backends: Backends) -> Iterator[TimedSite]:
    """The application of a peer, which has shown that it keeps sessions, if it has any."""
    with TimedSite(peer.app(backends), peer.interface) as site:
        if peer.sessions != NONE:
            validate(site, peer)
        yield site


def play(site: TimedSite, peer: Peer, size: int, visits: int = 1) -> Figures:
    """Visits, one after another: the seconds that a request of each kind took, and a whole visit, on the average."""
    spent = dict.fromkeys(KINDS, 0.0)
    for _ in range(visits):
        guest = Guest(site, peer, size)
        for kind in VISIT:
            guest.ask(kind)
            spent[kind] += site.seconds
    costs = {kind: seconds / visits / VISIT.count(kind) for kind, seconds in spent.items()}
    return costs | {WHOLE: sum(spent.values()) / visits}
