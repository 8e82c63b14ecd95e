"""What JSON keeps comes back the same, what it would change is refused with its place, and no bytes do harm."""

from __future__ import annotations

import datetime
import decimal
import json
import sys
import uuid
from typing import Any

import pytest
from flask import Flask
from flask.json.tag import TaggedJSONSerializer
from hypothesis import given
from hypothesis import strategies as st

from session_kit import ConfigError, SessionManager, SessionStore, UnstorageSessionStore, open_store
from session_kit.codec import MAX_DEPTH, Codec, JSONCodec, LenientJSONCodec, TaggedJSONCodec, is_deep
from session_kit.drivers import CorruptEntry
from session_kit.errors import SessionError
from session_kit.manager import make_manager
from session_kit.store import chooses_codec
from session_kit.testing import Visitor
from tests.harness.scripts import run
from tests.harness.sessions import SECRET, PlainStore

CODEC = JSONCodec()
LENIENT = LenientJSONCodec()
TAGGED = TaggedJSONCodec()


class Markup(str):
    """As that of markupsafe: text, and more than text."""

    def __html__(self) -> str:
        return str.__str__(self)


class Float64(float):
    """As that of numpy."""


OddBool = type("bool", (), {"__module__": "numpy"})


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
        (OddBool(), "cart: a numpy.bool cannot be stored as JSON"),
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


# Python 3.11 counts to a thousand, 3.13 to ten thousand, and 3.14 looks at what is left of the stack.
TOO_DEEP = b'{"a":' + b"[" * 1_000_000


def test_a_stack_that_is_nearly_full_does_not_make_a_record_corrupt() -> None:
    with pytest.raises(RecursionError):
        CODEC.unpack(TOO_DEEP)


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


# --- the codecs that convert ---

UTC = datetime.UTC
AT = datetime.datetime(2026, 1, 31, 12, 30, 0, 5, tzinfo=UTC)
ID = uuid.UUID("0e7b6a33-9a2c-4a33-8c55-0123456789ab")
EVERYTHING = {
    "tuple": (1, (2, "x"), {"y": ()}),
    "bytes": b"\x00\xff",
    "id": ID,
    "at": AT,
    "html": Markup("<b>"),
    "own": [{" t": [1]}, {" di": {" t__": 1}}, {" t__": 1}, {" x": 1}, {" t": 1, "b": (2,)}],
}


def through(codec: Codec, value: object) -> Any:
    return codec.load(codec.unpack(codec.pack({"cart": codec.dump(value, "cart")}))["cart"], object)


@pytest.mark.parametrize(
    ("value", "converted"),
    [
        ((1, (2, 3)), [1, [2, 3]]),
        ({1: "one", 2.5: "x", False: "no", None: "none"}, {"1": "one", "2.5": "x", "false": "no", "null": "none"}),
        ({3}, [3]),
        (frozenset(), []),
        (datetime.datetime(2026, 1, 31, 12, 30), "2026-01-31T12:30:00"),
        (datetime.date(2026, 1, 31), "2026-01-31"),
        (datetime.time(12, 30), "12:30:00"),
        (decimal.Decimal("9.90"), "9.90"),
        (ID, str(ID)),
        (b"\x00\xff", "AP8="),
        ({Markup("k"): Markup("<b>")}, {"k": "<b>"}),
        (Float64(1.5), 1.5),
        ([{"deep": (decimal.Decimal(1),)}], [{"deep": ["1"]}]),
    ],
)
def test_the_lenient_codec_converts_what_flask_and_django_would(value: object, converted: object) -> None:
    assert through(LENIENT, value) == converted
    assert json.loads(bytes(LENIENT.dump(value, "cart"))) == converted
    with pytest.raises(SessionError):
        CODEC.dump(value, "cart")


@pytest.mark.parametrize("codec", [LENIENT, TAGGED])
@pytest.mark.parametrize(
    ("value", "place"),
    [
        ((1, object()), r"cart\[1\]: a object"),
        (((1, {"x": object()}),), r"cart\[0\]\[1\]\.x: a object"),
        ((float("nan"),), r"cart\[0\]: nan"),
        ({(1, 2): 3}, "cart: JSON keys are text, this dict has a key of type tuple"),
        (("lone\ud800",), r"cart\[0\]: the text holds a lone surrogate"),
    ],
)
def test_what_has_no_usual_form_is_refused_with_its_place_by_all(codec: Codec, value: object, place: str) -> None:
    with pytest.raises(SessionError, match=place):
        codec.dump(value, "cart")


@pytest.mark.parametrize("codec", [LENIENT, TAGGED])
def test_no_converting_codec_lets_through_what_is_too_deep_or_endless(codec: Codec) -> None:
    endless: list[Any] = [()]
    endless += [endless, endless]
    deep: Any = ()
    for _ in range(MAX_DEPTH):
        deep = (deep,)
    for value in (endless, deep, nested(5000, ())):
        with pytest.raises(SessionError, match="cart"):
            codec.dump(value, "cart")


def test_the_tagged_codec_gives_back_what_it_was_given() -> None:
    markup = pytest.importorskip("markupsafe").Markup
    back = through(TAGGED, EVERYTHING)
    assert back == EVERYTHING
    assert type(back["html"]) is markup
    assert through(TAGGED, datetime.datetime(2026, 1, 31)) == datetime.datetime(2026, 1, 31, tzinfo=UTC)
    assert through(TAGGED, [decimal.Decimal("9.90"), {3}, datetime.date(2026, 1, 31)]) == ["9.90", [3], "2026-01-31"]


