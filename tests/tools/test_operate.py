"""What operators do with a store in use: nothing is lost, nobody is logged out, nobody who left comes back."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from session_kit import (
    ConfigError,
    CookieOptions,
    CorruptEntry,
    DriverUnavailable,
    SessionManager,
    UnstorageSessionStore,
    open_store,
)
from session_kit.codec import Encrypted, JSONCodec
from session_kit.cookie import Cookie
from session_kit.drivers import Capabilities, Driver
from session_kit.drivers.disk import DiskDriver
from session_kit.drivers.memory import MemoryDriver
from session_kit.drivers.redis.findings import server_findings
from session_kit.drivers.support.findings import Finding, clock_finding, network_finding, path_findings
from session_kit.operate.at_once import at_once
from session_kit.operate.commands import list_sessions, revoke_sessions, run
from session_kit.operate.copy import Counts, copy
from session_kit.operate.doctor import NOBODY_THERE, examine, examine_cookie, examine_secret
from session_kit.operate.sessions import NoSuchSession, details, find, revoke, summaries
from session_kit.record import hash_id
from session_kit.testing import CountingDriver, FaultyDriver, ManualClock, Visitor
from session_kit.testing.faults import WrappedDriver
from tests.harness.postgres import start_postgres
from tests.harness.servers import (
    HOST,
    Cluster,
    S3Server,
    Valkey,
    free_ports,
    silent_server,
    start_valkey,
    wrong_server,
)
from tests.harness.sessions import SECRET, Mortal, read

DAY = 86400.0
KEY = "vhX1ZkDyV9mV4Uq8b2Zb0k5WJ7n3xH6cT0rYpLs2aQE"


@pytest.fixture
def old(clock: ManualClock) -> UnstorageSessionStore:
    return UnstorageSessionStore(MemoryDriver(clock=clock), ttl=1000, clock=clock)


@pytest.fixture
def new(clock: ManualClock) -> UnstorageSessionStore:
    return UnstorageSessionStore(MemoryDriver(clock=clock), ttl=1000, clock=clock, prefix="shop")


@pytest.fixture
def everywhere(backend: Driver, clock: ManualClock) -> UnstorageSessionStore:
    """A store on each driver."""
    return UnstorageSessionStore(backend, ttl=1000, clock=clock)


def visitor_of(store: UnstorageSessionStore, clock: ManualClock, cookie: str | None = None) -> Visitor:
    visitor = Visitor(SessionManager(store, SECRET, clock=clock))
    visitor.cookie = cookie
    return visitor


def put(store: UnstorageSessionStore, clock: ManualClock, **data: Any) -> Visitor:
    """A visitor with a session."""
    visitor = visitor_of(store, clock)
    with visitor.request() as session:
        session.update(data)
    return visitor


def moved(old: UnstorageSessionStore, new: UnstorageSessionStore) -> dict[str, int]:
    """Copy, and return what was counted."""
    counts = Counts()
    copy(old, new, counts)
    return {name: number for name, number in vars(counts).items() if number and name != "differing"}


# --- a list, and one session ---


def test_a_list_tells_when_and_how_much_and_nothing_that_opens_a_session(
    everywhere: UnstorageSessionStore, clock: ManualClock
) -> None:
    begun = clock()
    put(UnstorageSessionStore(everywhere.driver, prefix="sess:other", clock=clock), clock, user="canary")
    ada = put(everywhere, clock, user="ada-canary")
    clock.advance(400)
    with ada.request() as session:
        session["page"] = 1
        name = session.id
    (summary,) = summaries(everywhere)
    assert summary.handle == hash_id(name)
    assert summary.created == pytest.approx(begun, abs=1)
    # A driver that does not renew on read keeps a record for longer, by the slack of `touch_after`.
    assert summary.last_used == pytest.approx(clock(), abs=101)
    assert summary.expires == pytest.approx(clock() + 1000, abs=101)
    assert summary.size is not None
    assert 40 < summary.size < 200
    assert "canary" not in repr(summary) + repr(details(everywhere, summary.handle))
    assert name not in repr(summary)


def test_a_record_that_cannot_be_read_is_in_the_list_and_can_be_revoked(old: UnstorageSessionStore) -> None:
    old.driver.set(old.key("bad"), b"no JSON", ttl=50)
    old.driver.set(old.key("foreign"), b'{"user":"ada"}')
    found = {summary.handle: summary for summary in summaries(old)}
    assert (found[hash_id("bad")].created, found[hash_id("bad")].size) == (None, 7)
    assert (found[hash_id("foreign")].created, found[hash_id("foreign")].expires) == (None, None)
    with pytest.raises(CorruptEntry, match="cannot be read"):
        details(old, hash_id("bad"))
    assert revoke(old, hash_id("bad")) == hash_id("bad")
    assert [summary.handle for summary in summaries(old)] == [hash_id("foreign")]


def test_a_time_that_the_ttl_of_the_url_cannot_explain_is_not_told(clock: ManualClock) -> None:
    driver = MemoryDriver(clock=clock)
    put(UnstorageSessionStore(driver, ttl="7d", clock=clock), clock, user="ada")
    begun = clock()
    clock.advance(60)
    (summary,) = summaries(UnstorageSessionStore(driver, ttl="1d", clock=clock))
    assert summary.last_used == begun


def test_one_session_shows_its_keys_and_no_note_of_the_library(
    everywhere: UnstorageSessionStore, clock: ManualClock
) -> None:
    put(everywhere, clock, user="ada", cart=["apple"])
    (summary,) = summaries(everywhere)
    same, fields = details(everywhere, summary.handle[:6].upper())
    assert (same.handle, same.created, same.size) == (summary.handle, summary.created, summary.size)
    assert [(field.key, field.type, field.size, field.value) for field in fields] == [
        ("user", "str", 5, "ada"),
        ("cart", "list", 9, ["apple"]),
    ]


@pytest.mark.parametrize("hash_ids", [True, False])
def test_a_handle_is_found_by_a_beginning_that_no_other_has(hash_ids: bool) -> None:
    store = UnstorageSessionStore("memory://", hash_ids=hash_ids)
    names = [f"name-{number}" for number in range(40)]
    for name in names:
        store.set(name, {})
    handles = sorted(map(hash_id, names))
    twins = next(one[0] for one, other in pairwise(handles) if one[0] == other[0])
    with pytest.raises(NoSuchSession, match=f"several sessions have handles that begin with {twins}"):
        find(store, twins)
    for name in names:
        assert find(store, hash_id(name)[:12]) == store.key(name)
    with pytest.raises(NoSuchSession, match="no session has a handle"):
        find(store, "0" * 64)


@pytest.mark.parametrize("given", ["name~token-canary", "", "xyz", "0" * 65, "ab:*", "../", "ab\n"])
def test_what_is_no_handle_is_refused_and_not_repeated(given: str) -> None:
    with pytest.raises(ConfigError, match="that is no handle") as caught:
        find(UnstorageSessionStore("memory://"), given)
    assert "canary" not in str(caught.value)


def test_a_revoked_session_is_gone_at_its_next_request(everywhere: UnstorageSessionStore, clock: ManualClock) -> None:
    ada, bob = put(everywhere, clock, user="ada"), put(everywhere, clock, user="bob")
    with ada.request() as session:
        handle = hash_id(session.id)
    revoke(everywhere, handle)
    assert read(ada) == {}
    assert read(bob) == {"user": "bob"}
    with pytest.raises(NoSuchSession):
        revoke(everywhere, handle)


def test_a_store_that_dies_between_two_revocations_is_one_line_and_the_same_command_ends_the_work(
    clock: ManualClock,
) -> None:
    mortal = Mortal(MemoryDriver(clock=clock))
    store = UnstorageSessionStore(mortal, clock=clock)
    handles = [hash_id(sid) for sid in ("one", "two", "three")]
    for sid in ("one", "two", "three"):
        store.set(sid, {})
    said, complaints = list[str](), list[str]()
    mortal.die(3)
    command = partial(revoke_sessions, store, handles, said.append, complaints.append)
    assert run(command, complaints.append) == 1
    assert complaints == ["session-kit: it died"]
    mortal.heal()
    run(command, complaints.append)
    assert store.length() == 0
    assert [line for line in complaints if "no session has a handle" not in line] == ["session-kit: it died"]


def test_a_folder_that_goes_while_it_is_examined_is_a_failed_check(tmp_path: Path, clock: ManualClock) -> None:
    class Lost(MemoryDriver):
        def examine(self) -> Iterator[Finding]:
            return path_findings(tmp_path / "gone")

    (*_, last) = examine(UnstorageSessionStore(Lost(clock=clock), clock=clock), wait=clock.advance)
    assert (last.subject, last.state) == ("reach", "failed")


# --- a copy of a live store ---


def test_a_copy_keeps_ids_data_and_expiry(
    old: UnstorageSessionStore, everywhere: UnstorageSessionStore, clock: ManualClock
) -> None:
    ada, bob = put(old, clock, user="ada"), put(old, clock, user="bob")
    clock.advance(300)
    read(bob)  # renews
    old.set("for-ever", {"a": 1}, ttl=None)
    old.driver.touch(old.key("for-ever"), None)
    expiries = {old.handle_of(key): expiry_of(old, key) for key in old.session_keys()}
    assert moved(old, everywhere) == {"copied": 3}
    assert {
        everywhere.handle_of(key): expiry_of(everywhere, key) for key in everywhere.session_keys()
    } == pytest.approx(expiries, abs=1)
    assert everywhere.length() == 3
    assert moved(old, everywhere) == {"same": 3}
    for visitor, name in ((ada, "ada"), (bob, "bob")):
        assert read(visitor_of(everywhere, clock, visitor.cookie)) == {"user": name}


def expiry_of(store: UnstorageSessionStore, key: str) -> float | None:
    entry = store.driver.read(key)
    assert entry is not None
    return entry.expires_at


def test_a_live_store_moves_without_a_logout(
    old: UnstorageSessionStore, everywhere: UnstorageSessionStore, clock: ManualClock
) -> None:
    stays, logs_in, counts = (put(old, clock, page=number) for number in range(3))
    copy(old, everywhere, Counts())
    # The application is still on the old store.
    with logs_in.request() as session:
        session["user"] = "ada"  # a new token: the cookie of before is worth nothing
    with counts.request() as session:
        session["count"] = 1
    late = put(old, clock, user="late")
    # It goes on with the new one: some come back before the second copy, some after.
    with visitor_of(everywhere, clock, stays.cookie).request() as session:
        session["page"] = 100
    assert moved(old, everywhere) == {"copied": 1, "updated": 2, "newer": 1}
    assert read(visitor_of(everywhere, clock, stays.cookie)) == {"page": 100}
    assert read(visitor_of(everywhere, clock, logs_in.cookie)) == {"page": 1, "user": "ada"}
    assert read(visitor_of(everywhere, clock, counts.cookie)) == {"page": 2, "count": 1}
    assert read(visitor_of(everywhere, clock, late.cookie)) == {"user": "late"}


def test_who_has_left_in_either_store_does_not_come_back(
    old: UnstorageSessionStore, everywhere: UnstorageSessionStore, clock: ManualClock
) -> None:
    ada, bob, eve = (put(old, clock, user=name) for name in ("ada", "bob", "eve"))
    copy(old, everywhere, Counts())
    with visitor_of(everywhere, clock, ada.cookie).request() as session:
        session.destroy()
    with bob.request() as session:
        bobs = bob.cookie
        session.destroy()
    assert moved(old, everywhere) == {"ended_in_new": 1, "ended_in_old": 1, "same": 1}
    assert read(visitor_of(everywhere, clock, ada.cookie)) == {}
    assert read(visitor_of(everywhere, clock, bobs)) == {}
    assert read(visitor_of(everywhere, clock, eve.cookie)) == {"user": "eve"}
    assert moved(old, everywhere) == {"ended_in_new": 1, "same": 1}


def test_who_went_on_in_the_new_store_stays_when_the_old_one_forgets_them(
    old: UnstorageSessionStore, new: UnstorageSessionStore, clock: ManualClock
) -> None:
    ada, bob, eve = (put(old, clock, user=name) for name in ("ada", "bob", "eve"))
    copy(old, new, Counts())
    clock.advance(500)
    with visitor_of(new, clock, ada.cookie).request() as session:
        session["page"] = 1
    read(visitor_of(new, clock, bob.cookie))  # renews
    read(eve)
    clock.advance(501)  # what was not used is over
    assert moved(old, new) == {"copied": 1}  # eve, whose copy had expired
    for visitor, name in ((ada, "ada"), (bob, "bob"), (eve, "eve")):
        assert read(visitor_of(new, clock, visitor.cookie))["user"] == name


def test_use_in_the_old_store_makes_the_copy_live_longer(
    old: UnstorageSessionStore, new: UnstorageSessionStore, clock: ManualClock
) -> None:
    old.set("sid", {"user": "ada"})
    copy(old, new, Counts())
    clock.advance(900)
    old.touch("sid")
    assert moved(old, new) == {"same": 1}
    clock.advance(200)
    assert new.get("sid") == {"user": "ada"}


@pytest.mark.parametrize(("passed", "left"), [(50, 1000), (99, 4)])
def test_what_was_used_in_the_new_store_does_not_end_with_the_old_record(
    passed: float, left: float, old: UnstorageSessionStore, new: UnstorageSessionStore, clock: ManualClock
) -> None:
    old.set("a", {"user": "ada"}, ttl=100)
    old.set("b", {"user": "bob"})
    copy(old, new, Counts())
    clock.advance(passed)
    new.driver.touch(new.key("a"), left)
    if passed < 90:
        old.destroy("a")  # by a process that still used the old store
    clock.advance(2)  # else it expires there by itself
    assert moved(old, new) == {"same": 1}
    assert new.get("a") == {"user": "ada"}


def test_an_old_store_that_was_emptied_logs_nobody_out(
    old: UnstorageSessionStore, new: UnstorageSessionStore, clock: ManualClock
) -> None:
    ada, bob = put(old, clock, user="ada"), put(old, clock, user="bob")
    copy(old, new, Counts())
    old.clear()
    assert moved(old, new) == {"left": 2}
    for visitor in (ada, bob):
        assert read(visitor_of(new, clock, visitor.cookie))


def test_a_logout_in_the_old_store_counts_however_its_url_is_written(
    new: UnstorageSessionStore, clock: ManualClock, tmp_path: Path
) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    urls = [f"sqlite://{tmp_path}/{name}/s.db?ttl=1000" for name in ("real", "link")]
    for url, found in zip(urls, ({"copied": 2}, {"ended_in_old": 1, "same": 1}), strict=True):
        with closing(open_store(url, clock=clock)) as old:
            if "copied" in found:
                ada, bob = put(old, clock, user="ada"), put(old, clock, user="bob")
            else:
                with visitor_of(old, clock, ada.cookie).request() as session:
                    session.destroy()
            assert moved(old, new) == found
    assert read(visitor_of(new, clock, ada.cookie)) == {}
    assert read(visitor_of(new, clock, bob.cookie)) == {"user": "bob"}


def test_an_old_store_that_can_only_be_read_is_copied(new: UnstorageSessionStore, clock: ManualClock) -> None:
    faulty = FaultyDriver(MemoryDriver(clock=clock))
    old = UnstorageSessionStore(faulty, ttl=1000, clock=clock)
    visitor = put(old, clock, user="ada")
    faulty.fail("set")
    assert moved(old, new) == {"copied": 1}
    assert moved(old, new) == {"same": 1}
    assert read(visitor_of(new, clock, visitor.cookie)) == {"user": "ada"}


def test_what_was_changed_in_both_stores_is_told(
    old: UnstorageSessionStore, new: UnstorageSessionStore, clock: ManualClock
) -> None:
    visitor = put(old, clock, n=1)
    copy(old, new, Counts())
    for store, n in ((old, 2), (new, 3)):
        with visitor_of(store, clock, visitor.cookie).request() as session:
            session["n"] = n
    assert moved(old, new) == {"both": 1}
    assert read(visitor_of(new, clock, visitor.cookie)) == {"n": 3}


def test_the_sessions_of_a_third_store_are_not_taken_for_ended(
    old: UnstorageSessionStore, new: UnstorageSessionStore, clock: ManualClock
) -> None:
    third = UnstorageSessionStore(MemoryDriver(clock=clock), ttl=1000, clock=clock, prefix="third")
    ada, bob = put(old, clock, user="ada"), put(third, clock, user="bob")
    assert moved(old, new) == {"copied": 1}
    assert moved(third, new) == {"copied": 1}
    for visitor in (ada, bob):
        assert read(visitor_of(new, clock, visitor.cookie))


def test_what_stands_in_the_place_of_a_session_is_left_and_named(
    old: UnstorageSessionStore, new: UnstorageSessionStore, clock: ManualClock
) -> None:
    old.set("one", {"a": 1})
    old.set("two", {"a": 2})
    new.set("one", {"a": "another"})
    counts = Counts()
    copy(old, new, counts)
    assert (counts.copied, counts.differs, counts.differing) == (1, 1, [hash_id("one")])
    assert new.get("one") == {"a": "another"}


@pytest.mark.parametrize("spelling", ["{path}", "{path}?ttl=9d", "{link}", "{path}?codec=json-lenient"])
def test_a_store_is_not_copied_onto_itself(spelling: str, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    path, link = (f"sqlite://{tmp_path}/{name}/s.db" for name in ("real", "link"))
    with closing(open_store(path)) as one, closing(open_store(spelling.format(path=path, link=link))) as other:
        one.set("sid", {"a": 1})
        with pytest.raises(ConfigError, match="both are the same store"):
            copy(one, other, Counts())
        assert list(one.driver.keys()) == [one.key("sid")]


def test_a_store_is_copied_to_another_prefix_of_the_same_place(clock: ManualClock) -> None:
    driver = MemoryDriver(clock=clock)
    shop, admin = (UnstorageSessionStore(driver, prefix=prefix, clock=clock) for prefix in ("shop", "shop:admin"))
    ada = put(shop, clock, user="ada")
    assert moved(shop, admin) == {"copied": 1}
    assert (shop.length(), admin.length()) == (1, 1)
    assert read(visitor_of(admin, clock, ada.cookie)) == {"user": "ada"}


def test_names_in_plain_are_hashed_on_the_way_and_never_the_other_way_round(clock: ManualClock) -> None:
    plain = UnstorageSessionStore(MemoryDriver(clock=clock), hash_ids=False, clock=clock)
    hashed = UnstorageSessionStore(MemoryDriver(clock=clock), clock=clock)
    ada, bob, eve = (put(plain, clock, user=name) for name in ("ada", "bob", "eve"))
    assert moved(plain, hashed) == {"copied": 3}
    with bob.request() as session:
        session.destroy()
    with eve.request() as session:
        session["page"] = 1
    assert moved(plain, hashed) == {"same": 1, "updated": 1, "ended_in_old": 1}
    assert read(visitor_of(hashed, clock, ada.cookie)) == {"user": "ada"}
    for key in plain.driver.keys():
        assert key not in hashed.driver.keys()
    with pytest.raises(ConfigError, match="the names are not known"):
        copy(hashed, plain, Counts())


class Other:
    """JSON, written backwards."""

    def __init__(self) -> None:
        self._json = JSONCodec()

    def pack(self, fields: Any, key: str = "") -> bytes:
        return self._json.pack(fields)[::-1]

    def unpack(self, data: bytes, key: str = "") -> Any:
        return self._json.unpack(data[::-1])

    def __getattr__(self, name: str) -> Any:
        return getattr(self._json, name)


def test_records_are_encoded_again_for_another_codec(old: UnstorageSessionStore, clock: ManualClock) -> None:
    new = UnstorageSessionStore(MemoryDriver(clock=clock), ttl=1000, clock=clock, codec=Other())  # type: ignore[arg-type]
    ada = put(old, clock, user="ada")
    old.driver.set(old.key("bad"), b"no JSON")
    counts = Counts()
    copy(old, new, counts)
    assert (counts.copied, counts.unreadable, counts.differing) == (1, 1, [hash_id("bad")])
    there = visitor_of(new, clock, ada.cookie)
    assert read(there) == {"user": "ada"}
    with ada.request() as session:
        session["page"] = 1
    assert moved(old, new) == {"updated": 1, "unreadable": 1}
    assert read(there) == {"user": "ada", "page": 1}


@pytest.mark.parametrize("codecs", [(Encrypted(KEY), "json"), (Encrypted(KEY), "msgpack")], ids=["as it is", "recoded"])
def test_a_record_that_the_command_cannot_read_is_not_said_to_be_left_out_and_written_all_the_same(
    codecs: tuple[Any, Any], clock: ManualClock
) -> None:
    driver = MemoryDriver(clock=clock)
    theirs, found = (UnstorageSessionStore(driver, clock=clock, codec=codec) for codec in (codecs[0], "json"))
    new = UnstorageSessionStore(MemoryDriver(clock=clock), clock=clock, codec=codecs[1])
    bound(theirs, "ada", "eve")
    put(found, clock, user="bob")
    assert moved(found, new) == {"copied": 1, "unreadable": 2}
    assert moved(found, new) == {"same": 1, "unreadable": 2}
    assert new.length() == 1
    assert moved(theirs.with_codec(Encrypted(KEY, accept_plain=True)), new) == {"same": 1, "copied": 2}


def test_a_record_that_the_new_codec_cannot_read_is_not_copied_as_it_is(clock: ManualClock) -> None:
    driver = MemoryDriver(clock=clock)
    UnstorageSessionStore(driver, clock=clock, codec="msgpack").set("sid", {"at": datetime.now(UTC)})
    old = UnstorageSessionStore(driver, clock=clock, codec="json-tagged")
    new = UnstorageSessionStore(MemoryDriver(clock=clock), clock=clock)
    assert moved(old, new) == {"unreadable": 1}
    assert new.length() == 0


def test_a_session_is_not_copied_where_the_list_of_its_owner_cannot_be_read(clock: ManualClock) -> None:
    drivers = MemoryDriver(clock=clock), MemoryDriver(clock=clock)
    for unreadable in drivers:
        old, new = (UnstorageSessionStore(driver, clock=clock) for driver in drivers)
        old.clear()
        new.clear()
        bound(old, "ada", "eve")
        store = old if unreadable is drivers[0] else new
        key = store.index_key("ada")
        index = store.driver.get(key) or store.codec.pack({})
        store.driver.set(key, sealed := Encrypted(KEY).pack(store.codec.unpack(index), key))
        assert moved(old, new) == {"copied": 1, "unreadable": 1}
        assert store.driver.get(key) == sealed
        assert len(new.sessions_of("eve")) == new.length() == 1


def test_what_another_way_has_brought_is_known_again_and_listed(old: UnstorageSessionStore, clock: ManualClock) -> None:
    new = UnstorageSessionStore(MemoryDriver(clock=clock), clock=clock, codec=Encrypted(KEY))
    bound(old, "ada")
    [key] = old.session_keys()
    value = old.driver.get(key)
    assert value is not None
    new.driver.set(key, new.codec.pack(old.codec.unpack(value), key))
    assert moved(old, new) == {"same": 1}
    assert [info.label for info in new.sessions_of("ada")] == ["of ada"]
    assert new.sessions_of("ada") == old.sessions_of("ada")


def test_a_session_in_use_in_the_new_store_is_not_struck_from_its_list_because_the_old_list_says_that_it_ends(
    clock: ManualClock,
) -> None:
    old, new = (UnstorageSessionStore(MemoryDriver(clock=clock), ttl=ttl, clock=clock) for ttl in (1000, 9000))
    visitor = visitor_of(old, clock)
    with visitor.request() as session:
        session.bind("ada")
    assert moved(old, new) == {"copied": 1}
    clock.advance(400)
    read(visitor_of(new, clock, visitor.cookie))
    listed = new.sessions_of("ada")
    new.driver.clear(f"{new.prefix}:~copied:")  # a mark lives a day longer than what it was made of
    assert moved(old, new) == {"differs": 1}
    assert new.sessions_of("ada") == listed


def test_a_stream_is_not_collected() -> None:
    taken = []

    def items() -> Iterator[int]:
        for number in range(10_000):
            taken.append(number)
            yield number

    results = at_once(lambda number: number * 2, items())
    assert next(results) == 0
    assert len(taken) < 50
    results.close()  # type: ignore[attr-defined]  # it is a generator


def test_what_one_worker_raises_ends_the_work() -> None:
    done = []

    def work(number: int) -> None:
        if number == 5:
            raise DriverUnavailable("down")
        done.append(number)

    with pytest.raises(DriverUnavailable):
        list(at_once(work, range(10_000)))
    assert len(done) < 50


# --- the doctor ---


def state_of(findings: list[Finding]) -> dict[str, str]:
    return {finding.subject: finding.state for finding in findings}


def test_a_store_that_does_what_it_should_fails_no_check_and_is_left_as_it_was(
    everywhere: UnstorageSessionStore, clock: ManualClock
) -> None:
    everywhere.set("sid", {"user": "ada"})
    before = list(everywhere.driver.keys())
    findings = list(examine(everywhere, wait=clock.advance))
    assert [finding for finding in findings if finding.state == "failed"] == []
    assert {"reach", "writing", "conditions", "expiry"} <= state_of(findings).keys()
    assert list(everywhere.driver.keys()) == before
    if everywhere.capabilities.swap:
        assert state_of(findings)["conditions"] == "ok"
    else:
        assert state_of(findings)["conditions"] == "warning"


class Liar(WrappedDriver):
    """Breaks one promise."""

    def __init__(self, driver: Driver, broken: str) -> None:
        super().__init__(driver)
        self._broken = broken

    def call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "set":
            if self._broken == "conditions":
                kwargs.pop("expect", None)
            elif self._broken == "swap" and isinstance(kwargs.get("expect"), int):
                kwargs.pop("expect")
            elif self._broken == "expiry":
                kwargs.pop("ttl", None)
            elif self._broken == "writing":
                return 1
        if name == "delete" and self._broken == "deleting":
            return True
        return super().call(name, *args, **kwargs)


@pytest.mark.parametrize(
    ("broken", "subject"),
    [
        ("conditions", "conditions"),
        ("swap", "conditions"),
        ("expiry", "expiry"),
        ("writing", "writing"),
        ("deleting", "writing"),
    ],
)
def test_a_promise_that_is_not_kept_is_found(broken: str, subject: str, clock: ManualClock) -> None:
    store = UnstorageSessionStore(Liar(MemoryDriver(clock=clock), broken), clock=clock)
    findings = list(examine(store, wait=clock.advance))
    assert next(finding.subject for finding in findings if finding.state == "failed") == subject


def test_a_store_that_is_down_is_one_failed_check_without_a_password(tmp_path: Path) -> None:
    with start_valkey(tmp_path, password="s3cret-password") as server:
        url = server.url
    with closing(open_store(url)) as store:
        (finding,) = examine(store)
    assert (finding.subject, finding.state) == ("reach", "failed")
    assert "s3cret" not in repr(finding)


@pytest.fixture
def outage(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Finding]:
    """What the doctor finds of the store at a URL that does not work."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cret")

    def find(url: str) -> Finding:
        with closing(open_store(url)) as store:
            (*_, last) = examine(store, wait=lambda _: None)
        assert (last.subject, last.state) == ("reach", "failed")
        return last

    return find


