"""A record while a request edits it: what was loaded, what it is now, and the changes in between. No I/O.

The loaded values stay encoded until somebody asks for them. The same bytes are then the lazy decode, the proof that a
value was not changed in place, and the unchanged part of the next write. Changes are kept as changes, so that they can
be replayed on a newer record when another request was faster.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from typing import Any, Final

import msgspec
from msgspec import Raw

from session_kit.codec import IMMUTABLE, Codec
from session_kit.errors import SessionError
from session_kit.record import RESERVED

Updater = Callable[[Mapping[str, Any]], Mapping[str, Any] | None]


class Put(msgspec.Struct, frozen=True):
    """Keys were given values."""

    fields: dict[str, Raw]

    def replay(self, draft: Draft) -> None:
        for key, raw in self.fields.items():
            draft.store(key, raw)


class Default(msgspec.Struct, frozen=True):
    """Keys that were not there were given values."""

    fields: dict[str, Raw]

    def replay(self, draft: Draft) -> None:
        for key, raw in self.fields.items():
            if key not in draft.fields:
                draft.store(key, raw)


class Drop(msgspec.Struct, frozen=True):
    """A key was deleted."""

    key: str

    def replay(self, draft: Draft) -> None:
        draft.forget(self.key)


class Edit(msgspec.Struct, frozen=True):
    """A value was changed in place, from `base` to `ours`."""

    key: str
    base: Raw
    ours: Raw

    def replay(self, draft: Draft) -> None:
        theirs = draft.fields.get(self.key)
        if theirs is None:  # they deleted the key, knowingly or not of our change: the change is kept
            merged = self.ours
        else:
            values = (draft.codec.load(raw, object) for raw in (self.base, self.ours, theirs))
            try:
                merged = draft.codec.dump(merge(*values), self.key)
            except SessionError:  # theirs holds what only another program could write
                merged = self.ours
        draft.store(self.key, merged)


class EditSet(msgspec.Struct, frozen=True):
    """A set, which is stored as a list in any order, was changed in place from `base` to `ours`."""

    key: str
    base: Raw
    ours: Raw

    def replay(self, draft: Draft) -> None:
        base, ours, theirs = (
            draft.codec.load(raw, list) for raw in (self.base, self.ours, draft.fields.get(self.key, self.base))
        )
        merged = [item for item in theirs if item in ours or item not in base]
        merged += (item for item in ours if item not in base and item not in theirs)
        draft.store(self.key, draft.codec.dump(merged, self.key))


class Apply(msgspec.Struct, frozen=True):
    """An updater function was run; on a newer record it runs again."""

    function: Updater

    def replay(self, draft: Draft) -> None:
        draft.call(self.function)


class Replace(msgspec.Struct, frozen=True):
    """Everything was replaced."""

    fields: dict[str, Raw]

    def replay(self, draft: Draft) -> None:
        draft.fields = dict(self.fields)


class Take(msgspec.Struct, frozen=True):
    """Items were taken out of a list; with the last one the key goes."""

    key: str
    items: Raw

    def replay(self, draft: Draft) -> None:
        load, raw = draft.codec.load, draft.fields.get(self.key)
        left: Any = [] if raw is None else load(raw, object)
        if not isinstance(left, list):
            return
        taken: Any = load(self.items, object)
        for item in taken:
            if item in left:  # once for each: another may have put an equal one there
                left.remove(item)
        if left:
            draft.store(self.key, draft.codec.dump(left, self.key))
        else:
            draft.forget(self.key)


Change = Put | Default | Drop | Edit | EditSet | Apply | Replace | Take


class Draft:
    """The fields of one record under edit.

    codec: encodes and decodes the values.
    fields: key to encoded value, as loaded; never changed in place.

    Attributes:
        fields: what the record is now, changes in place apart (`detect_changes`).
        stored: what stands in the store, as far as we know.
        values: what was decoded or put in, may be in the hands of the application, and can be changed in place.
        log: the changes from `stored` to `fields`.
    """

    __slots__ = ("_frozen", "_held", "codec", "fields", "log", "stored", "values")

    def __init__(self, codec: Codec, fields: dict[str, Raw]) -> None:
        self.codec = codec
        self.stored = fields
        self.fields = fields
        self._frozen = fields  # somebody else has these too: the next change copies them
        self._held = 0  # so many entries of the log may be in a write that is under way
        self.values: dict[str, Any] = {}
        self.log: list[Change] = []

    # --- reading ---

    def __getitem__(self, key: str) -> Any:
        values = self.values
        if key in values:
            return values[key]
        if type(key) is not str:
            key = plain(key)
        value = self.codec.load(self.fields[key], object)
        if type(value) not in IMMUTABLE:
            values[key] = value
        return value

    def get(self, key: str, default: Any = None) -> Any:
        # Frameworks ask for keys of their own in each request, mostly in vain; this raises nothing inside.
        return self[key] if key in self.fields else default

    @property
    def changed(self) -> bool:
        """Whether the record would be written differently, changes in place apart (`detect_changes`)."""
        return self.fields is not self.stored and self.fields != self.stored

    @property
    def data(self) -> Any:
        """All of it, as the application sees it."""
        return DraftView(self)

    # --- changing ---

    def put_all(self, values: Mapping[str, object], change: type[Put | Default] = Put) -> None:
        """Set keys, all or none. `SessionError` if a key or a value cannot be stored."""
        dump, encoded, kept = self.codec.dump, {}, {}
        for key, value in values.items():
            if not (type(key) is str and key != RESERVED and key.isascii()):
                key = check_name(key)
            encoded[key] = dump(value, key)
            if type(value) not in IMMUTABLE:
                kept[key] = value
        if self.fields is self._frozen:
            self.fields = {**self.fields, **encoded}
        else:
            self.fields.update(encoded)
        if self.values or kept:
            self.values = {key: value for key, value in self.values.items() if key not in encoded} | kept
        self.log.append(change(encoded))

    def put(self, key: str, value: object) -> None:
        """Set one key. `SessionError` if the key or the value cannot be stored."""
        if not (type(key) is str and key != RESERVED and key.isascii()):
            key = check_name(key)
        raw = self.codec.dump(value, key)
        self.store(key, raw)
        if type(value) not in IMMUTABLE:
            self.values[key] = value
        self.log.append(Put({key: raw}))

    def default(self, key: str, value: object) -> None:
        """Set one key unless it is there. `SessionError` if the key or the value cannot be stored."""
        key = check_name(key)
        if key not in self.fields:
            self.put_all({key: value}, Default)

    def drop(self, key: str) -> None:
        """Delete one key. `KeyError` if it is not there."""
        key = plain(key)
        if key not in self.fields:
            raise KeyError(key)
        self.forget(key)
        self.log.append(Drop(key))

    def extend(self, key: str, item: object) -> None:
        """Put an item at the end of a list, which is made if there is none; others may do so at the same time.

        `SessionError` if the item cannot be stored, or something else than a list is there.
        """
        self.detect_changes()
        self.list_at(key)
        change = Edit(key, self.codec.dump([], key), self.codec.dump([item], key))
        change.replay(self)
        self.log.append(change)

    def take(self, key: str, wanted: Callable[[Any], bool]) -> list[Any]:
        """Take the wanted items out of a list and return them; what others put there at the same time stays.

        `SessionError` if something else than a list is there.
        """
        self.detect_changes()
        taken = [item for item in self.list_at(key) if wanted(item)]
        if taken:
            change = Take(key, self.codec.dump(taken, key))
            change.replay(self)
            self.log.append(change)
        return taken

    def list_at(self, key: str) -> list[Any]:
        """A copy of the list under a key, empty if there is none. `SessionError` if something else is there."""
        items = self.codec.load(self.fields[key], object) if key in self.fields else []
        if not isinstance(items, list):
            raise SessionError(f"a list is kept under the session key {key!r}, not a {type(items).__name__}")
        return items

    def apply(self, function: Updater) -> None:
        """Merge what `function` makes of the data."""
        self.detect_changes()
        self.call(function)
        self.log.append(Apply(function))

    def replace(self, data: Mapping[str, Any]) -> None:
        """Replace everything by `data`. `SessionError` if a key or a value cannot be stored."""
        values = {check_name(key): value for key, value in data.items()}
        self.take_over({key: self.codec.dump(value, key) for key, value in values.items()})
        self.values = {key: value for key, value in values.items() if type(value) not in IMMUTABLE}

    def detect_changes(self) -> bool:
        """Take the values that were changed in place into the record. True if it would be written differently."""
        if self.values:
            self._detect_edits()
        return self.fields is not self.stored and self.fields != self.stored

    def _detect_edits(self) -> None:
        for key, value in self.values.items():
            base = self.fields[key]
            if self.codec.same(value, base):
                continue
            loaded = self.codec.load(base, object)
            try:
                ours = self.codec.dump(value, key)
            except SessionError:
                if repr(value) == repr(loaded):  # as another program wrote it, such as 1e999, which is read as inf
                    continue
                raise
            # The bytes may differ by white space alone if another program wrote them.
            if not self.codec.same(loaded, ours):
                self.store(key, ours, keep_value=True)
                self.log.append(Edit(key, base, ours))

    # --- when others were faster, and afterwards ---

    def rebase(self, fields: dict[str, Raw]) -> None:
        """Start again from a newer record and replay the changes on it."""
        mine, before = self.fields, (self.stored, self.fields, self._frozen, self.values)
        values, self.values = self.values, {}
        self.stored = self.fields = self._frozen = fields
        last = max((at for at, change in enumerate(self.log) if type(change) is Replace), default=0)
        try:
            for change in self.log[last:]:
                change.replay(self)
            self.check()
        except BaseException:  # an updater's own, or what does not fit: nothing has happened
            self.stored, self.fields, self._frozen, self.values = before
            raise
        # What the handler holds in its hands stays the value in the record wherever it still says the same.
        self.values = {key: values[key] for key in values if self.fields.get(key) == mine[key]}

    def check(self) -> None:
        """Raise `SessionError` if the fields do not fit the type of the data."""

    def revert(self) -> None:
        """Forget all changes since the record was loaded or saved; what a write that is under way holds stays."""
        if not self._held:
            self._frozen = self.stored
        self.fields, self.values = self._frozen, {}
        del self.log[self._held :]

    def freeze(self) -> dict[str, Raw]:
        """Return the fields for a write that holds all of the log; no later change touches them."""
        self._held = len(self.log)
        fields = self._frozen = self.fields
        return fields

    def thaw(self) -> None:
        """A write has ended: no change is in its hands any more."""
        self._held = 0

    def saved(self, mark: int | None = None, fields: dict[str, Raw] | None = None) -> None:
        """A write has succeeded: the first `mark` changes of the log, and `fields`, now stand in the store.

        mark: default all of them.
        fields: what `freeze` returned for that write; default what the record is now.
        """
        self.stored = self.freeze() if fields is None else fields
        del self.log[: self._held if mark is None else mark]
        self._held = 0

    def forget_undone(self) -> None:
        """Forget changes that came to nothing and that no save writes: a WebSocket may make them for weeks."""
        said = len(self.log)
        if not self._held and not self.changed:
            del self.log[:said]  # not what another thread says meanwhile

    def gained(self, names: frozenset[str]) -> bool:
        """Whether a value under one of `names` has appeared or changed since the record was stored; not: has gone."""
        for change in self.log:
            if type(change) is not Put or not names.isdisjoint(change.fields):
                fields, stored = self.fields, self.stored
                return any(
                    fields[name] != stored.get(name) and self._somebody(fields[name])
                    for name in names.intersection(fields)
                )
        return False  # the usual case: other keys were set

    def knew(self, names: frozenset[str]) -> bool:
        """Whether a value stood under one of `names` when the record was stored."""
        return any(self._somebody(self.stored[name]) for name in names.intersection(self.stored))

    def _somebody(self, raw: Raw) -> bool:
        """Whether a value names somebody: an empty one says that nobody is logged in."""
        value = self.codec.load(raw, object)
        return value is not None and value is not False and value != ""

    # --- for the changes above ---

    def store(self, key: str, raw: Raw, *, keep_value: bool = False) -> None:
        if self.fields is self._frozen:
            self.fields = dict(self.fields)
        self.fields[key] = raw
        if not keep_value:
            self.values.pop(key, None)

    def forget(self, key: str) -> None:
        if self.fields is self._frozen:
            self.fields = dict(self.fields)
        self.fields.pop(key, None)
        self.values.pop(key, None)

    def take_over(self, fields: dict[str, Raw]) -> None:
        self.fields, self.values = fields, {}
        self.log[self._held :] = [Replace(dict(fields))]

    def call(self, function: Updater) -> None:
        """Run an updater on the data and merge what it returns."""
        result = function(DraftView(self))
        if not isinstance(result, Mapping):
            kind = type(result).__name__
            raise SessionError(f"an updater must return a mapping of the keys to change, not {kind}")
        # All are encoded before the first is stored: an updater whose result is refused has changed nothing.
        values = {check_name(key): value for key, value in result.items()}
        changes = {key: self.codec.dump(value, key) for key, value in values.items()}
        for key, raw in changes.items():
            if raw != self.fields.get(key):
                self.store(key, raw)
                if type(values[key]) not in IMMUTABLE:
                    self.values[key] = values[key]


class DictHabits(Mapping[str, Any]):
    """What people expect of a dict and a `Mapping` has not. Copies are plain dicts."""

    __slots__ = ()

    def copy(self) -> dict[str, Any]:
        """Return the data as a plain dict."""
        return dict(self)

    __copy__ = copy

    def __deepcopy__(self, memo: dict[int, Any]) -> dict[str, Any]:
        return deepcopy(self.copy(), memo)

    def __or__(self, other: Mapping[str, Any]) -> dict[str, Any]:
        return {**self, **other} if isinstance(other, Mapping) else NotImplemented

    def __ror__(self, other: Mapping[str, Any]) -> dict[str, Any]:
        return {**other, **self} if isinstance(other, Mapping) else NotImplemented

    def __reversed__(self) -> Iterator[str]:
        return reversed(list(self))


class DraftView(DictHabits):
    """The data of a draft, read-only."""

    __slots__ = ("draft",)

    def __init__(self, draft: Draft) -> None:
        self.draft = draft

    def __getitem__(self, key: str) -> Any:
        return self.draft[key]

    def get(self, key: str, default: Any = None) -> Any:
        return self.draft.get(key, default)

    def __contains__(self, key: object) -> bool:
        return key in self.draft.fields

    def __iter__(self) -> Iterator[str]:
        return iter(self.draft.fields)

    def __len__(self) -> int:
        return len(self.draft.fields)

    def __repr__(self) -> str:
        return f"<session data, {len(self)} keys>"


def plain(key: str) -> str:
    """The key as a `str` and nothing else: a subclass may compare and hash as it likes."""
    return str.__str__(key) if type(key) is not str and isinstance(key, str) else key


def check_name(key: object) -> str:
    """Return `key` as a plain `str` if it may name a value of a session, or raise `SessionError`."""
    if not isinstance(key, str):
        raise SessionError(f"a session key must be a str, not {type(key).__name__}")
    name = plain(key)
    if name == RESERVED:
        raise SessionError(f"the session key {RESERVED!r} is reserved for the library; use another name")
    if not name.isascii():
        try:
            name.encode()
        except UnicodeEncodeError:
            raise SessionError(f"the session key {name!a} holds a lone surrogate, which has no form in UTF-8") from None
    return name


MISSING: Final = object()
"""In a merge: the key is not there."""


def merge(base: Any, ours: Any, theirs: Any) -> Any:
    """Merge two changes of one JSON value: by key in objects; what either appended to a list is kept; else ours.

    >>> merge({"a": 1}, {"a": 1, "b": 2}, {"a": 1, "c": 3})
    {'a': 1, 'c': 3, 'b': 2}
    >>> merge([1], [1, 2], [1, 3])
    [1, 3, 2]
    >>> merge([1, 2], [2], [1, 2, 3])
    [2, 3]
    """
    if _same(ours, base):
        return theirs
    if isinstance(ours, dict) and isinstance(theirs, dict):
        old = base if isinstance(base, dict) else {}
        merged = {
            key: merge(old.get(key, MISSING), ours.get(key, MISSING), theirs.get(key, MISSING))
            for key in (theirs | ours)
        }
        return {key: value for key, value in merged.items() if value is not MISSING}
    if all(isinstance(value, list) for value in (base, ours, theirs)):
        for longer, other in ((ours, theirs), (theirs, ours)):
            if _same(longer[: len(base)], base):
                return other + longer[len(base) :]
    return ours


def _same(one: object, other: object) -> bool:
    """Whether both are the same in JSON, where 1, 1.0 and true are three values, and to their codec."""
    if one is MISSING or other is MISSING:
        return one is other
    try:
        same = msgspec.json.encode(one, order="sorted") == msgspec.json.encode(other, order="sorted")
    except TypeError:  # one of them has no form in JSON: a codec has made it
        same = type(one) is type(other)
    return same and one == other
