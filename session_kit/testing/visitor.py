"""A visitor with a cookie jar, whose requests can overlap: the harness for tests of what happens between requests."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from session_kit.headers import Headers
from session_kit.manager import SessionManager
from session_kit.session import Session


class Visitor:
    """Plays the requests of one browser against a manager, without a web framework.

    manager: opens and commits the sessions.
    runner: if given, all I/O goes through the async twins, in its event loop.

    Requests nest, so that an overlap is what it looks like. The inner request ends first:

    >>> visitor = Visitor(SessionManager("memory://", secret="N3w-secret-of-at-least-32-characters!"))
    >>> with visitor.request() as session:
    ...     session["user"] = "ada"
    >>> with visitor.request() as slow:
    ...     slow["page"] = 1
    ...     with visitor.request() as fast:
    ...         visitor.do(fast, "destroy")
    >>> visitor.cookie is None
    True
    """

    def __init__(self, manager: SessionManager, runner: asyncio.Runner | None = None) -> None:
        self.manager = manager
        self.runner = runner
        self.cookie: str | None = None
        self.headers: Headers = []

    @contextmanager
    def request(self, cookie: str | None = None) -> Iterator[Session[Any]]:
        """One request: yields its session, loaded, and commits it at the end unless the block raises.

        cookie: the `Cookie` header to send in place of the visitor's own; empty: none.
        """
        header = self.cookie if cookie is None else cookie
        session = self.manager.open(header or "", asynchronous=self.runner is not None)
        self.do(session, "load")
        yield session
        self.headers = self._commit(session)
        for name, value in self.headers:
            if name == "Set-Cookie":
                self._receive(value)

    def do(self, session: Session[Any], method: str, **options: Any) -> Any:
        """Call a session's method that does I/O by its name, blocking or async, as the visitor is."""
        if self.runner is None:
            return getattr(session, method)(**options)
        return self.runner.run(getattr(session, f"a{method}")(**options))

    def _commit(self, session: Session[Any]) -> Headers:
        if self.runner is None:
            return self.manager.commit(session)
        return self.runner.run(self.manager.acommit(session))

    def _receive(self, set_cookie: str) -> None:
        pair, *attributes = set_cookie.split("; ")
        self.cookie = None if "Max-Age=0" in attributes else pair
