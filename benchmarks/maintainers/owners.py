"""What it costs to bind, list and end the sessions of a user who has one or many, beside a million others.

    python -m session_kit.benchmarks.maintainers.owners [--others 1000000] [--folder DIRECTORY]

Prints a table in Markdown: the time of one call, the calls of the driver, and the bytes that these read and wrote.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from statistics import median

from session_kit import SessionManager, UnstorageSessionStore
from session_kit.benchmarks.maintainers.growth import fill
from session_kit.benchmarks.maintainers.results import markdown, url_in
from session_kit.benchmarks.measured_store import Meter
from session_kit.drivers import open_driver
from tests.harness.sessions import SECRET

USERS = {"ada": 1, "eve": 10_000}
ROUNDS = 15


def measure(name: str, meter: Meter) -> Iterator[list[str]]:
    """Yield a row of the table for each user and operation."""
    store = UnstorageSessionStore(meter)
    manager = SessionManager(store, SECRET)

    def log_in(user: str) -> None:
        manager.open().update(theme="dark").bind(user, label="Firefox on Linux").save()

    for user, sessions in USERS.items():
        for _ in range(sessions):
            log_in(user)
        costs: dict[str, list[list[float]]] = {"bind": [], "sessions_of": [], "revoke_one": [], "revoke": []}
        for _ in range(ROUNDS):
            costs["sessions_of"].append(cost(meter, partial(store.sessions_of, user)))
            handle = store.sessions_of(user)[-1].handle
            costs["revoke_one"].append(cost(meter, partial(store.revoke_one, handle, owner=user)))
            costs["bind"].append(cost(meter, partial(log_in, user)))
        costs["revoke"].append(cost(meter, partial(store.revoke, user)))
        for what, each in costs.items():
            taken, calls, read, written = map(median, zip(*each, strict=True))
            yield [name, f"{sessions:,}", what, f"{taken:.2f}", f"{calls:.0f}", f"{read:,.1f}", f"{written:,.1f}"]


def cost(meter: Meter, action: Callable[[], object]) -> list[float]:
    """The milliseconds that an operation takes, its calls of the driver, and the KB that they read and write."""
    meter.reset()
    began = time.perf_counter()
    action()
    taken = time.perf_counter() - began
    return [taken * 1000, len(meter.calls), meter.read_bytes / 1000, meter.written_bytes / 1000]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--others", type=int, default=1_000_000, help="sessions of other users")
    parser.add_argument("--folder", help="where the file of sqlite is made; default: a temporary folder")
    options = parser.parse_args()
    rows: list[list[str]] = []
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for name in ("memory", "sqlite"):
            with closing(open_driver(url_in(Path(folder), name))) as driver:
                fill(driver, options.others)
                rows += measure(name, Meter(driver))
    head = ["driver", "sessions of the user", "operation", "ms", "calls", "KB read", "KB written"]
    print(markdown(head, rows, 3))


if __name__ == "__main__":
    main()
