"""Flask: its own habits on a server-side session."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import flask
import pytest
from flask import Flask, flash, get_flashed_messages, render_template_string, stream_with_context
from markupsafe import Markup
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient
from werkzeug.datastructures import MultiDict
from werkzeug.exceptions import HTTPException
from werkzeug.wsgi import FileWrapper

from session_kit import ConfigError, CookieOptions, SessionError, SessionManager, UnstorageSessionStore
from session_kit.asgi import SessionMiddleware
from session_kit.drivers.memory import MemoryDriver
from session_kit.integrations.flask import SessionKit, session
from session_kit.testing import CountingDriver, FaultyDriver, ManualClock
from tests.harness.sessions import OLD_SECRET, SECRET, cookie_of, take_down


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
        session.destroy()
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
        ("/logout", 2),
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
    for attribute in ("HttpOnly", "Secure", "SameSite=Lax", "Path=/"):
        assert attribute in cookie


def test_settings_of_flask_are_read(driver: CountingDriver) -> None:
    app = Flask("test")
    app.config.update(
        SECRET_KEY=SECRET,
        SECRET_KEY_FALLBACKS=[OLD_SECRET],
        SESSION_KIT_STORE="memory://",
        SESSION_COOKIE_NAME="shop",
        SESSION_COOKIE_PATH="/shop",
        SESSION_COOKIE_DOMAIN="example.com",
        SESSION_COOKIE_SAMESITE="Strict",
        SESSION_COOKIE_PARTITIONED=True,
        PERMANENT_SESSION_LIFETIME=timedelta(hours=1),
    )
    SessionKit(app)
    assert app.extensions["session_kit"].store.ttl == 3600
    with app.test_request_context("/shop/"):
        session.update(user="ada").permanent = True
        response = app.response_class()
        app.session_interface.save_session(app, session._get_current_object(), response)  # type: ignore[attr-defined]
    header = response.headers["Set-Cookie"]
    assert header.startswith("shop=")
    for part in ("Path=/shop", "Domain=example.com", "SameSite=Strict", "Partitioned", "Max-Age=39"):
        assert part in header


def test_a_ttl_in_the_url_wins_over_flasks_lifetime() -> None:
    app = Flask("test")
    app.secret_key = SECRET
    SessionKit(app, "memory://?ttl=90")
    assert app.extensions["session_kit"].store.ttl == 90


def test_a_cookie_signed_with_a_fallback_is_signed_again(driver: CountingDriver) -> None:
    store = UnstorageSessionStore(driver)
    before = SessionManager(store, OLD_SECRET)
    opened = before.open()
    opened["user"] = "ada"
    cookie = cookie_of(before.commit(opened))
    app = Flask("test")
    app.config.update(SECRET_KEY=SECRET, SECRET_KEY_FALLBACKS=["Older" + OLD_SECRET, OLD_SECRET])
    SessionKit(app, store)
    app.add_url_rule("/read", "its read", lambda: {"value": session.get("user")})
    response = app.test_client(use_cookies=False).get("/read", headers={"Cookie": cookie})
    assert response.json == {"value": "ada"}
    assert cookie not in response.headers["Set-Cookie"]
    signed_again = response.headers["Set-Cookie"].split(";")[0]
    opened = SessionManager(store, SECRET).open(signed_again)
    assert opened["user"] == "ada"


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
    with pytest.raises(SessionError, match="response has begun"):
        app.test_client().get("/stream").get_data()


def test_a_late_change_is_stored_before_the_client_sees_the_end(app: Flask) -> None:
    client = app.test_client()
    client.get("/write/ada")
    response = client.get("/stream")
    assert list(response.response) == [b"one", b"two"]
    assert client.get("/late").json == {"late": True}  # nobody has closed the response yet


def test_a_stream_that_fails_has_changed_nothing(app: Flask) -> None:
    @app.get("/broken-stream")
    def broken_stream() -> Any:
        session.get("user")

        def body() -> Iterator[str]:
            session["user"] = "eve"
            yield "one"
            raise RuntimeError("broken")

        return flask.Response(stream_with_context(body()))

    client = app.test_client()
    client.get("/write/ada")
    response = client.get("/broken-stream")
    with pytest.raises(RuntimeError, match="broken"):
        list(response.response)
    response.close()
    assert client.get("/read").json == {"value": "ada", "new": False, "modified": False}


def test_a_file_that_is_sent_stays_one_that_the_server_may_send(app: Flask) -> None:
    @app.get("/file")
    def file() -> flask.Response:
        session.get("user")
        return flask.send_file(__file__)

    environ = app.test_request_context("/file").request.environ | {"wsgi.file_wrapper": Wrapper}
    with closing(app(environ, lambda *_: None)) as body:
        assert isinstance(body, Wrapper)


class Wrapper(FileWrapper):
    """The server's own, see PEP 3333."""


