"""What JSON keeps comes back the same, what it would change is refused with its place, and no bytes do harm."""

from __future__ import annotations

import datetime
import decimal
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from session_kit.codec import MAX_DEPTH, JSONCodec, is_deep
from session_kit.drivers import CorruptEntry
from session_kit.errors import SessionError

CODEC = JSONCodec()


class Markup(str):
    """As that of markupsafe: text, and more than text."""


class Float64(float):
    """As that of numpy."""


TEXT = st.text(st.characters(exclude_categories=["Cs"]))
SCALARS = (
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | TEXT
)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner), max_leaves=15)


@given(st.dictionaries(TEXT, VALUES))
def test_every_json_value_comes_back_the_same(data: dict[str, Any]) -> None:
    packed = CODEC.pack(data)
    assert {key: CODEC.load(raw, object) for key, raw in CODEC.unpack(packed).items()} == data
    assert json.loads(packed) == data


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ({"at": datetime.datetime(2026, 1, 1)}, "cart.at: a datetime"),
        ({1, 2}, "cart: a set"),
        ([1, {"x": {1}}], r"cart\[1\].x: a set"),
        ((1, 2), "cart: a tuple"),
        ([(1, 2)], r"cart\[0\]: a tuple"),
        ({1: "one"}, "cart: JSON keys are text, this dict has a key of type int"),
        ({"a": {(1, 2): 3}}, "cart.a: JSON keys are text"),
        (b"bytes", "cart: a bytes"),
        (decimal.Decimal("1.5"), "cart: a Decimal"),
        (float("nan"), "cart: nan"),
        ([float("inf")], r"cart\[0\]: inf"),
        ({"x": "lone\ud800"}, "cart.x: the text holds a lone surrogate"),
        ({"x": {"lone\ud800": 1}}, "cart.x: a key holds a lone surrogate"),
        ({"x": Markup("<b>")}, "cart.x: a Markup cannot be stored as JSON without changing it; convert it first"),
        (Float64(1.5), "cart: a Float64 cannot be stored as JSON without changing it; convert it first"),
        (object(), "cart: a object"),
    ],
)
def test_what_json_would_change_is_refused_with_its_place(value: Any, place: str) -> None:
    with pytest.raises(SessionError, match=place):
        CODEC.dump(value, "cart")


def test_a_value_that_contains_itself_is_refused() -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(SessionError, match="cart"):
        CODEC.dump(value, "cart")


def nested(depth: int, leaf: object = "x") -> Any:
    value = leaf
    for level in range(depth):
        value = {"[": value} if level % 3 else [value, "]"]
    return value


@pytest.mark.parametrize("leaf", ["x", "]" * 200, '"]' * 200, "\\]" * 200, [], {}, [1] * 500])
def test_what_is_nested_deeper_than_a_hundred_is_refused_however_its_texts_look(leaf: object) -> None:
    inner = 0 if isinstance(leaf, str) else 1
    CODEC.dump(nested(MAX_DEPTH - inner, leaf), "cart")
    with pytest.raises(SessionError, match="cart: the value is nested deeper than 100 levels"):
        CODEC.dump(nested(MAX_DEPTH - inner + 1, leaf), "cart")


@pytest.mark.parametrize("depth", [150, 500, 5000])
def test_what_is_nested_so_deep_that_python_fails_is_refused_in_the_same_words(depth: int) -> None:
    for leaf in ("x", {1}):
        with pytest.raises(SessionError, match="cart: the value is nested deeper than 100 levels"):
            CODEC.dump(nested(depth, leaf), "cart")


def depth_of(value: Any) -> int:
    if not isinstance(value, (list, dict)):
        return 0
    return 1 + max((depth_of(item) for item in (value.values() if isinstance(value, dict) else value)), default=0)


BRACKETS = st.text(st.sampled_from('[]{}"\\x'), max_size=8)


@given(
    st.recursive(
        BRACKETS,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(BRACKETS, inner, max_size=4),
        max_leaves=20,
    ),
    st.integers(MAX_DEPTH - 6, MAX_DEPTH),
)
def test_depth_is_counted_as_a_walk_counts_it(value: Any, outer: int) -> None:
    value = nested(outer, value)
    assert is_deep(json.dumps(value, separators=(",", ":")).encode()) == (depth_of(value) > MAX_DEPTH)


def test_a_stack_that_is_nearly_full_does_not_make_a_record_corrupt() -> None:
    with pytest.raises(RecursionError):
        CODEC.unpack(b'{"a":' * 5000)


@given(st.binary() | TEXT.map(str.encode) | VALUES.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_corrupt_or_load_wholly(data: bytes) -> None:
    try:
        fields = CODEC.unpack(data)
    except CorruptEntry:
        return
    for raw in fields.values():
        CODEC.load(raw, object)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"1",
        b"null",
        b'"text"',
        b"{",
        b'{"a":1',
        b'{"a":1}x',
        b"\xff{}",
        b'{"a":"\xff"}',
        b"\x80\x04.",
    ],
)
def test_what_is_no_json_object_is_corrupt(data: bytes) -> None:
    with pytest.raises(CorruptEntry):
        CODEC.unpack(data)


def test_a_number_beyond_all_floats_loads() -> None:
    (raw,) = CODEC.unpack(b'{"a":1e999}').values()
    assert CODEC.load(raw, object) == float("inf")
