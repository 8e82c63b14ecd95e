"""One store, one secret, five frameworks under their real servers: one login, and one logout, for all of them."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.harness.servers import Valkey
from tests.harness.sites import Site
from tests.harness.visitors import Browser, together
from tests.harness.web_servers import FRAMEWORKS, WebServer

NAMES = ("flask", "fastapi", "django", "aiohttp", "litestar")


@pytest.fixture(params=["disk", "valkey"])
def sites(request: pytest.FixtureRequest, valkey: Valkey, tmp_path: Path) -> Iterator[dict[str, Site]]:
    store = valkey.url if request.param == "valkey" else f"disk://{tmp_path}/store"

    def start(name: str) -> WebServer:
        folder = tmp_path / name
        folder.mkdir()
        return WebServer(FRAMEWORKS[name], {"STORE": store}, folder)

    with ThreadPoolExecutor(len(NAMES)) as pool:
        servers = list(pool.map(start, NAMES))
        yield dict(zip(NAMES, servers, strict=True))
        list(pool.map(WebServer.stop, servers))


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