@pytest.mark.parametrize("on_error", ["raise", "anonymous"])
def test_an_outage(on_error: Any) -> None:
    driver = FaultyDriver(MemoryDriver())
    app = make_app(driver, on_error=on_error)
    client = app.test_client()
    client.get("/write/ada")
    take_down(driver)
    assert client.get("/untouched").status_code == 200
    first = app.test_client().get("/write/eve")
    statuses = [client.get("/read").status_code, client.get("/write/eve").status_code, first.status_code]
    assert statuses == ([503] * 3 if on_error == "raise" else [200] * 3)
    assert "Set-Cookie" not in first.headers
    driver.heal()
    assert client.get("/read").json == {"value": "ada", "new": False, "modified": False}


# --- values: as in Flask's own sessions ---

VALUES = [
    (1, (2, "x"), {"y": ()}),
    b"\x00\xff",
    UUID("0e7b6a33-9a2c-4a33-8c55-0123456789ab"),
    datetime(2026, 1, 31, 12, 30, tzinfo=UTC),
    Markup("<b>bold</b>"),
    [{" t": [1]}, {"plain": [1, None, 2.5, "text"]}],
]


def keep(app: Flask, value: Any) -> Any:
    """What one request finds of a value that another has put in."""
    found = []
    app.add_url_rule("/put", "put", lambda: str(flask.session.update(kept={"deep": [value]})))
    app.add_url_rule("/find", "find", lambda: found.append(flask.session["kept"]["deep"][0]) or "ok")
    client = app.test_client()
    assert [client.get(path, base_url="https://localhost").status_code for path in ("/put", "/find")] == [200, 200]
    return found[0]


@pytest.mark.parametrize("secret", [SECRET, None])
def test_a_forgotten_session_kit_raises_and_nothing_goes_into_a_cookie_that_can_be_read(secret: str | None) -> None:
    app = Flask("forgetful")
    app.secret_key = secret
    app.testing = True
    app.add_url_rule("/", "put", lambda: str(session.update(user="ada")))
    with pytest.raises(SessionError, match=r"SessionKit\(app, ...\) is missing"):
        app.test_client().get("/")
    with pytest.raises(RuntimeError, match="outside of request context"):
        session.get("user")


@pytest.mark.parametrize("value", VALUES)
def test_a_value_comes_back_as_it_does_from_flasks_own_sessions(app: Flask, value: Any) -> None:
    own = Flask("own")
    own.secret_key = SECRET
    found = keep(app, value)
    assert found == value == keep(own, value)
    assert type(found) is type(value)


def test_a_form_that_is_kept_comes_back_as_from_flasks_own_sessions(app: Flask) -> None:
    own = Flask("own")
    own.secret_key = SECRET
    form = MultiDict([("size", "s"), ("size", "m"), ("color", "red")])
    assert keep(app, form) == {"size": "s", "color": "red"} == keep(own, form)


