"""The same ten requests through session_kit and through its peers, in the same run. From a clone:

    python -m session_kit.benchmarks.peers [FRAMEWORK ...] [--http] [--write]

One visit is a first page, a login, four reads, two writes, a page that does not touch the session, and a logout. The
applications are called in this process, because a network would drown the differences; those with sessions in a
database also by fifty visitors at once. `--http` adds a few under a real server. First each has to show that it keeps a
session as it should, so that nobody wins by doing nothing.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from session_kit.benchmarks.measure import Noise, compare, conditions, microseconds
from session_kit.benchmarks.peer_apps import NONE, OURS, PEERS, Peer, Place, named
from session_kit.benchmarks.readme import PERFORMANCE, ROOT, keep, put_into
from session_kit.benchmarks.sites import SITES, Browser, Site

PACKAGES = (
    *("starlette", "starsessions", "litestar", "flask", "flask-session", "cachelib", "django", "beaker", "aiohttp"),
    *("aiohttp-session", "redis", "psycopg", "flask-sqlalchemy", "granian"),
)

VISIT = [
    ("first page", "/untouched"),
    ("login", "/login"),
    *[("read", "/read")] * 4,
    *[("write", "/write")] * 2,
    ("untouched", "/untouched"),
    ("logout", "/logout"),
]
KINDS = list(dict.fromkeys(kind for kind, _ in VISIT))
WHOLE = "ten requests"
TOGETHER = 50  # visitors at once
DATABASE = "PostgreSQL"

Costs = dict[str, float]
"""Seconds by kind of request, and of the whole visit."""


class Row(NamedTuple):
    """What the requests take of which application; with sessions, over the same application without."""

    peer: Peer
    costs: Costs


# --- that it does what it should ---


class Unfaithful(AssertionError):
    """An application does not keep a session as it should."""


def validate(site: Site) -> None:
    """Visit a site as two visitors who must not be taken for each other. `Unfaithful` says what went wrong."""
    ada, bob = Browser(site), Browser(site)

    def expect(browser: Browser, path: str, body: str) -> None:
        answer = browser.get(path).body
        if answer != body:
            raise Unfaithful(f"{path} answers {answer!r} where {body!r} is right")

    expect(ada, "/untouched", "")
    expect(ada, "/read", "nobody")
    expect(ada, "/login", "welcome")
    expect(ada, "/read", "ada")
    expect(ada, "/write", "1")
    expect(bob, "/read", "nobody")
    expect(bob, "/login", "welcome")
    expect(bob, "/write", "1")
    expect(ada, "/untouched", "")
    expect(ada, "/write", "2")
    expect(ada, "/logout", "bye")
    expect(ada, "/read", "nobody")
    expect(bob, "/read", "ada")
    expect(ada, "/login", "welcome")
    expect(ada, "/write", "1")


# --- what it takes ---


class Visits:
    """Plays visits to a site, and notes for each round what each kind of request took on average."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._rounds: list[Costs] = []

    def __call__(self, number: int) -> None:
        spent = dict.fromkeys(KINDS, 0.0)
        for _ in range(number):
            browser = Browser(self._site)
            for kind, path in VISIT:
                spent[kind] += browser.get(path).seconds
        times = [kind for kind, _ in VISIT]
        costs = {kind: seconds / (number * times.count(kind)) for kind, seconds in spent.items()}
        self._rounds.append({**costs, WHOLE: sum(spent.values()) / number})

    def best(self) -> Costs:
        """The best round of each kind. The first round was to warm up."""
        return {kind: min(costs[kind] for costs in self._rounds[1:]) for kind in [*KINDS, WHOLE]}


def measure(peers: Sequence[Peer], place: Place, visits: int, rounds: int, noise: Noise) -> dict[str, Costs]:
    """Validate and measure applications by turns, in this process. Returns their costs by name."""
    with ExitStack() as stack:
        players = {}
        for peer in peers:
            site = stack.enter_context(closing(SITES[peer.interface](peer.app(place))))
            if peer.sessions != NONE:
                try:
                    validate(site)
                except Unfaithful as error:
                    raise Unfaithful(f"{peer.name}: {error}") from None
            players[peer.name] = Visits(site)
        compare(players, visits, rounds, noise)
        return {name: player.best() for name, player in players.items()}


def measure_together(peers: Sequence[Peer], place: Place, visits: int, rounds: int, noise: Noise) -> dict[str, Costs]:
    """The same with fifty visitors at once, each in a thread. What a visit takes is the share of one in the whole."""
    with ExitStack() as stack:
        players = {}
        for peer in peers:
            site = stack.enter_context(closing(SITES[peer.interface](peer.app(place))))
            pool = stack.enter_context(ThreadPoolExecutor(TOGETHER))  # threads that stay, as a server's do
            players[peer.name] = partial(_visit_together, site, pool)
        best = compare(players, visits, rounds, noise)
        return {name: {WHOLE: seconds} for name, seconds in best.items()}


def _visit_together(site: Site, pool: ThreadPoolExecutor, number: int) -> None:
    def visit(_number: int) -> None:
        browser = Browser(site)
        for _, path in VISIT:
            browser.get(path)

    list(pool.map(visit, range(number)))


