"""WSGI: the session loads lazily, and the save ends before the first byte leaves."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from session_kit import ConfigError, SessionError, SessionManager, UnstorageSessionStore
from session_kit.drivers.memory import MemoryDriver
from session_kit.testing import CountingDriver, FaultyDriver
from session_kit.wsgi import SessionMiddleware, get_session
from tests.harness.bare_wsgi import BareServer, cookie_of
from tests.harness.sessions import SECRET, take_down


def application(handle: Callable[[Any], object]) -> Any:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        handle(environ["session_kit.session"])
        start_response("200 OK", [("X-App", "1")])
        return [b"ok"]

    return app


def put(session: Any) -> None:
    session["user"] = "ada"


@pytest.fixture
def counted() -> CountingDriver:
    return CountingDriver(MemoryDriver())


@pytest.fixture
def manager(counted: CountingDriver) -> SessionManager:
    return SessionManager(UnstorageSessionStore(counted), secret=SECRET)


def wrap(app: Any, manager: SessionManager) -> BareServer:
    return BareServer(SessionMiddleware(app, manager=manager))


def test_each_kind_of_request_costs_what_the_budget_says(manager: SessionManager, counted: CountingDriver) -> None:
    _, headers, _ = wrap(application(put), manager).get()
    assert len(counted.calls) == 1
    cookie = cookie_of(headers)
    for handle, calls in ((lambda s: None, 0), (lambda s: s.get("user"), 1), (lambda s: s.update(n=1), 2)):
        counted.calls.clear()
        wrap(application(handle), manager).get(cookie)
        assert len(counted.calls) == calls
    counted.calls.clear()
    _, headers, _ = wrap(application(lambda s: s.destroy()), manager).get(cookie)
    assert len(counted.calls) == 2  # the token is checked first
    assert "Max-Age=0" in headers["Set-Cookie"]


def test_an_untouched_session_leaves_no_trace(manager: SessionManager) -> None:
    status, headers, body = wrap(application(lambda s: None), manager).get()
    assert (status, headers, body) == ("200 OK", {"X-App": "1"}, b"ok")


def test_the_save_ends_before_the_first_byte_leaves(manager: SessionManager, counted: CountingDriver) -> None:
    server = wrap(application(put), manager)
    counted.calls = server.sent  # type: ignore[assignment]  # one list, so that the order shows
    server.get()
    assert server.sent.index("start") > 0
    assert server.sent[-1] == "part"


def test_a_change_after_write_is_not_lost_when_the_body_is_a_list(manager: SessionManager) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        write = start_response("200 OK", [])
        write(b"first")
        environ["session_kit.session"]["user"] = "eve"
        return []

    _, headers, _ = wrap(application(put), manager).get()
    cookie = cookie_of(headers)
    wrap(app, manager).get(cookie)
    assert manager.open(cookie)["user"] == "eve"
    with pytest.raises(SessionError, match="the response has begun"):  # a new visitor can be sent no id any more
        wrap(app, manager).get()


@pytest.mark.parametrize("change", [lambda session: session.clear(), lambda session: session.update(user="eve")])
def test_a_change_after_the_application_has_raised_is_not_lost_in_silence(change: Any, manager: SessionManager) -> None:
    sessions: list[Any] = []

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        sessions.append(environ["session_kit.session"])
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        wrap(app, manager).get()
    with pytest.raises(SessionError, match="the request of this session has ended"):
        change(sessions[0])


def test_a_body_is_closed_when_the_store_is_down_at_the_commit() -> None:
    closed: list[bool] = []

    class Body(list[bytes]):
        def close(self) -> None:
            closed.append(True)

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        environ["session_kit.session"]["user"] = "eve"
        start_response("200 OK", [])
        return Body([b"ok"])

    driver = FaultyDriver(MemoryDriver())
    driver.fail("set")
    status, _, _ = wrap(app, SessionManager(UnstorageSessionStore(driver), secret=SECRET)).get()
    assert status.startswith("503")
    assert closed == [True]


def test_a_middleware_outside_may_call_the_application_once_more_for_the_same_request(manager: SessionManager) -> None:
    inner = SessionMiddleware(application(put), manager=manager)

    def retry(environ: dict[str, Any], start_response: Any) -> Any:
        inner(environ, lambda *_: None)
        return inner(environ, start_response)

    assert BareServer(retry).get()[0] == "200 OK"


def test_an_application_that_is_a_generator_gets_its_cookie(manager: SessionManager) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        environ["session_kit.session"]["user"] = "ada"
        start_response("200 OK", [])
        yield b"one"
        yield b"two"

    _, headers, body = wrap(app, manager).get()
    assert body == b"onetwo"
    assert manager.open(cookie_of(headers))["user"] == "ada"


def test_the_write_callable_begins_the_response(manager: SessionManager) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        environ["session_kit.session"]["user"] = "ada"
        start_response("200 OK", [])(b"written")
        return []

    server = wrap(app, manager)
    _, headers, _ = server.get()
    assert server.sent == ["start", "write"]
    assert "Set-Cookie" in headers


def test_a_change_in_a_stream_is_stored_if_the_client_has_the_id(manager: SessionManager) -> None:
    _, headers, _ = wrap(application(put), manager).get()

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        session = environ["session_kit.session"]
        session.get("user")
        start_response("200 OK", [])

        def body() -> Iterator[bytes]:
            yield b"one"
            session["late"] = True
            yield b"two"

        return body()

    wrap(app, manager).get(cookie_of(headers))
    assert manager.open(cookie_of(headers))["late"] is True
    with pytest.raises(SessionError, match="response has begun"):
        wrap(app, manager).get()


def test_a_change_in_a_stream_is_stored_before_the_client_sees_its_end(manager: SessionManager) -> None:
    _, headers, _ = wrap(application(put), manager).get()

    def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"one"
        environ["session_kit.session"]["late"] = True

    body = SessionMiddleware(app, manager=manager)({"HTTP_COOKIE": cookie_of(headers)}, lambda *_: lambda data: None)
    assert list(body) == [b"one"]
    assert manager.open(cookie_of(headers))["late"] is True


def test_a_handler_that_raises_has_changed_nothing(manager: SessionManager, counted: CountingDriver) -> None:
    def fail(session: Any) -> None:
        put(session)
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        wrap(application(fail), manager).get()
    assert counted.calls == []


def test_an_error_page_replaces_the_answer_that_has_not_left_yet(manager: SessionManager) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        try:
            raise RuntimeError
        except RuntimeError:
            import sys

            start_response("500 Internal Server Error", [], sys.exc_info())
        return [b"sorry"]

    server = wrap(app, manager)
    assert server.get()[0] == "500 Internal Server Error"
    assert server.sent == ["start", "part"]


@pytest.mark.parametrize("on_error", ["raise", "anonymous"])
@pytest.mark.parametrize("stream", [False, True])
def test_an_outage_is_503_or_an_empty_session(on_error: Any, stream: bool) -> None:
    driver = FaultyDriver(MemoryDriver())
    manager = SessionManager(UnstorageSessionStore(driver), secret=SECRET, on_error=on_error)
    seen: list[bool] = []

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        session = environ["session_kit.session"]
        session["n"] = session.get("n", 0) + 1
        seen.append(session.unavailable)
        start_response("200 OK", [])
        return (part for part in [b"ok"]) if stream else [b"ok"]

    server = wrap(app, manager)
    cookie = cookie_of(server.get()[1])
    take_down(driver)
    status, headers, body = server.get(cookie)
    untouched = wrap(application(lambda s: None), manager).get(cookie)
    first = server.get()
    driver.heal()
    assert untouched[0] == "200 OK"
    assert "Set-Cookie" not in headers | first[1]
    if on_error == "raise":
        assert status == first[0] == "503 Service Unavailable"
        assert b"store" in body
    else:
        assert (status, body, seen[1]) == ("200 OK", b"ok", True)
        assert first[0] == "200 OK"
    assert manager.open(cookie)["n"] == 1


def test_a_whole_body_and_a_file_go_to_the_server_as_they_are(manager: SessionManager) -> None:
    class Wrapper:
        """A server's own `wsgi.file_wrapper`, which it knows by its class."""

        def __iter__(self) -> Iterator[bytes]:
            return iter([b"file"])

    bodies: list[Any] = [[b"list"], Wrapper()]
    for body in bodies:

        def app(environ: dict[str, Any], start_response: Any, body: Any = body) -> Any:
            start_response("200 OK", [])
            return body

        middleware = SessionMiddleware(app, manager=manager)
        assert middleware({"wsgi.file_wrapper": Wrapper}, lambda *_: print) is body


def test_a_missing_or_doubled_middleware_says_what_to_do(manager: SessionManager) -> None:
    with pytest.raises(SessionError, match=r"app = SessionMiddleware\(app"):
        get_session({})
    twice = SessionMiddleware(SessionMiddleware(application(put), manager=manager), manager=manager)
    with pytest.raises(ConfigError, match="installed twice"):
        BareServer(twice).get()
    with pytest.raises(ConfigError, match="needs store"):
        SessionMiddleware(application(put))
    with pytest.raises(ConfigError, match="in their place"):
        SessionMiddleware(application(put), manager=manager, max_lifetime="1d")  # which the manager would not know of
    with pytest.raises(ConfigError, match="unknown option 'touch_aftr'"):
        SessionMiddleware(application(put), store="memory://", secret=SECRET, touch_aftr=3)  # type: ignore[call-arg]
