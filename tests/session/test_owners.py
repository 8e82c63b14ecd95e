"""Owners: who is logged in where, and "log out everywhere", on every driver, in many orders of what overlaps."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from contextlib import suppress
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any

import pytest

from session_kit import (
    ConfigError,
    DriverUnavailable,
    Session,
    SessionError,
    SessionManager,
    TooManySessions,
    UnstorageSessionStore,
    Unsupported,
    open_store,
)
from session_kit.codec import Encrypted
from session_kit.drivers import Capabilities, Driver
from session_kit.drivers.memory import MemoryDriver
from session_kit.record import Notes
from session_kit.testing import (
    CountingDriver,
    ManualClock,
    Schedule,
    SteppedDriver,
    Visitor,
    WrappedDriver,
    explore,
)
from session_kit.testing.caller import Caller
from tests.harness.sessions import SECRET, PlainStore, SlowDriver

TTL = 1000


def log_in_as(visitor: Visitor, user: Any = "ada", label: str = "") -> None:
    """Log in, and say whose session it is."""
    with visitor.request() as session:
        session["user"] = str(user)
        visitor.do(session, "bind", user_id=user, label=label)


# --- on every driver ---


@pytest.fixture
def clients(make_manager: Callable[..., SessionManager], runner: asyncio.Runner | None) -> Callable[..., list[Visitor]]:
    """Makes some browsers of one site."""

    def make(number: int, **options: Any) -> list[Visitor]:
        manager = make_manager(**options)
        return [Visitor(manager, runner) for _ in range(number)]

    return make


def ask(visitor: Visitor, method: str, *args: Any, **kwargs: Any) -> Any:
    """Call a method of the store, or its twin."""
    store = visitor.manager.store
    if visitor.runner is None:
        return getattr(store, method)(*args, **kwargs)
    return visitor.runner.run(getattr(store, f"a{method}")(*args, **kwargs))


def test_a_user_sees_every_session_and_ends_the_others(clients: Callable[..., list[Visitor]]) -> None:
    phone, laptop, eve = clients(3)
    log_in_as(phone, label="phone")
    log_in_as(laptop, label="laptop")
    log_in_as(eve, "eve")
    with laptop.request() as session:
        assert session.owner == "ada"
        found = ask(laptop, "sessions_of", "ada", current=session)
        assert sorted((info.label, info.current) for info in found) == [("laptop", True), ("phone", False)]
        assert {info.handle for info in found if info.current} == {session.handle}
        assert ask(laptop, "revoke", "ada", keep=session) == 1
    with phone.request() as session:
        assert dict(session) == {}
    with laptop.request() as session:
        assert session["user"] == "ada"
    with eve.request() as session:
        assert session["user"] == "eve"
    assert [info.label for info in ask(laptop, "sessions_of", "ada")] == ["laptop"]


def test_one_session_is_ended_by_its_handle_and_only_by_its_owner(clients: Callable[..., list[Visitor]]) -> None:
    phone, laptop = clients(2)
    log_in_as(phone, label="phone")
    log_in_as(laptop, label="laptop")
    handles = {info.label: info.handle for info in ask(phone, "sessions_of", "ada")}
    assert not ask(phone, "revoke_one", handles["phone"], owner="eve")
    assert not ask(phone, "revoke_one", "0" * 64)
    assert not ask(phone, "revoke_one", "../x")
    assert ask(phone, "revoke_one", handles["phone"], owner="ada")
    with phone.request() as session:
        assert dict(session) == {}
    assert ask(laptop, "revoke_one", handles["laptop"])
    assert ask(laptop, "sessions_of", "ada") == []


def test_a_logout_leaves_no_entry_behind(clients: Callable[..., list[Visitor]], backend: Driver) -> None:
    (visitor,) = clients(1)
    log_in_as(visitor)
    with visitor.request() as session:
        visitor.do(session, "destroy")
    assert ask(visitor, "sessions_of", "ada") == []
    log_in_as(visitor)
    with visitor.request() as session:
        session.clear()
    assert ask(visitor, "sessions_of", "ada") == []
    store = visitor.manager.store
    assert list(store.driver.keys(store.prefix)) == []


def test_a_session_that_changes_hands_is_in_one_list(clients: Callable[..., list[Visitor]]) -> None:
    (visitor,) = clients(1)
    log_in_as(visitor, "ada")
    log_in_as(visitor, "eve")
    assert ask(visitor, "sessions_of", "ada") == []
    assert len(ask(visitor, "sessions_of", "eve")) == 1
    with visitor.request() as session:
        session.clear()
        session["theme"] = "dark"
        assert session.owner is None
    assert ask(visitor, "sessions_of", "eve") == []


def test_the_oldest_session_ends_when_there_are_too_many(clients: Callable[..., list[Visitor]]) -> None:
    one, two, three = clients(3, max_sessions=2)
    clock = one.manager.policy.clock
    for visitor in (one, two, three):
        log_in_as(visitor)
        clock.advance(1)  # type: ignore[attr-defined]  # it is the clock of the test
    with one.request() as session:
        assert dict(session) == {}
    for visitor in (two, three):
        with visitor.request() as session:
            assert session["user"] == "ada"
    log_in_as(two)  # once more, in the same session
    with three.request() as session:
        assert session["user"] == "ada"


def test_a_login_too_many_is_refused_where_it_is_said_so(clients: Callable[..., list[Visitor]]) -> None:
    one, two = clients(2, max_sessions=1, when_full="refuse")
    log_in_as(one)
    with pytest.raises(TooManySessions, match="has 1 sessions already"):
        log_in_as(two)
    log_in_as(one)
    with one.request() as session:
        one.do(session, "destroy")
    log_in_as(two)
    with two.request() as session:
        assert session["user"] == "ada"


def test_a_session_in_use_is_not_refused_because_the_index_was_lost(
    clients: Callable[..., list[Visitor]], clock: ManualClock
) -> None:
    one, two = clients(2, max_sessions=1, when_full="refuse")
    log_in_as(one)
    store = one.manager.store
    assert store.driver.delete(store.index_key("ada"))
    log_in_as(two)  # nobody knows that this is one too many
    clock.advance(301)
    for visitor in (one, two):
        with visitor.request() as session:
            assert session["user"] == "ada"
    assert len(ask(one, "sessions_of", "ada")) == 2
    with pytest.raises(TooManySessions):
        log_in_as(clients(1, max_sessions=1, when_full="refuse")[0])


@pytest.mark.needs("swap")
def test_a_login_that_was_overtaken_by_another_users_does_not_end_it(clients: Callable[..., list[Visitor]]) -> None:
    (browser,) = clients(1, max_sessions=1)
    with browser.request() as session:
        session["theme"] = "dark"
    with browser.request() as slow:
        browser.do(slow, "bind", user_id="ada")
        log_in_as(browser, "eve")
        eve = browser.cookie
    with browser.request(eve) as session:
        assert session["user"] == "eve"


def test_a_slow_request_of_a_session_that_was_ended_ends_no_other(
    clients: Callable[..., list[Visitor]], clock: ManualClock
) -> None:
    phone, laptop, tablet = clients(3, max_sessions=2)
    log_in_as(phone, label="phone")
    log_in_as(laptop)
    clock.advance(150)
    with phone.request() as slow:  # a renewal is due
        ask(phone, "revoke_one", slow.handle, owner="ada")
        log_in_as(tablet)
    for visitor in (laptop, tablet):
        with visitor.request() as session:
            assert session["user"] == "ada"


@pytest.mark.needs("swap")
def test_a_logout_with_the_id_from_before_the_login_makes_room(clients: Callable[..., list[Visitor]]) -> None:
    phone, laptop = clients(2, max_sessions=1, when_full="refuse")
    with phone.request() as session:
        session["theme"] = "dark"
    old = phone.cookie
    log_in_as(phone)
    with phone.request(old) as session:
        phone.do(session, "destroy")
    log_in_as(laptop)
    with laptop.request() as session:
        assert session["user"] == "ada"


def test_what_has_expired_is_in_no_list_and_takes_no_room(
    clients: Callable[..., list[Visitor]], clock: ManualClock
) -> None:
    one, two = clients(2, max_sessions=1, when_full="refuse")
    log_in_as(one)
    clock.advance(10 * 86400)
    assert ask(one, "sessions_of", "ada") == []
    log_in_as(two)
    assert len(ask(two, "sessions_of", "ada")) == 1


def test_an_index_that_was_lost_comes_back_with_the_next_renewal(
    clients: Callable[..., list[Visitor]], clock: ManualClock, backend: Driver
) -> None:
    (visitor,) = clients(1)
    log_in_as(visitor, label="phone")
    store = visitor.manager.store
    assert store.driver.delete(store.index_key("ada"))
    assert ask(visitor, "sessions_of", "ada") == []
    clock.advance(301)
    with visitor.request() as session:
        assert session["user"] == "ada"
    assert len(ask(visitor, "sessions_of", "ada")) == 1


@pytest.mark.parametrize("use", ["requests that fail", "the id from before the login", "saves of a WebSocket"])
def test_a_session_that_lives_on_without_a_renewal_of_its_cookie_is_revoked_too(
    clients: Callable[..., list[Visitor]], clock: ManualClock, use: str
) -> None:
    one, two = clients(2)
    with one.request() as session:
        session["cart"] = 1
    before = one.cookie
    log_in_as(one)
    manager, store = Caller(one.manager, one.runner), one.manager.store
    cookie = before if use == "the id from before the login" else one.cookie
    session = one.manager.open(cookie or "", asynchronous=one.runner is not None)
    one.do(session, "load")
    manager.commit(session)
    [handle] = [info.handle for info in ask(one, "sessions_of", "ada")]
    for number in range(30):
        clock.advance(TTL / 4)
        if use == "saves of a WebSocket":
            session["number"] = number
            one.do(session, "save")
        else:
            session = one.manager.open(cookie or "", asynchronous=one.runner is not None)
            one.do(session, "load")
            manager.commit(session, 500)
    alive = {store.handle_of(key) for key in store.session_keys()}
    log_in_as(two)  # which tidies the list up
    assert (handle in alive) or (use != "saves of a WebSocket" and not store.renews)
    assert (handle in {info.handle for info in ask(two, "sessions_of", "ada")}) == (handle in alive)
    ask(two, "revoke", "ada")
    assert store.length() == 0


def test_a_remembered_session_stays_in_the_list_when_another_application_reads_it(
    clients: Callable[..., list[Visitor]], make_manager: Callable[..., SessionManager], clock: ManualClock
) -> None:
    (visitor,) = clients(1, remember="30d")
    log_in_as(visitor)
    with visitor.request() as session:
        visitor.do(session, "remember")
    clock.advance(TTL / 2)
    visitor.manager = make_manager()  # which does not know of `remember`
    with visitor.request() as session:
        assert session["user"] == "ada"
    clock.advance(2 * TTL)
    assert len(ask(visitor, "sessions_of", "ada")) == visitor.manager.store.length() == 1


def test_an_index_that_cannot_be_read_locks_nobody_out(clients: Callable[..., list[Visitor]]) -> None:
    one, two = clients(2)
    log_in_as(one)
    store = one.manager.store
    store.driver.set(store.index_key("ada"), b"{broken")
    log_in_as(two)
    assert len(ask(two, "sessions_of", "ada")) == 1
    with one.request() as session:
        assert session["user"] == "ada"


def test_a_record_that_cannot_be_read_keeps_nobody_from_logging_out_everywhere(tmp_path: Path) -> None:
    store = open_store(f"file://{tmp_path}/sessions")
    manager = SessionManager(store, SECRET)
    cookies = []
    for _ in range(2):
        session = manager.open()
        session.bind("ada")
        cookies.append(dict(manager.commit(session))["Set-Cookie"])
    broken = manager.open(cookies[0]).handle
    [path] = [path for path in tmp_path.rglob("*") if broken in path.name]
    path.write_bytes(b"broken")
    assert len(store.sessions_of("ada")) == 1
    assert store.revoke("ada") == 1
    assert manager.open(cookies[1]).is_new
    store.close()


def test_an_entry_whose_session_was_never_written_is_in_no_list_and_goes_in_time(
    clients: Callable[..., list[Visitor]], clock: ManualClock
) -> None:
    (visitor,) = clients(1)
    log_in_as(visitor)
    store = visitor.manager.store
    [kept] = ask(visitor, "sessions_of", "ada")
    index = store.driver.get(store.index_key("ada"))
    assert index is not None
    entry = index.split(b":", 1)[1].rstrip(b"}") + b"}"
    store.driver.set(store.index_key("ada"), index[:-1] + b',"' + b"0" * 64 + b'":' + entry + b"}", ttl=86400)
    assert ask(visitor, "sessions_of", "ada") == [kept]
    assert b"0" * 64 in store.driver.get(store.index_key("ada"))
    clock.advance(61)
    assert ask(visitor, "sessions_of", "ada") == [kept]
    assert b"0" * 64 not in store.driver.get(store.index_key("ada"))


def test_indexes_are_no_sessions(clients: Callable[..., list[Visitor]]) -> None:
    one, two = clients(2)
    log_in_as(one)
    log_in_as(two)
    store = one.manager.store
    assert store.length() == 2
    assert len(list(store.all())) == 2
    assert ask(one, "clear") == 2
    assert list(store.driver.keys(store.prefix)) == []


# --- what is given ---


@pytest.fixture
def manager() -> SessionManager:
    return SessionManager("memory://", SECRET)


@pytest.mark.parametrize("user", [1.5, True, None, b"ada", ["ada"], "", "a" * 501, "\ud800"])
def test_a_user_that_cannot_be_named_is_one_clear_line(manager: SessionManager, user: Any) -> None:
    session = manager.open()
    with pytest.raises(SessionError, match="a user's id"):
        session.bind(user)
    assert manager.commit(session) == [("Vary", "Cookie")] or session.is_new


@pytest.mark.parametrize("label", ["x" * 1_000_000, b"phone", None])
def test_a_label_that_cannot_be_shown_is_one_clear_line(manager: SessionManager, label: Any) -> None:
    with pytest.raises(SessionError, match="a label"):
        manager.open().bind("ada", label=label)


@pytest.mark.parametrize("user", ["ada", 42, uuid.UUID(int=7), "a:b/c*é"])
def test_users_are_kept_as_text(manager: SessionManager, user: Any) -> None:
    session = manager.open()
    session.bind(user).save()
    assert session.owner == str(user)
    assert len(manager.store.sessions_of(str(user))) == 1


@pytest.mark.parametrize("limit", [0, -1, True, 1.0, "2"])
def test_a_limit_that_cannot_work_is_refused_at_start(limit: Any) -> None:
    with pytest.raises(ConfigError, match="max_sessions"):
        SessionManager("memory://", SECRET, max_sessions=limit)
    with pytest.raises(ConfigError, match="when_full"):
        SessionManager("memory://", SECRET, when_full="drop")  # type: ignore[arg-type]


def test_a_store_of_four_methods_says_that_it_has_no_owners() -> None:
    with pytest.raises(Unsupported, match="UnstorageSessionStore"):
        SessionManager(PlainStore(), SECRET).open().bind("ada")


def test_plain_ids_have_owners_too() -> None:
    store = UnstorageSessionStore("memory://", hash_ids=False)
    manager = SessionManager(store, SECRET)
    session = manager.open()
    session.bind("ada").save()
    [info] = store.sessions_of("ada", current=session)
    assert info.current
    assert info.handle == session.handle
    with pytest.raises(SessionError, match="owner="):
        store.revoke_one(info.handle)
    assert store.revoke_one(info.handle, owner="ada")
    assert store.length() == 0


def test_no_id_or_token_is_in_a_list_or_an_index(manager: SessionManager) -> None:
    session = manager.open()
    session.bind("ada").save()
    name, token = session.id.split("~")
    shown = repr(manager.store.sessions_of("ada")) + repr(list(manager.store.driver.keys()))
    index = manager.store.driver.get(manager.store.index_key("ada"))
    for secret in (name, token):
        assert secret not in shown
        assert secret.encode() not in index


@pytest.mark.parametrize(
    "codec", ["json", "json-tagged", "msgpack", "msgpack+zlib", Encrypted([bytes(range(32))], "msgpack")]
)
def test_owners_are_kept_by_every_codec(codec: Any) -> None:
    store = UnstorageSessionStore("memory://", codec=codec)
    manager = SessionManager(store, SECRET)
    session = manager.open()
    session.bind("ada", label="é").save()
    assert [info.label for info in store.sessions_of("ada")] == ["é"]
    assert store.revoke_one(session.handle)
    assert store.length() == 0
    assert list(store.driver.keys()) == []


def test_what_owners_cost_in_calls_of_the_store() -> None:
    driver = CountingDriver(MemoryDriver())
    manager = SessionManager(UnstorageSessionStore(driver), SECRET)

    def cost(act: Callable[[], object]) -> int:
        driver.reset()
        act()
        return len(driver.calls)

    def visit(cookie: str, act: Callable[[Session[Any]], object]) -> str:
        session = manager.open(cookie)
        act(session)
        headers = dict(manager.commit(session))
        return headers.get("Set-Cookie", cookie).split(";")[0]

    cookies = [visit("", lambda session: session.bind("ada")) for _ in range(5)]
    assert cost(lambda: visit("", lambda session: session.bind("ada"))) == 3
    assert cost(lambda: visit(cookies[0], lambda session: session.get("x"))) == 1
    assert cost(lambda: visit(cookies[0], lambda session: session.update(x=1))) == 2
    assert cost(lambda: manager.store.sessions_of("ada")) == 2
    assert cost(lambda: visit(cookies[1], lambda session: session.destroy())) == 4
    assert cost(lambda: manager.store.revoke("ada")) == 5


# --- in many orders ---


class World:
    """Two browsers of one user, logged in, and one anonymous visitor."""

    def __init__(self, schedule: Schedule, *, swaps: bool, network: bool, **options: Any) -> None:
        self.clock = ManualClock(1_000_000.0)
        self.memory = MemoryDriver(clock=self.clock)
        self.store = UnstorageSessionStore(
            SteppedDriver(self.memory, schedule, swaps=swaps, network=network), ttl=TTL, clock=self.clock
        )
        self.manager = SessionManager(self.store, SECRET, clock=self.clock, **options)
        self.cookies = {"one": "", "two": "", "guest": ""}
        self.used: set[str] = set()  # the handles of the sessions that were used last

    async def begin(self) -> None:
        for who in ("one", "two"):
            await self.visit(who, binds)
            self.clock.advance(1)
        await self.visit("guest", writes)
        self.clock.advance(400)  # a renewal is due

    async def visit(self, who: str, act: Any) -> None:
        session = self.manager.open(self.cookies[who], asynchronous=True)
        await session.aload()
        self.used.add(session.handle)
        await act(self, session)
        for name, value in await self.manager.acommit(session):
            if name == "Set-Cookie":
                self.cookies[who] = "" if "Max-Age=0" in value else value.split(";")[0]
        await self.manager.afinish(session)

    def live(self, user: str) -> set[str]:
        """The handles of the records that say that they are this user's."""
        found = set()
        for key in self.memory.keys("sess:"):
            value = self.memory.get(key)
            if value is not None and "~" not in key:
                raw = self.store.codec.unpack(value).get("$")
                if raw is not None and self.store.codec.load(raw, Notes).owner == user:
                    found.add(key.removeprefix("sess:"))
        return found


