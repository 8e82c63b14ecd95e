"""A fault at every single call of the store, in every flow: whatever failed, the next request finds what was promised.

One request of a browser runs with one fault, at its first call, then again at its second, and so on, until a run meets
none. Afterwards a clean request comes with the cookie that the browser has then. With `-s` the counts are printed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from itertools import product
from typing import Any, NamedTuple

import pytest

from session_kit import Session
from session_kit.drivers import ANY, Conflict, CorruptEntry, Driver, DriverUnavailable
from session_kit.testing import WrappedDriver
from tests.harness.overlaps import (
    HANDLERS,
    Data,
    Handler,
    Request,
    ScheduledBrowser,
    World,
    acting,
    commit,
    name_of,
    put,
)

KINDS = ["nothing done", "done but unanswered", "cancelled before", "cancelled after", "conflict", "corrupt"]
MOST_CALLS = 40


class FaultAt(WrappedDriver):
    """Does one thing wrong, at one call of the request that is watched."""

    def __init__(self, driver: Driver) -> None:
        super().__init__(driver)
        self.kind, self.left, self.times = "", 0, 1
        self.watched: asyncio.Task[Any] | None = None
        self.fired = False

    def arm(self, kind: str, at: int, times: int) -> None:
        """At the `at`th call from now that this kind of fault can happen to, counted from 0, and so many times."""
        self.kind, self.left, self.times = kind, at, times
        self.watched, self.fired = asyncio.current_task(), False

    def pause(self) -> Callable[[], None]:
        """Let another request pass unharmed; returns what ends that."""
        watched, self.watched = self.watched, None

        def go_on() -> None:
            self.watched = watched

        return go_on

    def applies(self, name: str, expect: object) -> bool:
        if self.kind == "conflict":
            return name in ("set", "delete") and expect is not ANY
        return self.kind != "corrupt" or name in ("read", "renew", "get")

    async def acall(self, name: str, *args: Any, **kwargs: Any) -> Any:
        if self.watched is None or self.fired or not self.applies(name, kwargs.get("expect", ANY)):
            return await super().acall(name, *args, **kwargs)
        if self.left > 0:
            self.left -= 1
            return await super().acall(name, *args, **kwargs)
        self.times -= 1
        self.fired = self.times == 0
        if self.kind == "nothing done":
            raise DriverUnavailable("down for a test")
        if self.kind == "conflict":
            raise Conflict("somebody was faster, for a test")
        if self.kind == "corrupt":
            raise CorruptEntry("torn for a test")
        if self.kind == "cancelled before":
            self.watched.cancel()
            await asyncio.sleep(0)
        result = await super().acall(name, *args, **kwargs)
        if self.kind == "cancelled after":
            self.watched.cancel()
            await asyncio.sleep(0)
        if self.kind == "done but unanswered":
            raise DriverUnavailable("lost for a test")
        return result


class Flow(NamedTuple):
    """What the request with the fault does, and what another one does after that has loaded its session."""

    name: str
    handler: Handler
    other: Handler | None = None
    user: str = ""
    due: bool = False
    new: bool = False


async def saves_twice(session: Session[Any], request: Request) -> None:
    """Save by name, and once more if that fails: it can be repeated."""
    put(session, request, mid_A=1)
    try:
        await session.asave()
    except DriverUnavailable:
        await session.asave()
    request.acknowledge()
    put(session, request, late_A=1)


async def rotates_and_saves_twice(session: Session[Any], request: Request) -> None:
    await session.aregenerate()
    await saves_twice(session, request)


SAVES_TWICE = Handler("saves_twice", saves_twice)
ROTATES_AND_SAVES_TWICE = Handler("rotates_and_saves_twice", rotates_and_saves_twice, rotates=True)


ALONE = [
    "reads",
    "writes",
    "counts",
    "appends",
    "replaces",
    "saves_between",
    "saves_and_reloads",
    "logs_in",
    "logs_in_and_saves",
    "regenerates_and_writes",
    "regenerates",
    "logs_out",
    "logs_out_with_a_farewell",
    "clears",
    "clears_and_writes",
    "saves_and_answers_500",
    "logs_in_and_answers_500",
]
OVERLAPPED = ["writes", "counts", "logs_in", "regenerates", "regenerates_and_writes", "logs_out", "clears"]
BESIDE = ["writes", "counts", "regenerates", "logs_in", "logs_out", "clears"]
VISITS = ["reads", "writes", "logs_in", "regenerates_and_writes", "logs_out", "saves_between"]


def flows() -> Iterator[Flow]:
    for user in ("", "ada"):
        who = " for ada" * bool(user)
        for name, due in product(ALONE, (False, True)):
            yield Flow(f"{name}{who}{', due' * due}", HANDLERS[name], user=user, due=due)
        for name, other in product(OVERLAPPED, BESIDE):
            yield Flow(f"{name} beside one that {other}{who}", HANDLERS[name], HANDLERS[other], user)
        for handler in (SAVES_TWICE, ROTATES_AND_SAVES_TWICE):
            yield Flow(f"{handler.name}{who}", handler, user=user)
    for handler in (*(HANDLERS[name] for name in VISITS), SAVES_TWICE):
        yield Flow(f"{handler.name}, on a first visit", handler, new=True)


class Run(NamedTuple):
    """What came out of one run."""

    world: World
    first: str  # the cookie before
    request: Request
    other: Request | None
    ended: str  # how: "well", "refused" or "cancelled"


async def run(flow: Flow, kind: str, at: int, swaps: bool = True, times: int = 1, **options: Any) -> tuple[Run, bool]:
    """Run a flow with one fault, so many times in a row, and tell whether it has happened. options: of the manager."""
    drivers: list[FaultAt] = []

    def wrap(driver: Driver) -> Driver:
        drivers.append(FaultAt(driver))
        return drivers[0]

    world = World(user=flow.user, due=flow.due, swaps=swaps, wrap=wrap, **options)
    await world.begin()
    [driver] = drivers
    if flow.new:
        world.browser.cookie = ""
    first = world.browser.cookie
    request = Request("A", flow.handler, first)
    others: list[Request] = []

    async def serve() -> str:
        acting.set("A")
        driver.arm(kind, at, times)
        session = world.manager.open(first, asynchronous=True)
        try:
            await session.aload()
            request.saw = dict(session)
            if flow.other is not None:
                go_on = driver.pause()
                others.append(await asyncio.create_task(world.request("B", flow.other)))
                go_on()
            status = await flow.handler.run(session, request) or 200
            headers = await commit(world.manager, session, status)
        except DriverUnavailable:
            # What middleware says in place of the answer: what was saved by name stays, and so does its cookie.
            world.browser.receive(await commit(world.manager, session, 503), request)
            return "refused"
        if status < 500:
            request.acknowledge()
        world.browser.receive(headers, request)
        await world.manager.afinish(session)
        return "well"

    task = asyncio.ensure_future(serve())
    try:
        ended = await task
    except asyncio.CancelledError:
        ended = "cancelled"
    driver.watched = None
    while rest := asyncio.all_tasks() - {asyncio.current_task()}:
        await asyncio.gather(*rest, return_exceptions=True)
    return Run(world, first, request, others[0] if others else None, ended), driver.fired


async def check(flow: Flow, kind: str, run: Run) -> None:
    """What has to hold after any fault."""
    world, request, other = run.world, run.request, run.other
    assert run.ended != "refused" or kind in ("nothing done", "done but unanswered"), "a fault that is none of theirs"
    if flow.new:
        view = await world.view(world.browser.cookie) if world.browser.cookie else {}
        if run.ended != "cancelled":
            assert holds(view, request.own), "what was acknowledged is there"
        assert request.saved or view == {}, "nothing that failed is there"
        return
    views = {cookie: await world.view(cookie) for cookie in world.browser.held}
    old, now = views[run.first], await world.view(world.browser.cookie) if world.browser.cookie else {}
    gone = logged_out(other)
    mine = bool(flow.handler.ends) and any(done.who == "A" and done.call == "delete" for done in world.log.done)
    assert "secret_A" not in old, "an old id sees nothing of a login"
    assert "lost" not in now
    if other is not None:
        assert other.error is None
        for cookie, view in views.items():
            assert f"secret_{other.who}" not in view or cookie == other.cookie, "nobody sees the login of another"
    if gone:
        for cookie, view in views.items():
            assert "kept" not in view, "what was logged out stays gone"
            assert cookie != run.first or view == {}
        assert world.home_key not in world.memory.keys()
    if flow.handler.ends and run.ended == "well":
        assert views[run.first] == {}, "a logout that succeeded is one"
    if run.ended == "well":
        if logs_in(flow, request):
            assert request.cookie, "a login that succeeded has a cookie"
            assert holds(views[request.cookie], request.own), "and is one"
            assert views[request.cookie].get("user", "A") in ("A", flow.user)
        elif not gone and not flow.handler.ends and not (other is not None and other.handler.rotates):
            assert holds(now, request.own), "what was acknowledged is there"
    elif mine or gone:
        pass  # checked above
    elif request.saved:
        # What was saved by name stays; who was cancelled can be told of no new id any more.
        assert run.ended == "cancelled" or holds(now, request.own), "what was saved by name stays"
    else:
        # It failed: nobody is logged in or out by it, and the browser's cookie is as good as it was.
        assert now, "a request that failed has logged nobody out"
        if flow.handler.name not in ("replaces", "clears_and_writes"):
            user = other.who if other is not None and other.sets_user else flow.user
            assert now.get("user", "") == user, "a request that failed has logged nobody in, or out"
            assert now["kept"] == "old"
        if flow.handler.rotates and not (flow.user and other is not None):  # a change beside may have been merged
            assert not any(key.endswith("_A") for key in now), "what a rotation that failed has changed is taken back"
    if other is not None and not other.handler.ends and other.cookie is None and not mine and not gone:
        keeper = request.cookie if request.cookie and name_of(request.cookie) == world.home else world.browser.cookie
        assert holds(views[keeper], other.own), "what another has saved meanwhile is there"
    assert_counted(flow, run, now, mine=mine, gone=gone)


def assert_counted(flow: Flow, run: Run, now: Data, *, mine: bool, gone: bool) -> None:
    """A counter counts once, or at least once if an answer was lost."""
    other = run.other
    if flow.handler.name != "counts" or gone or mine or (other is not None and other.handler.rotates):
        return
    others = other is not None and other.handler.name == "counts"
    assert now["n"] >= others + (run.ended == "well"), "what was counted stays counted"
    assert now["n"] <= others + 2


def logs_in(flow: Flow, request: Request) -> bool:
    return bool(request.saved) and (request.sets_user or (flow.handler.rotates and not flow.user))


def logged_out(other: Request | None) -> bool:
    return other is not None and bool(other.handler.ends)


def holds(view: Data, own: Data) -> bool:
    """Whether the keys that a request set are there, whatever a counter or a list comes to."""
    return all(view.get(key) == value for key, value in own.items() if key not in ("n", "items", "nested"))


async def sweep(
    flow: Flow, kind: str, swaps: bool = True, check: Callable[..., Awaitable[None]] = check, **options: Any
) -> int:
    """Run a flow with a fault at each of its calls; returns how many there were."""
    for at in range(MOST_CALLS):
        result, fired = await run(flow, kind, at, swaps, **options)
        try:
            await check(flow, kind, result)
        except Exception as error:
            error.add_note(f"{flow.name}; {kind}, at call {at}; {result.ended}; {result.request}; {result.other}")
            error.add_note(f"{result.world.log.done}")
            raise
        if not fired:
            return at
    raise AssertionError(f"{flow.name} made more than {MOST_CALLS} calls")


FLOWS = list(flows())


def sweep_all(flows: list[Flow], kind: str, **options: Any) -> int:
    """Run all flows with a fault at each call; returns how many there were."""
    faults, errors = 0, []
    with asyncio.Runner() as runner:
        for flow in flows:
            try:
                faults += runner.run(sweep(flow, kind, **options))
            except Exception as error:
                errors.append(error)
    print(f"\n{faults} faults in {len(flows)} flows: {kind}, {options}")
    if errors:
        raise ExceptionGroup(f"in {len(errors)} of {len(flows)} flows", errors)
    return faults


@pytest.mark.parametrize("kind", KINDS)
def test_no_fault_breaks_a_promise(kind: str) -> None:
    assert sweep_all(FLOWS, kind) >= {"conflict": 150, "corrupt": 200}.get(kind, 400)


@pytest.mark.parametrize("kind", KINDS)
def test_no_fault_in_a_rotation_by_time_breaks_a_promise(kind: str) -> None:
    due = [flow._replace(due=True) for flow in FLOWS if flow.due or flow.other is not None]
    assert sweep_all(due, kind, rotate_every=100) >= {"conflict": 100, "corrupt": 100}.get(kind, 200)


@pytest.mark.parametrize("kind", KINDS)
def test_without_swaps_no_fault_makes_a_request_fail_in_another_way(kind: str) -> None:
    """Not promised there: that a rotation or a logout which fails in the middle leaves all as it was."""

    async def check(flow: Flow, kind: str, run: Run) -> None:
        assert run.ended != "refused" or kind in ("nothing done", "done but unanswered")
        for cookie in run.world.browser.held:
            view = await run.world.view(cookie)
            assert cookie == run.request.cookie or "secret_A" not in view

    with asyncio.Runner() as runner:
        faults = sum(runner.run(sweep(flow, kind, swaps=False, check=check)) for flow in FLOWS)
    print(f"\n{faults} faults without swaps: {kind}")
    assert faults >= {"conflict": 0, "corrupt": 250}.get(kind, 420)


# --- the list of the owner ---


async def binds(session: Session[Any], request: Request) -> None:
    put(session, request, user=request.who)
    await session.abind(request.who)


FILED = [
    Flow(
        f"{handler.name}{', due' * due}{f' beside one that {beside.name}' if beside else ''}",
        handler,
        beside,
        "ada",
        due,
    )
    for handler in (
        *(
            HANDLERS[name]
            for name in ("writes", "logs_in", "regenerates", "logs_out", "clears_and_writes", "saves_between")
        ),
        Handler("binds", binds, rotates=True),
    )
    for due, beside in ((False, None), (True, None), (False, HANDLERS["writes"]), (False, HANDLERS["regenerates"]))
]


async def check_lists(flow: Flow, kind: str, run: Run) -> None:
    """Whoever is logged in by any cookie is in the list of the owner, so that `revoke` ends it."""
    world = run.world
    for cookie in world.browser.held:
        session = world.manager.open(cookie, asynchronous=True)
        await session.aload()
        if session.owner:
            handles = [each.handle for each in await world.store.asessions_of(session.owner)]
            assert session.handle in handles, "no session that lives is missing in the list"


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"rotate_every": 100}, {"swaps": False}], ids=str)
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "corrupt"])  # a list that cannot be read is lost
def test_no_fault_takes_a_session_that_lives_out_of_the_list_of_its_owner(kind: str, options: dict[str, Any]) -> None:
    assert sweep_all(FILED, kind, check=check_lists, owner="ada", **options) >= (0 if kind == "conflict" else 100)


# --- each of these once more, by name ---


@pytest.mark.parametrize("name", ["regenerates", "logs_in", "regenerates_and_writes"])
def test_a_rotation_whose_answer_was_lost_goes_on(name: str) -> None:
    async def play() -> None:
        result, fired = await run(Flow(name, HANDLERS[name]), "done but unanswered", 1)
        assert fired
        assert result.ended == "well"
        assert result.request.cookie is not None
        assert (await result.world.view(result.request.cookie))["kept"] == "old"
        assert await result.world.view(result.first) == {}

    asyncio.run(play())


@pytest.mark.parametrize("kind", ["nothing done", "done but unanswered"])
@pytest.mark.parametrize("handler", [SAVES_TWICE, ROTATES_AND_SAVES_TWICE], ids=lambda handler: handler.name)
@pytest.mark.parametrize("new", [False, True])
def test_a_save_that_failed_can_be_repeated(handler: Handler, kind: str, new: bool) -> None:
    async def play() -> None:
        result, fired = await run(Flow(handler.name, handler, new=new), kind, 0 if new else 1)
        assert fired
        assert result.ended == "well"
        view = await result.world.view(result.world.browser.cookie)
        assert (view["mid_A"], view["late_A"]) == (1, 1)
        assert new or view["kept"] == "old"

    asyncio.run(play())


@pytest.mark.parametrize("name", ["reads", "writes", "logs_in"])
def test_a_torn_read_is_read_again_and_logs_nobody_out(name: str) -> None:
    async def play() -> None:
        result, fired = await run(Flow(name, HANDLERS[name]), "corrupt", 0)
        assert fired
        assert result.ended == "well"
        assert result.request.saw["kept"] == "old"

    asyncio.run(play())


@pytest.mark.parametrize("name", ["reads", "writes", "logs_in"])
def test_what_could_not_be_read_for_a_while_is_not_deleted(name: str) -> None:
    async def play() -> None:
        result, _ = await run(Flow(name, HANDLERS[name]), "corrupt", 0, times=5)
        assert result.ended == "well"
        assert (await result.world.view(result.first))["kept"] == "old"

    asyncio.run(play())


@pytest.mark.parametrize("kind", ["cancelled before", "cancelled after"])
@pytest.mark.parametrize("name", ["logs_in", "regenerates_and_writes"])
def test_a_cancelled_login_is_none(name: str, kind: str) -> None:
    async def play() -> None:
        result, fired = await run(Flow(name, HANDLERS[name]), kind, 1)
        assert fired
        assert result.ended == "cancelled"
        assert (await result.world.view(result.first)) == result.world.first

    asyncio.run(play())


# --- the harness finds what is wrong ---


def test_the_sweep_meets_every_call_and_finds_a_logout_that_a_fault_undoes() -> None:
    async def pretends(session: Session[Any], request: Request) -> None:
        """A logout that swallows the outage."""
        try:
            await session.adestroy()
        except DriverUnavailable:
            request.saved.clear()

    flow = Flow("pretends", Handler("pretends", pretends, ends="destroy"))
    with asyncio.Runner() as runner:
        assert runner.run(sweep(Flow("reads", HANDLERS["reads"]), "done but unanswered")) == 1
        assert runner.run(sweep(Flow("writes", HANDLERS["writes"]), "done but unanswered")) == 2
        with pytest.raises(AssertionError, match="a logout that succeeded is one"):
            runner.run(sweep(flow, "nothing done"))


def test_a_browser_forgets_a_cookie_that_is_deleted() -> None:
    browser, request = ScheduledBrowser(), Request("A", HANDLERS["reads"], "")
    browser.receive([("Set-Cookie", "session=a~b.c; Path=/")], request)
    assert (browser.cookie, request.cookie) == ("session=a~b.c", "session=a~b.c")
    browser.receive([("Set-Cookie", "session=; Max-Age=0; Path=/")], request)
    assert (browser.cookie, browser.held, request.deleted) == ("", ["session=a~b.c"], True)
