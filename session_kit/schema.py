"""Typed session data: a record checked against a type of the application's own, and edited as a value of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Protocol, TypeVar, cast, get_origin, is_typeddict

import msgspec
from msgspec import Raw

from session_kit.codec import JSON, Codec, Format, format_of, too_deep
from session_kit.draft import Draft, Drop, Edit, EditSet, Put, Updater, check_name
from session_kit.errors import ConfigError, CorruptEntry, SessionError

T = TypeVar("T")
Upgrade = Callable[[dict[str, Any]], Any]
FIELDS = (
    *("__struct_fields__", "__dataclass_fields__", "model_fields"),
    *("__required_keys__", "__optional_keys__"),  # of a TypedDict
)
"""Where a type says which fields it has."""


class _Model(Protocol):
    """What we use of a pydantic model, so that pydantic need not be imported."""

    @classmethod
    def model_validate_json(cls, data: bytes) -> Any: ...

    def model_dump_json(self, *, by_alias: bool, round_trip: bool, warnings: bool) -> str: ...


class Schema:
    """The type of a session's data.

    data_type: a msgspec `Struct`, a dataclass, a `TypedDict` or a pydantic model. A new session is made of its
        defaults, or of what `generate` returns.
    upgrade: given the data of a record that does not fit, as plain JSON values, returns data that does: a mapping or a
        value of the type. Without it such a record is left alone and the visitor gets a fresh session.
    Raises `ConfigError` for a type that cannot be stored as a JSON object.
    """

    def __init__(self, data_type: type[Any], codec: Codec, upgrade: Upgrade | None = None) -> None:
        self.type = data_type
        self.codec = codec
        self.upgrade = upgrade
        self.format = form = format_of(codec)
        try:
            self._decode = _decoder(data_type, form)
        except TypeError as error:
            raise ConfigError(f"data_type={data_type!r} cannot be stored as {form.name}: {error}") from None
        _check_names(data_type)
        declared = [getattr(data_type, name, ()) for name in FIELDS]
        self.names: frozenset[str] = frozenset().union(*declared)
        plain_type = get_origin(data_type) or data_type
        self.kind: type = dict if is_typeddict(plain_type) else plain_type
        """What values of the type are instances of."""
        self._encode: Callable[[object], bytes] = form.module.Encoder(enc_hook=partial(_plain, form)).encode
        self._encode_value = _value_encoder(data_type, form) or self._encode
        self._split: Callable[[bytes], dict[str, Raw]] = form.module.Decoder(dict[str, Raw]).decode

    def decode(self, fields: Mapping[str, Raw]) -> Any:
        """Return the fields as a value of the type; `CorruptEntry` if they do not fit."""
        try:
            return self._decode(self._encode(fields))
        except ValueError as error:
            raise CorruptEntry(f"the session's data do not fit {self.type.__name__}: {_reason(error)}") from None

    def encode(self, value: object) -> dict[str, Raw]:
        """Return the fields of a value of the type, or of a mapping.

        `SessionError` for what is no object, cannot be encoded, or is nested too deep.
        """
        if isinstance(value, Mapping):
            plain = {check_name(key): item for key, item in value.items()}
            return {key: self.dump(item, key) for key, item in plain.items()}
        fields = self.split(value)
        for key, raw in fields.items():
            self.check_depth(raw, key)
        return fields

    def split(self, value: object) -> dict[str, Raw]:
        """`encode`, however deep: what is in the store already must not fail when it is only looked at."""
        try:
            fields = self._split(self._encode(value))
        except (TypeError, ValueError, OverflowError, msgspec.MsgspecError) as error:
            kind = type(value).__name__
            raise SessionError(f"a {kind} cannot be stored as {self.type.__name__}: {_reason(error)}") from None
        except RecursionError:
            raise SessionError(too_deep(type(value).__name__)) from None
        for key in fields:
            check_name(key)
        return fields

    def dump(self, value: object, where: str) -> Raw:
        """Encode the value of one key. What its type says when it is read may be text in the store, as a datetime is.

        What the type knows nothing of, such as a key of a framework, has the codec's values alone.
        """
        if where not in self.names:
            return self.codec.dump(value, where)
        try:
            data = self._encode_value(value)
        except (TypeError, ValueError, OverflowError, msgspec.MsgspecError) as error:
            raise SessionError(f"{where}: {_reason(error)}") from None
        except RecursionError:
            raise SessionError(too_deep(where)) from None
        raw = Raw(data)
        self.check_depth(raw, where)
        return raw

    def check_depth(self, raw: Raw, where: str) -> None:
        """Raise `SessionError`, naming `where`, if an encoded value is nested too deep."""
        if self.format.is_deep(bytes(raw)):
            raise SessionError(too_deep(where))

    def fit(self, fields: dict[str, Raw]) -> dict[str, Raw]:
        """Return the fields, upgraded if they do not fit as they are; `CorruptEntry` if they do not even then."""
        try:
            self.decode(fields)
        except CorruptEntry:
            if self.upgrade is None:
                raise
            fields = self._upgraded(self.upgrade, fields)
            self.decode(fields)
        return fields

    def _upgraded(self, upgrade: Upgrade, fields: dict[str, Raw]) -> dict[str, Raw]:
        data = {key: self.codec.load(raw, object) for key, raw in fields.items()}
        try:
            return self.encode(upgrade(data))
        except SessionError as error:
            raise CorruptEntry(f"what upgrade returned is of no use: {error}") from None
        except Exception as error:  # without its text, which may hold data
            raise CorruptEntry(f"upgrade raised {type(error).__name__}") from error


class TypedDraft(Draft):
    """A draft whose data is one value of the schema's type; what is changed inside that value is found like the rest.

    It stays one value: a change by key, or of another request, is made in it too. One that cannot be changed, such as a
    frozen dataclass, is replaced: ask the session for its `data` again.
    """

    __slots__ = ("_baseline", "_schema", "_value")

    def __init__(self, schema: Schema, fields: dict[str, Raw]) -> None:
        super().__init__(schema.codec, fields)
        self._schema = schema
        self._value: Any = None
        self._baseline: dict[str, Raw] = {}

    @property
    def data(self) -> Any:
        if self._value is None:
            self._value = self._schema.decode(self.fields)
            self._baseline = self._schema.split(self._value)
        return self._value

    def __getitem__(self, key: str) -> Any:
        data = self.data
        if isinstance(data, Mapping):
            if key in data:
                return data[key]
        elif key in self._schema.names or key in self._baseline:  # a method of the type is no datum
            with suppress(AttributeError):
                return getattr(data, key)
        return super().__getitem__(key)  # what the type knows nothing of

    def get(self, key: str, default: Any = None) -> Any:
        try:
            return self[key]  # may be there by default, and not in the fields
        except KeyError:
            return default

    def detect_changes(self) -> bool:
        super().detect_changes()
        if self._value is None:
            return self.changed
        now = self._schema.split(self._value)
        changed = {key: raw for key, raw in now.items() if raw != self._baseline.get(key)}
        gone = self._baseline.keys() - now.keys()
        if changed or gone:
            for key, raw in changed.items():
                self._schema.check_depth(raw, key)
            self._fitting({key: raw for key, raw in self.fields.items() if key not in gone} | changed)
        for key, raw in changed.items():
            base = self.fields.get(key, self._baseline.get(key)) or self._empty(key, raw)
            self.store(key, raw)
            if base is None:
                self.log.append(Put({key: raw}))
            else:
                self.log.append((EditSet if isinstance(self[key], (set, frozenset)) else Edit)(key, base, raw))
        for key in gone:
            base = self.fields.get(key, self._baseline[key])
            empty = None if isinstance(self._value, Mapping) else self._empty(key, base)
            self.forget(key)
            self.log.append(Drop(key) if empty is None else Edit(key, base, empty))
        self._baseline = now
        return self.changed

    def _empty(self, key: str, raw: Raw) -> Raw | None:
        """What a list or a dict was, or will be, while nothing of it is stored: empty, so that others can add to it."""
        kind = type(self.codec.load(raw, object))
        return self.codec.dump(kind(), key) if kind in (list, dict) else None

    def put(self, key: str, value: object) -> None:
        self.put_all({key: value})

    def put_all(self, values: Mapping[str, object], change: Any = Put) -> None:
        encoded = self._schema.encode(values)

        def put() -> None:
            for key, raw in encoded.items():
                self.store(key, raw)
            self.log.append(change(encoded))

        self._change(put)

    def default(self, key: str, value: object) -> None:
        self.detect_changes()
        try:
            self[key]
        except KeyError:
            super().default(key, value)

    def drop(self, key: str) -> None:
        def drop() -> None:
            if key in self.fields:
                super(TypedDraft, self).drop(key)
            else:
                self[key]  # it may be there by default, of which nothing is stored

        self._change(drop)

    def extend(self, key: str, item: object) -> None:
        self._change(lambda: super(TypedDraft, self).extend(key, item))

    def apply(self, function: Updater) -> None:
        self._change(lambda: super(TypedDraft, self).apply(function))

    def replace(self, data: Any) -> None:
        fields = self._schema.encode(data)
        self._fitting(fields)
        self.take_over(fields)

    def take_over(self, fields: dict[str, Raw]) -> None:
        super().take_over(fields)
        self._value = None

    def call(self, function: Updater) -> None:
        value = self._schema.decode(self.fields)
        before = self._schema.split(value)
        result: Any = function(value)
        if not isinstance(result, (Mapping, self._schema.kind)):
            wanted, kind = self._schema.type.__name__, type(result).__name__
            raise SessionError(f"an updater must return a {wanted} or a mapping of the keys to change, not {kind}")
        after = self._schema.encode(result)
        if not isinstance(result, Mapping):
            for key in before.keys() - after.keys():
                self.forget(key)
        for key, raw in after.items():
            if raw != before.get(key):
                self.store(key, raw)

    def revert(self) -> None:
        super().revert()
        self.fields, self._value = self._schema.fit(self.fields), None

    def rebase(self, fields: dict[str, Raw]) -> None:
        super().rebase(fields)
        if self._value is not None:
            self._follow(self._schema.decode(self.fields))

    def check(self) -> None:
        self._fitting(self.fields, "another request has changed the session so that, with these changes,")

    def _change(self, change: Callable[[], None]) -> None:
        """Make a change, or none at all if the data would not fit afterwards."""
        self.detect_changes()
        before = dict(self.fields), dict(self.values), list(self.log)
        try:
            change()
            new = self._fitting(self.fields)
        except BaseException:
            self.fields, self.values, self.log = before
            raise
        if self._value is not None:
            self._follow(new)

    def _fitting(self, fields: dict[str, Raw], begin: str = "refused, because then") -> Any:
        """The value of the type that these fields would be. `SessionError`, which begins so, if there is none."""
        try:
            return self._schema.decode(fields)
        except CorruptEntry as error:
            raise SessionError(f"{begin} {error}") from None

    def _follow(self, new: Any) -> None:
        """Let the value in the application's hands say what a newer one says; where it cannot be changed, drop it."""
        value, before, now = self._value, self._baseline, self._schema.split(new)
        try:
            for key in before.keys() | now.keys():
                if before.get(key) == now.get(key):
                    continue
                if not isinstance(value, dict):
                    setattr(value, key, getattr(new, key))
                elif key in now:
                    value[key] = new[key]
                else:
                    del value[key]
        except (AttributeError, TypeError, ValueError):
            self._value = None
        self._baseline = now


