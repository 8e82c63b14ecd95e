"""A flashed message is shown once: none is lost to another request, a failure or a rotation, and none comes back."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import combinations_with_replacement
from typing import Any

import msgspec
import pytest
from flask import Flask, flash, get_flashed_messages
from markupsafe import Markup

from session_kit import Session, SessionError, SessionManager, UnstorageSessionStore
from session_kit.drivers.memory import MemoryDriver
from session_kit.flash import FLASHES, Flash
from session_kit.integrations.flask import SessionKit
from session_kit.integrations.flask.sessions import FlaskSession
from session_kit.integrations.pyramid import PyramidSession
from session_kit.testing import CountingDriver, Schedule, SteppedDriver, Visitor, explore
from tests.harness.sessions import SECRET, cookie_of


def texts(session: Session[Any], *categories: str) -> list[Any]:
    return [message for _, message in session.flashes(*categories)]


# --- one request after the other ---


def test_a_message_is_shown_once_with_its_category_in_order(visitor: Visitor) -> None:
    with visitor.request() as session:
        session.flash("Saved")
        session.flash("Careful", "warning")
    with visitor.request() as session:
        assert session.flashes() == [Flash("message", "Saved"), Flash("warning", "Careful")]
        assert session.flashes() == []
    with visitor.request() as session:
        assert session.flashes() == []
        assert dict(session) == {}


def test_what_is_asked_for_by_category_leaves_the_others(visitor: Visitor) -> None:
    with visitor.request() as session:
        for category in ("info", "error", "info", "debug"):
            session.flash(f"an {category}", category)
    with visitor.request() as session:
        assert texts(session, "error", "debug") == ["an error", "an debug"]
        assert texts(session, "error") == []
    with visitor.request() as session:
        assert texts(session) == ["an info", "an info"]


def test_a_message_can_be_shown_by_the_request_that_flashed_it(visitor: Visitor) -> None:
    with visitor.request() as session:
        session.flash("now")
        assert texts(session) == ["now"]
    assert visitor.cookie is None  # nothing is left that would have to be stored


def test_looking_for_messages_where_there_are_none_writes_nothing(visitor: Visitor, driver: CountingDriver) -> None:
    with visitor.request() as session:
        session["a"] = 1
    driver.reset()
    with visitor.request() as session:
        assert session.flashes() == session.flashes("info") == []
    assert len(driver.calls) == 1
    assert not {"set", "delete"} & {*driver.calls}


@pytest.mark.parametrize("fails", ["5xx", "raises"])
def test_a_page_that_fails_after_reading_loses_no_message(visitor: Visitor, fails: str) -> None:
    with visitor.request() as session:
        session.flash("important")
    session = visitor.manager.open(visitor.cookie or "", asynchronous=visitor.runner is not None)
    visitor.do(session, "load")
    assert texts(session) == ["important"]
    if fails == "raises":
        visitor.manager.revert(session)
    if visitor.runner is None:
        visitor.manager.commit(session, 500)
    else:
        visitor.runner.run(visitor.manager.acommit(session, 500))
    with visitor.request() as session:
        assert texts(session) == ["important"]


def test_a_message_survives_the_login_that_flashed_it_and_a_logout_can_leave_one(visitor: Visitor) -> None:
    with visitor.request() as session:
        session["cart"] = 1
    with visitor.request() as session:
        session["user"] = "ada"
        session.flash("Welcome")
    with visitor.request() as session:
        assert texts(session) == ["Welcome"]
    with visitor.request() as session:
        visitor.do(session, "destroy")
        session.flash("Goodbye")
    with visitor.request() as session:
        assert "user" not in session
        assert texts(session) == ["Goodbye"]


def test_a_message_after_the_end_of_the_request_is_not_lost_in_silence(visitor: Visitor) -> None:
    with visitor.request() as session:
        session["a"] = 1
    visitor.manager.finish(session)
    with pytest.raises(SessionError, match="has ended"):
        session.flash("too late")
    assert session.flashes() == []


# --- what can be flashed ---


@pytest.mark.parametrize("codec", ["json", "json-lenient", "json-tagged", "msgpack"])
def test_each_codec_keeps_text_and_what_else_it_has_a_form_for(codec: Any) -> None:
    ada = Visitor(SessionManager("memory://", SECRET, codec=codec))
    at = datetime(2026, 1, 31, tzinfo=UTC)
    expected: list[Any] = ["Zoë ☃", {"count": 3}, Markup("<b>bold</b>")]
    with ada.request() as session:
        for message in expected:
            session.flash(message)
        if codec == "json":
            with pytest.raises(SessionError, match=r"_flashes\[0\]\[1\]: a datetime cannot be stored as JSON"):
                session.flash(at)
        else:
            session.flash(at)
            expected.append("2026-01-31T00:00:00+00:00" if codec == "json-lenient" else at)
    with ada.request() as session:
        found = texts(session)
    assert found == expected
    assert [type(message) for message in found[:3]] == [str, dict, Markup]  # safe HTML is not escaped, text is


def test_a_message_that_is_changed_after_it_was_flashed_is_shown_as_it_was() -> None:
    ada = Visitor(SessionManager("memory://", SECRET))
    items = ["apple"]
    with ada.request() as session:
        session.flash(items)
        items.append("pear")
    with ada.request() as session:
        assert texts(session) == [["apple"]]


def test_a_category_that_is_no_text_is_refused() -> None:
    session = SessionManager("memory://", SECRET).open()
    with pytest.raises(SessionError, match="category of a flash message must be text, not int"):
        session.flash("Saved", 1)  # type: ignore[arg-type]
    assert session.flashes() == []


def test_an_applications_own_value_under_the_key_is_not_overwritten() -> None:
    session = SessionManager("memory://", SECRET).open()
    session[FLASHES] = {"camera": 3}
    for use in (lambda: session.flash("Saved"), session.flashes):
        with pytest.raises(SessionError, match="a list is kept under the session key '_flashes', not a dict"):
            use()
    assert session[FLASHES] == {"camera": 3}


@pytest.mark.parametrize("other", [["text"], [5], [["only"]], [["a", "b", "c", "d"]], [[1, "b"]], [["a", "b"], {}]])
@pytest.mark.parametrize("kind", [Session, FlaskSession])
def test_a_list_of_something_else_under_the_key_breaks_no_page_and_stays(kind: type[Any], other: list[Any]) -> None:
    ada = Visitor(SessionManager("memory://", SECRET))
    with ada.request() as session:
        session.set({FLASHES: other})
    session = ada.manager.open(ada.cookie or "", session_class=kind)
    for use in (lambda: session.flash("Saved"), session.flashes, lambda: session.flashes("a")):
        with pytest.raises(SessionError, match="something else is there"):
            use()
    ada.manager.commit(session)
    with ada.request() as session:
        assert session[FLASHES] == other


# --- typed sessions ---


@dataclass
class Cart:
    items: list[str] = field(default_factory=list[str])


class Strict(msgspec.Struct, forbid_unknown_fields=True):
    items: list[str] = []


def test_a_typed_session_has_messages_beside_its_data() -> None:
    ada = Visitor(SessionManager("memory://", SECRET, data_type=Cart))
    with ada.request() as session:
        cart: Any = session.data
        cart.items.append("apple")
        session.flash("Added", "info")
        cart.items.append("pear")  # still the value of the session
    with ada.request() as session:
        assert session.flashes() == [Flash("info", "Added")]
        assert session.data == Cart(["apple", "pear"])  # type: ignore[comparison-overlap]
    with ada.request() as session:
        assert session.flashes() == []
        assert session.data == Cart(["apple", "pear"])  # type: ignore[comparison-overlap]


def test_a_type_that_forbids_unknown_fields_is_one_clear_error() -> None:
    session = SessionManager("memory://", SECRET, data_type=Strict).open()
    with pytest.raises(SessionError, match=r"do not fit Strict: .*unknown field `_flashes`"):
        session.flash("Added")
    assert session.flashes() == []
    assert dict(session) == {}


def test_an_upgrade_can_carry_messages_over() -> None:
    store = UnstorageSessionStore("memory://")
    before = Visitor(SessionManager(store, SECRET))
    with before.request() as session:
        session["items"] = {"apple": 1}
        session.flash("Added")

    def upgrade(data: dict[str, Any]) -> dict[str, Any]:
        return {"items": list(data["items"]), FLASHES: data.get(FLASHES, [])}

    after = Visitor(SessionManager(store, SECRET, data_type=Cart, upgrade=upgrade))
    with after.request(before.cookie) as session:
        assert session.data == Cart(["apple"])  # type: ignore[comparison-overlap]
        assert texts(session) == ["Added"]


# --- shared with the frameworks that have their own ---


def flask_app(manager: SessionManager) -> Flask:
    app = Flask(__name__)
    app.secret_key = SECRET

    @app.get("/flash")
    def put() -> str:
        flash("from Flask", "info")
        flash(Markup("<b>bold</b>"))
        flash("and more")
        return ""

    @app.get("/flashed")
    def get() -> list[list[str]]:
        found = get_flashed_messages(with_categories=True)
        assert all(type(each) is tuple for each in found)  # as with Flask's own sessions
        return [[type(message).__name__, message] for _, message in found]

    SessionKit(app, manager=manager)
    return app


@pytest.mark.parametrize("typed", [None, Cart])
def test_flask_shows_what_others_flashed_and_the_other_way_round(typed: type[Any] | None) -> None:
    manager = SessionManager("memory://", SECRET, data_type=typed)
    client, ada = flask_app(manager).test_client(use_cookies=False), Visitor(manager)
    with ada.request() as session:
        session.flash("from elsewhere")
        session.flash(Markup("<i>safe</i>"))
    headers = {"Cookie": ada.cookie or ""}
    assert client.get("/flashed", headers=headers).json == [["str", "from elsewhere"], ["Markup", "<i>safe</i>"]]
    client.get("/flash", headers=headers)
    with ada.request() as session:
        found = session.flashes()
    assert found == [("info", "from Flask"), ("message", "<b>bold</b>"), ("message", "and more")]
    assert client.get("/flashed", headers=headers).json == []


def flask_flashes(session: Any) -> None:
    """As `flask.flash` and `get_flashed_messages` do it."""
    flashes = session.get(FLASHES, [])
    flashes.append(("message", "slow"))
    session[FLASHES] = flashes


def flask_takes(session: Any) -> list[str]:
    return [message for _, message in (session.pop(FLASHES) if FLASHES in session else [])]


WAYS: list[tuple[type[Any], Callable[[Any], None], Callable[[Any], list[str]]]] = [
    (FlaskSession, flask_flashes, flask_takes),
    (PyramidSession, lambda session: session.flash("slow"), lambda session: list(session.pop_flash())),
]


@pytest.mark.parametrize(("kind", "put", "take"), WAYS, ids=["Flask", "Pyramid"])
def test_a_frameworks_own_way_loses_no_message_to_another_request(
    kind: type[Any], put: Callable[[Any], None], take: Callable[[Any], list[str]]
) -> None:
    manager = SessionManager("memory://", SECRET)
    cookie = ""

    def request(*steps: Callable[[Any], Any]) -> list[Any]:
        nonlocal cookie
        session = manager.open(cookie, session_class=kind).load()
        found = [step(session) for step in steps]
        for name, value in manager.commit(session):
            cookie = value.partition(";")[0] if name == "Set-Cookie" else cookie
        return found

    request(put)
    request(put, lambda _: request(put))
    assert request(take, lambda _: request(put))[0] == ["slow"] * 3
    assert request(take, take) == [["slow"], []]
    assert request(take) == [[]]


# --- requests that overlap ---


def test_two_requests_that_flash_at_once_keep_both(visitor: Visitor) -> None:
    with visitor.request() as session:
        session.flash("first")
    with visitor.request() as slow:
        slow.flash("slow")
        with visitor.request() as fast:
            fast.flash("fast")
    with visitor.request() as session:
        assert texts(session) == ["first", "fast", "slow"]


def test_what_is_flashed_while_another_request_reads_is_left_for_the_next(visitor: Visitor) -> None:
    with visitor.request() as session:
        session.flash("old")
        session.flash("same")
    with visitor.request() as reader:
        assert texts(reader) == ["old", "same"]
        with visitor.request() as fast:
            fast.flash("same")
            fast.flash("new")
    with visitor.request() as session:
        assert texts(session) == ["same", "new"]


def test_a_message_that_was_read_stays_gone_when_a_slower_request_flashes(visitor: Visitor) -> None:
    with visitor.request() as session:
        session.flash("old")
    with visitor.request() as slow:
        slow.flash("new")
        with visitor.request() as reader:
            assert texts(reader) == ["old"]
    with visitor.request() as session:
        assert texts(session) == ["new"]


@dataclass
class World:
    """A visitor whose requests overlap, and what they were shown."""

    manager: SessionManager
    cookie: str = ""
    flashed: list[str] = field(default_factory=list[str])
    shown: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])

    async def request(self, number: int, handler: Handler) -> None:
        session = self.manager.open(self.cookie, asynchronous=True)
        await session.aload()
        knows_the_visitor = "kept" in session
        status = await handler(self, number, session)
        headers = dict(await self.manager.acommit(session, status))
        await self.manager.afinish(session)
        if "Set-Cookie" in headers:
            self.cookie = headers["Set-Cookie"].partition(";")[0]
        # What comes with an id from before a rotation sees nothing, and what it changes is dropped.
        if not knows_the_visitor:
            self.flashed = [text for text in self.flashed if not text.startswith(f"{number}:")]


Handler = Callable[[World, int, Session[Any]], Awaitable[int]]


async def flashes(world: World, number: int, session: Session[Any]) -> int:
    for text in (f"{number}: one", f"{number}: two"):
        session.flash(text)
        world.flashed.append(text)
    return 200


async def flashes_the_same(world: World, number: int, session: Session[Any]) -> int:
    if "kept" in session:
        session.flash("the same")
        world.flashed.append("the same")
    return 200


async def reads(world: World, number: int, session: Session[Any]) -> int:
    world.shown += [(number, text) for text in texts(session)]
    return 200


async def reads_saves_and_flashes(world: World, number: int, session: Session[Any]) -> int:
    await reads(world, number, session)
    await session.asave()
    return await flashes(world, number, session)


async def reads_and_fails(world: World, number: int, session: Session[Any]) -> int:
    texts(session)
    return 500


async def flashes_and_fails(world: World, number: int, session: Session[Any]) -> int:
    session.flash("never said")
    return 503


async def rotates_and_flashes(world: World, number: int, session: Session[Any]) -> int:
    if "kept" in session:  # one that comes late would begin a session of its own
        await session.aregenerate()
    return await flashes(world, number, session)


async def writes(world: World, number: int, session: Session[Any]) -> int:
    session["other"] = number
    return 200


HANDLERS: list[Handler] = [
    flashes,
    flashes_the_same,
    reads,
    reads_saves_and_flashes,
    reads_and_fails,
    flashes_and_fails,
    rotates_and_flashes,
    writes,
]


def scenario(group: tuple[Handler, ...], **options: Any) -> Callable[[Schedule], Any]:
    async def play(schedule: Schedule) -> None:
        driver = SteppedDriver(MemoryDriver(), schedule, **options)
        world = World(SessionManager(UnstorageSessionStore(driver), SECRET))
        first = await world.manager.open(asynchronous=True).aload()
        first.update(kept=1, user="ada")
        for text in ("0: one", "the same"):
            first.flash(text)
            world.flashed.append(text)
        world.cookie = cookie_of(await world.manager.acommit(first))
        await schedule.together(*(world.request(number, each) for number, each in enumerate(group, 1)))
        overlapping = Counter(text for _, text in world.shown)
        await world.request(len(group) + 1, reads)  # the next page shows what is left
        await world.request(len(group) + 2, reads)  # and the one after it nothing
        assert not [text for number, text in world.shown if number == len(group) + 2]
        if options.get("swaps") is False:
            return  # there the last write wins, as for all data
        shown, flashed = Counter(text for _, text in world.shown), Counter(world.flashed)
        assert shown >= flashed  # each as often as it was flashed, at least
        assert shown.keys() == flashed.keys()
        for text, times in (shown - flashed).items():  # more often only if two requests read it at the same time
            assert times < overlapping[text]
        order = [text for number, text in world.shown if number == len(group) + 1]
        for number in range(len(group) + 1):
            mine = [text for text in order if text.startswith(f"{number}:")]
            assert mine == sorted(mine)

    return play


def try_all(groups: list[tuple[Handler, ...]], at_least: int, sample: int | None = None, **options: Any) -> None:
    orders = 0
    for seed, group in enumerate(groups):
        try:
            orders += explore(scenario(group, **options), sample=sample, seed=seed)
        except Exception as error:
            error.add_note(f"The requests: {', '.join(each.__name__ for each in group)}; {options}")
            raise
    print(f"\n{orders} orders of {len(groups)} groups, {options}")
    assert orders >= at_least


PAIRS = list(combinations_with_replacement(HANDLERS, 2))


def test_no_message_is_lost_or_stays_in_any_order_of_two_requests() -> None:
    try_all(PAIRS, 200)


def test_nothing_raises_in_any_order_where_the_store_cannot_swap() -> None:
    try_all(PAIRS, 1000, swaps=False)


def test_no_message_is_lost_or_stays_when_three_requests_overlap() -> None:
    readers: list[Handler] = [flashes, flashes_the_same, reads, reads_and_fails, rotates_and_flashes]
    try_all(list(combinations_with_replacement(readers, 3)), 2000, sample=60)


@pytest.mark.slow
def test_no_message_is_lost_or_stays_while_answers_are_on_their_way() -> None:
    try_all(PAIRS, 30_000, network=True)


@pytest.mark.slow
def test_no_message_is_lost_or_stays_in_any_order_of_three_requests() -> None:
    try_all(list(combinations_with_replacement(HANDLERS, 3)), 24_000, sample=200)


def test_tasks_of_one_request_may_flash_at_once() -> None:
    async def go() -> list[Any]:
        manager = SessionManager("memory://", SECRET)
        session = manager.open(asynchronous=True)

        async def task(number: int) -> None:
            session.flash(f"task {number}")
            await session.asave()

        await asyncio.gather(*(task(number) for number in range(5)))
        return texts(session)

    assert sorted(asyncio.run(go())) == [f"task {number}" for number in range(5)]
