"""Typed session data: a record checked against a type of the application's own, and edited as a value of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol, TypeVar, cast

import msgspec
from msgspec import Raw

from session_kit.codec import JSON, Codec, Format, format_of, too_deep
from session_kit.draft import Draft, Drop, Edit, Put, Updater, check_name
from session_kit.errors import ConfigError, CorruptEntry, SessionError

T = TypeVar("T")
Upgrade = Callable[[dict[str, Any]], Any]


class _Model(Protocol):
    """What we use of a pydantic model, so that pydantic need not be imported."""

    @classmethod
    def model_validate_json(cls, data: bytes) -> Any: ...

    def model_dump_json(self) -> str: ...


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
        # A struct, a dataclass, a pydantic model; a TypedDict has none, and is read as a mapping.
        declared = [
            getattr(data_type, name, ()) for name in ("__struct_fields__", "__dataclass_fields__", "model_fields")
        ]
        self.names: frozenset[str] = frozenset().union(*declared)
        self._encode: Callable[[object], bytes] = form.module.Encoder(enc_hook=partial(_plain, form)).encode
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
            for key in value:
                check_name(key)
        fields = self.split(value)
        for key, raw in fields.items():
            self.check_depth(raw, key)
        return fields

    def split(self, value: object) -> dict[str, Raw]:
        """`encode`, however deep: what is in the store already must not fail when it is only looked at."""
        try:
            fields = self._split(self._encode(value))
        except (TypeError, ValueError, OverflowError) as error:
            kind = type(value).__name__
            raise SessionError(f"a {kind} cannot be stored as {self.type.__name__}: {_reason(error)}") from None
        except RecursionError:
            raise SessionError(too_deep(type(value).__name__)) from None
        for key in fields:
            check_name(key)
        return fields

    def dump(self, value: object, where: str) -> Raw:
        """Encode one value. Its type says what it is when it is read, so that a datetime may be text in the store."""
        try:
            data = self._encode(value)
        except (TypeError, ValueError, OverflowError) as error:
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
            fields = self.encode(self.upgrade({key: self.codec.load(raw, object) for key, raw in fields.items()}))
            self.decode(fields)
        return fields


class TypedDraft(Draft):
    """A draft whose data is one value of the schema's type; what is changed inside that value is found like the rest.

    A change by key makes a new value: ask the session for its `data` again after it.
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
            return data[key]
        if key not in self._schema.names and key not in self._baseline:  # a method of the type is no datum
            raise KeyError(key)
        try:
            return getattr(data, key)
        except AttributeError:
            raise KeyError(key) from None

    def get(self, key: str, default: Any = None) -> Any:
        try:
            return self[key]  # may be there by default, and not in the fields
        except KeyError:
            return default

    def detect_changes(self) -> bool:
        if self._value is None:
            return self.changed
        now = self._schema.split(self._value)
        changed = {key: raw for key, raw in now.items() if raw != self._baseline.get(key)}
        for key, raw in changed.items():
            self._schema.check_depth(raw, key)
        for key, raw in changed.items():
            base = self.fields.get(key, self._baseline.get(key))
            self.store(key, raw)
            self.log.append(Put({key: raw}) if base is None else Edit(key, base, raw))
        for key in self._baseline.keys() - now.keys():
            self.forget(key)
            self.log.append(Drop(key))
        self._baseline = now
        return self.changed

    def put(self, key: str, value: object) -> None:
        self.put_all({key: value})

    def put_all(self, values: Mapping[str, object], change: Any = Put) -> None:
        plain = {check_name(key): value for key, value in values.items()}
        encoded = {key: self._schema.dump(value, key) for key, value in plain.items()}

        def put() -> None:
            for key, raw in encoded.items():
                self.store(key, raw)
            self.log.append(change(encoded))

        self._change(put)

    def drop(self, key: str) -> None:
        self._change(lambda: super(TypedDraft, self).drop(key))

    def extend(self, key: str, item: object) -> None:
        value = self._value  # it stays the application's: the type knows nothing of this key
        self._change(lambda: super(TypedDraft, self).extend(key, item))
        self._value = value

    def apply(self, function: Updater) -> None:
        self._change(lambda: super(TypedDraft, self).apply(function))

    def replace(self, data: Any) -> None:
        fields = self._schema.encode(data)
        self._change(lambda: self.take_over(fields))

    def call(self, function: Updater) -> None:
        value = self._schema.decode(self.fields)
        before = self._schema.split(value)
        result: Any = function(value)
        if isinstance(result, Mapping):
            plain = {check_name(key): item for key, item in result.items()}
            after = {key: self._schema.dump(item, key) for key, item in plain.items()}
        else:
            if not isinstance(result, self._schema.type):
                kind, wanted = type(result).__name__, self._schema.type.__name__
                raise SessionError(f"an updater must return a {wanted} or a mapping of the keys to change, not {kind}")
            after = self._schema.encode(result)
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
        self._value = None

    def check(self) -> None:
        try:
            self._schema.decode(self.fields)
        except CorruptEntry as error:
            raise SessionError(
                f"another request has changed the session so that, with these changes, {error}"
            ) from None

    def _change(self, change: Callable[[], None]) -> None:
        """Make a change, or none at all if the data would not fit afterwards."""
        self.detect_changes()
        fields, log = dict(self.fields), list(self.log)
        try:
            change()
            self._schema.decode(self.fields)
        except CorruptEntry as error:
            self.fields, self.log = fields, log
            raise SessionError(f"refused, because then {error}") from None
        self._value = None


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
        encoded = cast(_Model, value).model_dump_json().encode()
        return Raw(encoded) if form is JSON else msgspec.json.decode(encoded)
    raise TypeError(f"a {type(value).__name__} cannot be stored as {form.name}; convert it first")


def _reason(error: Exception) -> str:
    """Where it does not fit, and why; never the value itself."""
    places = getattr(error, "errors", None)
    if callable(places):  # pydantic puts the input into its message
        first = places(include_url=False, include_input=False, include_context=False)[0]
        return f"{first['msg']} - at `{'.'.join(map(str, first['loc']))}`"
    return str(error)