@pytest.mark.parametrize("value", [date(2026, 1, 31), Decimal("9.90"), {3}])
def test_a_value_that_has_no_tag_comes_back_as_json_has_it(app: Flask, value: Any) -> None:
    assert keep(app, value) == ([3] if isinstance(value, set) else str(value))


@pytest.mark.parametrize("value", [datetime(2026, 1, 1), (1, 2), b"x", {1}, Markup("<b>")])
@pytest.mark.parametrize("options", [{"codec": "json"}, {"store": "memory://?codec=json"}])
def test_a_codec_that_was_chosen_is_kept_and_a_value_that_json_would_change_refused_in_one_line(
    value: Any, options: Any
) -> None:
    app = Flask("strict")
    app.secret_key = SECRET
    SessionKit(app, **{"store": "memory://", **options})
    with app.test_request_context(), pytest.raises(SessionError, match=r"^seen\.at: ") as caught:
        session["seen"] = {"at": value}
    assert "\n" not in str(caught.value)


def test_records_that_were_written_as_plain_json_are_read_and_what_only_reads_writes_nothing(
    driver: CountingDriver,
) -> None:
    cart = {"items": [1, {"n": 2}], "note": " t"}
    before, now = make_app(driver, codec="json"), make_app(driver)
    found = []
    before.add_url_rule("/put", "put", lambda: session.update(cart=cart) and "ok")
    now.add_url_rule("/find", "find", lambda: found.append(session["cart"]) or "ok")
    cookie = before.test_client().get("/put").headers["Set-Cookie"].split(";")[0]
    driver.reset()
    assert now.test_client(use_cookies=False).get("/find", headers={"Cookie": cookie}).status_code == 200
    assert found == [cart]
    assert driver.calls == ["renew"]


def test_a_half_that_knows_no_tags_leaves_them_as_they_are_and_one_that_does_sees_the_value() -> None:
    store = UnstorageSessionStore(MemoryDriver())
    app = make_app(store.driver)
    found = []
    app.add_url_rule("/put", "put", lambda: session.update(size=(3, 4)) and "ok")
    app.add_url_rule("/find", "find", lambda: found.append((session["size"], session["user"])) or "ok")

    async def see(request: Request) -> JSONResponse:
        size = request.session["size"]
        request.session["user"] = "ada"
        return JSONResponse([type(size).__name__, size])

    client = app.test_client(use_cookies=False)
    cookie = client.get("/put").headers["Set-Cookie"].split(";")[0]
    for options, seen in (({}, ["dict", {" t": [3, 4]}]), ({"codec": "json-tagged"}, ["tuple", [3, 4]])):
        other = Starlette(routes=[Route("/see", see)])
        other.add_middleware(SessionMiddleware, store=store, secret=SECRET, rotate_on=[], **options)
        assert TestClient(other).get("/see", headers={"cookie": cookie}).json() == seen
        client.get("/find", headers={"cookie": cookie})
    assert found == [((3, 4), "ada")] * 2


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
    with pytest.raises(ConfigError, match="not both"):
        SessionKit(Flask("test"), "memory://", manager=SessionManager("memory://", SECRET))


# --- several applications, and settings ---


def test_one_kit_keeps_several_applications_apart() -> None:
    kit = SessionKit()
    apps = [Flask("one"), Flask("two")]
    for app, secret in zip(apps, (SECRET, OLD_SECRET), strict=True):
        app.config.update(SECRET_KEY=secret, SESSION_KIT_STORE="memory://", SESSION_COOKIE_NAME=app.name)
        kit.init_app(app)
        app.add_url_rule("/write", "its write", lambda: session.update(user="ada") and "ok")
    cookies = [app.test_client().get("/write").headers["Set-Cookie"] for app in apps]
    assert [cookie.partition("=")[0] for cookie in cookies] == ["one", "two"]
    assert apps[0].extensions["session_kit"].store is not apps[1].extensions["session_kit"].store


