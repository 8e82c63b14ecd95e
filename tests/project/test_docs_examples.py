"""What the README and the pages of the documentation show runs as printed, and strict type checkers accept it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from tests.harness.sessions import SECRET

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
EXAMPLES = re.compile(r"^#+ (?P<title>[^\n]*)$|^```python\n(?P<code>.*?)^```", re.MULTILINE | re.DOTALL)
STARTS_A_SERVER = re.compile(r"\b(execute_from_command_line|web\.run_app|asyncio\.run)\(.*\)$", re.MULTILINE)
KEYS = f"{bytes(range(1, 33)).hex()},{bytes(range(101, 133)).hex()}"
# Pyramid has no types, nor has Django's request a session: pyright reads their code in the place of types. Those of
# prometheus_client leave something out.
NOT_FOR_PYRIGHT = re.compile(r"^from (pyramid|django|prometheus_client)\b|^SESSION_ENGINE = ", re.MULTILINE)


class Example(NamedTuple):
    """A block of Python in a page, with the heading above it."""

    page: str
    title: str
    code: str

    def __str__(self) -> str:
        return f"{self.page}-{self.title}"


def examples() -> list[Example]:
    found = []
    for page in PAGES:
        title = ""
        for match in EXAMPLES.finditer(page.read_text(encoding="utf-8")):
            if match["code"] is None:
                title = match["title"]
            else:
                found.append(Example(page.name, title, match["code"]))
    return found


ASGI = """
from starlette.testclient import TestClient

with TestClient(app, base_url="https://testserver") as client:
    assert [client.get("/").json() for _ in range(3)] == [{"visits": 1}, {"visits": 2}, {"visits": 3}]
"""
WSGI = """
import httpx

with httpx.Client(transport=httpx.WSGITransport(app), base_url="https://testserver") as client:
    assert [client.get("/").json() for _ in range(3)] == [{"visits": 1}, {"visits": 2}, {"visits": 3}]
"""
AIOHTTP = """
import asyncio

from aiohttp import CookieJar
from aiohttp.test_utils import TestClient, TestServer


async def play():
    async with TestServer(app) as server:
        jar = CookieJar(unsafe=True, treat_as_secure_origin=server.make_url("/"))
        async with TestClient(server, cookie_jar=jar) as client:
            answers = [await (await client.get("/")).json() for _ in range(3)]
    assert answers == [{"visits": 1}, {"visits": 2}, {"visits": 3}]


asyncio.run(play())
"""
FASTAPI = """
from starlette.testclient import TestClient

with TestClient(app, base_url="https://testserver") as client:
    assert client.post("/cart?item=apple").json() == {"items": ["apple"]}
    assert client.post("/cart?item=pear").json() == {"items": ["apple", "pear"]}
    operation = client.get("/openapi.json").json()["paths"]["/cart"]["post"]
    assert [parameter["name"] for parameter in operation["parameters"]] == ["item"]
"""
DJANGO = """
import django
from django.conf import settings
from django.http import JsonResponse
from django.test import Client, override_settings
from django.urls import path


def visits(request):
    request.session["visits"] = request.session.get("visits", 0) + 1
    return JsonResponse({"visits": request.session["visits"]})


urlpatterns = [path("", visits)]
settings.configure(
    ROOT_URLCONF=__name__, SECRET_KEY="Kx7-not-for-production-but-long-enough-0123", ALLOWED_HOSTS=["*"],
    SESSION_ENGINE=SESSION_ENGINE, SESSION_KIT=SESSION_KIT, SESSION_COOKIE_SECURE=True,
)
django.setup()
OWN = ["django.contrib.sessions.middleware.SessionMiddleware"]
for middleware, cookie in ((MIDDLEWARE, SESSION_COOKIE_NAME), (OWN, "sessionid")):
    with override_settings(MIDDLEWARE=middleware, SESSION_COOKIE_NAME=cookie):
        client = Client()
        assert [client.get("/", secure=True).json()["visits"] for _ in range(3)] == [1, 2, 3]
        assert list(client.cookies) == [cookie]
"""
DJANGO_IN_ONE_FILE = """
import django
from django.test import Client

django.setup()
client = Client()
assert [client.get("/", headers={"host": "localhost"}).json()["visits"] for _ in range(3)] == [1, 2, 3]
"""
TORNADO = """
import asyncio

from tornado.httpclient import AsyncHTTPClient
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port


async def play():
    listener, port = bind_unused_port()
    server = HTTPServer(app)
    server.add_socket(listener)
    cookie, answers = "", []
    for _ in range(3):
        response = await AsyncHTTPClient().fetch(f"http://127.0.0.1:{port}/", headers={"Cookie": cookie})
        cookie = response.headers.get("Set-Cookie", cookie).split(";")[0]
        answers.append(response.body)
    server.stop()
    assert answers == [b'{"visits": 1}', b'{"visits": 2}', b'{"visits": 3}'], answers


