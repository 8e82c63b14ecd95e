"""Sessions on a key-value driver: the prefix, the time to live, hashed ids, and the codec."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from datetime import timedelta
from hashlib import sha256
from typing import Any, Final, NamedTuple, Protocol, runtime_checkable

from msgspec import Raw

from session_kit.codec import Codec, JSONCodec
from session_kit.draft import RESERVED
from session_kit.drivers import ANY, Capabilities, Driver, Entry, open_driver
from session_kit.drivers.base import check_key
from session_kit.drivers.options import parse_duration
from session_kit.drivers.registry import open_parts, redact, split_url
from session_kit.drivers.twins import Blocking, Native, iterate, run
from session_kit.errors import ConfigError

DAY = 86400.0

TTL = float | str | timedelta | Callable[[Mapping[str, Any]], float] | None
"""Seconds, a timedelta, text like "7d", a function of the data that returns seconds, or None for no limit."""


class Record(NamedTuple):
    """One stored session, as `store.read` returns it.

    fields: key to encoded value, the library's own notes (key `"$"`) included.
    version: opaque; hand it back as `expect=` to write only if nobody else has.
    expires_at: Unix time in seconds, where the driver can tell.
    codec: decodes the values.
    """

    fields: dict[str, Raw]
    version: object
    expires_at: float | None
    codec: Codec

    @property
    def data(self) -> dict[str, Any]:
        """The session's data, decoded."""
        return {key: self.codec.load(raw, object) for key, raw in self.fields.items() if key != RESERVED}

    def __repr__(self) -> str:
        return f"<Record of {len(self.fields)} fields>"


@runtime_checkable
class SessionStore(Protocol):
    """What the session layer needs at least of a store: any object with these four methods will do.

    Twins named `aget`, `aset`, `atouch` and `adestroy` are used in async code if they are there; without them the
    blocking methods run in a thread. `UnstorageSessionStore` is the implementation with all guarantees; a store with
    just these four cannot tell whether somebody else wrote in between, so that the last write wins.
    """

    def get(self, sid: str, /) -> dict[str, Any] | None:
        """Return the data of the session, or None."""

    def set(self, sid: str, data: Mapping[str, Any], /) -> object:
        """Store the data of the session."""

    def touch(self, sid: str, data: Mapping[str, Any] | None = None, /) -> object:
        """Let the session live for another ttl."""

    def destroy(self, sid: str, /) -> object:
        """Delete the session; no error if it is not there."""


