"""The three shops in `examples` share one login, however they are started, and are as short and strict as they look."""

from __future__ import annotations

import html
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.harness.servers import HOST, Server, Valkey
from tests.harness.sessions import SECRET
from tests.harness.sites import RunningSite, Site
from tests.harness.visitors import Browser

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
COMPOSE: dict[str, Any] = yaml.safe_load((EXAMPLES / "compose.yaml").read_text())
EVERYWHERE = "0.0.0.0"  # noqa: S104  # what a container listens on; here it is replaced
NAMES = ("FastAPI", "Flask", "Django")
PORTS = {"FastAPI": 8001, "Flask": 8002, "Django": 8003}
LAPTOP = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
PHONE = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) Version/18.5 Mobile/15E148 Safari/604.1"
Shops = Mapping[str, str]


class Shop(Server):
    """A command in the folder `examples`, with environment, whose shops answer on this port or from this one on."""

    def __init__(self, folder: Path, command: str, environment: Mapping[str, str], shops: int = 1) -> None:
        self._words = shlex.split(command)
        self._settings = environment
        self._shops = shops
        super().__init__(folder, self._words[0])

    def _command(self) -> list[str]:
        program, *words = self._words
        found = re.sub(r"\b800\d\b", str(self.port), "\0".join(words)).replace(EVERYWHERE, HOST).split("\0")
        module = [] if program == "python" else ["-m", program]
        return [sys.executable, *module, *(str(EXAMPLES / word) if word.endswith(".py") else word for word in found)]

    def _environment(self) -> dict[str, str]:
        path = os.pathsep.join([str(ROOT), str(EXAMPLES)])
        return {"FIRST_PORT": str(self.port), "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **self._settings}

    def _ready(self) -> bool:
        for url in self.urls:
            with socket.create_connection((HOST, int(url.rpartition(":")[2])), 5):
                pass
        return True

    @property
    def urls(self) -> list[str]:
        return [f"http://{HOST}:{self.port + number}" for number in range(self._shops)]


class Customer(Browser):
    """A browser in the three shops, which follows redirects."""

    def __init__(self, shops: Shops, site: Site, user_agent: str) -> None:
        super().__init__(site)
        self.shops = shops
        self.client.headers["User-Agent"] = user_agent
        self.client.follow_redirects = True

    def look(self, shop: str) -> Page:
        response = self.client.get(f"{self.shops[shop]}/")
        assert response.status_code == 200, response.text
        return Page(response.text)

    def submit(self, shop: str, path: str, **fields: str) -> Page:
        """Send a form of a shop's page, and return the page that it leads to."""
        response = self.answer(shop, path, **fields)
        assert response.status_code == 200, response.text
        return Page(response.text)

    def answer(self, shop: str, path: str, **fields: str) -> httpx.Response:
        token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', self.client.get(f"{self.shops[shop]}/").text)
        if token is not None:
            fields["csrfmiddlewaretoken"] = token[1]
        return self.client.post(f"{self.shops[shop]}{path}", data=fields)


class Page:
    """What a visitor reads on a shop's page."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.user = next(iter(self._all(r'id="user">(.*?)</span>')), None)
        counts = re.findall(r"<li><span>(.*?)</span><b>(\d+)</b>", text)
        self.cart = {html.unescape(item): int(count) for item, count in counts}
        self.messages = self._all(r'role="status">(.*?)</p>')
        self.devices = self._all(r'class="device">(.*?)</span>')
        self.handles = self._all(r'name="handle" value="(\w+)"')

    def _all(self, pattern: str) -> list[str]:
        return [html.unescape(found) for found in re.findall(pattern, self.text)]


def by_script(folder: Path, store: str) -> list[Shop]:
    return [Shop(folder, "python run.py", {}, shops=3)]


def alone(folder: Path, store: str) -> list[Shop]:
    """By the commands in the README, each in a process of its own."""
    commands = re.findall(r"^\| \[\w+\.py\].*`(.*)` \|$", (EXAMPLES / "README.md").read_text(), re.MULTILINE)
    assert len(commands) == len(NAMES)
    shared = {"SESSION_STORE": f"sqlite://{folder}/sessions.db", "SESSION_SECRET": SECRET}
    return [Shop(folder, command, shared) for command in commands]


def by_compose(folder: Path, store: str) -> list[Shop]:
    """By the commands in compose.yaml, without the containers."""
    services = [COMPOSE["services"][name.lower()] for name in NAMES]
    settings = {**services[0]["environment"], "SESSION_SECRET": SECRET}
    settings["SESSION_STORE"] = settings["SESSION_STORE"].replace("valkey://valkey:6379/0", store)
    return [Shop(folder, service["command"], settings) for service in services]


@pytest.fixture(scope="module", params=[by_script, alone, by_compose], ids=["run.py", "alone", "compose.yaml"])
def shops(
    request: pytest.FixtureRequest, valkey: Valkey, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, str]]:
    start: Callable[[Path, str], list[Shop]] = request.param
    with ExitStack() as stack:
        started = start(tmp_path_factory.mktemp("shops"), valkey.url)
        for server in started:
            stack.enter_context(server)
        yield dict(zip(NAMES, [url for server in started for url in server.urls], strict=True))


@pytest.fixture
def new_browser(shops: Shops) -> Iterator[Callable[..., Customer]]:
    with RunningSite(f"http://{HOST}") as site:
        yield lambda user_agent=LAPTOP: Customer(shops, site, user_agent)


@pytest.fixture
def browser(new_browser: Callable[..., Customer]) -> Customer:
    return new_browser()


@pytest.mark.parametrize("turn", range(3), ids=["FastAPI-first", "Flask-first", "Django-first"])
def test_a_login_a_cart_and_a_logout_are_those_of_all_three_shops(
    browser: Customer, new_browser: Callable[..., Customer], turn: int
) -> None:
    first, second, third = (*NAMES, *NAMES)[turn : turn + 3]
    assert browser.submit(first, "/login", name="Ada").user == "Ada"
    assert browser.submit(second, "/cart", item="Apples").cart == {"Apples": 1}
    seen = browser.look(third)
    assert (seen.user, seen.cart) == ("Ada", {"Apples": 1})
    assert browser.submit(third, "/cart", item="Apples").cart == {"Apples": 2}

    thief = new_browser()
    thief.client.cookies.update(browser.client.cookies)
    assert thief.look(first).user == "Ada"
    browser.submit(second, "/logout")
    for name in NAMES:
        for visitor in (browser, thief):
            assert (visitor.look(name).user, visitor.look(name).cart) == (None, {}), name


def test_your_devices_are_listed_and_ended_from_each_other(new_browser: Callable[..., Customer]) -> None:
    laptop, phone, eve = new_browser(LAPTOP), new_browser(PHONE), new_browser()
    laptop.submit("FastAPI", "/login", name="Grace")
    phone.submit("Django", "/login", name="Grace")
    eve.submit("Flask", "/login", name="Eve")
    page = laptop.look("Flask")
    listed = ["Firefox, logged in at the FastAPI shop", "Safari, logged in at the Django shop"]
    assert sorted(page.devices) == listed
    [handle] = page.handles  # of the other: this one has no button
    eve.submit("Flask", "/devices/end", handle=handle)
    assert phone.look("Django").user == "Grace"
    assert laptop.submit("Flask", "/devices/end", handle=handle).devices == listed[:1]
    assert [phone.look(name).user for name in NAMES] == [None] * 3

    phone.submit("Flask", "/login", name="Grace")
    phone.submit("Flask", "/devices/end-others")
    assert [laptop.look(name).user for name in NAMES] == [None] * 3
    assert [phone.look(name).user for name in NAMES] == ["Grace"] * 3
    assert eve.look("Django").user == "Eve"


def test_clicks_in_all_shops_at_the_same_time_are_all_counted(browser: Customer) -> None:
    browser.submit("Django", "/login", name="Ada")
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda name: browser.answer(name, "/cart", item="Bread"), NAMES * 6))
    assert browser.look("FastAPI").cart == {"Bread": 18}
    assert browser.client.get(f"{browser.shops['FastAPI']}/api/cart").json() == {"Bread": 18}


def test_a_typed_shop_leaves_the_messages_of_the_others_alone(browser: Customer) -> None:
    browser.client.follow_redirects = False
    for name in ("Flask", "Django"):
        assert browser.answer(name, "/cart", item="Coffee").is_redirect  # its page with the message is not asked for
    cart = browser.client.post(f"{browser.shops['FastAPI']}/api/cart/Coffee").json()
    # Each has shown what it had before the forms were sent, when its page was asked for the token.
    assert cart == {"Coffee": 3}
    for name in ("Flask", "Django"):
        assert browser.look(name).messages == ["Coffee added."], name
        assert browser.look(name).messages == [], name


def test_a_checkout_needs_a_login_at_any_shop(browser: Customer) -> None:
    browser.submit("FastAPI", "/cart", item="Bread")
    page = browser.submit("Django", "/checkout")
    assert page.messages == ["Log in first, at any of the shops."]
    assert page.cart == {"Bread": 1}
    browser.submit("FastAPI", "/login", name="Ada")
    page = browser.submit("Django", "/checkout")
    assert page.messages == ["Thank you, Ada: 1 on the way."]
    assert [browser.look(name).cart for name in NAMES] == [{}] * 3


def test_what_visitors_type_is_escaped_and_what_is_not_sold_is_refused(browser: Customer) -> None:
    nasty = "<script>alert(1)</script>\"'"
    for name in NAMES:
        page = browser.submit(name, "/login", name=nasty)
        assert page.user == nasty, name
        assert "<script" not in page.text, name
        assert browser.answer(name, "/cart", item="<b>").status_code == 404, name
    assert browser.client.post(f"{browser.shops['FastAPI']}/api/cart/Pears").status_code == 404


def test_a_django_form_without_its_token_is_refused(browser: Customer) -> None:
    browser.submit("Django", "/login", name="Ada")
    for path in ("/login", "/logout", "/cart", "/checkout"):
        assert browser.client.post(f"{browser.shops['Django']}{path}").status_code == 403
    assert browser.look("Django").user == "Ada"


def test_the_shops_lead_to_each_other_by_the_host_that_was_asked_for(browser: Customer) -> None:
    for name in NAMES:
        links = re.findall(r'<a href="(.*?)"', browser.look(name).text)
        assert [link.rpartition(":")[0] for link in links] == [f"http://{HOST}"] * 3


# --- apart from what a visitor sees ---


@pytest.mark.parametrize("how", ["Ctrl-C", "SIGTERM"])
def test_the_script_stops_its_shops_and_leaves_nothing(tmp_path: Path, how: str) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    with Shop(tmp_path, "python run.py", {"TMPDIR": str(temporary)}, shops=3) as shops:
        assert [path.name[:6] for path in temporary.iterdir()] == ["shops-"]
        if how == "Ctrl-C":  # which a terminal sends to all of them
            os.killpg(shops.process.pid, signal.SIGINT)
        else:
            shops.process.terminate()
        assert shops.process.wait(15) == 0
        for url in shops.urls:
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection((HOST, int(url.rpartition(":")[2])), 5)
        assert list(temporary.iterdir()) == []
        assert "Traceback" not in shops.log()


def test_a_port_in_use_ends_the_script_and_its_shops(tmp_path: Path) -> None:
    with socket.create_server((HOST, 0)) as taken:
        first = taken.getsockname()[1] - 1
        result = subprocess.run(
            [sys.executable, str(EXAMPLES / "run.py")],
            env={**os.environ, "FIRST_PORT": str(first), "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    assert result.returncode == 1
    assert result.stderr.endswith("One of the shops has ended: see above.\n")
    assert "in use" in result.stderr
    assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_strict_type_checker_accepts_the_shops(tmp_path_factory: pytest.TempPathFactory) -> None:
    cache = tmp_path_factory.getbasetemp() / "mypy"  # one for all that run mypy
    result = subprocess.run(
        [
            *(sys.executable, "-m", "mypy", "--strict", "--config-file=", "--disable-error-code=import-untyped"),
            *("--cache-dir", str(cache), "."),
        ],
        env={**os.environ, "MYPYPATH": str(ROOT)},
        cwd=EXAMPLES,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_each_shop_is_short() -> None:
    for name in NAMES:
        lines = (EXAMPLES / f"{name.lower()}_shop.py").read_text().splitlines()
        assert len(lines) <= 150, name


def test_the_compose_file_gives_the_shops_one_store_one_secret_and_the_ports_that_the_page_links_to() -> None:
    services = COMPOSE["services"]
    assert services.keys() == {"valkey", *(name.lower() for name in NAMES)}
    for name in NAMES:
        service = services[name.lower()]
        assert service["environment"] == COMPOSE["x-shop"]["environment"]
        assert service["ports"] == [f"127.0.0.1:{PORTS[name]}:{PORTS[name]}"]
        assert str(PORTS[name]) in service["command"]