asyncio.run(play())
"""
PYTEST = """
if __name__ == "__main__":
    import sys
    from importlib.metadata import entry_points

    import pytest

    plugin = [] if entry_points(group="pytest11", name="session_kit") else ["-p", "session_kit.pytest_plugin"]
    sys.exit(pytest.main([__file__, "-c", "/dev/null", "-p", "no:cacheprovider", *plugin]))
"""
DRIVER = f"""
from session_kit.testing import DriverConformance


class TestDict(DriverConformance):
    def open_driver(self, clock: object, tmp_path: object) -> DictDriver:
        return DictDriver(clock=clock)

{PYTEST}"""
LOGIN = """
import httpx

with httpx.Client(transport=httpx.WSGITransport(app), base_url="https://testserver") as client:
    assert client.post("/login", data={"user": "ada", "password": "guess"}).status_code == 403
    assert client.get("/").json() == {"user": "nobody"}
    assert not client.cookies
    assert client.post("/login", data={"user": "ada", "password": "correct horse"}).json() == {"user": "ada"}
    kept = client.cookies["session"]
    assert client.get("/").json() == {"user": "ada"}
    client.post("/logout")
    assert client.get("/", headers={"cookie": f"session={kept}"}).json() == {"user": "nobody"}
"""
LOGIN_JSON = """
from starlette.testclient import TestClient

with TestClient(app, base_url="https://testserver") as client:
    assert client.post("/login", json={"user": "ada", "password": "guess"}).status_code == 403
    assert client.get("/").json() == {"user": "nobody"}
    assert not client.cookies
    assert client.post("/login", json={"user": "ada", "password": "correct horse"}).json() == {"user": "ada"}
    kept = client.cookies["session"]
    assert client.get("/").json() == {"user": "ada"}
    client.post("/logout")
    assert client.get("/", headers={"cookie": f"session={kept}"}).json() == {"user": "nobody"}
"""
CSRF = """
import re

import httpx

with httpx.Client(transport=httpx.WSGITransport(app), base_url="https://testserver") as client:
    for guess in ("", "guess", "\\u00e9"):
        assert client.post("/form", data={"csrf": guess}).status_code == 403
    token = re.search('value="(.+?)"', client.get("/form").text)[1]
    for guess in ("", "guess", "\\u00e9"):
        assert client.post("/form", data={"csrf": guess}).status_code == 403
    assert client.post("/form", data={"csrf": token}).json() == {"sent": True}
"""
CART = """
from concurrent.futures import ThreadPoolExecutor

from starlette.testclient import TestClient

with TestClient(app, base_url="https://testserver") as client, ThreadPoolExecutor(4) as pool:
    client.post("/cart/apple")
    list(pool.map(client.post, ["/cart/apple", "/cart/pear"] * 4))
    assert client.post("/cart/apple").json() == {"apple": 6, "pear": 4}
"""
REMEMBER = """
import httpx

for form, kept in (({}, False), ({"remember": "on"}, True)):
    with httpx.Client(transport=httpx.WSGITransport(app), base_url="https://testserver") as client:
        header = client.post("/login", data={"user": "ada", **form}).headers["set-cookie"]
        assert ("Max-Age=2592300" in header) is kept, header
        assert ("Max-Age" in header) is kept, header
"""
EVERYWHERE = """
import httpx

assert app.extensions["session_kit"].store is manager.store
phone, laptop, nobody = (
    httpx.Client(transport=httpx.WSGITransport(app), base_url="https://testserver", headers={"user-agent": name})
    for name in ("phone", "laptop", "nobody")
)
for client in (phone, laptop):
    assert client.post("/login", data={"user": "ada"}).json() == {"user": "ada"}
assert phone.get("/devices").json() == [{"label": "laptop", "this": False}, {"label": "phone", "this": True}]
assert phone.post("/logout-everywhere-else").json() == {"ended": 1}
assert [client.get("/devices").status_code for client in (phone, laptop, nobody)] == [200, 401, 401]
"""
SIGN_ON = """
import httpx
from starlette.testclient import TestClient

with httpx.Client(transport=httpx.WSGITransport(shop), base_url="https://testserver") as browser:
    browser.post("/login")
    with TestClient(api, base_url="https://testserver", cookies=dict(browser.cookies)) as client:
        assert client.get("/api/me").json() == {"user": "ada"}
"""
STRICT = """
from session_kit import use_session
from starlette.requests import Request
from starlette.testclient import TestClient


@app.get("/")
async def login(request: Request) -> None:
    (await use_session(request))["user"] = "ada"


with TestClient(app, base_url="https://testserver") as client:
    header = client.get("/").headers["set-cookie"]
    assert header.startswith("__Host-id=") and "Max-Age" not in header and "SameSite=Strict" in header, header
