"""What docs/transports.md shows runs as printed, its client against its server."""

from __future__ import annotations

import re
from pathlib import Path

from tests.harness.scripts import run_code

PAGE = Path(__file__).parents[2] / "docs" / "transports.md"
SERVER, CLIENT, FASTAPI, LITESTAR, DJANGO, TESTS = re.findall(
    r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL
)
SERVE = """
import socket
import threading

import uvicorn

listener = socket.create_server(("127.0.0.1", 0))
server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
thread = threading.Thread(target=server.run, args=([listener],))
thread.start()
URL = f"http://127.0.0.1:{listener.getsockname()[1]}"
try:
    exec(CLIENT.replace("https://shop.example", URL))
    auth = SessionAuth()
    with httpx.Client(base_url=URL, auth=auth) as client:
        client.post("/login")
        assert auth.token
        assert "set-cookie" not in client.get("/logout").headers
        assert auth.token == ""
        assert client.get("/me").json() == {"user": None}
finally:
    server.should_exit = True
    thread.join()
"""
SHOW_A_LOCK = """
from starlette.testclient import TestClient

with TestClient(app) as client:
    schema = client.get(SCHEMA).json()
    assert schema["paths"]["/orders"]["get"]["security"] == [{"session": []}]
    assert schema["components"]["securitySchemes"]["session"]["name"] == "Authorization"
    assert client.get("/orders").status_code in (200, 401)
"""
FORGE = """
from django import conf
import django

conf.settings.configure(
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    SECRET_KEY="Kx7-not-for-production-but-long-enough-0123",
    SESSION_ENGINE="session_kit.integrations.django",
    SESSION_KIT={"store": "memory://", "transport": "both"},
    MIDDLEWARE=["session_kit.integrations.django.SessionMiddleware", "django.middleware.csrf.CsrfViewMiddleware"],
)
django.setup()

from django.test import Client
from django.urls import path
from session_kit.integrations.django.settings import manager
from session_kit.testing import session_cookies, session_headers


def pay(request):
    return HttpResponse(request.session["user"])


urlpatterns = [path("pay", csrf_for_cookies(pay)), path("other", pay)]
client = Client(enforce_csrf_checks=True)
headers = session_headers(manager(), user="ada")
assert client.post("/pay", headers=headers).content == b"ada"
assert client.post("/other", headers=headers).status_code == 403
client.cookies.load(session_cookies(manager(), user="ada"))
assert client.post("/pay").status_code == 403
assert client.post("/pay", headers={"Authorization": "Basic YTpi"}).status_code == 403
client.cookies["csrftoken"] = "a" * 32
assert client.post("/pay", headers={"X-CSRFToken": "a" * 32}).content == b"ada"
"""


def test_the_client_logs_in_and_out_over_http() -> None:
    run_code(f"{SERVER}\nCLIENT = {CLIENT!r}\n{SERVE}")


def test_fastapi_and_litestar_show_a_lock() -> None:
    run_code(f"{FASTAPI}\nSCHEMA = '/openapi.json'\n{SHOW_A_LOCK}")
    run_code(f"{LITESTAR}\nSCHEMA = '/schema/openapi.json'\n{SHOW_A_LOCK}")


def test_django_asks_for_a_csrf_token_where_a_cookie_carries_the_session() -> None:
    run_code(f"{DJANGO}\n{FORGE}")


def test_the_lines_for_tests_run() -> None:
    run_code(TESTS)