async def binds(world: World, session: Session[Any]) -> None:
    session["user"] = "ada"
    await session.abind("ada")


async def binds_another(world: World, session: Session[Any]) -> None:
    session["user"] = "eve"
    await session.abind("eve")


async def reads(world: World, session: Session[Any]) -> None:
    session.get("user")


async def writes(world: World, session: Session[Any]) -> None:
    session["x"] = 1


async def rotates(world: World, session: Session[Any]) -> None:
    await session.aregenerate()


async def logs_out(world: World, session: Session[Any]) -> None:
    await session.adestroy()


async def clears(world: World, session: Session[Any]) -> None:
    session.clear()


async def revokes(world: World, session: Session[Any]) -> None:
    await world.store.arevoke("ada")


async def revokes_others(world: World, session: Session[Any]) -> None:
    await world.store.arevoke("ada", keep=session)


async def revokes_one(world: World, session: Session[Any]) -> None:
    for info in await world.store.asessions_of("ada"):
        await world.store.arevoke_one(info.handle, owner="ada")
        break


async def lists(world: World, session: Session[Any]) -> None:
    await world.store.asessions_of("ada", current=session)


ACTS = [binds, binds_another, reads, writes, rotates, logs_out, clears, revokes, revokes_others, revokes_one, lists]
WHO = ["one", "two", "guest"]


