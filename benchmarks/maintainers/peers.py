"""The same ten requests through session_kit and through its peers, in the same run. From a clone:

    python -m session_kit.benchmarks.maintainers.peers [FRAMEWORK ...] [--http] [--write]

One visit is a first page, a login, four reads, two writes, a page that does not touch the session, and a logout. The
applications are the tests', and so are the browsers; they are called in this process, with a clock at their edge,
because a client and a network would drown the differences. Those with sessions in a database are also visited by fifty
at once. `--http` adds a few under a real server. First each has to show that it keeps a session as it should, so that
nobody wins by doing nothing.
"""

from __future__ import annotations

import gc
import itertools
import json
import logging
import multiprocessing
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial

import httpx

from session_kit.benchmarks.maintainers import results
from session_kit.benchmarks.maintainers.apps import KINDS as FRAMEWORKS
from session_kit.benchmarks.maintainers.apps import NONE, PEERS, Backends, Peer, named, open_backends
from session_kit.benchmarks.maintainers.timed import TimedSite
from session_kit.benchmarks.measure import Noise, microseconds
from tests.harness.sites import Site
from tests.harness.visitors import Browser

PACKAGES = (
    *("starlette", "starsessions", "litestar", "flask", "flask-session", "cachelib", "django", "beaker", "aiohttp"),
    *("aiohttp-session", "redis", "psycopg", "flask-sqlalchemy", "granian"),
)
KINDS = ["first page", "login", "read", "write", "untouched", "logout"]
VISIT = ["first page", "login", *["read"] * 4, *["write"] * 2, "untouched", "logout"]
WHOLE = "ten requests"
AT_ONCE = "ten requests, by one of many at once"
SIZE = 200  # bytes of a session
TOGETHER = 50  # visitors
DATABASE = "PostgreSQL"
NUMBERS = itertools.count()

Costs = results.Figures
"""Seconds by kind of request, and of the whole visit."""


def visitor(site: Site) -> Browser:
    """Somebody new, who has a cookie of another application."""
    browser = Browser(site, trusting=True)
    browser.client.cookies.set("theme", "dark")
    return browser


def request_of(kind: str, peer: Peer, browser: Browser, size: int = SIZE) -> httpx.Request:
    """A request of a visit. A write is of another value each time."""
    query = {}
    match kind:
        case "login":
            path, query = "/write", {"key": "user", "value": "ada" + "x" * (size - 20)}
        case "read":
            path, query = "/read", {"key": "user"}
        case "write":
            path, query = "/write", {"key": "visits", "value": str(next(NUMBERS))}
        case "logout":
            path = peer.logout
        case _:
            path = "/untouched"
    return browser.client.build_request("GET" if path in ("/read", "/untouched") else "POST", path, params=query)


def ask(kind: str, peer: Peer, browser: Browser, size: int = SIZE) -> None:
    """Make a request of a visit, which must succeed."""
    browser.client.send(request_of(kind, peer, browser, size)).raise_for_status()


class Unfaithful(AssertionError):
    """An application does not keep a session as it should."""


def validate(site: Site, peer: Peer) -> None:
    """Visit a site as two visitors who must not be taken for each other. `Unfaithful` says what went wrong."""
    ada, bob = visitor(site), visitor(site)

    def expect(browser: Browser, key: str, value: str | None) -> None:
        browser.get("/untouched")
        found = browser.read(key)
        if found != value:
            raise Unfaithful(f"{peer.name}: {key} is {found!r} where {value!r} is right")

    expect(ada, "user", None)
    ada.write("user", "ada")
    ada.write("visits", "1")
    expect(ada, "user", "ada")
    expect(bob, "user", None)
    bob.write("user", "bob")
    bob.write("visits", "1")
    ada.write("visits", "2")
    expect(ada, "visits", "2")
    expect(bob, "visits", "1")
    ada.do(peer.logout)
    expect(ada, "user", None)
    expect(bob, "user", "bob")
    ada.write("user", "eve")
    expect(ada, "user", "eve")
    expect(ada, "visits", None)


@contextmanager
def open_site(peer: Peer, backends: Backends) -> Iterator[TimedSite]:
    """The application of a peer, which has shown that it keeps sessions, if it has any."""
    with TimedSite(peer.app(backends), peer.interface) as site:
        if peer.sessions != NONE:
            validate(site, peer)
        yield site


def play(site: TimedSite, peer: Peer, size: int) -> Costs:
    """One visit: the seconds that each kind of request took."""
    browser, spent = visitor(site), dict.fromkeys(KINDS, 0.0)
    for kind in VISIT:
        ask(kind, peer, browser, size)
        spent[kind] += site.seconds
    return spent


def crowd(pool: Executor, visit: Callable[[], Costs], number: int) -> None:
    """So many visits, as many of them at once as the pool has threads."""
    for one in [pool.submit(visit) for _ in range(number)]:
        one.result()


