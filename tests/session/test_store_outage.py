"""The store goes down under a running application: every framework, under its real server, with a real Valkey and a
real PostgreSQL.

With `on_error="raise"` a request that needs its session is a 503; with `"anonymous"` it gets an empty session, which is
never saved over the real one. Either way a handler that does not touch the session notices nothing, and all is as it
was when the store is back. (An ASGI application asks a store behind a network before its handler runs, because the
handler cannot wait; what that meets is kept for whoever touches the session.)
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.harness.postgres import Postgres, start_postgres
from tests.harness.relay import Relay, wanted
from tests.harness.servers import Valkey, start_valkey
from tests.harness.sites import Site
from tests.harness.visitors import Browser, slow_write
from tests.harness.web_servers import FRAMEWORKS, WebServer

pytestmark = pytest.mark.feature("outage of the store")


Store = Valkey | Postgres


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Store]]:
    """Starts a server, once, that has its data after a restart."""
    with contextlib.ExitStack() as running:

        @functools.cache
        def start(name: str) -> Store:
            folder = tmp_path_factory.mktemp(name)
            if name == "postgres":
                return running.enter_context(start_postgres(folder))
            return running.enter_context(
                start_valkey(folder, config=["--appendonly", "yes", "--appendfsync", "always"])
            )

        yield start


@pytest.fixture(scope="module")
def servers(
    request: pytest.FixtureRequest, stores: Callable[[str], Store], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Relay]:
    lock = threading.Lock()

    def start(which: tuple[str, str, str]) -> WebServer:
        name, on_error, store = which
        with lock:
            url = stores(store).url
        return WebServer(FRAMEWORKS[name], {"STORE": url, "ON_ERROR": on_error}, tmp_path_factory.mktemp(name))

    with Relay(start, wanted(request, "site")) as servers:
        yield servers


@pytest.fixture(scope="module")
def site(request: pytest.FixtureRequest, servers: Relay) -> Iterator[Site]:
    with servers.server(request.param) as site:
        yield site


@pytest.fixture
def durable(request: pytest.FixtureRequest, stores: Callable[[str], Store]) -> Store:
    """The server that has the sessions of `site`."""
    return stores(request.node.callspec.params["site"][2])


def sites(on_error: str) -> Any:
    """A mark: the test gets `site`, which is every framework in turn."""
    several = [
        pytest.param((name, on_error, store), id=f"{name}{suffix}", marks=marks)
        for store, suffix, marks in (("valkey", "", ()), ("postgres", "-postgres", pytest.mark.slow))
        for name in FRAMEWORKS
    ]
    return pytest.mark.parametrize("site", several, indirect=True, scope="module")


raising, anonymous = sites("raise"), sites("anonymous")


@contextlib.contextmanager
def outage(server: Store) -> Iterator[None]:
    server.stop()
    try:
        yield
    finally:
        server.start()


def is_refused(response: httpx.Response) -> bool:
    return response.status_code == 503 and "set-cookie" not in response.headers


@raising
def test_an_outage_is_a_503_and_no_logout(site: Site, durable: Store) -> None:
    ada, nobody = Browser(site), Browser(site)
    ada.write("user", "ada")
    with outage(durable):
        assert is_refused(ada.get("/read", key="user"))
        assert is_refused(ada.post("/write", key="user", value="eve"))
        assert is_refused(ada.post("/rotate"))
        assert is_refused(ada.post("/logout"))
        assert is_refused(ada.get("/stream", key="user", value="eve"))
        assert is_refused(nobody.post("/write", key="user", value="eve"))
        for browser in (ada, nobody):
            assert browser.get("/untouched").json() == {"ok": True}
        assert nobody.read("user") is None  # nothing is asked of the store
    assert ada.read("user") == "ada"
    assert nobody.read("user") is None


@raising
def test_an_outage_while_the_handler_runs_is_a_503_and_loses_nothing(
    site: Site, durable: Store, tmp_path: Path
) -> None:
    ada = Browser(site)
    ada.write("user", "ada")
    with contextlib.ExitStack() as down:
        with slow_write(ada, tmp_path, "user", "eve") as response:
            down.enter_context(outage(durable))
        assert is_refused(response.result())
    assert ada.read("user") == "ada"


@anonymous
def test_an_anonymous_session_is_never_saved_over_the_real_one(site: Site, durable: Store) -> None:
    ada, nobody = Browser(site), Browser(site)
    ada.write("user", "ada")
    before = ada.cookie
    assert ada.get("/unavailable").json() == {"unavailable": False}
    with outage(durable):
        assert ada.get("/unavailable").json() == {"unavailable": True}
        assert ada.read("user") is None
        assert ada.get("/stream", key="user", value="eve").text == "onetwo"
        for browser in (ada, nobody):
            browser.write("user", "eve")
            browser.do("/count")
            assert browser.get("/untouched").json() == {"ok": True}
    assert (ada.cookie, nobody.cookie) == (before, None)
    assert ada.get("/unavailable").json() == {"unavailable": False}
    assert (ada.read("user"), ada.read("count")) == ("ada", None)


@anonymous
def test_an_anonymous_session_drops_what_an_outage_overtakes(site: Site, durable: Store, tmp_path: Path) -> None:
    ada = Browser(site)
    ada.write("user", "ada")
    before = ada.cookie
    with contextlib.ExitStack() as down:
        with slow_write(ada, tmp_path, "user", "eve") as response:
            down.enter_context(outage(durable))
        assert response.result().status_code == 200
    assert ada.cookie == before
    assert ada.read("user") == "ada"