@pytest.mark.parametrize(
    "url",
    [
        "redis://{place}?timeout=300ms",
        "rediss://{place}?timeout=300ms",
        "redis+cluster://{place}?timeout=300ms",
        "postgresql://postgres@{place}/db?timeout=300ms",
        "s3://bucket?endpoint_url=http://{place}&timeout=300ms",
    ],
)
def test_where_nobody_answers_the_doctor_asks_for_the_address(url: str, outage: Callable[[str], Finding]) -> None:
    with silent_server() as silent:
        for place in (f"{HOST}:{free_ports(1)[0]}", f"{HOST}:{silent}", "no-such-host.invalid:1"):
            assert outage(url.format(place=place)).advice == NOBODY_THERE, place


def test_where_no_redis_answers_the_doctor_asks_for_the_address(outage: Callable[[str], Finding]) -> None:
    with wrong_server() as port:
        assert outage(f"redis://{HOST}:{port}").advice == NOBODY_THERE


def test_of_a_server_that_refuses_the_doctor_does_not_ask_for_the_address(
    tmp_path: Path, moto: S3Server, outage: Callable[[str], Finding]
) -> None:
    with (
        start_valkey(tmp_path, password="s3cret") as locked,
        start_valkey(tmp_path, config=["--replicaof", HOST, "1"]) as replica,
        start_valkey(tmp_path, config=["--maxmemory", "1"]) as full,
        start_postgres(tmp_path) as postgres,
    ):
        postgres.ask("CREATE ROLE shop LOGIN PASSWORD 's3cret'")
        postgres.demand_passwords()
        at = f"{HOST}:{postgres.port}"
        for url, reason in (
            (f"redis://:wrong@{locked.host}:{locked.port}", "refuses the user name or password"),
            (f"redis://{locked.host}:{locked.port}", "refuses the user name or password|Authentication required"),
            (f"redis+sentinel://{locked.host}:{locked.port}/service", "check the name of the service"),
            (replica.url, "read-only replica"),
            (full.url, "maxmemory"),
            (f"redis+cluster://{full.host}:{full.port}", "use redis://"),
            (f"postgresql://shop:wrong@{at}/postgres", "password authentication failed"),
            (f"postgresql://postgres@{at}/nope", "does not exist"),
            (f"s3://no-such-bucket?endpoint_url={moto.endpoint_url}", "the bucket does not exist"),
        ):
            finding = outage(url)
            assert re.search(reason, finding.text), finding
            assert finding.advice == "", finding


