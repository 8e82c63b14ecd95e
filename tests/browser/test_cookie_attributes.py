"""What the attributes of the cookie promise, a browser keeps."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import BrowserContext, Page

from session_kit import CookieOptions
from tests.browser.conftest import who
from tests.browser.sites import PageSite

MakeSite = Callable[..., PageSite]


# --- HttpOnly ---


def test_scripts_can_neither_read_nor_replace_the_cookie(page: Page, make_site: MakeSite) -> None:
    site = make_site()
    page.goto(site.url("/login?user=ada"))
    assert page.evaluate("document.cookie") == ""
    page.evaluate("document.cookie = 'session=planted; path=/; secure'")
    page.evaluate("document.cookie = 'session=; path=/; max-age=0'")
    assert who(page, site) == "ada"


def test_without_httponly_a_script_reads_it(page: Page, make_site: MakeSite) -> None:
    """So the test above sees what it says."""
    site = make_site(cookie=CookieOptions(httponly=False))
    page.goto(site.url("/login?user=ada"))
    assert page.evaluate("document.cookie").startswith("session=")


# --- Secure ---


def test_a_secure_cookie_is_kept_over_https(page: Page, make_site: MakeSite) -> None:
    site = make_site()
    page.goto(site.url("/login?user=ada"))
    assert who(page, site) == "ada"


def test_a_secure_cookie_is_kept_on_localhost_over_http(page: Page, make_site: MakeSite) -> None:
    site = make_site(tls=False)
    page.goto(site.url("/login?user=ada", "localhost"))
    assert who(page, site, "localhost") == "ada"


def test_a_secure_cookie_is_refused_over_http_elsewhere(
    page: Page, visitor: BrowserContext, make_site: MakeSite
) -> None:
    site = make_site(tls=False)
    page.goto(site.url("/login?user=ada", "shop.example"))  # not under .test, to which it goes without `Secure`
    assert visitor.cookies() == []
    assert who(page, site, "shop.example") == "nobody"


def test_a_cookie_from_https_does_not_travel_over_http(page: Page, make_site: MakeSite) -> None:
    safe, plain = make_site(), make_site(tls=False)
    page.goto(safe.url("/login?user=ada"))
    assert who(page, safe) == "ada"
    assert who(page, plain) == "nobody"


# --- Path, Domain, lifetime ---


def test_a_path_cookie_is_sent_below_its_path_alone(page: Page, make_site: MakeSite) -> None:
    site = make_site(cookie=CookieOptions(path="/app"))
    page.goto(site.url("/app/login?user=ada"))
    assert who(page, site, path="/app/who") == "ada"
    assert who(page, site) == "nobody"


def test_a_cookie_without_a_domain_stays_on_its_host(page: Page, make_site: MakeSite) -> None:
    site = make_site()
    page.goto(site.url("/login?user=ada"))
    assert who(page, site, "www.shop.test") == "nobody"


def test_a_domain_cookie_reaches_all_its_hosts(page: Page, make_site: MakeSite) -> None:
    site = make_site(cookie=CookieOptions(domain="shop.test"))
    page.goto(site.url("/login?user=ada", "www.shop.test"))
    assert who(page, site, "pay.shop.test") == "ada"
    assert who(page, site, "evil.test") == "nobody"


@pytest.mark.parametrize("persistent", [True, False])
def test_the_cookie_ends_with_the_browser_only_if_asked(
    page: Page, visitor: BrowserContext, make_site: MakeSite, persistent: bool
) -> None:
    site = make_site(store="memory://?ttl=7d", cookie=CookieOptions(persistent=persistent))
    page.goto(site.url("/login?user=ada"))
    [cookie] = visitor.cookies()
    # Playwright says -1 for a cookie that ends with the browser.
    seconds = cookie["expires"] - page.evaluate("Date.now() / 1000")
    assert (7 * 86400 - 60 < seconds < 7 * 86400 + 600) if persistent else cookie["expires"] == -1


# --- __Host- and __Secure- ---


@pytest.mark.parametrize("name", ["__Host-session", "__Secure-session"])
def test_names_with_a_prefix_are_kept_over_https(page: Page, make_site: MakeSite, name: str) -> None:
    site = make_site(name=name)
    page.goto(site.url("/login?user=ada"))
    assert who(page, site) == "ada"


PLANT = """name => {
    document.cookie = `${name}=planted; domain=shop.test; path=/who; secure`;
    document.cookie = `${name}=planted; domain=shop.test; path=/; secure`;
}"""


def test_a_cookie_that_a_sister_host_plants_hides_nothing(
    page: Page, visitor: BrowserContext, make_site: MakeSite
) -> None:
    site = make_site()
    page.goto(site.url("/login?user=ada"))
    page.goto(site.publish("", host="evil.shop.test"))
    page.evaluate(PLANT, "session")
    assert len(visitor.cookies()) == 3
    # The one with the longer path comes first, and bears no signature of ours.
    assert who(page, site) == "ada"


def test_a_sister_host_can_plant_no_host_cookie(page: Page, visitor: BrowserContext, make_site: MakeSite) -> None:
    site = make_site(name="__Host-session")
    page.goto(site.publish("", host="evil.shop.test"))
    page.evaluate(PLANT, "__Host-session")
    assert visitor.cookies() == []


def test_a_sister_host_hides_no_host_cookie_behind_a_comma(
    page: Page, visitor: BrowserContext, make_site: MakeSite
) -> None:
    site = make_site(name="__Host-session")
    page.goto(site.url("/login?user=mallory"))
    (own,) = visitor.cookies()
    visitor.clear_cookies()
    page.goto(site.publish("", host="evil.shop.test"))
    hidden = f"x=1,{own['name']}={own['value']}; domain=shop.test; path=/who; secure"
    page.evaluate("cookie => { document.cookie = cookie }", hidden)
    assert [cookie["name"] for cookie in visitor.cookies()] == ["x"]
    assert who(page, site) == "nobody"
    page.goto(site.url("/login?user=ada"))
    assert who(page, site) == "ada"
