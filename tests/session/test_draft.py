"""What a request changed is found, kept as changes, and merged with what others changed meanwhile."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from session_kit import SessionError, SessionManager
from session_kit.codec import JSONCodec
from session_kit.draft import Apply, Default, Draft, Drop, Edit, Put, Replace, merge
from session_kit.testing import Visitor
from tests.harness.sessions import SECRET, log_in

CODEC = JSONCodec()

KEYS = st.sampled_from("abcd")
LEAVES = st.none() | st.booleans() | st.integers(-2, 2) | st.floats(-2, 2) | st.text(max_size=3)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)
DATA = st.dictionaries(KEYS, VALUES, max_size=4)

Change = Callable[[Any], None]
"""Does the same to a draft (by `Hand`) and to a plain dict, which is what the draft must come out as."""


class Hand(MutableMapping[str, Any]):
    """A draft as a handler uses it: like a dict."""

    def __init__(self, draft: Draft) -> None:
        self.draft = draft

    def __getitem__(self, key: str) -> Any:
        return self.draft[key]

    def __setitem__(self, key: str, value: object) -> None:
        self.draft.put(key, value)

    def __delitem__(self, key: str) -> None:
        self.draft.drop(key)

    def __iter__(self) -> Iterator[str]:
        return iter(self.draft.fields)

    def __len__(self) -> int:
        return len(self.draft.fields)

    def setdefault(self, key: str, default: Any = None, /) -> Any:
        self.draft.default(key, default)
        return self.draft[key]

    def replace(self, data: Mapping[str, Any]) -> None:
        self.draft.replace(data)

    def apply(self, function: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> None:
        self.draft.apply(function)


class Model(dict[str, Any]):
    """The same by a plain dict."""

    def replace(self, data: Mapping[str, Any]) -> None:
        self.clear()
        self.update(data)

    def apply(self, function: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> None:
        self.update(function(self))


def put(key: str, value: Any) -> Change:
    return lambda hand: hand.__setitem__(key, copy.deepcopy(value))


def default(key: str, value: Any) -> Change:
    return lambda hand: hand.setdefault(key, copy.deepcopy(value))


def drop(key: str) -> Change:
    return lambda hand: hand.pop(key, None)


def replace(data: dict[str, Any]) -> Change:
    return lambda hand: hand.replace(copy.deepcopy(data))


def copy_key(source: str, target: str) -> Change:
    return lambda hand: hand.apply(lambda data: {target: copy.deepcopy(data.get(source)), "size": len(data)})


def meddle(key: str, value: Any) -> Change:
    """Run an updater that changes its data in place and does not say so."""

    def updater(data: Mapping[str, Any]) -> dict[str, Any]:
        if isinstance(data.get(key), list):
            data[key].append(value)
        return {}

    return lambda hand: hand.apply(updater)


def edit(key: str, name: str, value: Any) -> Change:
    """Change a value in place, at its top and one level below."""

    def change(hand: Any) -> None:
        held = hand.get(key)
        inner = held[-1] if isinstance(held, list) and held else held.get(name) if isinstance(held, dict) else None
        for item in (inner, held):
            if isinstance(item, list):
                item.append(copy.deepcopy(value))
            elif isinstance(item, dict):
                item[name] = copy.deepcopy(value)

    return change


def look(key: str) -> Change:
    return lambda hand: hand.get(key)


def changes(keys: st.SearchStrategy[str] = KEYS) -> st.SearchStrategy[Change]:
    """Changes of single keys."""
    return st.one_of(
        st.builds(put, keys, VALUES),
        st.builds(default, keys, VALUES),
        st.builds(drop, keys),
        st.builds(edit, keys, KEYS, VALUES),
        st.builds(meddle, keys, LEAVES),
        st.builds(look, keys),
    )


ANY_CHANGES = st.lists(changes() | st.builds(replace, DATA) | st.builds(copy_key, KEYS, KEYS), max_size=6)


def packed(data: Mapping[str, Any]) -> dict[str, Raw]:
    return {key: CODEC.dump(value, key) for key, value in data.items()}


def text(value: object) -> str:
    """A form in which 1, 1.0 and True differ, and the order of keys does not matter."""
    return json.dumps(value, sort_keys=True)


def shown(draft: Draft) -> str:
    return text({key: CODEC.load(raw, object) for key, raw in draft.fields.items()})


def draft_of(data: Mapping[str, Any], *changes: Change) -> Draft:
    """A draft of a record with `data`, changed and settled as before a save."""
    draft = Draft(CODEC, packed(data))
    for change in changes:
        change(Hand(draft))
    draft.detect_changes()
    return draft


# --- the change log ---


@given(DATA, ANY_CHANGES)
def test_the_record_comes_out_as_a_dict_would_and_its_log_says_the_same(data: Any, steps: list[Change]) -> None:
    draft, model = draft_of(data, *steps), Model(copy.deepcopy(data))
    for step in steps:
        step(model)
    assert shown(draft) == text(model)
    assert draft.changed == (text(model) != text(data))
    draft.rebase(packed(data))
    assert shown(draft) == text(model)


@given(DATA, ANY_CHANGES, DATA, DATA)
def test_being_overtaken_twice_ends_where_being_overtaken_once_does(
    data: Any, steps: list[Change], first: Any, second: Any
) -> None:
    twice, once = draft_of(data, *steps), draft_of(data, *steps)
    twice.rebase(packed(first))
    twice.rebase(packed(second))
    once.rebase(packed(second))
    assert shown(twice) == shown(once)


@given(DATA, ANY_CHANGES, DATA)
def test_after_a_merge_the_handler_reads_what_was_merged_and_a_second_save_keeps_it(
    data: Any, steps: list[Change], newer: Any
) -> None:
    draft = draft_of(data, *steps)
    draft.rebase(packed(newer))
    merged = shown(draft)
    assert text({key: draft[key] for key in draft.fields}) == merged
    draft.detect_changes()
    assert shown(draft) == merged


def test_a_change_that_was_saved_is_not_made_again() -> None:
    def count(data: Mapping[str, Any]) -> dict[str, Any]:
        return {"visits": data["visits"] + 1}

    draft = draft_of({"visits": 1}, lambda hand: hand.apply(count))
    draft.saved()
    put("a", 1)(Hand(draft))
    draft.rebase(packed({"visits": 2}))
    assert shown(draft) == text({"visits": 2, "a": 1})


@given(DATA, ANY_CHANGES, DATA, ANY_CHANGES)
def test_a_replay_changes_neither_the_newer_record_nor_the_log(
    data: Any, steps: list[Change], newer: Any, later: list[Change]
) -> None:
    draft = draft_of(data, *steps)
    base, fields = draft.stored, packed(newer)
    log, before = copy.copy(draft.log), [repr(change) for change in draft.log]
    draft.rebase(fields)
    for step in later:
        step(Hand(draft))
    draft.detect_changes()
    assert base == packed(data)
    assert fields == packed(newer)
    assert [repr(change) for change in log] == before


@given(
    DATA,
    st.lists(changes(st.sampled_from("ab")), max_size=4),
    st.lists(changes(st.sampled_from("cd")), max_size=4),
)
def test_changes_of_different_keys_are_both_kept_whoever_is_first(
    data: Any, ours: list[Change], theirs: list[Change]
) -> None:
    slow, fast = draft_of(data, *ours), draft_of(data, *theirs)
    slow.rebase(fast.fields)
    both = shown(slow)
    slow, fast = draft_of(data, *ours), draft_of(data, *theirs)
    fast.rebase(slow.fields)
    assert both == shown(fast) == shown(draft_of(data, *ours, *theirs))


def test_an_updater_runs_again_on_the_newer_record() -> None:
    seen = []

    def count(data: Mapping[str, Any]) -> dict[str, Any]:
        seen.append(dict(data))
        return {"visits": data.get("visits", 0) + 1}

    draft = draft_of({"visits": 1}, lambda hand: hand.apply(count))
    draft.rebase(packed({"visits": 7, "theme": "dark"}))
    assert seen == [{"visits": 1}, {"visits": 7, "theme": "dark"}]
    assert shown(draft) == text({"visits": 8, "theme": "dark"})


def test_an_updater_sees_what_was_changed_in_place_before_it() -> None:
    def size(data: Mapping[str, Any]) -> dict[str, Any]:
        return {"size": len(data["cart"])}

    draft = draft_of({"cart": [1]}, lambda hand: hand["cart"].append(2), lambda hand: hand.apply(size))
    assert shown(draft) == text({"cart": [1, 2], "size": 2})
    draft.rebase(packed({"cart": [1, 3]}))
    assert shown(draft) == text({"cart": [1, 3, 2], "size": 3})


def test_an_updater_whose_result_cannot_be_stored_changes_nothing() -> None:
    draft = Draft(CODEC, packed({"a": 1}))
    with pytest.raises(SessionError, match="bad: a set"):
        draft.apply(lambda data: {"a": 2, "bad": {1}})
    assert shown(draft) == text({"a": 1})
    assert not draft.changed


def test_two_requests_that_begin_the_same_list_both_fill_it() -> None:
    visitor = log_in(Visitor(SessionManager("memory://", SECRET)))
    with visitor.request() as slow:
        slow.setdefault("cart", []).append(1)
        with visitor.request() as fast:
            fast.setdefault("cart", []).append(2)
    with visitor.request() as session:
        assert session["cart"] == [2, 1]


def test_a_deleted_key_that_is_gone_already_is_no_error() -> None:
    draft = draft_of({"a": 1, "b": 2}, drop("a"))
    draft.rebase(packed({"b": 3}))
    assert shown(draft) == text({"b": 3})
    assert draft.log == [Drop("a")]


def test_a_value_changed_in_place_outlives_the_deletion_of_its_key_by_another() -> None:
    draft = draft_of({"cart": [1], "seen": [1]}, lambda hand: hand["cart"].append(2), look("seen"))
    draft.rebase(packed({}))
    assert shown(draft) == text({"cart": [1, 2]})


def test_putting_keeps_the_keys_of_others_and_replacing_does_not() -> None:
    for change, expected in ((put("a", 2), {"a": 2, "new": 1}), (replace({"a": 2}), {"a": 2})):
        draft = draft_of({"a": 1}, change)
        draft.rebase(packed({"a": 1, "new": 1}))
        assert shown(draft) == text(expected)


def test_replacing_forgets_the_changes_before_it_and_keeps_those_after_it() -> None:
    draft = draft_of({"a": 1}, put("b", 2), replace({"c": [3]}), lambda hand: hand["c"].append(4), put("d", 5))
    assert [type(change) for change in draft.log] == [Replace, Put, Edit]
    draft.rebase(packed({"a": 9, "b": 9}))
    assert shown(draft) == text({"c": [3, 4], "d": 5})


# --- changes in place ---


@pytest.mark.parametrize(
    "change",
    [
        lambda value: value["list"].append(3),
        lambda value: value["list"].sort(reverse=True),
        lambda value: value["list"].clear(),
        lambda value: value["dict"].update(x=2),
        lambda value: value["dict"].pop("x"),
        lambda value: value["dict"]["deep"][0].append({}),
        lambda value: value["dict"].__setitem__("x", True),
        lambda value: value["dict"].__setitem__("x", 1.0),
        lambda value: value.clear(),
    ],
)
def test_each_change_in_place_is_found_and_survives_another_request(change: Callable[[Any], None]) -> None:
    value = {"list": [1, 2], "dict": {"x": 1, "deep": [[]]}}
    draft = draft_of({"value": value}, lambda hand: change(hand["value"]))
    change(value)
    assert draft.changed
    assert shown(draft) == text({"value": value})
    draft.rebase(packed({"value": {"list": [1, 2], "dict": {"x": 1, "deep": [[]]}}, "other": 1}))
    assert shown(draft) == text({"value": value, "other": 1})


@pytest.mark.parametrize(
    "take_in",
    [
        lambda hand, value: hand.__setitem__("a", value),
        lambda hand, value: hand.setdefault("a", value),
        lambda hand, value: hand.apply(lambda data: {"a": value}),
        lambda hand, value: hand.replace({"a": value}),
    ],
)
def test_an_object_that_was_taken_in_and_then_changed_is_found(take_in: Callable[[Hand, Any], None]) -> None:
    value = [1]
    draft = draft_of({}, lambda hand: take_in(hand, value), lambda hand: value.append(2))
    assert shown(draft) == text({"a": [1, 2]})


def test_an_object_under_two_keys_is_changed_under_both() -> None:
    shared = [1]
    draft = draft_of({}, lambda hand: hand.update(a=shared, b=shared), lambda hand: shared.append(2))
    assert shown(draft) == text({"a": [1, 2], "b": [1, 2]})


def test_a_change_in_place_of_a_value_that_was_replaced_or_deleted_is_nobodys() -> None:
    draft = Draft(CODEC, packed({"a": [1], "b": [1], "c": [1]}))
    held = [draft["a"], draft["b"], draft["c"]]
    draft.put("a", [2])
    draft.drop("b")
    for value in held:
        value.append(9)
    draft.detect_changes()
    assert shown(draft) == text({"a": [2], "c": [1, 9]})


def test_what_the_handler_holds_stays_the_value_after_a_merge_that_left_it_alone() -> None:
    draft = Draft(CODEC, packed({"cart": [1], "n": 0}))
    cart = draft["cart"]
    cart.append(2)
    draft.put("n", 1)
    draft.detect_changes()
    draft.rebase(packed({"cart": [1], "n": 0, "theme": "dark"}))
    draft.saved()
    cart.append(3)
    draft.detect_changes()
    assert shown(draft) == text({"cart": [1, 2, 3], "n": 1, "theme": "dark"})


def test_a_change_that_was_undone_writes_nothing() -> None:
    draft = draft_of(
        {"a": 1, "cart": [1]},
        put("a", 2),
        put("a", 1),
        put("b", 1),
        drop("b"),
        lambda hand: hand["cart"].append(2),
        lambda hand: hand["cart"].pop(),
    )
    assert not draft.changed


# --- a write that is under way while the handler goes on ---


@given(DATA, ANY_CHANGES, ANY_CHANGES, DATA)
def test_what_came_after_a_write_began_is_neither_in_it_nor_lost(
    data: Any, before: list[Change], after: list[Change], newer: Any
) -> None:
    draft = draft_of(data, *before)
    fields, mark = draft.freeze(), len(draft.log)
    written = copy.deepcopy(fields)
    for step in after:
        step(Hand(draft))
    draft.detect_changes()
    end = shown(draft)
    draft.saved(mark, fields)
    assert fields == written
    assert draft.stored is fields
    assert shown(draft) == end
    draft.detect_changes()
    draft.rebase(fields)
    assert shown(draft) == end
    assert fields == written


@given(DATA, ANY_CHANGES, ANY_CHANGES, DATA)
def test_a_write_that_failed_leaves_all_changes_to_be_made_again(
    data: Any, before: list[Change], after: list[Change], newer: Any
) -> None:
    failed, never = draft_of(data, *before), draft_of(data, *before)
    failed.freeze()
    for draft in (failed, never):
        for step in after:
            step(Hand(draft))
        draft.detect_changes()
        draft.rebase(packed(newer))
    assert shown(failed) == shown(never)


def test_a_replacement_during_a_write_outlives_it() -> None:
    draft = draft_of({"a": 1}, put("b", 2), put("c", 3))
    fields, mark = draft.freeze(), len(draft.log)
    for number in range(5):
        replace({"d": number})(Hand(draft))
    assert len(draft.log) == 3
    draft.saved(mark, fields)
    assert draft.log == [Replace(packed({"d": 4}))]
    assert draft.changed
    draft.rebase(packed({"a": 1, "other": 1}))
    assert shown(draft) == text({"d": 4})


def test_a_replacement_forgets_the_updaters_before_it_also_when_a_write_failed() -> None:
    seen = []
    draft = draft_of({"a": 1}, lambda hand: hand.apply(lambda data: seen.append(1) or {"b": 1}))
    draft.freeze()
    draft.replace({"c": 1})
    draft.rebase(packed({"a": 2}))
    assert seen == [1]
    assert shown(draft) == text({"c": 1})


def test_after_a_save_nothing_is_changed_and_the_next_change_leaves_what_was_saved_alone() -> None:
    draft = draft_of({"a": 1}, put("b", 2))
    draft.saved()
    saved = draft.stored
    assert not draft.changed
    assert draft.log == []
    draft.put("b", 3)
    draft.put_all({"c": 4})
    draft.drop("a")
    assert saved == packed({"a": 1, "b": 2})
    assert draft.changed
    draft.revert()
    draft.put("d", 5)
    assert saved == packed({"a": 1, "b": 2})
    assert shown(draft) == text({"a": 1, "b": 2, "d": 5})


def test_of_two_writes_that_began_the_older_takes_its_own_changes_alone_with_it() -> None:
    draft = draft_of({}, put("a", 1))
    fields, mark = draft.freeze(), len(draft.log)
    draft.put("b", 2)
    draft.freeze()
    draft.saved(mark, fields)
    assert draft.log == [Put(packed({"b": 2}))]


def test_after_a_write_that_failed_and_a_step_back_what_is_stored_is_left_alone() -> None:
    draft = draft_of({"a": 1}, put("b", 2))
    stored, fields = draft.stored, draft.freeze()
    draft.thaw()
    draft.revert()
    assert not draft.changed
    draft.put("c", 3)
    assert stored == packed({"a": 1})
    assert fields == packed({"a": 1, "b": 2})
    assert shown(draft) == text({"a": 1, "c": 3})


def test_a_step_back_during_a_write_leaves_what_the_write_holds_and_drops_the_rest() -> None:
    draft = draft_of({"a": 1}, put("b", 2))
    fields, mark = draft.freeze(), len(draft.log)
    draft.put("c", 3)
    draft.revert()
    assert shown(draft) == text({"a": 1, "b": 2})
    draft.saved(mark, fields)
    assert not draft.changed


@pytest.mark.parametrize(
    ("steps", "gained"),
    [
        ([], False),
        ([put("other", 2)], False),
        ([put("user", "eve")], True),
        ([put("user", "ada")], False),
        ([put("uid", None)], False),
        ([put("uid", "")], False),
        ([put("uid", False)], False),
        ([put("uid", 0)], True),
        ([put("user", None)], False),
        ([drop("user")], False),
        ([drop("user"), put("user", "eve")], True),
        ([replace({"theme": "dark"})], False),
        ([replace({"user": "eve"})], True),
        ([replace({"user": "ada"})], False),
        ([lambda hand: hand.apply(lambda data: {"uid": 1})], True),
        ([lambda hand: hand["roles"].append("admin")], True),
    ],
)
def test_a_login_is_a_key_that_appears_or_changes_and_a_logout_is_none(steps: list[Change], gained: bool) -> None:
    draft = draft_of({"user": "ada", "roles": []}, *steps)
    assert draft.gained(frozenset({"user", "uid", "roles"})) is gained
    assert not draft.gained(frozenset())
    draft.saved()
    assert not draft.gained(frozenset({"user", "uid", "roles"}))


# --- keys ---


class Sly(str):
    """Compares and hashes as it likes."""

    def __eq__(self, other: object) -> bool:
        return False

    def __ne__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 7

    def __str__(self) -> str:
        return "harmless"


ENTRIES: dict[str, Callable[[Draft, Any], object]] = {
    "put": lambda draft, key: draft.put(key, 1),
    "put_all": lambda draft, key: draft.put_all({"other": 1, key: 1}),
    "default": lambda draft, key: draft.default(key, 1),
    "updater": lambda draft, key: draft.apply(lambda data: {"other": 1, key: 1}),
    "replace": lambda draft, key: draft.replace({"other": 1, key: 1}),
}


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("\ud800", r"the session key '\\ud800' holds a lone surrogate"),
        (Sly("\ud800"), "holds a lone surrogate"),
        ("$", "is reserved"),
        (Sly("$"), "is reserved"),
        (5, "must be a str, not int"),
        (None, "must be a str, not NoneType"),
    ],
)
def test_a_key_that_cannot_be_stored_is_refused_when_it_is_put_in(entry: str, key: Any, message: str) -> None:
    draft = Draft(CODEC, packed({"a": 1}))
    with pytest.raises(SessionError, match=message):
        ENTRIES[entry](draft, key)
    assert shown(draft) == text({"a": 1})
    assert draft.log == []


@pytest.mark.parametrize("entry", ENTRIES)
def test_a_key_of_a_type_of_its_own_becomes_a_plain_one(entry: str) -> None:
    draft = Draft(CODEC, packed({"a": 1}))
    ENTRIES[entry](draft, Sly("user"))
    draft.put("user", draft["user"] + 1)
    assert draft["user"] == draft[Sly("user")] == 2
    draft.rebase(packed({"b": 1}))
    for held in (draft.fields, draft.values, *(getattr(change, "fields", {}) for change in draft.log)):
        assert all(type(key) is str for key in held)
    draft.drop(Sly("user"))
    assert "user" not in draft.fields
    assert draft.log[-1] == Drop("user")
    assert isinstance(draft.log[0], (Put, Default, Apply, Replace))


def test_text_of_any_language_names_a_value() -> None:
    assert shown(draft_of({}, put("\u540d\U0001f36a", 1))) == text({"\u540d\U0001f36a": 1})


# --- what was not changed ---


@given(DATA, ANY_CHANGES)
def test_a_value_that_nobody_changed_is_not_encoded_again(data: Any, steps: list[Change]) -> None:
    spaced = CODEC.unpack(json.dumps(data, indent=1).encode())  # as no encoder of ours would write it
    draft = Draft(CODEC, spaced)
    for step in steps:
        step(Hand(draft))
    draft.detect_changes()
    touched = {change.key for change in draft.log if hasattr(change, "key")}
    if all(hasattr(change, "key") for change in draft.log):
        for key in data.keys() - touched:
            assert draft.fields[key] is spaced[key]


def test_reading_a_record_that_another_program_wrote_changes_nothing() -> None:
    draft = Draft(CODEC, CODEC.unpack(b'{"cart": [1,  2], "price": 1.50, "seen": {"b": 1, "a": 1}}'))
    assert (draft["cart"], draft["price"], draft["seen"]) == ([1, 2], 1.5, {"a": 1, "b": 1})
    draft.detect_changes()
    assert not draft.changed
    draft.put("n", 1)
    assert CODEC.pack(draft.fields) == b'{"cart":[1,  2],"price":1.50,"seen":{"b": 1, "a": 1},"n":1}'


def test_a_value_that_only_another_program_could_write_does_not_fail_as_long_as_it_is_left_alone() -> None:
    fields = CODEC.unpack(b'{"huge":[1e999,1],"cart":[1]}')
    draft = Draft(CODEC, fields)
    assert draft["huge"] == [float("inf"), 1]
    draft["cart"].append(2)
    draft.detect_changes()
    assert draft.fields["huge"] is fields["huge"]
    assert [type(change) for change in draft.log] == [Edit]
    draft["huge"][1] = True
    with pytest.raises(SessionError, match=r"huge\[0\]: inf has no form in JSON"):
        draft.detect_changes()
    draft["huge"][0] = 0
    draft.detect_changes()
    assert CODEC.pack(draft.fields) == b'{"huge":[0,true],"cart":[1,2]}'


def test_a_merge_with_what_only_another_program_could_write_does_not_fail() -> None:
    draft = draft_of({"cart": [1]}, lambda hand: hand["cart"].append(2))
    draft.rebase(CODEC.unpack(b'{"cart":[1,1e999]}'))
    assert shown(draft) == text({"cart": [1, 2]})


def test_a_value_that_was_nested_too_deep_in_place_is_refused_before_it_is_written() -> None:
    draft = Draft(CODEC, packed({"tree": []}))
    branch = draft["tree"]
    for _ in range(150):
        branch.append([])
        branch = branch[0]
    with pytest.raises(SessionError, match="tree: the value is nested deeper than 100"):
        draft.detect_changes()


# --- the merge of one value ---


@pytest.mark.parametrize(
    ("base", "ours", "theirs", "merged"),
    [
        # both changed the same leaf: ours
        (1, 2, 3, 2),
        ({"a": 1}, {"a": 2}, {"a": 3}, {"a": 2}),
        ({"a": {"b": 1}}, {"a": {"b": 2}}, {"a": {"b": 3, "c": 1}}, {"a": {"b": 2, "c": 1}}),
        ({}, {"a": 1}, {"a": 2}, {"a": 1}),
        ({"a": {"b": 1}}, {"a": 5}, {"a": {"b": 2}}, {"a": 5}),
        # one deleted what the other changed: ours
        ({"a": 1}, {}, {"a": 2}, {}),
        ({"a": 1}, {"a": 2}, {}, {"a": 2}),
        ({"a": 1}, {"a": 1}, {}, {}),
        # only one changed it: that one, however alike Python finds the two
        ({"a": 1}, {"a": True}, {"a": 1, "b": 1}, {"a": True, "b": 1}),
        ({"a": 1}, {"a": 1}, {"a": 1.0}, {"a": 1.0}),
        ([0], [False], [0, 1], [False, 1]),
        # lists: what either appended is kept; of two other changes ours decides
        ([1], [1, 2], [1, 3], [1, 3, 2]),
        ([1], [1, 2], [], [2]),
        ([1, 2], [2], [1, 2, 3], [2, 3]),
        ([1], [1], [3, 2], [3, 2]),
        ([1], [True, 2], [1, 3], [True, 2, 3]),
        ([1, 2, 3], [1, 3], [2, 3], [1, 3]),
    ],
)
def test_the_same_value_changed_twice_is_decided_as_documented(base: Any, ours: Any, theirs: Any, merged: Any) -> None:
    assert text(merge(base, ours, theirs)) == text(merged)


@given(VALUES, VALUES)
def test_where_only_one_side_changed_something_that_side_is_right(base: Any, changed: Any) -> None:
    assert text(merge(base, changed, base)) == text(changed)
    assert text(merge(base, base, changed)) == text(changed)


TREES = st.dictionaries(KEYS, st.dictionaries(KEYS, st.dictionaries(KEYS, LEAVES, max_size=3), max_size=3), max_size=3)
EDITS = st.dictionaries(st.tuples(KEYS, KEYS, KEYS), st.just("delete") | LEAVES, max_size=5)


def edited(tree: Any, edits: dict[tuple[str, str, str], Any]) -> Any:
    tree = copy.deepcopy(tree)
    for (one, two, three), value in edits.items():
        if value == "delete":
            tree.get(one, {}).get(two, {}).pop(three, None)
        else:
            tree.setdefault(one, {}).setdefault(two, {})[three] = value
    return tree


@given(TREES, EDITS, EDITS)
def test_nested_keys_that_one_side_left_alone_take_the_other_sides_value(tree: Any, ours: Any, theirs: Any) -> None:
    theirs = {path: value for path, value in theirs.items() if path not in ours}
    before = copy.deepcopy((tree, edited(tree, ours), edited(tree, theirs)))
    base, mine, yours = copy.deepcopy(before)
    assert leaves(merge(base, mine, yours)) == leaves(edited(edited(tree, theirs), ours))
    assert (base, mine, yours) == before


def leaves(tree: Any) -> set[str]:
    """Each path with its leaf. (Two sides that both make a new branch leave each other's leaves in it to chance.)"""
    return {
        f"{one}.{two}.{three}={value!r}"
        for one, branch in tree.items()
        for two, twig in branch.items()
        for three, value in twig.items()
    }
