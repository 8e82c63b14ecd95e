"""A header in place of the cookie: no cookie for its client, nothing told twice, and any bytes may come in."""

from __future__ import annotations

import logging
import re
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from session_kit import ConfigError, Session, SessionManager, UnstorageSessionStore
from session_kit.drivers.memory import MemoryDriver
from session_kit.headers import Headers
from session_kit.testing import CountingDriver, ManualClock, session_cookies, session_headers
from session_kit.transport import UNUSABLE, TokenHeader
from tests.harness.sessions import OLD_SECRET, SECRET

Pairs = list[tuple[bytes, bytes]]


class HeaderClient:
    """Keeps one text and sends it in the header; what an answer has there takes its place. It keeps no cookie."""

    def __init__(self, manager: SessionManager, token: str = "", name: str = "Authorization") -> None:
        self.manager, self.token, self.name = manager, token, name
        self.said: list[str] = []
        self.headers: Headers = []

    def request(self, do: Callable[[Session], Any] = dict, beside: Pairs | None = None) -> Any:
        own = self.name != "Authorization"
        sent = self.token if own else f"Session {self.token}".strip()
        session = self.manager.open([(self.name.lower().encode(), sent.encode()), *(beside or [])])
        result = do(session)
        self.headers = self.manager.commit(session)
        self.manager.finish(session)
        for name, value in self.headers:
            assert name in ("Vary", "Cache-Control", self.name if own else "Session")
            if name not in ("Vary", "Cache-Control"):
                self.said.append(value)
                self.token = value
        return result


def login(session: Session) -> None:
    session["user"] = "ada"


def cookie_of(manager: SessionManager, **data: str) -> bytes:
    return b"; ".join(f"{name}={value}".encode() for name, value in session_cookies(manager, **data).items())


def clock_of(manager: SessionManager) -> ManualClock:
    assert isinstance(manager.policy.clock, ManualClock)
    return manager.policy.clock


def make(**options: Any) -> SessionManager:
    clock = ManualClock()
    store = UnstorageSessionStore(CountingDriver(MemoryDriver(clock=clock)), ttl=1000)
    return SessionManager(**{"store": store, "secret": SECRET, "clock": clock, "transport": "both", **options})


@pytest.fixture(params=["header", "both"])
def manager(request: pytest.FixtureRequest) -> SessionManager:
    return make(transport=request.param)


# --- what is refused at start ---


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"transport": "Header"}, "transport must be 'cookie', 'header' or 'both', not 'Header'"),
        ({"transport": ["header"]}, "transport must be"),
        ({"transport": None}, "transport must be"),
        ({"transport": "cookie", "header": "X-Session"}, "header='X-Session' needs transport='header' or 'both'"),
        *(
            ({"header": name}, "a name of letters, digits and '-'")
            for name in ("", "X_Session", "X Session", "X-Session:", "X\r\nSet-Cookie", "Cookie", "VARY", "Ü", None)
        ),
    ],
)
def test_settings_that_cannot_work_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        make(**options)


# --- a client with the header ---


@pytest.mark.parametrize("name", ["Authorization", "X-Session"])
def test_a_token_is_told_when_it_changes_and_never_in_a_cookie(name: str) -> None:
    client = HeaderClient(make(header=name), name=name)
    assert client.request() == {}
    assert client.said == []
    client.request(lambda session: session.update(theme="dark"))
    client.request(lambda session: session.update(theme="light"))
    assert len(client.said) == 1
    client.request(login)
    client.request(Session.regenerate)
    assert client.request() == {"theme": "light", "user": "ada"}
    assert len(set(client.said)) == len(client.said) == 3
    client.request(Session.destroy)
    assert client.said[-1] == ""
    assert client.request() == {}
    assert len(client.said) == 4


def test_a_renewal_tells_nothing_that_the_client_has(manager: SessionManager) -> None:
    client = HeaderClient(manager)
    client.request(login)
    for _ in range(30):
        clock_of(manager).advance(200)
        assert client.request() == {"user": "ada"}
    assert len(client.said) == 1


def test_what_an_old_secret_signed_is_signed_anew() -> None:
    old = make(secret=OLD_SECRET)
    client = HeaderClient(old)
    client.request(login)
    client.manager = make(store=old.store, secret=[SECRET, OLD_SECRET], clock=clock_of(old))
    assert client.request() == {"user": "ada"}
    assert [token.partition(".")[0] for token in client.said] == [client.said[0].partition(".")[0]] * 2
    client.manager = make(store=old.store, secret=SECRET, clock=clock_of(old))
    assert client.request() == {"user": "ada"}


