"""Sessions on a key-value driver: the prefix, the time to live, hashed ids, and the codec."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from copy import copy
from datetime import timedelta
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final, Protocol, runtime_checkable

from msgspec import Raw

from session_kit.codec import Codec, CodecName, JSONCodec, make_codec
from session_kit.draft import check_name
from session_kit.drivers import ABSENT, ANY, Capabilities, Driver, Entry, open_driver
from session_kit.drivers.base import check_key
from session_kit.drivers.registry import open_parts, redact, split_url
from session_kit.drivers.support.options import parse_duration
from session_kit.drivers.support.twins import Blocking, Native, iterate, let_racers_part, run
from session_kit.errors import ConfigError, Conflict, CorruptEntry
from session_kit.owners import Owners, SessionInfo, UserId, owner_text
from session_kit.record import RESERVED, SEPARATOR, Notes, Record, hash_id, split_id

if TYPE_CHECKING:
    from typing import Self

log = logging.getLogger("session_kit")

DAY = 86400.0
CLEAR_PAGE = 500
"""So many sessions are deleted at a time by `clear`."""

# How often a write that others keep overtaking is tried again.
MAX_ATTEMPTS = 20

TTL = float | str | timedelta | Callable[[Mapping[str, Any]], float] | None
"""Seconds, a timedelta, text like "7d", a function of the data that returns seconds, or None for no limit."""


@runtime_checkable
class SessionStore(Protocol):
    """What the session layer needs at least of a store: any object with these four methods will do.

    Twins named `aget`, `aset` and `adestroy` are used in async code if they are there; without them the blocking
    methods run in a thread. The session layer gives the name in the session's id as `sid`, and data in which its own
    notes are, under the key `"$"`. `UnstorageSessionStore` is the implementation with all guarantees; a store with
    just these four cannot tell whether somebody else wrote in between, so that the last write wins.
    """

    def get(self, sid: str, /) -> dict[str, Any] | None:
        """Return the data of the session, or None."""

    def set(self, sid: str, data: Mapping[str, Any], /) -> object:
        """Store the data of the session."""

    def touch(self, sid: str, data: Mapping[str, Any] | None = None, /) -> object:
        """Let the session live for another ttl. For the application: the session layer renews by `set`."""

    def destroy(self, sid: str, /) -> object:
        """Delete the session; no error if it is not there."""


class UnstorageSessionStore:
    """Session store on any key-value driver.

    driver: a `Driver`, or the URL of one (`open_driver`); a driver that is handed in is not closed by `close`.
    prefix: put before each key with a colon, so that several applications can share one backend: a store sees nothing
        of another prefix, also of one that begins alike (`shop` and `shop:admin`). Default `"sess"`.
    ttl: how long a session lives after it was last written or renewed: seconds, a `timedelta`, text like `"7d"`, a
        function of the data that returns seconds (0 or less destroys the session), or None for ever. Default one day.
    hash_ids: store under the SHA-256 of the name in the id, so that a leaked store holds no id that would open a
        session (OWASP Session Management Cheat Sheet). False stores plain names. Default True.
    codec: how data become bytes. `"json"` (default) refuses what JSON would change; `"json-lenient"` converts it, as
        the serializers of Flask and Django do; from `"json-tagged"`, Flask's, tuples, bytes, UUIDs, datetimes and
        `Markup` come back; `"msgpack"` is smaller and keeps bytes and datetimes. With `+zlib` or `+zstd` behind it,
        large records are compressed; `+encrypt:NAME`, or an `Encrypted` in place of the name, encrypts them. Each reads
        what the others have written, unless it is encrypted or holds a value that it has no form for. Or a `Codec` of
        your own.
    clock: Unix time in seconds, for the notes that `set` makes and for a driver that is opened here by URL.

    An id is `name~token`, as `session.id` has it, or any other text without a `~`. The name finds the record. A token
    must be that of the record, or the id is as good as unknown: it is an old one, replaced by a rotation.

    Every method that does I/O has an async twin with the prefix `a`, but `session_keys`, which is for commands.

    Attributes:
        owns_driver: whether `close` closes the driver; True if it was opened here.

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
        codec: Codec | CodecName = "json",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.ttl = ttl if ttl is None or callable(ttl) else _duration(ttl)
        self.prefix = _prefix(prefix)
        self.hash_ids = hash_ids
        self.codec: Codec = make_codec(codec)
        self.clock = clock
        if isinstance(driver, str):
            _check_driver_url(driver)
        self.owns_driver = isinstance(driver, str)
        self.driver = open_driver(driver, clock=clock) if isinstance(driver, str) else driver
        if not isinstance(self.driver, Driver):
            raise ConfigError(f"a store needs a Driver or a URL, not {type(driver).__name__}")
        self.use(self.driver)
        self._last_key: tuple[str | None, str] = None, ""
        rest = "[0-9a-f]{64}" if hash_ids else f"(?!{SEPARATOR})[^:]*"
        self._ours = re.compile(re.escape(self.prefix) + f":({rest})").fullmatch
        self._index = re.compile(re.escape(self.prefix) + f":{SEPARATOR}[0-9a-f]{{64}}").fullmatch

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.driver!r}, prefix={self.prefix!r})"

    @property
    def capabilities(self) -> Capabilities:
        """What the driver can do."""
        return self.driver.capabilities

    def reads_at_once(self) -> bool:
        """Whether a read would wait for nothing now, not even on an event loop."""
        return self.driver.reads_at_once()

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
        """Return the session with its version, or None. `CorruptEntry` if it cannot be decoded.

        renew: also let it live for another ttl, in the same call. Default False.
        """
        if SEPARATOR in sid:
            return run(self._read(self.blocking, sid, renew=renew))
        key, ttl = self._key(sid), self.ttl
        if not renew or ttl is None or callable(ttl):
            return self.record_at(self.driver.read(key), key)
        return self.record_at(self.driver.renew(key, ttl), key)

    async def aread(self, sid: str, *, renew: bool = False) -> Record | None:
        """Async twin of `read`."""
        return await self._read(self.native, sid, renew=renew)

    def set(self, sid: str, data: Mapping[str, Any], *, expect: object = ANY, ttl: float | None = None) -> object:
        """Store `data` and return its version, or None if its ttl is 0 or less: then the session is deleted.

        sid: of an id with a token, the notes in the record (when it was created, its token) stay as they are; if there
            is no record yet, new ones are made. `Conflict` if the record has another token. Of a text without a `~`,
            `data` take the place of the whole record: no cookie opens it any more.
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
        """Delete the session; False if it was not there.

        expect: a version deletes only what was read (else `Conflict`). Default: whatever is there.
        """
        return run(self._destroy(self.blocking, sid, expect))

    async def adestroy(self, sid: str, *, expect: object = ANY) -> bool:
        """Async twin of `destroy`."""
        return await self._destroy(self.native, sid, expect)

    def all(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield each session as `(name, data)`, one at a time.

        The name is that in its id, or the hash of it (`hash_ids`). A record that cannot be read is left out, with a
        warning in the log `session_kit`.
        """
        return iterate(self._all(self.blocking))

    def aall(self) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        """Async twin of `all`."""
        return self._all(self.native)

    def length(self) -> int:
        """Count the live sessions under this prefix."""
        return sum(1 for key in self.driver.keys(self.prefix + ":") if self._ours(key))

    async def alength(self) -> int:
        """Async twin of `length`."""
        count = 0
        async for key in self.driver.akeys(self.prefix + ":"):
            if self._ours(key):
                count += 1
        return count

    def clear(self) -> int:
        """Delete all sessions under this prefix, and nothing else; return how many."""
        return run(self._clear(self.blocking))

    async def aclear(self) -> int:
        """Async twin of `clear`."""
        return await self._clear(self.native)

    # --- the sessions of one user, which `Session.bind` files ---

    def sessions_of(self, user_id: UserId, *, current: str | Handled | None = None) -> list[SessionInfo]:
        """The live sessions of a user, the one that was used last first: the list of "your devices".

        current: the session of this request, or its id; it is marked in the list.
        Two calls of the driver, however many sessions the store holds, and a third if there is something to tidy up.

        >>> from session_kit import SessionManager
        >>> manager = SessionManager("memory://", secret="N3w-secret-of-at-least-32-characters!")
        >>> session = manager.open()
        >>> session.bind("ada", label="Firefox on Linux").save()
        >>> [(device.label, device.current) for device in manager.store.sessions_of("ada", current=session)]
        [('Firefox on Linux', True)]
        >>> manager.store.revoke("ada")
        1
        """
        return run(self.owners.sessions_of(self.blocking, owner_text(user_id), _handles(current)))

    async def asessions_of(self, user_id: UserId, *, current: str | Handled | None = None) -> list[SessionInfo]:
        """Async twin of `sessions_of`."""
        return await self.owners.sessions_of(self.native, owner_text(user_id), _handles(current))

    def revoke(self, user_id: UserId, *, keep: str | Handled | None = None) -> int:
        """End the sessions of a user, and return how many there were: "log out everywhere".

        keep: the session of this request, or its id; it stays.
        They are gone at their next request. After a new password or a theft, call it with `keep`.
        `UnreadableList`, which is answered as an outage, if the list is of a codec that this one cannot read.
        """
        return run(self.owners.revoke(self.blocking, owner_text(user_id), _handles(keep)))

    async def arevoke(self, user_id: UserId, *, keep: str | Handled | None = None) -> int:
        """Async twin of `revoke`."""
        return await self.owners.revoke(self.native, owner_text(user_id), _handles(keep))

    def revoke_one(self, handle: str, *, owner: UserId | None = None) -> bool:
        """End the session with that handle; False if there is none.

        owner: only if it is one of this user's. Give it where the handle comes from a browser.
        """
        return run(self.owners.revoke_one(self.blocking, handle, None if owner is None else owner_text(owner)))

    async def arevoke_one(self, handle: str, *, owner: UserId | None = None) -> bool:
        """Async twin of `revoke_one`."""
        return await self.owners.revoke_one(self.native, handle, None if owner is None else owner_text(owner))

    def close(self) -> None:
        """Close the driver if this store opened it. Idempotent."""
        if self.owns_driver:
            self.driver.close()

    async def aclose(self) -> None:
        """Async twin of `close`."""
        if self.owns_driver:
            await self.driver.aclose()

    def key(self, sid: str) -> str:
        """The driver's key for a session id; the token in it does not matter."""
        return self._key(split_id(sid)[0])

    def with_codec(self, codec: Codec | CodecName) -> Self:
        """Return this store with another codec, on the same driver."""
        other = copy(self)
        other.codec = make_codec(codec)
        return other

    def use(self, driver: Driver) -> None:
        """Make all calls of this driver from now on: another, or one around it."""
        self.driver, self.blocking, self.native = driver, Blocking(driver), Native(driver)

    # --- for the indexes of owners ---

    @property
    def owners(self) -> Owners:
        """The indexes of owners."""
        return Owners(self)

    def index_key(self, owner: str) -> str:
        """The driver's key for the index of an owner. No name holds the sign that it begins with."""
        return f"{self.prefix}:{SEPARATOR}{sha256(owner.encode()).hexdigest()}"

    def key_of(self, filed_as: str) -> str:
        """The driver's key for a name, which is hashed already if this store hashes names."""
        return f"{self.prefix}:{filed_as}" if self.hash_ids else self._key(filed_as)

    # --- for operators, who see no names ---

    def session_keys(self, beginning: str = "") -> Iterator[str]:
        """The driver's keys of the live sessions, one at a time.

        beginning: only those that go on so behind the prefix. A store that hashes names has the handle there.
        """
        return (key for key in self.driver.keys(f"{self.prefix}:{beginning}") if self._ours(key))

    def handle_of(self, key: str) -> str:
        """What names the session under this key for other people: the hash of the name in its id.

        >>> store = UnstorageSessionStore("memory://", hash_ids=False)
        >>> store.handle_of(store.key("some-id")) == hash_id("some-id")
        True
        """
        name = key[len(self.prefix) + 1 :]
        return name if self.hash_ids else hash_id(_unescape(name))

    # --- for the session layer, which checks tokens itself ---

    def ttl_of(self, data: Mapping[str, Any]) -> float | None:
        """The seconds that a session with `data` lives; None for ever; 0 or less if it is over."""
        return self.ttl(data) if callable(self.ttl) else self.ttl

    # --- written once for blocking and async code: `io` has the blocking or the native calls of the driver ---

    async def prepare_by(self, io: Any) -> None:
        """Let the driver find out what its backend can do; `capabilities` is final then."""
        await io.prepare()

    async def read_by(self, io: Any, name: str, *, renew: bool = False) -> Record | None:
        """The record of that name; `renew` as in `read`. `CorruptEntry`, with its version, if it cannot be decoded."""
        key, ttl = self._key(name), self.ttl
        renewing = renew and ttl is not None and not callable(ttl)
        return self.record_at(await (io.renew(key, ttl) if renewing else io.read(key)), key)

    def set_by(
        self, io: Any, name: str, fields: Mapping[str, Raw], *, expect: object = ANY, ttl: float | None
    ) -> Coroutine[Any, Any, object]:
        """`set` of encoded values, for so many seconds or, if None, for ever."""
        key = self._key(name)
        setting: Coroutine[Any, Any, object] = io.set(key, self.codec.pack(fields, key), ttl=ttl, expect=expect)
        return setting

    def put(self, name: str, fields: Mapping[str, Raw], *, expect: object = ANY, ttl: float | None) -> object:
        """`set_by`, blocking and without a coroutine."""
        key = self._key(name)
        return self.driver.set(key, self.codec.pack(fields, key), ttl=ttl, expect=expect)

    def destroy_by(self, io: Any, name: str, *, expect: object = ANY) -> Coroutine[Any, Any, bool]:
        """Delete a record."""
        deleting: Coroutine[Any, Any, bool] = io.delete(self._key(name), expect=expect)
        return deleting

    async def _get(self, io: Any, sid: str) -> dict[str, Any] | None:
        record = await self._read(io, sid)
        return None if record is None else record.data

    async def _read(self, io: Any, sid: str, *, renew: bool = False) -> Record | None:
        name, token = split_id(sid)
        record = await self.read_by(io, name, renew=renew)
        return None if record is None or (token and token != _token_in(record)) else record

    async def _set(self, io: Any, sid: str, data: Mapping[str, Any], expect: object, ttl: float | None) -> object:
        name, token = split_id(sid)
        if ttl is None:
            ttl = self.ttl_of(data)
        if ttl is not None and ttl <= 0:
            await self._destroy(io, sid, expect)
            return None
        # Without a token the notes are part of the data, for a store of the user's own that passes them on.
        fields = {
            key if key == RESERVED and not token else check_name(key): self.codec.dump(value, key)
            for key, value in data.items()
        }
        if token:
            return await self._set_proved(io, name, token, fields, expect, ttl)
        return await self.set_by(io, name, fields, expect=expect, ttl=ttl)

    async def _set_proved(
        self, io: Any, name: str, token: str, fields: Mapping[str, Raw], expect: object, ttl: float | None
    ) -> object:
        """Write `fields` beside the notes in the record, if its token is this one, or beside new ones."""
        await io.prepare()
        for attempt in range(MAX_ATTEMPTS):
            record = None if expect is ABSENT else await self.read_by(io, name)
            if record is None:
                notes = self.codec.encode(Notes(self.clock(), token=token))
                seen: object = ABSENT if self.capabilities.create else ANY
            elif _token_in(record) == token:
                notes = record.fields[RESERVED]
                seen = record.version if self.capabilities.swap else ANY
            else:
                raise Conflict(f"session {hash_id(name)}: the id was replaced by a rotation; nothing was written")
            try:
                return await self.set_by(
                    io, name, {RESERVED: notes, **fields}, expect=seen if expect is ANY else expect, ttl=ttl
                )
            except Conflict:
                if expect is not ANY:
                    raise
                await let_racers_part(io, attempt)
        raise Conflict(f"session {hash_id(name)}: {MAX_ATTEMPTS} writes in a row were overtaken; nothing was written")

    async def _touch(self, io: Any, sid: str, data: Mapping[str, Any] | None) -> bool:
        name, token = split_id(sid)
        asks = callable(self.ttl) and data is None
        if token or asks:
            record = await self._read(io, sid)
            if record is None:
                return False
            if asks:
                data = record.data
        ttl = self.ttl_of({} if data is None else data)
        if ttl is not None and ttl <= 0:
            await self.destroy_by(io, name)
            return False
        touched: bool = await io.touch(self._key(name), ttl)
        return touched

    async def _destroy(self, io: Any, sid: str, expect: object) -> bool:
        name, token = split_id(sid)
        if token and await self._read(io, sid) is None:
            return False
        return await self.destroy_by(io, name, expect=expect)

    async def _all(self, io: Any) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        async for key in io.keys(self.prefix + ":"):
            found = self._ours(key)
            if found is None:
                continue
            name = found[1] if self.hash_ids else _unescape(found[1])
            try:
                record = self.record_at(await io.read(key), key)
                data = None if record is None else record.data
            except (CorruptEntry, RecursionError) as error:
                hashed = name if self.hash_ids else hash_id(name)
                log.warning("session %s is left out, it cannot be read: %s", hashed, type(error).__name__)
                continue
            if data is not None:
                yield name, data

    async def _clear(self, io: Any) -> int:
        count = 0
        page: list[str] = []
        async for key in io.keys(self.prefix + ":"):
            if self._ours(key) or self._index(key):
                page.append(key)
                if len(page) == CLEAR_PAGE:
                    count += await self._clear_page(io, page)
                    page = []
        return count + await self._clear_page(io, page)

    async def _clear_page(self, io: Any, page: list[str]) -> int:
        """Delete sessions and indexes, and return how many sessions there were."""
        indexes = [key for key in page if self._index(key)]
        if indexes:
            await io.delete_many(indexes)
        sessions = [key for key in page if not self._index(key)] if indexes else page
        return await io.delete_many(sessions) if sessions else 0

    def record_at(self, entry: Entry | None, key: str) -> Record | None:
        """The record in an entry under that key of the driver; `CorruptEntry` if it cannot be decoded."""
        if entry is None:
            return None
        value, version, expires_at = entry
        try:
            # What Record(...) does, in a third of the time.
            return tuple.__new__(Record, (self.codec.unpack(value, key), version, expires_at, self.codec))
        except CorruptEntry as error:
            error.version = version
            raise

    def _key(self, name: str) -> str:
        last, key = self._last_key  # most names are asked for twice in a row: by a read, and by the write that follows
        if last != name:
            key = f"{self.prefix}:{sha256(name.encode()).hexdigest() if self.hash_ids else _escape(name)}"
            self._last_key = name, key
        return key


