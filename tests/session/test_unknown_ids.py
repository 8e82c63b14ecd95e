"""An id that the store does not know is never adopted, and a record that cannot be read is never an error."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from session_kit import SessionManager, UnstorageSessionStore
from session_kit.cookie import Signer
from session_kit.testing import CountingDriver, Visitor
from tests.harness.sessions import SECRET


def test_an_id_made_up_by_the_client_is_never_adopted(visitor: Visitor, events: list[str]) -> None:
    with visitor.request("session=" + "a" * 43) as session:
        session["user"] = "eve"
        assert session.id != "a" * 43
    assert "bad_signature" in events


def test_a_signed_id_that_the_store_does_not_know_is_never_adopted(
    visitor: Visitor, store: UnstorageSessionStore, events: list[str]
) -> None:
    planted = "b" * 43
    with visitor.request("session=" + Signer(SECRET).sign(planted)) as session:
        session["user"] = "ada"
        assert session.id != planted
    assert store.get(planted) is None
    assert "unknown_id" in events
    assert visitor.cookie is not None


def test_an_unknown_id_does_not_delete_the_cookie_that_a_parallel_login_has_just_set(visitor: Visitor) -> None:
    with visitor.request("session=" + Signer(SECRET).sign("b" * 43)) as session:
        assert session.get("user") is None
    assert visitor.headers == [("Vary", "Cookie")]


@pytest.mark.parametrize(
    "stored", [b"", b"{", b"null", b"[]", b'{"a": tru}', b'{"a": "\xff"}', b'{"$": 5}', b'{"$":{"created":"x"}}']
)
def test_a_record_that_cannot_be_decoded_is_a_fresh_session_and_is_deleted(
    ada: Visitor, store: UnstorageSessionStore, driver: CountingDriver, events: list[str], stored: bytes
) -> None:
    (key,) = driver.keys()
    driver.set(key, stored)
    with ada.request() as session:
        assert session.is_new
        assert dict(session) == {}
        session["user"] = "bob"
    assert "undecodable" in events
    assert store.length() == 1
    with ada.request() as session:
        assert dict(session) == {"user": "bob"}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(stored=st.binary(max_size=60))
def test_any_bytes_in_the_store_are_never_an_error(
    make_manager: Callable[..., SessionManager], store: UnstorageSessionStore, driver: CountingDriver, stored: bytes
) -> None:
    sid = "c" * 43
    driver.set(store.key(sid), stored)
    session = make_manager().open("session=" + Signer(SECRET).sign(sid))
    assert isinstance(dict(session), dict)


def test_a_record_that_another_program_wrote_is_read(
    visitor: Visitor, store: UnstorageSessionStore, driver: CountingDriver
) -> None:
    sid = "f" * 43
    driver.set(store.key(sid), b'{ "user" : "ada", "cart": [ 1, 2 ] }')
    cookie = "session=" + Signer(SECRET).sign(sid)
    with visitor.request(cookie) as session:
        assert dict(session) == {"user": "ada", "cart": [1, 2]}
        session["cart"].append(3)
    with visitor.request(cookie) as session:
        assert session["cart"] == [1, 2, 3]


@pytest.mark.needs("create")
def test_generated_ids_that_are_taken_are_never_shared(make_manager: Callable[..., SessionManager]) -> None:
    ids = iter(["x" * 20, "taken-" + "y" * 20, "taken-" + "y" * 20, "z" * 20])
    manager = make_manager(generate_id=lambda: next(ids))
    first, second = Visitor(manager), Visitor(manager)
    with first.request() as session:
        session["user"] = "ada"
    with second.request() as session:
        session["user"] = "bob"
        assert session.id.startswith("taken-" + "y" * 20 + "~")
    assert first.cookie != second.cookie
    with first.request() as session:
        assert session["user"] == "ada"


@pytest.mark.parametrize(
    "bad",
    ["", "short", "with space in the middle", "semi;colon-semi;colon", "ünïcödé-ünïcödé", "tilde~in-the-middle", 7],
)
def test_an_id_generator_that_cannot_work_is_refused_at_start(
    make_manager: Callable[..., SessionManager], bad: object
) -> None:
    with pytest.raises(ValueError, match="generate_id must return"):
        make_manager(generate_id=lambda: bad)


def test_without_hashing_the_key_is_the_id(driver: CountingDriver, make_manager: Callable[..., SessionManager]) -> None:
    visitor = Visitor(make_manager(store=UnstorageSessionStore(driver, hash_ids=False)))
    with visitor.request() as session:
        session["user"] = "ada"
        name = session.id.split("~")[0]
    assert list(driver.keys()) == [f"sess:{name}"]


def test_a_leaked_store_holds_no_usable_id(ada: Visitor, driver: CountingDriver) -> None:
    assert ada.cookie is not None
    sid = ada.cookie.removeprefix("session=").split(".")[0]
    (key,) = driver.keys()
    assert sid not in key
    assert sid.encode() not in (driver.get(key) or b"")


def test_a_cookie_header_that_is_no_text_is_no_error(make_manager: Callable[..., SessionManager]) -> None:
    for header in ("session=\ud800", "session=\udcff; a=b", "\U0001f36a=1"):
        assert dict(make_manager().open(header)) == {}
