"""The same ten requests through session_kit and through its peers, in the same run. From a clone:

    python -m session_kit.benchmarks.maintainers.peers [FRAMEWORK ...] [--http] [--write]

One visit is a first page, a login, four reads, two writes, a page that does not touch the session, and a logout. The
applications are the tests', and so are the browsers; they are called in this process, with a clock at their edge,
because a client and a network would drown the differences. Those with sessions in a database are also visited by fifty
at once. `--http` adds a few under a real server. First each has to show that it keeps a session as it should, so that
nobody wins by doing nothing.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial

from session_kit.benchmarks.maintainers import results, served
from session_kit.benchmarks.maintainers.apps import FRAMEWORKS, NONE, PEERS, Backends, Peer, named, open_backends
from session_kit.benchmarks.maintainers.results import Figures
from session_kit.benchmarks.maintainers.visits import KINDS, SIZE, WHOLE, open_site, play
from session_kit.benchmarks.measure import Noise, microseconds

PACKAGES = (
    *("starlette", "starsessions", "litestar", "flask", "flask-session", "cachelib", "django", "beaker", "aiohttp"),
    *("aiohttp-session", "redis", "psycopg", "flask-sqlalchemy", "granian"),
)
AT_ONCE = "ten requests, by one of many at once"
TOGETHER = 50  # visitors
CROWD = 2 * TOGETHER  # visits in a round of theirs
DATABASE = "PostgreSQL"


def measure(
    peers: Sequence[Peer], backends: Backends, visits: int, rounds: int, size: int = SIZE
) -> tuple[dict[Peer, Figures], float]:
    """Validate and measure applications by turns, in this process. Returns their costs, and the noise.

    Costs are seconds by kind of request, and of the whole visit.
    visits: in a round, one after another. What has a database, and the bare application beside it, is then visited by
    fifty at once, if it is WSGI; of these a visit takes the share of one in the whole.
    """
    noise = Noise()
    with ExitStack() as stack:
        # The bare one last: see `apps.django`.
        ordered = sorted(peers, key=lambda peer: peer.sessions == NONE)
        sites = {peer: stack.enter_context(open_site(peer, backends)) for peer in ordered}
        alone = {peer: partial(play, site, peer, size, visits) for peer, site in sites.items()}
        best = results.best_of(alone, rounds, noise)
        if any(peer.store == DATABASE for peer in peers):
            pool = stack.enter_context(ThreadPoolExecutor(TOGETHER))
            threaded = [peer for peer in peers if peer.interface == "wsgi" and peer.store in ("", DATABASE)]
            crowds = {peer: partial(crowd, pool, partial(play, sites[peer], peer, size)) for peer in threaded}
            for peer, seconds in results.compare(crowds, CROWD, max(2, rounds // 5), noise).items():
                best[peer][AT_ONCE] = seconds
    return best, noise.spread


def crowd(pool: Executor, visit: Callable[[], Figures]) -> None:
    """Visits, as many of them at once as the pool has threads."""
    for one in [pool.submit(visit) for _ in range(CROWD)]:
        one.result()


def measure_apart(
    peers: Sequence[Peer], backends: Backends, visits: int, rounds: int, noise: Noise, size: int = SIZE
) -> dict[Peer, Figures]:
    """Measure applications of a framework in a new process: the bare one, then what others cost beyond that.

    No cost is below a nanosecond: noise is no gain, and some divide by it.
    """
    bare, *others = peers
    found: dict[Peer, Figures] = {}
    # Django's settings belong to a process, and allow one beside the bare one, which then has the best of its figures.
    for group in [[other] for other in others] if bare.framework == "Django" else [others]:
        print(f"{group[-1].name} ...", file=sys.stderr)
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=be_quiet) as process:
            costs, spread = process.submit(measure, [bare, *group], backends, visits, rounds, size).result()
        noise.hear(spread)
        found[bare] = results.least(found.get(bare, {}), costs[bare])
        for peer in group:
            found[peer] = {kind: max(1e-9, cost - costs[bare][kind]) for kind, cost in costs[peer].items()}
    return found


def be_quiet() -> None:
    """Warnings cost time, and are no part of anybody's work."""
    warnings.simplefilter("ignore")
    logging.disable()


def tables(found: Mapping[Peer, Figures]) -> str:
    """The tables in Markdown, in microseconds, with what one has to know of them."""
    kinds = [*KINDS, WHOLE]
    rows = [[*peer.cells, *(microseconds(costs[kind]) for kind in kinds)] for peer, costs in found.items()]
    made = (
        "Microseconds that a request takes longer than by the same application without sessions; in the rows `none`,"
        " what it takes there. The whole visit is ten requests, four of them reads and two writes.\n\n"
        + results.markdown(["framework", "sessions", "store", *kinds], rows, 3)
    )
    crowds = {peer: costs[AT_ONCE] for peer, costs in found.items() if peer.store == DATABASE and AT_ONCE in costs}
    if crowds:
        made += f"\nThe same visit in {DATABASE} by {TOGETHER} visitors at once, each in a thread (WSGI alone):\n\n"
        rows = [[peer.framework, peer.sessions, microseconds(seconds)] for peer, seconds in crowds.items()]
        made += results.markdown(["framework", "sessions", WHOLE], rows, 2)
    return made


def main() -> None:
    parser = results.make_parser("peers", FRAMEWORKS)
    parser.add_argument("--redis", metavar="URL", help="a Redis or Valkey server; default: one is started meanwhile")
    parser.add_argument("--postgres", metavar="URL", help="a PostgreSQL database; default: one is started meanwhile")
    parser.add_argument("--visits", type=int, default=30, help="in a round")
    parser.add_argument("--rounds", type=int, default=50, help="of which the best counts")
    parser.add_argument("--http", action="store_true", help="a few under a real server too; needs wrk")
    parser.add_argument("--measure", nargs="+", metavar="NAME", help="these alone, in this process; prints JSON")
    chosen = parser.parse_args()
    with open_backends(chosen.redis, chosen.postgres) as backends:
        if chosen.measure:
            costs, _ = measure([named(name) for name in chosen.measure], backends, chosen.visits, chosen.rounds)
            print(json.dumps({peer.name: figures for peer, figures in costs.items()}))
            return
        under_http = served.report(backends) if chosen.http else ""
        noise = Noise()
        found: dict[Peer, Figures] = {}
        for framework in chosen.parts or FRAMEWORKS:
            peers = [peer for peer in PEERS if peer.framework == framework]
            found |= measure_apart(peers, backends, chosen.visits, chosen.rounds, noise)
    results.publish("peers", tables(found) + under_http, PACKAGES, noise, write=chosen.write)


if __name__ == "__main__":
    main()
