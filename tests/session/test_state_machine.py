"""Random programs of requests against a model: two browsers, a thief with their old cookies, and time that passes.

`Model` says in plain Python what must be there after each step; it knows no token and no record of the library. Where
the promise is a span, such as "lives so long, and a tenth more at the most", it takes either. With `-s` the number of
steps is printed.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from session_kit import DriverUnavailable, Session, SessionManager, TooManySessions, UnstorageSessionStore
from session_kit.drivers import Driver
from session_kit.drivers.memory import MemoryDriver
from session_kit.drivers.sqlite import SQLiteDriver
from session_kit.testing import FaultyDriver, ManualClock
from session_kit.testing.caller import Caller
from tests.harness.sessions import SECRET

TTL, TOUCH_AFTER, GRACE, EVERY, LIMIT, REMEMBER = 1000.0, 100.0, 10.0, 50.0, 1500.0, 5000.0
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "rotating": {"rotate_every": EVERY, "on_reuse": "destroy"},
    "limited": {"rotate_every": 8 * EVERY, "max_lifetime": LIMIT, "max_sessions": 1},
    "remembering": {"remember": REMEMBER, "max_sessions": 2},
    "refusing": {"max_sessions": 2, "when_full": "refuse", "on_error": "anonymous"},
}
USERS = ["ada", "eve"]
CALLS = ["read", "renew", "set", "delete", "get", "get_many", "delete_many"]

Data = dict[str, Any]
Change = Callable[[Data], object]


@dataclass(eq=False)
class Stored:
    """A session as the store is to keep it.

    rights: how often its id was replaced because of a login, or another change of rights.
    lives_until, ends_by: it opens before the one, and not after the other. cookie_until: so long lives its last cookie.
    turned: the time of the last rotation by time; not_again: no other before. activity: what requests did with it.
    """

    data: Data
    created: float
    owner: str = ""
    labels: set[str] = field(default_factory=set)
    remember: float = 0.0
    rights: int = 0
    rotated: float = -inf
    turned: float = -inf
    not_again: float = 0.0
    lives_until: float = 0.0
    ends_by: float = 0.0
    cookie_until: float = 0.0
    activity: int = 0
    ended: bool = False
    handle: str = ""
    current: Cookie | None = None


@dataclass(eq=False)
class Cookie:
    """A cookie that was handed out.

    successor: the one that replaced it by time. replaces: whether it replaced one, or may have.
    seen_from, seen_by: when the client has come back with it, at the earliest and at the latest.
    """

    value: str
    stored: Stored
    rights: int
    successor: Cookie | None = None
    replaces: bool = False
    seen_from: float | None = None
    seen_by: float | None = None


@dataclass(eq=False)
class Request:
    """A request under way.

    place: the session that it was displaced from, as long as it has no other. late: that of its cookie, to the end.
    known: whether somebody was logged in.
    """

    session: Session
    client: Client
    cookie: Cookie | None
    counts: bool
    began: float
    held: Stored | None = None
    rights: int = 0
    activity: int = 0
    known_owner: str = ""
    place: Stored | None = None
    late: Stored | None = None
    base: Data = field(default_factory=dict)
    view: Data = field(default_factory=dict)
    log: list[Change] = field(default_factory=list)
    rotate: bool = False
    fresh: bool = False
    owner: str | None = None
    label: str = ""
    remember: float | None = None
    new_id: bool = False
    destroyed: bool = False

    def show(self, data: Data) -> None:
        self.view, self.base, self.log = copied(data), copied(data), []

    def begin(self, place: Stored | None = None) -> None:
        self.show({})
        self.held, self.place, self.rotate, self.fresh, self.owner, self.remember = (
            None,
            place,
            False,
            False,
            None,
            None,
        )

    def hold(self, stored: Stored) -> None:
        self.held, self.rights, self.place = stored, stored.rights, None
        self.known_owner, self.activity = stored.owner, stored.activity
        self.show(stored.data)

    def do(self, change: Change) -> None:
        change(self.view)
        self.log.append(change)

    @property
    def knew(self) -> bool:
        return bool(self.base.get("user") or (self.held is not None and self.known_owner))

    @property
    def pending(self) -> bool:
        """Whether there is something to write beside the data. An empty session is not stored to be remembered."""
        return bool(self.owner) or (self.held is not None and (self.owner is not None or self.remember is not None))

    @property
    def ends_empty(self) -> bool:
        return self.fresh and (not self.view if self.place is None else not gained(self.base, self.view))


@dataclass(eq=False)
class Client:
    """A browser, or a thief. jar: its cookie."""

    name: str
    jar: Cookie | None = None


def copied(data: Mapping[str, Any]) -> Data:
    return {key: list(value) if isinstance(value, list) else value for key, value in data.items()}


def replayed(log: Iterable[Change], data: Data) -> Data:
    result = copied(data)
    for change in log:
        change(result)
    return result


def gained(before: Data, after: Data) -> bool:
    return bool(after.get("user")) and after["user"] != before.get("user")


class Model:
    """What must be there: sessions, the cookies that open them, and what requests do to both."""

    def __init__(self, clock: ManualClock, there: Callable[[Stored], bool], renews: bool, options: Mapping[str, Any]):
        self.clock, self.there, self.renews = clock, there, renews
        self.every, self.limit = options.get("rotate_every"), options.get("max_lifetime", inf)
        self.most, self.refuses = options.get("max_sessions", inf), "when_full" in options
        self.destroys = "on_reuse" in options
        self.sessions: list[Stored] = []
        self.cookies: dict[str, Cookie] = {}

    def alive(self, stored: Stored) -> bool:
        now = self.clock()
        if stored.ended or now >= stored.ends_by or now >= stored.created + self.limit:
            return False
        return now < stored.lives_until or self.there(stored)

    def owned_by(self, owner: str) -> list[Stored]:
        return [each for each in self.sessions if each.owner == owner and self.alive(each)]

    def opens(self, cookie: Cookie) -> bool | None:
        """Whether a cookie opens its session; None: it may or may not."""
        if cookie.rights != cookie.stored.rights or not self.alive(cookie.stored):
            return False
        after, now = cookie.successor, self.clock()
        if after is None or after.seen_from is None or now < after.seen_from + GRACE:
            return True
        return False if after.seen_by is not None and now >= after.seen_by + GRACE else None

    def load(self, request: Request, opened: bool) -> None:
        request.begin(request.place)
        cookie = request.cookie
        if cookie is None:
            return
        stored, opens = cookie.stored, self.opens(cookie)
        if opens is None:
            opens = opened
        alive = self.alive(stored)
        if alive and request.counts and self.renews:
            stored.ends_by = self.clock() + TTL  # also by a cookie that opens nothing any more
        if opens:
            stored.activity += 1
            request.hold(stored)
            if request.counts and self.renews:
                stored.lives_until = stored.ends_by
        elif alive and self.clock() < stored.rotated + GRACE:
            request.place = request.late = stored
            return
        elif alive and self.destroys and cookie.rights == stored.rights:  # one from before a login ends nothing
            stored.ended = True
        request.cookie = None if request.held is None else cookie

    def reload(self, request: Request, opened: bool) -> None:
        stored = request.held
        if stored is None:
            self.load(request, opened)
        elif self.alive(stored) and stored.rights == request.rights:
            request.hold(stored)
            request.rotate, request.fresh, request.owner, request.remember = False, False, None, None
        else:
            request.cookie = None
            request.begin(stored)

    def write(self, request: Request, ending: bool, there: bool) -> None:
        """there: whether the store had the record before."""
        if ending and request.ends_empty:
            return self.destroy(request, there)
        stored = request.held
        changed = request.view != request.base or request.pending
        if stored is None:
            if changed and (request.place is None or request.rotate or gained(request.base, request.view)):
                self.create(request, request.view)
            return None
        if not changed and not request.rotate:
            return self.renew(request) if ending else None
        logs_in = gained(request.base, request.view) or request.owner or (request.rotate and not request.knew)
        if not self.alive(stored):
            if there and stored.ends_by > self.clock() and not stored.ended:
                stored.ended = True  # it has reached its limit
            if logs_in:
                self.create(request, replayed(request.log, {}))
            else:
                request.cookie = None
                request.begin(stored)
            return None
        if stored.rights != request.rights and logs_in:
            return self.create(request, replayed(request.log, {}) if request.knew else request.view)
        data = replayed(request.log, stored.data)
        if stored.rights != request.rights:  # it is another's by now: what this one holds stays as it was
            request.base, request.log, request.known_owner = copied(request.view), [], stored.owner
        else:
            self.see(request)
            if request.rotate or gained(stored.data, data):
                stored.rights += 1
                stored.rotated, stored.current = self.clock(), None
                if request.owner is not None:
                    stored.owner, stored.labels = request.owner, {request.label}
                request.new_id = True
            if request.remember is not None:
                stored.remember = request.remember
            if request.new_id or request.remember is not None:
                self.make_room(stored)
        stored.data, stored.activity = copied(data), stored.activity + 1
        if request.counts or (request.rights != stored.rights and request.new_id) or request.remember is not None:
            self.use(stored)
        if stored.rights == request.rights or request.new_id:
            request.hold(stored)
        request.rotate, request.owner, request.remember = False, None, None
        return None

    def create(self, request: Request, data: Data) -> None:
        owner, held = request.owner or "", request.held
        stored = Stored(copied(data), self.clock(), owner, {request.label}, request.remember or 0.0)
        if held is not None and held.owner == owner:
            held.labels.add(request.label)  # it was filed with that before it was known to be another's
        self.make_room(stored)
        if held is not None and not self.alive(held):  # it may have been a logout
            stored.data = replayed(request.log, {})
        self.sessions.append(stored)
        self.use(stored)
        fresh = request.fresh
        request.begin()
        request.hold(stored)
        request.cookie, request.new_id, request.fresh = None, True, fresh

    def make_room(self, stored: Stored) -> None:
        """End the oldest of its owner if there are too many."""
        others = [each for each in self.owned_by(stored.owner) if each is not stored] if stored.owner else []
        for each in others[: max(0, len(others) - int(min(self.most, 99)) + 1)]:
            each.ended = True

    def full(self, request: Request) -> bool:
        """Whether a login is one too many."""
        others = self.owned_by(request.owner or "")
        if request.held is not None and request.held.owner == request.owner:
            request.held.labels.add(request.label)
        return self.refuses and bool(request.owner) and len(others) >= self.most

    def use(self, stored: Stored) -> None:
        stored.lives_until = self.clock() + self.life(stored)
        stored.ends_by = stored.lives_until + (0 if self.renews else TOUCH_AFTER)

    def life(self, stored: Stored) -> float:
        return stored.remember if stored.remember > 0 else TTL

    def renew(self, request: Request) -> None:
        stored = request.held
        assert stored is not None
        if self.clock() >= stored.created + self.limit and request.counts:
            request.begin(stored)
            return
        if self.alive(stored) and stored.rights == request.rights and request.counts:
            self.see(request)
            now, life = self.clock(), self.life(stored)
            stored.ends_by = max(stored.ends_by, now + life + (0 if self.renews else TOUCH_AFTER))
            stored.lives_until = max(stored.lives_until, request.began + life)

    def see(self, request: Request) -> None:
        """Note that the client has come with the cookie of the last rotation by time."""
        cookie, stored = request.cookie, request.held
        if cookie is not None and stored is not None and cookie.successor is None:
            if cookie.seen_from is None:
                cookie.seen_from = self.clock()
            if cookie.seen_by is None and request.counts and stored.activity == request.activity:
                cookie.seen_by = self.clock()

    def destroy(self, request: Request, there: bool) -> None:
        stored, own = request.held or request.place, request.held is not None and there
        if stored is not None:
            stored.ended = True
        late, request.late = request.late, None
        if late is not None and self.alive(late) and self.clock() < late.rotated + GRACE:
            late.ended = True  # a logout is one from all that the cookies of the request may end
        request.destroyed = request.destroyed or own
        request.cookie = None
        request.begin(None if own else stored)


class Machine(RuleBasedStateMachine):
    """Plays requests against a manager and the model."""

    steps = 0

    def __init__(self, driver: Driver, clock: ManualClock, options: Mapping[str, Any], mode: str) -> None:
        super().__init__()
        driver.clear()
        self.clock = clock
        self.faulty = FaultyDriver(driver)
        self.store = UnstorageSessionStore(self.faulty, ttl=TTL)
        common = {"touch_after": TOUCH_AFTER, "rotation_grace": GRACE, "clock": clock}
        self.manager = SessionManager(self.store, SECRET, **{**common, **options})
        # Looks on, and changes nothing.
        self.observer = SessionManager(self.store, SECRET, **{**common, **options, "on_reuse": "ignore"})
        self.runner = asyncio.Runner() if mode == "async" else None
        renews = driver.capabilities.renew and "remember" not in options
        self.model = Model(clock, self.there, renews, options)
        self.clients = [Client("phone"), Client("laptop"), Client("thief")]
        self.under_way: list[Request] = []

    def teardown(self) -> None:
        try:
            while self.under_way:
                self.end(self.under_way[0], "ok", False)
            for user in USERS:
                self.list_of(user)
        finally:
            if self.runner is not None:
                self.runner.close()

    def there(self, stored: Stored | None) -> bool:
        return stored is not None and self.faulty.driver.has(f"{self.store.prefix}:{stored.handle}")

    # --- what requests do ---

    def begin(self, client: Client, old: int | None, counts: bool) -> Request:
        self.clock.advance(1)
        given = list(self.model.cookies.values())
        cookie = client.jar if old is None or not given else given[old % len(given)]
        header = "" if cookie is None else f"session={cookie.value}"
        session = self.manager.open(header, asynchronous=self.runner is not None)
        request = Request(session, client, cookie, counts, self.clock())
        self.caller(session).load(touch=counts)
        self.model.load(request, not session.is_new)
        self.compare(request)
        assert session.owner == ((request.held.owner if request.held else "") or None)
        return request

    def act(self, request: Request, action: tuple[Any, ...]) -> bool:
        """Do one thing in the handler. False if it has failed."""
        name, *arguments = action
        try:
            getattr(self, f"do_{name}")(request, *arguments)
        except TooManySessions:
            assert self.model.full(request)
            return False
        self.compare(request)
        return True

    def compare(self, request: Request) -> None:
        assert dict(request.session) == request.view
        assert request.session.is_new == (request.held is None)

    def end(self, request: Request, how: str, lost: bool) -> None:
        """Commit the request.

        how: `"ok"`, `"fails"` (a 5xx) or `"raises"`. lost: the client does not get the answer.
        """
        if request in self.under_way:
            self.under_way.remove(request)
        manager, session, stored = self.caller(self.manager), request.session, request.held
        due = how == "ok" and self.turn_is_due(request)
        if how == "raises":
            self.manager.revert(session)
        headers = None
        there = self.there(request.held or request.place)
        if how == "ok":
            try:
                headers = manager.commit(session)
            except TooManySessions:
                assert self.model.full(request)
                self.manager.revert(session)
            else:
                self.model.write(request, True, there)
                self.name(request)
        if headers is None:
            headers = manager.commit(session, 503 if how == "ok" else 500)
        manager.finish(session)
        if request.held is not None:
            request.held.activity += 1
        self.receive(request, dict(headers).get("Set-Cookie", ""), lost, due and stored is request.held)
        stored = request.held
        if headers and how == "ok" and stored is not None and request.counts and request.rights == stored.rights:
            promised = min(request.began + self.model.life(stored), stored.created + self.model.limit)
            under_way = any(each.held is stored for each in self.under_way)  # it may be the one to send the cookie
            assert under_way or not self.model.alive(stored) or stored.cookie_until >= promised

    def turn_is_due(self, request: Request) -> bool:
        """Whether time has to rotate the id in this request."""
        cookie, stored, every = request.cookie, request.held, self.model.every
        if not every or cookie is None or stored is None or not request.counts or self.model.opens(cookie) is not True:
            return False
        if cookie.successor is not None or stored.activity != request.activity or cookie is not stored.current:
            return False
        if any(each.held is stored for each in self.under_way):  # it may have done so, when it saved by name
            return False
        if cookie.replaces and (cookie.seen_by is None or self.clock() < cookie.seen_by + GRACE):
            return False
        return bool(self.clock() - max(stored.created, stored.rotated, stored.turned) >= every)

    def receive(self, request: Request, header: str, lost: bool, due: bool) -> None:
        """Judge the cookie that is sent, and put it into the jar."""
        stored, client, now = request.held, request.client, self.clock()
        pair, *attributes = header.split("; ")
        value = pair.partition("=")[2]
        if stored is None:
            assert bool(header) == request.destroyed
            assert not header or "Max-Age=0" in attributes
            if header and not lost:
                client.jar = None
            return
        if not header:
            assert not request.new_id
            assert not due
            return
        ages = [float(each[8:]) for each in attributes if each.startswith("Max-Age=")]
        assert ages != [0]
        assert (stored.remember < 0) == (not ages)
        assert request.new_id or request.rights == stored.rights
        stored.cookie_until = now + (ages[0] if ages else inf)
        cookie = self.model.cookies.get(value)
        if cookie is None:
            cookie = self.model.cookies[value] = Cookie(value, stored, request.rights)
            if request.new_id:
                if self.model.every and now >= max(stored.created, stored.rotated) + self.model.every:
                    # Time may have rotated it once more since it was saved.
                    stored.turned, stored.not_again, cookie.replaces = now, request.began, True
            else:  # time has rotated the id
                assert self.model.every
                assert now >= max(stored.created, stored.rotated, stored.not_again) + self.model.every
                began = [each.began for each in self.under_way if each.held is stored]
                stored.turned, stored.not_again = now, min([request.began, *began])
                assert stored.current is not None
                stored.current.successor, cookie.replaces = cookie, True
            if stored.rights == request.rights:
                stored.current = cookie
        else:
            assert not request.new_id
            assert not due
            assert cookie.stored is stored
        if not lost:
            client.jar = cookie

    def caller(self, target: Any) -> Caller:
        return Caller(target, self.runner)

    def name(self, request: Request) -> None:
        if request.held is not None and not request.held.handle:
            request.held.handle = request.session.handle

    def do_put(self, request: Request, key: str, value: Any) -> None:
        request.session[key] = value
        request.do(lambda data: data.update({key: value}))

    def do_delete(self, request: Request, key: str) -> None:
        if key in request.view:
            del request.session[key]
            request.do(lambda data: data.pop(key, None))
        else:
            with pytest.raises(KeyError):
                del request.session[key]

    def do_pop(self, request: Request, key: str) -> None:
        assert request.session.pop(key, None) == request.view.get(key)
        if key in request.view:
            request.do(lambda data: data.pop(key, None))

    def do_count(self, request: Request) -> None:
        request.session.update(lambda data: {"n": data.get("n", 0) + 1})
        request.do(lambda data: data.update(n=data.get("n", 0) + 1))

    def do_append(self, request: Request, value: int) -> None:
        if "items" not in request.view:
            request.session["items"] = [value]
            request.do(lambda data: data.update(items=[value]))
            return
        request.session["items"].append(value)
        ours = [*request.view["items"], value]
        request.do(lambda data: data.update(items=[*data["items"], value] if "items" in data else list(ours)))

    def do_default(self, request: Request, value: int) -> None:
        assert request.session.setdefault("n", value) == request.view.get("n", value)
        if "n" not in request.view:
            request.do(lambda data: data.setdefault("n", value))

    def do_replace(self, request: Request, value: int) -> None:
        request.session.set({"n": value})
        request.log = [lambda data: (data.clear(), data.update(n=value))]
        request.view = {"n": value}

    def do_log_in(self, request: Request, user: str) -> None:
        self.do_put(request, "user", user)

    def do_bind(self, request: Request, user: str, label: str) -> None:
        self.caller(request.session).bind(user, label=label)
        request.rotate, request.owner, request.label = True, user, label

    def do_regenerate(self, request: Request, clear: bool) -> None:
        self.caller(request.session).regenerate(clear=clear)
        request.rotate = True
        if clear:
            self.wipe(request)

    def do_clear(self, request: Request) -> None:
        request.session.clear()
        self.wipe(request)
        known = request.known_owner if request.held else ""
        request.owner, request.remember, request.fresh = None, None, True
        if request.held is not None and (known or request.held.remember):
            request.owner, request.label, request.remember = "", "", 0.0
        if request.place is None:
            request.rotate = True

    def wipe(self, request: Request) -> None:
        request.log, request.view = [lambda data: data.clear()], {}

    def do_remember(self, request: Request, days: int | None) -> None:
        if days == 0 or self.manager.policy.remember:
            self.caller(request.session).remember(days=days)
            request.remember = -1.0 if days == 0 else REMEMBER

    def do_save(self, request: Request) -> None:
        there = self.there(request.held or request.place)
        self.caller(request.session).save()
        self.model.write(request, False, there)
        self.name(request)

    def do_reload(self, request: Request) -> None:
        self.caller(request.session).reload()
        self.model.reload(request, not request.session.is_new)

    def do_log_out(self, request: Request) -> None:
        there = self.there(request.held or request.place)
        self.caller(request.session).destroy()
        self.model.destroy(request, there)

    # --- the rules ---

    clients_ = st.sampled_from([0, 0, 1, 1, 2])
    olds = st.none() | st.none() | st.none() | st.integers(0, 30)
    keys = st.sampled_from(["a", "n"])
    numbers = st.integers(0, 3)
    users = st.sampled_from(["ada", "ada", "eve"])
    actions = st.one_of(
        st.tuples(st.just("put"), keys, numbers),
        st.tuples(st.just("delete"), st.sampled_from(["a", "n", "items", "user"])),
        st.tuples(st.just("pop"), st.sampled_from(["a", "items", "user"])),
        st.tuples(st.just("count")),
        st.tuples(st.just("append"), numbers),
        st.tuples(st.just("default"), numbers),
        st.tuples(st.just("replace"), numbers),
        st.tuples(st.just("log_in"), users),
        st.tuples(st.just("bind"), users, st.sampled_from(["x", "y"])),
        st.tuples(st.just("regenerate"), st.booleans()),
        st.tuples(st.just("clear")),
        st.tuples(st.just("remember"), st.sampled_from([None, 0])),
        st.tuples(st.just("save")),
        st.tuples(st.just("reload")),
        st.tuples(st.just("log_out")),
    )
    endings = st.sampled_from(["ok", "ok", "ok", "ok", "fails", "raises"])

    @rule(
        client=clients_,
        old=olds,
        touch=st.sampled_from([True, True, True, False]),
        actions=st.lists(actions, max_size=4),
        ending=endings,
        lost=st.sampled_from([False, False, False, True]),
    )
    def visit(
        self, client: int, old: int | None, touch: bool, actions: list[tuple[Any, ...]], ending: str, lost: bool
    ) -> None:
        request = self.begin(self.clients[client], old, touch)
        if all(self.act(request, action) for action in actions):
            self.end(request, ending, lost)
        else:
            self.end(request, "raises", lost)

    @rule(client=clients_, user=users, binds=st.booleans(), remembers=st.booleans())
    def logs_in(self, client: int, user: str, binds: bool, remembers: bool) -> None:
        request = self.begin(self.clients[client], None, True)
        self.act(request, ("log_in", user))
        if binds:
            self.act(request, ("bind", user, "z"))
        if remembers:
            self.act(request, ("remember", None))
        self.end(request, "ok", False)

    @rule(
        slow=clients_,
        touch=st.sampled_from([True, True, False]),
        before=st.lists(actions, max_size=2),
        others=st.lists(
            st.tuples(clients_, olds, st.booleans(), st.lists(actions, max_size=2)), min_size=1, max_size=2
        ),
        seconds=st.sampled_from([0, 0, 11, 401, 950]),
        revoked=st.none() | users,
        after=st.lists(actions, max_size=2),
        ending=endings,
    )
    def overlaps(
        self,
        slow: int,
        touch: bool,
        before: list[tuple[Any, ...]],
        others: list[tuple[int, int | None, bool, list[tuple[Any, ...]]]],
        seconds: int,
        revoked: str | None,
        after: list[tuple[Any, ...]],
        ending: str,
    ) -> None:
        """One begins, others run to their end, then it goes on."""
        request = self.begin(self.clients[slow], None, touch)
        self.under_way.append(request)
        well = all(self.act(request, action) for action in before)
        if revoked is not None:
            self.revokes(revoked, None)
        for client, old, counts, actions in others:
            self.visit(client, old, counts, actions, "ok", False)
        self.clock.advance(seconds)
        well = well and all(self.act(request, action) for action in after)
        self.end(request, ending if well else "raises", False)

    @rule(client=clients_, old=olds, seconds=st.sampled_from([0, 0, 11, 60, 110, 401]), counts=st.booleans())
    def uses(self, client: int, old: int | None, seconds: int, counts: bool) -> None:
        self.clock.advance(seconds)
        request = self.begin(self.clients[client], old, True)
        if counts:
            self.act(request, ("count",))
        self.end(request, "ok", False)

    @precondition(lambda self: len(self.under_way) < 2)
    @rule(client=clients_, old=olds, touch=st.sampled_from([True, True, False]))
    def begins(self, client: int, old: int | None, touch: bool) -> None:
        self.under_way.append(self.begin(self.clients[client], old, touch))

    @precondition(lambda self: self.under_way)
    @rule(which=st.integers(0, 1), action=actions)
    def goes_on(self, which: int, action: tuple[Any, ...]) -> None:
        request = self.under_way[which % len(self.under_way)]
        if not self.act(request, action):
            self.end(request, "raises", False)

    @precondition(lambda self: self.under_way)
    @rule(which=st.integers(0, 1), ending=endings)
    def ends(self, which: int, ending: str) -> None:
        self.end(self.under_way[which % len(self.under_way)], ending, False)

    @rule(seconds=st.sampled_from([3, 11, 60, 101, 150, 300, 401, 401, 600, 950, 1001, 3001]))
    def time_passes(self, seconds: int) -> None:
        self.clock.advance(seconds)

    @rule(user=users)
    def lists(self, user: str) -> None:
        self.list_of(user)

    def list_of(self, user: str) -> None:
        found = self.caller(self.store).sessions_of(user)
        expected = {each.handle: each for each in self.model.owned_by(user)}
        assert {each.handle for each in found} == expected.keys()
        for each in found:
            assert each.label in expected[each.handle].labels
            assert each.created == expected[each.handle].created

    @rule(user=users, keep=st.none() | clients_)
    def revokes(self, user: str, keep: int | None) -> None:
        jar = None if keep is None else self.clients[keep].jar
        kept = None if jar is None else jar.stored
        expected = [each for each in self.model.owned_by(user) if each is not kept]
        sid = None if jar is None else jar.value.rpartition(".")[0]
        assert self.caller(self.store).revoke(user, keep=sid) == len(expected)
        for each in expected:
            each.ended = True

    @precondition(lambda self: self.model.sessions)
    @rule(which=st.integers(0, 30), owner=st.none() | users)
    def revokes_one(self, which: int, owner: str | None) -> None:
        stored = self.model.sessions[which % len(self.model.sessions)]
        alive = self.model.alive(stored) and owner in (None, stored.owner)
        there = self.there(stored)
        found = self.caller(self.store).revoke_one(stored.handle, owner=owner)
        assert found or not alive
        assert alive or not found or (there and owner in (None, stored.owner))
        stored.ended = stored.ended or found

    @rule(client=clients_, action=actions, loaded=st.booleans())
    def store_is_down(self, client: int, action: tuple[Any, ...], loaded: bool) -> None:
        """In an outage a request changes nothing, whether it begins before or after."""
        who = self.clients[client]
        request = self.begin(who, None, False) if loaded else None
        for name in CALLS:
            self.faulty.fail(name)
        try:
            if request is None:
                header = "" if who.jar is None else f"session={who.jar.value}"
                session = self.manager.open(header, asynchronous=self.runner is not None)
                request = Request(session, who, None, True, self.clock())
            with suppress(DriverUnavailable):
                self.caller(request.session).load()
                if action[0] != "save" and action[0] != "reload":
                    getattr(self, f"do_{action[0]}")(request, *action[1:])
                self.caller(self.manager).commit(request.session)
        finally:
            self.faulty.heal()

    # --- what must hold after each step ---

    @invariant()
    def count_the_step(self) -> None:
        type(self).steps += 1

    @invariant()
    def every_cookie_opens_what_it_should_and_nothing_else(self) -> None:
        for cookie in self.model.cookies.values():
            session = self.observer.open(f"session={cookie.value}").load(touch=False)
            opens = self.model.opens(cookie)
            if opens is not None:
                assert session.is_new is not opens
            assert dict(session) == ({} if session.is_new else cookie.stored.data)

    @invariant()
    def the_store_holds_no_other_session(self) -> None:
        found = {self.store.handle_of(key) for key in self.store.session_keys()}
        now = self.clock()
        assert found <= {each.handle for each in self.model.sessions if not each.ended and now < each.ends_by}
        assert found >= {each.handle for each in self.model.sessions if self.model.alive(each)}


def play(driver: Driver, clock: ManualClock, options: str, mode: str, examples: int) -> None:
    """Run random programs, always the same ones, and print how many steps they had."""
    Machine.steps = 0
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        lambda: Machine(driver, clock, OPTIONS[options], mode),
        settings=settings(
            max_examples=examples,
            stateful_step_count=12,
            derandomize=True,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=(Phase.explicit, Phase.generate),  # a program of few steps is read as it is
        ),
    )
    print(f"{options}, {mode}, {driver!r}: {Machine.steps:,} steps")
    assert Machine.steps > examples


def main(examples: int) -> None:
    """Play so many programs of each kind: in memory, and a few on a file."""
    for options in OPTIONS:
        for mode in ("sync", "async"):
            clock = ManualClock()
            play(MemoryDriver(clock=clock), clock, options, mode, examples)
        with TemporaryDirectory() as folder, closing(SQLiteDriver(Path(folder, "store.db"), clock=clock)) as driver:
            play(driver, clock, options, "sync", min(examples, 20))


@pytest.mark.parametrize("examples", [50, pytest.param(1000, marks=pytest.mark.slow)])
def test_no_program_of_requests_breaks_a_promise(examples: int) -> None:
    # In an interpreter of its own, because what hypothesis makes up depends on the modules that are loaded.
    result = subprocess.run(
        [sys.executable, "-m", "tests.session.test_state_machine", str(examples)],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    print(result.stdout)
    assert result.returncode == 0, result.stdout + result.stderr


if __name__ == "__main__":
    main(int(sys.argv[1]))