def test_a_ready_manager_is_shared() -> None:
    manager = SessionManager("memory://", SECRET)
    apps = [Flask("one"), Flask("two")]
    for app in apps:
        SessionKit(app, manager=manager)
        app.add_url_rule("/write", "its write", lambda: session.update(user="ada") and "ok")
        app.add_url_rule("/read", "its read", lambda: {"value": session.get("user")})
    cookie = apps[0].test_client().get("/write").headers["Set-Cookie"].split(";")[0]
    assert apps[1].test_client(use_cookies=False).get("/read", headers={"Cookie": cookie}).json == {"value": "ada"}


def test_flasks_lifetime_runs_by_the_clock_that_was_given() -> None:
    clock = ManualClock()
    app = Flask("test")
    app.config.update(SECRET_KEY=SECRET, PERMANENT_SESSION_LIFETIME=60)
    SessionKit(app, "memory://", clock=clock)
    app.add_url_rule("/write", "its write", lambda: session.update(user="ada") and "ok")
    app.add_url_rule("/read", "its read", lambda: {"value": session.get("user")})
    response = app.test_client().get("/write")
    cookie = {"Cookie": response.headers["Set-Cookie"].split(";")[0]}
    client = app.test_client(use_cookies=False)
    clock.advance(50)
    assert client.get("/read", headers=cookie).json == {"value": "ada"}
    clock.advance(70)
    assert client.get("/read", headers=cookie).json == {"value": None}


# --- Flask's habits ---


def test_a_template_that_does_not_show_the_session_costs_nothing(app: Flask, driver: CountingDriver) -> None:
    app.add_url_rule("/page", "its page", lambda: render_template_string("hello"))
    app.add_url_rule("/greeting", "its greeting", lambda: render_template_string("hello {{ session.user }}"))
    client = app.test_client()
    client.get("/write/ada")
    driver.reset()
    assert "Vary" not in client.get("/page").headers
    assert not driver.calls
    assert client.get("/greeting").text == "hello ada"


def test_what_else_an_answer_varies_by_is_kept(app: Flask) -> None:
    @app.get("/translated")
    def translated() -> flask.Response:
        session.get("user")
        return flask.Response("hallo", headers={"Vary": "Accept-Language"})

    assert app.test_client().get("/translated").headers.getlist("Vary") == ["Accept-Language, Cookie"]


def test_making_every_session_permanent_makes_no_session_for_every_visitor(app: Flask, driver: CountingDriver) -> None:
    @app.before_request
    def keep() -> None:
        session.permanent = True

    response = app.test_client().get("/untouched")
    assert "Set-Cookie" not in response.headers
    assert not driver.calls


def test_clear_logs_out_where_every_session_is_made_permanent(app: Flask, driver: CountingDriver) -> None:
    @app.before_request
    def keep() -> None:
        session.permanent = True

    @app.get("/clear-and-keep")
    def clear() -> str:
        session.clear()
        session.permanent = True
        return "ok"

    client = app.test_client()
    assert "Max-Age=8" in client.get("/write/ada").headers["Set-Cookie"]
    assert "Max-Age=0" in client.get("/clear-and-keep").headers["Set-Cookie"]


@pytest.mark.parametrize("options", [{}, {"cookie": CookieOptions(persistent=True)}])
def test_a_login_ends_with_the_browser_unless_it_is_permanent(driver: CountingDriver, options: Any) -> None:
    app = make_app(driver, **options)
    client = app.test_client()
    assert "Max-Age" not in client.get("/write/ada").headers["Set-Cookie"]
    assert "Max-Age" in client.get("/permanent/1").headers["Set-Cookie"]
    with client.session_transaction() as found:
        assert found.permanent
        assert found["_permanent"] is True
    with app.test_client().session_transaction() as fresh:
        assert not fresh.permanent


