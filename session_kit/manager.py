"""Where a session comes from and what happens to it at the end of a request. Knows headers, but no framework."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any, TypedDict, TypeVar, Unpack, overload

from session_kit.codec import Codec, CodecName, make_codec
from session_kit.cookie import Cookie, CookieHeaders, CookieOptions, Signer, check_id, is_test_host
from session_kit.drivers.support.options import parse_duration, unknown_option
from session_kit.errors import ConfigError, CorruptEntry, DriverUnavailable, SessionError
from session_kit.headers import NO_SHARED_COOKIE, NO_STORE, VARY, Headers
from session_kit.lifecycle import Lifecycle
from session_kit.plain_store import PlainStore
from session_kit.policy import USER_KEYS, Event, OnError, OnReuse, Policy, WhenFull, log
from session_kit.record import random_name
from session_kit.schema import Schema, Upgrade
from session_kit.session import Session
from session_kit.state import AHEAD, BEGUN, ENDED, FAILED, REPLACED
from session_kit.store import SessionStore, UnstorageSessionStore, chooses_codec, open_store
from session_kit.transport import AUTHORIZATION, Transport, token_header

Secrets = str | bytes | Sequence[str | bytes]
Seconds = float | str | timedelta
PlainHost = Callable[..., str | None]
Cookies = str | bytes | Iterable[bytes | tuple[bytes, bytes]]
S = TypeVar("S", bound=Session[Any])


PLACE = "session_kit.session"
"""Where a middleware puts its session for what lies inside: in the scope of ASGI, or in the environ of WSGI."""
ASGI_SCOPE = "asgi.scope"
"""Where a2wsgi puts the scope of ASGI into the environ of an application that is mounted by it."""

FROM_ELSEWHERE = {
    **dict.fromkeys(
        ["max_age", "ttl", "lifetime", "session_lifetime", "expire", "expires", "cookie_age", "timeout"],
        """the store's ttl, as in store="redis://localhost?ttl=7d\"""",
    ),
    **dict.fromkeys(["prefix", "key_prefix"], """the store's prefix, as in store="redis://localhost?prefix=shop\""""),
    **dict.fromkeys(["secret_key", "secrets", "secret_keys"], "secret"),
    "key": "secret (or name, if the cookie's name is meant)",
    **dict.fromkeys(["session_cookie", "cookie_name", "session_name"], "name"),
    **dict.fromkeys(["backend", "session_store", "storage", "url", "redis_url"], "store"),
    **dict.fromkeys(["https_only", "secure", "cookie_https_only", "cookie_secure"], "cookie=CookieOptions(secure=...)"),
    **dict.fromkeys(["httponly", "http_only", "cookie_httponly"], "cookie=CookieOptions(httponly=...)"),
    **dict.fromkeys(
        ["same_site", "samesite", "cookie_samesite", "cookie_same_site"], "cookie=CookieOptions(samesite=...)"
    ),
    **dict.fromkeys(["domain", "cookie_domain"], "cookie=CookieOptions(domain=...)"),
    **dict.fromkeys(["path", "cookie_path"], "cookie=CookieOptions(path=...)"),
    **dict.fromkeys(["rolling", "refresh", "reissue_time"], "touch_after"),
    **dict.fromkeys(["serializer", "encoding"], "codec"),
}
"""What people who come from elsewhere call the options, and what to write in place of it."""


class ManagerOptions(TypedDict, total=False):
    """The optional parameters of `SessionManager`, for the middleware and integrations that pass them on."""

    name: str
    cookie: CookieOptions
    generate: Callable[[], Any] | None
    generate_id: Callable[[], str]
    save_uninitialized: bool
    touch_after: Seconds
    max_lifetime: Seconds | None
    rotation_grace: Seconds
    rotate_on: Collection[str]
    rotate_every: Seconds | None
    on_reuse: OnReuse
    remember: Seconds | None
    on_error: OnError
    on_event: Callable[[Event], None] | None
    data_type: type[Any] | None
    upgrade: Upgrade | None
    codec: Codec | CodecName | None
    transport: Transport
    header: str
    max_sessions: int | None
    when_full: WhenFull
    clock: Callable[[], float]