def play_of(acts: list[tuple[str, Any]], passing: float = 0, **options: Any) -> Any:
    async def play(schedule: Schedule) -> None:
        world = World(schedule, **options)
        await world.begin()

        async def pass_time() -> None:
            await schedule.point("time")
            world.clock.advance(passing)

        before = world.live("ada")
        world.used.clear()
        tasks = [world.visit(who, act) for who, act in acts]
        await schedule.together(*tasks, *([pass_time()] if passing else []))
        for who in WHO:  # the next use of each; what stood still for longer than a session lives is found by a renewal
            world.clock.advance(301 if passing else 1)
            await world.visit(who, reads)
        for user in ("ada", "eve"):
            live = world.live(user)
            listed = {info.handle for info in await world.store.asessions_of(user)}
            assert listed <= live
            # One that stood still between its two writes for longer than a session lives is found by its next use.
            expected = live & world.used if passing else live
            assert not options["swaps"] or expected <= listed, (user, listed, live)
        acted = [act for _, act in acts]
        if options["swaps"] and revokes in acted and binds not in acted:
            assert not before & world.live("ada"), "a revoked session lives"
        if limit := options.get("max_sessions"):
            assert not options["swaps"] or len(world.live("ada")) <= limit

    return play


PAIRS = list(combinations_with_replacement(ACTS, 2))