@pytest.mark.parametrize("refresh", [True, False])
def test_without_refresh_a_permanent_cookie_counts_from_the_last_change(refresh: bool) -> None:
    clock = ManualClock()
    app = Flask("test")
    app.config.update(SECRET_KEY=SECRET, PERMANENT_SESSION_LIFETIME=600, SESSION_REFRESH_EACH_REQUEST=refresh)
    SessionKit(app, "memory://", clock=clock)

    @app.get("/write/<value>")
    def write(value: str) -> str:
        session.permanent = True
        session["value"] = value
        return "ok"

    @app.get("/poll/<value>")
    def poll(value: str) -> str:
        session.load(touch=False)
        return write(value)

    app.add_url_rule("/read", "its read", lambda: {"value": session.get("value")})
    client = app.test_client()
    assert "Max-Age=6" in client.get("/write/1").headers["Set-Cookie"]
    clock.advance(100)
    response = client.get("/read")
    assert ("Set-Cookie" in response.headers) == refresh
    assert "Vary" in response.headers
    clock.advance(1)
    assert ("Set-Cookie" in client.get("/write/2").headers) != refresh
    assert "Set-Cookie" not in client.get("/write/2").headers
    clock.advance(100)
    assert "Set-Cookie" not in client.get("/poll/3").headers  # it does not count as use
    assert client.get("/read").json == {"value": "3"}


def test_modified_false_saves_nothing_of_what_came_before(app: Flask, driver: CountingDriver) -> None:
    @app.get("/unsaved/<later>")
    def unsaved(later: str) -> dict[str, Any]:
        session["polled"] = True
        session.setdefault("cart", []).append("pear")
        session.modified = False
        assert not session.modified
        if later == "yes":
            session["later"] = True
        return {"polled": session["polled"], "modified": session.modified}

    client = app.test_client()
    assert "Set-Cookie" not in client.get("/unsaved/no").headers
    client.get("/write/ada")
    driver.reset()
    assert client.get("/unsaved/no").json == {"polled": True, "modified": False}
    assert len(driver.calls) == 1  # the read
    with client.session_transaction() as found:
        assert "polled" not in found
    assert client.get("/unsaved/yes").json == {"polled": True, "modified": True}
    with client.session_transaction() as found:
        assert (found["polled"], found["cart"], found["later"]) == (True, ["pear"], True)


def test_a_template_never_shows_the_secret_id(app: Flask) -> None:
    app.add_url_rule(
        "/page", "its page", lambda: render_template_string(TEMPLATE, macro=app.jinja_env.from_string(MACRO))
    )
    client = app.test_client()
    client.get("/write/ada")
    assert client.get("/page").text == "id= data= created= user=ada size=1 macro= ada"
    with client.session_transaction() as prepared:
        prepared.update(id=7, data="mine", created="today")
    assert client.get("/page").text == "id=7 data=mine created=today user=ada size=4 macro=7 ada"


TEMPLATE = (
    "id={{ session.id }} data={{ session.data }} created={{ session.created }} "
    "user={{ session.user }} size={{ session|length }}"
    "{% import macro as m %} macro={{ m.show() }}"
)
MACRO = "{% macro show() %}{{ session.id }} {{ session['user'] }}{% endmacro %}"


def test_a_template_may_take_a_message_out_of_the_session(app: Flask) -> None:
    app.add_url_rule("/page", "its page", lambda: render_template_string("{{ session.pop('user', 'nobody') }}"))
    client = app.test_client()
    client.get("/write/ada")
    assert [client.get("/page").text for _ in range(2)] == ["ada", "nobody"]


def test_in_testing_the_cookie_goes_over_plain_http(app: Flask) -> None:
    app.testing = True
    assert "Secure" not in app.test_client().get("/write/ada").headers["Set-Cookie"]
    assert "Secure" in app.test_client().get("/write/ada", base_url="https://localhost").headers["Set-Cookie"]
    app.testing = False
    assert "Secure" in app.test_client().get("/write/ada").headers["Set-Cookie"]