def test_a_displaced_token_opens_nothing_and_is_not_replaced(manager: SessionManager) -> None:
    client = HeaderClient(manager)
    client.request(lambda session: session.update(theme="dark"))
    late = HeaderClient(manager, client.token)
    client.request(login)
    assert late.request() == {}
    late.request(lambda session: session.update(page=1))
    assert late.said == []
    late.request(Session.destroy)  # a logout wins
    assert client.request() == {}


def test_clear_is_a_logout(manager: SessionManager) -> None:
    client = HeaderClient(manager)
    client.request(login)
    client.request(Session.clear)
    assert client.token == ""


def test_an_untouched_session_is_neither_looked_up_nor_told(manager: SessionManager) -> None:
    client = HeaderClient(manager)
    client.request(login)
    manager.store.driver.reset()
    client.request(lambda session: None)
    assert client.headers == []
    assert manager.store.driver.calls == []


def test_no_cache_keeps_a_token_or_mixes_visitors_up(manager: SessionManager) -> None:
    client = HeaderClient(manager)
    both = manager.policy.header is not None and not manager.policy.header.alone
    vary = [("Vary", "Cookie, Authorization" if both else "Authorization")]
    client.request()
    assert client.headers == vary
    for step in (login, Session.destroy):
        client.request(step)
        assert client.headers == [*vary, ("Session", client.token), ("Cache-Control", "no-store")]


def test_the_token_is_what_a_cookie_holds() -> None:
    both = make()
    client = HeaderClient(both)
    client.request(login)
    cookies = make(store=both.store, transport="cookie", clock=clock_of(both))
    assert dict(cookies.open(f"session={client.token}")) == {"user": "ada"}
    value = session_cookies(cookies, user="eve")["session"]
    assert HeaderClient(both, value).request() == {"user": "eve"}


def test_a_token_of_another_cookie_with_the_same_secret_opens_nothing() -> None:
    both = make()
    other = make(store=both.store, name="other", clock=clock_of(both))
    headers = session_headers(other, user="ada")
    assert dict(both.open([(b"authorization", headers["Authorization"].encode())])) == {}


# --- the header beside cookies ---


def test_the_session_of_a_cookie_is_never_told_in_a_header(manager: SessionManager) -> None:
    value = session_cookies(make(store=manager.store, clock=clock_of(manager)), user="ada")["session"]
    beside = [(b"cookie", f"session={value}".encode())]
    for token in ("", "forged.signature", "two tokens", value + "x"):
        for step in (dict, Session.regenerate, Session.destroy, Session.clear):
            script = HeaderClient(manager, token)
            script.request(step, beside)
            assert script.said == []
            assert script.request(beside=beside) == {}
    assert HeaderClient(manager, value).request() == {"user": "ada"}


def test_a_visitor_without_a_header_gets_a_cookie_with_both() -> None:
    manager = make()
    for headers in ([], [(b"authorization", b"Bearer abc")], [(b"authorization", b"Basic YTpi")]):
        session = manager.open(headers)
        login(session)
        assert session.transport == "cookie"
        names = [name for name, _ in manager.commit(session)]
        assert names == ["Vary", "Set-Cookie", "Cache-Control"]
        assert manager.open([*headers, (b"cookie", cookie_of(manager, user="ada"))])["user"] == "ada"


def test_without_cookies_none_is_read_and_none_is_set() -> None:
    alone, both = make(transport="header"), make()
    cookie = cookie_of(both, user="ada")
    alone = make(transport="header", store=both.store, clock=clock_of(both))
    for cookies in (cookie, cookie.decode(), [cookie], [(b"cookie", cookie)], ()):
        session = alone.open(cookies)
        assert dict(session) == {}
        assert session.transport == "header"
        login(session)
        assert [name for name, _ in alone.commit(session)] == ["Vary", "Session", "Cache-Control"]


def test_the_transport_is_known_without_a_look_at_the_session() -> None:
    manager = make()
    client = HeaderClient(manager)
    client.request(login)
    manager.store.driver.reset()
    assert client.request(lambda session: session.transport) == "header"
    assert manager.open(b"session=x").transport == "cookie"
    assert manager.store.driver.calls == []


# --- what may come in ---


def found(*values: bytes, name: str = "Authorization") -> bytes | None:
    header = TokenHeader(name, alone=False)
    return header.find([(b"host", b"shop"), *((header.field, value) for value in values)])


