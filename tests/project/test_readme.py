"""What the README and the page for those who come from elsewhere show runs as printed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "README.md"
COMING_FROM = README.parent / "docs" / "coming-from.md"
EXAMPLES = re.compile(r"^#+ (?P<title>[^\n]*)$|^```python\n(?P<code>.*?)^```", re.MULTILINE | re.DOTALL)

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
# What is played with the application that an example makes, by the heading above it.
PLAYS = {
    "Use": ASGI,
    "FastAPI": """
from starlette.testclient import TestClient

with TestClient(app, base_url="https://testserver") as client:
    assert client.post("/cart?item=apple").json() == {"items": ["apple"]}
    assert client.post("/cart?item=pear").json() == {"items": ["apple", "pear"]}
    operation = client.get("/openapi.json").json()["paths"]["/cart"]["post"]
    assert [parameter["name"] for parameter in operation["parameters"]] == ["item"]
""",
    "Starlette, and any ASGI application": ASGI,
    "Starlette": ASGI,
    "starsessions": ASGI,
    "Litestar": ASGI,
    "Flask": WSGI,
    "Flask-Session": WSGI,
    "Beaker": WSGI,
    "Quart": ASGI,
    "Django": """
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
""",
    "aiohttp": AIOHTTP,
    "aiohttp-session": AIOHTTP,
    "Pyramid": WSGI,
    "Testing your application": """
if __name__ == "__main__":
    import sys
    from importlib.metadata import entry_points

    import pytest

    plugin = [] if entry_points(group="pytest11", name="session_kit") else ["-p", "session_kit.pytest_plugin"]
    sys.exit(pytest.main([__file__, "-c", "/dev/null", "-p", "no:cacheprovider", *plugin]))
""",
    "Falcon, Bottle, and any WSGI application": WSGI,
    "Tornado, and anything else": """
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
""",
}


def examples() -> list[tuple[str, str]]:
    """Each example in Python, with the heading above it."""
    found, title = [], ""
    for match in EXAMPLES.finditer(README.read_text() + COMING_FROM.read_text()):
        if match["code"] is None:
            title = match["title"]
        else:
            found.append((title, match["code"]))
    return found


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Future[subprocess.CompletedProcess[str]]]]:
    """What each example says; two run at a time."""

    def run(code: str, title: str) -> subprocess.CompletedProcess[str]:
        folder = tmp_path_factory.mktemp("example")
        script = folder / "example.py"
        script.write_text(code.replace("/var/lib/shop", str(folder / "shop")) + PLAYS.get(title, ""))
        secret = "Kx7-not-for-production-but-long-enough-0123"
        return subprocess.run(
            [sys.executable, str(script)],
            env={**os.environ, "SESSION_SECRET": secret, "PYTHONPATH": "."},
            cwd=README.parent,
            capture_output=True,
            text=True,
            check=False,
        )

    with ThreadPoolExecutor(2) as pool:
        yield [pool.submit(run, code, title) for title, code in examples()]


@pytest.mark.parametrize("number", range(len(examples())), ids=[title for title, _ in examples()])
def test_each_example_runs(runs: list[Future[subprocess.CompletedProcess[str]]], number: int) -> None:
    result = runs[number].result()
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_a_strict_type_checker_accepts_each_example_as_printed(
    tmp_path_factory: pytest.TempPathFactory, checker: str
) -> None:
    folder = tmp_path_factory.mktemp("typed")
    for number, (title, code) in enumerate(examples()):
        if (checker, title) != ("pyright", "Pyramid"):  # it has no types, and pyright reads its code in their place
            (folder / f"example{number}.py").write_text(code)
    cache = tmp_path_factory.getbasetemp() / "mypy"  # one for all that run mypy
    options = {
        "mypy": ["--strict", "--config-file=", "--disable-error-code=import-untyped", f"--cache-dir={cache}", "."],
        "pyright": ["--pythonpath", sys.executable],
    }
    # Tornado's types say `dict`, and not of what.
    settings = {"extraPaths": [str(README.parent)], "typeCheckingMode": "strict", "reportUnknownMemberType": False}
    (folder / "pyrightconfig.json").write_text(json.dumps(settings))
    result = subprocess.run(
        [sys.executable, "-m", checker, *options[checker]],
        env={**os.environ, "MYPYPATH": str(README.parent), "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_every_framework_has_an_example() -> None:
    assert PLAYS.keys() <= {title for title, _ in examples()}


def test_the_first_example_is_under_ten_lines() -> None:
    title, code = examples()[0]
    assert title == "Use"
    assert len([line for line in code.splitlines() if line.strip()]) < 10


def test_the_two_commands_are_there() -> None:
    makefile = (README.parent / "Makefile").read_text()
    for target in ("demo", "test"):
        assert f"make {target}" in README.read_text()
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)
