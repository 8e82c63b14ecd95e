"""The demo's pages work in a browser from login to logout, and fit a desk and a phone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from session_kit.demo.app import make_app
from tests.browser.sites import Served
from tests.harness.sessions import SECRET

SIZES = {"desk": (1280, 800), "phone": (390, 844), "small phone": (320, 568)}


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Served]:
    with Served(make_app(f"disk://{tmp_path}/sessions", SECRET)) as demo:
        yield demo


def log_in(page: Page, name: str) -> None:
    page.get_by_label("Your name").fill(name)
    page.get_by_role("button", name="Log in").click()
    expect(page.locator("#who")).to_have_text(name)


def put(page: Page, item: str) -> None:
    page.get_by_role("button", name=item, exact=True).click()
    expect(page.get_by_label(f"One more: {item}")).to_be_visible()


def test_the_demo_works_from_login_to_logout(demo: Served, page: Page, visitor: BrowserContext) -> None:
    page.goto(demo.url())
    expect(page.locator("#nothing")).to_be_visible()
    assert visitor.cookies() == []
    page.get_by_role("button", name="Count one more").click()
    expect(page.locator("#visits")).to_have_text("1")
    [before] = visitor.cookies()
    put(page, "Apples")
    log_in(page, "Ada")
    expect(page.locator("#visits")).to_have_text("1")  # what the stranger gathered is kept
    [after] = visitor.cookies()
    assert before["value"] != after["value"]
    assert after["httpOnly"]
    assert after["secure"]
    page.get_by_label("One less: Apples").click()
    expect(page.get_by_text("Nothing in it.")).to_be_visible()
    page.get_by_role("button", name="Give me a new id").click()
    expect(page.locator("#who")).to_have_text("Ada")
    page.get_by_role("button", name="Log out").click()
    expect(page.locator("#nothing")).to_be_visible()
    assert visitor.cookies() == []
    page.go_back()
    page.reload()
    expect(page.get_by_role("button", name="Log in")).to_be_visible()


def test_two_tabs_at_once_keep_both_their_items(demo: Served, visitor: BrowserContext) -> None:
    slow, fast = visitor.new_page(), visitor.new_page()
    slow.goto(demo.url())
    log_in(slow, "Ada")
    fast.goto(demo.url())
    slow.get_by_label("Item").fill("Tortoise")
    with slow.expect_request("**/cart/add"):
        slow.get_by_role("button", name="Add slowly").click(no_wait_after=True)
    put(fast, "Bread")
    for item in ("Tortoise", "Bread"):
        expect(slow.get_by_label(f"One more: {item}")).to_be_visible()


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_the_page_fits(
    demo: Served, new_visitor: Callable[..., BrowserContext], size: str, dark: bool, tmp_path: Path
) -> None:
    width, height = SIZES[size]
    viewport = {"width": width, "height": height}
    page = new_visitor(viewport=viewport, color_scheme="dark" if dark else "light").new_page()
    page.goto(demo.url())
    log_in(page, "Ada Lovelace, Countess of a long name")
    for item in ("Apples", "Bread", "Coffee"):
        put(page, item)
    page.screenshot(path=tmp_path / f"{size}.png", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for button in page.get_by_role("button").all():
        box = button.bounding_box()
        assert box is not None
        assert 0 <= box["x"] <= box["x"] + box["width"] <= width
