"""One Django project for the tests of Django: its settings, views that touch the session, and clients both ways."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import django
import pytest
from django.conf import settings

from session_kit import UnstorageSessionStore
from session_kit.drivers.memory import MemoryDriver
from session_kit.testing import CountingDriver
from tests.harness.sessions import SECRET

OURS = "session_kit.integrations.django"

if not settings.configured:
    settings.configure(
        SECRET_KEY=SECRET,
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF=__name__,
        INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "django.contrib.sessions"],
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "file:site?mode=memory&cache=shared"}},
        MIDDLEWARE=[f"{OURS}.SessionMiddleware", "django.contrib.messages.middleware.MessageMiddleware"],
        MESSAGE_STORAGE="django.contrib.messages.storage.session.SessionStorage",
        SESSION_ENGINE=OURS,
        SESSION_KIT={"store": "memory://"},
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_NAME="session",
        USE_TZ=True,
    )
    django.setup()

from django.contrib import messages  # noqa: E402
from django.contrib.auth.base_user import AbstractBaseUser  # noqa: E402
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse  # noqa: E402
from django.middleware.csrf import get_token  # noqa: E402
from django.test import Client, override_settings  # noqa: E402
from django.test.utils import setup_test_environment, teardown_test_environment  # noqa: E402
from django.urls import path  # noqa: E402
from django.utils.safestring import mark_safe  # noqa: E402
from django.utils.translation import gettext_lazy  # noqa: E402

assert AbstractBaseUser


def untouched(request: HttpRequest) -> HttpResponse:
    return HttpResponse("ok")


def read(request: HttpRequest) -> HttpResponse:
    return JsonResponse({"value": request.session.get("user")})


def write(request: HttpRequest) -> HttpResponse:
    request.session["user"] = request.GET.get("value", "ada")
    return HttpResponse("ok")


def count(request: HttpRequest) -> HttpResponse:
    request.session.update(lambda data: {"count": data.get("count", 0) + 1})
    return JsonResponse({"count": request.session["count"]})


def nested(request: HttpRequest) -> HttpResponse:
    request.session.setdefault("cart", []).append("apple")
    return JsonResponse({"cart": request.session["cart"]})


def rotate(request: HttpRequest) -> HttpResponse:
    request.session.cycle_key()
    return HttpResponse("ok")


def flush(request: HttpRequest) -> HttpResponse:
    request.session.flush()
    return HttpResponse("ok")


def clear(request: HttpRequest) -> HttpResponse:
    request.session.clear()
    return HttpResponse("ok")


def fail(request: HttpRequest) -> HttpResponse:
    request.session["user"] = "eve"
    raise RuntimeError("broken")


def save_and_fail(request: HttpRequest) -> HttpResponse:
    request.session["user"] = "saved"
    request.session.save()
    request.session["user"] = "not saved"
    raise RuntimeError("broken")


def flash(request: HttpRequest) -> HttpResponse:
    messages.info(request, "hello")
    return HttpResponse("ok")


def flashed(request: HttpRequest) -> HttpResponse:
    return JsonResponse({"messages": [str(message) for message in messages.get_messages(request)]})


def stream(request: HttpRequest) -> StreamingHttpResponse:
    request.session.get("user")

    def body() -> Iterator[bytes]:
        yield b"one"
        request.session["user"] = "late"
        yield b"two"

    return StreamingHttpResponse(body())


def broken_stream(request: HttpRequest) -> StreamingHttpResponse:
    def body() -> Iterator[bytes]:
        yield b"one"
        request.session["user"] = "eve"
        raise RuntimeError("broken")

    return StreamingHttpResponse(body())


async def async_broken_stream(request: HttpRequest) -> StreamingHttpResponse:
    async def body() -> AsyncIterator[bytes]:
        yield b"one"
        await request.session.aset("user", "eve")
        raise RuntimeError("broken")

    return StreamingHttpResponse(body())


def visit(request: HttpRequest) -> HttpResponse:
    """The key of a visitor's first visit, as a cart keeps it."""
    if not request.session.session_key:
        request.session.create()
    return HttpResponse(request.session.session_key)


def first_save(request: HttpRequest) -> HttpResponse:
    request.session["user"] = "ada"
    request.session.save()
    return HttpResponse(request.session.session_key)


def expire(request: HttpRequest) -> HttpResponse:
    request.session.set_expiry(int(request.GET["after"]))
    return HttpResponse("ok")


def unsaved(request: HttpRequest) -> HttpResponse:
    request.session["user"] = "eve"
    request.session.modified = False
    return HttpResponse("ok")


def renewed(request: HttpRequest) -> HttpResponse:
    request.session.modified = True
    return HttpResponse("ok")


def lazy(request: HttpRequest) -> HttpResponse:
    request.session["user"] = gettext_lazy("Yes")
    request.session["pair"] = {"at": (1, mark_safe("<b>")), 7: "number"}
    return HttpResponse("ok")


def overlapped(request: HttpRequest) -> HttpResponse:
    """Another request ends the session while this one runs."""
    request.session["late"] = True
    request.session.__class__(request.session.session_key).flush()
    return HttpResponse("ok")


def reopened(request: HttpRequest) -> HttpResponse:
    """As mozilla-django-oidc does."""
    request.session["a"] = 1
    request.session.save()
    request.session = request.session.__class__(request.session.session_key)
    if "change" in request.GET:
        request.session["user"] = "ada"
    return HttpResponse("ok")


def csrf(request: HttpRequest) -> HttpResponse:
    return HttpResponse(get_token(request))


def who(request: HttpRequest) -> HttpResponse:
    return JsonResponse({"user": request.user.pk})


def browser(request: HttpRequest) -> HttpResponse:
    request.session.set_expiry(0)
    return HttpResponse("ok")


async def async_poll(request: HttpRequest) -> HttpResponse:
    session = await request.session.session.aload(touch=False)
    return JsonResponse({"value": session.get("user")})


async def async_write(request: HttpRequest) -> HttpResponse:
    await request.session.aset("user", "async")
    return JsonResponse({"value": await request.session.aget("user")})


def bind(request: HttpRequest) -> HttpResponse:
    request.session["user"] = "ada"
    request.session.bind("ada", label="here")
    return HttpResponse("ok")


VIEWS = (
    bind,
    untouched,
    read,
    write,
    count,
    nested,
    rotate,
    flush,
    clear,
    fail,
    save_and_fail,
    flash,
    flashed,
    stream,
    broken_stream,
    async_broken_stream,
    browser,
    async_poll,
    async_write,
    visit,
    first_save,
    expire,
    unsaved,
    renewed,
    lazy,
    overlapped,
    csrf,
    reopened,
    who,
)
urlpatterns = [path(view.__name__, view) for view in VIEWS]

ENGINE = ["django.contrib.sessions.middleware.SessionMiddleware", settings.MIDDLEWARE[1]]


@pytest.fixture
def driver() -> Iterator[CountingDriver]:
    driver = CountingDriver(MemoryDriver())
    with override_settings(SESSION_KIT={"store": UnstorageSessionStore(driver)}):
        yield driver


@pytest.fixture(params=["engine", "shared cookie"])
def client(request: pytest.FixtureRequest, driver: CountingDriver) -> Iterator[Client]:
    with override_settings(MIDDLEWARE=ENGINE if request.param == "engine" else settings.MIDDLEWARE):
        yield Client(raise_request_exception=False)


@pytest.fixture
def tests_set_up() -> Iterator[None]:
    """What Django's test runner and pytest-django do first: no bare id is taken as a cookie without it."""
    setup_test_environment(debug=False)
    yield
    teardown_test_environment()
