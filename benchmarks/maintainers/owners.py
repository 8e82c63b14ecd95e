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
from statistics import median

from session_kit import SessionManager, UnstorageSessionStore
from session_kit.benchmarks.maintainers.results import markdown
from session_kit.benchmarks.measured_store import Meter
from session_kit.drivers import Driver, open_driver
from session_kit.record import hash_id
from tests.harness.sessions import SECRET

USERS = {"ada": 1, "eve": 10_000}
BATCH = 10_000
ROUNDS = 15
TTL = 30 * 86400.0


def fill(store: UnstorageSessionStore, driver: Driver, user: str, count: int) -> list[str]:
    """Give a user, who has one session, so many more like it, and return their handles. Logins would take hours."""
    (handle,) = (info.handle for info in store.sessions_of(user))
    index_key = store.index_key(user)
    record, filed = driver.get(store.key_of(handle)), driver.get(index_key)
    assert record is not None
    assert filed is not None
    handles = [hash_id(f"{user}-{number}") for number in range(count)]
    for at in range(0, count, BATCH):
        driver.set_many({store.key_of(each): record for each in handles[at : at + BATCH]}, ttl=TTL)
    index = store.codec.unpack(filed, index_key)
    driver.set(index_key, store.codec.pack(index | dict.fromkeys(handles, index[handle]), index_key), ttl=TTL)
    return [handle, *handles]


def log_in(manager: SessionManager, user: str) -> None:
    manager.open().update(theme="dark").bind(user, label="Firefox on Linux").save()


def measure(name: str, driver: Driver, count: int) -> Iterator[list[str]]:
    """Fill the driver, and yield a row of the table for each user and operation."""
    meter = Meter(driver)
    store = UnstorageSessionStore(meter, ttl=TTL)
    manager = SessionManager(store, SECRET)
    for number in range(count // BATCH):
        log_in(manager, f"other-{number}")
        fill(store, driver, f"other-{number}", BATCH - 1)
    for user, sessions in USERS.items():
        log_in(manager, user)
        handles = fill(store, driver, user, sessions - 1)
        costs: dict[str, list[list[float]]] = {"bind": [], "sessions_of": [], "revoke_one": [], "revoke": []}
        for number in range(ROUNDS):
            costs["sessions_of"].append(cost(meter, partial(store.sessions_of, user)))
            handle = handles[number % sessions]
            costs["revoke_one"].append(cost(meter, partial(store.revoke_one, handle, owner=user)))
            costs["bind"].append(cost(meter, partial(log_in, manager, user)))
            handles[number % sessions] = store.sessions_of(user)[0].handle
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
        for name, url in {"memory": "memory://", "sqlite": f"sqlite://{folder}/sessions.db"}.items():
            with closing(open_driver(url)) as driver:
                rows += measure(name, driver, options.others)
    head = ["driver", "sessions of the user", "operation", "ms", "calls", "KB read", "KB written"]
    print(markdown(head, rows, 3))


if __name__ == "__main__":
    main()
