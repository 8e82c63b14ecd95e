"""What a browser has after a login, a rotation, a logout, and after the cookie's options have been changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Page

from session_kit import CookieOptions, UnstorageSessionStore
from session_kit.drivers.memory import MemoryDriver
from session_kit.testing import ManualClock
from tests.browser.conftest import who
from tests.browser.sites import PageSite

MakeSite = Callable[..., PageSite]

KINDS: dict[str, dict[str, Any]] = {
    "default": {},
    "host": {"name": "__Host-session"},
    "secure": {"name": "__Secure-session", "cookie": CookieOptions(domain="shop.test")},
    "domain": {"cookie": CookieOptions(domain="shop.test")},
    "path": {"cookie": CookieOptions(path="/app")},
    "strict": {"cookie": CookieOptions(samesite="strict")},
    "none": {"cookie": CookieOptions(samesite="none")},
    "partitioned": {"name": "__Host-session", "cookie": CookieOptions(partitioned=True)},
    "until-closed": {"cookie": CookieOptions(persistent=False)},
    "http": {"tls": False, "cookie": CookieOptions(secure=False)},
}


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store(clock: ManualClock) -> UnstorageSessionStore:
    return UnstorageSessionStore(MemoryDriver(clock=clock))


@pytest.mark.parametrize("kind", KINDS)
def test_login_rotation_and_logout_leave_one_cookie_one_and_none(
    page: Page, visitor: BrowserContext, make_site: MakeSite, kind: str
) -> None:
    site, host = make_site(**KINDS[kind]), "www.shop.test"
    page.goto(site.url("/app/login?user=ada", host))
    [first] = visitor.cookies()

    page.goto(site.url("/app/rotate", host))
    [second] = visitor.cookies()
    assert second["value"] != first["value"]
    without = {"value": None, "expires": None}
    assert {**second, **without} == {**first, **without}
    assert who(page, site, host, "/app/who") == "ada"

    page.goto(site.url("/app/logout", host))
    assert visitor.cookies() == []
    assert who(page, site, host, "/app/who") == "nobody"


def test_after_the_grace_a_rotated_cookie_is_dead(
    page: Page,
    visitor: BrowserContext,
    new_visitor: Callable[..., BrowserContext],
    make_site: MakeSite,
    store: UnstorageSessionStore,
    clock: ManualClock,
) -> None:
    site = make_site(store=store, clock=clock)
    page.goto(site.url("/login?user=ada"))
    thief = new_visitor()
    thief.add_cookies(visitor.cookies())  # type: ignore[arg-type]  # what it returns, it takes
    tab = thief.new_page()
    page.goto(site.url("/rotate"))
    assert who(tab, site) == "nobody"
    assert thief.cookies() != visitor.cookies()
    clock.advance(11)
    assert who(tab, site) == "nobody"
    assert who(page, site) == "ada"


# --- the operator changes the cookie's options; visitors come back with the old cookie ---


def test_an_old_host_cookie_keeps_working_when_the_cookie_gets_a_domain(
    page: Page, visitor: BrowserContext, make_site: MakeSite, store: UnstorageSessionStore
) -> None:
    before, after = make_site(store=store), make_site(store=store, cookie=CookieOptions(domain="shop.test"))
    page.goto(before.url("/login?user=ada"))
    assert who(page, after) == "ada"
    page.goto(after.url("/rotate"))
    assert sorted(cookie["domain"] for cookie in visitor.cookies()) == [".shop.test", "shop.test"]
    assert who(page, after) == "ada"
    assert who(page, after, "www.shop.test") == "ada"


def test_a_dead_host_cookie_does_not_hide_the_domain_cookie(
    page: Page, make_site: MakeSite, store: UnstorageSessionStore, clock: ManualClock
) -> None:
    """The browser sends the older cookie first. It bears our signature, but its session is gone."""
    options = {"store": store, "clock": clock}
    before, after = make_site(**options), make_site(**options, cookie=CookieOptions(domain="shop.test"))
    page.goto(before.url("/login?user=ada"))
    page.goto(after.url("/login?user=ada"))
    clock.advance(11)
    assert who(page, after) == "ada"


def test_a_dead_path_cookie_does_not_hide_the_new_one(
    page: Page, make_site: MakeSite, store: UnstorageSessionStore, clock: ManualClock
) -> None:
    """The browser sends the cookie with the longer path first."""
    options = {"store": store, "clock": clock}
    before, after = make_site(**options, cookie=CookieOptions(path="/app")), make_site(**options)
    page.goto(before.url("/app/login?user=ada"))
    page.goto(after.url("/app/login?user=ada"))
    clock.advance(11)
    assert who(page, after, path="/app/who") == "ada"


def test_logging_out_with_two_cookies_logs_out(
    page: Page, make_site: MakeSite, store: UnstorageSessionStore, clock: ManualClock
) -> None:
    options = {"store": store, "clock": clock}
    before, after = make_site(**options), make_site(**options, cookie=CookieOptions(domain="shop.test"))
    page.goto(before.url("/login?user=ada"))
    page.goto(after.url("/login?user=ada"))
    clock.advance(11)
    page.goto(after.url("/logout"))
    assert who(page, after) == "nobody"
    assert who(page, after, "www.shop.test") == "nobody"


# --- two tabs ---


def test_two_tabs_share_one_session(visitor: BrowserContext, make_site: MakeSite) -> None:
    site = make_site()
    first, second = visitor.new_page(), visitor.new_page()
    assert who(second, site) == "nobody"
    first.goto(site.url("/login?user=ada"))
    assert who(second, site) == "ada"
    second.goto(site.url("/rotate"))
    assert who(first, site) == "ada"
    second.goto(site.url("/logout"))
    assert who(first, site) == "nobody"
    assert visitor.cookies() == []


# --- the back button ---

REMEMBERS = """<p id="secret">of the logged in</p><a href="/logout">log out</a>
<script>addEventListener("pageshow", event => document.title = event.persisted ? "kept" : "loaded")</script>"""


def test_a_page_without_no_store_comes_back_after_the_logout(page: Page, make_site: MakeSite) -> None:
    """The browser's doing, which no session can prevent; so such a page has to say `Cache-Control: no-store`."""
    site = make_site()
    page.goto(site.url("/login?user=ada"))
    page.goto(site.publish(REMEMBERS))
    page.click("a")
    page.wait_for_url("**/logout")
    page.go_back(wait_until="commit")
    page.wait_for_function("document.title == 'kept'")
