"""Dict habits work, data is read-only, and a bad value is refused where it is put in."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from datetime import datetime
from typing import Any

import pytest

from session_kit import Session, SessionError
from session_kit.testing import Visitor


@pytest.fixture
def ada(visitor: Visitor) -> Visitor:
    with visitor.request() as session:
        session.set({"user": "ada", "cart": [1], "n": 1})
    return visitor


def read(visitor: Visitor) -> dict[str, Any]:
    with visitor.request() as session:
        return dict(session)


def test_it_is_a_mutable_mapping(ada: Visitor) -> None:
    with ada.request() as session:
        assert isinstance(session, MutableMapping)
        assert "user" in session
        assert "nobody" not in session
        assert len(session) == 3
        assert sorted(session) == ["cart", "n", "user"]
        assert session == {"user": "ada", "cart": [1], "n": 1}
        assert {**session} == dict(session.items())
        assert session.get("nobody", 7) == 7
        with pytest.raises(KeyError):
            session["nobody"]
        with pytest.raises(KeyError):
            del session["nobody"]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda s: s.__setitem__("x", 1), {"user": "ada", "cart": [1], "n": 1, "x": 1}),
        (lambda s: s.__delitem__("n"), {"user": "ada", "cart": [1]}),
        (lambda s: s.pop("n"), {"user": "ada", "cart": [1]}),
        (lambda s: s.pop("nobody", None), {"user": "ada", "cart": [1], "n": 1}),
        (lambda s: s.setdefault("tags", []).append("a"), {"user": "ada", "cart": [1], "n": 1, "tags": ["a"]}),
        (lambda s: s.setdefault("cart", []).append(2), {"user": "ada", "cart": [1, 2], "n": 1}),
        (lambda s: s.update({"x": 1}, y=2), {"user": "ada", "cart": [1], "n": 1, "x": 1, "y": 2}),
        (lambda s: s.update(x=1).update(y=2), {"user": "ada", "cart": [1], "n": 1, "x": 1, "y": 2}),
        (lambda s: s.__ior__({"x": 1}), {"user": "ada", "cart": [1], "n": 1, "x": 1}),
        (lambda s: s.clear(), {}),
        (lambda s: [s.popitem() for _ in range(3)], {}),
        (lambda s: s.set({"only": True}), {"only": True}),
    ],
)
def test_each_way_to_change_it_is_saved(ada: Visitor, change: Any, expected: dict[str, Any]) -> None:
    with ada.request() as session:
        change(session)
        assert dict(session) == expected
    assert read(ada) == expected


def test_the_in_place_union_keeps_the_session(ada: Visitor) -> None:
    with ada.request() as session:
        same = session
        session |= {"x": 1}
        assert session is same
    assert read(ada)["x"] == 1


def test_popitem_returns_what_it_took(ada: Visitor) -> None:
    with ada.request() as session:
        before = dict(session)
        key, value = session.popitem()
        assert before[key] == value
    assert key not in read(ada)


def test_data_is_read_only(ada: Visitor) -> None:
    with ada.request() as session:
        assert isinstance(session.data, Mapping)
        with pytest.raises(TypeError):
            session.data["user"] = "eve"  # type: ignore[index]
        assert session.data["user"] == "ada"
        session["user"] = "bob"
        assert session.data["user"] == "bob"


def test_an_updater_cannot_change_its_argument(ada: Visitor) -> None:
    def careless(data: Any) -> dict[str, Any]:
        data["user"] = "eve"
        return {}

    with ada.request() as session, pytest.raises(TypeError):
        session.update(careless)


def test_an_updater_that_returns_nothing_is_an_error_that_says_so(ada: Visitor) -> None:
    with ada.request() as session, pytest.raises(SessionError, match="an updater must return a mapping"):
        session.update(lambda data: None)  # type: ignore[arg-type,return-value]


def test_a_value_that_cannot_be_stored_is_refused_where_it_is_put_in(ada: Visitor) -> None:
    with ada.request() as session:
        with pytest.raises(SessionError, match=r"seen\.at: a datetime"):
            session["seen"] = {"at": datetime(2026, 1, 1)}
        with pytest.raises(SessionError, match="'\\$' is reserved"):
            session["$"] = 1
        with pytest.raises(SessionError, match="key must be a str"):
            session[1] = 1  # type: ignore[index]
    assert read(ada) == {"user": "ada", "cart": [1], "n": 1}


def test_a_value_changed_in_place_into_one_that_cannot_be_stored_is_an_error_not_a_loss(ada: Visitor) -> None:
    with pytest.raises(SessionError, match=r"cart\[1\]: a set"), ada.request() as session:
        session["cart"].append({1})
    assert read(ada)["cart"] == [1]


def test_equal_but_different_types_are_a_change(ada: Visitor) -> None:
    with ada.request() as session:
        session["n"] = True
    assert read(ada)["n"] is True


def test_keys_deleted_while_iterating_do_not_break_the_iteration(ada: Visitor) -> None:
    with ada.request() as session:
        for key in session:
            del session[key]
    assert read(ada) == {}


def test_repr_shows_neither_id_nor_data(ada: Visitor) -> None:
    with ada.request() as session:
        for text in (repr(session), repr(session.data), f"{session}"):
            assert "ada" not in text
            assert session.id not in text
        assert repr(session) == "<Session stored, 3 keys>"
    assert repr(ada.manager.open("session=x")) == "<Session not loaded>"


def test_generics_reach_the_user() -> None:
    assert Session[dict[str, int]] is not Session