def _check_names(data_type: type[Any]) -> None:
    """Raise `ConfigError` if a field is stored by another name: keys of the session are the names of the fields."""
    names = getattr(data_type, "__struct_fields__", ())
    for name, stored in zip(names, getattr(data_type, "__struct_encode_fields__", names), strict=True):
        if name != stored:
            raise ConfigError(f"data_type={data_type.__name__} stores {name!r} as {stored!r}; take out its rename")
    fields, config = getattr(data_type, "model_fields", {}), getattr(data_type, "model_config", {})
    by_name = config.get("populate_by_name") or config.get("validate_by_name")
    for name, field in fields.items():
        if config.get("serialize_by_alias") or (field.validation_alias is not None and not by_name):
            raise ConfigError(
                f"data_type={data_type.__name__} names {name!r} by an alias; let its model_config have"
                " populate_by_name=True, and no serialize_by_alias"
            )


def _value_encoder(data_type: type[Any], form: Format) -> Callable[[object], bytes] | None:
    """For a pydantic model, what encodes one value as the model would: msgspec has another form of bytes."""
    if not hasattr(data_type, "model_dump_json"):
        return None
    from pydantic_core import to_json

    bytes_mode = data_type.model_config.get("ser_json_bytes", "utf8")

    def encode(value: object) -> bytes:
        text = to_json(value, by_alias=False, bytes_mode=bytes_mode, inf_nan_mode="null")
        encoded: bytes = text if form is JSON else form.module.encode(msgspec.json.decode(text))
        return encoded

    return encode


