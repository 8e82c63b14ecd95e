"""Time: the idle limit slides with use and is never shortened; the absolute limit holds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from session_kit import ConfigError, SessionManager, UnstorageSessionStore
from session_kit.testing import CountingDriver, ManualClock, Visitor
from tests.harness.sessions import SECRET, log_in
from tests.harness.steps import at_every_step


def alive(visitor: Visitor) -> bool:
    with visitor.request() as session:
        return session.get("user") == "ada"


def max_age(visitor: Visitor) -> int:
    header = dict(visitor.headers)["Set-Cookie"]
    return int(header.split("Max-Age=")[1].split(";")[0])


def test_an_idle_session_ends(ada: Visitor, clock: ManualClock) -> None:
    clock.advance(1000 + 100)
    assert not alive(ada)


def test_use_keeps_a_session_alive(ada: Visitor, clock: ManualClock) -> None:
    for _ in range(10):
        clock.advance(900)
        assert alive(ada)


@pytest.mark.parametrize("pause", [1, 50, 99, 100, 101, 150])
def test_throttled_renewals_never_shorten_the_idle_limit(ada: Visitor, clock: ManualClock, pause: int) -> None:
    for _ in range(7):
        clock.advance(pause)
        assert alive(ada)
    clock.advance(999)  # the last second is left to drivers whose server has a clock of its own
    assert alive(ada)


def test_the_cookie_outlives_the_idle_limit_of_the_session(ada: Visitor, clock: ManualClock) -> None:
    sent_at, age = clock(), max_age(ada)
    for _ in range(30):
        clock.advance(33)
        assert alive(ada)
        if "Set-Cookie" in dict(ada.headers):
            sent_at, age = clock(), max_age(ada)
        # If this was the last use, the browser must keep the cookie for the whole idle limit from now.
        assert sent_at + age >= clock() + 1000 - 1


def test_a_clock_that_was_set_back_does_not_end_sessions_or_renewals(ada: Visitor, clock: ManualClock) -> None:
    clock.advance(-500)
    assert alive(ada)
    assert "Set-Cookie" in dict(ada.headers)
    assert alive(ada)


def test_the_absolute_limit_ends_a_session_in_use(
    make_manager: Callable[..., SessionManager], visitor: Visitor, clock: ManualClock, events: list[str]
) -> None:
    ada = log_in(Visitor(make_manager(max_lifetime="1h"), visitor.runner))
    for _ in range(7):
        clock.advance(500)
        assert alive(ada)
    clock.advance(100)
    assert not alive(ada)


def test_a_login_while_the_session_reaches_its_limit_is_kept(
    make_manager: Callable[..., SessionManager], runner: asyncio.Runner | None, clock: ManualClock
) -> None:
    ada = Visitor(make_manager(max_lifetime=500), runner)
    with ada.request() as session:
        session["theme"] = "dark"
    clock.advance(499)
    with ada.request() as session:
        clock.advance(1)
        session["user"] = "ada"
    with ada.request() as session:
        assert dict(session) == {"user": "ada"}


def test_an_absolute_limit_that_is_lowered_later_ends_older_sessions(
    make_manager: Callable[..., SessionManager], visitor: Visitor, clock: ManualClock
) -> None:
    ada = log_in(Visitor(make_manager(max_lifetime=5000), visitor.runner))
    clock.advance(600)
    assert alive(ada)
    ada.manager = make_manager(max_lifetime=500)
    assert not alive(ada)


def test_the_cookie_lives_as_long_as_the_record_when_the_data_change_the_ttl(
    driver: CountingDriver, visitor: Visitor, clock: ManualClock
) -> None:
    store = UnstorageSessionStore(driver, ttl=lambda data: 30 * 86400 if data.get("remember") else 3600)
    ada = Visitor(SessionManager(store, SECRET, clock=clock), visitor.runner)
    with ada.request() as session:
        session["cart"] = [1]
    assert max_age(ada) < 4000
    with ada.request() as session:
        session["remember"] = True
    assert max_age(ada) >= 30 * 86400
    with ada.request() as session:
        session["cart"].append(2)
    assert "Set-Cookie" not in dict(ada.headers)


def test_expires_in_tells_the_nearer_limit(
    make_manager: Callable[..., SessionManager], visitor: Visitor, clock: ManualClock
) -> None:
    ada = log_in(Visitor(make_manager(max_lifetime=1500), visitor.runner))
    with ada.request() as session:
        assert session.expires_in == pytest.approx(1000, abs=101)
    clock.advance(900)
    with ada.request() as session:
        assert session.expires_in is not None
        assert session.expires_in <= 600


def test_a_ttl_function_decides_by_the_data(driver: CountingDriver, visitor: Visitor, clock: ManualClock) -> None:
    store = UnstorageSessionStore(driver, ttl=lambda data: 10 if data.get("guest") else 5000)
    ada = Visitor(SessionManager(store, SECRET, clock=clock), visitor.runner)
    with ada.request() as session:
        session.set({"user": "ada", "guest": True})
    assert max_age(ada) == 11
    clock.advance(5)
    with ada.request() as session:
        session["guest"] = False
    clock.advance(4000)
    assert alive(ada)


def test_a_ttl_function_that_answers_zero_destroys(
    driver: CountingDriver, visitor: Visitor, clock: ManualClock
) -> None:
    store = UnstorageSessionStore(driver, ttl=lambda data: 0 if data.get("over") else 60)
    ada = log_in(Visitor(SessionManager(store, SECRET, clock=clock), visitor.runner))
    with ada.request() as session:
        session["over"] = True
    assert store.length() == 0
    assert ada.cookie is None


def test_without_a_ttl_the_cookie_lives_as_long_as_browsers_allow(
    driver: CountingDriver, visitor: Visitor, clock: ManualClock
) -> None:
    store = UnstorageSessionStore(driver, ttl=None)
    ada = Visitor(SessionManager(store, SECRET, clock=clock), visitor.runner)
    with ada.request() as session:
        session["user"] = "ada"
        assert session.expires_in is None
    assert max_age(ada) == 400 * 86400
    clock.advance(10**9)
    assert alive(ada)


@pytest.mark.parametrize("ttl", [0, -1, True, float("nan"), float("inf"), "soon", "0s", "-1d", ""])
def test_a_ttl_that_cannot_work_is_refused_at_start(driver: CountingDriver, ttl: object) -> None:
    with pytest.raises(ConfigError, match="ttl: "):
        UnstorageSessionStore(driver, ttl=ttl)  # type: ignore[arg-type]


@pytest.mark.parametrize("option", ["touch_after", "max_lifetime", "rotation_grace"])
def test_a_time_that_cannot_work_is_refused_at_start(make_manager: Callable[..., SessionManager], option: str) -> None:
    with pytest.raises(ConfigError, match=option):
        make_manager(**{option: "soon"})


def test_a_ttl_that_is_changed_is_another_at_once_for_requests_in_other_threads() -> None:
    policy = SessionManager("memory://", SECRET).policy

    def look() -> None:
        # Between its check for None and its use, a request in another thread would have failed.
        assert policy._steady is not None

    at_every_step(lambda: ((lambda: policy.use_ttl(60.0)), look))
