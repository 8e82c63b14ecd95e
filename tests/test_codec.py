"""What JSON keeps comes back the same, what it would change is refused with its place, and no bytes do harm."""

from __future__ import annotations

import datetime
import decimal
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from session_kit.codec import JSONCodec
from session_kit.drivers import CorruptEntry
from session_kit.errors import SessionError

CODEC = JSONCodec()
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
        b'{"a":' * 5000,
    ],
)
def test_what_is_no_json_object_is_corrupt(data: bytes) -> None:
    with pytest.raises(CorruptEntry):
        CODEC.unpack(data)


def test_a_number_beyond_all_floats_loads() -> None:
    (raw,) = CODEC.unpack(b'{"a":1e999}').values()
    assert CODEC.load(raw, object) == float("inf")
