"""The cookie: impossible settings are refused, deletion mirrors creation, and any bytes may come in."""

from __future__ import annotations

import time
from http.cookies import SimpleCookie
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from session_kit import ConfigError, CookieOptions, Session, SessionManager
from session_kit.cookie import MAX_AGE_LIMIT, Cookie, Signer, check_id
from tests.harness.sessions import SECRET, cookie_of


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samesite": "none", "secure": False}, "samesite='none' needs secure=True"),
        ({"partitioned": True, "secure": False}, "partitioned=True needs secure=True"),
        ({"samesite": "Lax"}, "samesite must be"),
        ({"priority": "urgent"}, "priority must be"),
        ({"path": "app"}, "path must begin with '/'"),
        ({"path": "/; Domain=evil.example"}, "path must begin with '/'"),
        ({"path": "/\r\nSet-Cookie: x=y"}, "path must begin with '/'"),
        ({"domain": "evil.example; Path=/x"}, "domain must be a host name"),
        ({"domain": ""}, "domain must be a host name"),
    ],
)
def test_settings_that_a_browser_would_drop_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CookieOptions(**options)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("__Host-sid", {"domain": "example.com"}),
        ("__Host-sid", {"path": "/app"}),
        ("__Host-sid", {"secure": False}),
        ("__host-SID", {"secure": False}),
        ("__Secure-sid", {"secure": False}),
        ("__Http-sid", {"secure": False}),
        ("__Http-sid", {"httponly": False}),
        ("__Host-Http-sid", {"httponly": False}),
        ("__Host-Http-sid", {"path": "/app"}),
        ("s" * 1025, {}),
        ("", {}),
        ("a b", {}),
        ("a;b", {}),
        ("a=b", {}),
        ("a\r\nb", {}),
        ("s\u00e9", {}),
    ],
)
def test_a_name_that_a_browser_would_drop_is_refused(name: str, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="cookie name"):
        Cookie(name, CookieOptions(**options))


def test_the_defaults_are_safe() -> None:
    header = Cookie("session", CookieOptions()).set_header("value", 60)
    assert header == "session=value; Max-Age=60; Path=/; HttpOnly; Secure; SameSite=Lax"


@pytest.mark.parametrize(("max_age", "sent"), [(None, MAX_AGE_LIMIT), (10**10, MAX_AGE_LIMIT), (0.2, 1), (90.9, 90)])
def test_the_lifetime_is_what_browsers_take(max_age: float | None, sent: int) -> None:
    assert f"; Max-Age={sent};" in Cookie("session", CookieOptions()).set_header("v", max_age)


OPTIONS = st.fixed_dictionaries(
    {
        "httponly": st.booleans(),
        "secure": st.booleans(),
        "samesite": st.sampled_from(["lax", "strict", "none"]),
        "path": st.sampled_from(["/", "/app", "/a/b"]),
        "domain": st.sampled_from([None, "example.com", ".example.com"]),
        "persistent": st.booleans(),
        "partitioned": st.booleans(),
        "priority": st.sampled_from([None, "low", "high"]),
    }
)


@given(OPTIONS, st.sampled_from(["session", "__Host-session", "__Secure-session"]))
def test_deletion_mirrors_creation(options: dict[str, Any], name: str) -> None:
    try:
        cookie = Cookie(name, CookieOptions(**options))
    except ConfigError:
        assume(False)

    def attributes(header: str) -> set[str]:
        lifetime = ("Max-Age", "Expires")
        return {part for part in header.split("; ")[1:] if not part.startswith(lifetime)}

    deleted = cookie.delete_header()
    assert attributes(deleted) == attributes(cookie.set_header("value", 60))
    assert deleted.startswith(f"{name}=; Max-Age=0; Expires=Thu, 01 Jan 1970")


def _pairs(*headers: bytes) -> list[tuple[bytes, bytes]]:
    return [(b"cookie", header) for header in headers]


@given(st.lists(st.binary(max_size=200), max_size=3))
def test_no_bytes_raise_or_verify(headers: list[bytes]) -> None:
    cookie, signer = Cookie("s", CookieOptions()), Signer(SECRET)
    assert not any(signer.verify(value) for value in cookie.find(_pairs(*headers, b"s=" + b";s=".join(headers))))


def test_of_several_cookies_of_our_name_the_first_that_verifies_counts() -> None:
    manager = SessionManager("memory://", SECRET)
    made = []
    for user in ("ada", "eve"):
        session = manager.open()
        session["user"] = user
        made.append(cookie_of(manager.commit(session)))
    assert manager.open(f"session=forged.signature; {made[0]}; {made[1]}")["user"] == "ada"
    assert manager.open([made[1].encode(), made[0].encode()])["user"] == "eve"


@pytest.mark.parametrize(
    ("header", "values"),
    [
        (b"session=a; theme=dark", [b"a"]),
        (b'theme=dark;session="a"', [b"a"]),
        (b"  session = a ;x", [b"a"]),
        (b"session=a=b", [b"a=b"]),
        (b"mysession=a; session2=b; Session=c; session", []),
        (b"session=; session=b", [b"", b"b"]),
        (b"a=1;b=2 ; session=c", [b"c"]),
        (b"a=; session2=b ;session=c", [b"c"]),
        (b"a=session=b; session", []),
        (b"session = a; theme = dark", [b"a"]),
        (b'session\t= "a" ;session \t =b', [b"a", b"b"]),
        (b"", []),
    ],
)
def test_a_similar_name_is_not_ours(header: bytes, values: list[bytes]) -> None:
    assert list(Cookie("session", CookieOptions()).find(_pairs(header))) == values


