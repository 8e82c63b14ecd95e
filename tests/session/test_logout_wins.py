"""Delete wins, quietly: a request that overlaps a logout neither brings the session back nor fails."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from session_kit import SessionManager, UnstorageSessionStore
from session_kit.testing import Visitor


def set_cookie(visitor: Visitor) -> str:
    return dict(visitor.headers).get("Set-Cookie", "")


def test_a_logout_deletes_the_record_and_the_cookie(ada: Visitor, store: UnstorageSessionStore) -> None:
    with ada.request() as session:
        ada.do(session, "destroy")
        assert dict(session) == {}
    assert store.length() == 0
    assert "Max-Age=0" in set_cookie(ada)


def test_a_slow_writer_does_not_revive_the_session(
    ada: Visitor, store: UnstorageSessionStore, events: list[str]
) -> None:
    with ada.request() as slow:
        slow["page"] = 1
        with ada.request() as fast:
            ada.do(fast, "destroy")
    assert store.length() == 0
    assert "revival_blocked" in events
    assert set_cookie(ada) == ""  # the browser may hold a newer cookie by now


def test_a_slow_reader_does_not_revive_the_session(ada: Visitor, store: UnstorageSessionStore) -> None:
    with ada.request() as slow:
        assert slow["user"] == "ada"
        with ada.request() as fast:
            ada.do(fast, "destroy")
    assert store.length() == 0


@pytest.mark.needs("swap")
def test_a_slow_reader_whose_renewal_is_due_does_not_revive_the_session(
    ada: Visitor, store: UnstorageSessionStore, clock: Callable[[], float]
) -> None:
    clock.advance(500)  # type: ignore[attr-defined]
    with ada.request() as slow:
        assert slow["user"] == "ada"
        with ada.request() as fast:
            ada.do(fast, "destroy")
    assert store.length() == 0
    assert set_cookie(ada) == ""


def test_an_explicit_save_after_a_logout_elsewhere_does_not_revive(ada: Visitor, store: UnstorageSessionStore) -> None:
    with ada.request() as slow:
        slow["page"] = 1
        with ada.request() as fast:
            ada.do(fast, "destroy")
        ada.do(slow, "save")
        assert dict(slow) == {}
        assert slow.is_new
        slow["page"] = 2
        ada.do(slow, "save")
    assert store.length() == 0
    assert set_cookie(ada) == ""


def test_a_rotation_that_overlaps_a_logout_leaves_no_session(ada: Visitor, store: UnstorageSessionStore) -> None:
    with ada.request() as slow:
        ada.do(slow, "regenerate")
        slow["page"] = 1
        with ada.request() as fast:
            ada.do(fast, "destroy")
    assert store.length() == 0


def test_a_reload_after_a_logout_elsewhere_finds_nothing(ada: Visitor, store: UnstorageSessionStore) -> None:
    with ada.request() as slow:
        with ada.request() as fast:
            ada.do(fast, "destroy")
        ada.do(slow, "reload")
        assert dict(slow) == {}
    assert store.length() == 0


def test_a_farewell_message_goes_into_a_new_session_with_a_new_id(ada: Visitor, store: UnstorageSessionStore) -> None:
    old = ada.cookie
    with ada.request() as session:
        ada.do(session, "destroy")
        session["flash"] = "good bye"
    assert ada.cookie not in (None, old)
    with ada.request() as session:
        assert dict(session) == {"flash": "good bye"}
    assert store.length() == 1


def test_the_old_cookie_is_dead_after_a_logout(ada: Visitor) -> None:
    old = ada.cookie
    with ada.request() as session:
        ada.do(session, "destroy")
    with ada.request(old) as session:
        assert session.is_new
        assert dict(session) == {}


def test_destroying_what_was_never_stored_touches_nothing(
    make_manager: Callable[..., SessionManager], visitor: Visitor
) -> None:
    with visitor.request() as session:
        session["a"] = 1
        visitor.do(session, "destroy")
    assert visitor.cookie is None
    assert set_cookie(visitor) == ""
