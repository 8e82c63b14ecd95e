"""Whatever overlaps with whatever: every order of the store calls of two requests, and many orders of three, are tried.

What is tried, what must hold afterwards, and what is left open is in `overlaps.py`. With `-s` the counts are printed.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterable
from copy import copy
from itertools import combinations, combinations_with_replacement, product
from typing import Any

import pytest

from session_kit import Session
from session_kit.drivers.memory import MemoryDriver
from session_kit.testing import Schedule, SteppedDriver, explore, replay
from tests.harness.overlaps import (
    AFTER_THE_GRACE,
    HANDLERS,
    MAX_LIFETIME,
    TTL,
    Broken,
    Handler,
    Judge,
    Request,
    ScheduledBrowser,
    World,
    commit,
    reload,
)

EVERY = [each for each in HANDLERS.values() if each.touch]
LONG = {"saves_between", "saves_and_reloads", "reloads", "logs_in_and_saves"}
SHORT = [each for each in EVERY if each.name not in LONG]
PAIRS = list(combinations_with_replacement(EVERY, 2))
# What does something else on a network, or as time goes by, than what is left out of it.
FEW = [
    HANDLERS[name]
    for name in ["reads", "writes", "counts", "logs_in", "regenerates", "logs_out", "clears", "clears_and_writes"]
]

Group = tuple[Handler, ...]
Passing = tuple[float, bool]
GRACE: Passing = (AFTER_THE_GRACE, False)
IDLE: Passing = (3 * TTL, True)
LIMIT: Passing = (MAX_LIFETIME + 100, True)

slow = pytest.mark.slow
users = pytest.mark.parametrize("user", ["", "ada"], ids=["nobody", "ada"])


def scenario(group: Group, passing: Passing | None, options: dict[str, Any]) -> Callable[[Schedule], Any]:
    """The requests of a group, and if asked for the passing of time, as something that can be explored."""

    async def play(schedule: Schedule) -> None:
        world = World(schedule, **options)
        await world.begin()
        acts: list[Any] = [world.request("ABC"[number], each) for number, each in enumerate(group)]
        if passing is not None:
            acts.append(world.pass_time(passing[0], expires=passing[1]))
        await schedule.together(*acts)
        await Judge(world).judge()

    return play


def try_all(
    groups: Iterable[Group], at_least: int, passing: Passing | None = None, *, sample: int | None = None, **options: Any
) -> None:
    """Try the orders of each group, and make sure that there were so many in all."""
    orders = scenarios = 0
    for seed, group in enumerate(groups):
        try:
            orders += explore(scenario(group, passing, options), sample=sample, seed=seed)
        except Exception as error:
            error.add_note(f"The requests: {', '.join(each.name for each in group)}; {options}, time {passing}")
            raise
        scenarios += 1
    print(f"\n{orders:,} orders of {scenarios:,} scenarios, {options}, time {passing}")
    assert orders >= at_least


def two_of(handlers: list[Handler]) -> list[Group]:
    return list(combinations_with_replacement(handlers, 2))


# --- two requests ---


@users
def test_no_order_of_two_requests_breaks_a_promise(user: str) -> None:
    try_all(PAIRS, 2500, user=user)


@slow
@users
def test_nor_does_it_matter_which_of_the_two_came_first(user: str) -> None:
    try_all(product(EVERY, EVERY), 5000, user=user)


@pytest.mark.parametrize("user", ["ada", pytest.param("", marks=slow, id="nobody")])
def test_nor_does_a_renewal_that_is_due_in_both(user: str) -> None:
    try_all(PAIRS, 2500, user=user, due=True)


@pytest.mark.parametrize("user", ["ada", pytest.param("", marks=slow, id="nobody")])
def test_nor_does_a_rotation_by_time_that_is_due_in_both(user: str) -> None:
    try_all(PAIRS, 2500, user=user, due=True, rotate_every=100)


@pytest.mark.parametrize("options", [{}, {"due": True}, {"due": True, "rotate_every": 100}], ids=str)
def test_nor_does_a_request_that_does_not_count_as_use(options: dict[str, Any]) -> None:
    try_all([(each, HANDLERS["polls"]) for each in EVERY], 250, user="ada", network=True, **options)


@slow
@users
def test_nor_does_a_rotation_by_time_whose_answer_is_on_its_way(user: str) -> None:
    try_all(two_of(SHORT), 20000, user=user, due=True, network=True, rotate_every=100)


@slow
def test_three_requests_and_a_rotation_by_time() -> None:
    try_all(three_of(EVERY, 500, 2), 10000, user="ada", due=True, rotate_every=100, sample=20)


def test_without_swaps_nothing_crashes_or_leaks() -> None:
    try_all(two_of(FEW), 750, swaps=False)


@slow
@users
def test_without_swaps_nothing_crashes_or_leaks_in_any_order(user: str) -> None:
    try_all(PAIRS, 14000, user=user, swaps=False)


@slow
@users
@pytest.mark.parametrize("due", [False, True])
def test_answers_that_are_on_their_way_change_nothing(user: str, due: bool) -> None:
    try_all(two_of(SHORT), 20000, user=user, due=due, network=True)


@slow
@users
def test_answers_that_are_on_their_way_of_requests_with_many_calls(user: str) -> None:
    groups = [pair for pair in PAIRS if not LONG.isdisjoint(each.name for each in pair)]
    try_all(groups, 9000, user=user, network=True, sample=100)


@slow
def test_answers_that_are_on_their_way_without_swaps() -> None:
    try_all(two_of(FEW), 3600, network=True, swaps=False, sample=100)


# --- time goes by, before, between and after ---


@pytest.mark.parametrize(
    ("passing", "user"),
    [(GRACE, "ada"), pytest.param(IDLE, "", marks=slow), (LIMIT, "ada")],
    ids=["grace", "idle", "max"],
)
def test_time_that_goes_by_breaks_nothing(passing: Passing, user: str) -> None:
    try_all(two_of(FEW), 900, passing, user=user, **({"max_lifetime": MAX_LIFETIME} if passing is LIMIT else {}))


@slow
@users
def test_an_old_id_whose_grace_ends_in_between(user: str) -> None:
    try_all(PAIRS, 17000, GRACE, user=user)


@slow
def test_a_session_that_is_idle_for_too_long_in_between() -> None:
    try_all(PAIRS, 20000, IDLE)


@slow
@users
def test_a_session_that_is_too_old_in_between(user: str) -> None:
    try_all(PAIRS, 17000, LIMIT, user=user, max_lifetime=MAX_LIFETIME)


# --- three requests ---


def three_of(handlers: list[Handler], count: int, seed: int) -> list[Group]:
    chance = random.Random(seed)  # noqa: S311  # nothing depends on its being secret
    return [tuple(chance.choices(handlers, k=3)) for _ in range(count)]


@users
def test_three_requests_in_some_orders(user: str) -> None:
    try_all(three_of(EVERY, 40, 1), 400, user=user, sample=10)


@slow
@users
@pytest.mark.parametrize("network", [False, True])
def test_three_requests_in_many_orders(user: str, network: bool) -> None:
    try_all(three_of(EVERY, 500, 2), 10000, user=user, network=network, sample=20)


@slow
def test_three_requests_of_few_calls_in_every_order() -> None:
    try_all(three_of(FEW, 30, 3), 7000)


# --- one after the other, with an old cookie ---


@pytest.mark.parametrize("seconds", [0, AFTER_THE_GRACE])
@pytest.mark.parametrize("late", EVERY, ids=[each.name for each in EVERY])
@pytest.mark.parametrize("rotation", ["regenerates", "logs_in"])
def test_an_old_cookie_opens_nothing_and_takes_no_new_one_away(rotation: str, late: Handler, seconds: float) -> None:
    async def play(schedule: Schedule) -> None:
        world = World(schedule)
        await world.begin()
        old = world.browser.cookie
        first = await world.request("A", HANDLERS[rotation])
        world.clock.advance(seconds)
        second = await world.request("B", late, old)
        assert first.cookie is not None
        assert second.saw == {}
        view = await world.view(first.cookie)
        ends = late.ends or late is HANDLERS["clears_and_writes"]  # clear is a logout, and its request keeps nothing
        if seconds or not ends:  # within the grace a logout wins
            assert view["kept"] == "old"
            assert not any(key.endswith("_B") for key in view)
        else:
            assert view == {}
        if not late.rotates and not ends and not seconds:
            assert not second.deleted
            assert second.cookie is None
        if seconds and second.cookie is not None:
            assert set(await world.view(second.cookie)) <= set(second.own)

    explore(play)


def test_a_planted_cookie_gains_nothing_by_a_login() -> None:
    async def play(schedule: Schedule) -> None:
        world = World(schedule)
        await world.begin()
        planted = world.browser.cookie
        await schedule.together(
            world.request("A", HANDLERS["logs_in"], planted), world.request("B", HANDLERS["regenerates"], planted)
        )
        assert world.requests[0].cookie is not None
        for cookie in (planted, world.requests[1].cookie):
            assert cookie is None or "user" not in await world.view(cookie)
        assert (await world.view(world.requests[0].cookie))["user"] == "A"

    assert explore(play) >= 4


@pytest.mark.parametrize(
    "second", [*(pytest.param(name, marks=slow) for name in ("reads", "counts")), "regenerates", "logs_in"]
)
def test_a_planted_cookie_gains_nothing_by_a_login_beside_rotations_by_time(second: str) -> None:
    """Whoever planted it goes on with the ids that it was given for it."""

    async def play(schedule: Schedule) -> None:
        world = World(schedule, due=True, travels=True, rotate_every=100)
        await world.begin()
        planter = copy(world)
        planter.browser = ScheduledBrowser(world.browser.cookie, [world.browser.cookie])

        async def plants() -> None:
            await planter.request("P", HANDLERS["reads"])
            await planter.request("P", HANDLERS[second])

        await schedule.together(world.request("V", HANDLERS["logs_in"]), plants())
        [victim] = [request for request in world.requests if request.who == "V"]
        assert victim.cookie is not None
        assert (await world.view(victim.cookie))["user"] == "V"
        for cookie in planter.browser.held:
            assert "secret_V" not in await world.view(cookie)
        assert not any("secret_V" in view for request in world.requests if request.who == "P" for view in request.views)

    assert explore(play) > 300


# --- two tasks of one request ---


def gathered(*tasks: Callable[[Session[Any]], Any], new: bool = False, check: Callable[[dict[str, Any]], bool]) -> int:
    """Try all orders of the tasks of one request; what is stored in the end has to pass the check."""
    count = 0
    for swaps, network in [(True, False), (True, True), (False, False)]:

        async def play(schedule: Schedule, swaps: bool = swaps, network: bool = network) -> None:
            world = World(schedule, swaps=swaps, network=network)
            await world.begin()
            request = Request("A", HANDLERS["reads"], "" if new else world.browser.cookie)

            async def serve() -> None:
                session = world.manager.open(request.sent, asynchronous=True)
                await asyncio.gather(*(task(session) for task in tasks))
                world.browser.receive(await commit(world.manager, session, 200), request)
                await world.manager.afinish(session)

            await schedule.together(serve())
            view = await world.view(world.browser.cookie)
            assert check(view), view
            assert len(list(world.memory.keys())) == 1 + (new and request.cookie is not None)

        count += explore(play)
    return count


async def load(session: Session[Any]) -> None:
    await session.aload()


async def count_and_save(session: Session[Any]) -> None:
    await session.aload()
    session.update(lambda data: {"n": data.get("n", 0) + 1})
    await session.asave()


def set_and_save(key: str) -> Callable[[Session[Any]], Any]:
    async def task(session: Session[Any]) -> None:
        await session.aload()
        session[key] = 1
        await session.asave()

    return task


def set_only(key: str) -> Callable[[Session[Any]], Any]:
    async def task(session: Session[Any]) -> None:
        await session.aload()
        session[key] = 1

    return task


async def log_out(session: Session[Any]) -> None:
    await session.adestroy()


async def rotate(session: Session[Any]) -> None:
    await session.aregenerate()
    await session.asave()


@pytest.mark.parametrize("new", [False, True])
def test_two_tasks_that_load_see_one_session(new: bool) -> None:
    tasks = [set_only("a"), set_only("b"), load]
    assert gathered(*tasks, new=new, check=lambda view: view.get("a") == view.get("b") == 1) >= 3


def test_a_load_serves_all_that_wait_for_it() -> None:
    async def play(schedule: Schedule) -> None:
        world = World(schedule)
        await world.begin()
        session = world.manager.open(world.browser.cookie, asynchronous=True)
        await schedule.together(load(session), load(session), load(session))
        assert len(world.log.done) == 1

    explore(play)


@pytest.mark.parametrize("new", [False, True])
def test_two_tasks_that_count_and_save_count_two(new: bool) -> None:
    assert gathered(count_and_save, count_and_save, new=new, check=lambda view: view["n"] == 2) >= 3


def test_ten_tasks_that_count_and_save_count_ten() -> None:
    assert gathered(*[count_and_save] * 10, check=lambda view: view["n"] == 10) >= 3


@pytest.mark.parametrize("new", [False, True])
def test_a_change_beside_a_save_is_not_lost(new: bool) -> None:
    tasks = [set_and_save("a"), set_only("b")]
    assert gathered(*tasks, new=new, check=lambda view: view.get("a") == view.get("b") == 1) >= 3


def test_a_change_made_while_a_save_is_under_way_is_saved_with_the_response() -> None:
    async def late(session: Session[Any]) -> None:
        await session.aload()
        session["a"] = 1
        saving = asyncio.ensure_future(session.asave())
        await asyncio.sleep(0)
        session["b"] = 2
        await saving

    assert gathered(late, check=lambda view: view.get("a") == 1 and view.get("b") == 2) >= 3


def test_a_save_beside_a_rotation_keeps_both() -> None:
    assert gathered(set_and_save("a"), rotate, check=lambda view: view.get("a") == 1 and view["kept"] == "old") >= 3


def test_a_save_beside_a_logout_brings_nothing_back() -> None:
    for swaps in (True, False):

        async def play(schedule: Schedule, swaps: bool = swaps) -> None:
            world = World(schedule, swaps=swaps)
            await world.begin()
            first = world.browser.cookie
            request = Request("A", HANDLERS["reads"], first)

            async def serve() -> None:
                session = world.manager.open(first, asynchronous=True)
                await session.aload()
                await asyncio.gather(set_and_save("a")(session), log_out(session))
                world.browser.receive(await commit(world.manager, session, 200), request)

            await schedule.together(serve())
            assert await world.view(first) == {}
            assert not world.browser.cookie or "kept" not in await world.view(world.browser.cookie)

        explore(play)


# --- the harness finds what is wrong ---


class Careless:
    """Sessions as one writes them in an hour: read all, write all."""

    def __init__(self, schedule: Schedule) -> None:
        self.driver = SteppedDriver(MemoryDriver(), schedule)

    async def count(self) -> None:
        value = await self.driver.aget("sid")
        assert value is not None
        await self.driver.aset("sid", b"%d" % (int(value) + 1))

    async def rotate(self) -> None:
        value = await self.driver.aget("sid")
        if value is not None:
            await self.driver.aset("new", value)
            await self.driver.adelete("sid")

    async def log_out(self) -> None:
        await self.driver.adelete("sid")


def test_the_explorer_finds_an_update_that_is_lost() -> None:
    lost: list[list[int]] = []

    async def play(schedule: Schedule) -> None:
        site = Careless(schedule)
        await site.driver.aset("sid", b"0")
        await schedule.together(site.count(), site.count())
        if await site.driver.aget("sid") != b"2":
            lost.append(schedule.choices)

    assert explore(play) == 6
    assert len(lost) == 4
    assert replay(play, lost[0]).choices == lost[0]
    assert len(lost) == 5


def test_the_explorer_finds_a_rotation_that_survives_a_logout() -> None:
    async def play(schedule: Schedule) -> None:
        site = Careless(schedule)
        await site.driver.aset("sid", b"ada")
        await schedule.together(site.rotate(), site.log_out())
        assert await site.driver.aget("new") is None

    with pytest.raises(AssertionError) as caught:
        explore(play)
    assert "to see it again: replay(play, [" in caught.value.__notes__[0]


def test_no_time_is_spent_on_timers_and_waiting_for_ever_is_an_error() -> None:
    async def sleeps(schedule: Schedule) -> None:
        async def request() -> None:
            await schedule.point("before")
            await asyncio.sleep(86400)
            await schedule.point("after")

        await schedule.together(request(), request())

    async def waits(schedule: Schedule) -> None:
        await asyncio.Event().wait()

    begun = time.monotonic()
    assert explore(sleeps) == 4
    assert time.monotonic() - begun < 5
    with pytest.raises(RuntimeError, match="every request waits"):
        explore(waits)


def test_what_a_request_leaves_running_is_explored_too() -> None:
    seen: list[list[str]] = []

    async def play(schedule: Schedule) -> None:
        tasks: list[asyncio.Task[None]] = []

        async def leaves() -> None:
            tasks.append(asyncio.create_task(schedule.point("left")))

        await schedule.together(leaves(), schedule.point("other"))
        assert tasks[0].done()
        seen.append([step.name for step in schedule.steps])

    assert explore(play) == 2
    assert sorted(seen) == [["left", "other"], ["other", "left"]]


def test_a_scenario_that_is_not_the_same_at_each_run_is_found_out() -> None:
    runs: list[int] = []

    async def play(schedule: Schedule) -> None:
        runs.append(1)
        await schedule.together(*(schedule.point("point") for _ in range(3 if len(runs) == 1 else 1)))

    with pytest.raises(RuntimeError, match="not the same at each run"):
        explore(play)


def test_the_judge_finds_a_change_that_is_lost() -> None:
    async def forgets(session: Session[Any], request: Request) -> None:
        request.pending.append(lambda data: data | {"promised": 1})

    with pytest.raises(Broken, match="no acknowledged change is lost"):
        try_all([(Handler("forgets", forgets), HANDLERS["reads"])], 1)


def test_the_judge_finds_a_session_that_outlives_its_logout() -> None:
    async def pretends(session: Session[Any], request: Request) -> None:
        session.get("kept")

    with pytest.raises(Broken, match="what has ended stays gone"):
        try_all([(Handler("pretends", pretends, ends="destroy"), HANDLERS["reads"])], 1)


def test_the_judge_finds_a_login_that_another_sees() -> None:
    async def no_rotation(session: Session[Any], request: Request) -> None:
        session[f"secret_{request.who}"] = 1
        request.pending.append(lambda data: data | {f"secret_{request.who}": 1})

    async def looks_again(session: Session[Any], request: Request) -> None:
        await reload(session, request)

    planted = (Handler("no_rotation", no_rotation, rotates=True), Handler("looks_again", looks_again))
    with pytest.raises(Broken, match="nobody sees the login of another"):
        try_all([planted], 1)


def test_every_pair_is_among_those_that_are_tried() -> None:
    assert len(PAIRS) == len(EVERY) + len(list(combinations(EVERY, 2)))
    assert len(EVERY) >= 25
