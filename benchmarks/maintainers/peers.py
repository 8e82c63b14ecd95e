"""The same ten requests through session_kit and through its peers, in the same run. From a clone:

    python -m session_kit.benchmarks.maintainers.peers [FRAMEWORK ...] [--http] [--write]

One visit is a first page, a login, four reads, two writes, a page that does not touch the session, and a logout. The
applications are called in this process, because a network would drown the differences; those with sessions in a
database also by fifty visitors at once. `--http` adds a few under a real server. First each has to show that it keeps a
session as it should, so that nobody wins by doing nothing.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from session_kit.benchmarks.maintainers.apps import NONE, PEERS, Peer, Place, named
from session_kit.benchmarks.maintainers.calls import SITES, Browser, Call, Site
from session_kit.benchmarks.maintainers.results import ROOT, compare, markdown, write
from session_kit.benchmarks.measure import Noise, conditions, microseconds, warning

PACKAGES = (
    *("starlette", "starsessions", "litestar", "flask", "flask-session", "cachelib", "django", "beaker", "aiohttp"),
    *("aiohttp-session", "redis", "psycopg", "flask-sqlalchemy", "granian"),
)

KINDS = ["first page", "login", "read", "write", "untouched", "logout"]
VISIT = ["first page", "login", *["read"] * 4, *["write"] * 2, "untouched", "logout"]
WHOLE = "ten requests"
SIZE = 200  # bytes of a session
TOGETHER = 50  # visitors at once
DATABASE = "PostgreSQL"
_numbers = itertools.count()

Costs = dict[str, float]
"""Seconds by kind of request, and of the whole visit."""


class Row(NamedTuple):
    """What the requests take of which application; with sessions, over the same application without."""

    peer: Peer
    costs: Costs


def call_of(kind: str, peer: Peer, size: int = SIZE) -> Call:
    """A request of a visit. A write is of another value each time."""
    match kind:
        case "login":
            return Call("/write", {"key": "user", "value": "ada" + "x" * (size - 20)})
        case "read":
            return Call("/read", {"key": "user"})
        case "write":
            return Call("/write", {"key": "visits", "value": str(next(_numbers))})
        case "logout":
            return Call(peer.logout)
    return Call("/untouched")


# --- that it does what it should ---


class Unfaithful(AssertionError):
    """An application does not keep a session as it should."""


def validate(site: Site, peer: Peer) -> None:
    """Visit a site as two visitors who must not be taken for each other. `Unfaithful` says what went wrong."""
    ada, bob = Browser(site), Browser(site)

    def write(browser: Browser, **values: str) -> None:
        for key, value in values.items():
            browser.ask(Call("/write", {"key": key, "value": value}))

    def expect(browser: Browser, key: str, value: str | None) -> None:
        browser.ask(Call("/untouched"))
        found = browser.ask(Call("/read", {"key": key})).content["value"]
        if found != value:
            raise Unfaithful(f"{peer.name}: {key} is {found!r} where {value!r} is right")

    expect(ada, "user", None)
    write(ada, user="ada", visits="1")
    expect(ada, "user", "ada")
    expect(bob, "user", None)
    write(bob, user="bob", visits="1")
    write(ada, visits="2")
    expect(ada, "visits", "2")
    expect(bob, "visits", "1")
    ada.ask(Call(peer.logout))
    expect(ada, "user", None)
    expect(bob, "user", "bob")
    write(ada, user="eve")
    expect(ada, "user", "eve")
    expect(ada, "visits", None)


# --- what it takes ---


class Visits:
    """Plays visits to a site, and notes for each round what each kind of request took on average."""

    def __init__(self, site: Site, peer: Peer, size: int) -> None:
        self._site, self._peer, self._size = site, peer, size
        self._rounds: list[Costs] = []

    def __call__(self, number: int) -> None:
        spent = dict.fromkeys(KINDS, 0.0)
        for _ in range(number):
            browser = Browser(self._site)
            for kind in VISIT:
                spent[kind] += browser.ask(call_of(kind, self._peer, self._size)).seconds
        costs = {kind: seconds / (number * VISIT.count(kind)) for kind, seconds in spent.items()}
        self._rounds.append({**costs, WHOLE: sum(spent.values()) / number})

    def best(self) -> Costs:
        """The best round of each kind. The first round was to warm up."""
        return {kind: min(costs[kind] for costs in self._rounds[1:]) for kind in [*KINDS, WHOLE]}


class VisitsTogether:
    """Plays visits to a site by fifty visitors at once, in threads that stay, as a server's do."""

    def __init__(self, site: Site, peer: Peer, pool: ThreadPoolExecutor) -> None:
        self._site, self._peer, self._pool = site, peer, pool

    def __call__(self, number: int) -> None:
        list(self._pool.map(self._visit, range(number)))

    def _visit(self, _number: int) -> None:
        browser = Browser(self._site)
        for kind in VISIT:
            browser.ask(call_of(kind, self._peer))