TAGGABLE = st.recursive(
    SCALARS | st.binary() | st.uuids() | st.datetimes(timezones=st.just(UTC)),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(TEXT | st.sampled_from([" t", " di", " t__", " u", " d"]), inner, max_size=2)
    ),
    max_leaves=15,
)


@given(TAGGABLE)
def test_whatever_it_tags_comes_back_and_is_no_change(value: Any) -> None:
    raw = TAGGED.dump(value, "cart")
    back = TAGGED.load(raw, object)
    assert back == value
    assert TAGGED.same(back, raw)
    json.loads(bytes(raw))


@given(TAGGABLE)
def test_flask_itself_reads_what_is_tagged_and_is_read(value: Any) -> None:
    flask = TaggedJSONSerializer()
    with Flask("tags").app_context():
        text = flask.dumps({"cart": value})
        assert through(TAGGED, flask.loads(text)["cart"]) == flask.loads(text)["cart"]
        fields = TAGGED.unpack(text.encode())
        assert TAGGED.load(fields["cart"], object) == flask.loads(text)["cart"]


@pytest.mark.parametrize("text", ['{" u":"x"}', '{" t":"x"}', '{" b":5}', '{" d":"x"}', '{" di":[1]}', '{" d":null}'])
def test_a_tag_that_makes_no_sense_is_left_as_it_is(text: str) -> None:
    (raw,) = TAGGED.unpack(f'{{"cart":{text}}}'.encode()).values()
    value = TAGGED.load(raw, object)
    assert value == json.loads(text)
    assert through(TAGGED, value) == value


@pytest.mark.parametrize("codec", ["json-lenient", "json-tagged"])
def test_a_change_inside_is_found_and_nothing_else_is(codec: Any) -> None:
    visitor = Visitor(SessionManager("memory://", SECRET, codec=codec))
    with visitor.request() as session:
        session.update(EVERYTHING, cart=([1], 2))
    with visitor.request() as session:
        for value in session.values():
            assert value is not None
        session.loaded().detect_changes()
        assert not session.loaded().changed
        session["cart"][0].append(3)
    with visitor.request() as session:
        assert list(session["cart"]) == [[1, 3], 2]


def test_two_requests_that_change_tagged_values_lose_nothing() -> None:
    visitor = Visitor(SessionManager("memory://", SECRET, codec="json-tagged"))
    with visitor.request() as session:
        session["cart"] = {"at": AT, "size": (1, 2), "kinds": [(1,)]}
    with visitor.request() as slow:
        slow["cart"]["kinds"].append((2, b"x"))
        slow["cart"]["size"] = [1, 2]
        with visitor.request() as fast:
            fast["cart"]["kinds"].append((3, ID))
    with visitor.request() as session:
        assert session["cart"] == {"at": AT, "size": [1, 2], "kinds": [(1,), (3, ID), (2, b"x")]}


def test_a_codec_is_chosen_by_url_by_the_store_by_the_manager_and_last_by_the_integration() -> None:
    def kind(store: Any, **options: Any) -> type[Codec]:
        return type(make_manager(store, SECRET, **options).policy.codec)

    strict, lenient = open_store("memory://"), UnstorageSessionStore("memory://", codec="json-lenient")
    plain: SessionStore = PlainStore()
    assert kind("memory://") is kind(strict) is kind(plain) is JSONCodec
    assert (
        kind("memory://?codec=json-lenient") is kind(lenient) is kind(strict, codec="json-lenient") is LenientJSONCodec
    )
    assert kind("memory://?codec=json-lenient", codec=CODEC) is JSONCodec
    assert kind(plain, codec="json-tagged") is TaggedJSONCodec
    usual: Any = {"usual_codec": "json-tagged"}
    assert kind("memory://", **usual) is kind(strict, **usual) is kind(plain, **usual) is TaggedJSONCodec
    assert kind(lenient, **usual) is kind("memory://?codec=json-lenient", **usual) is LenientJSONCodec
    assert kind("memory://?codec=json", **usual) is kind(strict, codec="json", **usual) is JSONCodec
    assert strict.with_codec("json-tagged").driver is strict.driver
    assert type(strict.codec) is JSONCodec
    assert not chooses_codec(strict)


def test_bytes_are_stored_and_refused_alike_where_python_compares_none_with_text() -> None:
    run(
        sys.executable,
        "-bb",
        "-c",
        """
from session_kit import SessionError
from session_kit.codec import make_codec
for name in ("json", "json-lenient", "json-tagged", "msgpack"):
    codec = make_codec(name)
    for value in (b"x", [b"x"], {"a": b"x"}, {b"k": object()}):
        try:
            raw = codec.dump(value, "cart")
        except SessionError:
            continue
        assert codec.same(value, raw) or name == "json-lenient"
        assert codec.same("x", raw) is False
        loaded = codec.load(raw, object)
        assert name == "json-lenient" or type(loaded) is type(value)
""",
    )


@pytest.mark.parametrize("codec", ["jsn-tagged", "pickle", 5, None, JSONCodec])
def test_a_codec_that_there_is_not_is_refused(codec: Any) -> None:
    with pytest.raises(ConfigError, match="codec"):
        UnstorageSessionStore("memory://", codec=codec)
    if codec is not None:
        with pytest.raises(ConfigError, match="codec"):
            SessionManager("memory://", SECRET, codec=codec)