class SessionManager:
    """Opens sessions from request headers and commits them into response headers. Middleware is a thin layer over it.

    store: a URL (`open_store`), an `UnstorageSessionStore`, or any object with the four methods of `SessionStore`.
    secret: signs the cookies; at least 32 bytes. A list rotates secrets: *newest first*, the first signs, all verify.
    name: of the cookie. Default `"session"`. `__Host-session` is stricter, where there is https and one host.
    cookie: `CookieOptions`; the defaults are the safe ones.
    generate: returns the initial data of a new session, a mapping or a value of `data_type`. Default: empty.
    generate_id: returns a new, random name, the half of an id that stays; the other, 128 random bits, is made by the
        library. Default: 96 random bits, so that an id has 224 and 39 letters (OWASP asks for at least 64 bits).
    save_uninitialized: store a new session that a request has looked at and put nothing into. Default False.
    touch_after: seconds between two renewals of the cookie's lifetime. Default 300, at most a tenth of the ttl.
    max_lifetime: seconds after which a session ends even if it is in use. Default None, no limit.
    rotation_grace: seconds after a rotation in which a request with an old id is taken for a late one of the same
        browser: it finds an empty session, and no cookie is sent that could replace the new one. Default 10.
    rotate_on: keys of the data that say who is logged in. When one appears or changes its value, the session gets a new
        id by itself, so that an id from before a login is worth nothing after it; None, False and "" say that nobody
        is. Default: the usual names (`user`, `user_id`, `uid`, `username`, `_user_id` ...); an empty list turns it off.
    rotate_every: seconds after which the id of a session that is in use changes by itself. The id before it opens the
        session until the client has come with the new one and `rotation_grace` has passed, so that a lost response logs
        nobody out. Not on a store that cannot swap. Default None, not at all.
    on_reuse: what an id means that was replaced and whose grace is over, a sign of a stolen cookie: `"ignore"`
        (default), the event `reuse` and a new session; `"destroy"` also ends the session that it once opened. Let
        `rotation_grace` be longer then than a request takes to arrive, such as an upload that a proxy collects.
    remember: how long a session lives, unused, on which `session.remember()` was called. Default None: that cannot be
        called. With it, a read alone does not renew the expiry; the write that renews the cookie does.
    on_error: what happens if the store does not answer. `"raise"` (default): `DriverUnavailable`, which middleware
        answers with 503. `"anonymous"`: an empty session whose `unavailable` is True and which is never saved over the
        real one; changes that cannot be saved at the end of a request are dropped, with the event `store_error`. What
        the application asks for by name (`save`, `destroy`) raises nevertheless.
    on_event: called with an `Event` for what happens to sessions; it holds hashed ids only.
    data_type: the type of `session.data`: a msgspec `Struct`, a dataclass, a `TypedDict` or a pydantic model, checked
        when a session is loaded and at each change. A record that does not fit is left alone, and the visitor gets a
        fresh session, with the event `misfit`. Default None: any JSON object.
    upgrade: given the data of a record that does not fit (a dict), returns data that does. Default None.
    codec: `"json"`, `"json-lenient"`, `"json-tagged"` or a `Codec`, as for `UnstorageSessionStore`, in place of the
        store's. Default None: the store's, which refuses what JSON would change unless it is set otherwise.
    transport: what carries the session. `"cookie"` (default), `"header"` for mobile apps and clients of an API, or
        `"both"`: a request that has the header is answered in the header, and its cookies are not looked at.
    header: of requests, `"Authorization"` (default: `Authorization: Session <token>`, answered by `Session: <token>`)
        or a name of your own, for both ways, whose value is the token.
    max_sessions: how many sessions a user may have at a time, of those that `bind` has filed. Default None, no limit.
    when_full: what a login does that is one too many: `"end_oldest"` (default) ends the session that was begun first,
        `"refuse"` raises `TooManySessions` when the login is saved, which is at the end of the request unless the
        application calls `save`.
    clock: Unix time in seconds, for tests.

    How long an unused session lives is the store's `ttl`. Times may be text such as `"12h"`, or a `timedelta`.
    Raises `ConfigError` for anything that cannot work.

    >>> manager = SessionManager("memory://", secret="N3w-secret-of-at-least-32-characters!")
    >>> session = manager.open("theme=dark; session=forged.signature")
    >>> session.update(user="ada").is_new
    True
    >>> [name for name, value in manager.commit(session)]
    ['Vary', 'Set-Cookie', 'Cache-Control']
    """

    def __init__(
        self,
        store: str | UnstorageSessionStore | SessionStore,
        secret: Secrets,
        *,
        name: str = "session",
        cookie: CookieOptions = CookieOptions(),
        generate: Callable[[], Any] | None = None,
        generate_id: Callable[[], str] = random_name,
        save_uninitialized: bool = False,
        touch_after: Seconds = 300,
        max_lifetime: Seconds | None = None,
        rotation_grace: Seconds = 10,
        rotate_on: Collection[str] = USER_KEYS,
        rotate_every: Seconds | None = None,
        on_reuse: OnReuse = "ignore",
        remember: Seconds | None = None,
        on_error: OnError = "raise",
        on_event: Callable[[Event], None] | None = None,
        data_type: type[Any] | None = None,
        upgrade: Upgrade | None = None,
        codec: Codec | CodecName | None = None,
        transport: Transport = "cookie",
        header: str = AUTHORIZATION,
        max_sessions: int | None = None,
        when_full: WhenFull = "end_oldest",
        clock: Callable[[], float] = time.time,
    ) -> None:
        named = Cookie(name, cookie)
        signer = Signer(secret, name)
        carrier = token_header(transport, header)
        functions = {"generate": generate, "generate_id": generate_id, "on_event": on_event, "upgrade": upgrade}
        for option, value in (functions | {"clock": clock}).items():
            if value is not None and not callable(value):
                raise ConfigError(f"{option} must be a function, not a {type(value).__name__}")
        if not isinstance(save_uninitialized, bool):
            raise ConfigError(f"save_uninitialized must be True or False, not {save_uninitialized!r}")
        check_id(generate_id())
        # Before the store is opened, so that nothing is made on disk for a setting that is wrong.
        idle, grace = _seconds("touch_after", touch_after), _seconds("rotation_grace", rotation_grace)
        longest = None if max_lifetime is None else _seconds("max_lifetime", max_lifetime)
        every = None if rotate_every is None else _seconds("rotate_every", rotate_every)
        remembered = None if remember is None else _seconds("remember", remember)
        if every == 0 or remembered == 0:
            raise ConfigError("rotate_every and remember must be more than 0 seconds, or None")
        if on_reuse not in ("ignore", "destroy"):
            raise ConfigError(f"on_reuse must be 'ignore' or 'destroy', not {on_reuse!r}")
        if on_reuse == "destroy" and grace == 0:
            raise ConfigError("on_reuse='destroy' needs a rotation_grace, or requests that overlap end the session")
        if on_error not in ("raise", "anonymous"):
            raise ConfigError(f"on_error must be 'raise' or 'anonymous', not {on_error!r}")
        if max_sessions is not None and (type(max_sessions) is not int or max_sessions < 1):
            raise ConfigError(f"max_sessions must be a whole number of at least 1, or None, not {max_sessions!r}")
        if when_full not in ("end_oldest", "refuse"):
            raise ConfigError(f"when_full must be 'end_oldest' or 'refuse', not {when_full!r}")
        if upgrade is not None and data_type is None:
            raise ConfigError("upgrade needs data_type=..., the type that it upgrades to")
        chosen = None if codec is None else make_codec(codec)
        self._owns_store = isinstance(store, str)
        self._warned = False
        self.store: Any = open_store(store, clock=clock) if isinstance(store, str) else store
        if chosen is not None and isinstance(self.store, UnstorageSessionStore):
            self.store = self.store.with_codec(chosen)
        plain = self.store if isinstance(self.store, UnstorageSessionStore) else PlainStore(self.store, chosen)
        self.policy = Policy(
            plain,
            cookie=named,
            signer=signer,
            header=carrier,
            clock=clock,
            generate=generate,
            generate_id=generate_id if generate_id is random_name else lambda: check_id(generate_id()),
            save_uninitialized=save_uninitialized,
            touch_after=idle,
            max_lifetime=longest,
            rotation_grace=grace,
            rotate_every=every,
            on_reuse=on_reuse,
            remember=remembered,
            rotate_on=_names("rotate_on", rotate_on),
            on_error=on_error,
            on_event=on_event,
            schema=None if data_type is None else Schema(data_type, plain.codec, upgrade),
            max_sessions=max_sessions,
            when_full=when_full,
        )
        if every is not None and not self.policy.swaps:
            raise ConfigError(f"rotate_every needs a store that can write on a condition, which {self.store!r} cannot")
        if remembered is not None and isinstance(plain, PlainStore):
            raise ConfigError(
                f"remember needs a store that knows how long a session lives, which {self.store!r} does not"
            )
        self.vary = VARY
        """What a response says of which headers of the request it depends on."""
        if carrier is not None:
            self.vary = ("Vary", carrier.name if carrier.alone else f"Cookie, {carrier.name}")
        if data_type is not None:
            self._check_type(data_type)

    def __repr__(self) -> str:
        return f"SessionManager({self.store!r}, name={self.policy.cookie.name!r})"

    def __deepcopy__(self, memo: object) -> SessionManager:
        # Frameworks copy settings and middleware; the store behind them must stay one.
        return self

    @overload
    def open(self, cookies: Cookies = (), *, asynchronous: bool = False) -> Session: ...
    @overload
    def open(
        self,
        cookies: Cookies = (),
        *,
        asynchronous: bool = False,
        session_class: type[S],
    ) -> S: ...
    def open(
        self,
        cookies: Cookies = (),
        *,
        asynchronous: bool = False,
        session_class: type[Session[Any]] = Session,
    ) -> Session[Any]:
        """Return the session of a request. Nothing is verified or loaded before the session is touched.

        cookies: the `Cookie` header of the request, or several, or all its headers as ASGI has them, pairs of bytes:
            all, unless the transport is the cookie.
        asynchronous: made by async code; its blocking methods then refuse to run on the event loop.
        session_class: the class to make, for a framework that expects more of a session.
        """
        headers: CookieHeaders
        if isinstance(cookies, bytes):
            headers = ((b"cookie", cookies),) if cookies else ()
        elif isinstance(cookies, str):
            headers = ((b"cookie", cookies.encode(errors="replace")),)  # a cookie of ours is plain ASCII
        else:
            headers = [(b"cookie", item) if isinstance(item, bytes) else item for item in cookies]
        return session_class(self.begin(headers, asynchronous))

    def check_outer(self, around: Mapping[str, Any]) -> None:
        """Refuse to work inside a middleware whose sessions are carried like these. For middleware.

        around: the scope of ASGI, or the environ of WSGI, which may hold a scope of ASGI.
        Raises `ConfigError`: each of the two would undo what the other sends.
        """
        if PLACE not in around and ASGI_SCOPE not in around:
            return
        for outer in (around.get(PLACE), around.get(ASGI_SCOPE, {}).get(PLACE)):
            if outer is None or outer.lifecycle.phase in (ENDED, REPLACED):
                continue
            name, header, theirs = self.policy.cookie.name, self.policy.header, outer.lifecycle.policy
            if theirs.cookie.name == name:
                raise ConfigError(
                    f"sessions are installed twice for the cookie {name!r}; keep the outer ones, or give others a name="
                )
            if header is not None and theirs.header is not None and header.field == theirs.header.field:
                raise ConfigError(f"two session middlewares read the header {header.name!r}; give one another: header=")

    def credentials(self, environ: Mapping[str, Any], cookie: str | None = None) -> Cookies:
        """What a WSGI request says of its session, for `open`. For middleware.

        cookie: the `Cookie` header, if not that of `environ`.
        """
        # WSGI hands header values over as text decoded by latin-1 (PEP 3333).
        cookies = (environ.get("HTTP_COOKIE", "") if cookie is None else cookie).encode("latin-1", "replace")
        if b"," in cookies:
            cookies = self.policy.cookie.split_joined(cookies)
        header = self.policy.header
        if header is None or header.wsgi_key not in environ:
            return cookies
        return [cookies, *header.pairs([environ[header.wsgi_key]])]

    def commit(
        self, session: Session[Any], status: int = 200, plain_host: PlainHost | None = None, *request: Any
    ) -> Headers:
        """Save the session and return the headers to add to the response, before its first byte is sent.

        status: of the response. One of 5xx says that the request has failed: nothing is kept but what was saved or
            destroyed by name. A 500 after an outage that was raised to the application raises it again, for a 503.
        plain_host: called with what follows it, returns the host that was asked for if the request came over plain
            http, else None. The cookie goes without `Secure` to a host that can only be a test (`testserver`,
            `*.test`); for others a warning, once, says that clients which are no browsers do not send it back. Default:
            taken for https.
        A session that the request did not touch costs nothing and adds nothing.
        Raises `DriverUnavailable` if the store does not answer; nothing is lost in silence.
        """
        lifecycle = session.lifecycle
        if self._keeps(lifecycle, status) and lifecycle.due(ending=True):
            lifecycle.end_at_once()
        return self._headers(lifecycle, session, plain_host, request, status)

    async def acommit(
        self, session: Session[Any], status: int = 200, plain_host: PlainHost | None = None, *request: Any
    ) -> Headers:
        """Async twin of `commit`. If it is cancelled, a new id that nobody was sent is taken back."""
        lifecycle = session.lifecycle
        if self._keeps(lifecycle, status):
            await lifecycle.save_in_turn(ending=True)
        return self._headers(lifecycle, session, plain_host, request, status)

    def finish(self, session: Session[Any]) -> None:
        """At the very end of a request, save what was changed after `commit`, while the response was on its way.

        From now on a change raises. Raises `SessionError` if the client does not have the id and cannot be sent it any
        more; `DriverUnavailable`.
        """
        lifecycle = session.lifecycle
        # The end comes before the save: what another thread or task changed meanwhile would be in neither.
        begun = lifecycle.phase is BEGUN
        lifecycle.phase = ENDED
        if begun and lifecycle.touched and lifecycle.due(ending=True):
            lifecycle.end_at_once()

    async def afinish(self, session: Session[Any]) -> None:
        """Async twin of `finish`."""
        lifecycle = session.lifecycle
        begun, lifecycle.phase = lifecycle.phase is BEGUN, ENDED
        if begun and lifecycle.touched:
            await lifecycle.save_in_turn(ending=True)

    def revert(self, session: Session[Any]) -> None:
        """After a handler has raised, drop what it changed and did not save.

        What an error handler changes afterwards counts by the status that it answers with (`commit`).
        """
        session.lifecycle.revert()

    def refuse(self, session: Session[Any], plain_host: PlainHost | None = None, *request: Any) -> Headers:
        """The store does not answer, and the client is told so in place of the application's answer.

        Nothing is kept but what was saved or destroyed by name before; returns the headers that say so, and that no
        cache is to keep the answer.
        """
        lifecycle = session.lifecycle
        if lifecycle.outage is not None:
            self.policy.refused(lifecycle.outage)
            lifecycle.forget_steps()
        lifecycle.revert()
        headers = self._headers(lifecycle, session, plain_host, request) if lifecycle.phase is AHEAD else []
        lifecycle.phase = REPLACED
        return [*(header for header in headers if header[0] != "Cache-Control"), NO_STORE]

    async def apreload(self, session: Session[Any]) -> None:
        """Before an async handler, load what could not be loaded without waiting when the handler touches it.

        In an outage nothing is raised: a handler that never touches the session shall not notice.
        """
        if not self.policy.store.reads_at_once():
            with suppress(DriverUnavailable):
                await session.lifecycle.in_turn(session.lifecycle.load)
            session.lifecycle.forget_steps()

    def close(self) -> None:
        """Close the store if this manager opened it. Idempotent."""
        if self._owns_store:
            self.store.close()

    async def aclose(self) -> None:
        """Async twin of `close`."""
        if self._owns_store:
            await self.store.aclose()

    def _check_type(self, data_type: type[Any]) -> None:
        try:
            self.policy.draft(self.policy.first())
        except (CorruptEntry, SessionError) as error:
            raise ConfigError(
                f"a new {data_type.__name__} cannot be made: {error}; give defaults, or generate="
            ) from None

    def _keeps(self, lifecycle: Lifecycle, status: int) -> bool:
        """Whether the session is to be saved before the response begins."""
        if lifecycle.phase is not AHEAD:
            raise SessionError("the session was committed before; one request has one response")
        if status < 500 or not lifecycle.touched:
            return lifecycle.touched
        if status == 500 and lifecycle.outage is not None:
            raise lifecycle.outage
        lifecycle.revert()
        return False

    def _headers(
        self,
        lifecycle: Lifecycle,
        session: Session[Any],
        plain_host: PlainHost | None,
        request: tuple[Any, ...],
        status: int = 200,
    ) -> Headers:
        """What the response has to say of the session; from now on no cookie can be sent any more."""
        lifecycle.phase = BEGUN if status < 500 else FAILED
        if not lifecycle.touched:
            return []
        if lifecycle.outage is not None:
            lifecycle.forget_steps()
        due = lifecycle.cookie_is_due()
        if not due and not lifecycle.destroyed:
            return [self.vary]
        token = self.policy.signer.sign(lifecycle.id) if due and lifecycle.id is not None else ""
        header = self.policy.header
        if header is not None and lifecycle.header_token is not None:
            if token.encode() == lifecycle.header_token:
                return [self.vary]
            return [self.vary, (header.answer, token), NO_STORE]
        cookie = self.policy.cookie
        secure = plain_host is None or self._is_secure(plain_host(*request))
        if token:
            value = cookie.set_header(token, lifecycle.cookie_lifetime(), session.persistent, secure=secure)
        else:
            value = cookie.delete_header(secure=secure)
        return [self.vary, ("Set-Cookie", value), NO_SHARED_COOKIE]

    def begin(self, headers: CookieHeaders, asynchronous: bool) -> Lifecycle:
        """Begin a request: its headers as ASGI has them, and whether async code has made it. For middleware."""
        policy, header = self.policy, self.policy.header
        token = None if header is None else header.find(headers)
        if token is None:
            if header is None or not header.alone:
                return Lifecycle(policy, headers, asynchronous)
            token = b""
        # Read like the cookie in whose place it stands. Cookies that came beside it are left alone, so that no script
        # of a page learns from a header what an HttpOnly cookie holds.
        return Lifecycle(policy, policy.cookie.carrying(token) if token else (), asynchronous, header_token=token)

    def _is_secure(self, plain_host: str | None) -> bool:
        """Whether the cookie is to be sent with `Secure`, if the options say so."""
        if plain_host is None:
            return True
        if is_test_host(plain_host, surely=self.policy.cookie.needs_secure):
            return False
        if not self._warned and self.policy.cookie.options.secure:
            self._warned = True
            log.warning(
                "the session cookie is Secure, but a request came over plain http: browsers send it back to localhost "
                "alone, and httpx, requests and the like not at all. Use https (and let the proxy say so), or, while "
                "developing, cookie=CookieOptions(secure=False)"
            )
        return True


