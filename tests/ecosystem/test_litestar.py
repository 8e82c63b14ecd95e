"""Litestar's own packages on sessions: `SessionAuth` and the flash plugin."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from harness.sessions import SECRET
from litestar import Litestar, Request, get
from litestar.middleware.session.server_side import ServerSideSessionConfig
from litestar.security.session_auth import SessionAuth
from visitor import Visit

from session_kit.integrations.litestar import SessionKit

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def sessions(store: str | None) -> Any:
    """Litestar's configuration of its own sessions, or our plugin."""
    return ServerSideSessionConfig() if store is None else SessionKit(store=store, secret=SECRET)


def config_of(sessions: Any) -> Any:
    return sessions.config if isinstance(sessions, SessionKit) else sessions


def plugins(sessions: Any) -> list[Any]:
    return [sessions] if isinstance(sessions, SessionKit) else []


@pytest.mark.package("litestar", "litestar")
def test_session_auth(sessions: Any, visit: Visit) -> None:
    async def find(session: dict[str, Any], connection: Any) -> str | None:
        return session.get("user")

    @get("/login")
    async def login(request: Request[Any, Any, Any]) -> str:
        request.set_session({"user": "ada"})
        return "ok"

    @get("/logout")
    async def logout(request: Request[Any, Any, Any]) -> str:
        request.clear_session()
        return "ok"

    @get("/me")
    async def me(request: Request[Any, Any, Any]) -> str:
        return str(request.user)

    auth = SessionAuth[str, Any](
        retrieve_user_handler=find, session_backend_config=config_of(sessions), exclude=["/login", "/logout"]
    )
    app = Litestar([login, logout, me], on_app_init=[auth.on_app_init], plugins=plugins(sessions))
    ada = visit(app)
    assert ada.get("/me").status_code == 401
    ada.text("/login")
    assert ada.text("/me") == "ada"
    ada.text("/logout")
    assert ada.get("/me").status_code == 401


@pytest.mark.package("litestar", "litestar")
def test_flash_plugin(sessions: Any, visit: Visit) -> None:
    from litestar.contrib.jinja import JinjaTemplateEngine
    from litestar.plugins.flash import FlashConfig, FlashPlugin, flash, get_flashes
    from litestar.template.config import TemplateConfig

    @get("/say")
    async def say(request: Request[Any, Any, Any]) -> str:
        flash(request, "hello", category="note")
        return "ok"

    @get("/said")
    async def said(request: Request[Any, Any, Any]) -> list[str]:
        return [message["message"] for message in get_flashes({"request": request})]

    templates = TemplateConfig(engine=JinjaTemplateEngine, directory=Path(__file__).parent)
    # Litestar's plugin looks for a session middleware that is there already: ours comes first.
    own = [] if isinstance(sessions, SessionKit) else [sessions.middleware]
    flashes = FlashPlugin(FlashConfig(template_config=templates))
    app = Litestar([say, said], plugins=[*plugins(sessions), flashes], middleware=own)
    ada = visit(app)
    ada.text("/say")
    assert ada.get("/said").json() == ["hello"]
    assert ada.get("/said").json() == []