def measure_apart(
    peers: Sequence[Peer], place: Place, visits: int, rounds: int, *, together: bool = False
) -> tuple[list[Row], float]:
    """Measure a bare application and others of its framework in a new process. Returns rows, and the noise."""
    words = ["--redis", place.redis, "--postgres", place.postgres, "--visits", str(visits), "--rounds", str(rounds)]
    if together:
        words += ["--together"]
    # Warnings cost time, and are no part of anybody's work.
    command = [sys.executable, "-W", "ignore", "-m", "session_kit.benchmarks.peers", *words]
    result = subprocess.run(
        [*command, "--measure", *(peer.name for peer in peers)], cwd=ROOT, capture_output=True, text=True, check=False
    )
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
        if framework == "Django":
            yield from ([bare, peer] for peer in others)
        else:
            yield [bare, *others]


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


def table(rows: Iterable[Row]) -> str:
    """The table in Markdown: microseconds a request."""
    lines = [["framework", "sessions", "store", *KINDS, WHOLE], ["---"] * 3 + ["---:"] * (len(KINDS) + 1)]
    for peer, costs in rows:
        name = f"**{peer.sessions}**" if peer.sessions.startswith(OURS) else peer.sessions
        figures = [microseconds(max(0.0, costs[kind])) for kind in [*KINDS, WHOLE]]
        lines.append([peer.framework, name, peer.store, *figures])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def report(rows: Iterable[Row], noise: float, together: Iterable[Row] = ()) -> str:
    """The tables, with what one has to know of them."""
    crowd = "".join(
        f"| {peer.framework} | {peer.sessions} | {microseconds(costs[WHOLE])} |\n" for peer, costs in together
    )
    if crowd:
        crowd = (
            f"\nThe same visit in {DATABASE} by {TOGETHER} visitors at once, each in a thread:\n\n"
            f"| framework | sessions | {WHOLE} |\n| --- | --- | ---: |\n{crowd}"
        )
    return (
        "Microseconds that a request takes longer than by the same application without sessions; in the rows `none`,"
        " what it takes there. The whole visit is ten requests, four of them reads and two writes.\n\n"
        f"{table(rows)}{crowd}\n"
        f"{conditions(PACKAGES)}. Between the fastest and the slowest tenth of a fixed loop lay {noise:.0%}.\n"
    )


# --- the command ---


@contextmanager
def servers(redis: str | None, postgres: str | None) -> Iterator[tuple[str, str]]:
    """The URLs of a Redis or Valkey and of a PostgreSQL: those that were given, or of servers that run meanwhile."""
    with ExitStack() as stack:
        if redis is None or postgres is None:
            try:
                from tests.harness.postgres import start_postgres
                from tests.harness.servers import start_valkey
            except ImportError:
                raise SystemExit("run this in a clone of the repository, or say --redis URL --postgres URL") from None
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            redis = redis or stack.enter_context(start_valkey(folder)).url
            postgres = postgres or stack.enter_context(start_postgres(folder)).url
        yield redis, postgres


def main() -> None:
    known = list(dict.fromkeys(peer.framework for peer in PEERS))
    parser = argparse.ArgumentParser(description="The same ten requests through session_kit and through its peers.")
    parser.add_argument("frameworks", nargs="*", help=f"of {', '.join(known)}; default: all")
    parser.add_argument("--redis", metavar="URL", help="a Redis or Valkey server; default: one is started meanwhile")
    parser.add_argument("--postgres", metavar="URL", help="a PostgreSQL database; default: one is started meanwhile")
    parser.add_argument("--visits", type=int, default=30, help="in a round")
    parser.add_argument("--rounds", type=int, default=50, help="of which the best counts")
    parser.add_argument("--http", action="store_true", help="a few under a real server too; needs wrk")
    parser.add_argument(
        "--write", action="store_true", help="into docs/performance.md and benchmarks/results/peers.txt"
    )
    parser.add_argument("--measure", nargs="+", metavar="NAME", help="these alone, in this process; prints JSON")
    parser.add_argument("--together", action="store_true", help="with --measure: by many visitors at once")
    chosen = parser.parse_args()
    if unknown := set(chosen.frameworks) - set(known):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known are {', '.join(known)}")

    with servers(chosen.redis, chosen.postgres) as urls, tempfile.TemporaryDirectory() as folder:
        place = Place(Path(folder), *urls)
        if chosen.measure:
            noise = Noise()
            peers = [named(name) for name in chosen.measure]
            method = measure_together if chosen.together else measure
            costs = method(peers, place, chosen.visits, chosen.rounds, noise)
            print(json.dumps({"costs": costs, "noise": noise.spread}))
            return
        frameworks = chosen.frameworks or known
        rows, spread = compare_all(frameworks, place, chosen.visits, chosen.rounds)
        made = report(rows, spread, compare_together(frameworks, place, chosen.rounds))
        if chosen.http:
            from session_kit.benchmarks.peers_http import report_http

            made += "\n" + report_http(place)
    print(made)
    if chosen.write:
        PERFORMANCE.write_text(put_into(PERFORMANCE.read_text(), "peers", made))
        keep("peers.txt", made)


if __name__ == "__main__":
    main()
