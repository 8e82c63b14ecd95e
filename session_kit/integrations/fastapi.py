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

# At run time too: FastAPI reads the annotations.
from starlette.requests import HTTPConnection

from session_kit import asgi
from session_kit.asgi import SessionMiddleware
from session_kit.session import Session

__all__ = ["Session", "SessionMiddleware", "use_session"]


async def use_session(connection: HTTPConnection) -> Session[Any]:
    """Return the session, loaded: the dependency of a handler, or called with its request or WebSocket.

    As a dependency it adds nothing to the OpenAPI schema. Handlers of both kinds may have it; one that is not `async`
    runs in a thread and uses the blocking methods, as in `session.save()`.

    connection: FastAPI gives it.
    Raises `SessionError` if the middleware is missing, `DriverUnavailable` if the store does not answer.
    """
    return await asgi.use_session(connection)
