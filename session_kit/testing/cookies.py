"""A visitor who has a session already: the cookies of one, for the test client of any framework."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from session_kit.manager import SessionManager


def session_cookies(app: Any, data: Mapping[str, Any] | None = None, /, **values: Any) -> dict[str, str]:
    """Store a session and return the cookies of its visitor: one, by its name.

    app: a `SessionManager`, or an application that has one: of Starlette, FastAPI, Litestar, Flask, Quart or aiohttp,
        or our middleware around one.
    data, values: what is in the session.
    Raises `LookupError` for an application in which no manager is found; then pass the manager.

    >>> manager = SessionManager("memory://", secret="N3w-secret-of-at-least-32-characters!")
    >>> cookies = session_cookies(manager, user="ada")
    >>> manager.open("; ".join(map("=".join, cookies.items())))["user"]
    'ada'
    """
    manager = manager_of(app)
    session = manager.open().update(data or {}, **values)
    headers = dict(manager.commit(session))
    manager.finish(session)
    if "Set-Cookie" not in headers:
        raise ValueError("a session without data is not stored and has no cookie; put something into it")
    name, _, value = headers["Set-Cookie"].partition(";")[0].partition("=")
    return {name: value}


def manager_of(app: Any) -> SessionManager:
    """The manager of an application. `LookupError` if none is found."""
    parts = [app]
    for part in parts:
        if isinstance(part, SessionManager):
            return part
        if len(parts) < 1000:
            parts += _parts_of(part)
    kind = type(app).__name__
    raise LookupError(f"no SessionManager is found in this {kind}; make one, give it to the application as manager=...")


def _parts_of(app: Any) -> Iterator[Any]:
    """Where an application, or a middleware around one, may have its manager."""
    if isinstance(app, Mapping):  # that of aiohttp is one, and the extensions of Flask are
        yield from app.values()
    if getattr(app, "middleware_stack", app) is None:  # Starlette makes it at the first request
        app.middleware_stack = app.build_middleware_stack()
    for name in ("manager", "extensions", "middleware_stack", "app", "application"):
        part = getattr(app, name, None)
        if part is not None:
            yield part
    yield from getattr(app, "plugins", ())