"""

# What is played with the application that an example makes.
PLAYS = {
    ("index.md", "session_kit"): ASGI,
    ("start.md", "With FastAPI"): ASGI,
    ("start.md", "With Flask"): WSGI.replace("(app)", "(app.wsgi_app)"),
    ("start.md", "With Django"): DJANGO_IN_ONE_FILE,
    ("frameworks.md", "FastAPI"): ASGI,
    ("frameworks.md", "A dependency with a type"): FASTAPI,
    ("frameworks.md", "Starlette, and any ASGI application"): ASGI,
    ("frameworks.md", "Litestar"): ASGI,
    ("frameworks.md", "Flask"): WSGI,
    ("frameworks.md", "Quart"): ASGI,
    ("frameworks.md", "Django"): DJANGO,
    ("frameworks.md", "aiohttp"): AIOHTTP,
    ("frameworks.md", "Pyramid"): WSGI,
    ("frameworks.md", "Falcon, Bottle, and any WSGI application"): WSGI,
    ("frameworks.md", "Tornado, and anything else"): TORNADO,
    ("coming-from.md", "Flask-Session"): WSGI,
    ("coming-from.md", "starsessions"): ASGI,
    ("recipes.md", "Log in and log out"): LOGIN,
    ("recipes.md", "The same with FastAPI"): LOGIN_JSON,
    ("recipes.md", "CSRF"): CSRF,
    ("recipes.md", "A cart"): CART,
    ("recipes.md", "Remember me"): REMEMBER,
    ("recipes.md", "Log out everywhere"): EVERYWHERE,
    ("recipes.md", "Single sign-on across two frameworks"): SIGN_ON,
    ("security.md", "Settings of a strict application"): STRICT,
    ("testing.md", "The pytest plugin"): PYTEST,
    ("drivers.md", "Test it"): PYTEST,
    ("drivers.md", "Write a driver"): DRIVER,
}


# Whose examples are run by tests of their own: together, or by the commands that the page prints.
RUN_ELSEWHERE = {
    "README.md": "test_readme.py",
    "flash.md": "test_docs_flash.py",
    "telemetry.md": "test_docs_telemetry.py",
    "transports.md": "test_docs_transports.py",
}
RUN_HERE = [example for example in examples() if example.page not in RUN_ELSEWHERE]


@pytest.mark.parametrize("example", RUN_HERE, ids=str)
def test_each_example_runs(example: Example, tmp_path: Path) -> None:
    code = re.sub(r"/(var/lib|tmp)/shop", str(tmp_path / "shop"), example.code)
    code = STARTS_A_SERVER.sub("pass", code)  # what it would serve is played
    script = tmp_path / "example.py"
    script.write_text(code + PLAYS.get((example.page, example.title), ""))
    # A first try has no secret.
    secret = {} if 'SESSION_SECRET") or' in code else {"SESSION_SECRET": SECRET}
    result = subprocess.run(
        [sys.executable, str(script)],
        env={**os.environ, "SESSION_KEYS": KEYS, "PYTHONPATH": str(ROOT), **secret},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.slow
@pytest.mark.links
@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_a_strict_type_checker_accepts_each_example_as_printed(
    tmp_path_factory: pytest.TempPathFactory, checker: str
) -> None:
    folder = tmp_path_factory.mktemp("typed")
    for number, example in enumerate(examples()):
        if checker == "mypy" or not NOT_FOR_PYRIGHT.search(example.code):
            (folder / f"example{number}_{example.page.partition('.')[0].replace('-', '_')}.py").write_text(example.code)
    cache = tmp_path_factory.getbasetemp() / "mypy"  # one for all that run mypy
    options = {
        "mypy": ["--strict", "--config-file=", "--disable-error-code=import-untyped", f"--cache-dir={cache}", "."],
        "pyright": ["--pythonpath", sys.executable],
    }
    # Tornado's types say `dict`, and not of what.
    settings = {"extraPaths": [str(ROOT)], "typeCheckingMode": "strict", "reportUnknownMemberType": False}
    (folder / "pyrightconfig.json").write_text(json.dumps(settings))
    result = subprocess.run(
        [sys.executable, "-m", checker, *options[checker]],
        env={**os.environ, "MYPYPATH": str(ROOT), "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(("language", "read"), [("yaml", yaml.safe_load), ("toml", tomllib.loads)])
def test_each_configuration_can_be_read(language: str, read: Callable[[str], Any]) -> None:
    blocks = [
        block for page in PAGES for block in re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.M | re.S)
    ]
    assert blocks
    assert all(isinstance(read(block), dict) for block in blocks)


def test_no_play_has_lost_its_example() -> None:
    """A heading that was renamed would leave its example unplayed."""
    assert PLAYS.keys() <= {(example.page, example.title) for example in examples()}


def test_what_is_run_elsewhere_is() -> None:
    for page, test in RUN_ELSEWHERE.items():
        assert page in (Path(__file__).parent / test).read_text(encoding="utf-8")


def test_each_example_with_an_application_is_played() -> None:
    unplayed = [
        str(example)
        for example in RUN_HERE
        if re.search(
            r"^\w+ = (FastAPI|Flask|Quart|Starlette|Litestar|web\.Application|falcon\.App)\(", example.code, re.M
        )
        and (example.page, example.title) not in PLAYS
    ]
    assert unplayed == []
