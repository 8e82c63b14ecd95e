"""Dict habits work, data is read-only, and a bad value is refused where it is put in."""

from __future__ import annotations

import copy
from collections.abc import Mapping, MutableMapping
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from session_kit import Session, SessionError, SessionManager
from session_kit.integrations.flask import FlaskSession
from session_kit.integrations.pyramid import PyramidSession
from session_kit.testing import Visitor
from tests.harness.sessions import SECRET, log_in, read


@pytest.fixture
def ada(visitor: Visitor) -> Visitor:
    return log_in(visitor, cart=[1], n=1)


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
        (lambda s: s.__ior__([("x", 1)]), {"user": "ada", "cart": [1], "n": 1, "x": 1}),
        (lambda s: s.update([("x", 1), ("x", 2)], y=3), {"user": "ada", "cart": [1], "n": 1, "x": 2, "y": 3}),
        (lambda s: s.update(pair for pair in [("x", 1)]), {"user": "ada", "cart": [1], "n": 1, "x": 1}),
        (lambda s: s.setdefault(key="x", default=1), {"user": "ada", "cart": [1], "n": 1, "x": 1}),
        (
            lambda s: s.update(lambda data: data | {"n": data.get(key="n", default=0) + 1}),
            {"user": "ada", "cart": [1], "n": 2},
        ),
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


def test_a_package_that_asks_for_a_dict_gets_one(ada: Visitor) -> None:
    with ada.request() as session:
        asked: Any = session
        assert isinstance(asked, dict)
        assert isinstance(asked, Session)
        assert type(asked) is Session


def test_popitem_takes_what_came_last(ada: Visitor) -> None:
    with ada.request() as session:
        assert session.popitem() == ("n", 1)
        session["late"] = 2
        assert session.popitem() == ("late", 2)
        assert list(reversed(session)) == ["cart", "user"]
        session.set({})
        with pytest.raises(KeyError, match="empty"):
            session.popitem()


@pytest.mark.parametrize("kind", [Session, FlaskSession, PyramidSession])
def test_a_copy_is_a_plain_dict_of_the_data(kind: type[Session]) -> None:
    session = SessionManager("memory://", SECRET).open(session_class=kind)
    session["cart"] = [1]
    for source in (session, session.data):
        for made in (source.copy(), copy.copy(source), copy.deepcopy(source), source | {}, {} | source):
            assert type(made) is dict
            assert made == {"cart": [1]}
    assert session | {"x": 1} == {"cart": [1], "x": 1}
    assert {"cart": 0, "x": 1} | session == {"cart": [1], "x": 1}
    copy.deepcopy(session)["cart"].append(2)
    assert session == {"cart": [1]}
    with pytest.raises(TypeError):
        session | [("x", 1)]


@pytest.mark.parametrize("kind", [Session, FlaskSession, PyramidSession])
def test_a_name_that_a_session_does_not_know_is_not_taken_in_silence(kind: type[Session]) -> None:
    session: Any = SessionManager("memory://", SECRET).open(session_class=kind)
    with pytest.raises(AttributeError, match="no attribute 'max_age'"):
        session.max_age = 10
    if not hasattr(kind, "permanent"):
        with pytest.raises(AttributeError, match="no attribute 'permanent'"):
            session.permanent = True


KEYS = st.sampled_from(["a", "b", "c", "ü"])
VALUES = st.none() | st.integers(0, 3) | st.lists(st.integers(0, 3), max_size=2) | st.just("text")
DICTS = st.dictionaries(KEYS, VALUES, max_size=3)
CALLS: dict[str, tuple[st.SearchStrategy[Any], ...]] = {
    "__contains__": (KEYS,),
    "__delitem__": (KEYS,),
    "__eq__": (DICTS,),
    "__getitem__": (KEYS,),
    "__ior__": (DICTS | st.lists(st.tuples(KEYS, VALUES), max_size=3),),
    "__len__": (),
    "__or__": (DICTS,),
    "__ror__": (DICTS,),
    "__setitem__": (KEYS, VALUES),
    "clear": (),
    "copy": (),
    "get": (KEYS, VALUES),
    "items": (),
    "keys": (),
    "pop": (KEYS, VALUES),
    "popitem": (),
    "setdefault": (KEYS, VALUES),
    "update": (DICTS | st.lists(st.tuples(KEYS, VALUES), max_size=3),),
    "values": (),
}
PROGRAMS = st.lists(st.sampled_from(sorted(CALLS)).flatmap(lambda name: st.tuples(st.just(name), *CALLS[name])))


def outcome(target: Any, name: str, arguments: list[Any]) -> object:
    try:
        result = getattr(target, name)(*arguments)
    except KeyError:
        return KeyError
    if name in ("keys", "values", "items"):
        return list(result)
    if name in ("update", "__ior__"):  # a session's return it
        return None
    if isinstance(result, list):  # what was handed out may be changed in place
        result.append(9)
    return result


@given(DICTS, PROGRAMS)
def test_whatever_is_done_to_a_dict_does_the_same_to_a_session(start: dict[str, Any], program: list[Any]) -> None:
    visitor = Visitor(SessionManager("memory://", SECRET))
    with visitor.request() as session:
        session.set(copy.deepcopy(start))
    plain = copy.deepcopy(start)
    with visitor.request() as session:
        for name, *arguments in program:
            theirs = outcome(plain, name, copy.deepcopy(arguments))
            assert outcome(session, name, copy.deepcopy(arguments)) == theirs
            assert list(session.items()) == list(plain.items())
            assert list(reversed(session)) == list(reversed(plain))
    with visitor.request() as session:
        assert dict(session) == plain  # a change of the order alone is not written


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