def test_the_standard_library_reads_what_we_send() -> None:
    token = Signer(SECRET).sign("some-id-that-is-long")
    parsed = SimpleCookie(Cookie("session", CookieOptions(domain="example.com")).set_header(token, 60))
    assert parsed["session"].value == token
    assert parsed["session"]["domain"] == "example.com"


@pytest.mark.parametrize(
    ("header", "values"),
    [
        (b"a=1,session=x, b=2", [b"x"]),
        (b"session=x,session=y;session=z", [b"x", b"y", b"z"]),
        (b"session = x , a=1", [b"x"]),
        (b"a=1,mysession=x", []),
    ],
)
def test_a_header_that_a_wsgi_server_joined_by_commas_is_read(header: bytes, values: list[bytes]) -> None:
    cookie = Cookie("session", CookieOptions())
    assert cookie.find(_pairs(cookie.split_joined(header))) == values


@pytest.mark.parametrize("name", ["__Host-session", "__Secure-session", "__HOST-session", "__Http-session"])
def test_another_host_cannot_hide_a_cookie_of_a_name_with_a_prefix_behind_a_comma(name: str) -> None:
    manager = SessionManager("memory://", SECRET, name=name)
    planted = cookie_of(manager.commit(logged_in(manager)))
    header = f"x=1,{planted}; {name}=another"
    for cookies in (header, header.encode(), [(b"cookie", header.encode())]):
        assert dict(manager.open(cookies)) == {}
    assert dict(manager.open(manager.credentials({"HTTP_COOKIE": header}))) == {}
    assert dict(manager.open(planted)) == {"user": "ada"}


def test_a_comma_begins_no_cookie_where_headers_come_apart() -> None:
    manager = SessionManager("memory://", SECRET)
    header = f"x=1,{cookie_of(manager.commit(logged_in(manager)))}"
    assert dict(manager.open([(b"cookie", header.encode())])) == {}
    assert dict(manager.open(manager.credentials({"HTTP_COOKIE": header}))) == {"user": "ada"}


def logged_in(manager: SessionManager) -> Session[Any]:
    session = manager.open()
    session["user"] = "ada"
    return session


def test_a_cookie_that_is_sent_a_thousand_times_is_looked_at_once_and_no_more_than_eight_are() -> None:
    cookie = Cookie("session", CookieOptions())
    assert cookie.find(_pairs(b"session=a;" * 600 + b"session=b", *[b"session=a"] * 20)) == [b"a", b"b"]
    many = [b"session=%d" % number for number in range(20)]
    first = [b"%d" % number for number in range(8)]
    assert cookie.find(_pairs(b"; ".join(many))) == first
    assert cookie.find(_pairs(*many)) == first


def _reference(name: bytes, headers: list[bytes]) -> list[bytes]:
    values: dict[bytes, None] = {}
    for header in headers:
        spaced = name + b"=" not in header
        for part in header.split(b";"):
            key, equals, value = part.lstrip(b" \t").partition(b"=")
            if equals and (key.rstrip(b" \t") if spaced else key) == name:
                values[value.strip(b' \t"')] = None
    return list(values)[:8]


PIECES = st.sampled_from(
    [b"aba", b"ab", b"a", b"b", b"=", b";", b",", b" ", b"\t", b'"', b"; ", b"aba=", b"v", b"\xff"]
)


@given(st.lists(st.lists(PIECES, max_size=30).map(b"".join), max_size=3))
def test_cookies_are_found_as_a_plain_parser_finds_them(headers: list[bytes]) -> None:
    assert Cookie("aba", CookieOptions()).find(_pairs(*headers)) == _reference(b"aba", headers)


@pytest.mark.parametrize(
    ("begin", "repeated", "end"),
    [
        (b"session", b" ", b"x"),
        (b"session", b" ", b"=x"),
        (b"session=", b" ", b"x"),
        (b"", b" ", b"session=x"),
        (b"a=1;", b"\t", b"session=x"),
        (b"a", b" ", b"session=x"),
        (b"", b"session=a;", b""),
        (b"", b"session =a;", b""),
        (b"", b"session = a , ", b""),
        (b"", b"session  x", b""),
        (b"", b" session=a", b""),
        (b"", b"xsession=a ; ", b""),
        (b"", b"session;", b""),
        (b"", b"session,", b"session=x"),
        (b"session=", b'"', b""),
        (b"session", b"=", b""),
        (b"", b";", b"session=x"),
        (b"", b"=,", b"session"),
    ],
)
def test_no_header_of_megabytes_keeps_a_server_busy(begin: bytes, repeated: bytes, end: bytes) -> None:
    header = begin + repeated * (4_000_000 // len(repeated)) + end
    started = time.process_time()
    assert len(Cookie("session", CookieOptions()).find(_pairs(header))) <= 1
    assert time.process_time() - started < 2  # ten times as long as it takes; any quadratic way takes many seconds


def test_a_session_of_one_cookie_is_none_of_another_with_the_same_secret() -> None:
    token = Signer(SECRET, "admin").sign("some-id-that-is-long").encode()
    assert Signer(SECRET, "admin").verify(token) == ("some-id-that-is-long", False)
    assert Signer(SECRET).verify(token) is None
    assert Signer([SECRET, SECRET + "2"], "__Host-admin").verify(token) is None


@pytest.mark.parametrize("name", ["a" * 15, "a" * 257, "with~a-token-of-its-own", "semi;colon-and-more", "", 5, None])
def test_a_name_that_cannot_stand_in_a_cookie_is_refused(name: Any) -> None:
    with pytest.raises(ConfigError, match="generate_id must return 16 to 256 "):
        check_id(name)
    assert check_id("a" * 16) == "a" * 16
