"""The demo's pages work in a browser from login to logout, and fit a desk and a phone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from session_kit.demo.app import make_app
from session_kit.demo.check import LAPTOP, PHONE
from tests.browser.sites import serve
from tests.harness.sessions import SECRET

SIZES = {"desk": (1280, 800), "phone": (390, 844), "small phone": (320, 568)}


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[str]:
    """Where the demo is."""
    with serve(make_app(f"disk://{tmp_path}/sessions", SECRET)) as site:
        yield f"http://localhost:{site.port}/"


def log_in(page: Page, name: str) -> None:
    page.get_by_label("Your name").fill(name)
    page.get_by_role("button", name="Log in").click()
    expect(page.locator("#who")).to_have_text(name)


def put(page: Page, item: str) -> None:
    page.get_by_role("button", name=item, exact=True).click()
    expect(page.get_by_label(f"One more: {item}")).to_be_visible()


def test_the_demo_works_from_login_to_logout(demo: str, page: Page, visitor: BrowserContext) -> None:
    page.goto(demo)
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
    expect(page.locator("#notice")).to_contain_text("You are logged out")
    expect(page.locator("#nothing")).to_be_visible()
    assert visitor.cookies() == []
    page.go_back()
    page.reload()
    expect(page.get_by_role("button", name="Log in")).to_be_visible()


def test_two_tabs_at_once_keep_both_their_items(demo: str, visitor: BrowserContext) -> None:
    slow, fast = visitor.new_page(), visitor.new_page()
    slow.goto(demo)
    log_in(slow, "Ada")
    fast.goto(demo)
    slow.get_by_label("Item").fill("Tortoise")
    with slow.expect_request("**/cart/add"):
        slow.get_by_role("button", name="Add slowly").click(no_wait_after=True)
    put(fast, "Bread")
    for item in ("Tortoise", "Bread"):
        expect(slow.get_by_label(f"One more: {item}")).to_be_visible()


def test_one_browser_ends_the_other_which_is_out_at_its_next_click(
    demo: str, new_visitor: Callable[..., BrowserContext]
) -> None:
    laptop, phone = new_visitor(user_agent=LAPTOP).new_page(), new_visitor(user_agent=PHONE).new_page()
    for page in (laptop, phone):
        page.goto(demo)
        log_in(page, "Ada")
    laptop.reload()
    expect(laptop.locator("#this-device")).to_have_text("Firefox on Linux")
    expect(phone.locator("#this-device")).to_have_text("Safari on iPhone")
    laptop.get_by_role("button", name="End the session of Safari on iPhone").click()
    expect(laptop.locator(".other-device")).to_have_count(0)
    expect(laptop.locator("#who")).to_have_text("Ada")

    expect(phone.locator("#who")).to_have_text("Ada")  # it shows what it showed, until it asks again
    phone.get_by_role("button", name="Count one more").click()
    expect(phone.locator("#who")).to_have_text("stranger")
    expect(phone.locator("#notice")).to_contain_text("Your session has ended")

    log_in(phone, "Ada")
    phone.get_by_role("button", name="End all others").click()
    expect(phone.locator(".other-device")).to_have_count(0)
    laptop.reload()
    expect(laptop.locator("#who")).to_have_text("stranger")


def test_a_slow_button_shows_that_it_is_at_work(demo: str, page: Page) -> None:
    page.goto(demo)
    page.get_by_label("Item").fill("Tortoise")
    # Playwright does not look into a page that is being left: the page looks for itself.
    page.evaluate(
        "addEventListener('submit', () => setTimeout("
        "() => console.log(document.querySelector('[aria-busy=true]')?.textContent), 50))"
    )
    with page.expect_console_message() as message:
        page.get_by_role("button", name="Add slowly").click(no_wait_after=True)
    assert message.value.text == "Add slowly"
    expect(page.get_by_label("One more: Tortoise")).to_be_visible()
    expect(page.locator("[aria-busy]")).to_have_count(0)


def test_a_page_stays_where_it_is_after_an_action(demo: str, new_visitor: Callable[..., BrowserContext]) -> None:
    width, height = SIZES["small phone"]
    page = new_visitor(viewport={"width": width, "height": height}).new_page()
    page.goto(demo)
    put(page, "Apples")
    more, count = page.get_by_label("One more: Apples"), page.locator("li.item b")
    more.scroll_into_view_if_needed()
    before = page.evaluate("scrollY")
    assert before > 100
    more.click()
    expect(count).to_have_text("2")
    assert page.evaluate("scrollY") == before
    # By keyboard too: the next key goes to the button that the last one went to.
    more.focus()
    page.keyboard.press("Enter")
    expect(count).to_have_text("3")
    page.keyboard.press("Enter")
    expect(count).to_have_text("4")
    expect(more).to_be_focused()


def test_the_page_works_without_scripts(demo: str, new_visitor: Callable[..., BrowserContext]) -> None:
    page = new_visitor(java_script_enabled=False).new_page()
    page.goto(demo)
    log_in(page, "Ada")
    put(page, "Apples")


def test_log_out_is_not_the_loudest_button(demo: str, page: Page) -> None:
    page.goto(demo)
    log_in(page, "Ada")
    painted = "button => getComputedStyle(button).backgroundColor"
    assert page.get_by_role("button", name="Log out").evaluate(painted) == "rgba(0, 0, 0, 0)"
    assert page.get_by_role("button", name="Count one more").evaluate(painted) != "rgba(0, 0, 0, 0)"


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_the_page_fits(
    demo: str, new_visitor: Callable[..., BrowserContext], size: str, dark: bool, tmp_path: Path
) -> None:
    width, height = SIZES[size]
    viewport = {"width": width, "height": height}
    page = new_visitor(viewport=viewport, color_scheme="dark" if dark else "light").new_page()
    page.goto(demo)
    log_in(page, "Ada Lovelace, Countess of a long name")
    for item in ("Apples", "Bread", "Coffee"):
        put(page, item)
    with_another = new_visitor(user_agent=PHONE).new_page()
    with_another.goto(demo)
    log_in(with_another, "Ada Lovelace, Countess of a long name")
    page.reload()
    expect(page.locator(".other-device")).to_be_visible()
    page.screenshot(path=tmp_path / f"{size}.png", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for button in page.get_by_role("button").all():
        box = button.bounding_box()
        assert box is not None
        assert 0 <= box["x"] <= box["x"] + box["width"] <= width