def test_of_a_full_disk_the_doctor_does_not_ask_for_the_address(tmp_path: Path) -> None:
    driver = DiskDriver(tmp_path / "store")
    with closing(UnstorageSessionStore(driver)) as store:
        # SQLite answers a database that may not grow with the same error as a disk without room.
        with driver.connections.reading() as database:
            ((pages,),) = database.execute("PRAGMA page_count").fetchall()
            database.execute(f"PRAGMA max_page_count = {pages + 1}").fetchall()
        with pytest.raises(DriverUnavailable):
            for number in range(1000):
                driver.set(f"key-{number}", b"x" * 100)
        (*_, last) = examine(store, wait=lambda _: None)
    assert last.state == "failed"
    assert "full" in last.text
    assert last.advice == ""


def test_a_probe_is_deleted_when_a_check_breaks_off(clock: ManualClock) -> None:
    faulty = FaultyDriver(CountingDriver(MemoryDriver(clock=clock)))
    faulty.fail("get")
    store = UnstorageSessionStore(faulty, clock=clock)
    assert state_of(list(examine(store, wait=clock.advance)))["reach"] == "failed"
    clock.advance(61)
    assert list(faulty.keys()) == []


def test_memory_that_no_other_process_sees_is_a_warning_and_so_are_sessions_that_never_end(clock: ManualClock) -> None:
    store = UnstorageSessionStore(MemoryDriver(clock=clock), ttl=None, clock=clock)
    states = state_of(list(examine(store, wait=clock.advance)))
    assert (states["sharing"], states["expiry"]) == ("warning", "warning")