def test_a_flashed_piece_of_html_stays_one_and_a_text_becomes_none(app: Flask) -> None:
    app.add_url_rule("/safe", "its safe", lambda: flash(Markup("<b>bold</b>")) or "ok")
    app.add_url_rule("/text", "its text", lambda: flash("<script>") or "ok")
    app.add_url_rule("/page", "its page", lambda: render_template_string("{{ get_flashed_messages()[0] }}"))
    client = app.test_client()
    client.get("/safe")
    assert client.get("/page").text == "<b>bold</b>"
    client.get("/text")
    assert client.get("/page").text == "&lt;script&gt;"


def test_flashed_messages_are_tuples_for_those_who_look(app: Flask) -> None:
    client = app.test_client()
    client.get("/flash")
    with client.session_transaction() as found:
        assert found["_flashes"] == [("message", "hello"), ("warning", "careful")]
        assert dict(found)["_flashes"] == found["_flashes"]


def test_clear_logs_out_as_it_does_with_flasks_own_cookie(app: Flask, driver: CountingDriver) -> None:
    app.add_url_rule("/clear", "its clear", lambda: session.clear() or "ok")
    client = app.test_client()
    cookie = client.get("/write/ada").headers["Set-Cookie"].split(";")[0]
    assert "Max-Age=0" in client.get("/clear").headers["Set-Cookie"]
    again = app.test_client(use_cookies=False).get("/read", headers={"Cookie": cookie})
    assert again.json == {"value": None, "new": True, "modified": False}
    driver.reset()
    assert "Set-Cookie" not in app.test_client().get("/clear").headers
    assert not driver.calls


def test_clear_and_log_in_gives_a_new_id(app: Flask) -> None:
    def login() -> str:
        session.clear()
        session["name"] = "ada"
        return "ok"

    app.add_url_rule("/login", "its login", login)
    app.add_url_rule("/name", "its name", lambda: {"name": session.get("name"), "user": session.get("user")})
    client = app.test_client()
    before = client.get("/write/planted").headers["Set-Cookie"].split(";")[0]
    after = client.get("/login").headers["Set-Cookie"].split(";")[0]
    assert before.partition(".")[0] != after.partition(".")[0]
    assert client.get("/name").json == {"name": "ada", "user": None}


def test_a_logout_that_reached_no_store_does_not_look_like_one() -> None:
    driver = FaultyDriver(MemoryDriver())
    app = make_app(driver, on_error="anonymous")
    app.add_url_rule("/clear", "its clear", lambda: session.clear() or "ok")
    client = app.test_client()
    client.get("/write/ada")
    driver.fail("delete")
    response = client.get("/clear")
    assert response.status_code == 503
    assert "Set-Cookie" not in response.headers
    driver.heal()
    assert client.get("/read").json == {"value": "ada", "new": False, "modified": False}


def test_async_views_work(app: Flask) -> None:
    @app.get("/async")
    async def view() -> dict[str, Any]:
        session["user"] = "ada"
        session.regenerate()
        return {"value": session["user"]}

    client = app.test_client()
    assert client.get("/async").json == {"value": "ada"}
    assert client.get("/async").json == {"value": "ada"}


# --- failures ---


def test_an_exception_that_has_a_handler_is_no_failure(app: Flask) -> None:
    @app.get("/refused")
    def refused() -> str:
        session["user"] = "ada"
        flask.abort(403)

    client = app.test_client()
    assert client.get("/refused").status_code == 403
    assert client.get("/read").json == {"value": "ada", "new": False, "modified": False}


def test_an_error_page_that_shows_the_session_saves_nothing(app: Flask) -> None:
    app.register_error_handler(500, lambda error: (f"sorry, {session.get('user')}", 500))
    client = app.test_client()
    client.get("/write/ada")
    response = client.get("/fail")
    assert response.text == "sorry, ada"  # what was changed and is not saved does not look as if it were
    assert "Set-Cookie" not in response.headers
    assert client.get("/read").json == {"value": "ada", "new": False, "modified": False}


