"""System checks: what `manage.py check` says of the settings. With `--deploy` also of the secret, as Django does."""

from __future__ import annotations

from typing import Any

from django import conf
from django.core.checks import Error, Tags, Warning, register

from session_kit.errors import ConfigError
from session_kit.integrations.django.engine import SessionStore
from session_kit.integrations.django.middleware import THEIRS, SessionMiddleware, engine
from session_kit.integrations.django.settings import is_set, manager, options, weakness

OURS = f"{SessionMiddleware.__module__.rpartition('.')[0]}.{SessionMiddleware.__name__}"
ENGINE = OURS.rpartition(".")[0]
DJANGO_COLUMN = 40
"""Letters that Django's table has for a session key, and so have the tables of many packages."""


def register_all() -> None:
    """Let Django know of the checks."""
    register(check_settings)
    register(check_secret, Tags.security, deploy=True)


def check_settings(**_: Any) -> list[Any]:
    """Whether the sessions can work, and whether the parts of Django agree on them."""
    try:
        made = manager()
    except ConfigError as error:
        return [Error(str(error), obj="SESSION_KIT", id="session_kit.E001")]
    found: list[Any] = []
    shared = OURS in conf.settings.MIDDLEWARE
    if shared and THEIRS in conf.settings.MIDDLEWARE:
        found.append(
            Error("two session middlewares", hint=f"Remove {THEIRS}.", obj="MIDDLEWARE", id="session_kit.E002")
        )
    if shared and not (is_set("SESSION_ENGINE") and issubclass(engine(), SessionStore)):
        hint = f'The test client, clearsessions and Channels go by it: SESSION_ENGINE = "{ENGINE}".'
        found.append(Warning("SESSION_ENGINE is not ours", hint=hint, obj="SESSION_ENGINE", id="session_kit.W001"))
    if not shared and made.policy.header is not None:
        hint = f"Put {OURS} in the place of Django's middleware, which reads and sets a cookie only."
        found.append(Warning("no middleware reads the header", hint=hint, obj="SESSION_KIT", id="session_kit.W005"))
    if shared and "name" in options() and made.policy.cookie.name != conf.settings.SESSION_COOKIE_NAME:
        hint = "Django's test client and packages go by SESSION_COOKIE_NAME: set that instead."
        found.append(Warning("the cookie has two names", hint=hint, obj="SESSION_KIT", id="session_kit.W002"))
    if len(made.policy.make_id()) > DJANGO_COLUMN:
        hint = f"Let generate_id return at most {DJANGO_COLUMN - 23} letters."
        found.append(Warning("ids are longer than 40", hint=hint, obj="SESSION_KIT", id="session_kit.W003"))
    return found


def check_secret(**_: Any) -> list[Any]:
    """Whether `SECRET_KEY` is fit to sign cookies, if it does."""
    if not isinstance(getattr(conf.settings, "SESSION_KIT", None), dict) or options().get("secret"):
        return []
    found = weakness(conf.settings.SECRET_KEY)
    if found is None:
        return []
    hint = "It signs the cookies of this project, but other frameworks would refuse it, so none can be shared."
    return [Warning(f"SECRET_KEY: {found}", hint=hint, obj="SECRET_KEY", id="session_kit.W004")]