class Handled(Protocol):
    """What has a handle: a `Session`."""

    @property
    def id(self) -> str: ...
    @property
    def handle(self) -> str: ...


def _handles(session: str | Handled | None) -> frozenset[str]:
    """The handles of a session: where a rotation gives it another name, the old one and the new."""
    if session is None:
        return frozenset()
    return frozenset({hash_id(session)} if isinstance(session, str) else {hash_id(session.id), session.handle})


def _token_in(record: Record) -> str:
    notes = record.notes
    return "" if notes is None else notes.token


# A name holds no colon in its key, so that no key of a prefix looks like one of another that begins alike.


def _escape(name: str) -> str:
    return name.replace("%", "%25").replace(":", "%3A")


def _unescape(name: str) -> str:
    return name.replace("%3A", ":").replace("%25", "%")


def open_store(url: str, *, clock: Callable[[], float] = time.time) -> UnstorageSessionStore:
    """Open a session store by URL: `prefix`, `ttl` and `codec` are the store's options, the rest are the driver's.

    Raises `ConfigError` for anything that is wrong with the URL.

    >>> open_store("memory://?prefix=shop&ttl=7d").ttl
    604800.0
    """
    parts, query = split_url(url)
    own = {name: text for name, text in query if name in OWN_OPTIONS}
    if len(own) < sum(name in own for name, _ in query):
        raise ConfigError(f"{redact(parts)}: {', '.join(OWN_OPTIONS)} may be given once each")
    # Checked before the driver opens, so that nothing is made on disk for a URL that is wrong.
    try:
        options: dict[str, Any] = {name: OWN_OPTIONS[name](text) for name, text in own.items()}
    except ConfigError as error:
        raise ConfigError(f"{redact(parts)}: {error}") from None
    rest = [(name, text) for name, text in query if name not in own]
    driver = open_parts(parts, rest, clock=clock, also=OWN_OPTIONS)
    store = UnstorageSessionStore(driver, **options)
    store.owns_driver = True
    return store


def _check_driver_url(url: str) -> None:
    """Refuse the options of a store in the URL of a driver, and say where they belong."""
    parts, query = split_url(url)
    for name, _ in query:
        if name in OWN_OPTIONS:
            raise ConfigError(
                f"{redact(parts)}: {name} is given beside the URL here, as {name}=...; "
                "a URL that has it is opened by open_store"
            )


def with_ttl(url: str, ttl: float) -> str:
    """The URL of a store, with a ttl in seconds if it says none itself."""
    if any(name == "ttl" for name, _ in split_url(url)[1]):
        return url
    return f"{url}{'&' if '?' in url else '?'}ttl={ttl}"


def chooses_codec(store: object) -> bool:
    """Whether a store, or the URL of one, names a codec: then an integration leaves it at that."""
    if isinstance(store, str):
        return any(name == "codec" for name, _ in split_url(store)[1])
    return isinstance(store, UnstorageSessionStore) and type(store.codec) is not JSONCodec


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


OWN_OPTIONS: Final[Mapping[str, Callable[[str], object]]] = {
    "prefix": _prefix,
    "ttl": _duration,
    "codec": make_codec,
}
"""The options that a URL gives to the store; the rest are its driver's."""