def test_redis_tells_of_eviction_and_persistence(tmp_path: Path) -> None:
    with start_valkey(tmp_path) as server, closing(open_store(server.url)) as store:
        found = {finding.subject: finding for finding in examine(store)}
        assert {name: finding.state for name, finding in found.items() if finding.state != "ok"} == {
            "persistence": "warning"
        }
        assert "Valkey" in found["version"].text
        server.ask("CONFIG SET", "maxmemory-policy", "allkeys-lru")
        server.ask("CONFIG SET", "appendonly", "yes")
        found = {finding.subject: finding for finding in store.driver.examine()}
        assert {name: finding.state for name, finding in found.items() if finding.state != "ok"} == {
            "memory policy": "warning"
        }
        assert "noeviction" in found["memory policy"].advice
        server.ask("CONFIG SET", "appendonly", "no")
        server.ask("CONFIG SET", "save", "60 100")
        assert "snapshots" in {finding.subject: finding.text for finding in store.driver.examine()}["persistence"]


def test_redis_6_2_and_a_cluster_are_examined_too(redis62: Valkey, valkey_cluster: Cluster) -> None:
    for url in (redis62.url, valkey_cluster.url):
        with closing(open_store(url)) as store:
            states = state_of(list(examine(store)))
        assert states.pop("persistence") == "warning"
        assert set(states.values()) == {"ok"}
        assert {"network", "version", "memory policy", "clock"} <= states.keys()


