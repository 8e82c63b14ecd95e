"""What every framework promises, one list for all: in this process and under a real server, on three stores.

The routes of the applications are the same in all of them, see `tests/harness/apps`.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.harness.relay import Relay, wanted
from tests.harness.servers import Valkey, wait_until
from tests.harness.visitors import COOKIE, ApiClient, Browser, slow_write, together
from tests.harness.web_servers import FRAMEWORKS, AppSite, SiteInProcess, WebServer

STORES = ("memory", "disk", "valkey")
SITES = [(name, way, store) for name in FRAMEWORKS for way in FRAMEWORKS[name].ways for store in STORES]
SITES_WITH_BOTH = [(name, way, "memory") for name in FRAMEWORKS for way in FRAMEWORKS[name].ways]
GRACE = 10  # seconds, the default of `rotation_grace`

cookie = pytest.mark.feature("cookie")
data = pytest.mark.feature("data")
overlap = pytest.mark.feature("overlapping requests")
rotation = pytest.mark.feature("rotation")
logout = pytest.mark.feature("logout")
failure = pytest.mark.feature("failing handler")
flash = pytest.mark.feature("flash")
streaming = pytest.mark.feature("streaming")
header = pytest.mark.feature("header")


@pytest.fixture(scope="module")
def start(valkey: Valkey, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    def start(which: tuple[str, str, str], **environment: str) -> AppSite:
        name, way, store = which
        folder = tmp_path_factory.mktemp(name)
        url = {"memory": "memory://", "disk": f"disk://{folder}/store", "valkey": valkey.url}[store]
        make = SiteInProcess if way == "in process" else WebServer
        return make(FRAMEWORKS[name], {"STORE": url, "ROTATE_EVERY": "1h", **environment}, folder)

    return start


@pytest.fixture(scope="module")
def servers(request: pytest.FixtureRequest, start: Callable[[Any], WebServer]) -> Iterator[Relay]:
    with Relay(start, [which for which in wanted(request, "site") if which[1] != "in process"]) as servers:
        yield servers


@pytest.fixture(scope="module", params=SITES, ids="-".join)
def site(request: pytest.FixtureRequest, servers: Relay, start: Callable[[Any], AppSite]) -> Iterator[AppSite]:
    which = request.param
    with start(which) if which[1] == "in process" else servers.server(which) as site:
        yield site


@pytest.fixture(scope="module")
def servers_with_both(request: pytest.FixtureRequest, start: Callable[..., Any]) -> Iterator[Relay]:
    keys = [which for which in wanted(request, "site_with_both") if which[1] != "in process"]
    with Relay(partial(start, TRANSPORT="both"), keys) as servers:
        yield servers


@pytest.fixture(scope="module", params=SITES_WITH_BOTH, ids="-".join)
def site_with_both(
    request: pytest.FixtureRequest, servers_with_both: Relay, start: Callable[..., AppSite]
) -> Iterator[AppSite]:
    """One with cookies and with the header `Authorization`."""
    which = request.param
    in_process = which[1] == "in process"
    with start(which, TRANSPORT="both") if in_process else servers_with_both.server(which) as site:
        yield site


@pytest.fixture
def client(site_with_both: AppSite) -> ApiClient:
    return ApiClient(site_with_both)


@pytest.fixture
def browser(site: AppSite) -> Browser:
    return Browser(site)


def attributes(header: str) -> dict[str, str]:
    """The attributes of a `Set-Cookie` header, by lower-case name."""
    parts = [part.strip().partition("=") for part in header.split(";")[1:]]
    return {name.lower(): value for name, _, value in parts}


# --- cookie ---


@cookie
def test_an_untouched_session_leaves_no_trace_in_the_response(browser: Browser) -> None:
    for _ in range(2):
        response = browser.get("/untouched")
        assert response.json() == {"ok": True}
        assert not {"set-cookie", "vary"} & response.headers.keys()
        browser.write("user", "ada")  # and again with a cookie


@cookie
def test_reading_gives_nobody_a_cookie(browser: Browser) -> None:
    assert browser.read("user") is None
    assert browser.cookie is None


@cookie
def test_the_first_write_sets_one_safe_cookie(browser: Browser, site: AppSite) -> None:
    [header] = browser.write("user", "ada").headers.get_list("set-cookie")
    assert header.startswith(f"{COOKIE}=")
    found = attributes(header)
    lifetime = found.pop("max-age", None)
    assert found.keys() == {"httponly", "samesite", "path"}
    assert (found["samesite"], found["path"]) == ("Lax", "/")
    # In Flask and Quart it ends with the browser's session until `permanent` is set.
    assert lifetime is None if site.framework.label in ("Flask", "Quart") else int(lifetime or 0) > 3600


@cookie
def test_no_cache_hands_the_cookie_to_others(browser: Browser) -> None:
    response = browser.write("user", "ada")
    assert 'no-cache="Set-Cookie"' in response.headers["cache-control"]
    assert "cookie" in response.headers["vary"].lower()


@cookie
def test_no_cache_mixes_up_the_visitors(browser: Browser) -> None:
    for _ in range(2):
        assert "cookie" in browser.get("/read", key="user").headers["vary"].lower()
        browser.write("user", "ada")


@cookie
def test_the_cookie_is_not_sent_again_and_again(browser: Browser) -> None:
    browser.write("user", "ada")
    assert "set-cookie" not in browser.get("/read", key="user").headers
    assert "set-cookie" not in browser.write("theme", "dark").headers


@cookie
def test_a_made_up_cookie_is_ignored_and_never_adopted(browser: Browser, site: AppSite) -> None:
    browser.write("user", "ada")
    assert browser.cookie is not None
    sid, _, signature = browser.cookie.rpartition(".")
    for forged in (sid, f"{sid}.", f"{sid[1:]}{sid[0]}.{signature}", "a" * 43 + "." + signature):
        eve = Browser(site, forged)
        assert eve.read("user") is None
        eve.write("user", "eve")
        assert eve.cookie not in (forged, None)
    assert browser.read("user") == "ada"


@cookie
@pytest.mark.parametrize(
    "value", [b"", b"=", b";;;=;", b"\xff\xfe\x80", b"\xc3\xa9.x", b'"', b"a" * 4000, b"\xe2\x82.\xac"]
)
def test_garbage_in_the_cookie_is_no_error(browser: Browser, value: bytes) -> None:
    for header in (value, COOKIE.encode() + b"=" + value):
        response = browser.send("/read?key=user", header)
        assert (response.status_code, response.json()) == (200, {"value": None})


@cookie
def test_a_forged_cookie_does_not_hide_the_good_one(browser: Browser) -> None:
    browser.write("user", "ada")
    both = f"{COOKIE}=forged.cookie; theme=dark; {COOKIE}={browser.cookie}".encode()
    assert browser.send("/read?key=user", both).json() == {"value": "ada"}


# --- data ---


@data
def test_what_was_written_is_read_back(browser: Browser) -> None:
    browser.write("user", "ada")
    browser.write("name", "Zoë \N{SNOWMAN} 名")
    assert browser.read("user") == "ada"
    assert browser.read("name") == "Zoë \N{SNOWMAN} 名"
    assert browser.read("other") is None


@data
def test_two_visitors_do_not_see_each_other(site: AppSite) -> None:
    ada, eve = Browser(site), Browser(site)
    ada.write("user", "ada")
    eve.write("user", "eve")
    assert (ada.read("user"), eve.read("user")) == ("ada", "eve")
    assert ada.cookie != eve.cookie


@data
def test_a_change_inside_a_value_is_kept(browser: Browser) -> None:
    assert browser.do("/cart", item="apple") == {"cart": ["apple"]}
    assert browser.do("/cart", item="pear") == {"cart": ["apple", "pear"]}
    assert browser.read("cart") == ["apple", "pear"]


@data
def test_a_counter_counts(browser: Browser) -> None:
    assert [browser.do("/count")["count"] for _ in range(3)] == [1, 2, 3]


# --- overlapping requests ---


@overlap
def test_ten_requests_at_once_count_ten(browser: Browser) -> None:
    browser.write("user", "ada")
    together(*[lambda: browser.do("/count")] * 10)
    assert browser.read("count") == 10
    assert browser.read("user") == "ada"


@overlap
def test_two_items_put_into_the_cart_at_once_are_both_in_it(browser: Browser) -> None:
    browser.do("/cart", item="apple")
    together(lambda: browser.do("/cart", item="pear"), lambda: browser.do("/cart", item="plum"))
    assert sorted(browser.read("cart")) == ["apple", "pear", "plum"]


@overlap
def test_a_slow_request_does_not_undo_what_a_fast_one_wrote(browser: Browser, tmp_path: Path) -> None:
    browser.write("user", "ada")
    with slow_write(browser, tmp_path, "slow", "tortoise") as response:
        browser.write("fast", "hare")
    assert response.result().status_code == 200
    assert (browser.read("slow"), browser.read("fast"), browser.read("user")) == ("tortoise", "hare", "ada")


@overlap
def test_a_slow_request_neither_revives_a_session_nor_fails(browser: Browser, site: AppSite, tmp_path: Path) -> None:
    browser.write("user", "ada")
    before = browser.cookie
    with slow_write(Browser(site, before), tmp_path, "late", "value") as response:
        browser.do("/logout")
    assert response.result().status_code == 200
    for held in (before, browser.cookie):
        visitor = Browser(site, held)
        assert (visitor.read("user"), visitor.read("late")) == (None, None)


@overlap
def test_a_request_that_overlaps_a_rotation_keeps_its_write(browser: Browser, site: AppSite, tmp_path: Path) -> None:
    browser.write("user", "ada")
    with slow_write(Browser(site, browser.cookie), tmp_path, "late", "value") as response:
        browser.do("/rotate")
    assert response.result().status_code == 200
    assert "set-cookie" not in response.result().headers  # whoever holds the old id must not learn the new one
    assert (browser.read("user"), browser.read("late")) == ("ada", "value")


# --- rotation ---


@rotation
def test_a_rotation_gives_a_new_cookie_and_keeps_the_data(browser: Browser) -> None:
    browser.write("user", "ada")
    before = browser.cookie
    response = browser.post("/rotate")
    assert len(response.headers.get_list("set-cookie")) == 1
    assert browser.cookie not in (before, None)
    assert browser.read("user") == "ada"


@rotation
def test_an_old_cookie_sees_nothing_and_does_not_replace_the_new_one(browser: Browser, site: AppSite) -> None:
    browser.write("user", "ada")
    late = Browser(site, browser.cookie)
    browser.do("/rotate")
    assert late.read("user") is None
    response = late.write("page", "1")
    assert "set-cookie" not in response.headers
    site.advance(GRACE + 1)
    assert late.read("user") is None
    assert browser.read("user") == "ada"


@rotation
def test_time_gives_a_new_cookie_and_a_response_that_was_lost_logs_nobody_out(browser: Browser, site: AppSite) -> None:
    browser.write("user", "ada")
    before = browser.cookie
    site.advance(3601)
    assert browser.read("user") == "ada"
    assert browser.cookie not in (before, None)
    other = Browser(site, before)  # as if the response had been lost
    site.advance(GRACE + 1)
    assert other.read("user") == "ada"
    assert other.cookie == browser.cookie
    assert browser.read("user") == "ada"  # now the new id was seen
    site.advance(GRACE + 1)
    assert Browser(site, before).read("user") is None
    assert browser.read("user") == "ada"


@rotation
def test_a_login_gives_a_new_cookie_by_itself(browser: Browser, site: AppSite) -> None:
    browser.write("theme", "dark")
    planted = Browser(site, browser.cookie)
    assert len(browser.write("user", "ada").headers.get_list("set-cookie")) == 1
    assert (browser.read("theme"), browser.read("user")) == ("dark", "ada")
    assert (planted.read("theme"), planted.read("user")) == (None, None)


@rotation
def test_a_rotation_of_nothing_is_no_error(browser: Browser) -> None:
    browser.do("/rotate")
    assert browser.read("user") is None


# --- logout ---


@logout
def test_a_logout_deletes_the_cookie_as_it_was_set(browser: Browser) -> None:
    [created] = browser.write("user", "ada").headers.get_list("set-cookie")
    [deleted] = browser.post("/logout").headers.get_list("set-cookie")
    assert re.match(rf'{COOKIE}=("")?;', deleted)
    assert attributes(deleted)["max-age"] == "0"
    # With other attributes a browser would delete something else.
    assert attributes(deleted) | {"max-age": "", "expires": ""} == attributes(created) | {"max-age": "", "expires": ""}
    assert browser.cookie is None


@logout
def test_after_a_logout_the_old_cookie_is_dead(browser: Browser, site: AppSite) -> None:
    browser.write("user", "ada")
    thief = Browser(site, browser.cookie)
    assert thief.read("user") == "ada"
    browser.do("/logout")
    assert browser.read("user") is None
    assert thief.read("user") is None


@logout
def test_a_logout_right_after_a_rotation_leaves_no_way_in(browser: Browser, site: AppSite) -> None:
    browser.write("user", "ada")
    old = Browser(site, browser.cookie)
    browser.do("/rotate")
    new = Browser(site, browser.cookie)
    browser.do("/logout")
    assert (old.read("user"), new.read("user")) == (None, None)


@logout
def test_a_logout_of_nobody_is_no_error(browser: Browser) -> None:
    browser.do("/logout")
    browser.write("user", "ada")
    assert browser.read("user") == "ada"


@logout
def test_clear_is_a_logout(browser: Browser, site: AppSite) -> None:
    browser.write("user", "ada")
    thief = Browser(site, browser.cookie)
    response = browser.post("/clear")
    assert response.status_code == 200
    assert (browser.read("user"), thief.read("user")) == (None, None)
    if site.framework.label != "Django":  # there it empties the session, and `flush` is the logout
        assert browser.cookie is None


# --- a handler that fails ---


@failure
def test_a_failing_handler_starts_no_session(browser: Browser) -> None:
    response = browser.provoke("POST", "/fail", key="user", value="eve")
    assert response.status_code == 500
    assert "set-cookie" not in response.headers


@failure
def test_a_failing_handler_changes_nothing(browser: Browser) -> None:
    browser.write("user", "ada")
    assert browser.provoke("POST", "/fail", key="user", value="eve").status_code == 500
    assert browser.read("user") == "ada"


@failure
def test_a_failure_after_a_rotation_logs_nobody_out(browser: Browser, site: AppSite) -> None:
    browser.write("user", "ada")
    browser.do("/rotate")
    assert browser.provoke("POST", "/fail", key="user", value="eve").status_code == 500
    site.advance(GRACE + 1)
    assert browser.read("user") == "ada"


@failure
def test_an_answer_of_5xx_changes_nothing(browser: Browser, site: AppSite) -> None:
    assert "set-cookie" not in Browser(site).provoke("POST", "/sorry", key="user", value="eve").headers
    browser.write("user", "ada")
    assert browser.provoke("POST", "/sorry", key="user", value="eve").status_code == 503
    assert browser.read("user") == "ada"


@pytest.mark.parametrize("name", [name for name in FRAMEWORKS if "in process" in FRAMEWORKS[name].ways])
def test_no_cache_keeps_the_answer_of_an_outage(name: str, start: Callable[..., AppSite]) -> None:
    with start((name, "in process", "memory"), STORE="redis://127.0.0.1:1?timeout=1s") as site:
        response = Browser(site).provoke("POST", "/write", key="user", value="ada")
    assert response.status_code == 503
    assert response.headers.get_list("cache-control") == ["no-store"]
    assert "set-cookie" not in response.headers


# --- flash ---


@flash
def test_a_flashed_message_is_shown_once(browser: Browser) -> None:
    browser.do("/flash", message="saved")
    assert browser.get("/flashed").json() == {"messages": ["saved"]}
    assert browser.get("/flashed").json() == {"messages": []}


@flash
def test_flashed_messages_keep_their_order_and_are_private(browser: Browser, site: AppSite) -> None:
    for message in ("one", "two", "three"):
        browser.do("/flash", message=message)
    assert Browser(site).get("/flashed").json() == {"messages": []}
    assert browser.get("/flashed").json() == {"messages": ["one", "two", "three"]}


@flash
def test_messages_that_are_flashed_at_once_are_all_shown(browser: Browser, site: AppSite) -> None:
    browser.write("theme", "dark")
    messages = [f"message {number}" for number in range(5)]
    together(*[partial(browser.do, "/flash", message=message) for message in messages])
    shown = sorted(browser.get("/flashed").json()["messages"])
    if site.framework.label == "Django":  # its own storage writes all of them as one text: of two at once, one counts
        assert set() < {*shown} <= {*messages}
    else:
        assert shown == messages
    assert browser.get("/flashed").json() == {"messages": []}


# --- streaming ---


@streaming
def test_what_is_written_while_a_response_streams_is_stored(browser: Browser) -> None:
    browser.write("user", "ada")
    response = browser.get("/stream", key="late", value="value")
    assert (response.status_code, response.text) == (200, "onetwo")
    # The last byte may arrive before the write.
    wait_until(lambda: browser.read("late") == "value", "the late write")
    assert browser.read("user") == "ada"


@streaming
def test_a_late_write_that_cannot_be_kept_is_not_lost_in_silence(browser: Browser, site: AppSite) -> None:
    # The client has no cookie, and the response has begun: it can be given none.
    before = len(site.log())
    with contextlib.suppress(httpx.TransportError):  # some servers break the connection
        browser.provoke("GET", "/stream", key="late", value="value")
    assert browser.cookie is None
    wait_until(lambda: "SessionError" in site.log()[before:], "the error in the log")


# --- the header in place of the cookie ---


@header
def test_a_client_with_the_header_never_gets_a_cookie(client: ApiClient) -> None:
    assert client.read("user") is None
    assert client.token == ""
    client.do("/write", key="user", value="ada")
    first = client.token
    assert client.read("user") == "ada"
    client.do("/rotate")
    assert client.token not in ("", first)
    assert client.read("user") == "ada"
    client.do("/logout")
    assert client.token == ""
    assert client.read("user") is None
    assert client.cookies == []


@header
def test_no_cache_keeps_a_token_and_a_token_is_told_once(client: ApiClient) -> None:
    response = client.do("/write", key="user", value="ada")
    assert "no-store" in response.headers["cache-control"]
    assert "set-cookie" not in response.headers["cache-control"].lower()
    response = client.do("/write", key="theme", value="dark")
    assert "session" not in response.headers
    vary = response.headers["vary"].lower()
    assert "cookie" in vary
    assert "authorization" in vary


@header
def test_an_old_token_sees_nothing_and_does_not_replace_the_new_one(client: ApiClient, site_with_both: AppSite) -> None:
    client.do("/write", key="theme", value="dark")
    late = ApiClient(site_with_both, client.token)
    client.do("/write", key="user", value="ada")  # a login
    assert late.read("theme") is None
    old = late.token
    late.do("/write", key="page", value="1")
    assert late.token == old
    site_with_both.advance(GRACE + 1)
    assert late.read("user") is None
    assert (client.read("user"), client.read("theme"), client.read("page")) == ("ada", "dark", None)


@header
def test_after_a_logout_the_old_token_is_dead(client: ApiClient, site_with_both: AppSite) -> None:
    client.do("/write", key="user", value="ada")
    thief = ApiClient(site_with_both, client.token)
    client.do("/logout")
    assert thief.read("user") is None


@header
def test_a_cookie_beside_the_header_is_left_alone(client: ApiClient, site_with_both: AppSite) -> None:
    browser = Browser(site_with_both)
    browser.write("user", "ada")
    held = {"cookie": f"{COOKIE}={browser.cookie}"}
    # A script of the page cannot read the cookie, and is not to be told what is in it.
    for token in ("", "forged.signature"):
        script = ApiClient(site_with_both, token)
        assert script.request("GET", "/read", held, key="user").json() == {"value": None}
        script.request("POST", "/rotate", held)
        assert script.token == token
    assert browser.read("user") == "ada"
    client.do("/write", key="user", value="eve")
    assert client.request("GET", "/read", held, key="user").json() == {"value": "eve"}


@header
@pytest.mark.parametrize("scheme", ["Basic YWRhOnNlY3JldA==", "Bearer abc.def.ghi", "Sessions x", ""])
def test_other_authentication_leaves_the_cookie_alone(client: ApiClient, site_with_both: AppSite, scheme: str) -> None:
    browser = Browser(site_with_both)
    browser.write("user", "ada")
    headers = {"authorization": scheme, "cookie": f"{COOKIE}={browser.cookie}"}
    assert client.request("GET", "/read", headers, key="user").json() == {"value": "ada"}


@header
@pytest.mark.parametrize("value", ["Session {0}, Session {0}", "Session {0} {0}", "Session {0},{0}"])
def test_what_is_not_one_token_opens_nothing_and_ends_nothing(client: ApiClient, value: str) -> None:
    client.do("/write", key="user", value="ada")
    sent = {"authorization": value.format(client.token)}
    response = client.request("GET", "/read", sent, key="user")
    assert (response.status_code, response.json()) == (200, {"value": None})
    assert "session" not in response.headers
    assert client.read("user") == "ada"