def try_pairs(pairs: Any, **options: Any) -> int:
    count = 0
    how = {name: options.pop(name, None) for name in ("sample", "preemptions")}
    for first, second in pairs:
        for one, other in (("one", "two"), ("one", "one"), ("guest", "one")):
            try:
                count += explore(play_of([(one, first), (other, second)], **options), **how)
            except BaseException as error:
                error.add_note(f"{one} {first.__name__}, {other} {second.__name__}, {options}")
                raise
    print(f"\n{count:,} orders, {how}, {options}")
    return count


some_and_more = pytest.mark.parametrize("sample", [15, pytest.param(40, marks=pytest.mark.slow)])


@some_and_more
def test_in_many_orders_of_two_requests_the_list_is_right_and_what_was_revoked_is_gone(sample: int) -> None:
    assert try_pairs(PAIRS, swaps=True, network=False, sample=sample) > 100 * sample


@some_and_more
def test_in_many_orders_as_time_rotates_the_ids(sample: int) -> None:
    assert try_pairs(PAIRS, swaps=True, network=False, sample=sample, rotate_every=300) > 100 * sample


# All orders in which a request that could go on has to wait for the other so often at most: without a limit there are
# a hundred thousand times as many.


@pytest.mark.parametrize(
    ("preemptions", "at_least"), [(1, 2000), pytest.param(3, 35_000, marks=pytest.mark.slow)], ids=["one", "three"]
)
def test_in_every_order_of_two_requests_with_few_preemptions(preemptions: int, at_least: int) -> None:
    assert try_pairs(PAIRS, swaps=True, network=False, preemptions=preemptions) > at_least