@pytest.mark.parametrize("testing", [False, True])
def test_in_an_outage_the_applications_own_page_is_shown(testing: bool) -> None:
    driver = FaultyDriver(MemoryDriver())
    app = make_app(driver)
    app.testing = testing

    @app.errorhandler(503)
    def down(error: HTTPException) -> tuple[str, int, dict[str, str]]:
        shown = render_template_string("back soon{{ session.user }}")  # as a page's layout would
        return shown, 503, {"Retry-After": "5"}

    @app.after_request
    def allow(response: flask.Response) -> flask.Response:
        session.get("user")
        response.headers["Access-Control-Allow-Origin"] = "*"
        return response

    client = app.test_client()
    client.get("/write/ada")
    for method in ("read", "renew", "set"):
        driver.fail(method)
    for response in (client.get("/read"), client.get("/write/eve"), app.test_client().get("/write/eve")):
        assert (response.status_code, response.text) == (503, "back soon")
        assert response.headers["Retry-After"] == "5"
        assert response.headers["Content-Length"] == str(len(response.data))
        assert response.headers.getlist("Access-Control-Allow-Origin") == ["*"]
        assert "Set-Cookie" not in response.headers


def test_a_stream_whose_session_cannot_be_saved_is_not_begun() -> None:
    driver = FaultyDriver(MemoryDriver())
    app = make_app(driver)
    begun = []

    @app.get("/export")
    def export() -> Any:
        session["user"] = "ada"

        def body() -> Iterator[str]:
            begun.append(True)
            yield "secret"

        return flask.Response(body())

    driver.fail("set")
    response = app.test_client().get("/export")
    assert (response.status_code, begun) == (503, [])
    assert b"secret" not in response.data


def test_what_a_view_that_got_a_503_had_changed_is_not_saved_after_all() -> None:
    driver = FaultyDriver(MemoryDriver())
    app = make_app(driver)

    @app.get("/explicit")
    def explicit() -> str:
        session["user"] = "eve"
        driver.fail("set", times=1)
        session.save()
        return "ok"

    client = app.test_client()
    client.get("/write/ada")
    assert client.get("/explicit").status_code == 503
    assert client.get("/read").json == {"value": "ada", "new": False, "modified": False}


def test_an_error_handler_may_flash_and_what_the_failed_view_changed_is_dropped(app: Flask) -> None:
    @app.errorhandler(RuntimeError)
    def explain(error: Exception) -> Any:
        assert session.get("user") == "ada"
        flash("that did not work")
        return flask.redirect("/read")

    client = app.test_client()
    client.get("/write/ada")
    assert client.get("/fail").status_code == 302
    assert client.get("/read").json == {"value": "ada", "new": False, "modified": False}
    assert client.get("/flashed").json["plain"] == ["that did not work"]


@pytest.mark.parametrize("status", [200, 500])
def test_what_the_page_of_a_500_changes_counts_by_its_status(app: Flask, status: int) -> None:
    @app.errorhandler(500)
    def explain(error: Exception) -> Any:
        flash("that did not work")
        return "sorry", status

    client = app.test_client()
    client.get("/write/ada")
    assert client.get("/fail").status_code == status
    assert client.get("/read").json == {"value": "ada", "new": False, "modified": False}
    assert client.get("/flashed").json["plain"] == (["that did not work"] if status == 200 else [])


def test_an_answer_of_5xx_keeps_what_was_saved_by_name_alone(app: Flask) -> None:
    @app.get("/half")
    def half() -> Any:
        session["counted"] = True
        session.save()
        session["user"] = "eve"
        return "sorry", 502

    client = app.test_client()
    client.get("/write/ada")
    assert client.get("/half").status_code == 502
    with client.session_transaction() as found:
        assert dict(found) == {"user": "ada", "counted": True}