def test_a_user_who_may_not_ask_the_server_is_told_so(tmp_path: Path) -> None:
    rule = "app on >s3cret-password ~sess:* +@read +@write +@connection +eval +evalsha"
    with (
        start_valkey(tmp_path, users=[rule]) as server,
        closing(open_store(f"redis://app:s3cret-password@127.0.0.1:{server.port}")) as store,
    ):
        findings = list(examine(store))
    assert [finding.subject for finding in findings if finding.state != "ok"] == ["server"]
    assert "s3cret" not in repr(findings)


def test_an_old_server_and_one_whose_clock_is_wrong(valkey: Valkey) -> None:
    with valkey.client() as client:
        told = b"\r\n".join(
            b"%s:%s" % (str(name).encode(), str(value).encode())
            for name, value in client.info("server").items()
            if name in ("redis_version", "server_time_usec")
        )

    def examined(info: bytes) -> dict[str, Finding]:
        found = server_findings(lambda commands: [info if commands[0][0] == "INFO" else []], ["db.example.com"], False)
        return {finding.subject: finding for finding in found}

    assert examined(told)["clock"].state == "ok"
    assert examined(told.replace(b"redis_version:", b"redis_version:5.0.14,"))["version"].state == "failed"
    late = examined(told.replace(b"server_time_usec:1", b"server_time_usec:2"))["clock"]
    assert (late.state, "ahead" in late.text) == ("warning", True)
    assert examined(told)["network"].state == "warning"


