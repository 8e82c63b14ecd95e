"""What tests of sessions share: the secret, a store that waits, is down or dies, and what a visitor sees."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from session_kit import CookieOptions, DriverUnavailable
from session_kit.drivers import Capabilities, Driver
from session_kit.testing import FaultyDriver, Visitor, WrappedDriver

SECRET = "Kx7-not-for-production-but-long-enough-0123"
OLD_SECRET = "Old-not-for-production-but-long-enough-0123"
"""The one before it, where secrets are replaced."""
PLAIN_HTTP = CookieOptions(secure=False)


class SlowDriver(WrappedDriver):
    """A driver that may not be called on the event loop, like one behind a network; other tasks run meanwhile."""

    @property
    def capabilities(self) -> Capabilities:  # type: ignore[override]  # in place of those of the driver inside
        return Capabilities(renew=True, create=True, swap=True)

    async def acall(self, name: str, *args: Any, **kwargs: Any) -> Any:
        await asyncio.sleep(0)
        result = await super().acall(name, *args, **kwargs)
        await asyncio.sleep(0)
        return result


class Mortal(WrappedDriver):
    """A driver that dies at one of its calls, and stays dead until it is healed."""

    def __init__(self, driver: Driver) -> None:
        super().__init__(driver)
        self._lives, self._landed, self._lock = float("inf"), False, threading.Lock()

    def die(self, at: int, *, landed: bool = False) -> None:
        """At the call with that number from now, counted from 1. landed: it does its work, and the answer is lost."""
        self._lives, self._landed = at, landed

    def heal(self) -> None:
        self._lives = float("inf")

    def call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        with self._lock:
            self._lives -= 1
            dead, dying = self._lives < 0, self._lives == 0
        if dead or (dying and not self._landed):
            raise DriverUnavailable("it died")
        result = super().call(name, *args, **kwargs)
        if dying:
            raise DriverUnavailable("it died")
        return result

    def keys(self, prefix: str = "") -> Iterator[str]:
        found: Iterator[str] = self.call("keys", prefix)
        return found


def cookie_of(headers: Iterable[tuple[str, str]]) -> str:
    """The cookie that a response sets, as the next request sends it."""
    return dict(headers)["Set-Cookie"].partition(";")[0]


class PlainStore:
    """A store that an application brings: the four methods that are asked for, on a dict."""

    def __init__(self) -> None:
        self.sessions: dict[str, dict[str, Any]] = {}

    def __repr__(self) -> str:
        return "<PlainStore>"

    def get(self, sid: str) -> dict[str, Any] | None:
        return self.sessions.get(sid)

    def set(self, sid: str, data: Mapping[str, Any]) -> None:
        self.sessions[sid] = dict(data)

    def touch(self, sid: str, data: Mapping[str, Any] | None = None) -> None: ...

    def destroy(self, sid: str) -> None:
        self.sessions.pop(sid, None)


def take_down(driver: FaultyDriver) -> None:
    """Let it fail as a store does that is down, until `heal`."""
    for method in ("read", "renew", "set", "delete"):
        driver.fail(method)


def log_in(visitor: Visitor, **data: Any) -> Visitor:
    """Begin a session that says who the visitor is, with more data if any."""
    with visitor.request() as session:
        session.update(user="ada", **data)
    return visitor


def read(visitor: Visitor, cookie: str | None = None) -> dict[str, Any]:
    """All that is in the session of a visitor, or in that of another cookie."""
    with visitor.request(cookie) as session:
        return dict(session)
