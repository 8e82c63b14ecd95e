"""A `Set-Cookie` header of ours among the cookies of a response of Django's."""

from __future__ import annotations

from http.cookies import Morsel
from typing import Any, cast

from django.http import HttpResponse

_STANDARD = cast(Any, Morsel)


class SessionMorsel(Morsel[str]):
    """A cookie that also has the attributes which Python's own learns of later."""

    _reserved = {**_STANDARD._reserved, "partitioned": "Partitioned", "priority": "Priority"}  # noqa: RUF012
    _flags = _STANDARD._flags | {"partitioned"}


def put_cookie(response: HttpResponse, header: str) -> None:
    """Put a whole `Set-Cookie` header where Django and its test client look for cookies."""
    pair, *attributes = header.split("; ")
    name, _, value = pair.partition("=")
    morsel = SessionMorsel()
    morsel.set(name, value, value)
    for attribute in attributes:
        key, _, text = attribute.partition("=")
        morsel[key.lower()] = cast(Any, text or True)
    response.cookies[name] = morsel
