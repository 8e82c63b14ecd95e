"""What the middleware asks of a request: whether a test client made it, and how; and what it answers in an outage."""

from __future__ import annotations

from django import conf
from django.http import HttpRequest, HttpResponse

from session_kit.errors import STORE_DOWN
from session_kit.integrations.django.settings import in_tests, is_set, manager


def bare_key(request: HttpRequest) -> str | None:
    """The id that Django's test client puts into its cookie jar without a signature. Never taken outside of tests."""
    if not in_tests():
        return None
    key = request.COOKIES.get(conf.settings.SESSION_COOKIE_NAME)
    return key if key and manager().policy.signer.verify(key.encode()) is None else None


def plain_host_of(request: HttpRequest) -> str | None:
    """The host that was asked for over plain http, where the cookie may go without `Secure`; None: nowhere."""
    if request.is_secure() or is_set("SESSION_COOKIE_SECURE"):
        return None
    if in_tests():
        return "testserver"
    return str(request.META.get("HTTP_HOST") or request.META.get("SERVER_NAME", ""))


def unavailable() -> HttpResponse:
    """The answer in an outage."""
    return HttpResponse(STORE_DOWN, status=503, content_type="text/plain", headers={"Cache-Control": "no-store"})
