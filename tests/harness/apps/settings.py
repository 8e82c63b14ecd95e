"""What web servers start: the application of a framework, with options from the environment of the server."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from session_kit import CookieOptions
from tests.harness.sessions import SECRET


def create_app() -> Any:
    """Make the application whose module in this folder the variable APP names."""
    return import_module(f"tests.harness.apps.{os.environ['APP']}").make_app(**options_from(os.environ))


def options_from(environment: Mapping[str, str]) -> dict[str, Any]:
    """The options for the integration of a framework.

    Environment:
        STORE: the URL of the store. Default `memory://`.
        SECRET: signs the cookies. Default: the same for all tests.
        ON_ERROR: what an outage of the store means. Default: the default of `SessionManager`.
        TRANSPORT: what carries the session. Default: the default of `SessionManager`.
        HEADER: that carries it. Default: the default of `SessionManager`.
        ROTATE_EVERY: when time rotates an id. Default: never.
        CLOCK: path of a file with the seconds by which the clock of the application is ahead. Default: it is right.
    """
    options: dict[str, Any] = {
        "store": environment.get("STORE", "memory://"),
        "secret": environment.get("SECRET", SECRET),
        "cookie": CookieOptions(secure=False),  # the tests speak plain http
    }
    if "ON_ERROR" in environment:
        options["on_error"] = environment["ON_ERROR"]
    for name in ("transport", "header", "rotate_every"):
        if name.upper() in environment:
            options[name] = environment[name.upper()]
    if "CLOCK" in environment:
        ahead = Path(environment["CLOCK"])
        options["clock"] = lambda: time.time() + float(ahead.read_text())
    return options
