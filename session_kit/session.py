"""The session as an application sees it: data like a dict, and methods that load, save, rotate and destroy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, Generic, cast, overload

from session_kit.draft import Updater
from session_kit.drivers import ABSENT
from session_kit.drivers.twins import run
from session_kit.errors import SessionError
from session_kit.lifecycle import Lifecycle, on_event_loop

if TYPE_CHECKING:
    from typing import Self

    from typing_extensions import TypeVar

    T = TypeVar("T", default=Mapping[str, Any])
else:
    from typing import TypeVar

    T = TypeVar("T")


class Session(Lifecycle, MutableMapping[str, Any], Generic[T]):
    """The session of one visitor during one request. Middleware makes it; `SessionManager.open` does without one.

    It behaves like a dict whose changes are kept as changes: saving writes only what changed, and if another request
    saved first, the changes are replayed on what that request wrote, so that neither loses anything. Nothing is loaded
    before it is asked for, and an empty new session is neither stored nor given a cookie.

    >>> from session_kit import SessionManager
    >>> manager = SessionManager("memory://", secret="N3w-secret-of-at-least-32-characters!")
    >>> session = manager.open()
    >>> session["user"] = "ada"
    >>> session.update(lambda data: {"visits": data.get("visits", 0) + 1})
    <Session new, 2 keys>
    >>> session.save()
    >>> dict(session)
    {'user': 'ada', 'visits': 1}
    """

    __slots__ = ()

    # --- what it is ---

    @property
    def id(self) -> str:
        """The session's id. That of a new session is only made up when somebody asks, and useless until it is saved."""
        return self._current_id()

    @property
    def is_new(self) -> bool:
        """Whether the session is not in the store yet."""
        self._loaded()
        return self._version is ABSENT

    @property
    def data(self) -> T:
        """The data, read-only: change it through the session, with `update`, `set` or like a dict.

        With `data_type` it is a value of that type. What is changed inside it is saved too, but a change by key makes a
        new value, so ask for it again afterwards.
        """
        return cast(T, self._loaded().data)

    @property
    def created(self) -> float:
        """Unix time in seconds at which the session began; it survives rotation."""
        self._loaded()
        return self._created

    @property
    def expires_in(self) -> float | None:
        """Seconds until the session ends if it is not used again; None if it never does."""
        draft = self._loaded()
        now = self._policy.clock()
        if self._expires_at is None or self.is_new:
            return self._policy.lifetime(draft, self._created, stored=True)
        ends = self._expires_at
        if self._policy.max_lifetime is not None:
            ends = min(ends, self._created + self._policy.max_lifetime)
        return max(0.0, ends - now)

    @property
    def unavailable(self) -> bool:
        """Whether the store did not answer, so that this empty session stands in and is not saved (`on_error`)."""
        self._loaded()
        return self._failed

    def __repr__(self) -> str:
        draft = self._draft_or_none
        if draft is None:
            return "<Session not loaded>"
        return f"<Session {'new' if self._version is ABSENT else 'stored'}, {len(draft.fields)} keys>"

    # --- changing the data ---

    @overload  # type: ignore[override]  # unlike a dict's it takes an updater too, and returns the session
    def update(self, changes: Mapping[str, Any], /, **values: Any) -> Self: ...
    @overload
    def update(self, changes: Callable[[T], Mapping[str, Any] | T], /, **values: Any) -> Self: ...
    @overload
    def update(self, /, **values: Any) -> Self: ...
    def update(self, changes: Any = None, /, **values: Any) -> Self:
        """Merge changes into the data and return the session.

        changes: a mapping, or a function that is given the data (read-only) and returns what to merge; with `data_type`
            it may return a value of that type. If another request saves first, the function runs again on what that
            one wrote: let it depend on its argument alone.
        values: keys to set.
        Raises `SessionError` for a value that cannot be stored without changing it.
        """
        draft = self._loaded()
        if callable(changes):
            draft.apply(cast(Updater, changes))
        else:
            values = {**changes, **values} if changes else values
        if values:
            draft.put_all(values)
        return self

    def set(self, data: Mapping[str, Any] | T) -> Self:
        """Replace all data and return the session. `SessionError` for a value that cannot be stored."""
        self._loaded().replace(cast(Mapping[str, Any], data))
        return self

    def __getitem__(self, key: str) -> Any:
        return self._loaded()[key]

    def get(self, key: str, default: Any = None, /) -> Any:
        """Return the value of `key`, or `default` if it is not there."""
        return self._loaded().get(key, default)

    def __setitem__(self, key: str, value: Any) -> None:
        self._loaded().put(key, value)

    def __delitem__(self, key: str) -> None:
        self._loaded().drop(key)

    def setdefault(self, key: str, default: Any = None, /) -> Any:
        """Return the value of `key`; if it is not there, set it to `default`, unless another request was faster."""
        draft = self._loaded()
        draft.default(key, default)
        return draft[key]

    def __contains__(self, key: object) -> bool:
        return key in self._loaded().fields

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._loaded().fields))

    def __len__(self) -> int:
        return len(self._loaded().fields)

    def __ior__(self, other: Mapping[str, Any]) -> Self:
        return self.update(other)

    def clear(self) -> None:
        """Delete all keys. The session stays; `destroy` ends it."""
        self._loaded().replace({})

    # --- I/O, and its async twins ---

    def load(self) -> Self:
        """Load the session now if it is not loaded yet, and return it. One round trip if a cookie verifies."""
        self._check_colour("load")
        self._loaded()
        return self

    async def aload(self) -> Self:
        """Async twin of `load`."""
        self._used = True
        await self._load(self._policy.store.native)
        return self

    def save(self) -> None:
        """Write what changed, if anything did. Middleware calls it at the end of a request.

        One conditional write. If another request saved meanwhile: read again, replay the changes, write again. If
        another request destroyed the session, the changes are dropped and it stays destroyed.
        Raises `DriverUnavailable`; `SessionError` for a value that was changed in place into one that cannot be stored.
        """
        self._check_colour("save")
        run(self._save(self._policy.store.blocking))

    async def asave(self) -> None:
        """Async twin of `save`."""
        await self._save(self._policy.store.native)

    def reload(self) -> Self:
        """Drop what was not saved, read the session again and return it."""
        self._check_colour("reload")
        run(self._reload(self._policy.store.blocking))
        return self

    async def areload(self) -> Self:
        """Async twin of `reload`."""
        await self._reload(self._policy.store.native)
        return self

    def destroy(self) -> None:
        """Delete the session from the store, at once, and its cookie with the response.

        What is set afterwards goes into a new session with a new id, so that a farewell message is possible.
        """
        self._check_colour("destroy")
        run(self._destroy(self._policy.store.blocking))

    async def adestroy(self) -> None:
        """Async twin of `destroy`."""
        await self._destroy(self._policy.store.native)

    def regenerate(self, *, clear: bool = False) -> Self:
        """Give the session a new id, and return it. Do so at each change of rights, such as a login (OWASP).

        It happens with the save: the new record is written before the old one goes, so that a request that fails has
        logged nobody out. For `rotation_grace` seconds requests that are on their way with the old id still find the
        session; then the old id is dead.

        clear: drop the data too. Default False.
        """
        self._check_colour("regenerate")
        self._regenerate(clear)
        return self

    async def aregenerate(self, *, clear: bool = False) -> Self:
        """Async twin of `regenerate`."""
        await self.aload()
        self._regenerate(clear)
        return self

    async def still_valid(self) -> bool:
        """Ask the store whether the session still lives: not destroyed, expired or left behind by a rotation elsewhere.

        For connections that outlive a request, such as WebSockets, before they act for the visitor. One read, which
        does not count as use; what was loaded and changed here stays as it is. Raises `DriverUnavailable`.
        """
        return await self._still_valid(self._policy.store.native)

    # --- guards ---

    def _check_colour(self, name: str) -> None:
        if self._asynchronous and on_event_loop():
            raise SessionError(f"this session belongs to an async request: use `await session.a{name}()`")
