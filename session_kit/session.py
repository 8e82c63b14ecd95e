"""The session as an application sees it: data like a dict, and methods that load, save, rotate and destroy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, Generic, Literal, cast, overload

from session_kit.draft import DictHabits, Draft, Updater
from session_kit.drivers.support.twins import on_event_loop, run
from session_kit.errors import SessionError, Unsupported
from session_kit.flash import FLASHES, Flash, pack, unpack
from session_kit.lifecycle import Lifecycle
from session_kit.owners import UserId, label_text, owner_text
from session_kit.record import Notes, hash_id
from session_kit.state import ENDED

if TYPE_CHECKING:
    from typing import Self

    from typing_extensions import TypeVar

    T = TypeVar("T", default=Mapping[str, Any])
else:
    from typing import TypeVar

    T = TypeVar("T")

MOST_DAYS = 36_500
"""The longest that a session can be remembered. A hundred years are for ever; much more overflows somewhere."""


class Session(DictHabits, MutableMapping[str, Any], Generic[T]):
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

    __slots__ = ("lifecycle",)

    def __init__(self, lifecycle: Lifecycle) -> None:
        self.lifecycle = lifecycle

    def loaded(self) -> Draft:
        """The data under edit, loaded first where that takes no waiting. For integrations."""
        lifecycle = self.lifecycle
        if not lifecycle.touched:
            lifecycle.touched = True
        return lifecycle.draft or lifecycle.loaded()

    def _changing(self) -> Draft:
        if self.lifecycle.phase is ENDED:
            raise SessionError("the request of this session has ended: what is changed now would be lost")
        return self.loaded()

    # --- what it is ---

    @property  # type: ignore[misc]
    def __class__(self) -> type[Any]:
        """dict, so that `isinstance(session, dict)` holds: packages ask, and lose what they would keep if not."""
        return dict

    @property
    def id(self) -> str:
        """The session's id: the name that finds its record, a `~`, and the token that each rotation changes.

        That of a new session is only made up when somebody asks, and useless until it is saved.
        """
        self.loaded()
        return self.lifecycle.current_id()

    @property
    def handle(self) -> str:
        """What names the session for other people, in lists, logs and events: the SHA-256 of the name in its id.

        It opens nothing and stays the same when the id changes, as far as the store can write on a condition.
        """
        self.loaded()
        stored = self.lifecycle.stored
        return hash_id(self.lifecycle.current_id() if stored is None else stored.name)

    @property
    def owner(self) -> str | None:
        """The user whose session it is, as text; None if nobody has said so by `bind`."""
        self.loaded()
        stored, pending = self.lifecycle.stored, self.lifecycle.pending
        owner = None if pending is None else pending.owner
        if owner is None and stored is not None:
            owner = stored.notes.owner
        return owner or None

    @property
    def is_new(self) -> bool:
        """Whether the session is not in the store yet."""
        self.loaded()
        return self.lifecycle.stored is None

    @property
    def data(self) -> T:
        """The data, read-only: change it through the session, with `update`, `set` or like a dict.

        With `data_type` it is a value of that type. What is changed inside it is saved too, but a change by key makes a
        new value, so ask for it again afterwards.
        """
        return cast(T, self.loaded().data)

    @property
    def created(self) -> float:
        """Unix time in seconds at which the session was first stored; it survives rotation. Of a new one: now."""
        self.loaded()
        stored, policy = self.lifecycle.stored, self.lifecycle.policy
        return policy.clock() if stored is None else stored.notes.created

    @property
    def age(self) -> float:
        """Seconds since the session was first stored; 0 for a new one."""
        return max(0.0, self.lifecycle.policy.clock() - self.created)

    @property
    def auth_age(self) -> float:
        """Seconds since the last change of rights, for asking for the password again before what matters (OWASP).

        That is when the id was last changed by a login (`rotate_on`, `bind`), `regenerate` or `clear`; not by
        `rotate_every`. Of a session without one: its `age`.
        """
        age, stored = self.age, self.lifecycle.stored
        if stored is None or not stored.notes.rotated:
            return age
        return max(0.0, self.lifecycle.policy.clock() - stored.notes.rotated)

    @property
    def expires_in(self) -> float | None:
        """Seconds until the session ends if it is not used again; None if it never does."""
        draft = self.loaded()
        stored, policy = self.lifecycle.stored, self.lifecycle.policy
        if stored is None or stored.expires_at is None:
            notes = Notes(policy.clock()) if stored is None else stored.notes
            return policy.lifetime(draft, notes, stored=True)
        ends = stored.expires_at
        if policy.max_lifetime is not None:
            ends = min(ends, stored.notes.created + policy.max_lifetime)
        return max(0.0, ends - policy.clock())

    @property
    def unavailable(self) -> bool:
        """Whether the store did not answer, so that this empty session stands in and is not saved (`on_error`)."""
        self.loaded()
        return self.lifecycle.unanswered

    @property
    def transport(self) -> Literal["cookie", "header"]:
        """What carries the session of this request. No I/O.

        `"header"`: no page of another site can make a browser send it, but for one that CORS lets in, so that the
        request needs no CSRF token.
        """
        return "cookie" if self.lifecycle.header_token is None else "header"

    @property
    def persistent(self) -> bool | None:
        """Whether this visitor's cookie outlives the browser's session; None: as `CookieOptions` say."""
        stored = self.lifecycle.stored
        remember = 0.0 if stored is None else stored.notes.remember
        return None if remember == 0 else remember > 0

    def __repr__(self) -> str:
        draft = self.lifecycle.draft
        if draft is None:
            return "<Session not loaded>"
        return f"<Session {'new' if self.lifecycle.stored is None else 'stored'}, {len(draft.fields)} keys>"

    # --- changing the data ---

    @overload  # type: ignore[override]  # unlike a dict's it takes an updater too, and returns the session
    def update(self, changes: Mapping[str, Any] | Iterable[tuple[str, Any]], /, **values: Any) -> Self: ...
    @overload
    def update(self, changes: Callable[[T], Mapping[str, Any] | T], /, **values: Any) -> Self: ...
    @overload
    def update(self, /, **values: Any) -> Self: ...
    def update(self, changes: Any = None, /, **values: Any) -> Self:
        """Merge changes into the data and return the session.

        changes: a mapping, pairs of key and value, or a function that is given the data (read-only) and returns what to
            merge; with `data_type` it may return a value of that type. If another request saves first, the function
            runs again on what that one wrote: let it depend on its argument alone.
        values: keys to set.
        Raises `SessionError` for a value that cannot be stored without changing it.
        """
        draft = self._changing()
        if callable(changes):
            draft.apply(cast(Updater, changes))
        elif changes:
            values = {**dict(changes), **values}
        if values:
            draft.put_all(values)
        return self

    def set(self, data: Mapping[str, Any] | T) -> Self:
        """Replace all data and return the session. `SessionError` for a value that cannot be stored."""
        self._changing().replace(cast(Mapping[str, Any], data))
        return self

    def __getitem__(self, key: str) -> Any:
        return self.loaded()[key]

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value of `key`, or `default` if it is not there."""
        return self.loaded().get(key, default)

    def __setitem__(self, key: str, value: Any) -> None:
        self._changing().put(key, value)

    def __delitem__(self, key: str) -> None:
        self._changing().drop(key)

    def setdefault(self, key: str, default: Any = None) -> Any:
        """Return the value of `key`; if it is not there, set it to `default`, unless another request was faster."""
        draft = self._changing()
        draft.default(key, default)
        return draft[key]

    def popitem(self) -> tuple[str, Any]:
        """Take out the key that was set last, and return it with its value. `KeyError` if there is none."""
        key = next(reversed(self), None)
        if key is None:
            raise KeyError("popitem(): the session is empty")
        return key, self.pop(key)

    def __contains__(self, key: object) -> bool:
        return key in self.loaded().fields

    def __iter__(self) -> Iterator[str]:
        return iter(list(self.loaded().fields))

    def __len__(self) -> int:
        return len(self.loaded().fields)

    def __ior__(  # type: ignore[override]  # `|` makes a dict, `|=` changes the session
        self, other: Mapping[str, Any] | Iterable[tuple[str, Any]]
    ) -> Self:
        return self.update(other)

    def clear(self) -> None:
        """Make a fresh start: drop all data, and the id with it.

        What is set afterwards is kept under a new id. A session that is still empty at the end of the request is
        destroyed, and its cookie deleted. Applications that were written for the cookie sessions of Starlette or Flask
        log in and out with it, and count on that. So it raises `DriverUnavailable` if the store did not answer when the
        session was to be loaded, also with `on_error="anonymous"`: no logout is reported that did not happen.
        """
        self._changing()
        self._answered().clear()

    # --- flash messages ---

    def flash(self, message: Any, category: str = "message") -> None:
        """Leave a message for the visitor, to be shown on a later page: usually the one after a redirect.

        message: text, or what else the codec stores. Safe HTML (`Markup`) comes back as such.
        category: what kind of message it is, such as `"info"` or `"error"`. Default `"message"`.
        Raises `SessionError` for what cannot be stored, if something else is kept under `_flashes`, or if `data_type`
        is a type that forbids unknown fields.

        >>> from session_kit import SessionManager
        >>> session = SessionManager("memory://", secret="N3w-secret-of-at-least-32-characters!").open()
        >>> session.flash("Saved", "info")
        >>> session.flashes()
        [Flash(category='info', message='Saved')]
        >>> session.flashes()
        []
        """
        draft, packed = self._changing(), pack(category, message)
        for item in draft.list_at(FLASHES):
            unpack(item)
        draft.extend(FLASHES, packed)

    def flashes(self, *categories: str) -> list[Flash]:
        """Take the messages out of the session, the oldest first: each is a pair of `category` and `message`.

        categories: take these alone, and leave the others. Default: all.
        They are gone once this request is saved. One that fails leaves them for the next; a message that is flashed
        meanwhile is left too. Of two requests that take them at the same time both may show a message; none is lost.
        """
        if FLASHES not in self.loaded().fields:
            return []
        taken = self._changing().take(FLASHES, lambda item: unpack(item).category in categories or not categories)
        return [unpack(item) for item in taken]

    # --- I/O, and its async twins ---

    def load(self, *, touch: bool = True) -> Self:
        """Load the session now if it is not loaded yet, and return it. One round trip if a cookie verifies.

        touch: False if this request shall not count as use, such as one that a page makes by itself every minute: it
            renews neither the session nor its cookie, and what it writes expires when the session would have; but a
            login, or `remember`, is a use. To be said at the first use of the session. Default True.
        Raises `SessionError` if the session is loaded and was renewed by that; `DriverUnavailable`.
        """
        self._check_mode("load")
        if not touch:
            self.lifecycle.spare()
        self.loaded()
        return self

    async def aload(self, *, touch: bool = True) -> Self:
        """Async twin of `load`. Tasks of one request that wait for it share one load."""
        lifecycle = self.lifecycle
        lifecycle.touched = True
        if not touch:
            lifecycle.spare()
        if lifecycle.draft is None:
            await lifecycle.load_in_turn()
        return self

    def save(self) -> None:
        """Write what changed, if anything did. Middleware calls it at the end of a request.

        One conditional write. If another request saved meanwhile: read again, replay the changes, write again. If
        another request destroyed the session, the changes are dropped and it stays destroyed. If another request
        rotated its id, the changes are merged, but this request goes on seeing what it had.
        Raises `DriverUnavailable`, and can be repeated then; `SessionError` for a value that was changed in place into
        one that cannot be stored; `Conflict` if others were faster a hundred times in a row.
        """
        self._check_mode("save")
        lifecycle = self._answered()
        if lifecycle.save_is_due():
            run(lifecycle.save(lifecycle.policy.store.blocking))

    async def asave(self) -> None:
        """Async twin of `save`. Saves of several tasks queue up; what changes meanwhile is left to the next one."""
        await self._answered().save_in_turn(ending=False)

    def reload(self) -> Self:
        """Drop what was not saved, read the session again and return it."""
        self._check_mode("reload")
        run(self.lifecycle.reload(self.lifecycle.policy.store.blocking))
        return self

    async def areload(self) -> Self:
        """Async twin of `reload`."""
        await self.lifecycle.in_turn(self.lifecycle.reload)
        return self

    def destroy(self) -> None:
        """Delete the session from the store, at once, and its cookie with the response.

        What is set afterwards goes into a new session with a new id, so that a farewell message is possible.
        """
        self._check_mode("destroy")
        lifecycle = self._ending()
        run(lifecycle.destroy(lifecycle.policy.store.blocking))

    async def adestroy(self) -> None:
        """Async twin of `destroy`."""
        await self._ending().in_turn(self.lifecycle.destroy)

    def regenerate(self, *, clear: bool = False) -> Self:
        """Give the session a new id, and return it. Do so at each change of rights, such as a login (OWASP).

        It happens with the save, by one conditional write: the record stays, its token changes. So a request that fails
        has logged nobody in or out, and from then on the old id opens nothing. For `rotation_grace` seconds a request
        that still comes with it finds an empty session and leaves the cookie alone; then the old id is unknown.
        Where a key of `rotate_on` changes, as at most logins, it happens by itself.

        clear: drop the data too. Default False.
        Raises `SessionError` if the response has begun, so that no cookie can be sent.
        """
        self._check_mode("regenerate")
        return self._rotate(clear=clear)

    async def aregenerate(self, *, clear: bool = False) -> Self:
        """Async twin of `regenerate`."""
        await self.aload()
        return self._rotate(clear=clear)

    def bind(self, user_id: UserId, *, label: str = "") -> Self:
        """Say whose session it is, at a login, and return it. It gets a new id, as by `regenerate`.

        From then on it is in `store.sessions_of(user_id)`, and `store.revoke(user_id)` ends it (OWASP ASVS 5.0, 7.4 and
        7.5). It happens with the save, which takes two calls of the store more; so does a logout.

        user_id: text, a whole number or a UUID; kept as text.
        label: what the user is to recognise the session by, such as the name of the device; at most 500 characters.
        Raises `SessionError` for another type, or if the response has begun; `Unsupported` on a store with only the
        four methods of `SessionStore`. The save raises `TooManySessions` with `when_full="refuse"`.

        >>> from session_kit import SessionManager
        >>> session = SessionManager("memory://", secret="N3w-secret-of-at-least-32-characters!").open()
        >>> session.bind(42, label="Firefox on Linux").owner
        '42'
        """
        self._check_mode("bind")
        return self._bind(owner_text(user_id), label_text(label))

    async def abind(self, user_id: UserId, *, label: str = "") -> Self:
        """Async twin of `bind`."""
        await self.aload()
        return self._bind(owner_text(user_id), label_text(label))

    def remember(self, days: float | None = None) -> Self:
        """Let the session outlive the browser's, for so long without use, and return it: "remember me" at a login.

        days: default the manager's `remember`. 0: the cookie ends with the browser's session, as on a shared computer;
            the record lives as the store says.
        It stays so through rotations, until `clear` or the next call. The save writes it and sends the cookie.
        Raises `SessionError` if the manager has no `remember`, or for days below 0 or above 36,500.

        >>> from session_kit import SessionManager
        >>> secret = "N3w-secret-of-at-least-32-characters!"
        >>> manager = SessionManager("memory://?ttl=2h", secret, remember="30d")
        >>> session = manager.open().update(user="ada").remember()
        >>> dict(manager.commit(session))["Set-Cookie"].partition("; ")[2][:15]
        'Max-Age=2592300'
        """
        self._check_mode("remember")
        return self._remember(days)

    async def aremember(self, days: float | None = None) -> Self:
        """Async twin of `remember`."""
        await self.aload()
        return self._remember(days)

    async def still_valid(self) -> bool:
        """Ask the store whether the session still lives: not destroyed, expired or rotated elsewhere.

        After a login or another rotation by another request it does so for `rotation_grace` seconds more, if it is not
        ended by then; a rotation by time leaves it valid.

        For connections that outlive a request, such as WebSockets, before they act for the visitor. One read, which
        does not count as use; what was loaded and changed here stays as it is. Raises `DriverUnavailable`.
        """
        self.lifecycle.touched = True
        return await self.lifecycle.in_turn(self.lifecycle.still_valid)

    def _rotate(self, *, clear: bool) -> Self:
        self._changing()
        if clear:
            self.lifecycle.wipe()
        self.lifecycle.rotate()
        return self

    def _bind(self, owner: str, label: str) -> Self:
        self._changing()
        if self.lifecycle.policy.owners is None:
            raise Unsupported("bind needs an UnstorageSessionStore; this store has only get, set, touch and destroy")
        self.lifecycle.bind(owner, label)
        return self

    def _remember(self, days: float | None) -> Self:
        self._changing()
        self.lifecycle.remember(_seconds_of(days, self.lifecycle.policy.remember))
        return self

    # --- guards ---

    def _check_mode(self, name: str) -> None:
        if self.lifecycle.asynchronous and on_event_loop():
            raise SessionError(f"this session belongs to an async request: use `await session.a{name}()`")

    def _answered(self) -> Lifecycle:
        if self.lifecycle.unanswered:
            raise self.lifecycle.no_answer()
        return self.lifecycle

    def _ending(self) -> Lifecycle:
        lifecycle = self.lifecycle
        if lifecycle.phase is ENDED:
            raise SessionError("the request of this session has ended: it cannot be destroyed any more")
        lifecycle.touched = True
        return lifecycle


def _seconds_of(days: float | None, usual: float | None) -> float:
    """How long a session is to be remembered, as `Notes.remember`."""
    if days == 0:
        return -1.0
    if usual is None:
        raise SessionError(
            'this needs the setting remember="30d", beside the store: without it a read would cut a long life short'
        )
    if days is None:
        return usual
    if type(days) not in (int, float) or not 0 < days <= MOST_DAYS:
        raise SessionError(f"days must be a number from 0 to {MOST_DAYS}")
    return days * 86400.0