@pytest.mark.slow
def test_in_every_order_with_few_preemptions_on_a_network() -> None:
    assert try_pairs(PAIRS, swaps=True, network=True, preemptions=2) > 5000


@pytest.mark.slow
def test_in_every_order_with_few_preemptions_as_time_rotates_the_ids() -> None:
    assert try_pairs(PAIRS, swaps=True, network=True, preemptions=2, rotate_every=300) > 5000


@pytest.mark.slow
def test_in_every_order_with_few_preemptions_as_time_goes_by() -> None:
    assert try_pairs(PAIRS, swaps=True, network=False, preemptions=2, passing=3 * TTL) > 5000


@pytest.mark.slow
def test_in_every_order_with_few_preemptions_and_a_limit() -> None:
    assert try_pairs(PAIRS, swaps=True, network=False, preemptions=2, max_sessions=2) > 5000


def test_in_many_orders_with_a_limit() -> None:
    some = [(binds, act) for act in ACTS]
    assert try_pairs(some, swaps=True, network=False, sample=60, max_sessions=2) > 1000


@pytest.mark.parametrize("network", [False, True])
@pytest.mark.parametrize("limit", [1, 2])
def test_of_first_visits_that_log_in_at_once_no_more_live_than_the_limit_allows(limit: int, network: bool) -> None:
    async def play(schedule: Schedule) -> None:
        world = World(schedule, swaps=True, network=network, max_sessions=limit)
        await schedule.together(*(world.visit(who, binds) for who in WHO[: limit + 1]))
        live = world.live("ada")
        assert 0 < len(live) <= limit
        assert {info.handle for info in await world.store.asessions_of("ada")} == live

    assert explore(play, sample=500) == 500


