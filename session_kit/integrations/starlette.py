"""Sessions for Starlette: `request.session`, or `await use_session(request)`.

>>> from starlette.applications import Starlette
>>> app = Starlette()
>>> app.add_middleware(SessionMiddleware, store="memory://", secret="N3w-secret-of-at-least-32-characters!")

A handler that knows the type of its data says so: `session: Session[Cart] = await use_session(request)`.
"""

from __future__ import annotations

from session_kit.asgi import SessionMiddleware, use_session
from session_kit.session import Session

__all__ = ["Session", "SessionMiddleware", "use_session"]
