"""What the tests share: every behaviour runs on each driver, by the blocking methods and by the async twins."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from session_kit import SessionManager, UnstorageSessionStore
from session_kit.drivers import Driver
from session_kit.drivers.disk import DiskDriver
from session_kit.drivers.file import FileDriver
from session_kit.drivers.fsspec import FsspecDriver
from session_kit.drivers.memory import MemoryDriver
from session_kit.drivers.postgres import PostgresDriver
from session_kit.drivers.redis import RedisDriver
from session_kit.drivers.s3 import S3Driver
from session_kit.drivers.sqlite import SQLiteDriver
from session_kit.policy import Event
from session_kit.testing import CountingDriver, ManualClock, Visitor
from tests.harness.garbage import leaks, pytest_runtestloop  # noqa: F401  # a fixture and a hook of pytest
from tests.harness.postgres import Postgres, start_postgres
from tests.harness.readme_tables import (  # noqa: F401  # hooks of pytest
    pytest_addoption,
    pytest_collection_finish,
    pytest_runtest_makereport,
    pytest_sessionfinish,
    pytest_testnodedown,
)
from tests.harness.servers import (
    Cluster,
    S3Server,
    Sentinel,
    Valkey,
    keep_time,
    start_cluster,
    start_moto,
    start_redis62,
    start_seaweed,
    start_sentinel,
    start_valkey,
)
from tests.harness.sessions import SECRET, log_in

BUCKET = "behaviour"
LINKED = (Path(__file__).parents[1] / "session_kit" / "drivers").is_dir()

# How long an example takes tells how busy the machine is: one that stalls for 200 ms is no fault of the code.
settings.register_profile("session_kit", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("session_kit")


@pytest.fixture(scope="session", autouse=True)
def sigint() -> None:
    """Shells have jobs in the background ignore SIGINT; what a test starts would inherit that, and not end by it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


class ProbedS3Driver(S3Driver):
    """Knows what SeaweedFS honours: to find it out, as the driver's own tests do, takes longer than most tests."""

    def _probe(self) -> None:
        self._deletes_conditionally = True


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=["sync", "async"])
def runner(request: pytest.FixtureRequest) -> Iterator[asyncio.Runner | None]:
    """None, or the event loop in which the async twins are to run."""
    if request.param == "sync":
        yield None
    else:
        with asyncio.Runner() as runner:
            yield runner


@pytest.fixture(params=["memory", "sqlite", "disk", "file", "valkey", "postgres", "s3", "fsspec"])
def backend(request: pytest.FixtureRequest, clock: ManualClock, tmp_path: Path) -> Iterator[Driver]:
    if request.param == "memory":
        driver: Driver = MemoryDriver(clock=clock)
    elif request.param == "sqlite":
        driver = SQLiteDriver(tmp_path / "store.db", clock=clock)
    elif request.param == "disk":
        driver = DiskDriver(tmp_path / "store", clock=clock)
    elif request.param == "file":
        driver = FileDriver(tmp_path / "store", fsync=False, clock=clock)
    elif request.param == "postgres":
        database = request.getfixturevalue("postgres")
        database.empty()
        driver = PostgresDriver(database.url, clock=clock)
    elif request.param == "s3":
        driver = ProbedS3Driver(BUCKET, secrets.token_hex(8), client=request.getfixturevalue("s3_client"), clock=clock)
    elif request.param == "fsspec":
        driver = FsspecDriver("file", str(tmp_path / "store"), clock=clock)
    else:
        server = request.getfixturevalue("valkey")
        with server.client() as client:
            client.flushall()
            keep_time(client, clock)
        driver = RedisDriver(server.url, clock=clock)
    with closing(driver):
        for marker in request.node.iter_markers("needs"):
            if not getattr(driver.capabilities, marker.args[0]):
                pytest.skip(f"{request.param} does not promise {marker.args[0]}")
        yield driver


@pytest.fixture(scope="session")
def s3_client(seaweed: S3Server) -> Iterator[Any]:
    """One client for all, since boto3 takes longer to make one than a test takes to run."""
    client = seaweed.client()
    client.create_bucket(Bucket=BUCKET)
    yield client
    client.close()


@pytest.fixture
def driver(backend: Driver) -> CountingDriver:
    return CountingDriver(backend)


@pytest.fixture
def store(driver: CountingDriver) -> UnstorageSessionStore:
    return UnstorageSessionStore(driver, ttl=1000)


@pytest.fixture
def events() -> list[str]:
    """The names of the events that the manager of this test has reported."""
    return []


@pytest.fixture
def make_manager(store: UnstorageSessionStore, clock: ManualClock, events: list[str]) -> Callable[..., SessionManager]:
    def make(**options: Any) -> SessionManager:
        def record(event: Event) -> None:
            events.append(event.name)

        settings = {"store": store, "secret": SECRET, "clock": clock, "on_event": record}
        return SessionManager(**(settings | options))

    return make


@pytest.fixture
def visitor(make_manager: Callable[..., SessionManager], runner: asyncio.Runner | None) -> Visitor:
    return Visitor(make_manager(), runner)


@pytest.fixture
def ada(visitor: Visitor) -> Visitor:
    """A visitor who is logged in; a module that wants another manager has a `visitor` of its own."""
    return log_in(visitor)


@pytest.fixture(scope="session")
def mypy(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A command; what mypy has found out of the packages is kept for the next that has the same options."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # one for all workers
    options = ["--strict", "--config-file=", "--disable-error-code=import-untyped", f"--cache-dir={folder / 'mypy'}"]
    return [sys.executable, "-m", "mypy", *options]


# --- real servers, each started once a run, when the first test asks for it ---


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    with start_valkey(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture(scope="session")
def redis62(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    with start_redis62(tmp_path_factory.mktemp("redis62")) as server:
        yield server


@pytest.fixture(scope="session")
def valkey_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A test that kills one of its servers heals it."""
    with start_cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def valkey_sentinel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sentinel]:
    """A test that kills one of its servers heals it."""
    with start_sentinel(tmp_path_factory.mktemp("sentinel")) as sentinel:
        yield sentinel


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    # Faster, and no less true for a server that nobody kills.
    with start_postgres(tmp_path_factory.mktemp("postgres"), {"fsync": "off", "synchronous_commit": "off"}) as server:
        yield server


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with start_seaweed(tmp_path_factory.mktemp("seaweed")) as server:
        yield server


@pytest.fixture(scope="session")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with start_moto(tmp_path_factory.mktemp("moto")) as server:
        yield server


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("links") and not LINKED:
        pytest.skip("the links in session_kit/ are text files in this clone: see CONTRIBUTING.md")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "feature(name): a column of the table in docs/frameworks.md")
