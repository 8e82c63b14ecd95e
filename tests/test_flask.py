"""Flask: its own habits on a server-side session."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import flask
import pytest
from flask import Flask, flash, get_flashed_messages, session, stream_with_context

from session_kit import ConfigError, CookieOptions, SessionError, SessionManager, UnstorageSessionStore
from session_kit.drivers.memory import MemoryDriver
from session_kit.integrations.flask import SessionKit
from session_kit.testing import CountingDriver, FaultyDriver

SECRET = "Kx7-not-for-production-but-long-enough-0123"
OLD = "Old-not-for-production-but-long-enough-0123"


@pytest.fixture
def driver() -> CountingDriver:
    return CountingDriver(MemoryDriver())


def make_app(driver: Any, **options: Any) -> Flask:
    app = Flask("test")
    app.secret_key = SECRET
    SessionKit(app, UnstorageSessionStore(driver), **options)

    @app.get("/untouched")
    def untouched() -> str:
        return "ok"

    @app.get("/read")
    def read() -> dict[str, Any]:
        return {"value": session.get("user"), "new": session.new, "modified": session.modified}

    @app.get("/write/<value>")
    def write(value: str) -> str:
        session["user"] = value
        return "ok"

    @app.get("/fail")
    def fail() -> str:
        session["user"] = "eve"
        raise RuntimeError("broken")

    @app.get("/logout")
    def logout() -> str:
        session.destroy()  # type: ignore[attr-defined]
        return "ok"

    @app.get("/flash")
    def flash_twice() -> str:
        flash("hello")
        flash("careful", "warning")
        return "ok"

    @app.get("/flashed")
    def flashed() -> dict[str, Any]:
        return {"plain": get_flashed_messages(), "with": [list(m) for m in get_flashed_messages(with_categories=True)]}

    @app.get("/permanent/<int:value>")
    def permanent(value: int) -> str:
        session["x"] = 1
        session.permanent = bool(value)
        return str(session.permanent)

    @app.get("/stream")
    def stream() -> Any:
        session.get("user")

        def body() -> Iterator[str]:
            yield "one"
            session["late"] = True
            yield "two"

        return flask.Response(stream_with_context(body()))

    @app.get("/late")
    def late() -> dict[str, Any]:
        return {"late": session.get("late")}

    return app


@pytest.fixture
def app(driver: CountingDriver) -> Flask:
    return make_app(driver)


def test_each_kind_of_request_costs_what_the_budget_says(app: Flask, driver: CountingDriver) -> None:
    client = app.test_client()
    for path, calls in (
        ("/read", 0),
        ("/write/ada", 1),
        ("/untouched", 0),
        ("/read", 1),
        ("/write/eve", 2),
        ("/logout", 1),
    ):
        driver.reset()
        assert client.get(path).status_code == 200
        assert len(driver.calls) == calls, path


def test_an_untouched_session_leaves_no_trace(app: Flask) -> None:
    client = app.test_client()
    client.get("/write/ada")
    response = client.get("/untouched")
    assert "Set-Cookie" not in response.headers
    assert "Vary" not in response.headers


def test_the_cookie_is_safe_although_flasks_defaults_are_not(app: Flask) -> None:
    cookie = app.test_client().get("/write/ada").headers["Set-Cookie"]
    for attribute in ("HttpOnly", "Secure", "SameSite=Lax", "Path=/", "Max-Age="):
        assert attribute in cookie


def test_settings_of_flask_are_read(driver: CountingDriver) -> None:
    app = Flask("test")
    app.config.update(
        SECRET_KEY=SECRET,
        SECRET_KEY_FALLBACKS=[OLD],
        SESSION_KIT_STORE="memory://",
        SESSION_COOKIE_NAME="shop",
        SESSION_COOKIE_PATH="/shop",
        SESSION_COOKIE_DOMAIN="example.com",
        SESSION_COOKIE_SAMESITE="Strict",
        SESSION_COOKIE_PARTITIONED=True,
        PERMANENT_SESSION_LIFETIME=timedelta(hours=1),
    )
    kit = SessionKit(app)
    assert kit.manager is not None
    assert kit.manager.store.ttl == 3600
    with app.test_request_context("/shop/"):
        session["user"] = "ada"
        response = app.response_class()
        app.session_interface.save_session(app, session._get_current_object(), response)  # type: ignore[attr-defined]
    header = response.headers["Set-Cookie"]
    assert header.startswith("shop=")
    for part in ("Path=/shop", "Domain=example.com", "SameSite=Strict", "Partitioned", "Max-Age=39"):
        assert part in header


def test_a_ttl_in_the_url_wins_over_flasks_lifetime() -> None:
    app = Flask("test")
    app.secret_key = SECRET
    kit = SessionKit(app, "memory://?ttl=90")
    assert kit.manager is not None
    assert kit.manager.store.ttl == 90


def test_a_cookie_signed_with_a_fallback_is_signed_again(driver: CountingDriver) -> None:
    store = UnstorageSessionStore(driver)
    before = SessionManager(store, OLD)
    opened = before.open()
    opened["user"] = "ada"
    cookie = dict(before.commit(opened))["Set-Cookie"].split(";")[0]
    app = make_app(driver, secret=[SECRET, OLD])
    response = app.test_client(use_cookies=False).get("/read", headers={"Cookie": cookie})
    assert response.json == {"value": "ada", "new": False, "modified": False}
    assert cookie not in response.headers["Set-Cookie"]


def test_flashed_messages_are_shown_once(app: Flask) -> None:
    client = app.test_client()
    client.get("/flash")
    assert client.get("/flashed").json == {
        "plain": ["hello", "careful"],
        "with": [["message", "hello"], ["warning", "careful"]],
    }
    assert client.get("/flashed").json == {"plain": [], "with": []}


def test_permanent_decides_how_long_the_cookie_lives(app: Flask) -> None:
    client = app.test_client()
    assert "Max-Age" not in client.get("/permanent/0").headers["Set-Cookie"]
    assert "Max-Age" in client.get("/permanent/1").headers["Set-Cookie"]
    assert "Set-Cookie" not in client.get("/permanent/1").headers


def test_session_transaction_prepares_and_looks_at_a_session(app: Flask) -> None:
    client = app.test_client()
    with client.session_transaction() as prepared:
        prepared["user"] = "ada"
    assert client.get("/read").json == {"value": "ada", "new": False, "modified": False}
    client.get("/write/eve")
    with client.session_transaction() as found:
        assert found["user"] == "eve"


def test_a_view_that_raises_has_changed_nothing(app: Flask) -> None:
    client = app.test_client()
    response = client.get("/fail")
    assert response.status_code == 500
    assert "Set-Cookie" not in response.headers
    client.get("/write/ada")
    client.get("/fail")
    assert client.get("/read").json == {"value": "ada", "new": False, "modified": False}


def test_a_change_in_a_stream_is_stored(app: Flask) -> None:
    client = app.test_client()
    client.get("/write/ada")
    response = client.get("/stream")
    assert response.data == b"onetwo"
    response.close()
    assert client.get("/late").json == {"late": True}
    response = app.test_client().get("/stream")
    assert response.data == b"onetwo"
    with pytest.raises(SessionError, match="response has begun"):
        response.close()


@pytest.mark.parametrize("on_error", ["raise", "anonymous"])
def test_an_outage(on_error: Any) -> None:
    driver = FaultyDriver(MemoryDriver())
    app = make_app(driver, on_error=on_error)
    client = app.test_client()
    client.get("/write/ada")
    for method in ("read", "renew", "set", "delete"):
        driver.fail(method)
    assert client.get("/untouched").status_code == 200
    first = app.test_client().get("/write/eve")
    statuses = [client.get("/read").status_code, client.get("/write/eve").status_code, first.status_code]
    assert statuses == ([503] * 3 if on_error == "raise" else [200] * 3)
    assert "Set-Cookie" not in first.headers
    driver.heal()
    assert client.get("/read").json == {"value": "ada", "new": False, "modified": False}


def test_a_value_that_json_would_change_is_refused_where_it_is_put_in(app: Flask) -> None:
    with app.test_request_context(), pytest.raises(SessionError, match="at: a timedelta cannot be stored"):
        session["at"] = timedelta(1)


def test_impossible_settings_are_refused_at_start() -> None:
    app = Flask("test")
    with pytest.raises(ConfigError, match="needs a store"):
        SessionKit(app)
    with pytest.raises(ConfigError, match="no secret given"):
        SessionKit(app, "memory://")
    with pytest.raises(ConfigError, match="unknown option 'touch_aftr'"):
        SessionKit(app, "memory://", SECRET, touch_aftr=3)  # type: ignore[call-arg]
    SessionKit(app, "memory://", SECRET, cookie=CookieOptions(secure=False))
    with pytest.raises(ConfigError, match="installed twice"):
        SessionKit(app, "memory://", SECRET)