def test_clocks_and_networks() -> None:
    assert [clock_finding(ahead, "its").state for ahead in (0, 1.9, -1.9, 2.1, -300)] == ["ok"] * 3 + ["warning"] * 2
    for host, encrypted, state in (
        ("db.example.com", True, "ok"),
        ("db.example.com", False, "warning"),
        ("127.0.0.1", False, "ok"),
        ("localhost", False, "ok"),
    ):
        assert network_finding(host, encrypted, "").state == state


@pytest.mark.skipif(os.name != "posix", reason="modes of files")
@pytest.mark.parametrize("scheme", ["sqlite", "disk", "file"])
def test_a_folder_that_others_may_read_is_found(scheme: str, tmp_path: Path) -> None:
    path = tmp_path / "store"
    with closing(open_store(f"{scheme}://{path}")) as store:
        assert state_of(list(store.driver.examine())) == {"permissions": "ok", "room": "ok", "clock": "ok"}
        path.chmod(0o755)
        found = next(finding for finding in store.driver.examine() if finding.state == "failed")
    assert (found.subject, found.advice) == ("permissions", f"chmod go-rwx {path}")


@pytest.mark.parametrize("secret", [None, "", "sh0rt-canary", "changeme-canary" * 5])
def test_a_weak_secret_is_found_and_not_shown(secret: str | None) -> None:
    finding = examine_secret(secret, "SESSION_SECRET")
    assert finding.state == "failed"
    assert "canary" not in repr(finding)
    assert "SESSION_SECRET" in finding.text


