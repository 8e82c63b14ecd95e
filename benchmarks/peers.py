"""The same ten requests through session_kit and through its peers, in the same run. From a clone:

    python -m session_kit.benchmarks.peers [FRAMEWORK ...] [--http] [--write]

One visit is a first page, a login, four reads, two writes, a page that does not touch the session, and a logout. The
applications are called in this process, because a network would drown the differences; `--http` adds a few under a real
server. First each has to show that it keeps a session as it should, so that nobody wins by doing nothing.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from session_kit.benchmarks.measure import Noise, compare, conditions, microseconds
from session_kit.benchmarks.peer_apps import NONE, OURS, PEERS, Peer, Place, named
from session_kit.benchmarks.readme import README, ROOT, keep, put_into
from session_kit.benchmarks.sites import SITES, Browser, Site

PACKAGES = (
    *("starlette", "starsessions", "litestar", "flask", "flask-session", "cachelib", "django", "beaker", "aiohttp"),
    *("aiohttp-session", "redis", "granian"),
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


def measure_apart(peers: Sequence[Peer], redis: str, visits: int, rounds: int) -> tuple[list[Row], float]:
    """Measure a bare application and others of its framework in a new process. Returns rows, and the noise."""
    words = ["--redis", redis, "--visits", str(visits), "--rounds", str(rounds)]
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


def compare_all(frameworks: Iterable[str], redis: str, visits: int, rounds: int) -> tuple[list[Row], float]:
    """Measure all applications of some frameworks. Returns rows in the order of `PEERS`, and the largest noise."""
    found: dict[Peer, Costs] = {}
    noises = [0.0]
    for group in groups(frameworks):
        print(f"{group[-1].name} ...", file=sys.stderr)
        rows, noise = measure_apart(group, redis, visits, rounds)
        noises.append(noise)
        for peer, costs in rows:
            before = found.get(peer, costs)
            found[peer] = {kind: min(before[kind], costs[kind]) for kind in costs}
    return [Row(peer, found[peer]) for peer in PEERS if peer in found], max(noises)


# --- what is said of it ---


def table(rows: Iterable[Row]) -> str:
    """The table in Markdown: microseconds a request."""
    lines = [["framework", "sessions", "store", *KINDS, WHOLE], ["---"] * 3 + ["---:"] * (len(KINDS) + 1)]
    for peer, costs in rows:
        name = f"**{peer.sessions}**" if peer.sessions.startswith(OURS) else peer.sessions
        figures = [microseconds(max(0.0, costs[kind])) for kind in [*KINDS, WHOLE]]
        lines.append([peer.framework, name, peer.store, *figures])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def report(rows: Iterable[Row], noise: float) -> str:
    """The table, with what one has to know of it."""
    return (
        "Microseconds that a request takes longer than by the same application without sessions; in the rows `none`,"
        " what it takes there. The whole visit is ten requests, four of them reads and two writes.\n\n"
        f"{table(rows)}\n"
        f"{conditions(PACKAGES)}. Between the fastest and the slowest tenth of a fixed loop lay {noise:.0%}.\n"
    )


# --- the command ---


@contextmanager
def redis_server(url: str | None) -> Iterator[str]:
    """The URL of a server: the one that was given, or of one that runs meanwhile."""
    if url is not None:
        yield url
        return
    try:
        from tests.servers import start_valkey
    except ImportError:
        raise SystemExit("run this in a clone of the repository, or say --redis URL") from None
    with tempfile.TemporaryDirectory() as folder, start_valkey(Path(folder)) as server:
        yield server.url


def main() -> None:
    known = list(dict.fromkeys(peer.framework for peer in PEERS))
    parser = argparse.ArgumentParser(description="The same ten requests through session_kit and through its peers.")
    parser.add_argument("frameworks", nargs="*", help=f"of {', '.join(known)}; default: all")
    parser.add_argument("--redis", metavar="URL", help="a Redis or Valkey server; default: one is started meanwhile")
    parser.add_argument("--visits", type=int, default=30, help="in a round")
    parser.add_argument("--rounds", type=int, default=50, help="of which the best counts")
    parser.add_argument("--http", action="store_true", help="a few under a real server too; needs wrk")
    parser.add_argument("--write", action="store_true", help="into README.md and benchmarks/results/peers.txt")
    parser.add_argument("--measure", nargs="+", metavar="NAME", help="these alone, in this process; prints JSON")
    chosen = parser.parse_args()
    if unknown := set(chosen.frameworks) - set(known):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known are {', '.join(known)}")

    with redis_server(chosen.redis) as redis, tempfile.TemporaryDirectory() as folder:
        if chosen.measure:
            noise = Noise()
            peers = [named(name) for name in chosen.measure]
            costs = measure(peers, Place(Path(folder), redis), chosen.visits, chosen.rounds, noise)
            print(json.dumps({"costs": costs, "noise": noise.spread}))
            return
        rows, spread = compare_all(chosen.frameworks or known, redis, chosen.visits, chosen.rounds)
        made = report(rows, spread)
        if chosen.http:
            from session_kit.benchmarks.peers_http import report_http

            made += "\n" + report_http(Place(Path(folder), redis))
    print(made)
    if chosen.write:
        README.write_text(put_into(README.read_text(), "peers", made))
        keep("peers.txt", made)


if __name__ == "__main__":
    main()
