"""What one worker writes and another cannot read stays: "log out everywhere" ends it, or says that it cannot.

Two workers with different codecs share a store, as in a rolling restart, or where a key is missing. Each pair of codecs
is tried with each act. What a worker can read is asked of its codec, which has tests of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import permutations
from typing import Any

import pytest

from session_kit import OtherCodec, Session, SessionManager, TooManySessions, UnreadableList, UnstorageSessionStore
from session_kit.asgi import SessionMiddleware
from session_kit.codec import JSON, Encrypted, format_of
from session_kit.drivers.memory import MemoryDriver
from session_kit.operate.copy import Counts, copy
from session_kit.operate.sessions import revoke
from session_kit.owners import UNDER_WAY
from session_kit.testing import ManualClock, Visitor
from session_kit.testing.caller import Caller
from session_kit.wsgi import SessionMiddleware as WSGISessionMiddleware
from tests.harness.bare_asgi import bare, call
from tests.harness.bare_wsgi import BareServer
from tests.harness.sessions import SECRET, read

KEY, OTHER_KEY = bytes(range(32)), bytes(range(32, 64))
CODECS: dict[str, Any] = {
    "json": "json",
    "json-tagged": "json-tagged",
    "msgpack": "msgpack",
    "zlib": "msgpack+zlib",
    "encrypted": Encrypted(KEY),
    "other key": Encrypted(OTHER_KEY, "msgpack"),
    "accepts plain": Encrypted(KEY, "msgpack", accept_plain=True),
}
TTL = 1000


class World:
    """Ada is logged in with two devices by one worker, the writer; another, the reader, has another codec."""

    def __init__(self, writer: str, reader: str, runner: asyncio.Runner | None) -> None:
        self.clock, self.runner, self._reader = ManualClock(), runner, CODECS[reader]
        self.driver = MemoryDriver(clock=self.clock)
        self.writer, self.reader = self._manager(CODECS[writer]), self.another_reader()
        data: dict[str, Any] = {"page": 1}
        if format_of(self.writer.store.codec) is not JSON:
            data["at"] = datetime.now(UTC)  # which JSON has no form for
        self.phone, self.laptop = (Visitor(self.writer, runner) for _ in range(2))
        self.phones = self.log_in(self.phone, **data)
        self.clock.advance(1)
        self.laptops = self.log_in(self.laptop, **data)
        self.clock.advance(UNDER_WAY)
        self.both = {self.phones, self.laptops}
        self.key = self.writer.store.index_key("ada")
        self.index = self.driver.get(self.key)

    def _manager(self, codec: Any, **options: Any) -> SessionManager:
        store = UnstorageSessionStore(self.driver, ttl=TTL, clock=self.clock, codec=codec)
        return SessionManager(store, SECRET, clock=self.clock, **options)

    def another_reader(self, **options: Any) -> SessionManager:
        return self._manager(self._reader, **options)

    def log_in(self, visitor: Visitor, **data: Any) -> str:
        """Returns the handle."""
        with visitor.request() as session:
            session.update(data)
            visitor.do(session, "bind", user_id="ada")
        return session.handle

    def on(self, manager: SessionManager) -> Caller:
        """The store of a worker, by its blocking methods or its twins."""
        return Caller(manager.store, self.runner)

    def listed(self, manager: SessionManager) -> set[str]:
        return {info.handle for info in self.on(manager).sessions_of("ada")}

    def list(self) -> set[str]:
        """What the list holds, as far as one of the two can read it."""
        return self.listed(self.reader if self.can_read(self.key) else self.writer)

    def live(self) -> set[str]:
        return {self.writer.store.handle_of(key) for key in self.writer.store.session_keys()}

    def can_read(self, key: str) -> bool:
        """Whether the reader can read what is there."""
        value = self.driver.get(key)
        assert value is not None
        try:
            self.reader.store.codec.unpack(value, key)
        except OtherCodec:
            return False
        return True

    def refuses(self, act: Callable[[], object]) -> bool:
        """Whether the reader cannot read the list; then the act must say so, and leave all as it is."""
        if self.can_read(self.key):
            return False
        with pytest.raises(UnreadableList, match="list of this user's sessions cannot be read, and is left alone: the"):
            act()
        assert self.live() == self.listed(self.writer) == self.both
        assert self.driver.get(self.key) == self.index
        return True


def lists(world: World) -> None:
    if not world.refuses(lambda: world.listed(world.reader)):
        for manager in (world.reader, world.writer, world.reader):
            assert world.listed(manager) == world.both
    assert world.driver.get(world.key) == world.index


def revokes(world: World) -> None:
    if not world.refuses(lambda: world.on(world.reader).revoke("ada")):
        assert world.live() == world.both
        assert world.on(world.reader).revoke("ada") == 2
        assert world.live() == world.listed(world.reader) == set()


def revokes_others(world: World) -> None:
    with world.phone.request() as session:
        if not world.refuses(lambda: world.on(world.reader).revoke("ada", keep=session)):
            assert world.on(world.reader).revoke("ada", keep=session) == 1
            assert world.live() == world.listed(world.reader) == {world.phones}


def revokes_one(world: World) -> None:
    if not world.refuses(lambda: world.on(world.reader).revoke_one(world.phones, owner="ada")):
        assert world.on(world.reader).revoke_one(world.phones, owner="ada")
        assert world.live() == world.listed(world.reader) == {world.laptops}


def revokes_one_of_whom_it_does_not_say_whose_it_is(world: World) -> None:
    assert world.on(world.reader).revoke_one(world.phones)
    assert world.live() == world.list() == {world.laptops}


def is_ended_by_the_operator(world: World) -> None:
    assert revoke(world.reader.store, world.phones[:20]) == world.phones
    assert world.live() == world.list() == {world.laptops}


def logs_out(world: World) -> None:
    visitor = Visitor(world.reader, world.runner)
    with visitor.request(world.phone.cookie) as session:
        visitor.do(session, "destroy")
    assert world.live() == world.list() == {world.laptops}


def logs_in(world: World, ended: frozenset[str] = frozenset(), **options: Any) -> None:
    manager = world.another_reader(**options)
    visitor = Visitor(manager, world.runner)
    if world.refuses(lambda: world.log_in(visitor)):
        assert visitor.cookie is None
        return
    handle = world.log_in(visitor)
    world.clock.advance(UNDER_WAY + 1)
    assert world.live() == world.listed(manager) == {*world.both - ended, handle}
    assert world.on(manager).revoke("ada") == 3 - len(ended)
    assert world.live() == set()


def logs_in_where_two_may_be(world: World) -> None:
    logs_in(world, frozenset({world.phones}), max_sessions=2)


def logs_in_where_two_may_be_and_no_other_is_to_end(world: World) -> None:
    visitor = Visitor(world.another_reader(max_sessions=2, when_full="refuse"), world.runner)
    if not world.refuses(lambda: world.log_in(visitor)):
        with pytest.raises(TooManySessions):
            world.log_in(visitor)
        assert world.live() == world.listed(world.reader) == world.both


def is_used(world: World) -> None:
    """Sees an empty session or the whole one, and the list says in any case that it lives on."""
    world.clock.advance(400)
    visitor = Visitor(world.reader, world.runner)
    visitor.cookie = world.phone.cookie
    read(visitor)
    assert world.list() == world.both


def is_copied(world: World) -> None:
    new = UnstorageSessionStore(MemoryDriver(clock=world.clock), ttl=TTL, clock=world.clock, codec="json-lenient")
    keys = [world.key, *map(world.writer.store.key_of, world.both)]
    readable = all(map(world.can_read, keys))
    for outcome in ("copied", "same") if readable else ("unreadable", "unreadable"):
        counts = Counts()
        copy(world.reader.store, new, counts)
        assert (counts.done, getattr(counts, outcome)) == (2, 2)
        found = {new.handle_of(key) for key in new.session_keys()}
        assert found == {info.handle for info in new.sessions_of("ada")} == (world.both if readable else set())
    assert world.live() == world.listed(world.writer) == world.both


ACTS = [
    lists,
    revokes,
    revokes_others,
    revokes_one,
    revokes_one_of_whom_it_does_not_say_whose_it_is,
    is_ended_by_the_operator,
    logs_out,
    logs_in,
    logs_in_where_two_may_be,
    logs_in_where_two_may_be_and_no_other_is_to_end,
    is_used,
    is_copied,
]


@pytest.mark.parametrize("act", ACTS, ids=lambda act: act.__name__)
@pytest.mark.parametrize(("writer", "reader"), list(permutations(CODECS, 2)))
def test_no_session_of_another_codec_is_struck_from_the_list_of_its_owner_or_survives_its_end(
    act: Callable[[World], None], writer: str, reader: str, runner: asyncio.Runner | None
) -> None:
    act(World(writer, reader, runner))


def test_what_no_codec_can_read_opens_no_session_and_is_in_no_list() -> None:
    world = World("json", "msgpack", None)
    world.driver.set(world.writer.store.key_of(world.phones), b"{broken")
    assert world.listed(world.writer) == world.listed(world.reader) == {world.laptops}
    assert not world.writer.store.revoke_one(world.phones, owner="ada")
    assert world.writer.store.revoke_one(world.phones)
    assert world.writer.store.revoke("ada") == 1


def test_a_list_is_not_shortened_because_the_callers_stack_is_nearly_full() -> None:
    """A `RecursionError` says nothing of the record."""
    world = World("json", "json", None)
    store = world.writer.store

    class Full:
        def __getattr__(self, name: str) -> Any:
            return getattr(store.codec, name)

        def unpack(self, data: bytes, key: str = "") -> Any:
            if "~" not in key:
                raise RecursionError
            return store.codec.unpack(data, key)

    full = store.with_codec(Full())
    assert {info.handle for info in full.sessions_of("ada")} == world.both
    assert full.revoke("ada") == 2
    assert world.live() == set()


def test_an_operator_ends_a_session_also_where_the_list_of_its_owner_cannot_be_read() -> None:
    world = World("json", "accepts plain", None)
    world.log_in(Visitor(world.reader))
    sealed = world.driver.get(world.key)
    assert revoke(world.writer.store, world.phones) == world.phones
    assert world.driver.get(world.key) == sealed
    assert world.phones not in world.live() | world.listed(world.reader)


# --- what a site answers whose list of ada is of another codec, though her session is not ---


def changes(session: Session[Any], world: World) -> None:
    session["page"] = 2


def binds(session: Session[Any], world: World) -> None:
    session.bind("ada")


def ends_the_others(session: Session[Any], world: World) -> None:
    world.writer.store.revoke("ada", keep=session)


async def abinds(session: Session[Any], world: World) -> None:
    await session.abind("ada")


async def achanges(session: Session[Any], world: World) -> None:
    session["page"] = 2


async def aends_the_others(session: Session[Any], world: World) -> None:
    await world.writer.store.arevoke("ada", keep=session)


@pytest.mark.parametrize(
    ("handler", "twin"), [(changes, achanges), (binds, abinds), (ends_the_others, aends_the_others)]
)
@pytest.mark.parametrize("kind", ["asgi", "wsgi"])
def test_a_request_that_needs_a_list_which_cannot_be_read_is_answered_as_in_an_outage(
    kind: str, handler: Any, twin: Any
) -> None:
    world = World("json", "accepts plain", None)
    moved = world.log_in(Visitor(world.reader))
    sealed = world.driver.get(world.key)
    world.clock.advance(400)  # a renewal is due
    cookie = world.phone.cookie or ""
    if kind == "asgi":
        app = bare(lambda session: twin(session, world))
        status = asyncio.run(call(SessionMiddleware(app, manager=world.writer), cookie))[0]["status"]
    else:

        def wsgi(environ: Any, start_response: Any) -> list[bytes]:
            handler(environ["session_kit.session"], world)
            start_response("200 OK", [])
            return [b"done"]

        status = int(BareServer(WSGISessionMiddleware(wsgi, manager=world.writer)).get(cookie)[0][:3])
    assert status == 503
    assert world.driver.get(world.key) == sealed
    assert world.live() == world.listed(world.reader) == {*world.both, moved}
    assert world.writer.open(cookie)["page"] == 1
