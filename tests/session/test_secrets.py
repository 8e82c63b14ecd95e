"""Secrets: newest first, weak ones refused, none ever shown, and no token but ours is good."""

from __future__ import annotations

import hashlib
from typing import Any

import itsdangerous
import pytest
from hypothesis import given
from hypothesis import strategies as st

from session_kit import ConfigError, SessionManager
from session_kit.asgi import SessionMiddleware
from session_kit.cookie import Signer
from tests.harness.sessions import cookie_of

NEW, OLD, OLDER = (f"{name}-secret-of-at-least-32-characters!" for name in ("N3w", "0ld", "0lder"))


def test_the_newest_comes_first_unlike_in_cve_2025_47278() -> None:
    """CVE-2025-47278: Flask handed its list to itsdangerous in the wrong order, and signed with the oldest secret."""
    token = Signer([NEW, OLD, OLDER]).sign("some-id-that-is-long")
    assert token == Signer(NEW).sign("some-id-that-is-long")
    for position, secret in enumerate([NEW, OLD, OLDER]):
        claim = Signer([NEW, OLD, OLDER]).verify(Signer(secret).sign("some-id-that-is-long").encode())
        assert claim == ("some-id-that-is-long", position > 0)
    assert Signer([NEW, OLD]).verify(Signer(OLDER).sign("some-id-that-is-long").encode()) is None


def test_a_cookie_of_an_old_secret_is_signed_again() -> None:
    before = SessionManager("memory://rotated-secret", OLD)
    session = before.open()
    session["user"] = "ada"
    old = cookie_of(before.commit(session))
    both = SessionManager("memory://rotated-secret", [NEW, OLD])
    session = both.open(old)
    assert session["user"] == "ada"
    new = cookie_of(both.commit(session))
    assert new != old
    after = SessionManager("memory://rotated-secret", NEW)
    assert after.open(new)["user"] == "ada"
    assert "user" not in after.open(old)
    session = both.open(new)
    assert session["user"] == "ada"
    assert "Set-Cookie" not in dict(both.commit(session))


@given(st.text(), st.binary(min_size=32).filter(lambda secret: len(set(secret)) >= 8))
def test_signatures_are_those_of_itsdangerous(sid: str, secret: bytes) -> None:
    theirs = itsdangerous.Signer(
        secret, salt=b"session_kit.cookie.session", key_derivation="hmac", digest_method=hashlib.sha256
    )
    assert Signer(secret).sign(sid) == theirs.sign(sid).decode()
    assert Signer(secret).verify(theirs.sign(sid)) == (sid, False)


@pytest.mark.parametrize(
    "secret",
    [
        "",
        [],
        (),
        None,
        "short",
        b"short",
        ["", NEW],
        [NEW, "sh0rt-0ne"],
        "a" * 40,
        "changeme" * 5,
        "your-secret-key" * 3,
        5,
    ],
)
def test_a_weak_secret_is_refused_at_start_and_not_shown(secret: Any) -> None:
    with pytest.raises(ConfigError, match="secret") as caught:
        Signer(secret)
    assert "sh0rt-0ne" not in str(caught.value)
    assert "changeme" not in str(caught.value)


def test_a_secret_that_the_locale_has_not_read_as_text_is_refused_at_start() -> None:
    """In the locale C, a variable of the environment with an accent comes so."""
    read = (NEW + "\u00e9").encode().decode("ascii", "surrogateescape")
    with pytest.raises(ConfigError, match="no text in this locale") as caught:
        Signer([NEW, read])
    assert caught.value.__cause__ is None
    assert NEW not in str(caught.value)


def test_no_repr_shows_a_secret_or_an_id() -> None:
    manager = SessionManager("memory://", [NEW, OLD])
    session = manager.open()
    session["user"] = "ada-lovelace"
    manager.commit(session)
    shown = repr([manager, session, session.data, Signer([NEW, OLD]), manager.store, vars(manager)])
    shown += repr(SessionMiddleware(None, manager=manager).manager)  # type: ignore[arg-type]
    for hidden in (NEW, OLD, session.id, "ada-lovelace"):
        assert hidden not in shown


@given(st.data())
def test_a_token_that_was_tampered_with_is_refused(data: st.DataObject) -> None:
    signer = Signer(NEW)
    token = signer.sign("some-id-that-is-long")
    position = data.draw(st.integers(0, len(token) - 1))
    other = data.draw(st.characters(min_codepoint=33, max_codepoint=126).filter(lambda c: c != token[position]))
    assert signer.verify((token[:position] + other + token[position + 1 :]).encode()) is None
    assert signer.verify(token[:position].encode()) is None
    assert signer.verify((token + other).encode()) is None


def test_a_signature_of_one_id_is_no_good_for_another() -> None:
    signer = Signer(NEW)
    signature = signer.sign("some-id-that-is-long").rpartition(".")[2]
    assert signer.verify(f"another-id-that-is-long.{signature}".encode()) is None
