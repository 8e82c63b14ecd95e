"""`session-kit demo --check`: starts the demo as a server of its own, plays a visitor, and prints what it saw."""

from __future__ import annotations

import html
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from http.cookies import Morsel, SimpleCookie
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import parse_qsl, urlencode

import httpx
from rich.console import Console

from session_kit.drivers.support.folder import url_of
from session_kit.store import UnstorageSessionStore, open_store

GRACE = 1.5
START_TIMEOUT = 20.0
STOP_TIMEOUT = 10.0
COOKIE = "session"
SAFE = {"httponly": True, "secure": True, "samesite": "Lax", "path": "/", "domain": ""}
LEFT_BEHIND = {"visits": 3, "name": "Ada", "cart": {"Apples": 1, "Bread": 1}}
LAPTOP = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
PHONE = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko)"
    " Version/18.5 Mobile/15E148 Safari/604.1"
)


def play(console: Console, store_url: str | None = None) -> int:
    """Check the demo on a store, or on a folder that is deleted afterwards. Returns the exit code: 0 or 1."""

    def stop(signum: int, frame: object) -> NoReturn:
        raise SystemExit(128 + signum)

    # Without this, a signal to stop would leave the server behind.
    before = signal.signal(signal.SIGTERM, stop)
    try:
        with tempfile.TemporaryDirectory(prefix="session-kit-check-") as name:
            folder = Path(name)
            own = with_own_prefix(store_url or url_of("disk", folder / "sessions"))
            store = open_store(own)
            try:
                check = Check(console, folder, own, store)
                return 0 if check.run() else 1
            finally:
                store.clear()
                store.close()
    finally:
        signal.signal(signal.SIGTERM, before)


def with_own_prefix(url: str) -> str:
    """The same store under a prefix of our own: what else it holds is neither counted nor cleared."""
    address, _, query = url.partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    options["prefix"] = f"{options.get('prefix', 'sess')}-check-{secrets.token_hex(4)}"
    return f"{address}?{urlencode(options)}"


class Failed(Exception):
    """The demo did not do what it should."""


def expect(condition: bool, otherwise: str) -> None:
    if not condition:
        raise Failed(otherwise)