@contextmanager
def open_site(peer: Peer, place: Place) -> Iterator[Site]:
    """The application of a peer, which has shown that it keeps sessions, if it has any."""
    with closing(SITES[peer.interface](peer.app(place))) as site:
        if peer.sessions != NONE:
            validate(site, peer)
        yield site


def measure(peers: Sequence[Peer], place: Place, visits: int, rounds: int, noise: Noise, size: int) -> dict[str, Costs]:
    """Validate and measure applications by turns, in this process. Returns their costs by name."""
    with ExitStack() as stack:
        players = {peer.name: Visits(stack.enter_context(open_site(peer, place)), peer, size) for peer in peers}
        compare(players, visits, rounds, noise)
        return {name: player.best() for name, player in players.items()}


def measure_together(
    peers: Sequence[Peer], place: Place, visits: int, rounds: int, noise: Noise, size: int
) -> dict[str, Costs]:
    """The same by fifty visitors at once. What a visit takes is the share of one in the whole."""
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(TOGETHER))
        players = {peer.name: VisitsTogether(stack.enter_context(open_site(peer, place)), peer, pool) for peer in peers}
        best = compare(players, visits, rounds, noise)
        return {name: {WHOLE: seconds} for name, seconds in best.items()}


def measure_apart(
    peers: Sequence[Peer], place: Place, visits: int, rounds: int, *, size: int = SIZE, together: bool = False
) -> tuple[list[Row], float]:
    """Measure a bare application and others of its framework in a new process. Returns rows, and the noise."""
    words = ["--redis", place.redis, "--postgres", place.postgres, "--visits", visits, "--rounds", rounds]
    words += ["--size", size, *(["--together"] if together else []), "--measure", *(peer.name for peer in peers)]
    # Warnings cost time, and are no part of anybody's work.
    command = [sys.executable, "-W", "ignore", "-m", "session_kit.benchmarks.maintainers.peers"]
    result = subprocess.run([*command, *map(str, words)], cwd=ROOT, capture_output=True, text=True, check=False)
    if result.returncode:
        raise SystemExit(f"{peers[-1].name} could not be measured:\n{result.stderr[-2000:]}")
    found = json.loads(result.stdout)
    costs, bare = found["costs"], found["costs"][peers[0].name]
    rows = [Row(peers[0], bare)]
    rows += [Row(peer, {kind: costs[peer.name][kind] - bare[kind] for kind in bare}) for peer in peers[1:]]
    return rows, found["noise"]


def groups(frameworks: Iterable[str]) -> Iterator[list[Peer]]:
    """The applications that share a process, the bare one first. Django's settings allow one beside the bare one."""
    for framework in frameworks:
        bare, *others = [peer for peer in PEERS if peer.framework == framework]
        yield from [[bare, peer] for peer in others] if framework == "Django" else [[bare, *others]]


def compare_all(frameworks: Iterable[str], place: Place, visits: int, rounds: int) -> tuple[list[Row], float]:
    """Measure all applications of some frameworks. Returns rows in the order of `PEERS`, and the largest noise."""
    found: dict[Peer, Costs] = {}
    noises = [0.0]
    for group in groups(frameworks):
        print(f"{group[-1].name} ...", file=sys.stderr)
        rows, noise = measure_apart(group, place, visits, rounds)
        noises.append(noise)
        for peer, costs in rows:
            before = found.get(peer, costs)
            found[peer] = {kind: min(before[kind], costs[kind]) for kind in costs}
    return [Row(peer, found[peer]) for peer in PEERS if peer in found], max(noises)