def test_a_good_secret_is_not_shown_either() -> None:
    finding = examine_secret(SECRET, "SESSION_SECRET")
    assert finding.state == "ok"
    assert SECRET not in repr(finding)


def test_each_way_in_which_a_cookie_is_less_safe_is_told() -> None:
    def told(**options: Any) -> list[str]:
        return [found.text for found in examine_cookie(Cookie("sid", CookieOptions(**options))) if found.state != "ok"]

    assert told() == []
    assert told(secure=False) == ["sid: it is sent over plain http too"]
    assert told(httponly=False, samesite="none", domain="example.com") == [
        "sid: scripts on the page can read it",
        "sid: other sites may send it along",
        "sid: all subdomains of example.com see it",
    ]


def test_a_driver_of_somebody_else_has_nothing_to_tell_and_fails_nothing(clock: ManualClock) -> None:
    class Theirs(MemoryDriver):
        capabilities = Capabilities(shared=True, never_blocks=True)

    states = state_of(list(examine(UnstorageSessionStore(Theirs(clock=clock), clock=clock), wait=clock.advance)))
    assert states == {"reach": "ok", "writing": "ok", "conditions": "warning", "expiry": "ok"}


# --- owners ---


def bound(store: UnstorageSessionStore, *users: str) -> None:
    """Store a session for each of these users."""
    manager = SessionManager(store, SECRET)
    for user in users:
        session = manager.open()
        session.bind(user, label=f"of {user}").save()