class Server:
    """The demo in a process of its own, on a free port."""

    def __init__(self, folder: Path, store_url: str) -> None:
        self._folder = folder
        self._log = folder / "server.log"
        self._command = [
            *(sys.executable, "-m", "session_kit.cli", "demo"),
            *("--port", "0", "--store", store_url, "--grace", f"{GRACE:g}"),
        ]

    @property
    def output(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace") if self._log.exists() else ""

    @contextmanager
    def running(self) -> Iterator[str]:
        """Yield the server's URL; it is stopped whatever happens."""
        # Its secret lies in the folder, too, and not in the user's cache.
        environment = {**os.environ, "XDG_CACHE_HOME": str(self._folder), "PYTHONIOENCODING": "utf-8"}
        with self._log.open("ab") as log:
            start = log.tell()
            process = subprocess.Popen(  # noqa: S603  # our own interpreter, no shell
                self._command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
        try:
            yield self._address(process, start)
        finally:
            process.terminate()
            try:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(STOP_TIMEOUT)
            finally:
                process.kill()  # which does nothing to a process that has ended
                process.wait()

    def _address(self, process: subprocess.Popen[bytes], start: int) -> str:
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            found = re.search(rb"http://\S+:\d+", self._log.read_bytes()[start:])
            if found is not None:
                return found[0].decode()
            expect(process.poll() is None, f"the server ended at once, with exit code {process.returncode}")
            time.sleep(0.02)
        raise Failed(f"the server did not start within {START_TIMEOUT:g} seconds")


class Visitor:
    """A browser in small: it keeps one cookie, and sends it back over http to this machine as browsers do.

    A usual HTTP client would not: it knows no exception from `Secure` for localhost.
    """

    def __init__(self, url: str, cookie: str | None = None, user_agent: str = LAPTOP) -> None:
        self.url = url
        self.cookie = cookie
        self.received: Morsel[str] | None = None  # with the last answer
        self._client = httpx.Client(base_url=url, headers={"User-Agent": user_agent}, timeout=10, trust_env=False)

    def __enter__(self) -> Visitor:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def look(self, path: str = "/") -> Page:
        """Open the page."""
        response = self._send("GET", path)
        expect(response.status_code == 200, f"the page answered {response.status_code}")
        return Page(response.text)

    def send(self, path: str, **form: str) -> Page:
        """Send a form, follow the redirect, and return the page that it leads to."""
        response = self._send("POST", path, form, {"Origin": self.url, "Sec-Fetch-Site": "same-origin"})
        expect(response.status_code == 303, f"{path} answered {response.status_code}, not with a redirect (303)")
        received = self.received
        page = self.look(response.headers["Location"])
        self.received = self.received or received
        return page

    def send_from_elsewhere(self, path: str, **headers: str) -> int:
        """Send a form as another site's page would, and return the status."""
        return self._send("POST", path, {}, headers).status_code

    def _send(
        self, method: str, path: str, form: dict[str, str] | None = None, headers: dict[str, str] | None = None
    ) -> httpx.Response:
        headers = dict(headers or {})
        if self.cookie is not None:
            headers["Cookie"] = f"{COOKIE}={self.cookie}"
        response = self._client.request(method, path, data=form, headers=headers)
        self._client.cookies.clear()
        self.received = SimpleCookie(response.headers.get("Set-Cookie", "")).get(COOKIE)
        if self.received is not None:
            self.cookie = None if self.received["max-age"] == "0" else self.received.value
        return response


class Page:
    """What the visitor reads on the page."""

    def __init__(self, text: str) -> None:
        self.name = _inside(text, "who")
        self.visits = int(_inside(text, "visits") or 0)
        self.notice = _inside(text, "notice")
        self.this_device = _inside(text, "this-device")
        self.other_devices = dict(_OTHER_DEVICE.findall(text))
        """What the others are called, and the handle by which each is ended."""
        record = _inside(text, "record")
        self.record: dict[str, Any] | None = None if record is None else json.loads(record)

    @property
    def data(self) -> dict[str, Any]:
        """The stored record without the library's own notes."""
        return {key: value for key, value in (self.record or {}).items() if key != "$"}


_OTHER_DEVICE = re.compile(r'class="other-device">(.*?) <.*?name="handle" value="(\w+)"', re.DOTALL)


def _inside(text: str, name: str) -> str | None:
    found = re.search(rf'id="{name}">(.*?)</', text, re.DOTALL)
    return None if found is None else html.unescape(found[1])


class Check:
    """The visitor's story, step by step."""

    def __init__(self, console: Console, folder: Path, store_url: str, store: UnstorageSessionStore) -> None:
        self._console = console
        self._server = Server(folder, store_url)
        self._store = store
        utf8 = console.encoding.lower().startswith("utf")
        self._tick, self._cross = ("✓", "✗") if utf8 else ("ok", "FAILED")

    def run(self) -> bool:
        """Play it; False if a step failed."""
        started = time.monotonic()
        self._console.print("Playing a visitor of the demo on", repr(self._store.driver), markup=False)
        try:
            self._play()
        except (Failed, httpx.HTTPError) as error:
            self._console.print(f"[red]{self._cross}[/]", end=" ")
            self._console.print(error, markup=False)
            self._console.print("\nThe server's output:", style="bold")
            self._console.print(self._server.output.rstrip() or "(none)", markup=False)
            return False
        self._console.print(f"All as it should be, in {time.monotonic() - started:.1f} s.")
        return True

    def _play(self) -> None:
        with self._server.running() as url, Visitor(url) as visitor:
            self._arrive(visitor)
            self._use(visitor)
            cookie = visitor.cookie
        if not self._store.capabilities.shared:
            self._console.print("[dim]-[/] Restart not tried: this store ends with its server")
            cookie = None
        with self._server.running() as url, Visitor(url, cookie) as visitor:
            if cookie is None:
                visitor.send("/login", name="Ada")
            else:
                with self.step("After a restart of the server the visitor is still logged in"):
                    page = visitor.look()
                    expect(page.name == "Ada", f"the page greets {page.name!r}")
                    expect(page.data == LEFT_BEHIND, f"the record is {page.data}")
            self._end_the_other_device(visitor)
            self._rotate(visitor)
            self._leave(visitor)

    def _arrive(self, visitor: Visitor) -> None:
        with self.step("A first look sets no cookie and stores nothing"):
            page = visitor.look()
            expect(visitor.received is None, "a cookie was set")
            expect(page.record is None, f"the page shows a record: {page.record}")
            self._expect_records(0)
        with self.step("The first thing to keep begins a session, with a safe cookie"):
            page = visitor.send("/visit")
            expect(page.visits == 1, f"the page counts {page.visits} visits")
            if visitor.received is None:
                raise Failed("no cookie was set")
            flags = {name: visitor.received[name] for name in SAFE}
            expect(flags == SAFE, f"the cookie has {flags}")
            self._expect_records(1)
        with self.step("Logging in gives a new id and keeps what was there"):
            before = visitor.cookie
            page = visitor.send("/login", name="Ada")
            expect(page.name == "Ada", f"the page greets {page.name!r}")
            expect(visitor.cookie != before, "the id is the old one")
            expect(page.visits == 1, f"the page counts {page.visits} visits")

    def _use(self, visitor: Visitor) -> None:
        with self.step("The visit counter counts"):
            counted = [visitor.send("/visit").visits for _ in range(2)]
            expect(counted == [2, 3], f"the page counts {counted}, not [2, 3]")
        swaps = self._store.capabilities.swap  # without, the last one wins
        when = "at the same time" if swaps else "one after the other (this store writes on no condition)"
        with self.step(f"Two changes of the cart {when} are both kept"):
            # Each request is held after it has read the session, so that neither can have seen the other's change.
            with Visitor(visitor.url, visitor.cookie) as tab, ThreadPoolExecutor(2 if swaps else 1) as pool:
                adding = [
                    pool.submit(who.send, "/cart/add", item=item, pause="400")
                    for who, item in ((visitor, "Apples"), (tab, "Bread"))
                ]
                for future in adding:
                    future.result()
            page = visitor.look()
            expect(page.data.get("cart") == {"Apples": 1, "Bread": 1}, f"the cart is {page.data.get('cart')}")
        with self.step("A form on another site's page is refused"):
            origins: list[dict[str, str]] = [
                {"Sec-Fetch-Site": "cross-site"},
                {"Sec-Fetch-Site": "same-site"},
                {"Origin": "http://evil.test"},
            ]
            answers = [visitor.send_from_elsewhere("/logout", **origin) for origin in origins]
            expect(answers == [403, 403, 403], f"the answers are {answers}")
            expect(visitor.look().name == "Ada", "the visitor was logged out")
        forged = f"{(visitor.cookie or '')[:-6]}forged"
        with self.step("A forged cookie opens nothing"), Visitor(visitor.url, forged) as stranger:
            expect(stranger.look().record is None, "the record is shown")

    def _end_the_other_device(self, visitor: Visitor) -> None:
        with Visitor(visitor.url, user_agent=PHONE) as phone:
            with self.step("A second device of the same user is listed on both"):
                page, other = phone.send("/login", name="Ada"), visitor.look()
                expect(page.this_device == "Safari on iPhone", f"the second one is called {page.this_device!r}")
                expect(list(page.other_devices) == ["Firefox on Linux"], f"it lists {list(page.other_devices)}")
                expect(
                    list(other.other_devices) == ["Safari on iPhone"], f"the first lists {list(other.other_devices)}"
                )
            with self.step("Ended from the first device, it is out at its next click"):
                left = visitor.send("/devices/end", handle=other.other_devices["Safari on iPhone"])
                expect(left.other_devices == {}, f"the first still lists {list(left.other_devices)}")
                self._expect_out(phone)
            with self.step("Ending all others does the same, and keeps the device that asks for it"):
                phone.send("/login", name="Ada")
                page = visitor.send("/devices/end-others")
                expect(page.name == "Ada", "the first device is out, too")
                self._expect_out(phone)

    def _expect_out(self, device: Visitor) -> None:
        page = device.look()
        expect(page.name == "stranger", f"the page greets {page.name!r}")
        expect(page.record is None, "the record is shown")
        expect("has ended" in (page.notice or ""), "the page does not say that the session has ended")

    def _rotate(self, visitor: Visitor) -> None:
        old = visitor.cookie
        with self.step("Rotation gives a new id and keeps the data"):
            before = visitor.look()
            page = visitor.send("/rotate")
            rotated = time.monotonic()
            expect(visitor.cookie not in (None, old), "the id is the old one")
            expect(page.data == before.data, f"the record is {page.data}")
        with Visitor(visitor.url, old) as late:
            with self.step("A late request with the old id sees nothing, and leaves the new cookie alone"):
                expect(late.look().record is None, "the old id still opens the session")
                expect(late.received is None, "the holder of the old id was given a cookie")
            with self.step("Then the old id is unknown, and the new one works"):
                time.sleep(max(0.0, rotated + GRACE + 0.1 - time.monotonic()))
                expect(late.look().record is None, f"the old id still works after {GRACE:g} seconds")
                expect(visitor.look().name == "Ada", "the new id does not work")

    def _leave(self, visitor: Visitor) -> None:
        old = visitor.cookie
        with self.step("Logging out deletes the record and the cookie"):
            page = visitor.send("/logout")
            expect(visitor.cookie is None, "the cookie was not deleted")
            expect("logged out" in (page.notice or ""), "the page does not say so")
            expect(page.record is None, f"the page shows a record: {page.record}")
            self._expect_records(0)
        with self.step("The old cookie does not work any more"):
            with Visitor(visitor.url, old) as thief:
                expect(thief.look().record is None, "the record is shown")
            self._expect_records(0)

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Print a step with a tick once it has passed; name it, if it fails, along with what was seen."""
        try:
            yield
        except (Failed, httpx.HTTPError) as error:
            raise Failed(f"{title}\n  {error}") from error
        self._console.print(f"[green]{self._tick}[/] {title}")

    def _expect_records(self, number: int) -> None:
        """Look into the store itself, where another process can."""
        if self._store.capabilities.shared:
            found = self._store.length()
            expect(found == number, f"the store holds {found} records, not {number}")