@pytest.mark.parametrize(
    ("value", "token"),
    [
        (b"Session abc.def", b"abc.def"),
        (b"session abc.def", b"abc.def"),
        (b"SESSION   abc.def  ", b"abc.def"),
        (b"\tSession abc.def", b"abc.def"),
        (b"Session", b""),
        (b"Session ", b""),
        (b"", None),
        (b"Sessions abc", None),
        (b"Session\tabc", None),
        (b"Session,abc", None),
        (b"Bearer abc.def", None),
        (b"Basic YTpi, Session abc.def", None),
        (b"Session abc.def, Basic YTpi", UNUSABLE),
        (b"Session abc def", UNUSABLE),
        (b"Session abc,def", UNUSABLE),
        (b"Session abc;def", UNUSABLE),
        (b'Session "abc"', UNUSABLE),
        (b"Session token=abc", b"token=abc"),
        (b"Session ab\x00c", UNUSABLE),
        (b"Session \xc3\xa9", UNUSABLE),
        (b"Session " + b"a" * 512, b"a" * 512),
        (b"Session " + b"a" * 513, UNUSABLE),
    ],
)
def test_one_token_of_our_scheme_is_read(value: bytes, token: bytes | None) -> None:
    assert found(value) == token


@pytest.mark.parametrize(("value", "token"), [(b" abc.def ", b"abc.def"), (b"", b""), (b"Session abc", UNUSABLE)])
def test_a_header_of_ones_own_holds_the_token_alone(value: bytes, token: bytes) -> None:
    assert found(value, name="X-Session") == token
    assert found(name="X-Session") is None


def test_a_header_that_is_given_twice_is_refused() -> None:
    assert found(b"Session abc", b"Session abc") == UNUSABLE
    assert found(b"Session abc", b"Session") == UNUSABLE
    assert found(b"Basic YTpi", b"Session abc") == UNUSABLE
    assert found(b"Basic YTpi", b"Bearer abc") is None


@given(st.lists(st.binary(max_size=100) | st.binary(max_size=100).map(b"Session ".__add__), max_size=3))
def test_no_bytes_raise_open_or_store_anything(values: list[bytes]) -> None:
    manager = make()
    session = manager.open([(b"authorization", value) for value in values])
    assert dict(session) == {}
    assert [name for name, _ in manager.commit(session)] == ["Vary"]
    assert manager.store.driver.calls == []


NOISE = st.binary(max_size=4) | st.sampled_from([b" ", b",", b", ", b", Session ", b"; session=", b"=", b".", b"~"])


@given(before=NOISE, after=NOISE, twice=st.booleans())
def test_a_token_opens_its_session_as_a_whole_and_alone(before: bytes, after: bytes, twice: bool) -> None:
    manager = make()
    token = session_headers(manager, user="ada")["Authorization"].removeprefix("Session ").encode()
    value = before + token + after + (token if twice else b"")
    session = manager.open([(b"authorization", b"Session " + value)])
    assert dict(session) == ({"user": "ada"} if value.strip(b" \t") == token and not before.strip(b" ") else {})


def test_a_long_header_is_not_kept_or_looked_up() -> None:
    manager = make(transport="header")
    header = b"Session " + b"a, " * 1_000_000
    tracemalloc.start()
    try:
        assert dict(manager.open([(b"authorization", header)])) == {}
        assert tracemalloc.get_traced_memory()[1] < 3 * len(header)
    finally:
        tracemalloc.stop()
    assert manager.store.driver.calls == []


def test_two_tokens_lose_nothing_and_are_one_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    events: list[str] = []
    manager = make(on_event=lambda event: events.append(event.name))
    client = HeaderClient(manager)
    client.request(login)
    token, events[:] = client.token, []
    for _ in range(3):
        assert HeaderClient(manager, f"{token}, Session {token}").request() == {}
    assert events == ["bad_signature"] * 3
    [line] = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert line.startswith("a request had more than one token in its header Authorization")
    assert client.request() == {"user": "ada"}


def test_no_token_is_logged_or_shown(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(0)
    seen: list[Any] = []
    manager = make(on_event=seen.append)
    client = HeaderClient(manager)
    for step in (login, dict, Session.regenerate, Session.destroy):
        client.request(step)
    used = [token for token in client.said if token]
    for token in [*used, f"{used[0]}, {used[0]}", f"{used[0]}x"]:
        session = manager.open([(b"authorization", f"Session {token}".encode())])
        with suppress(Exception):
            session.load()
        seen += [session, session.lifecycle, manager.policy.header]
    shown = repr(seen) + repr(caplog.records) + caplog.text
    for token in used:
        for secret in re.split(r"[~.]", token):
            assert secret not in shown


# --- for tests of applications ---


def test_a_test_client_that_can_have_no_session_is_told_so() -> None:
    with pytest.raises(LookupError, match="session_headers"):
        session_cookies(make(transport="header"), user="ada")
    with pytest.raises(LookupError, match="session_cookies"):
        session_headers(make(transport="cookie"), user="ada")
    with pytest.raises(ValueError, match="put something into it"):
        session_headers(make())
