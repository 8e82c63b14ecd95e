"""Pyramid: the whole of ISession on a server-side session."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from pyramid.config import Configurator
from pyramid.httpexceptions import HTTPFound
from pyramid.interfaces import ISession, ISessionFactory
from pyramid.response import Response
from pyramid.testing import DummyRequest
from zope.interface.verify import verifyObject

from session_kit import ConfigError, SessionError, SessionManager, UnstorageSessionStore
from session_kit.drivers.memory import MemoryDriver
from session_kit.integrations.pyramid import PyramidSession, includeme, session_factory
from session_kit.testing import CountingDriver, FaultyDriver
from tests.harness.bare_wsgi import BareServer, cookie_of
from tests.harness.sessions import SECRET, take_down


def untouched(request: Any) -> Response:
    return Response("ok")


def read(request: Any) -> Response:
    return Response(str(request.session.get("user")))


def write(request: Any) -> Response:
    request.session["user"] = "ada"
    return Response("ok")


def redirect(request: Any) -> Response:
    request.session["user"] = "redirected"
    raise HTTPFound("/read")


def fail(request: Any) -> Response:
    request.session["user"] = "eve"
    raise RuntimeError("broken")


def fail_early(request: Any) -> Response:
    raise RuntimeError("broken")


def logout(request: Any) -> Response:
    request.session.invalidate()
    return Response("ok")


def stream(request: Any) -> Response:
    request.session.get("user")

    def body() -> Iterator[bytes]:
        yield b"one"
        request.session["user"] = "late"
        yield b"two"

    return Response(app_iter=body())


def flash(request: Any) -> Response:
    request.session.flash("hello")
    request.session.flash("hello", allow_duplicate=False)
    request.session.flash("careful", "warnings")
    return Response("|".join(request.session.peek_flash()))


def flashed(request: Any) -> Response:
    return Response("|".join(request.session.pop_flash() + request.session.pop_flash("warnings")))


def token(request: Any) -> Response:
    return Response(request.session.get_csrf_token())


class File:
    """A file that is sent."""

    closed = False

    def __iter__(self) -> Iterator[bytes]:
        yield b"content"

    def close(self) -> None:
        File.closed = True


def download(request: Any) -> Response:
    request.session.get("user")
    return Response(app_iter=File())


VIEWS = (untouched, read, write, redirect, fail, fail_early, logout, stream, flash, flashed, token, download)


class PyramidSite:
    """An application under a WSGI server, and a visitor who keeps the cookie."""

    def __init__(self, driver: Any, error_page: Any = None, **options: Any) -> None:
        with Configurator() as config:
            config.set_session_factory(session_factory(UnstorageSessionStore(driver), SECRET, **options))
            for view in VIEWS:
                config.add_route(view.__name__, f"/{view.__name__}")
                config.add_view(view, route_name=view.__name__)
            if error_page:
                config.add_exception_view(error_page, context=RuntimeError)
            self.server = BareServer(config.make_wsgi_app())
        self.cookie = ""

    def get(self, name: str, cookie: str | None = None, method: str = "GET") -> tuple[str, dict[str, str], str]:
        environ = {"SERVER_NAME": "localhost", "SERVER_PORT": "80", "wsgi.url_scheme": "http", "PATH_INFO": f"/{name}"}
        environ["REQUEST_METHOD"] = method
        status, headers, body = self.server.get(self.cookie if cookie is None else cookie, **environ)
        if "Set-Cookie" in headers:
            self.cookie = "" if "Max-Age=0" in headers["Set-Cookie"] else cookie_of(headers)
        return status[:3], headers, body.decode()


@pytest.fixture
def driver() -> CountingDriver:
    return CountingDriver(MemoryDriver())


def test_it_is_an_isession() -> None:
    manager = SessionManager("memory://", SECRET)
    session = manager.open(session_class=PyramidSession)
    assert verifyObject(ISession, session)
    assert session.new
    assert type(session.created) is int


def test_each_kind_of_request_costs_what_the_budget_says(driver: CountingDriver) -> None:
    site = PyramidSite(driver)
    for name, calls in (("read", 0), ("write", 1), ("untouched", 0), ("read", 1), ("flash", 2), ("logout", 2)):
        driver.reset()
        status, headers, _ = site.get(name)
        assert status == "200"
        assert len(driver.calls) == calls, name
        assert ("Vary" in headers) == (name != "untouched")
    assert site.cookie == ""


def test_flashed_messages_are_shown_once_and_the_token_stays(driver: CountingDriver) -> None:
    site = PyramidSite(driver)
    assert site.get("flash")[2] == "hello"
    assert site.get("flashed")[2] == "hello|careful"
    assert site.get("flashed")[2] == ""
    assert site.get("token")[2] == site.get("token")[2] != ""


@pytest.mark.parametrize("error_page", [False, True])
def test_a_redirect_is_an_answer_and_an_error_is_none(driver: CountingDriver, error_page: bool) -> None:
    site = PyramidSite(driver, error_page and (lambda error, request: Response("sorry", status=500)))
    assert site.get("redirect")[0] == "302"
    if error_page:
        assert site.get("fail")[0] == "500"
    else:
        with pytest.raises(RuntimeError):
            site.get("fail")
    assert site.get("read")[2] == "redirected"


def test_a_change_in_a_stream_is_stored_if_the_client_has_the_id(driver: CountingDriver) -> None:
    site = PyramidSite(driver)
    site.get("write")
    assert site.get("stream")[2] == "onetwo"
    assert site.get("read")[2] == "late"
    with pytest.raises(SessionError, match="response has begun"):
        site.get("stream", cookie="")


def test_a_stream_that_nobody_reads_is_closed(driver: CountingDriver) -> None:
    assert PyramidSite(driver).get("download", method="HEAD")[2] == ""
    assert File.closed


@pytest.mark.parametrize("on_error", ["raise", "anonymous"])
def test_an_outage(on_error: Any) -> None:
    faulty = FaultyDriver(MemoryDriver())
    site = PyramidSite(faulty, on_error=on_error)
    site.get("write")
    take_down(faulty)
    assert site.get("untouched")[0] == "200"
    statuses = [site.get("read")[0], site.get("flash")[0], site.get("write", cookie="")[0]]
    assert statuses == (["503"] * 3 if on_error == "raise" else ["200"] * 3)
    faulty.heal()
    assert site.get("read")[2] == "ada"


def test_settings_switch_it_on(tmp_path: Any) -> None:
    settings = {
        "session_kit.store": f"disk://{tmp_path}",
        "session_kit.secret": f"{SECRET} Old{SECRET}",
        "session_kit.name": "shop",
        "session_kit.max_lifetime": "7d",
        "session_kit.cookie.secure": "false",
    }
    with Configurator(settings=settings) as config:
        config.include("session_kit.integrations.pyramid")
        config.add_route("write", "/")
        config.add_view(write, route_name="write")
    environ = {"SERVER_NAME": "localhost", "SERVER_PORT": "80", "wsgi.url_scheme": "http"}
    cookie = BareServer(config.make_wsgi_app()).get(**environ)[1]["Set-Cookie"]
    assert cookie.startswith("shop=")
    assert "Secure" not in cookie


def test_impossible_settings_are_refused_at_start() -> None:
    with pytest.raises(ConfigError, match="needs store"):
        session_factory()
    for settings, message in (
        ({"session_kit.store": "memory://"}, "no secret given"),
        ({"session_kit.stor": "memory://"}, "needs store|unknown option"),
        ({"session_kit.cookie.secur": "no"}, "unknown setting session_kit.cookie.secur"),
    ):
        with pytest.raises(ConfigError, match=message):
            includeme(Configurator(settings=settings))


def site_with_settings(**options: str) -> Any:
    settings = {f"session_kit.{name.replace('__', '.')}": value for name, value in options.items()}
    config = Configurator(settings={"session_kit.store": "memory://", "session_kit.secret": SECRET, **settings})
    config.include("session_kit.integrations.pyramid")
    config.commit()
    return config.registry.getUtility(ISessionFactory)


def policy_of(factory: Any) -> Any:
    return factory(DummyRequest()).lifecycle.policy


def test_settings_are_text_and_mean_what_they_say() -> None:
    policy = policy_of(
        site_with_settings(
            rotation_grace="0",
            touch_after="30",
            max_lifetime="7d",
            save_uninitialized="false",
            rotate_on="member\n  staff",
            max_sessions="3",
            generate="tests.integrations.test_pyramid.first",
        )
    )
    assert (policy.rotation_grace, policy.touch_after, policy.max_lifetime) == (0, 30, 7 * 86400)
    assert policy.save_uninitialized is False
    with pytest.raises(ConfigError, match="max_sessions must be a whole number"):
        site_with_settings(max_sessions="many")
    assert policy.rotate_on == {"member", "staff"}
    assert policy.generate is first
    assert policy_of(site_with_settings(save_uninitialized="true")).save_uninitialized is True


def first() -> dict[str, Any]:
    return {}


def test_a_dummy_request_has_a_session_and_keeps_its_cookie() -> None:
    factory = session_factory("memory://", SECRET)
    request = DummyRequest()
    request.session = factory(request)
    write(request)
    response = Response("ok")
    request._process_response_callbacks(response)
    name, value = response.headers["Set-Cookie"].split(";")[0].split("=", 1)
    again = DummyRequest(cookies={name: value})
    assert factory(again)["user"] == "ada"


@pytest.mark.parametrize("status", [200, 500])
def test_what_an_exception_view_changes_counts_by_its_status(driver: CountingDriver, status: int) -> None:
    def explain(error: Exception, request: Any) -> Response:
        assert request.session["user"] == "ada"  # not what the view that failed has changed
        request.session.flash("that did not work")
        return Response("sorry", status=status)

    site = PyramidSite(driver, explain)
    site.get("write")
    assert site.get("fail")[0] == str(status)
    assert site.get("read")[2] == "ada"
    assert site.get("flashed")[2] == ("that did not work" if status == 200 else "")


def test_a_late_first_look_in_an_exception_view_is_no_error(driver: CountingDriver) -> None:
    def explain(error: Exception, request: Any) -> Response:
        return Response(str(request.session.get("user")))

    site = PyramidSite(driver, explain)
    site.get("write")
    assert site.get("fail_early")[2] == "ada"


def test_webtest_keeps_its_session(driver: CountingDriver) -> None:
    site = PyramidSite(driver)
    environ = {"SERVER_NAME": "localhost", "SERVER_PORT": "80", "wsgi.url_scheme": "http", "PATH_INFO": "/write"}
    assert "Secure" in site.server.get(**environ)[1]["Set-Cookie"]
    testing: dict[str, Any] = {**environ, "paste.testing": True}  # as WebTest's TestApp says
    assert "Secure" not in site.server.get(**testing)[1]["Set-Cookie"]


def test_what_outlives_a_view_that_raised_is_told() -> None:
    sessions: list[PyramidSession] = []

    def fail_and_keep(request: Any) -> Response:
        sessions.append(request.session)
        request.session["user"] = "eve"
        raise RuntimeError("broken")

    with Configurator() as config:
        config.set_session_factory(session_factory("memory://", SECRET))
        config.add_route("fail", "/")
        config.add_view(fail_and_keep, route_name="fail")
        server = BareServer(config.make_wsgi_app())
    with pytest.raises(RuntimeError, match="broken"):
        server.get(SERVER_NAME="localhost", SERVER_PORT="80", **{"wsgi.url_scheme": "https"})
    with pytest.raises(SessionError, match="has ended"):
        sessions[0]["late"] = 1


@pytest.mark.parametrize("fails", [False, True])
def test_a_response_callback_of_the_view_changes_the_session_or_fails_with_it(
    driver: CountingDriver, fails: bool
) -> None:
    def late(request: Any, response: Response) -> None:
        request.session["user"] = "late"
        if fails:
            raise RuntimeError("broken")

    def view(request: Any) -> Response:
        request.session["user"] = "early"
        request.add_response_callback(late)
        return Response("")

    site = PyramidSite(driver)
    with Configurator() as config:
        config.set_session_factory(session_factory(UnstorageSessionStore(driver), SECRET))
        config.add_route("late", "/late")
        config.add_view(view, route_name="late")
        other = BareServer(config.make_wsgi_app())
    site.get("write")
    environ = {"SERVER_NAME": "localhost", "SERVER_PORT": "80", "wsgi.url_scheme": "http", "PATH_INFO": "/late"}
    if fails:
        with pytest.raises(RuntimeError):
            other.get(site.cookie, **environ)
    else:
        site.cookie = cookie_of(other.get(site.cookie, **environ)[1])
    assert site.get("read")[2] == ("ada" if fails else "late")


def test_the_json_renderer_shows_what_is_in_the_session(driver: CountingDriver) -> None:
    def view(request: Any) -> Any:
        request.session["user"] = "ada"
        return request.session

    with Configurator() as config:
        config.set_session_factory(session_factory(UnstorageSessionStore(driver), SECRET))
        config.add_route("home", "/")
        config.add_view(view, route_name="home", renderer="json")
        app = config.make_wsgi_app()
    assert json.loads(BareServer(app).get()[2]) == {"user": "ada"}
