"""An argument that cannot be meant has one clear line, with what was probably meant, also by the names of others."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from aiohttp import web
from flask import Flask

from session_kit import (
    ConfigError,
    RedisSessionStore,
    SessionError,
    SessionManager,
    UnstorageSessionStore,
    asgi,
    wsgi,
)
from session_kit.integrations import aiohttp, flask, litestar, pyramid
from tests.harness.sessions import SECRET

CALLERS: dict[str, Callable[..., Any]] = {
    "asgi": lambda **options: asgi.SessionMiddleware(None, **options),  # type: ignore[arg-type]
    "wsgi": lambda **options: wsgi.SessionMiddleware(None, **options),  # type: ignore[arg-type]
    "aiohttp": lambda **options: aiohttp.setup(web.Application(), **options),
    "flask": lambda **options: flask.SessionKit(Flask("shop"), **options),
    "litestar": litestar.SessionKit,
    "pyramid": pyramid.session_factory,
}


def error_of(call: Callable[..., Any], **options: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        call(**{"store": "memory://", "secret": SECRET} | options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("caller", [SessionManager, *CALLERS.values()], ids=["manager", *CALLERS])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"secret": 12345}, "the secret must be str or bytes, not int; make one with"),
        ({"secret": [SECRET, 5]}, "secret number 2 must be str or bytes, not int"),
        ({"cookie": {"secure": False}}, "cookie takes CookieOptions(secure=False), not a dict"),
        ({"cookie": {"samesite": "lax", "path": "/a"}}, "CookieOptions(samesite='lax', path='/a'), not a dict"),
        ({"cookie": {"max_age": 5}}, "cookie takes CookieOptions(secure=False), not a dict"),
        ({"cookie": "sid"}, "cookie takes CookieOptions(secure=False), not a str"),
        ({"on_event": "x"}, "on_event must be a function, not a str"),
        ({"generate": {}}, "generate must be a function, not a dict"),
        ({"generate_id": "x" * 40}, "generate_id must be a function, not a str"),
        ({"clock": 5}, "clock must be a function, not a int"),
        ({"upgrade": 5, "data_type": dict}, "upgrade must be a function, not a int"),
        ({"save_uninitialized": "false"}, "save_uninitialized must be True or False, not 'false'"),
        ({"rotate_on": 5}, "rotate_on must be a list of keys, not 5"),
        ({"codec": "jsn"}, "codec: there is no 'jsn'; did you mean 'json'?"),
        ({"max_lifetime": "7x"}, "max_lifetime: '7x' is not a duration"),
    ],
)
def test_a_value_that_cannot_be_meant_is_refused_at_start(
    caller: Callable[..., Any], options: dict[str, Any], message: str
) -> None:
    assert message in error_of(caller, **options)


@pytest.mark.parametrize("caller", CALLERS.values(), ids=CALLERS)
@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("max_lifetme", "'max_lifetime'"),
        ("max_age", 'the store\'s ttl, as in store="redis://localhost?ttl=7d"'),
        ("prefix", 'the store\'s prefix, as in store="redis://localhost?prefix=shop"'),
        ("secret_key", "secret"),
        ("https_only", "cookie=CookieOptions(secure=...)"),
        ("same_site", "cookie=CookieOptions(samesite=...)"),
        ("session_cookie", "name"),
        ("serializer", "codec"),
    ],
)
def test_a_name_from_elsewhere_is_answered_with_ours(caller: Callable[..., Any], name: str, meant: str) -> None:
    assert f"unknown option {name!r}; did you mean {meant}? Valid options: " in error_of(caller, **{name: "x"})


@pytest.mark.parametrize("option", ["touch_after", "rotation_grace"])
@pytest.mark.parametrize("zero", [0, 0.0, "0", "0s", timedelta(0)])
def test_no_time_at_all_can_be_said_in_each_form(option: str, zero: Any) -> None:
    assert getattr(SessionManager("memory://", SECRET, **{option: zero}).policy, option) == 0


@pytest.mark.parametrize("first", [None, 5, "text", [("user", "ada")]])
def test_first_data_that_are_no_mapping_are_told_in_one_line(first: object) -> None:
    session = SessionManager("memory://", SECRET, generate=lambda: first).open()
    with pytest.raises(SessionError, match="generate must return a mapping of the first data, not"):
        session.load()


@pytest.mark.parametrize("option", ["prefix=shop", "ttl=7d", "codec=msgpack"])
@pytest.mark.parametrize(("store", "url"), [(UnstorageSessionStore, "memory://"), (RedisSessionStore, "REDIS://shop")])
def test_an_option_of_the_store_in_the_url_of_a_driver_is_told_where_it_belongs(
    store: type[UnstorageSessionStore], url: str, option: str
) -> None:
    name = option.partition("=")[0]
    with pytest.raises(ConfigError, match=f"{name} is given beside the URL here, as {name}=.*opened by open_store"):
        store(f"{url}?{option}")
