"""A visitor who has a session already: the cookies or the headers of one, for the test client of any framework."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from session_kit.manager import SessionManager


def session_cookies(app: Any, data: Mapping[str, Any] | None = None, /, **values: Any) -> dict[str, str]:
    """Store a session and return the cookies of its visitor: one, by its name.

    app: a `SessionManager`, or an application that has one: of Starlette, FastAPI, Litestar, Flask, Quart or aiohttp,
        or our middleware around one.
    data, values: what is in the session.
    Raises `LookupError` for an application in which no manager is found (then pass the manager) or that takes no
    cookies; `ValueError` without data, because such a session is not stored.

    >>> manager = SessionManager("memory://", secret="N3w-secret-of-at-least-32-characters!")
    >>> cookies = session_cookies(manager, user="ada")
    >>> manager.open("; ".join(map("=".join, cookies.items())))["user"]
    'ada'
    """
    policy = manager_of(app).policy
    if policy.header is not None and policy.header.alone:
        raise LookupError("this application takes no cookies; its sessions come in a header: session_headers")
    return {policy.cookie.name: _token(app, {**(data or {}), **values})}


def session_headers(app: Any, data: Mapping[str, Any] | None = None, /, **values: Any) -> dict[str, str]:
    """`session_cookies` for an application whose sessions come in a header (`transport="header"` or `"both"`).

    >>> manager = SessionManager(
    ...     "memory://", secret="N3w-secret-of-at-least-32-characters!", transport="header", header="X-Session"
    ... )
    >>> headers = session_headers(manager, user="ada")
    >>> manager.open([(b"x-session", headers["X-Session"].encode())])["user"]
    'ada'
    """
    header = manager_of(app).policy.header
    if header is None:
        raise LookupError("this application takes its sessions from cookies alone: session_cookies")
    return {header.name: header.value(_token(app, {**(data or {}), **values}))}


def _token(app: Any, data: Mapping[str, Any]) -> str:
    """Store a session and return its signed id."""
    manager = manager_of(app)
    session = manager.open().update(data)
    manager.commit(session)
    manager.finish(session)
    if session.is_new:
        raise ValueError("a session without data is not stored and has no cookie; put something into it")
    return manager.policy.signer.sign(session.id)


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
