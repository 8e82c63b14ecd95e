"""One store, one secret, five frameworks under their real servers: one login, and one logout, for all of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.servers import Valkey
from tests.web_servers import FRAMEWORKS, Browser, Site, WebServer, together

NAMES = ("flask", "fastapi", "django", "aiohttp", "litestar")


@pytest.fixture(params=["disk", "valkey"])
def sites(request: pytest.FixtureRequest, valkey: Valkey, tmp_path: Path) -> Iterator[dict[str, Site]]:
    store = valkey.url if request.param == "valkey" else f"disk://{tmp_path}/store"
    with ExitStack() as stack:
        folders = {name: tmp_path / name for name in NAMES}
        for folder in folders.values():
            folder.mkdir()
        yield {
            name: stack.enter_context(WebServer(FRAMEWORKS[name], {"STORE": store}, folder))
            for name, folder in folders.items()
        }


def test_a_login_on_flask_is_one_everywhere_and_so_is_a_logout_on_litestar(sites: dict[str, Site]) -> None:
    ada = Browser(sites["flask"])
    ada.write("user", "ada")
    ada.do("/rotate")  # as a login does
    assert ada.visit(sites["fastapi"]).read("user") == "ada"

    cookie = ada.cookie
    assert cookie is not None
    counters = [Browser(sites[name], cookie) for name in ("django", "aiohttp")] * 10
    together(*[lambda browser=browser: browser.do("/count") for browser in counters])
    for name in NAMES:
        assert Browser(sites[name], cookie).read("count") == 20, name

    ada.visit(sites["litestar"]).do("/logout")
    assert ada.cookie is None
    for name in NAMES:
        thief = Browser(sites[name], cookie)
        assert (thief.read("user"), thief.read("count")) == (None, None), name
