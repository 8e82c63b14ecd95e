"""A real browser, with a fresh profile for each test, and sites for it to visit. Run by `make test-browser`.

The names under .test lead to 127.0.0.1. To the browser, www.shop.test and shop.test are one site, evil.test is another.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Playwright, sync_playwright

from tests.browser.sites import Certificate, PageSite, make_certificate
from tests.harness.sessions import SECRET

NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
SWITCHES = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *(
        "--disable-component-update",
        "--disable-sync",
        "--host-resolver-rules=MAP *.test 127.0.0.1, MAP *.example 127.0.0.1",
    ),
)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="session")
def playwright() -> Iterator[Playwright]:
    with sync_playwright() as playwright:
        yield playwright


@pytest.fixture(scope="session")
def launch(
    playwright: Playwright, certificate: Certificate, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Browser]]:
    """Start a browser; third_party: whether cookies go along into frames of other sites, which browsers let one set."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.exit("the browser tests need Chromium on the PATH: apt-get install chromium", 1)
    with ExitStack() as stack:

        def start(*, third_party: bool) -> Browser:
            # Set either way, because the default differs from one distribution of Chromium to the next.
            profile = tmp_path_factory.mktemp("profile")
            preferences = {"profile": {"cookie_controls_mode": 0 if third_party else 1}}
            (profile / "Default").mkdir()
            (profile / "Default" / "Preferences").write_text(json.dumps(preferences))
            context = playwright.chromium.launch_persistent_context(
                profile,
                executable_path=program,
                # Our server's key is trusted under every name; all other certificates are checked as usual.
                args=[*SWITCHES, f"--ignore-certificate-errors-spki-list={certificate.fingerprint}"],
                # What the back button shows is one of the things to be seen.
                ignore_default_args=["--disable-back-forward-cache"],
            )
            stack.callback(context.close)
            assert context.browser is not None
            return context.browser

        yield start


@pytest.fixture(scope="session")
def browser(launch: Callable[..., Browser]) -> Browser:
    return launch(third_party=True)


@pytest.fixture(scope="session")
def guarded_browser(launch: Callable[..., Browser]) -> Browser:
    """One that blocks third-party cookies."""
    return launch(third_party=False)


@pytest.fixture
def make_site(certificate: Certificate) -> Iterator[Callable[..., PageSite]]:
    """Start a site over https, or over http if tls is False; the options are those of the middleware."""
    with ExitStack() as stack:

        def make(*, tls: bool = True, **options: Any) -> PageSite:
            settings = {"store": "memory://", "secret": SECRET}
            site = PageSite(certificate if tls else None, **(settings | options))
            return stack.enter_context(site)

        yield make


@pytest.fixture
def new_visitor(browser: Browser, make_site: Callable[..., PageSite]) -> Iterator[Callable[..., BrowserContext]]:
    """Return a browser that has never been anywhere; the options are those of Playwright's `new_context`."""
    # It asks for make_site in order to be gone before the sites are, with all its connections.
    with ExitStack() as stack:

        def make(browser: Browser = browser, **options: Any) -> BrowserContext:
            context = browser.new_context(**options)
            context.set_default_timeout(10_000)
            stack.callback(context.close)
            return context

        yield make


@pytest.fixture
def visitor(new_visitor: Callable[..., BrowserContext]) -> BrowserContext:
    return new_visitor()


@pytest.fixture
def page(visitor: BrowserContext) -> Page:
    return visitor.new_page()


def who(page: Page, site: PageSite, host: str = "shop.test", path: str = "/who") -> str:
    """Type in the address that says who the visitor is, and return what it says."""
    page.goto(site.url(path, host))
    return page.inner_text("#who")
