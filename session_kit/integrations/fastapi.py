"""Sessions for FastAPI: `request.session`, or a typed dependency.

>>> from dataclasses import dataclass, field
>>> from typing import Annotated
>>> from fastapi import Depends, FastAPI
>>> @dataclass
... class Cart:
...     items: list[str] = field(default_factory=list)
>>> app = FastAPI()
>>> app.add_middleware(
...     SessionMiddleware, store="memory://", secret="N3w-secret-of-at-least-32-characters!", data_type=Cart
... )
>>> @app.post("/cart")
... async def add(item: str, session: Annotated[Session[Cart], Depends(use_session)]) -> Cart:
...     session.data.items.append(item)
...     return session.data
"""

from __future__ import annotations

from typing import Any

from fastapi.openapi.models import APIKey, APIKeyIn
from fastapi.security.base import SecurityBase

# At run time too: FastAPI reads the annotations.
from starlette.requests import HTTPConnection

from session_kit import asgi
from session_kit.asgi import SessionMiddleware
from session_kit.session import Session
from session_kit.transport import AUTHORIZATION, TokenHeader

__all__ = ["Session", "SessionHeader", "SessionMiddleware", "use_session"]


async def use_session(connection: HTTPConnection) -> Session[Any]:
    """Return the session, loaded: the dependency of a handler, or called with its request or WebSocket.

    As a dependency it adds nothing to the OpenAPI schema. Handlers of both kinds may have it; one that is not `async`
    runs in a thread and uses the blocking methods, as in `session.save()`.

    connection: FastAPI gives it.
    Raises `SessionError` if the middleware is missing, `DriverUnavailable` if the store does not answer.
    """
    return await asgi.use_session(connection)


class SessionHeader(SecurityBase):
    """`use_session`, for sessions that come in a header: the OpenAPI schema names it, and its pages show a lock.

    name: of the header, as the middleware has it: `header=`. Default `"Authorization"`.
    scheme_name: what the schema calls it. Default `"session"`.
    A request without the header has an empty session; whether that is a 401 is for the handler to say.

    >>> from typing import Annotated
    >>> from fastapi import Depends, FastAPI
    >>> app = FastAPI()
    >>> app.add_middleware(
    ...     SessionMiddleware, store="memory://", secret="N3w-secret-of-at-least-32-characters!", transport="header"
    ... )
    >>> @app.get("/me")
    ... async def me(session: Annotated[Session, Depends(SessionHeader())]) -> str:
    ...     return session.get("user", "nobody")
    """

    def __init__(self, name: str = AUTHORIZATION, *, scheme_name: str = "session") -> None:
        # No scheme of HTTP's own: the pages know how to ask for `Basic` and `Bearer` alone.
        described = {"in": APIKeyIn.header, "name": name, "description": TokenHeader(name, alone=False).description}
        self.model = APIKey.model_validate(described)
        self.scheme_name = scheme_name

    async def __call__(self, connection: HTTPConnection) -> Session[Any]:
        return await asgi.use_session(connection)
