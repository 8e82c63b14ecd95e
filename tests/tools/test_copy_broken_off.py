"""A copy that is broken off at any call and run again leaves NEW as OLD is: no logout, change or list is lost.

Each run plays one death. It is deterministic: one session is copied at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any, NamedTuple

import pytest

from session_kit import DriverUnavailable, SessionManager, UnstorageSessionStore
from session_kit.codec import Encrypted
from session_kit.drivers.memory import MemoryDriver
from session_kit.operate import at_once
from session_kit.operate.copy import Counts, copy
from session_kit.testing import ManualClock, Visitor
from tests.harness.sessions import SECRET, Mortal, read

KEY = "vhX1ZkDyV9mV4Uq8b2Zb0k5WJ7n3xH6cT0rYpLs2aQE"
CODECS: dict[str, Any] = {"plain": "json", "recoded": "msgpack", "encrypted": Encrypted(KEY)}
USERS = "ada", "eve", "bob"
TTL = 1000.0


class World:
    """Four visitors who use OLD: two sessions of ada, one of eve, and one of nobody, who never leaves."""

    def __init__(self, codec: Any) -> None:
        self.clock = ManualClock()
        self.drivers = {name: Mortal(MemoryDriver(clock=self.clock)) for name in ("old", "new")}
        self.old = UnstorageSessionStore(self.drivers["old"], ttl=TTL, clock=self.clock)
        self.new = UnstorageSessionStore(self.drivers["new"], ttl=TTL, clock=self.clock, codec=codec)
        manager = SessionManager(self.old, SECRET, clock=self.clock)
        self.visitors = [Visitor(manager) for _ in range(4)]
        for number, owner in enumerate(["ada", "ada", "eve", None]):
            with self.visitors[number].request() as session:
                session["number"] = number
                if owner is not None:
                    session.bind(owner, label=f"device {number}")

    def copy(self) -> Counts:
        counts = Counts()
        copy(self.old, self.new, counts)
        return counts


def nothing(world: World) -> None:
    """In OLD nobody does anything."""


def use(world: World) -> None:
    """They only read, so that their sessions live longer. No record is written: a renewal of the cookie is not due."""
    world.clock.advance(60)
    for visitor in world.visitors:
        read(visitor)


def change(world: World) -> None:
    """They change something; one becomes another user's, another logs in once more with another label."""
    world.clock.advance(60)
    for number, visitor in enumerate(world.visitors):
        with visitor.request() as session:
            session["at"] = world.clock()
            if number < 2 and session.owner:
                session.bind(["bob", "ada"][number], label=f"at {world.clock()}")


def log_out(world: World) -> None:
    """All leave but the one who is nobody's: an OLD without any session would pass for one that was emptied."""
    for visitor in world.visitors[:3]:
        with visitor.request() as session:
            session.destroy()


def mix(world: World) -> None:
    """One does nothing, one reads, one changes something, one leaves, and somebody comes."""
    world.clock.advance(60)
    reads, changes, leaves, _ = world.visitors
    read(reads)
    with changes.request() as session:
        session["at"] = world.clock()
    with leaves.request() as session:
        session.destroy()
    world.visitors.append(comes := Visitor(reads.manager))
    with comes.request() as session:
        session.bind("bob")


def log_out_of_new(world: World) -> None:
    """The application is on NEW by now, and they leave there."""
    manager = SessionManager(world.new, SECRET, clock=world.clock)
    for visitor in world.visitors:
        there = Visitor(manager)
        there.cookie = visitor.cookie
        with there.request() as session:
            session.destroy()


class Seen(NamedTuple):
    """What a store holds: the sessions by their keys, and the lists."""

    sessions: dict[str, tuple[Any, ...]]
    lists: dict[str, list[tuple[Any, ...]]]


def seen_in(store: UnstorageSessionStore) -> Seen:
    sessions = {}
    for key in store.session_keys():
        record = store.record_at(store.driver.read(key), key)
        assert record is not None
        assert record.expires_at is not None
        sessions[key] = record.data, record.notes, round(record.expires_at, 3)
    lists = {
        owner: sorted((info.handle, info.label, round(info.expires or 0, 3)) for info in store.sessions_of(owner))
        for owner in USERS
    }
    return Seen(sessions, lists)


def death(codec: str, dies: str, landed: bool, at: int, before: Act, between: Act, later: Act) -> bool:
    """One death; returns whether the copy lived so long.

    before: what is done in OLD before the copy that dies, between the two copies, and later, before a last one.
    """
    world = World(CODECS[codec])
    if before is not nothing:  # then it is the second copy that dies
        world.copy()
        before(world)
    world.drivers[dies].die(at, landed=landed)
    try:
        world.copy()
    except DriverUnavailable:
        world.drivers[dies].heal()
    else:
        return False
    sessions, lists = seen_in(world.new)
    owned = {world.new.handle_of(key) for key, (_, notes, _) in sessions.items() if notes.owner}
    assert owned == {handle for found in lists.values() for handle, _, _ in found}, at
    for act in (between, later):
        act(world)
        counts = world.copy()
        if act is log_out_of_new:
            assert (seen_in(world.new).sessions, counts.ended_in_new) == ({}, world.old.length()), at
            break
        assert (counts.newer, counts.both, counts.ended_in_new, counts.left_out) == (0, 0, 0, 0), (at, counts)
        assert seen_in(world.new) == seen_in(world.old), (at, act.__name__)
    return True


Act = Callable[[World], None]
BEFORE = [nothing, use, change, mix]
BETWEEN = [nothing, use, change, log_out]
LATER = [log_out, change, log_out_of_new]
EVERY = list(product(BEFORE, BETWEEN, LATER))
SAMPLE = [
    (nothing, change, log_out),
    (nothing, log_out, change),
    (use, log_out, change),
    (nothing, nothing, log_out_of_new),
    (mix, nothing, log_out),
]


def cases() -> list[Any]:
    return [
        pytest.param(codec, plays, id=f"{codec}-{name}", marks=marks)
        for codec in CODECS
        for name, plays, marks in (("some", SAMPLE, ()), ("every", EVERY, pytest.mark.slow))
    ]


@pytest.mark.parametrize(("codec", "plays"), cases())
@pytest.mark.parametrize("dies", ["new", "old"])
@pytest.mark.parametrize("landed", [False, True], ids=["did nothing", "answer lost"])
def test_after_a_copy_that_died_at_any_call_nobody_who_left_is_there_and_nobody_is_missing(
    codec: str, plays: list[tuple[Act, Act, Act]], dies: str, landed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(at_once, "WORKERS", 1)
    for before, between, later in plays:
        at = 1
        while death(codec, dies, landed, at, before, between, later):
            at += 1
        assert at > (10 if dies == "new" else 5)
