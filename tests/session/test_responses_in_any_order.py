"""Responses arrive in any order: an honest browser keeps its session, whichever Set-Cookie it takes last.

A browser sends the cookie that it has when a request leaves, and takes what a response says when that arrives. Every
order of leaving, of the store's calls and of arriving is tried.
"""

from __future__ import annotations

from collections.abc import Iterable
from copy import copy
from itertools import combinations_with_replacement
from typing import Any

import pytest

from session_kit import SessionManager
from session_kit.testing import Schedule, explore
from tests.harness.overlaps import AFTER_THE_GRACE, HANDLERS, SECRET, Handler, Request, World

slow = pytest.mark.slow

NO_CHANGE_OF_RIGHTS = ["reads", "polls", "writes", "counts", "saves_and_reloads", "saves_and_answers_500", "raises"]
LOGINS = ["logs_in", "regenerates", "logs_in_and_saves"]
LOGOUTS = ["logs_out", "clears"]
TURNS: dict[str, Any] = {"due": True, "rotate_every": 100, "on_reuse": "destroy"}


def handlers(names: Iterable[str]) -> list[Handler]:
    return [HANDLERS[name] for name in names]


async def serve(world: World, group: Iterable[Handler]) -> None:
    """Let the requests of a browser overlap."""
    await world.begin()
    await world.schedule.together(*(world.request("ABC"[number], each) for number, each in enumerate(group)))
    for request in world.requests:
        assert request.error is None, request


def is_late(world: World, login: Request) -> bool:
    """Whether the browser's cookie is from a response that was ready before a login, and arrived after it.

    That is the limit which the documentation names: no server can call a response back.
    """
    written = [at for at, done in enumerate(world.log.done) if done.who == login.who and done.call == "set"]
    for request in world.requests:
        if request is not login and request.cookie == world.browser.cookie and request.arrived > login.arrived:
            ready = [at for at, done in enumerate(world.log.done) if done.who == request.who and done.call == "set"]
            return bool(ready) and ready[0] < written[-1]
    return False


def keeps_its_session(group: tuple[Handler, ...], options: dict[str, Any], sample: int | None = None) -> int:
    """Without a login or logout the browser's cookie opens its session, now and when the grace is over."""

    async def play(schedule: Schedule) -> None:
        world = World(schedule, user="ada", travels=True, **options)
        await serve(world, group)
        for seconds in (0, AFTER_THE_GRACE, AFTER_THE_GRACE):
            world.clock.advance(seconds)
            view = await world.view(world.browser.cookie)
            assert view.get("user") == "ada", world.requests
            for request in world.requests:
                for key in request.own.keys() - {"n", "items", "nested"}:
                    assert key in view, (key, world.requests)
            assert view["n"] == sum(request.handler.name == "counts" for request in world.requests)

    return explore(play, sample=sample)


def keeps_its_login(group: tuple[Handler, ...], options: dict[str, Any]) -> tuple[int, int]:
    """After a login the browser's cookie opens what was logged in to, but for a response that was late."""
    late = 0

    async def play(schedule: Schedule) -> None:
        nonlocal late
        world = World(schedule, travels=True, **options)
        await serve(world, group)
        [login] = [request for request in world.requests if request.handler.rotates]
        for seconds in (0, AFTER_THE_GRACE):
            world.clock.advance(seconds)
            if "kept" not in await world.view(world.browser.cookie):
                assert is_late(world, login), world.requests
                late += 1
                return

    return explore(play), late


def pairs(names: Iterable[str]) -> list[tuple[Handler, ...]]:
    return list(combinations_with_replacement(handlers(names), 2))


@pytest.mark.parametrize(
    "options",
    [pytest.param({}, marks=slow), pytest.param({"due": True}, marks=slow), TURNS],
    ids=["fresh", "renewal", "rotation"],
)
def test_two_requests_of_a_browser_keep_its_session(options: dict[str, Any]) -> None:
    assert sum(keeps_its_session(group, options) for group in pairs(NO_CHANGE_OF_RIGHTS)) > 1000


@slow
@pytest.mark.parametrize(("third", "sample"), [("polls", None), ("reads", 5000), ("counts", 5000)])
def test_three_requests_of_a_browser_keep_its_session(third: str, sample: int | None) -> None:
    """One of them may see that the id was rotated by time, and another come with the one before."""
    assert keeps_its_session((*handlers(["reads", "reads"]), HANDLERS[third]), TURNS, sample) >= 5000


@pytest.mark.parametrize(
    "other",
    [{}, {"remember": "30d"}, {"rotate_every": 100, "ahead": 5}, {"rotate_every": 100, "ahead": -5}],
    ids=["rotates_none", "remembers", "clock_ahead", "clock_behind"],
)
@pytest.mark.parametrize("second", [pytest.param("reads", marks=slow), "polls", "logs_in"])
def test_two_applications_of_other_options_and_clocks_share_a_browser(other: dict[str, Any], second: str) -> None:
    group = handlers(["reads", second, "reads"])

    async def play(schedule: Schedule) -> None:
        one = World(schedule, user="" if second == "logs_in" else "ada", travels=True, **TURNS)
        await one.begin()
        two = copy(one)
        ahead, options = other.get("ahead", 0), {name: value for name, value in other.items() if name != "ahead"}
        two.manager = SessionManager(
            one.store, SECRET, clock=lambda: one.clock() + ahead, on_reuse="destroy", **options
        )
        acts = [world.request(who, each) for who, world, each in zip("ABC", (one, two, two), group, strict=True)]
        await schedule.together(*acts)
        for seconds in (0, AFTER_THE_GRACE):
            one.clock.advance(seconds)
            for request in one.requests:
                assert request.error is None, request
            if "kept" not in await one.view(one.browser.cookie):
                [login] = [request for request in one.requests if request.handler.rotates]
                assert is_late(one, login), one.requests
                return

    assert explore(play, sample=500) == 500


@pytest.mark.parametrize("options", [{}, {"due": True}, TURNS], ids=["fresh", "renewal", "rotation"])
@pytest.mark.parametrize("login", LOGINS)
def test_two_requests_of_which_one_logs_in(options: dict[str, Any], login: str) -> None:
    for other in handlers(NO_CHANGE_OF_RIGHTS):
        tried, late = keeps_its_login((HANDLERS[login], other), options)
        assert tried >= 15
        # What sends no cookie can be in no login's way: nothing is to be renewed, or it does not count as use.
        if not options or other.name in ("polls", "raises"):
            assert late == 0


@slow
def test_a_poll_beside_a_login_and_a_rotation_by_time() -> None:
    """The poll may come with the id before the last one, and is told no other: that might be the older one by then."""
    tried, _ = keeps_its_login(tuple(handlers(["logs_in", "polls", "reads"])), TURNS)
    assert tried > 10000
