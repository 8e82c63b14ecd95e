"""Typed data: what does not fit is refused where it is put in, and never reaches a handler when it is read."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NotRequired, TypedDict

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


def test_generate_makes_what_has_no_defaults(make_manager: Manage) -> None:
    visitor = Visitor(make_manager(data_type=Required, generate=lambda: Required("guest")))
    with visitor.request() as session:
        assert session.data == Required("guest")
        with pytest.raises(SessionError, match="user"):
            del session["user"]
        session.data.user = "ada"
    with visitor.request() as session:
        assert session.data.user == "ada"