def _decoder(data_type: type[Any], form: Format) -> Callable[[bytes], Any]:
    """What makes values of the type from an encoded record."""
    validate = getattr(data_type, "model_validate_json", None)
    if form is JSON:
        return validate if callable(validate) else msgspec.json.Decoder(data_type).decode
    decode = form.module.decode
    if callable(validate):

        def decode_model(data: bytes) -> Any:
            try:
                text = msgspec.json.encode(decode(data))
            except TypeError:
                raise ValueError("a key in them has no form in JSON") from None
            return validate(text)

        return decode_model
    strict = form.module.Decoder(data_type).decode

    def decode_typed(data: bytes) -> Any:
        try:
            return strict(data)
        except msgspec.ValidationError:  # what was JSON once has text in place of bytes and of numbers as keys
            return msgspec.convert(decode(data), data_type, str_keys=True)

    return decode_typed


def _plain(form: Format, value: object) -> object:
    """What msgspec cannot encode by itself: a pydantic model."""
    if callable(getattr(value, "model_dump_json", None)):
        # A warning of pydantic's shows the value.
        encoded = cast(_Model, value).model_dump_json(by_alias=False, round_trip=True, warnings=False).encode()
        return Raw(encoded) if form is JSON else msgspec.json.decode(encoded)
    raise TypeError(f"a {type(value).__name__} cannot be stored as {form.name}; convert it first")


def _reason(error: Exception) -> str:
    """Where it does not fit, and why; never the value itself."""
    places = getattr(error, "errors", None)
    if callable(places):  # pydantic puts the input into its message
        first = places(include_url=False, include_input=False, include_context=False)[0]
        return f"{first['msg']} - at `{'.'.join(map(str, first['loc']))}`"
    return str(error)
