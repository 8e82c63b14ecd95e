"""Who visits a site: a browser, or a client without cookies. What they do in "the application" is in `apps`.

The tests of packages import this module too: see `sites.py`.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from http.cookiejar import Cookie, CookieJar, DefaultCookiePolicy
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx

from .gate import Gate
from .servers import HOST, wait_until
from .sites import Site

COOKIE = "session"
T = TypeVar("T")


class Browser:
    """A visitor with a cookie jar, which follows no redirects by itself.

    It serves all sites on 127.0.0.1 alike, because cookies know no ports.

    Parameters:
        site: where it is at first.
        cookie: of the session, that it has from the start.
        trusting: `Secure` is no hindrance over plain http, as in a browser at `localhost`.
    """

    def __init__(self, site: Site, cookie: str | None = None, *, trusting: bool = False) -> None:
        self._jar = CookieJar(_Trusting() if trusting else None)
        self.visit(site)
        if cookie is not None:
            self.client.cookies.set(COOKIE, cookie, HOST)

    def visit(self, site: Site) -> Self:
        """Go to another site, with the same jar."""
        # Never closed: the connections belong to the site.
        self.client = httpx.Client(transport=site.transport, base_url=site.url, cookies=self._jar, timeout=20)
        return self

    @property
    def cookie(self) -> str | None:
        """The session cookie in the jar."""
        return self.cookie_named(COOKIE)

    def cookie_named(self, name: str) -> str | None:
        return next((cookie.value for cookie in self._jar if cookie.name == name), None)

    def get(self, path: str, **query: str) -> httpx.Response:
        return self.client.get(path, params=query or None)

    def post(
        self,
        path: str,
        data: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        **query: str,
    ) -> httpx.Response:
        """data: of a form."""
        return self.client.post(path, data=data, headers=headers, params=query or None)

    def provoke(self, method: str, path: str, **query: str) -> httpx.Response:
        """A request at which the application fails. Some servers close its connection then: no other is to use it."""
        return self.client.request(method, path, params=query, headers={"connection": "close"})

    def send(self, path: str, *cookies: bytes) -> httpx.Response:
        """GET with these `Cookie` headers, whatever is in the jar."""
        return self.client.send(
            httpx.Request("GET", self.client.base_url.join(path), headers=[(b"cookie", value) for value in cookies])
        )

    def do(self, path: str, **query: str) -> Any:
        """POST, which must succeed; returns the answer."""
        return _answer(self.client.post(path, params=query))

    def write(self, key: str, value: str) -> httpx.Response:
        response = self.post("/write", key=key, value=value)
        _answer(response)
        return response

    def read(self, key: str) -> Any:
        """The value of `key` in the session, or None."""
        return _answer(self.get("/read", key=key))["value"]


class _Trusting(DefaultCookiePolicy):
    def set_ok(self, cookie: Cookie, request: Any) -> bool:
        cookie.secure = False
        return super().set_ok(cookie, request)


class ApiClient:
    """A client without cookies: it sends what the last response said in the header `Session`, at first nothing.

    It keeps no cookie, but notes each that it is sent.

    Parameters:
        header: that the application reads in place of `Authorization`.
    """

    def __init__(self, site: Site, token: str = "", header: str | None = None) -> None:
        self.token = token
        self._header = header
        self.cookies: list[str] = []
        # Never closed: the connections belong to the site.
        self._client = httpx.Client(transport=site.transport, base_url=site.url, timeout=20)

    def request(self, method: str, path: str, headers: Mapping[str, str] | None = None, **query: str) -> httpx.Response:
        own = {self._header: self.token} if self._header else {"authorization": f"Session {self.token}".strip()}
        sent = {**own, **(headers or {})}
        response = self._client.request(method, path, params=query, headers=sent)
        self._client.cookies.clear()
        self.cookies += response.headers.get_list("set-cookie")
        self.token = response.headers.get(self._header or "session", self.token)
        return response

    def do(self, path: str, **query: str) -> httpx.Response:
        """POST, which must succeed; returns the response."""
        response = self.request("POST", path, None, **query)
        _answer(response)
        return response

    def read(self, key: str) -> Any:
        """The value of `key` in the session, or None."""
        return _answer(self.request("GET", "/read", None, key=key))["value"]


def _answer(response: httpx.Response) -> Any:
    assert response.status_code == 200, f"{response.request.url.path}: {response.status_code} {response.text[:500]}"
    return response.json()


def together(*calls: Callable[[], T]) -> list[T]:
    """Make all calls at the same time."""
    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result() for future in [pool.submit(call) for call in calls]]


@contextlib.contextmanager
def slow_write(browser: Browser, folder: Path, key: str, value: str) -> Iterator[Future[httpx.Response]]:
    """Inside, a request is under way that has read the session and will write. Gives its response to come."""
    path = folder / f"gate-{secrets.token_hex(4)}"
    gate = Gate(path)
    with ThreadPoolExecutor(1) as pool:
        response = pool.submit(browser.post, "/slow", key=key, value=value, gate=str(path))
        try:
            wait_until(lambda: gate.is_reached() or response.done(), "the slow request")
            yield response
        finally:
            gate.open()
    response.result()
