"""The comparison with peers is of applications that do their work: one that does nothing, or half, is found out."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest

from session_kit.benchmarks.maintainers import peers as module
from session_kit.benchmarks.maintainers.apps import FRAMEWORKS, NONE, PEERS, Backends, Peer, named
from session_kit.benchmarks.maintainers.peers import AT_ONCE, DATABASE, measure_apart, tables
from session_kit.benchmarks.maintainers.results import make_parser, put_into, report
from session_kit.benchmarks.maintainers.targets import IN_MEMORY, PARTS, Result
from session_kit.benchmarks.maintainers.visits import KINDS, WHOLE, Guest, TimedSite, Unfaithful, open_site, validate
from session_kit.benchmarks.measure import Noise
from tests.harness.postgres import Postgres
from tests.harness.sites import InProcess
from tests.harness.visitors import Browser

NO_SERVERS = "redis://127.0.0.1:1/0", "postgresql://127.0.0.1:1/none"
QUICK = [peer for peer in PEERS if peer.store in ("memory", "cookie")]


# They are not ours to warn of.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("peer", [peer for peer in QUICK if peer.framework != "Django"], ids=lambda peer: peer.name)
def test_every_application_keeps_a_session_as_it_should(peer: Peer, tmp_path: Path) -> None:
    with open_site(peer, Backends(tmp_path, *NO_SERVERS)):  # which validates it
        pass


# Its settings belong to a process, as they do in the comparison.
@pytest.mark.parametrize("peer", [peer for peer in QUICK if peer.framework == "Django"], ids=lambda peer: peer.name)
def test_every_application_of_django_is_measured_beside_its_bare_one(peer: Peer, tmp_path: Path) -> None:
    backends = Backends(tmp_path, *NO_SERVERS)
    found = measure_apart([named(f"Django:{NONE}"), peer], backends, visits=1, rounds=1, noise=Noise())
    assert list(found) == [named(f"Django:{NONE}"), peer]
    assert all(costs.keys() == {*KINDS, WHOLE} for costs in found.values())
    assert all(cost > 0 for costs in found.values() for cost in costs.values())  # noise is no gain


@pytest.mark.slow  # those without a database are validated in the same way
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("peer", [peer for peer in PEERS if peer.store == DATABASE], ids=lambda peer: peer.name)
def test_every_application_with_a_database_keeps_sessions_and_bears_many_visitors(
    peer: Peer, postgres: Postgres, tmp_path: Path
) -> None:
    backends, bare = Backends(tmp_path, NO_SERVERS[0], postgres.url), named(f"{peer.framework}:{NONE}")
    costs = measure_apart([bare, peer], backends, visits=1, rounds=1, noise=Noise())[peer]  # which validates it
    assert costs[WHOLE] > 0
    assert (AT_ONCE in costs) == (peer.interface == "wsgi")


@pytest.mark.parametrize("framework", ["Starlette", "Litestar", "Flask", "WSGI", "aiohttp"])
def test_a_bare_application_is_found_out(framework: str, tmp_path: Path) -> None:
    bare = named(f"{framework}:{NONE}")
    with (
        open_site(bare, Backends(tmp_path, *NO_SERVERS)) as site,
        pytest.raises(Unfaithful, match=f"{framework}:none: user is None where 'ada' is right"),
    ):
        validate(site, bare)


def app_with(flaw: str = "") -> InProcess:
    """A site that keeps sessions in a dict, with one flaw."""
    records: dict[str, dict[str, Any]] = {}

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        cookies = dict(pair.split("=") for pair in environ["HTTP_COOKIE"].split("; "))
        name = "everybody" if flaw == "one session for all" else cookies.get("id", str(len(records)))
        session = records.setdefault(name, {})
        query = dict(parse_qsl(environ["QUERY_STRING"]))
        match environ["PATH_INFO"]:
            case "/write" if flaw != "writes are lost" or query["key"] not in session:
                session[query["key"]] = query["value"]
            case "/clear" if flaw != "logout does nothing":
                session.clear()
        start_response("200 OK", [("Set-Cookie", f"id={name}")])
        return [json.dumps({"value": session.get(query.get("key"))}).encode()]

    return InProcess(app)


PLAIN = Peer("WSGI", "plain", "memory", "wsgi", lambda *_: None)


def test_a_dict_for_each_visitor_is_enough() -> None:
    validate(app_with(), PLAIN)


@pytest.mark.parametrize("flaw", ["one session for all", "writes are lost", "logout does nothing"])
def test_an_application_that_does_half_its_work_is_found_out(flaw: str) -> None:
    with pytest.raises(Unfaithful):
        validate(app_with(flaw), PLAIN)


def browser_told(*headers: str) -> Browser:
    """A visitor whose first requests were answered with these `Set-Cookie` headers, one each."""

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Set-Cookie", left.pop(0))])
        return []

    left, browser = list(headers), Guest(InProcess(app), PLAIN)
    for _ in headers:
        browser.get("/untouched")
    return browser


def cookies_of(browser: Browser) -> set[str]:
    return set(browser.client.build_request("GET", "/").headers["cookie"].split("; "))


@pytest.mark.parametrize(
    "deletion",
    [
        "id=; Max-Age=0; Path=/",
        "id=x; expires=Thu, 01 Jan 1970 00:00:00 GMT; Path=/",
        "id=x; expires=Thu, 01-Jan-1970 00:00:00 GMT; Path=/",
        "id=x; Max-Age=-1; expires=Fri, 01 Jan 2100 00:00:00 GMT; Path=/",
    ],
)
def test_a_deleted_cookie_is_sent_no_more(deletion: str) -> None:
    first = "id=1; Max-Age=60; HttpOnly; Path=/"
    assert cookies_of(browser_told(first)) == {"theme=dark", "id=1"}
    assert cookies_of(browser_told(first, deletion)) == {"theme=dark"}


def test_a_cookie_without_an_end_is_kept() -> None:
    first = 'id="a=b"; Path=/; expires='
    assert cookies_of(browser_told(first)) == {"theme=dark", 'id="a=b"'}
    second = "id=2; Max-Age=60; expires=Thu, 01 Jan 1970 00:00:00 GMT; Path=/"
    assert cookies_of(browser_told(first, second)) == {"theme=dark", "id=2"}


@pytest.mark.parametrize("interface", ["asgi", "wsgi", "aiohttp"])
def test_the_time_of_a_request_is_that_of_its_application_alone(interface: str) -> None:
    from aiohttp import web

    async def asgi(scope: Any, receive: Any, send: Any) -> None:
        time.sleep(0.02)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    def wsgi(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b""
        time.sleep(0.02)

    async def view(request: web.Request) -> web.Response:
        time.sleep(0.02)
        return web.Response()

    own = web.Application()
    own.router.add_get("/", view)
    with TimedSite({"asgi": asgi, "wsgi": wsgi, "aiohttp": own}[interface], interface) as site:
        begin = time.perf_counter()
        Guest(site, PLAIN).get("/")
        assert 0.02 <= site.seconds < time.perf_counter() - begin


def test_the_report_takes_the_place_of_the_one_before_and_of_nothing_else() -> None:
    text = "a\n<!-- peers -->\nold\n<!-- end -->\n<!-- other -->\nkept\n<!-- end -->\n"
    made = put_into(text, "peers", "new \\1\n")
    assert made == "a\n<!-- peers -->\nnew \\1\n<!-- end -->\n<!-- other -->\nkept\n<!-- end -->\n"
    assert put_into(made, "peers", "new \\1\n") == made
    with pytest.raises(ValueError, match="one place"):
        put_into("a README without a place", "peers", "new")


def test_the_table_has_a_row_for_each_application() -> None:
    costs = dict.fromkeys([*KINDS, WHOLE], 0.00001)
    *_, head, rule, row = tables({named("WSGI:session_kit:memory"): costs}).splitlines()
    assert head.count("|") == rule.count("|") == row.count("|")
    assert row.startswith("| WSGI | **session_kit** | memory | 10.0 | 10.0 | 10.0 |")


def test_a_bare_application_has_no_store_and_noise_is_said_before_the_figures() -> None:
    table = tables({named("WSGI:none"): dict.fromkeys([*KINDS, WHOLE], 0.00001)})
    assert "| WSGI | none | - | 10.0 |" in table

    def reported(spread: float) -> str:
        noise = Noise()
        noise.hear(spread)
        return report(table, ["msgspec"], noise)

    assert "busy" not in reported(0.5)
    loud = reported(0.64)
    assert loud.startswith("**The machine was busy: a fixed loop took up to 64% longer than at its best.")
    assert loud.index("busy") < loud.index("| WSGI")


def test_fifty_visitors_at_once_are_said_to_be_of_wsgi_alone() -> None:
    alone = dict.fromkeys([*KINDS, WHOLE], 0.00001)
    assert "at once" not in tables({named("Starlette:session_kit:PostgreSQL"): alone})
    made = tables({named("Flask:session_kit:PostgreSQL"): {**alone, AT_ONCE: 0.00002}})
    assert "each in a thread (WSGI alone)" in made
    assert made.endswith("| Flask | session_kit | 20.0 |\n")


# --- the targets ---


@pytest.mark.slow
@pytest.mark.parametrize("part", PARTS)
def test_each_part_of_the_targets_is_measured(
    part: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def quick(peers: Any, backends: Backends, visits: int, rounds: int, noise: Noise, size: int = 200) -> Any:
        return measure_apart(peers, backends, 1, 1, noise, size)

    monkeypatch.setattr("session_kit.benchmarks.maintainers.targets.measure_apart", quick)
    redis = request.getfixturevalue("valkey").url if part == "valkey" else NO_SERVERS[0]
    results = list(PARTS[part](Backends(tmp_path, redis, NO_SERVERS[1]), Noise()))
    assert results
    assert all(0 < result.ours < 1 and 0 < result.theirs < 1 for result in results)
    if part == "frameworks":
        assert len(results) == sum(len(limits) for *_, limits in IN_MEMORY)


def test_a_missed_target_says_so() -> None:
    assert Result("disk: get", "diskcache", 2e-6, 1e-6, 1.2).cells[-3:] == ["2.00", "1.20", "missed"]
    assert Result("disk: get", "diskcache", 1e-6, 1e-6, 1.2).cells[-1] == ""


def test_a_profiler_can_be_put_in_front(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    where = ["--redis", NO_SERVERS[0], "--postgres", NO_SERVERS[1], "--visits", "1", "--rounds", "1"]
    monkeypatch.setattr(sys, "argv", ["peers", *where, "--measure", "Starlette:session_kit:memory"])
    module.main()
    assert json.loads(capsys.readouterr().out)["Starlette:session_kit:memory"].keys() == {*KINDS, WHOLE}


@pytest.mark.parametrize(("name", "parts"), [("peers", FRAMEWORKS), ("targets", PARTS)])
def test_an_unknown_part_is_refused_with_the_names_of_those_there_are(
    name: str, parts: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        make_parser(name, parts).parse_args(["nobody"])
    assert f"there is no part 'nobody'; the parts are {', '.join(parts)}" in capsys.readouterr().err