class UnstorageSessionStore:
    """Session store on any key-value driver.

    driver: a `Driver`, or the URL of one (`open_driver`); a driver that is handed in is not closed by `close`.
    prefix: put before each key with a colon, so that several applications can share one backend. Default `"sess"`.
    ttl: how long a session lives after it was last written or renewed: seconds, a `timedelta`, text like `"7d"`, a
        function of the data that returns seconds (0 or less destroys the session), or None for ever. Default one day.
    hash_ids: store under the SHA-256 of the id, so that a leaked store holds no id that would open a session (OWASP
        Session Management Cheat Sheet). False stores plain ids. Default True.
    codec: default `JSONCodec()`.
    clock: Unix time in seconds, for a driver that is opened here by URL.

    Every method that does I/O has an async twin with the prefix `a`.

    >>> store = UnstorageSessionStore("memory://", ttl="7d")
    >>> version = store.set("some-id", {"user": "ada"})
    >>> store.get("some-id")
    {'user': 'ada'}
    >>> store.destroy("some-id")
    True
    """

    def __init__(
        self,
        driver: Driver | str,
        *,
        prefix: str = "sess",
        ttl: TTL = DAY,
        hash_ids: bool = True,
        codec: Codec | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.ttl = ttl if ttl is None or callable(ttl) else _duration(ttl)
        self.prefix = _prefix(prefix)
        self.hash_ids = hash_ids
        self.codec: Codec = codec or JSONCodec()
        self._owns_driver = isinstance(driver, str)
        self.driver = open_driver(driver, clock=clock) if isinstance(driver, str) else driver
        if not isinstance(self.driver, Driver):
            raise ConfigError(f"a store needs a Driver or a URL, not {type(driver).__name__}")
        self.blocking, self.native = Blocking(self.driver), Native(self.driver)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.driver!r}, prefix={self.prefix!r})"

    @property
    def capabilities(self) -> Capabilities:
        """What the driver can do."""
        return self.driver.capabilities

    @property
    def renews(self) -> bool:
        """Whether `read(renew=True)` slides the expiry at no extra cost."""
        return self.capabilities.renew and not callable(self.ttl)

    # --- the public methods and their twins ---

    def get(self, sid: str) -> dict[str, Any] | None:
        """Return the data of the session, or None if there is none. `CorruptEntry` if it cannot be decoded."""
        return run(self._get(self.blocking, sid))

    async def aget(self, sid: str) -> dict[str, Any] | None:
        """Async twin of `get`."""
        return await self._get(self.native, sid)

    def read(self, sid: str, *, renew: bool = False) -> Record | None:
        """Return the session with its version, or None. `renew` also lets it live for another ttl, in the same call."""
        key, ttl = self.key(sid), self.ttl
        if not renew or ttl is None or callable(ttl):
            return self.record(self.driver.read(key))
        return self.record(self.driver.renew(key, ttl))

    async def aread(self, sid: str, *, renew: bool = False) -> Record | None:
        """Async twin of `read`."""
        return self.record(await self.entry_by(self.native, sid, renew=renew))

    def set(self, sid: str, data: Mapping[str, Any], *, expect: object = ANY, ttl: float | None = None) -> object:
        """Store `data` and return its version, or None if its ttl function says that it is over.

        expect: nothing overwrites; `ABSENT` only creates; a version only replaces what was read (else `Conflict`).
        ttl: seconds; None takes the store's. `SessionError` if a value cannot be stored.
        """
        return run(self._set(self.blocking, sid, data, expect, ttl))

    async def aset(
        self, sid: str, data: Mapping[str, Any], *, expect: object = ANY, ttl: float | None = None
    ) -> object:
        """Async twin of `set`."""
        return await self._set(self.native, sid, data, expect, ttl)

    def touch(self, sid: str, data: Mapping[str, Any] | None = None) -> bool:
        """Let the session live for another ttl without writing its data; False if it is not there.

        data: what a ttl function is asked with; read from the store if it is not given.
        """
        return run(self._touch(self.blocking, sid, data))

    async def atouch(self, sid: str, data: Mapping[str, Any] | None = None) -> bool:
        """Async twin of `touch`."""
        return await self._touch(self.native, sid, data)

    def destroy(self, sid: str, *, expect: object = ANY) -> bool:
        """Delete the session; False if it was not there."""
        return run(self.destroy_by(self.blocking, sid, expect=expect))

    async def adestroy(self, sid: str, *, expect: object = ANY) -> bool:
        """Async twin of `destroy`."""
        return await self.destroy_by(self.native, sid, expect=expect)

    def all(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield each session as `(name, data)`, one at a time. The name is its id, or the hash of it (`hash_ids`)."""
        return iterate(self._all(self.blocking))

    def aall(self) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        """Async twin of `all`."""
        return self._all(self.native)

    def length(self) -> int:
        """Count the live sessions under this prefix."""
        return sum(1 for _ in self.driver.keys(self.prefix + ":"))

    async def alength(self) -> int:
        """Async twin of `length`."""
        count = 0
        async for _ in self.driver.akeys(self.prefix + ":"):
            count += 1
        return count

    def clear(self) -> int:
        """Delete all sessions under this prefix, and nothing else; return how many."""
        return self.driver.clear(self.prefix + ":")

    async def aclear(self) -> int:
        """Async twin of `clear`."""
        return await self.driver.aclear(self.prefix + ":")

    def close(self) -> None:
        """Close the driver if this store opened it. Idempotent."""
        if self._owns_driver:
            self.driver.close()

    async def aclose(self) -> None:
        """Async twin of `close`."""
        if self._owns_driver:
            await self.driver.aclose()

    # --- for the session layer ---

    def key(self, sid: str) -> str:
        """The driver's key for a session id."""
        return f"{self.prefix}:{sha256(sid.encode()).hexdigest() if self.hash_ids else sid}"

    def ttl_of(self, data: Mapping[str, Any]) -> float | None:
        """The seconds that a session with `data` lives; None for ever; 0 or less if it is over."""
        return self.ttl(data) if callable(self.ttl) else self.ttl

    # --- written once for both colours: `io` is the blocking or the native face of the driver ---

    async def prepare_by(self, io: Any) -> None:
        """Let the driver find out what its backend can do; `capabilities` is final then."""
        await io.prepare()

    def entry_by(self, io: Any, sid: str, *, renew: bool = False) -> Coroutine[Any, Any, Entry | None]:
        """What `record` makes a record of, by a face; `renew` as in `read`."""
        ttl = self.ttl
        renewing = renew and ttl is not None and not callable(ttl)
        reading: Coroutine[Any, Any, Entry | None]
        reading = io.renew(self.key(sid), ttl) if renewing else io.read(self.key(sid))
        return reading

    def record(self, entry: Entry | None) -> Record | None:
        """The record in an entry; `CorruptEntry` if it cannot be decoded."""
        if entry is None:
            return None
        value, version, expires_at = entry
        # What Record(...) does, in a third of the time.
        return tuple.__new__(Record, (self.codec.unpack(value), version, expires_at, self.codec))

    def set_by(
        self, io: Any, sid: str, fields: Mapping[str, Raw], *, expect: object = ANY, ttl: float | None
    ) -> Coroutine[Any, Any, object]:
        """`set` by a face, of encoded values, for so many seconds or, if None, for ever."""
        setting: Coroutine[Any, Any, object] = io.set(self.key(sid), self.codec.pack(fields), ttl=ttl, expect=expect)
        return setting

    def put(self, sid: str, fields: Mapping[str, Raw], *, expect: object = ANY, ttl: float | None) -> object:
        """`set_by` the blocking face, without a coroutine."""
        return self.driver.set(self.key(sid), self.codec.pack(fields), ttl=ttl, expect=expect)

    def destroy_by(self, io: Any, sid: str, *, expect: object = ANY) -> Coroutine[Any, Any, bool]:
        """`destroy` by a face."""
        deleting: Coroutine[Any, Any, bool] = io.delete(self.key(sid), expect=expect)
        return deleting

    async def _get(self, io: Any, sid: str) -> dict[str, Any] | None:
        record = self.record(await self.entry_by(io, sid))
        return None if record is None else record.data

    async def _set(self, io: Any, sid: str, data: Mapping[str, Any], expect: object, ttl: float | None) -> object:
        if ttl is None:
            ttl = self.ttl_of(data)
        if ttl is not None and ttl <= 0:
            await io.delete(self.key(sid), expect=expect)
            return None
        fields = {key: self.codec.dump(value, key) for key, value in data.items()}
        return await self.set_by(io, sid, fields, expect=expect, ttl=ttl)

    async def _touch(self, io: Any, sid: str, data: Mapping[str, Any] | None) -> bool:
        if callable(self.ttl) and data is None:
            record = self.record(await self.entry_by(io, sid))
            if record is None:
                return False
            data = record.data
        ttl = self.ttl_of({} if data is None else data)
        if ttl is not None and ttl <= 0:
            await io.delete(self.key(sid))
            return False
        touched: bool = await io.touch(self.key(sid), ttl)
        return touched

    async def _all(self, io: Any) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        async for key in io.keys(self.prefix + ":"):
            record = self.record(await io.read(key))
            if record is not None:
                yield key.removeprefix(self.prefix + ":"), record.data


class PlainStore:
    """A store with only the four methods of `SessionStore`, with the face that the session layer knows.

    It has no versions: the session layer reads again before it writes, and the last write wins.
    """

    renews = False
    capabilities = Capabilities()

    def __init__(self, store: Any) -> None:
        missing = [name for name in ("get", "set", "touch", "destroy") if not callable(getattr(store, name, None))]
        if missing:
            raise ConfigError(f"{type(store).__name__} is no session store: it has no method {', '.join(missing)}")
        self.codec: Codec = JSONCodec()
        self._store = store
        self.blocking, self.native = Blocking(store), Native(store)
        ttl = getattr(store, "ttl", None)
        self.ttl = ttl if isinstance(ttl, (int, float)) else None

    async def prepare_by(self, io: Any) -> None:
        """There is nothing to find out."""

    def ttl_of(self, data: Mapping[str, Any]) -> float | None:
        """What the store says of itself, if it does."""
        return self.ttl

    def read(self, sid: str, *, renew: bool = False) -> Record | None:
        """Get the data; `renew` is not to be had."""
        return self.record(self._store.get(sid))

    def entry_by(self, io: Any, sid: str, *, renew: bool = False) -> Coroutine[Any, Any, Mapping[str, Any] | None]:
        """What `record` makes a record of, by a face."""
        getting: Coroutine[Any, Any, Mapping[str, Any] | None] = io.get(sid)
        return getting

    def record(self, data: Mapping[str, Any] | None) -> Record | None:
        """The record that the data would be."""
        if data is None:
            return None
        return Record({key: self.codec.dump(value, key) for key, value in data.items()}, None, None, self.codec)

    async def set_by(
        self, io: Any, sid: str, fields: Mapping[str, Raw], *, expect: object = ANY, ttl: float | None
    ) -> object:
        """Set the data; the store decides how long it lives, and there is no version."""
        await io.set(sid, {key: self.codec.load(raw, object) for key, raw in fields.items()})
        return None

    def put(self, sid: str, fields: Mapping[str, Raw], *, expect: object = ANY, ttl: float | None) -> object:
        """`set_by` the blocking face."""
        return run(self.set_by(self.blocking, sid, fields, expect=expect, ttl=ttl))

    async def destroy_by(self, io: Any, sid: str, *, expect: object = ANY) -> bool:
        """Destroy the session; True, because the store does not say whether it was there."""
        await io.destroy(sid)
        return True


def open_store(url: str, *, clock: Callable[[], float] = time.time) -> UnstorageSessionStore:
    """Open a session store by URL: `prefix` and `ttl` are the store's options, the rest are the driver's.

    Raises `ConfigError` for anything that is wrong with the URL.

    >>> open_store("memory://?prefix=shop&ttl=7d").ttl
    604800.0
    """
    parts, query = split_url(url)
    own = {name: text for name, text in query if name in OWN_OPTIONS}
    if len(own) < sum(name in own for name, _ in query):
        raise ConfigError(f"{redact(parts)}: prefix and ttl may be given once each")
    # Checked before the driver opens, so that nothing is made on disk for a URL that is wrong.
    try:
        options: dict[str, Any] = {name: OWN_OPTIONS[name](text) for name, text in own.items()}
    except ConfigError as error:
        raise ConfigError(f"{redact(parts)}: {error}") from None
    rest = [(name, text) for name, text in query if name not in own]
    driver = open_parts(parts, rest, clock=clock, also=OWN_OPTIONS)
    store = UnstorageSessionStore(driver, **options)
    store._owns_driver = True
    return store


def with_ttl(url: str, ttl: float) -> str:
    """The URL of a store, with a ttl in seconds if it says none itself."""
    if any(name == "ttl" for name, _ in split_url(url)[1]):
        return url
    return f"{url}{'&' if '?' in url else '?'}ttl={ttl}"


def hash_id(sid: str) -> str:
    """The name under which a session is stored, logged and reported: the SHA-256 of its id, in hexadecimal digits."""
    return sha256(sid.encode()).hexdigest()


def _prefix(prefix: str) -> str:
    if not isinstance(prefix, str) or not prefix:
        raise ConfigError("prefix must be a text of at least one character; it keeps applications apart")
    try:
        check_key(f"{prefix}:{hash_id('')}")
    except ValueError as error:
        raise ConfigError(f"prefix and id together: {error}") from None
    return prefix


def _duration(value: str | float | timedelta) -> float:
    try:
        return parse_duration(value)
    except ValueError as error:
        raise ConfigError(f"ttl: {error}") from None


OWN_OPTIONS: Final[Mapping[str, Callable[[str], object]]] = {"prefix": _prefix, "ttl": _duration}
"""The options that a URL gives to the store; the rest are its driver's."""
