"""Typed data: what does not fit is refused where it is put in, and never reaches a handler when it is read."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic, NotRequired, TypedDict, TypeVar

import msgspec
import pydantic
import pytest

from session_kit import ConfigError, SessionError, SessionManager
from session_kit.codec import JSONCodec
from session_kit.draft import Edit
from session_kit.schema import Schema, TypedDraft
from session_kit.testing import CountingDriver, Visitor

Manage = Callable[..., SessionManager]
WHEN = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


class StructCart(msgspec.Struct):
    items: list[str] = []
    visits: int = 0
    since: datetime | None = None


@dataclass
class DataclassCart:
    items: list[str] = dataclasses.field(default_factory=list)
    visits: int = 0
    since: datetime | None = None


class PydanticCart(pydantic.BaseModel):
    items: list[str] = []
    visits: int = 0
    since: datetime | None = None


class DictCart(TypedDict):
    items: NotRequired[list[str]]
    visits: NotRequired[int]
    since: NotRequired[datetime]


@pytest.fixture(params=[StructCart, DataclassCart, PydanticCart])
def cart_type(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def shopper(make_manager: Manage, cart_type: Any) -> Visitor:
    return Visitor(make_manager(data_type=cart_type))


def test_a_new_session_is_made_of_the_defaults_and_not_stored(
    shopper: Visitor, cart_type: Any, driver: CountingDriver
) -> None:
    with shopper.request() as session:
        assert session.data == cart_type()
    assert shopper.cookie is None
    assert driver.calls == []


def test_the_type_comes_back(shopper: Visitor, cart_type: Any) -> None:
    with shopper.request() as session:
        session.update(items=["apple"], since=WHEN)
    with shopper.request() as session:
        assert type(session.data) is cart_type
        assert session.data == cart_type(items=["apple"], since=WHEN)
        assert session["since"] == WHEN
        with pytest.raises(KeyError):
            session["nothing"]


@pytest.mark.parametrize("name", ["__class__", "__init__", "__dict__", "model_config", "copy", "__struct_fields__"])
def test_a_method_of_the_type_is_no_value_of_the_session(shopper: Visitor, name: str) -> None:
    with shopper.request() as session:
        session.update(visits=1)
        assert session.get(name) is None
        with pytest.raises(KeyError):
            session[name]


def test_a_default_is_found_by_its_key_too(shopper: Visitor) -> None:
    with shopper.request() as session:
        assert (session["visits"], session.get("visits", 7), session.get("nothing", 7)) == (0, 0, 7)


def test_a_change_inside_the_value_is_saved(shopper: Visitor) -> None:
    with shopper.request() as session:
        session.data.items.append("apple")
        session.data.visits += 1
    with shopper.request() as session:
        assert (session.data.items, session.data.visits) == (["apple"], 1)
        session.data.items.append("pear")
        session["visits"] = 7
        assert session.data.items == ["apple", "pear"]


def test_an_untouched_value_is_not_written(shopper: Visitor, driver: CountingDriver) -> None:
    with shopper.request() as session:
        session.update(visits=1)
    driver.reset()
    with shopper.request() as session:
        assert session.data.visits == 1
    assert "set" not in str(driver.calls)


@pytest.mark.parametrize("value", ["many", None, 1.5])
def test_what_does_not_fit_is_refused_and_changes_nothing(shopper: Visitor, value: object) -> None:
    with shopper.request() as session:
        session["visits"] = 1
        session.data.items.append("apple")
        with pytest.raises(SessionError, match="visits"):
            session["visits"] = value
        with pytest.raises(SessionError, match="visits"):
            session.update(lambda cart: {"visits": value, "items": []})
        with pytest.raises(SessionError, match="visits"):
            session.set({"visits": value})
        assert (session.data.visits, session.data.items) == (1, ["apple"])
    with shopper.request() as session:
        assert (session.data.visits, session.data.items) == (1, ["apple"])


def test_the_line_that_refuses_says_where_and_not_what(shopper: Visitor) -> None:
    with shopper.request() as session, pytest.raises(SessionError) as error:
        session.update(items=["apple", {"card": "4111-1111"}])
    assert "items" in str(error.value)
    assert "4111" not in str(error.value)


def test_a_whole_value_can_be_set_and_returned_by_an_updater(shopper: Visitor, cart_type: Any) -> None:
    def count(cart: Any) -> Any:
        cart.visits += 1
        return cart

    with shopper.request() as session:
        session.set(cart_type(items=["apple"], visits=1))
        session.update(count)
        with pytest.raises(SessionError, match="an updater must return"):
            session.update(lambda cart: 3)
    with shopper.request() as session:
        assert session.data == cart_type(items=["apple"], visits=2)


def test_nothing_is_lost_between_two_requests(shopper: Visitor, cart_type: Any) -> None:
    def count(cart: Any) -> Any:
        cart.visits += 1
        return cart

    with shopper.request() as session:
        session.update(visits=0)
    with shopper.request() as slow:
        slow.data.items.append("apple")
        slow.update(count)
        with shopper.request() as fast:
            fast.data.items.append("pear")
            fast.update(count)
            fast["since"] = WHEN
    with shopper.request() as session:
        assert session.data == cart_type(items=["pear", "apple"], visits=2, since=WHEN)


def test_a_typed_dict_is_checked_too(make_manager: Manage) -> None:
    visitor = Visitor(make_manager(data_type=DictCart))
    with visitor.request() as session:
        session["items"] = ["apple"]
        session["since"] = WHEN
        with pytest.raises(SessionError, match="visits"):
            session["visits"] = "many"
        session.data["items"].append("pear")
    with visitor.request() as session:
        assert session.data == {"items": ["apple", "pear"], "since": WHEN}
        assert "visits" not in session


# --- one value, in the hands of the handler ---


def one_of(kind: Any, **values: Any) -> Any:
    """A value of any kind of type."""
    return kind(**values)


def part(data: Any, name: str) -> Any:
    return data[name] if isinstance(data, dict) else getattr(data, name)


@pytest.fixture(params=[StructCart, DataclassCart, PydanticCart, DictCart])
def any_kind(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.mark.parametrize("generated", [False, True])
def test_clear_is_a_logout_also_for_a_request_that_overlaps(
    make_manager: Manage, any_kind: Any, generated: bool, events: list[str]
) -> None:
    numbers = iter(range(100))
    generate = (lambda: one_of(any_kind, items=[], visits=next(numbers))) if generated else None
    visitor = Visitor(make_manager(data_type=any_kind, generate=generate))
    with visitor.request() as session:
        session.update(items=["apple"], visits=3)
    with visitor.request() as slow:
        with visitor.request() as session:
            session.clear()
            assert session.data == (one_of(any_kind, items=[], visits=2) if generated else any_kind())
        assert visitor.cookie is None
        slow["items"] = ["secret"]
    assert "destroyed" in events
    with visitor.request() as session:
        assert session.is_new


def test_what_is_set_after_clear_is_kept_under_a_new_id(shopper: Visitor, cart_type: Any) -> None:
    with shopper.request() as session:
        session.update(items=["apple"], visits=3)
    before = shopper.cookie
    with shopper.request() as session:
        session.clear()
        session.data.visits = 1
    assert shopper.cookie not in (before, None)
    with shopper.request() as session:
        assert session.data == cart_type(visits=1)


@pytest.mark.parametrize("value", ["many", None, 1.5])
def test_a_change_in_place_that_does_not_fit_is_refused_and_nothing_is_lost(shopper: Visitor, value: Any) -> None:
    with shopper.request() as session:
        session.update(items=["apple"], visits=1)
    with shopper.request() as session:
        session.data.visits = value
        with pytest.raises(SessionError, match="visits"):
            session.save()
        session.reload()
    with shopper.request() as session:
        assert (session.data.items, session.data.visits) == (["apple"], 1)


class Bounded(pydantic.BaseModel):
    quantity: int = pydantic.Field(1, ge=0)


class Nested(msgspec.Struct):
    line: Bounded = msgspec.field(default_factory=lambda: Bounded())
    visits: int = 0


def test_what_only_the_model_inside_refuses_is_refused_in_place_too(make_manager: Manage) -> None:
    visitor = Visitor(make_manager(data_type=Nested))
    with visitor.request() as session:
        session["visits"] = 1
    with visitor.request() as session:
        session.data.line.quantity = -1
        with pytest.raises(SessionError, match="refused"):
            session.save()
        session.reload()
        assert session.data.line.quantity == 1


def test_a_key_that_the_type_does_not_know_is_kept_and_found(make_manager: Manage, any_kind: Any) -> None:
    visitor = Visitor(make_manager(data_type=any_kind))
    with visitor.request() as session:
        session["_user_id"] = "7"
        session["queue"] = ["a"]
        with pytest.raises(SessionError, match="thing"):
            session["thing"] = object()  # nothing would bring it back
    with visitor.request() as session:
        assert (session["_user_id"], session.get("_user_id")) == ("7", "7")
        session["queue"].append("b")
        assert dict(session) == {"_user_id": "7", "queue": ["a", "b"]}
        session.data  # noqa: B018  # its value is made, and knows nothing of them
        session.flash("hello")
    with visitor.request() as session:
        assert session["queue"] == ["a", "b"]
        assert session.pop("_user_id") == "7"
        assert [each.message for each in session.flashes()] == ["hello"]


def test_setdefault_and_pop_see_what_was_changed_in_place_and_what_is_there_by_default(shopper: Visitor) -> None:
    with shopper.request() as session:
        assert session.pop("items", None) == []
        assert session.setdefault("visits", 7) == 0
        session.data.items.append("apple")
        session.setdefault("items", []).append("pear")
        with pytest.raises(KeyError):
            del session["nothing"]
    with shopper.request() as session:
        assert session.data.items == ["apple", "pear"]
        session.data.items.append("fig")
        assert session.pop("items") == ["apple", "pear", "fig"]
        assert session.data.items == []


class Sparse(msgspec.Struct, omit_defaults=True):
    items: list[str] = []
    prices: dict[str, int] = {}
    visits: int = 0


class SparseDict(TypedDict, total=False):
    items: list[str]
    prices: dict[str, int]
    visits: int


@pytest.mark.parametrize("kind", [Sparse, SparseDict])
def test_two_that_add_to_what_is_not_stored_while_it_is_empty_keep_both(make_manager: Manage, kind: Any) -> None:
    visitor = Visitor(make_manager(data_type=kind))

    def add(session: Any, name: str) -> None:
        if kind is SparseDict:
            session.data.setdefault("items", [])
            session.data.setdefault("prices", {})
        part(session.data, "items").append(name)
        part(session.data, "prices")[name] = 1

    with visitor.request() as session:
        session["visits"] = 1
    with visitor.request() as slow:
        add(slow, "apple")
        with visitor.request() as fast:
            add(fast, "pear")
    with visitor.request() as session:
        assert session.data == one_of(kind, items=["pear", "apple"], prices={"pear": 1, "apple": 1}, visits=1)
    if kind is SparseDict:
        return
    with visitor.request() as slow:
        slow.data.prices.clear()
        with visitor.request() as fast:
            fast.data.prices["fig"] = 2
    with visitor.request() as session:
        assert session.data.prices == {"fig": 2}


def test_the_value_in_the_hands_of_the_handler_stays_that_of_the_session(make_manager: Manage, any_kind: Any) -> None:
    visitor = Visitor(make_manager(data_type=any_kind))
    with visitor.request() as session:
        session.update(items=[], visits=1)
    with visitor.request() as slow:
        data = slow.data
        part(data, "items").append("apple")
        with visitor.request() as fast:
            fast["visits"] = 5
        slow.save()  # merges
        assert part(data, "visits") == 5
        slow["since"] = WHEN
        assert part(data, "since") == WHEN
        part(data, "items").append("pear")
        assert slow.data is data
    with visitor.request() as session:
        assert session.data == one_of(any_kind, items=["apple", "pear"], visits=5, since=WHEN)


@dataclass
class Tagged:
    tags: set[str] = dataclasses.field(default_factory=set)
    numbers: frozenset[int] = frozenset()
    visits: int = 0


def test_two_that_change_one_set_keep_both_in_whatever_order_it_is_stored(make_manager: Manage) -> None:
    visitor = Visitor(make_manager(data_type=Tagged))
    with visitor.request() as session:
        session.data.tags = {"a", "b", "c", "d"}
        session.data.visits = 1
    with visitor.request() as slow:
        slow.data.tags |= {f"slow {number}" for number in range(10)}
        slow.data.tags -= {"a", "b"}
        slow.data.numbers |= {1}
        with visitor.request() as fast:
            fast.data.tags |= {f"fast {number}" for number in range(10)}
            fast.data.tags -= {"b", "c"}
            fast.data.numbers |= {2}
    with visitor.request() as session:
        new = {f"{who} {number}" for who in ("slow", "fast") for number in range(10)}
        assert session.data == Tagged({"d", *new}, frozenset({1, 2}), 1)


@dataclass(frozen=True)
class Frozen:
    visits: int = 0
    items: tuple[str, ...] = ()


def test_a_value_that_cannot_be_changed_is_replaced(make_manager: Manage) -> None:
    visitor = Visitor(make_manager(data_type=Frozen))
    with visitor.request() as session:
        before = session.data
        session["visits"] = 1
        assert (before.visits, session.data.visits) == (0, 1)
        session.update(lambda cart: Frozen(cart.visits + 1, ("apple",)))
    with visitor.request() as session:
        assert session.data == Frozen(2, ("apple",))


def test_an_updater_that_returns_nothing_is_told_so(make_manager: Manage, any_kind: Any) -> None:
    visitor = Visitor(make_manager(data_type=any_kind))
    with visitor.request() as session, pytest.raises(SessionError, match=r"an updater must return a .*, not NoneType"):
        session.update(lambda data: None)  # type: ignore[arg-type, return-value]


T = TypeVar("T")


@dataclass
class Box(Generic[T]):
    items: list[T] = dataclasses.field(default_factory=list)


def test_a_generic_type_takes_an_updater(make_manager: Manage) -> None:
    visitor = Visitor(make_manager(data_type=Box[int]))
    with visitor.request() as session:
        session.update(lambda box: Box([*box.items, 1]))
    with visitor.request() as session:
        assert session.data == Box([1])


class Icon(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    icon: bytes = b""
    icons: list[bytes] = []

    @pydantic.computed_field
    def number(self) -> int:
        return len(self.icons)


def test_bytes_of_a_pydantic_model_come_back_however_they_are_put_in(make_manager: Manage) -> None:
    visitor = Visitor(make_manager(data_type=Icon))
    with visitor.request() as session:
        session.set({"icon": b"PNG0"})
        assert session.data.icon == b"PNG0"
        session["icon"] = b"PNG1"
        session.update(lambda data: {"icons": [b"PNG2"]})
    with visitor.request() as session:
        assert session.data == Icon(icon=b"PNG1", icons=[b"PNG2"])
        session.data.icons.append(b"PNG3")
    with visitor.request() as session:
        assert session.data.icons == [b"PNG2", b"PNG3"]
        with pytest.raises(SessionError, match="icon"):
            session["icon"] = b"\xff"


# --- keys, depth, and a write under way ---


class AnyCart(TypedDict):
    items: NotRequired[list[str]]
    tree: NotRequired[Any]
    user: NotRequired[str]


def any_cart(**data: Any) -> TypedDraft:
    schema = Schema(AnyCart, JSONCodec())
    return TypedDraft(schema, schema.encode(data))


class Sly(str):
    def __eq__(self, other: object) -> bool:
        return False

    def __hash__(self) -> int:
        return 7


@pytest.mark.parametrize(
    "put_in",
    [
        lambda draft, key: draft.put(key, 1),
        lambda draft, key: draft.put_all({key: 1}),
        lambda draft, key: draft.default(key, 1),
        lambda draft, key: draft.apply(lambda data: {key: 1}),
        lambda draft, key: draft.replace({key: 1}),
    ],
)
@pytest.mark.parametrize("key", ["\ud800", Sly("\ud800"), "$", Sly("$"), 5])
def test_a_key_that_cannot_be_stored_is_refused(put_in: Callable[[TypedDraft, Any], None], key: Any) -> None:
    draft = any_cart(items=["apple"])
    with pytest.raises(SessionError):
        put_in(draft, key)
    assert draft.data == {"items": ["apple"]}
    assert not draft.changed


def nested(depth: int) -> Any:
    value: Any = "]"
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("depth", [101, 5000])
def test_what_is_nested_too_deep_is_refused_wherever_it_is_put_in(depth: int) -> None:
    draft = any_cart(tree=nested(100))
    for put_in in (
        lambda: draft.put("tree", nested(depth)),
        lambda: draft.apply(lambda data: {"tree": nested(depth)}),
        lambda: draft.replace({"tree": nested(depth)}),
    ):
        with pytest.raises(SessionError, match="nested deeper than 100"):
            put_in()
    assert not draft.changed
    draft.data["tree"] = nested(depth)
    with pytest.raises(SessionError, match="nested deeper than 100"):
        draft.detect_changes()


def test_a_deep_record_of_another_program_can_be_read_and_changed_elsewhere() -> None:
    schema = Schema(AnyCart, JSONCodec())
    draft = TypedDraft(schema, schema.codec.unpack(b'{"tree":' + b"[" * 150 + b"]" * 150 + b',"items":[]}'))
    draft.data["items"].append("apple")
    draft.detect_changes()
    assert [type(change) for change in draft.log] == [Edit]


def test_what_came_after_a_write_of_typed_data_began_is_neither_in_it_nor_lost() -> None:
    draft = any_cart(items=["apple"])
    draft.data["items"].append("pear")
    draft.detect_changes()
    fields, mark = draft.freeze(), len(draft.log)
    written = dict(fields)
    draft.data["items"].append("fig")
    draft.put("user", "ada")
    assert draft.gained(frozenset({"user"}))
    draft.saved(mark, fields)
    assert fields == written
    assert draft.gained(frozenset({"user"}))
    draft.rebase(any_cart(items=["apple", "pear", "kiwi"]).fields)
    assert draft.data == {"items": ["apple", "pear", "kiwi", "fig"], "user": "ada"}


# --- records that do not fit ---


@pytest.fixture
def old_visitor(make_manager: Manage) -> Visitor:
    """A visitor whose record was written before there was a type."""
    visitor = Visitor(make_manager())
    with visitor.request() as session:
        session.update(items="apple,pear", theme="dark")
    return visitor


def test_a_record_that_does_not_fit_is_a_fresh_session_and_stays(
    old_visitor: Visitor, make_manager: Manage, cart_type: Any, events: list[str]
) -> None:
    new = Visitor(make_manager(data_type=cart_type))
    with new.request(old_visitor.cookie) as session:
        assert session.is_new
        assert session.data == cart_type()
    assert "misfit" in events
    with old_visitor.request() as session:
        assert session["items"] == "apple,pear"


@pytest.mark.needs("swap")
def test_an_upgrade_makes_it_fit_and_is_stored_once(
    old_visitor: Visitor, make_manager: Manage, cart_type: Any, events: list[str]
) -> None:
    calls: list[dict[str, Any]] = []

    def upgrade(data: dict[str, Any]) -> Any:
        calls.append(data)
        return cart_type(items=data["items"].split(","))

    new = Visitor(make_manager(data_type=cart_type, upgrade=upgrade))
    new.cookie = old_visitor.cookie
    for _ in range(2):
        with new.request() as session:
            assert session.data.items == ["apple", "pear"]
    assert calls == [{"items": "apple,pear", "theme": "dark"}]
    assert "misfit" not in events


def test_two_requests_that_upgrade_at_once_lose_nothing(
    old_visitor: Visitor, make_manager: Manage, cart_type: Any
) -> None:
    new = Visitor(make_manager(data_type=cart_type, upgrade=lambda data: {"items": data["items"].split(",")}))
    new.cookie = old_visitor.cookie
    with new.request() as slow:
        slow.update(visits=3)
        with new.request() as fast:
            fast.data.items.append("fig")
    with new.request() as session:
        assert session.data == cart_type(items=["apple", "pear", "fig"], visits=3)


@pytest.mark.parametrize("fault", ["raises", "returns nothing", "returns what does not fit", "returns no data"])
def test_an_upgrade_that_fails_is_no_500_and_leaves_the_record_alone(
    old_visitor: Visitor,
    make_manager: Manage,
    cart_type: Any,
    fault: str,
    events: list[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    def upgrade(data: dict[str, Any]) -> Any:
        if fault == "raises":
            raise KeyError(data["items"])
        return {"returns nothing": None, "returns what does not fit": {"items": 3}}.get(fault, object())

    new = Visitor(make_manager(data_type=cart_type, upgrade=upgrade))
    with new.request(old_visitor.cookie) as session:
        assert session.data == cart_type()
    assert "misfit" in events
    assert "apple" not in caplog.text
    with old_visitor.request() as session:
        assert session["items"] == "apple,pear"


# --- settings ---


class Required(msgspec.Struct):
    user: str


def test_impossible_types_are_refused_at_start(make_manager: Manage) -> None:
    with pytest.raises(ConfigError, match="a new Required cannot be made"):
        make_manager(data_type=Required)
    with pytest.raises(ConfigError, match="a new list cannot be made"):
        make_manager(data_type=list[int])
    with pytest.raises(ConfigError, match="upgrade needs data_type"):
        make_manager(upgrade=dict)


class Renamed(msgspec.Struct, rename="camel"):
    user_id: str = ""


class Aliased(pydantic.BaseModel):
    user: str = pydantic.Field("", alias="usr")


class ByName(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(populate_by_name=True)
    user: str = pydantic.Field("", alias="usr")


def test_a_field_that_is_stored_by_another_name_is_refused_at_start(make_manager: Manage) -> None:
    with pytest.raises(ConfigError, match="data_type=Renamed stores 'user_id' as 'userId'"):
        make_manager(data_type=Renamed)  # a login would not be seen by rotate_on
    with pytest.raises(ConfigError, match="data_type=Aliased names 'user' by an alias"):
        make_manager(data_type=Aliased)  # nothing would come back
    visitor = Visitor(make_manager(data_type=ByName))
    with visitor.request() as session:
        session["user"] = "ada"
    with visitor.request() as session:
        assert session.data.user == "ada"


def test_generate_makes_what_has_no_defaults(make_manager: Manage) -> None:
    visitor = Visitor(make_manager(data_type=Required, generate=lambda: Required("guest")))
    with visitor.request() as session:
        assert session.data == Required("guest")
        with pytest.raises(SessionError, match="user"):
            del session["user"]
        session.data.user = "ada"
    with visitor.request() as session:
        assert session.data.user == "ada"
