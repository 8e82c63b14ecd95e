"""Django: a session engine with the whole of Django's API, and a middleware whose cookie other frameworks share.

As an engine, with Django's own middleware and cookie:

    SESSION_ENGINE = "session_kit.integrations.django"
    SESSION_KIT = {"store": "redis://localhost:6379/0"}

For the signed cookie that all other integrations use, put `session_kit.integrations.django.SessionMiddleware` in the
place of Django's in `MIDDLEWARE`. `SESSION_KIT` then also takes the options of `SessionManager`; `secret` defaults to
`SECRET_KEY` and `SECRET_KEY_FALLBACKS`, name and attributes of the cookie to the settings `SESSION_COOKIE_*`.
"""

from session_kit.integrations.django.engine import SessionStore
from session_kit.integrations.django.middleware import SessionMiddleware
from session_kit.integrations.django.shared import SharedSession

__all__ = ["SessionMiddleware", "SessionStore", "SharedSession"]