def measure(
    peers: Sequence[Peer], backends: Backends, visits: int, rounds: int, size: int = SIZE
) -> tuple[dict[Peer, Costs], float]:
    """Validate and measure applications by turns, in this process. Returns their costs, and the noise.

    visits: in a round, one after another. What has a database, and the bare application beside it, is then visited by
    fifty at once, if it is WSGI; of these a visit takes the share of one in the whole.
    """
    noise = Noise()

    def round_of(visit: Callable[[], Costs]) -> Costs:
        gc.disable()  # most garbage is of the clients
        spent = [visit() for _ in range(visits)]
        gc.enable()
        costs = {kind: sum(one[kind] for one in spent) / visits for kind in KINDS}
        return {kind: costs[kind] / VISIT.count(kind) for kind in KINDS} | {WHOLE: sum(costs.values())}

    with ExitStack() as stack:
        visit = {peer: partial(play, stack.enter_context(open_site(peer, backends)), peer, size) for peer in peers}
        alone = {peer: partial(round_of, visit[peer]) for peer in peers}
        results.best_of(alone, 1, noise)  # to warm up
        best = results.best_of(alone, rounds, noise)
        if any(peer.store == DATABASE for peer in peers):
            pool = stack.enter_context(ThreadPoolExecutor(TOGETHER))
            threaded = [peer for peer in peers if peer.interface == "wsgi" and peer.store in ("", DATABASE)]
            crowds = {peer: partial(crowd, pool, visit[peer]) for peer in threaded}
            for peer, seconds in results.compare(crowds, 2 * TOGETHER, max(2, rounds // 5), noise).items():
                best[peer][AT_ONCE] = seconds
    return best, noise.spread


def measure_apart(
    peers: Sequence[Peer], backends: Backends, visits: int, rounds: int, noise: Noise, size: int = SIZE
) -> dict[Peer, Costs]:
    """Measure applications of a framework in a new process: the bare one, then what others cost beyond that."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=be_quiet) as process:
        found, spread = process.submit(measure, peers, backends, visits, rounds, size).result()
    noise.hear(spread)
    bare, *others = peers
    over = {peer: {kind: cost - found[bare][kind] for kind, cost in found[peer].items()} for peer in others}
    return {bare: found[bare]} | over


def be_quiet() -> None:
    """Warnings cost time, and are no part of anybody's work."""
    warnings.simplefilter("ignore")
    logging.disable()


def compare_all(
    frameworks: Iterable[str], backends: Backends, visits: int, rounds: int, noise: Noise
) -> dict[Peer, Costs]:
    """Measure all applications of some frameworks. What was measured twice has the better figure."""
    found: dict[Peer, Costs] = {}
    for framework in frameworks:
        bare, *others = [peer for peer in PEERS if peer.framework == framework]
        # Django's settings belong to a process, and allow one beside the bare one.
        for group in [[peer] for peer in others] if framework == "Django" else [others]:
            print(f"{group[-1].name} ...", file=sys.stderr)
            for peer, costs in measure_apart([bare, *group], backends, visits, rounds, noise).items():
                found[peer] = results.least(found.get(peer, {}), costs)
    return found


def cells(peer: Peer) -> list[str]:
    """What stands in front of the figures of an application."""
    return [peer.framework, f"**{peer.sessions}**" if peer.ours else peer.sessions, peer.store or "-"]


def tables(found: Mapping[Peer, Costs]) -> str:
    """The tables in Markdown, in microseconds, with what one has to know of them."""
    kinds = [*KINDS, WHOLE]
    figures = [
        [*cells(peer), *(microseconds(max(0.0, costs[kind])) for kind in kinds)] for peer, costs in found.items()
    ]
    made = (
        "Microseconds that a request takes longer than by the same application without sessions; in the rows `none`,"
        " what it takes there. The whole visit is ten requests, four of them reads and two writes.\n\n"
        + results.markdown(["framework", "sessions", "store", *kinds], figures, 3)
    )
    crowds = {peer: costs[AT_ONCE] for peer, costs in found.items() if peer.store == DATABASE and AT_ONCE in costs}
    if crowds:
        made += f"\nThe same visit in {DATABASE} by {TOGETHER} visitors at once, each in a thread (WSGI alone):\n\n"
        figures = [[peer.framework, peer.sessions, microseconds(seconds)] for peer, seconds in crowds.items()]
        made += results.markdown(["framework", "sessions", WHOLE], figures, 2)
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
        noise = Noise()
        made = tables(compare_all(chosen.parts or list(FRAMEWORKS), backends, chosen.visits, chosen.rounds, noise))
        if chosen.http:
            from session_kit.benchmarks.maintainers.served import report_http

            made += report_http(backends)
    results.publish("peers", results.report(made, PACKAGES, noise), write=chosen.write)


if __name__ == "__main__":
    main()