def test_without_swaps_a_list_may_lack_one_but_shows_none_that_is_gone() -> None:
    assert try_pairs(PAIRS, swaps=False, network=False, sample=10) > 1000


# --- a fault at every call ---


class FailsOnce(WrappedDriver):
    """Fails at one call, which is counted from 0; `landed`: it does the work, and the answer is lost."""

    def __init__(self, driver: Driver) -> None:
        super().__init__(driver)
        self.left, self.landed = -1, False

    def _count(self, landed: bool) -> None:
        if self.landed is landed and self.left == 0:
            self.left = -1
            raise DriverUnavailable("down for a test")

    def before(self, name: str) -> None:
        self._count(landed=False)

    def after(self, name: str) -> None:
        self._count(landed=True)
        self.left -= self.left >= 0


@pytest.mark.parametrize("landed", [False, True], ids=["did nothing", "answer lost"])
@pytest.mark.parametrize("act", ACTS, ids=lambda act: act.__name__)
def test_after_a_fault_at_any_call_the_list_is_right_once_all_were_used_again(act: Any, landed: bool) -> None:
    async def main(who: str, number: int) -> bool:
        world = World(Schedule(), swaps=True, network=False)
        once = FailsOnce(world.store.driver)
        world.store = UnstorageSessionStore(once, ttl=TTL, clock=world.clock)
        world.manager = SessionManager(world.store, SECRET, clock=world.clock)
        await world.begin()
        once.left, once.landed = number, landed
        with suppress(DriverUnavailable):
            await world.visit(who, act)
        reached, once.left = once.left == -1, -1
        world.clock.advance(301)
        for each in WHO:
            await world.visit(each, reads)
        for user in ("ada", "eve"):
            listed = {info.handle for info in await world.store.asessions_of(user)}
            assert listed == world.live(user), (who, number)
        return reached

    for who in ("one", "guest"):
        number = 0
        while asyncio.run(main(who, number)):
            number += 1
        assert number >= 1