@pytest.mark.parametrize("where", ["after the extension", "before each request"])
def test_a_short_lifetime_that_is_set_late_is_not_a_month(where: str) -> None:
    clock = ManualClock()
    app = Flask("test")
    app.secret_key = SECRET
    SessionKit(app, "memory://", clock=clock)
    if where == "after the extension":
        app.permanent_session_lifetime = timedelta(minutes=5)

    @app.before_request
    def limit() -> None:
        session.permanent = True
        if where == "before each request":
            app.permanent_session_lifetime = timedelta(minutes=5)

    @app.get("/login")
    def login() -> str:
        session["user"] = "ada"
        return "ok"

    app.add_url_rule("/read", "its read", lambda: {"user": session.get("user")})
    client = app.test_client(use_cookies=False)
    answer = client.get("/login")
    assert "Max-Age=330;" in answer.headers["Set-Cookie"]
    cookie = {"Cookie": cookie_of(answer.headers)}
    clock.advance(299)
    assert client.get("/read", headers=cookie).json == {"user": "ada"}
    clock.advance(331)
    assert client.get("/read", headers=cookie).json == {"user": None}


@pytest.mark.parametrize(
    ("setting", "value"),
    [("SECRET_KEY", OLD_SECRET), ("SESSION_COOKIE_NAME", "shop"), ("SESSION_COOKIE_SAMESITE", "Strict")],
)
def test_a_setting_that_comes_too_late_is_not_ignored_in_silence(setting: str, value: str) -> None:
    app = Flask("test")
    app.config.update(SECRET_KEY=SECRET, PROPAGATE_EXCEPTIONS=True)
    SessionKit(app, "memory://")
    app.add_url_rule("/", "home", lambda: "ok")
    app.config[setting] = value
    for _ in range(2):
        with pytest.raises(ConfigError, match=f"before SessionKit is installed.*{setting}"):
            app.test_client().get("/")
    app.testing = True
    assert app.test_client().get("/").status_code == 200


def test_a_late_setting_that_changes_nothing_is_no_error() -> None:
    app = Flask("test")
    app.config.update(SECRET_KEY=OLD_SECRET, PROPAGATE_EXCEPTIONS=True)
    SessionKit(app, "memory://", SECRET, name="shop")
    app.config.update(SECRET_KEY="another", SESSION_COOKIE_NAME="another")  # options were given in their place
    app.config.update(SESSION_COOKIE_SAMESITE="Lax", SESSION_COOKIE_HTTPONLY=True)  # as they are anyway
    app.add_url_rule("/", "home", lambda: "ok")
    assert app.test_client().get("/").status_code == 200


def test_a_cookie_without_secure_keeps_what_the_settings_say() -> None:
    app = Flask("test")
    app.config.update(
        SECRET_KEY=SECRET,
        SESSION_COOKIE_SAMESITE="Strict",
        SESSION_COOKIE_DOMAIN="example.com",
        SESSION_COOKIE_PATH="/shop",
    )
    SessionKit(app, "memory://", cookie=CookieOptions(secure=False, path="/cart"))

    @app.get("/")
    def write() -> str:
        session["x"] = 1
        return "ok"

    cookie = app.test_client().get("/").headers["Set-Cookie"]
    assert "Secure" not in cookie
    for part in ("SameSite=Strict", "Domain=example.com", "Path=/cart"):
        assert part in cookie


def test_modified_sends_the_cookie_of_a_visitor_who_only_reads_where_reads_do_not() -> None:
    app = Flask("test")
    app.config.update(SECRET_KEY=SECRET, SESSION_REFRESH_EACH_REQUEST=False)
    SessionKit(app, "memory://")

    @app.get("/login")
    def login() -> str:
        session.permanent = True
        session["user"] = "ada"
        return "ok"

    @app.get("/ping")
    def ping() -> str:
        session.modified = True
        return str(session.modified)

    client = app.test_client()
    assert "Set-Cookie" not in client.get("/ping").headers  # there is no session
    cookie = client.get("/login").headers["Set-Cookie"]
    answer = client.get("/ping")
    assert (answer.text, answer.headers.get("Set-Cookie")) == ("True", cookie)
