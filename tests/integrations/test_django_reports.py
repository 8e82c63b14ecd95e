"""Django outside its test environment: neither reports of errors nor its cache hand a session on; and on its way in."""

from __future__ import annotations

import sys

import pytest

from tests.harness.scripts import run

SITE = """
import sys

import django
from django import conf
from django.http import HttpResponse
from django.urls import path

NAME, TRANSPORT, DEBUG = sys.argv[1:]


def write(request):
    request.session["user"] = "ada"
    return HttpResponse("ok", headers={"Vary": "Accept-Language, Origin"})


def fail(request):
    raise RuntimeError("broken")


urlpatterns = [path("write", write), path("fail", fail)]
conf.settings.configure(
    DEBUG=DEBUG == "debug",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    SECRET_KEY="Kx7-not-for-production-but-long-enough-0123",
    ADMINS=[("admin", "admin@shop.example")],
    EMAIL_BACKEND="django.core.mail.backends.locmem.EmailBackend",
    SESSION_KIT={"store": "memory://", "transport": TRANSPORT, **({"name": NAME} if NAME else {})},
    MIDDLEWARE=[
        "django.middleware.cache.UpdateCacheMiddleware",
        "session_kit.integrations.django.SessionMiddleware",
        "django.middleware.cache.FetchFromCacheMiddleware",
    ],
)
django.setup()

from django.core import mail
from django.core.cache import cache
from django.core.handlers.wsgi import WSGIHandler
from session_kit.integrations.django.settings import manager
from session_kit.testing import session_cookies, session_headers

app = WSGIHandler()


def call(path, **environ):
    said = []
    environ |= {"REQUEST_METHOD": "GET", "PATH_INFO": path, "SERVER_NAME": "shop.example", "SERVER_PORT": "443"}
    environ |= {"wsgi.url_scheme": "https", "wsgi.input": sys.stdin.buffer, "wsgi.errors": sys.stderr}
    body = b"".join(app(environ, lambda status, headers: said.extend(headers)))
    return dict(said), body.decode()
"""
REPORTED = """
if TRANSPORT == "header":
    value = session_headers(manager(), user="ada")["Authorization"].removeprefix("Session ")
    sent = {"HTTP_AUTHORIZATION": f"Session {value}"}
else:
    ((name, value),) = session_cookies(manager(), user="ada").items()
    sent = {"HTTP_COOKIE": f"theme=dark; {name}={value}"}
_, page = call("/fail", **sent)
report = page if DEBUG else mail.outbox[-1].body
assert "RuntimeError" in report
assert "dark" in report or TRANSPORT == "header"
assert value.partition(".")[0] not in report
"""
CACHED = """
headers, _ = call("/write", HTTP_COOKIE="consent=yes")
assert "private" in headers["Cache-Control"]
assert headers["Vary"] == f"Accept-Language, Origin, {'Cookie' if TRANSPORT == 'cookie' else 'Authorization'}"
assert not cache._cache
"""


@pytest.mark.parametrize("transport", ["cookie", "header"])
@pytest.mark.parametrize("debug", ["", "debug"])
@pytest.mark.parametrize("name", ["", "shop"])
def test_no_report_shows_the_id_of_a_visitor(name: str, debug: str, transport: str) -> None:
    run(sys.executable, "-c", SITE + REPORTED, name, transport, debug)


@pytest.mark.parametrize("transport", ["cookie", "header"])
def test_djangos_cache_keeps_no_answer_that_has_a_cookie_or_a_token(transport: str) -> None:
    run(sys.executable, "-c", SITE + CACHED, "", transport, "")


TESTED = """
before = manager()
assert before.policy.cookie.name == (NAME or "session")
from django.test.utils import setup_test_environment, teardown_test_environment

setup_test_environment()
assert manager().policy.cookie.name == (NAME or "sessionid")
assert manager().store.driver is before.store.driver
teardown_test_environment()
assert manager() is before
"""


@pytest.mark.parametrize("name", ["", "shop"])
def test_a_manager_that_was_made_before_the_test_environment_does_not_keep_its_cookie_from_the_test_client(
    name: str,
) -> None:
    start = SITE.partition("app = WSGIHandler()")[0]  # whose middleware says the name
    run(sys.executable, "-c", start + TESTED, name, "cookie", "")