# --- a login that fails, or that nobody waits for any more ---


class FailingOnce(SlowDriver):
    """Does not do one write of a record, as an outage of a moment would have it."""

    fails = False

    async def acall(self, name: str, *args: Any, **kwargs: Any) -> Any:
        if self.fails and name == "set" and ":~" not in args[0]:
            self.fails = False
            raise DriverUnavailable("down for a test")
        return await super().acall(name, *args, **kwargs)


class LeftAt(SlowDriver):
    """The client of the request that `waiting` is leaves when a record has been written."""

    leaves = False
    waiting: asyncio.Task[Any] | None = None

    async def acall(self, name: str, *args: Any, **kwargs: Any) -> Any:
        result = await super().acall(name, *args, **kwargs)
        if self.leaves and name == "set" and ":~" not in args[0]:
            self.leaves = False
            assert self.waiting is not None
            self.waiting.cancel()
            await asyncio.sleep(0)
        return result


class UnswappingLeftAt(LeftAt):
    """The same, of one that writes on no condition."""

    @property
    def capabilities(self) -> Capabilities:  # type: ignore[override]  # in place of those of the driver inside
        return Capabilities()


async def visit(manager: SessionManager, change: Callable[[Session[Any]], Any], cookie: str = "") -> str:
    """A request; returns the cookie that the browser has then."""
    session = manager.open(cookie, asynchronous=True)
    await session.aload()
    await change(session)
    headers = dict(await manager.acommit(session))
    await manager.afinish(session)
    return headers["Set-Cookie"].partition(";")[0] if "Set-Cookie" in headers else cookie


