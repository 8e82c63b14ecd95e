"""Django: a session engine with the whole of Django's API, and a middleware whose cookie other frameworks share.

    INSTALLED_APPS = [..., "session_kit.integrations.django"]  # system checks, and `manage.py clearsessions`
    SESSION_ENGINE = "session_kit.integrations.django"
    SESSION_KIT = {"store": "redis://localhost:6379/0"}

Under Django's own middleware the cookie is the session's id. For the signed cookie that all other integrations use, put
`session_kit.integrations.django.SessionMiddleware` in the place of Django's in `MIDDLEWARE`; its name is
`SESSION_COOKIE_NAME`, which the others call `"session"`. `SESSION_KIT` takes the options of `SessionManager`; `secret`
defaults to `SECRET_KEY` and `SECRET_KEY_FALLBACKS`, the attributes of the cookie to the settings `SESSION_COOKIE_*`.
"""

from session_kit.integrations.django.engine import SessionStore
from session_kit.integrations.django.middleware import SessionMiddleware

__all__ = ["SessionMiddleware", "SessionStore"]