def compare_together(frameworks: Iterable[str], place: Place, rounds: int) -> list[Row]:
    """Measure those with sessions in a database by fifty visitors at once. Returns rows without the bare ones."""
    found = []
    for bare, *others in groups(frameworks):
        for peer in others:
            if peer.interface == "wsgi" and peer.store == DATABASE:
                print(f"{peer.name}, {TOGETHER} at once ...", file=sys.stderr)
                found.append(measure_apart([bare, peer], place, 2 * TOGETHER, max(2, rounds // 5), together=True)[0][1])
    return found


# --- what is said of it ---


def cells(peer: Peer) -> list[str]:
    """What stands in front of the figures of an application."""
    return [peer.framework, f"**{peer.sessions}**" if peer.ours else peer.sessions, peer.store or "-"]


def table(rows: Iterable[Row]) -> str:
    """The table in Markdown: microseconds a request."""
    figures = [
        [*cells(row.peer), *(microseconds(max(0.0, row.costs[kind])) for kind in [*KINDS, WHOLE])] for row in rows
    ]
    return markdown(["framework", "sessions", "store", *KINDS, WHOLE], figures, 3)


def report(rows: Iterable[Row], noise: float, together: Sequence[Row] = ()) -> str:
    """The tables, with what one has to know of them."""
    made = warning(noise, "**{}**\n\n")
    made += (
        "Microseconds that a request takes longer than by the same application without sessions; in the rows `none`,"
        f" what it takes there. The whole visit is ten requests, four of them reads and two writes.\n\n{table(rows)}\n"
    )
    if together:
        figures = [[row.peer.framework, row.peer.sessions, microseconds(row.costs[WHOLE])] for row in together]
        made += f"The same visit in {DATABASE} by {TOGETHER} visitors at once, each in a thread (WSGI alone):\n\n"
        made += markdown(["framework", "sessions", WHOLE], figures, 2) + "\n"
    return f"{made}{conditions(PACKAGES)}. Between the fastest and the slowest tenth of a fixed loop lay {noise:.0%}.\n"


# --- the command ---


@contextmanager
def servers(redis: str | None = None, postgres: str | None = None) -> Iterator[tuple[str, str]]:
    """The URLs of a Redis or Valkey and of a PostgreSQL: those that were given, or of servers that run meanwhile."""
    from tests.harness.postgres import start_postgres
    from tests.harness.servers import start_valkey

    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        redis = redis or stack.enter_context(start_valkey(folder)).url
        yield redis, postgres or stack.enter_context(start_postgres(folder)).url


def main() -> None:
    known = list(dict.fromkeys(peer.framework for peer in PEERS))
    parser = argparse.ArgumentParser(description="The same ten requests through session_kit and through its peers.")
    parser.add_argument("frameworks", nargs="*", help=f"of {', '.join(known)}; default: all")
    parser.add_argument("--redis", metavar="URL", help="a Redis or Valkey server; default: one is started meanwhile")
    parser.add_argument("--postgres", metavar="URL", help="a PostgreSQL database; default: one is started meanwhile")
    parser.add_argument("--visits", type=int, default=30, help="in a round")
    parser.add_argument("--rounds", type=int, default=50, help="of which the best counts")
    parser.add_argument("--size", type=int, default=SIZE, help="of a session, in bytes, with --measure")
    parser.add_argument("--http", action="store_true", help="a few under a real server too; needs wrk")
    parser.add_argument("--write", action="store_true", help="into the documentation and benchmarks/results/peers.txt")
    parser.add_argument("--measure", nargs="+", metavar="NAME", help="these alone, in this process; prints JSON")
    parser.add_argument("--together", action="store_true", help="with --measure: by many visitors at once")
    chosen = parser.parse_args()
    if unknown := set(chosen.frameworks) - set(known):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known are {', '.join(known)}")

    with servers(chosen.redis, chosen.postgres) as urls, tempfile.TemporaryDirectory() as folder:
        place = Place(Path(folder), *urls)
        if chosen.measure:
            noise, method = Noise(), measure_together if chosen.together else measure
            costs = method(list(map(named, chosen.measure)), place, chosen.visits, chosen.rounds, noise, chosen.size)
            print(json.dumps({"costs": costs, "noise": noise.spread}))
            return
        frameworks = chosen.frameworks or known
        rows, spread = compare_all(frameworks, place, chosen.visits, chosen.rounds)
        made = report(rows, spread, compare_together(frameworks, place, chosen.rounds))
        if chosen.http:
            from session_kit.benchmarks.maintainers.served import report_http

            made += "\n" + report_http(place)
    print(made)
    if chosen.write:
        write("peers", made)


if __name__ == "__main__":
    main()