@pytest.mark.parametrize("hash_ids", [True, False])
def test_the_sessions_of_one_user_are_listed_and_ended_alone(hash_ids: bool) -> None:
    store = UnstorageSessionStore("memory://", hash_ids=hash_ids)
    bound(store, "ada", "ada", "eve")
    said: list[str] = []
    assert list_sessions(store, said.append, "ada") == 0
    assert len(list(summaries(store, "ada"))) == 2
    assert revoke_sessions(store, [], said.append, said.append, "ada") == 0
    assert said[-1] == "revoked 2 sessions"
    assert len(list(summaries(store))) == 1
    with pytest.raises(ConfigError, match="--owner"):
        revoke_sessions(store, [], said.append, said.append)


@pytest.mark.parametrize("hash_ids", [True, False])
def test_a_session_that_was_copied_is_in_the_list_of_its_owner_and_one_that_was_revoked_is_not(hash_ids: bool) -> None:
    old, new = (
        UnstorageSessionStore("memory://", hash_ids=hash_ids),
        UnstorageSessionStore("memory://", codec="msgpack"),
    )
    bound(old, "ada", "ada", "eve")
    copy(old, new, Counts(), lambda counts: None)
    assert {info.label for info in new.sessions_of("ada")} == {"of ada"}
    assert len(new.sessions_of("ada")) == 2
    [eve] = new.sessions_of("eve")
    assert revoke(new, eve.handle[:20]) == eve.handle
    assert new.sessions_of("eve") == []
    assert new.revoke("ada") == 2
