"""A visitor of an application with forms, and of a provider to which it sends people."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from html.parser import HTMLParser
from typing import Any

import httpx
from harness.sites import Site
from harness.visitors import Browser

STORES = ["memory", "disk", "Valkey"]


class Visitor(Browser):
    """A browser that fills in forms. `Secure` is no hindrance, so that the cookies are those of production."""

    def __init__(self, site: Site) -> None:
        super().__init__(site, trusting=True)

    def text(self, path: str) -> str:
        """What a page says that must be there."""
        response = self.get(path)
        assert response.status_code == 200, (path, response.status_code, response.text[:2000])
        return response.text

    def submit(self, path: str, **fields: str) -> httpx.Response:
        """Fill in the form of a page and send it, with what it hides."""
        form = Form(self.text(path))
        action = form.action or path
        return self.post(action, form.hidden | fields, {"Referer": str(self.client.base_url.join(path))})

    def log_in_at_provider(self, sent: httpx.Response) -> httpx.Response:
        """Go to another server, to which an answer sends the visitor, and come back with what that one says."""
        back = httpx.get(sent.headers["location"])
        assert back.status_code == 302, back.text[:2000]
        return self.get(back.headers["location"])


Visit = Callable[[Any], Visitor]
"""Brings a new visitor to an application."""


@contextmanager
def visits(start: Callable[[Any], Site]) -> Iterator[Visit]:
    """A `Visit` that starts each application for its first visitor."""
    sites: dict[int, Site] = {}
    with ExitStack() as stack:

        def visit(app: Any) -> Visitor:
            if id(app) not in sites:
                sites[id(app)] = stack.enter_context(start(app))
            return Visitor(sites[id(app)])

        yield visit


class Form(HTMLParser):
    """The last form of a page that is sent by POST: where it goes, and its hidden fields."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.action = ""
        self.hidden: dict[str, str] = {}
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        if tag == "form" and (given.get("method") or "").lower() == "post":
            self.action, self.hidden = given.get("action") or "", {}
        elif tag == "input" and given.get("type") == "hidden" and given.get("name"):
            self.hidden[str(given["name"])] = given.get("value") or ""
