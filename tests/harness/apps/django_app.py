"""The application that every framework has, in Django."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import django
from django import conf
from django.contrib import messages
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import path

from tests.harness.gate import Gate


def untouched(request: HttpRequest) -> HttpResponse:
    return JsonResponse({"ok": True})


def read(request: HttpRequest) -> HttpResponse:
    return JsonResponse({"value": request.session.get(request.GET["key"])})


def write(request: HttpRequest) -> HttpResponse:
    request.session[request.GET["key"]] = request.GET["value"]
    return JsonResponse({"ok": True})


def count(request: HttpRequest) -> HttpResponse:
    request.session.session.update(lambda data: {"count": data.get("count", 0) + 1})
    return JsonResponse({"count": request.session["count"]})


def cart(request: HttpRequest) -> HttpResponse:
    request.session.setdefault("cart", []).append(request.GET["item"])
    return JsonResponse({"cart": request.session["cart"]})


def rotate(request: HttpRequest) -> HttpResponse:
    request.session.cycle_key()
    return JsonResponse({"ok": True})


def logout(request: HttpRequest) -> HttpResponse:
    request.session.flush()
    return JsonResponse({"ok": True})


def flash(request: HttpRequest) -> HttpResponse:
    messages.info(request, request.GET["message"])
    return JsonResponse({"ok": True})


def flashed(request: HttpRequest) -> HttpResponse:
    return JsonResponse({"messages": [str(message) for message in messages.get_messages(request)]})


def slow(request: HttpRequest) -> HttpResponse:
    key = request.GET["key"]
    request.session.get(key)
    Gate(request.GET["gate"]).hold()
    request.session[key] = request.GET["value"]
    return JsonResponse({"ok": True})


def clear(request: HttpRequest) -> HttpResponse:
    request.session.clear()
    return JsonResponse({"ok": True})


def sorry(request: HttpRequest) -> HttpResponse:
    request.session[request.GET["key"]] = request.GET["value"]
    return JsonResponse({"ok": False}, status=503)


def fail(request: HttpRequest) -> HttpResponse:
    request.session[request.GET["key"]] = request.GET["value"]
    raise RuntimeError("this view fails")


def stream(request: HttpRequest) -> HttpResponse:
    key, value = request.GET["key"], request.GET["value"]
    request.session.get(key)

    def body() -> Iterator[bytes]:
        yield b"one"
        request.session[key] = value
        yield b"two"

    return StreamingHttpResponse(body())


def unavailable(request: HttpRequest) -> HttpResponse:
    request.session.get("x")
    return JsonResponse({"unavailable": request.session.session.unavailable})


VIEWS = (
    *(untouched, read, flashed, stream, unavailable),
    *(write, count, cart, rotate, logout, clear, flash, slow, fail, sorry),
)
urlpatterns = [path(view.__name__, view) for view in VIEWS]


def make_app(**options: Any) -> Any:
    conf.settings.configure(
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF=__name__,
        SECRET_KEY=options["secret"],
        SESSION_KIT=options,
        MIDDLEWARE=[
            "session_kit.integrations.django.SessionMiddleware",
            "django.contrib.messages.middleware.MessageMiddleware",
        ],
        INSTALLED_APPS=["django.contrib.messages"],
        MESSAGE_STORAGE="django.contrib.messages.storage.session.SessionStorage",
        SILENCED_SYSTEM_CHECKS=["*"],
        LOGGING={
            "version": 1,
            "handlers": {"console": {"class": "logging.StreamHandler"}},
            "loggers": {"django": {"handlers": ["console"]}},
        },
    )
    django.setup()
    return get_wsgi_application()
