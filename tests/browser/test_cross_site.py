"""Which requests of other sites the cookie goes along with. Third-party cookies are allowed, unless a test says so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page

from session_kit import CookieOptions
from tests.browser.conftest import who
from tests.browser.sites import PageSite

MakeSite = Callable[..., PageSite]

STRICT, LAX, NONE = (CookieOptions(samesite=word) for word in ("strict", "lax", "none"))


def follow_link(page: Page, site: PageSite, host: str) -> str:
    page.goto(site.publish(f'<a href="{site.url("/who")}">a link</a>', host=host))
    page.click("a")
    return page.inner_text("#who")


def post_form(page: Page, site: PageSite, host: str) -> str:
    page.goto(site.publish(f'<form method="post" action="{site.url("/who")}"><button>send</button></form>', host=host))
    page.click("button")
    return page.inner_text("#who")


def show_frame(page: Page, site: PageSite, host: str) -> str:
    page.goto(site.publish(f'<iframe src="{site.url("/who")}"></iframe>', host=host))
    return page.frame_locator("iframe").locator("#who").inner_text()


def load_image(page: Page, site: PageSite, host: str) -> str:
    # Which is no image, but the request has been made when the page has loaded.
    page.goto(site.publish(f'<img src="{site.url("/who")}">', host=host))
    return site.visits[-1]


def fetch(page: Page, site: PageSite, host: str) -> str:
    page.goto(site.publish("", host=host))
    page.evaluate("url => fetch(url, {mode: 'no-cors', credentials: 'include'}).then(() => null)", site.url("/who"))
    return site.visits[-1]


def open_websocket(page: Page, site: PageSite, host: str) -> str:
    page.goto(site.publish("", host=host))
    return greeted(page, site)


def greeted(page: Page, site: PageSite) -> Any:
    answer = "url => new Promise(done => { new WebSocket(url).onmessage = event => done(event.data) })"
    return page.evaluate(answer, site.url("/greet").replace("http", "ws", 1))


WAYS = [follow_link, post_form, show_frame, load_image, fetch, open_websocket]


@pytest.mark.parametrize(
    ("cookie", "sent_with"), [(STRICT, []), (LAX, [follow_link]), (NONE, WAYS)], ids=["strict", "lax", "none"]
)
@pytest.mark.parametrize("way", WAYS)
def test_what_another_site_can_send_the_cookie_with(
    page: Page, make_site: MakeSite, cookie: CookieOptions, sent_with: list[Any], way: Callable[..., str]
) -> None:
    site = make_site(cookie=cookie)
    page.goto(site.url("/login?user=ada"))
    assert way(page, site, "evil.test") == ("ada" if way in sent_with else "nobody")
    assert who(page, site) == "ada"


@pytest.mark.parametrize("way", WAYS)
def test_a_strict_cookie_goes_along_within_the_site(page: Page, make_site: MakeSite, way: Callable[..., str]) -> None:
    site = make_site(cookie=STRICT)
    page.goto(site.url("/login?user=ada"))
    assert way(page, site, "www.shop.test") == "ada"


def test_localhost_and_its_address_are_two_sites(page: Page, make_site: MakeSite) -> None:
    site = make_site(tls=False, cookie=STRICT)
    page.goto(site.url("/login?user=ada", "localhost"))
    page.goto(site.publish(f'<a href="{site.url("/who", "localhost")}">a link</a>', host="127.0.0.1"))
    page.click("a")
    assert page.inner_text("#who") == "nobody"
    assert who(page, site, "localhost") == "ada"


def test_http_and_https_are_two_sites(page: Page, make_site: MakeSite) -> None:
    site, plain = make_site(cookie=STRICT), make_site(tls=False)
    page.goto(site.url("/login?user=ada"))
    page.goto(plain.publish(f'<a href="{site.url("/who")}">a link</a>'))
    page.click("a")
    assert page.inner_text("#who") == "nobody"


@pytest.mark.parametrize(("cookie", "then"), [(LAX, "ada"), (NONE, "eve")], ids=["lax", "none"])
def test_a_picture_on_another_site_logs_nobody_in(
    page: Page, make_site: MakeSite, cookie: CookieOptions, then: str
) -> None:
    site = make_site(cookie=cookie)
    page.goto(site.url("/login?user=ada"))
    page.goto(site.publish(f'<img src="{site.url("/login?user=eve")}">', host="evil.test"))
    assert who(page, site) == then


# --- Partitioned: a jar for each site that the frame is shown on ---


def frame(page: Page, site: PageSite, path: str, host: str) -> str:
    """Show a page of widget.test in a frame on another site, and return what the frame says."""
    page.goto(site.publish(f'<iframe src="{site.url(path, "widget.test")}"></iframe>', host=host))
    return page.frame_locator("iframe").locator("body").inner_text()


@pytest.mark.parametrize("third_party", [True, False], ids=["third-party-allowed", "third-party-blocked"])
def test_a_partitioned_cookie_lives_on_the_site_that_shows_the_frame(
    new_visitor: Callable[..., BrowserContext], request: pytest.FixtureRequest, make_site: MakeSite, third_party: bool
) -> None:
    visitor = new_visitor(request.getfixturevalue("browser" if third_party else "guarded_browser"))
    page = visitor.new_page()
    site = make_site(name="__Host-session", cookie=CookieOptions(samesite="none", partitioned=True))
    frame(page, site, "/login?user=ada", "news.test")
    assert frame(page, site, "/who", "news.test") == "ada"
    assert frame(page, site, "/who", "blog.test") == "nobody"
    assert who(page, site, "widget.test") == "nobody"
    frame(page, site, "/login?user=bob", "blog.test")
    assert frame(page, site, "/who", "news.test") == "ada"
    assert sorted(cookie["partitionKey"] for cookie in visitor.cookies()) == ["https://blog.test", "https://news.test"]

    frame(page, site, "/logout", "news.test")
    assert [cookie["partitionKey"] for cookie in visitor.cookies()] == ["https://blog.test"]
    assert frame(page, site, "/who", "news.test") == "nobody"
    assert frame(page, site, "/who", "blog.test") == "bob"


@pytest.mark.parametrize(
    ("partitioned", "third_party", "then"),
    [(False, True, "ada"), (False, False, "nobody"), (True, False, "ada")],
)
def test_a_frame_needs_partitioned_where_third_party_cookies_are_blocked(
    new_visitor: Callable[..., BrowserContext],
    request: pytest.FixtureRequest,
    make_site: MakeSite,
    partitioned: bool,
    third_party: bool,
    then: str,
) -> None:
    browser: Browser = request.getfixturevalue("browser" if third_party else "guarded_browser")
    page = new_visitor(browser).new_page()
    site = make_site(cookie=CookieOptions(samesite="none", partitioned=partitioned))
    frame(page, site, "/login?user=ada", "news.test")
    assert frame(page, site, "/who", "news.test") == then


# --- WebSockets ---


def test_a_websocket_reads_the_session(page: Page, make_site: MakeSite) -> None:
    site = make_site()
    page.goto(site.url("/who"))
    assert greeted(page, site) == "nobody"
    page.goto(site.url("/login?user=ada"))
    assert greeted(page, site) == "ada"
    page.goto(site.url("/logout"))
    assert greeted(page, site) == "nobody"