def plain_host_of(environ: dict[str, Any]) -> str | None:
    """The host that a WSGI request asked for if it came over plain http, else None (PEP 3333)."""
    if environ.get("wsgi.url_scheme") != "http":
        return None
    if "paste.testing" in environ:  # WebTest says so
        return "testserver"
    return str(environ.get("HTTP_HOST") or environ.get("SERVER_NAME", ""))


def choose_manager(
    caller: str,
    manager: SessionManager | None,
    store: Any,
    secret: Secrets,
    *also: str,
    **options: Unpack[ManagerOptions],
) -> SessionManager:
    """Return the manager that a middleware or an integration was given, or make one of what it was given in its place.

    caller: its name. also: as for `make_manager`.
    """
    if (manager is None) == (store is None) or (manager is not None and (secret or options)):
        raise ConfigError(f"{caller} needs store=... and secret=..., or a manager=... in their place")
    return manager or make_manager(store, secret, "manager", *also, **options)


def make_manager(
    store: Any,
    secret: Secrets,
    *also: str,
    usual_codec: CodecName | None = None,
    **options: Unpack[ManagerOptions],
) -> SessionManager:
    """Make the manager of a middleware or an integration; a misspelt option gets one clear line.

    also: the options that the caller itself takes, for that line.
    usual_codec: for a framework whose own sessions take more than JSON has: the codec if neither the options nor the
        store or its URL choose one.
    """
    valid = ManagerOptions.__annotations__
    for name in options:
        if name not in valid:
            raise unknown_option(name, ["store", "secret", *also, *valid], known=FROM_ELSEWHERE.get(name))
    if usual_codec is not None and options.get("codec") is None and not chooses_codec(store):
        options["codec"] = usual_codec
    return SessionManager(store, secret, **options)


def _seconds(name: str, value: Seconds) -> float:
    """A time as a number of seconds; unlike a ttl it may be 0."""
    try:
        return parse_duration(value, zero=True)
    except ValueError as error:
        raise ConfigError(f"{name}: {error}") from None


def _names(option: str, names: Collection[str]) -> frozenset[str]:
    if isinstance(names, str) or not isinstance(names, Iterable) or not all(isinstance(name, str) for name in names):
        raise ConfigError(f"{option} must be a list of keys, not {names!r}")
    return frozenset(names)