async def enters(session: Session[Any]) -> None:
    session["user"] = "ada"
    await session.abind("ada", label="phone")


async def puts(session: Session[Any]) -> None:
    session["theme"] = "dark"


@pytest.mark.parametrize("known", [False, True], ids=["a first visit", "with a session"])
def test_a_login_that_an_outage_failed_takes_no_room(known: bool) -> None:
    async def play() -> None:
        driver = FailingOnce(MemoryDriver())
        manager = SessionManager(UnstorageSessionStore(driver), SECRET, max_sessions=1, when_full="refuse")
        cookie = await visit(manager, puts) if known else ""
        driver.fails = True
        with pytest.raises(DriverUnavailable):
            await visit(manager, enters, cookie)
        await visit(manager, enters)  # in another browser
        assert len(await manager.store.asessions_of("ada")) == 1

    asyncio.run(play())


async def leave(driver: LeftAt, manager: SessionManager, change: Callable[[Session[Any]], Any], cookie: str) -> None:
    """A request whose client leaves while its new id is written."""
    driver.waiting = asyncio.ensure_future(visit(manager, change, cookie))
    driver.leaves = True
    with pytest.raises(asyncio.CancelledError):
        await driver.waiting


@pytest.mark.parametrize("known", [False, True], ids=["a first visit", "with a session"])
def test_a_login_whose_client_left_takes_no_room(known: bool) -> None:
    async def play() -> None:
        driver = LeftAt(MemoryDriver())
        manager = SessionManager(UnstorageSessionStore(driver), SECRET, max_sessions=1, when_full="refuse")
        cookie = await visit(manager, puts) if known else ""
        await leave(driver, manager, enters, cookie)
        await visit(manager, enters)
        assert len(await manager.store.asessions_of("ada")) == 1

    asyncio.run(play())


async def becomes_another(session: Session[Any]) -> None:
    await session.abind("eve")


async def starts_afresh(session: Session[Any]) -> None:
    session.clear()
    session["theme"] = "dark"


async def turns(session: Session[Any]) -> None:
    await session.aregenerate()


@pytest.mark.parametrize("swaps", [True, False], ids=["swaps", "no swaps"])
@pytest.mark.parametrize("change", [becomes_another, starts_afresh, turns])
def test_log_out_everywhere_ends_a_session_whose_change_of_owner_was_taken_back(change: Any, swaps: bool) -> None:
    async def play() -> None:
        driver = LeftAt(MemoryDriver()) if swaps else UnswappingLeftAt(MemoryDriver())
        manager = SessionManager(UnstorageSessionStore(driver), SECRET)
        cookie = await visit(manager, enters)
        await leave(driver, manager, change, cookie)
        session = manager.open(cookie, asynchronous=True)
        await session.aload()
        assert session["user"] == "ada"
        assert [each.handle for each in await manager.store.asessions_of("ada")] == [session.handle]
        assert await manager.store.asessions_of("eve") == []
        assert await manager.store.arevoke("ada") == 1

    asyncio.run(play())
