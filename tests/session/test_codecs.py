"""MessagePack, compression and encryption: all comes back, nobody else reads it, and no codec logs a visitor out."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import os
import sys
import tracemalloc
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import msgspec
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from session_kit import (
    ConfigError,
    CorruptEntry,
    OtherCodec,
    RedisSessionStore,
    SessionError,
    SessionManager,
    UnstorageSessionStore,
    open_store,
)
from session_kit.codec import MAX_DEPTH, Codec, Compressed, Encrypted, MessagePackCodec, make_codec
from session_kit.codec.foreign import ENCRYPTED, MARK, MAX_SIZE, ZLIB, ZSTD, find_zstd
from session_kit.codec.format import is_deep_msgpack
from session_kit.drivers import Driver
from session_kit.drivers.disk import DiskDriver
from session_kit.drivers.memory import MemoryDriver
from session_kit.policy import Event
from session_kit.testing import Caller, ManualClock, Visitor
from tests.harness.sessions import SECRET, PlainStore
from tests.session.test_codec import TEXT, VALUES, nested

MESSAGE_PACK = MessagePackCodec()
OLD, NEW, STRANGE = (bytes(range(first, first + 32)) for first in (1, 101, 201))
STORE_KEY = "sess:0123"
zstd = find_zstd()
DATA = {"user": "ada", "cart": ["apple", "apple", "pear"], "visits": 3, "more": "-" * 2000}

PLAIN = [*product(["json", "json-lenient", "json-tagged", "msgpack"], ["", "+zlib", "+zstd"])]


def small(name: str) -> Codec:
    """The codec of that name, which compresses small records too."""
    inner, _, method = name.partition("+")
    return Compressed(inner, method, above=0) if method else make_codec(name)  # type: ignore[arg-type]


CODECS: dict[str, Codec] = {form + method: small(form + method) for form, method in PLAIN}
CODECS |= {f"{name} encrypted": Encrypted([NEW, OLD], codec) for name, codec in CODECS.items()}
UNENCRYPTED = {name: codec for name, codec in CODECS.items() if not name.endswith("encrypted")}


def write(codec: Codec, data: dict[str, Any], key: str = STORE_KEY) -> bytes:
    return codec.pack({name: codec.dump(value, name) for name, value in data.items()}, key)


def read(codec: Codec, record: bytes, key: str = STORE_KEY) -> dict[str, Any]:
    return {name: codec.load(raw, object) for name, raw in codec.unpack(record, key).items()}


# --- what goes in comes out ---


@settings(max_examples=50, deadline=None)
@given(data=st.dictionaries(TEXT, VALUES))
def test_every_json_value_comes_back_the_same_from_each(data: dict[str, Any]) -> None:
    for codec in CODECS.values():
        assert read(codec, write(codec, data)) == data


MORE: Any = st.recursive(
    VALUES | st.binary() | st.datetimes(timezones=st.just(UTC)),
    lambda inner: st.lists(inner) | st.dictionaries(st.integers(-(2**63), 2**64 - 1) | TEXT | st.binary(), inner),
    max_leaves=10,
)


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(TEXT, MORE))
def test_message_pack_keeps_bytes_times_and_keys_of_any_kind(data: dict[str, Any]) -> None:
    record = write(MESSAGE_PACK, data)
    assert read(MESSAGE_PACK, record) == msgspec.msgpack.decode(record) == data


HUGE = 10**5000


@dataclass
class Size:
    width: int
    parts: tuple[int, ...]


@pytest.mark.parametrize(("name", "parts"), [("json-lenient", [1, 2]), ("json-tagged", (1, 2))])
def test_a_dataclass_becomes_an_object_as_flask_stores_it(name: str, parts: object) -> None:
    codec = make_codec(name)
    raw = codec.dump({"size": Size(3, (1, 2))}, "cart")
    assert codec.load(raw, object) == {"size": {"width": 3, "parts": parts}}
    assert codec.same({"size": Size(3, (1, 2))}, raw)
    assert not codec.same({"size": Size(4, (1, 2))}, raw)


@pytest.mark.parametrize("name", ["json", "json-lenient", "json-tagged"])
@pytest.mark.parametrize(
    "data", [{1: "a", "1": "b"}, {None: 1, "null": 2}, {True: 1, "true": 2}, {"x": {1.5: 1, "1.5": 2}}]
)
def test_two_keys_that_would_become_one_are_refused(name: str, data: dict[Any, Any]) -> None:
    with pytest.raises(SessionError, match=r"^cart.*: JSON keys are text"):
        make_codec(name).dump(data, "cart")


@pytest.mark.parametrize("name", ["json", "json-lenient", "json-tagged", "msgpack"])
@pytest.mark.parametrize(
    "data", [10**5000, [10**5000], {"a": -(10**5000)}, {10**5000: 1}], ids=["", "list", "dict", "key"]
)
def test_a_number_of_more_digits_than_python_writes_is_refused_with_its_place(name: str, data: Any) -> None:
    with pytest.raises(SessionError, match=r"^cart"):
        make_codec(name).dump(data, "cart")


def test_a_time_with_a_zone_is_the_same_moment() -> None:
    at = datetime(2026, 1, 31, 12, tzinfo=timezone(timedelta(hours=2)))
    (loaded,) = read(MESSAGE_PACK, write(MESSAGE_PACK, {"at": at})).values()
    assert (loaded, loaded.tzinfo) == (at, UTC)


LOOP: list[Any] = []
LOOP.append(LOOP)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ((1,), "cart: a tuple cannot be stored as MessagePack without changing it; convert it first"),
        ({"a": [{1}]}, r"cart\.a\[0\]: a set cannot be stored as MessagePack"),
        (datetime(2026, 1, 31), "cart: a datetime cannot"),
        ([2**64], r"cart\[0\]: an int of 65 bits has no form in MessagePack"),
        (2**64, "cart: an int of 65 bits has no form"),
        (float("nan"), "cart: nan has no form in MessagePack"),
        ({"a": "\ud800"}, r"cart\.a: the text holds a lone surrogate"),
        ({"\ud800": 1}, "cart: a key holds a lone surrogate"),
        ({frozenset({1}): 1}, "cart: a key of type frozenset cannot be stored as MessagePack"),
        (object(), "cart: a object cannot be stored"),
        (LOOP, "cart.*contains itself"),
    ],
)
def test_what_message_pack_would_change_is_refused_with_its_place(value: object, message: str) -> None:
    with pytest.raises(SessionError, match=message):
        MESSAGE_PACK.dump(value, "cart")
    assert not MESSAGE_PACK.same(value, msgspec.Raw(b"\x01"))


@pytest.mark.parametrize("leaf", ["text", {}, [], b"\x91" * 200])
def test_message_pack_is_nested_as_deep_as_json_and_no_deeper(leaf: Any) -> None:
    inner = 1 if isinstance(leaf, (dict, list)) else 0
    MESSAGE_PACK.dump(nested(MAX_DEPTH - inner, leaf), "cart")
    with pytest.raises(SessionError, match="cart: the value is nested deeper than 100 levels"):
        MESSAGE_PACK.dump(nested(MAX_DEPTH - inner + 1, leaf), "cart")


def test_depth_in_keys_counts() -> None:
    key: Any = 1
    for _ in range(MAX_DEPTH):
        key = (key,)
    assert is_deep_msgpack(msgspec.msgpack.encode({key: 1}))


@settings(max_examples=60, deadline=None)
@given(st.binary() | st.dictionaries(TEXT, MORE).map(msgspec.msgpack.encode), st.integers(0, 400), st.integers(0, 255))
def test_any_bytes_of_message_pack_are_corrupt_or_load_wholly(data: bytes, at: int, byte: int) -> None:
    data = data[:at] + bytes([byte]) + data[at + 1 :]
    for codec in (MESSAGE_PACK, make_codec("json-lenient")):
        try:
            fields = codec.unpack(data)
        except CorruptEntry:
            continue
        for raw in fields.values():
            codec.load(raw, object)


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"\x81\xa1a\xa1\xff",
        b"\x81\xa1a\x81\x80\x01",
        b"\x81\xa1a\xd4\xff\x05",
        b"\x81\xa1a\xdd\xff\xff\xff\xff",
        b"\x80\x04.",
        b"\x91\x01",
        b'{"a":',
        b"[]",
    ],
)
def test_a_record_that_no_codec_could_read_is_corrupt_before_it_is_looked_at(record: bytes) -> None:
    for codec in UNENCRYPTED.values():
        with pytest.raises(CorruptEntry) as caught:
            codec.unpack(record)
        assert not isinstance(caught.value, OtherCodec)


def test_a_stack_that_is_nearly_full_does_not_make_message_pack_corrupt() -> None:
    with pytest.raises(RecursionError):
        MESSAGE_PACK.unpack(b"\x81\xa1a" + b"\x91" * 1_000_000 + b"\x01")


# --- compression ---


@pytest.mark.parametrize(("method", "mark"), [("zlib", ZLIB), ("zstd", ZSTD)])
def test_what_is_large_is_compressed_and_what_is_small_is_not(method: Any, mark: bytes) -> None:
    codec = Compressed("json", method, above=100)
    large, small = {"a": "b" * 200}, {"a": "b" * 20}
    assert write(codec, large).startswith(mark)
    assert len(write(codec, large)) < 60
    assert write(codec, small) == write(make_codec("json"), small)
    random = {"a": base64.b64encode(os.urandom(99)).decode()}
    assert write(codec, random) == write(make_codec("json"), random)  # it would be larger
    assert write(make_codec(f"json+{method}"), {"a": "b" * 1000})[:1] == b"{"
    assert write(make_codec(f"json+{method}"), {"a": "b" * 2000})[:1] == MARK


def test_a_few_bytes_cannot_fill_the_memory() -> None:
    bomb = b'{"a":"' + b"b" * (10 * MAX_SIZE) + b'"}'
    for record in (ZLIB + zlib.compress(bomb), ZSTD + zstd.compress(bomb)):
        tracemalloc.start()
        with pytest.raises(CorruptEntry, match="becomes more than 8388608 bytes"):
            make_codec("json").unpack(record)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 4 * MAX_SIZE
    wide = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: 27})
    with pytest.raises(CorruptEntry, match="cannot be read"):  # a window of 128 MiB
        make_codec("json").unpack(ZSTD + wide.compress(b'{"a":1}') + wide.flush())


def test_what_is_as_large_as_may_be_comes_back_compressed_and_what_is_larger_as_it_is() -> None:
    for method, size in product(("zlib", "zstd"), (MAX_SIZE - len('{"a":""}'), MAX_SIZE)):
        codec, data = make_codec(f"json+{method}"), {"a": "b" * size}
        record = write(codec, data)
        assert (record[:1] == MARK) == (size < MAX_SIZE)
        assert read(codec, record) == data


@pytest.mark.parametrize("method", ["zlib", "zstd"])
def test_a_compressed_record_that_is_cut_off_or_changed_is_corrupt(method: str) -> None:
    record = write(CODECS[f"json+{method}"], DATA)
    for broken in (record[:-1], record[:20], record[:2], record + b"x", record[:2] + b"?" + record[3:]):
        with pytest.raises(CorruptEntry, match="compressed record"):
            read(CODECS["json"], broken)


def test_a_worker_without_zstd_leaves_its_records_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    record = write(CODECS["json+zstd"], DATA)
    for name in ("backports.zstd", "compression.zstd"):
        monkeypatch.setitem(sys.modules, name, None)
    find_zstd.cache_clear()
    with pytest.raises(OtherCodec, match=r"compressed: zstd needs .*pip install 'session-kit-web\[zstd\]'"):
        read(CODECS["json"], record)
    with pytest.raises(ConfigError, match="zstd needs the package"):
        make_codec("json+zstd")


# --- encryption ---


def test_nobody_reads_in_the_store_what_is_encrypted() -> None:
    codec = Encrypted(NEW)
    records = {write(codec, DATA) for _ in range(100)}
    assert len(records) == 100
    assert not any(word in record for record in records for word in (b'"ada"', b'"user"', NEW))


def test_a_record_is_good_under_its_own_key_alone() -> None:
    codec = Encrypted(NEW)
    record = write(codec, DATA, "sess:ada")
    for key in ("sess:bob", "other:ada", "", "sess:ada\0"):
        with pytest.raises(CorruptEntry, match="was changed, or moved") as caught:
            read(codec, record, key)
        assert not isinstance(caught.value, OtherCodec)


def test_a_bit_that_was_flipped_is_found_wherever_it_is() -> None:
    codec = Encrypted(NEW, "msgpack+zlib")
    record = write(codec, {"a": 1})
    for at, bit in product(range(len(record)), range(8)):
        broken = bytearray(record)
        broken[at] ^= 1 << bit
        with pytest.raises(CorruptEntry):
            read(codec, bytes(broken))
    for end in range(len(record)):
        with pytest.raises(CorruptEntry):
            read(codec, record[:end])


def test_the_first_key_encrypts_and_all_decrypt() -> None:
    before, between, after = Encrypted(OLD), Encrypted([NEW, OLD]), Encrypted([NEW])
    old, new = write(before, DATA), write(between, DATA)
    assert read(between, old) == read(between, new) == read(after, new) == DATA
    for codec, record in ((after, old), (before, new)):
        with pytest.raises(OtherCodec, match="with a key that is not in the list; put a retired key back"):
            read(codec, record)


def test_a_key_is_read_in_each_usual_form() -> None:
    record = write(Encrypted(NEW), DATA)
    forms = [
        NEW.hex(),
        base64.b64encode(NEW).decode(),
        base64.urlsafe_b64encode(NEW).decode(),
        base64.urlsafe_b64encode(NEW).decode().rstrip("="),
        f" {NEW.hex().upper()}\n",
    ]
    for form in forms:
        assert read(Encrypted(form), record) == DATA


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ([], "keys must be a key or a list of them"),
        (None, "keys must be a key or a list"),
        ({NEW}, "keys must be a key or a list"),
        (b"", "key 1 of 1 has 0 bytes; an encryption key is 32 random bytes"),
        ([NEW, OLD[:16]], "key 2 of 2 has 16 bytes; .* `session-kit secret` prints one"),
        (OLD[:31], "key 1 of 1 has 31 bytes"),
        ("", "key 1 of 1 is no text of 32 bytes"),
        ("a-password-of-thirty-two-letters", "key 1 of 1 is no text of 32 bytes"),
        ("x" * 64, "is no text of 32 bytes"),
        ("ä" * 43, "is no text of 32 bytes"),
        ([NEW, 5], "key 2 of 2 is a int"),
        (bytes(32), "key 1 of 1 is not random"),
        ("00" * 32, "key 1 of 1 is not random"),
        ([NEW, OLD, NEW.hex()], "given twice"),
    ],
)
def test_keys_that_cannot_be_are_one_clear_line_that_shows_none(keys: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        Encrypted(keys)
    text = str(caught.value)
    assert "\n" not in text
    assert not any(form in text for form in ("a-password", NEW.hex(), repr(NEW), "x" * 64))


def test_no_key_is_shown(caplog: pytest.LogCaptureFixture) -> None:
    codec = Encrypted([NEW, OLD], "msgpack+zlib")
    assert repr(codec) == "Encrypted(<2 keys>, Compressed(MessagePackCodec(), 'zlib'))"
    assert NEW.hex() not in repr(UnstorageSessionStore("memory://", codec=codec))


def test_without_the_package_it_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.exceptions", None)
    with pytest.raises(
        ConfigError, match=r"needs the package cryptography, .* pip install 'session-kit-web\[crypto\]'"
    ):
        Encrypted(NEW)


# --- one codec meets the records of another ---


@pytest.mark.parametrize(("writer", "reader"), [*product(UNENCRYPTED, CODECS)])
def test_each_reads_what_each_has_written_without_a_key(writer: str, reader: str) -> None:
    record, codec = write(CODECS[writer], DATA), CODECS[reader]
    if reader.endswith("encrypted"):
        with pytest.raises(OtherCodec, match=r"not encrypted; .*accept_plain=True"):
            read(codec, record)
        assert isinstance(codec, Encrypted)
        codec = Encrypted(NEW, codec.inner, accept_plain=True)
    assert read(codec, record) == DATA


@pytest.mark.parametrize(("writer", "reader"), [*product([name for name in CODECS if name not in UNENCRYPTED], CODECS)])
def test_what_is_encrypted_is_left_alone_without_the_key_and_read_with_it(writer: str, reader: str) -> None:
    record, codec = write(CODECS[writer], DATA), CODECS[reader]
    if isinstance(codec, Encrypted):
        assert read(codec, record) == DATA
        codec = Encrypted(STRANGE, codec.inner, accept_plain=True)
    with pytest.raises(OtherCodec, match="the record is encrypted"):
        read(codec, record)


def test_a_value_that_the_other_codec_has_no_form_for_is_left_alone() -> None:
    record = write(MESSAGE_PACK, {"secret-name": b"PNG", "at": datetime(2026, 1, 31, tzinfo=UTC)})
    with pytest.raises(OtherCodec, match="no form for a value in it") as caught:
        make_codec("json").unpack(record)
    assert "secret-name" not in str(caught.value)
    assert read(make_codec("json-lenient"), record) == {"secret-name": "UE5H", "at": "2026-01-31T00:00:00+00:00"}
    assert read(make_codec("json-tagged"), record) == read(MESSAGE_PACK, record)
    with pytest.raises(OtherCodec):
        MESSAGE_PACK.unpack(json.dumps({"a": 2**70}).encode())
    assert read(MESSAGE_PACK, b' {"a":1e999}') == {"a": float("inf")}


def test_a_record_of_a_codec_to_come_is_left_alone() -> None:
    for codec in UNENCRYPTED.values():
        with pytest.raises(OtherCodec, match="newer version"):
            codec.unpack(MARK + b"?something")


# --- sessions ---


@pytest.fixture(params=["memory", "disk"])
def backend(request: pytest.FixtureRequest, clock: ManualClock, tmp_path: Path) -> Driver:
    return MemoryDriver(clock=clock) if request.param == "memory" else DiskDriver(tmp_path / "store", clock=clock)


@pytest.fixture
def open_with(
    backend: Driver, clock: ManualClock, events: list[str], runner: asyncio.Runner | None
) -> Callable[..., Visitor]:
    """Makes a visitor whose manager has that codec, on the one driver."""

    def make(codec: Any, visitor: Visitor | None = None, **options: Any) -> Visitor:
        def record(event: Event) -> None:
            events.append(event.name)

        store = UnstorageSessionStore(backend, codec=codec, clock=clock, ttl=1000)
        made = Visitor(SessionManager(store, SECRET, clock=clock, on_event=record, **options), runner)
        made.cookie = visitor.cookie if visitor else None
        return made

    return make


def kind(record: bytes) -> bytes:
    """What the first bytes say: the format, the compression, or the key that it is encrypted with."""
    if record[:1] == MARK:
        return record[:10] if record.startswith(ENCRYPTED) else record[:2]
    return b"{" if record[:1] == b"{" else b"a map"


def stored(driver: Driver) -> bytes:
    (key,) = driver.keys()
    value = driver.get(key)
    assert value is not None
    return value


MOVES = [
    ("json", "msgpack"),
    ("msgpack", "json"),
    ("json-tagged+zlib", "msgpack+zstd"),
    ("json", Encrypted(NEW, accept_plain=True)),
    ("msgpack+zlib", Encrypted(NEW, "msgpack+zstd", accept_plain=True)),
    (Encrypted(OLD), Encrypted([NEW, OLD])),
    (Encrypted(OLD, "msgpack+zlib"), Encrypted([NEW, OLD], "json")),
]


@pytest.mark.parametrize(("old", "new"), MOVES, ids=repr)
def test_a_store_moves_from_one_codec_to_the_next_and_nobody_is_logged_out(
    open_with: Callable[..., Visitor], backend: Driver, events: list[str], old: Any, new: Any
) -> None:
    ada = open_with(old)
    with ada.request() as session:
        session.set(DATA)
        sid = session.id
    before = stored(backend)
    later = open_with(new, ada)
    with later.request() as session:
        assert dict(session) == DATA
        assert session.id == sid
    assert stored(backend) == before
    with later.request() as session:
        session["visits"] += 1
    assert kind(stored(backend)) == kind(write(make_codec(new), DATA)) != kind(before)
    with later.request() as session:
        assert dict(session) == {**DATA, "visits": 4}
        later.do(session, "regenerate")
    with later.request() as session:
        assert dict(session) == {**DATA, "visits": 4}
    assert {"undecodable", "other_codec", "misfit", "unknown_id"}.isdisjoint(events)


LOCKED = [
    ("json", Encrypted(NEW), "is not encrypted"),
    (Encrypted(NEW), "json", "the store has no keys"),
    (Encrypted(OLD), Encrypted(NEW), "put a retired key back"),
    (Encrypted(NEW), "msgpack+zlib", "the store has no keys"),
]


@pytest.mark.parametrize(("right", "wrong", "reason"), LOCKED, ids=repr)
def test_a_record_that_another_codec_can_read_is_an_event_and_no_logout(
    open_with: Callable[..., Visitor],
    backend: Driver,
    events: list[str],
    caplog: pytest.LogCaptureFixture,
    right: Any,
    wrong: Any,
    reason: str,
) -> None:
    ada = open_with(right)
    with ada.request() as session:
        session.set(DATA)
    before = stored(backend)
    misled = open_with(wrong, ada)
    events.clear()
    with caplog.at_level(logging.WARNING, "session_kit"):
        for _ in range(3):
            with misled.request() as session:
                assert dict(session) == {}
                session["theme"] = "dark"
            assert misled.headers == [("Vary", "Cookie")]
    assert events == ["other_codec"] * 3
    (line,) = caplog.messages
    assert reason in line
    assert "apple" not in line
    assert stored(backend) == before
    with open_with(right, ada).request() as session:
        assert dict(session) == DATA


def test_a_record_that_another_codec_can_read_keeps_its_cookie_beside_another_good_one(
    open_with: Callable[..., Visitor], clock: ManualClock
) -> None:
    right, other = open_with(Encrypted(OLD)), open_with("json")
    for visitor in (right, other):
        with visitor.request() as session:
            session.set(DATA)
    clock.advance(400)
    with other.request(f"{right.cookie}; {other.cookie}") as session:
        assert dict(session) == DATA
    assert other.headers == [("Vary", "Cookie")]


@pytest.mark.parametrize(("right", "wrong", "reason"), LOCKED, ids=repr)
@pytest.mark.parametrize("touched", [True, False])
def test_a_logout_ends_a_session_that_cannot_be_read(
    open_with: Callable[..., Visitor], backend: Driver, right: Any, wrong: Any, reason: str, touched: bool
) -> None:
    ada = open_with(right)
    with ada.request() as session:
        session.set(DATA)
    misled = open_with(wrong, ada)
    if touched:
        with misled.request() as session:
            misled.do(session, "destroy")
    else:  # not loaded first
        session = misled.manager.open(ada.cookie or "", asynchronous=misled.runner is not None)
        misled.do(session, "destroy")
    assert list(backend.keys()) == []


def test_a_login_where_the_record_cannot_be_read_is_a_session_of_its_own(
    open_with: Callable[..., Visitor], backend: Driver
) -> None:
    ada = open_with(Encrypted(OLD))
    with ada.request() as session:
        session["cart"] = [1]
    misled = open_with(Encrypted(NEW), ada)
    with misled.request() as session:
        session["user"] = "ada"
    with misled.request() as session:
        assert dict(session) == {"user": "ada"}
    with open_with(Encrypted(OLD), ada).request() as session:
        assert dict(session) == {"cart": [1]}
    assert len(list(backend.keys())) == 2


def test_a_record_that_another_worker_rewrites_meanwhile_is_not_overwritten(
    open_with: Callable[..., Visitor], backend: Driver, events: list[str]
) -> None:
    ada = open_with("json")
    with ada.request() as session:
        session.set(DATA)
    newer = open_with(Encrypted(NEW, accept_plain=True), ada)
    with ada.request() as slow:
        slow["theme"] = "dark"
        with newer.request() as session:
            session["visits"] = 4
        written = stored(backend)
    assert stored(backend) == written
    assert "other_codec" in events
    assert ada.headers == [("Vary", "Cookie")]
    with newer.request() as session:
        assert session["visits"] == 4


@pytest.mark.parametrize("order", [1, -1])
def test_of_two_cookies_the_one_whose_record_can_be_read_counts(open_with: Callable[..., Visitor], order: int) -> None:
    locked, good = open_with(Encrypted(OLD)), open_with(Encrypted(NEW))
    for visitor in (locked, good):
        with visitor.request() as session:
            session["user"] = "ada" if visitor is good else "bob"
    cookies = "; ".join([locked.cookie or "", good.cookie or ""][::order])
    with good.request(cookies) as session:
        assert session["user"] == "ada"


def test_records_that_were_swapped_open_for_nobody(
    open_with: Callable[..., Visitor], backend: Driver, events: list[str]
) -> None:
    ada, eve = open_with(Encrypted(NEW)), open_with(Encrypted(NEW))
    for visitor, name in ((ada, "ada"), (eve, "eve")):
        with visitor.request() as session:
            session["user"] = name
    one, other = backend.keys()
    values = backend.get(one), backend.get(other)
    backend.set(one, values[1] or b"")
    backend.set(other, values[0] or b"")
    for visitor in (ada, eve):
        with visitor.request() as session:
            assert dict(session) == {}
    assert events.count("undecodable") == 2
    assert list(backend.keys()) == []


def test_sessions_that_are_used_leave_the_old_key_within_the_ttl(
    open_with: Callable[..., Visitor], backend: Driver, clock: ManualClock
) -> None:
    ada = open_with(Encrypted(OLD))
    with ada.request() as session:
        session["user"] = "ada"
    later = open_with(Encrypted([NEW, OLD]), ada)
    clock.advance(400)
    with later.request() as session:
        assert session["user"] == "ada"  # only read
    with open_with(Encrypted(NEW), later).request() as session:
        assert session["user"] == "ada"


class Cart(msgspec.Struct):
    icon: bytes = b""
    counts: dict[int, str] = {}
    since: datetime | None = None


@pytest.mark.parametrize("old", ["json", "msgpack", "json+zlib"])
@pytest.mark.parametrize("new", ["msgpack", "json-lenient", "msgpack+zstd"])
def test_typed_data_move_with_their_types(
    open_with: Callable[..., Visitor], events: list[str], old: str, new: str
) -> None:
    cart = Cart(b"PNG", {1: "one"}, datetime(2026, 1, 31, tzinfo=UTC))
    ada = open_with(old, data_type=Cart)
    with ada.request() as session:
        session.set(cart)  # type: ignore[arg-type]
    later = open_with(new, ada, data_type=Cart)
    with later.request() as session:
        typed: Any = session.data
        assert typed == cart
        typed.counts[2] = "two"
    with later.request() as session:
        typed = session.data
        assert typed == Cart(cart.icon, {1: "one", 2: "two"}, cart.since)
    assert "misfit" not in events


class Basket(pydantic.BaseModel):
    counts: dict[int, str] = {}


def test_a_record_that_no_model_could_have_is_left_alone(open_with: Callable[..., Visitor], events: list[str]) -> None:
    ada = open_with("msgpack")
    with ada.request() as session:
        session["counts"] = {(1, 2): "pair"}
    with open_with("msgpack", ada, data_type=Basket).request() as session:
        typed: Any = session.data
        assert typed == Basket()
    assert events[-1] == "misfit"
    with ada.request() as session:
        assert dict(session) == {"counts": {(1, 2): "pair"}}


# --- stores ---


def test_a_store_by_itself_reads_writes_lists_and_leaves_alone(
    backend: Driver, runner: asyncio.Runner | None, caplog: pytest.LogCaptureFixture
) -> None:
    plain = UnstorageSessionStore(backend, codec="msgpack")
    locked = plain.with_codec(Encrypted(NEW, "msgpack"))
    assert locked.driver is plain.driver
    store = Caller(locked, runner)
    store.set("ada~token", {"user": "ada", "icon": b"PNG"})
    store.set("ada~token", {"user": "ada", "icon": b"GIF"})
    assert store.get("ada~token") == {"user": "ada", "icon": b"GIF"}
    assert store.get("ada~other") is None
    assert [data["user"] for _, data in store.all()] == ["ada"]
    other = Caller(plain, runner)
    for call in ("get", "read"):
        with pytest.raises(OtherCodec):
            getattr(other, call)("ada")
    with pytest.raises(OtherCodec):
        other.set("ada~token", {"user": "eve"})
    assert list(other.all()) == []
    assert "left out, it cannot be read: OtherCodec" in caplog.text
    assert store.get("ada") == {"user": "ada", "icon": b"GIF"}
    assert other.destroy("ada")


def test_a_store_of_your_own_is_told_that_it_encrypts_nothing() -> None:
    class Own:
        get = set = touch = destroy = print

    for codec in (Encrypted(NEW), "json+zlib"):
        with pytest.raises(ConfigError, match="codec: Own keeps no bytes that could be compressed or encrypted"):
            SessionManager(Own(), SECRET, codec=codec)


def test_message_pack_keeps_its_types_in_a_store_of_your_own() -> None:
    visitor = Visitor(SessionManager(PlainStore(), SECRET, codec="msgpack"))
    with visitor.request() as session:
        session["icon"] = b"PNG"
    with visitor.request() as session:
        assert session["icon"] == b"PNG"


def test_redis_stores_take_any_codec() -> None:
    codec = Encrypted(NEW)
    assert RedisSessionStore(codec=codec).codec is codec
    assert repr(RedisSessionStore(codec="msgpack+zlib").codec) == "Compressed(MessagePackCodec(), 'zlib')"


# --- names ---


def test_codecs_are_put_together_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_KEYS", f"{NEW.hex()}, {OLD.hex()}\n")
    wanted = {
        "msgpack": "MessagePackCodec()",
        "json+zlib": "Compressed(JSONCodec(), 'zlib')",
        "json-tagged+encrypt:SHOP_KEYS": "Encrypted(<2 keys>, TaggedJSONCodec())",
        "msgpack+zstd+encrypt:SHOP_KEYS": "Encrypted(<2 keys>, Compressed(MessagePackCodec(), 'zstd'))",
    }
    for name, made in wanted.items():
        assert repr(make_codec(name)) == made
        for text in (name, name.replace("+", "%2B").replace(":", "%3A")):
            assert repr(open_store(f"memory://?codec={text}").codec) == made
    assert read(make_codec("json+encrypt:SHOP_KEYS"), write(Encrypted(NEW), DATA)) == DATA


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("msgpak", "there is no 'msgpak'; did you mean 'msgpack'?"),
        ("zlib", "there is no 'zlib'"),
        ("json+zstandard", "after a + comes zlib, zstd, encrypt:NAME, and not what is there; did you mean 'zstd'?"),
        ("json+encrypt", "after a + comes .*; did you mean 'encrypt:NAME'"),
        ("json+encrypt=c2VjcmV0", "after a + comes"),
        ("json+", "after a + comes"),
        ("json+zlib+zstd", "compression comes once, and before encryption"),
        ("json+encrypt:SHOP_KEYS+zlib", "compression comes once, and before encryption"),
        ("json+encrypt:SHOP_KEYS+encrypt:SHOP_KEYS", "encryption comes once"),
        ("json+encrypt:NO_c2VjcmV0", "the environment variable that is named after `encrypt:` holds no keys"),
        ("json+encrypt:", "holds no keys"),
        ("json+encrypt:EMPTY", "holds no keys"),
        ("json+encrypt:WEAK", "key 2 of 2 is no text of 32 bytes"),
    ],
)
def test_a_name_that_cannot_be_is_one_clear_line(monkeypatch: pytest.MonkeyPatch, name: str, message: str) -> None:
    monkeypatch.setenv("SHOP_KEYS", NEW.hex())
    monkeypatch.setenv("EMPTY", " ,\n")
    monkeypatch.setenv("WEAK", f"{NEW.hex()},c2VjcmV0")
    for call in (make_codec, lambda text: open_store(f"memory://?codec={text}")):
        with pytest.raises(ConfigError, match=message.replace("+", r"\+")) as caught:
            call(name)
        assert "\n" not in str(caught.value)
        assert "c2VjcmV0" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "gzip"}, "compression is by zlib or zstd, not 'gzip'"),
        ({"above": -1}, "above= is a number of bytes from 0, not -1"),
        ({"above": True}, "above= is a number of bytes"),
        ({"inner": "jsn"}, "there is no 'jsn'"),
        ({"inner": Encrypted(NEW)}, "before encryption"),
    ],
)
def test_compression_that_cannot_be_is_one_clear_line(options: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Compressed(**options)


@pytest.mark.parametrize("option", ["accept_plain", "write_plain"])
def test_whether_plain_records_are_read_or_written_is_no_text(option: str) -> None:
    with pytest.raises(ConfigError, match=f"{option} must be True or False, not str"):
        Encrypted(NEW, **{option: "no"})  # type: ignore[arg-type]


def test_workers_that_learn_of_encryption_one_after_the_other_read_each_other(
    open_with: Callable[..., Visitor], backend: Driver, events: list[str]
) -> None:
    steps: list[Any] = [
        "json",
        Encrypted(NEW, write_plain=True),
        Encrypted(NEW, accept_plain=True),
        Encrypted(NEW, write_plain=True),  # and back
        "json",
    ]
    visitor = open_with(steps[0])
    with visitor.request() as session:
        session.set({"n": 0, "user": "ada"})
    for number, pair in enumerate(pairwise(steps)):
        for turn in (0, 1, 0, 1):  # while a step is under way, requests come to workers of both
            visitor = open_with(pair[turn], visitor)
            with visitor.request() as session:
                assert session["user"] == "ada"
                session["n"] = [number, turn]
    assert "other_codec" not in events
