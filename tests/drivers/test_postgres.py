"""PostgreSQL keeps the contract, in one statement a call, whoever else uses the server and however it is reached."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from session_kit import ConfigError, DriverUnavailable, open_driver
from session_kit.drivers import ABSENT, Conflict, Driver
from session_kit.drivers.postgres import PostgresDriver
from session_kit.drivers.postgres.driver import WRITES_PER_PRUNE
from session_kit.drivers.postgres.statements import PRUNE_BATCH
from session_kit.testing import DriverConformance, ManualClock
from session_kit.testing.conformance import in_threads
from tests.harness.drivers import both, call, cancel_every_third, numbered
from tests.harness.postgres import PgBouncer, Postgres, Tap, TlsPostgres
from tests.harness.servers import HOST, wait_until


class TestPostgres(DriverConformance):
    title = "`postgresql://` (PostgreSQL 18)"

    @pytest.fixture(autouse=True)
    def server(self, postgres: Postgres) -> None:
        self.postgres = postgres
        self.address = postgres.url

    def open_driver(self, clock: ManualClock, tmp_path: Path) -> Driver:
        self.postgres.empty()
        return open_driver(self.address, clock=clock)

    def url(self, tmp_path: Path) -> str:
        return self.address


@pytest.fixture(scope="module")
def pgbouncer(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PgBouncer]:
    with PgBouncer(tmp_path_factory.mktemp("pgbouncer"), postgres) as server:
        yield server


@pytest.mark.slow  # and PgBouncer has no wheel
class TestPgBouncer(TestPostgres):
    title = ""  # the table in docs/stores.md holds what runs in any clone

    @pytest.fixture(autouse=True)
    def server(self, postgres: Postgres, pgbouncer: PgBouncer) -> None:
        self.postgres = postgres
        self.address = pgbouncer.url


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def driver(postgres: Postgres, clock: ManualClock) -> Iterator[PostgresDriver]:
    postgres.empty()
    driver = PostgresDriver(postgres.url, clock=clock)
    yield driver
    driver.close()


@pytest.fixture
def fresh(postgres: Postgres) -> Iterator[str]:
    """The URL of a new database."""
    postgres.ask("CREATE DATABASE fresh")
    yield postgres.url.replace("/postgres", "/fresh").replace("fresh@", "postgres@")
    postgres.ask("DROP DATABASE fresh WITH (FORCE)")


# --- what a call costs ---


def test_each_call_is_one_round_trip(postgres: Postgres) -> None:
    postgres.empty()
    with Tap(postgres) as tap:
        driver = PostgresDriver(tap.url)
        version = driver.set("key", b"1", ttl=100)

        calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
            ("read", ("key",), {}),
            ("get", ("key",), {}),
            ("has", ("key",), {}),
            ("renew", ("key", 100), {}),
            ("touch", ("key", 50), {}),
            ("set", ("key", b"2"), {"ttl": 10, "expect": version}),
            ("set", ("new", b"1"), {"expect": ABSENT}),
            ("set", ("key", b"3"), {}),
            ("get_many", (["key", "new"],), {}),
            ("set_many", ({"key": b"4", "other": b"5"},), {}),
            ("delete_many", (["other", "new"],), {}),
            ("delete", ("key",), {}),
        ]
        for name, args, kwargs in calls:
            before = tap.round_trips
            getattr(driver, name)(*args, **kwargs)
            assert tap.round_trips - before == 1, name

        async def twins() -> None:
            version = await driver.aset("key", b"1", ttl=100)
            for name, args, kwargs in calls:
                before = tap.round_trips
                await getattr(driver, f"a{name}")(*args, **(kwargs | {"expect": version} if name == "set" else kwargs))
                assert tap.round_trips - before == 1, name
                version = (await driver.aread("key") or await driver.aread("new") or [b"", 0])[1]
            await driver.aclose()

        calls = [one for one in calls if one[0] != "set"]
        asyncio.run(twins())
        driver.close()


def test_a_renewal_reads_and_slides_the_expiry_in_one_statement_and_keeps_the_version(
    driver: PostgresDriver, clock: ManualClock
) -> None:
    version = driver.set("key", b"1", ttl=10)
    clock.advance(9)
    assert driver.renew("key", 20) == (b"1", version, clock() + 20)
    driver.set("key", b"2", expect=version)


def test_no_more_connections_are_opened_than_allowed(postgres: Postgres) -> None:
    driver = PostgresDriver(postgres.url, max_connections=3)
    before = postgres.sessions()
    in_threads([lambda: [driver.get("key") for _ in range(20)]] * 12)
    assert postgres.sessions() - before <= 3

    async def main() -> int:
        await asyncio.gather(*[driver.aget("key") for _ in range(100)])
        return postgres.sessions()

    assert asyncio.run(main()) - before <= 6
    driver.close()


@both
def test_a_call_that_finds_all_connections_in_use_does_not_wait_for_ever(postgres: Postgres, mode: str) -> None:
    driver = PostgresDriver(postgres.url, max_connections=1, timeout=0.3)
    driver.set("key", b"value")

    async def main() -> None:
        async def read() -> object:
            return await driver.aread("key") if mode == "async" else await asyncio.to_thread(driver.read, "key")

        with postgres.connect(autocommit=False) as other:
            other.execute("LOCK TABLE session_kit")
            # One is there first, and of the others one at most is given its connection in time.
            answers = await asyncio.gather(*[read() for _ in range(6)], return_exceptions=True)
            other.rollback()
        assert [*map(type, answers)] == [DriverUnavailable] * 6
        assert any("all 1 connections are in use" in str(answer) for answer in answers)
        assert await read() is not None

    asyncio.run(main())
    driver.close()


# --- the table ---


def test_eight_processes_that_make_the_table_at_once_all_succeed(fresh: str) -> None:
    program = (
        "import sys\n"
        "from session_kit import open_driver\n"
        "sys.stdin.readline()\n"
        "for number in range(10):\n"
        "    driver = open_driver(f'{sys.argv[1]}?schema=made{number}')\n"
        "    driver.set(sys.argv[2], b'value')\n"
        "    driver.close()\n"
    )
    command = [sys.executable, "-c", program, fresh]
    processes = [
        subprocess.Popen([*command, str(number)], stdin=subprocess.PIPE, stderr=subprocess.PIPE) for number in range(8)
    ]
    time.sleep(0.5)  # all are there; those that are not come a little later, which is no harm
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(b"\n")
        process.stdin.flush()
    assert [process.communicate()[1] for process in processes] == [b""] * 8
    for number in range(10):
        driver = open_driver(f"{fresh}?schema=made{number}")
        assert sorted(driver.keys()) == sorted(map(str, range(8)))
        driver.close()


@both
def test_names_are_quoted_and_what_is_missing_is_made(fresh: str, mode: str) -> None:
    table, schema = 'se"ss; DROP TABLE x --', "Sché ma"
    driver = PostgresDriver(fresh, table=table, schema=schema, unlogged=True)
    call(driver, mode, "set", "key", b"value", ttl=5)
    driver.close()
    with psycopg.connect(fresh) as client:
        found = client.execute(
            "SELECT relname, nspname, relpersistence FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace"
            " WHERE relkind = 'r' AND nspname = %s",
            [schema],
        ).fetchall()
        assert found == [(table, schema, "u")]
        indexes = client.execute("SELECT indexdef FROM pg_indexes WHERE schemaname = %s", [schema]).fetchall()
        assert any("(expires_at)" in definition for (definition,) in indexes)


def test_a_role_that_may_not_create_works_where_the_table_is(fresh: str, postgres: Postgres) -> None:
    postgres.ask("CREATE ROLE app LOGIN")
    try:
        driver = PostgresDriver(fresh.replace("postgres@", "app@"))
        with pytest.raises(DriverUnavailable, match=r"permission denied for schema public; .* CREATE if it is not"):
            driver.set("key", b"value")
        with psycopg.connect(fresh, autocommit=True) as client:
            owner = PostgresDriver(fresh)
            owner.has("key")
            owner.close()
            with pytest.raises(DriverUnavailable, match="need SELECT, INSERT, UPDATE and DELETE on"):
                driver.set("key", b"value")
            client.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON session_kit TO app")
            version = driver.set("key", b"value", ttl=10)
            driver.set("key", b"other", expect=version)
            assert driver.renew("key", 10) is not None
            assert (list(driver.keys()), driver.prune(), driver.clear()) == (["key"], 0, 1)
            driver.close()
            client.execute("DROP OWNED BY app")
    finally:
        postgres.ask("DROP ROLE app")


def test_a_table_of_another_program_is_named_and_left_alone(fresh: str) -> None:
    with psycopg.connect(fresh, autocommit=True) as client:
        client.execute("CREATE TABLE session_kit (key text, data text)")
        driver = PostgresDriver(fresh)
        for use in (lambda: driver.get("key"), lambda: driver.set("key", b"value"), lambda: driver.clear()):
            with pytest.raises(DriverUnavailable, match='table "session_kit" was made by another program'):
                use()
        driver.close()
        assert client.execute("SELECT count(*) FROM session_kit").fetchone() == (0,)


@both
def test_a_table_that_is_dropped_is_made_anew(fresh: str, mode: str) -> None:
    driver = PostgresDriver(fresh)
    call(driver, mode, "set", "key", b"value")
    with psycopg.connect(fresh, autocommit=True) as client:
        client.execute("DROP TABLE session_kit")
    assert call(driver, mode, "get", "key") is None
    call(driver, mode, "set", "key", b"value")
    driver.close()


# --- others in the way ---


@both
def test_under_a_stricter_isolation_nothing_fails_and_no_count_is_lost(postgres: Postgres, mode: str) -> None:
    postgres.empty()
    driver = open_driver(f"{postgres.url}?options=-c%20default_transaction_isolation%3Dserializable")
    driver.set("counter", b"0")

    async def count() -> None:
        for _ in range(10):
            while True:
                entry = await driver.aread("counter") if mode == "async" else driver.read("counter")
                assert entry is not None
                value = b"%d" % (int(entry.value) + 1)
                try:
                    if mode == "async":
                        await driver.aset("counter", value, expect=entry.version)
                    else:
                        driver.set("counter", value, expect=entry.version)
                    break
                except Conflict:
                    pass

    in_threads([lambda: asyncio.run(count())] * 6)
    assert driver.get("counter") == b"60"
    in_threads([lambda: [driver.set("hot", b"value") for _ in range(20)] and None] * 6)
    driver.close()


@both
def test_a_write_that_has_waited_too_long_is_not_done_afterwards(postgres: Postgres, mode: str) -> None:
    postgres.empty()
    driver = PostgresDriver(postgres.url, timeout=0.3)
    driver.set("key", b"old")
    with postgres.connect(autocommit=False) as other:
        other.execute("SELECT FROM session_kit FOR UPDATE")
        begin = time.monotonic()
        with pytest.raises(DriverUnavailable, match="no answer within the timeout"):
            call(driver, mode, "set", "key", b"new")
        assert time.monotonic() - begin < 2
        other.rollback()
    assert call(driver, mode, "get", "key") == b"old"
    assert not postgres.ask("SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
    driver.close()


@pytest.mark.parametrize("times", [3, pytest.param(10, marks=pytest.mark.slow)])
def test_batches_that_overlap_in_another_order_do_not_wait_for_each_other(
    postgres: Postgres, driver: PostgresDriver, times: int
) -> None:
    names = [f"key-{number}" for number in range(200)]
    begun = len(postgres.log())

    def write(order: list[str]) -> Callable[[], None]:
        def work() -> None:
            for _ in range(times):
                driver.set_many(dict.fromkeys(order, b"value"), ttl=100)
                driver.delete_many(order)

        return work

    in_threads([write(names), write(names[::-1]), write(names), write(names[::-1])])
    assert list(driver.keys()) == []
    assert "deadlock detected" not in postgres.log()[begun:]


# --- expiry ---


def test_pruning_waits_for_nobody_and_leaves_what_another_removes(
    postgres: Postgres, driver: PostgresDriver, clock: ManualClock
) -> None:
    driver.set_many({f"old-{number}": b"value" for number in range(PRUNE_BATCH + 10)}, ttl=10)
    driver.set("young", b"value", ttl=1000)
    clock.advance(10)
    with postgres.connect(autocommit=False) as other:
        other.execute("SELECT FROM session_kit WHERE key = 'old-3' FOR UPDATE")
        assert driver.prune() == PRUNE_BATCH + 9
        other.rollback()
    assert driver.prune() == 1
    assert postgres.ask("SELECT key FROM session_kit") == [(b"young",)]


@both
def test_what_has_expired_is_removed_by_those_who_write(
    postgres: Postgres, driver: PostgresDriver, clock: ManualClock, mode: str
) -> None:
    driver.set_many({f"old-{number}": b"value" for number in range(100)}, ttl=10)
    clock.advance(10)

    async def write() -> None:
        for _ in range(WRITES_PER_PRUNE):
            await driver.aset("key", b"value") if mode == "async" else driver.set("key", b"value")
        await driver.aclose()

    asyncio.run(write())
    assert postgres.ask("SELECT count(*) FROM session_kit") == [(1,)]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_processes_that_write_only_a_little_remove_what_has_expired_too(
    postgres: Postgres, driver: PostgresDriver, clock: ManualClock
) -> None:
    driver.set("old", b"value", ttl=10)
    clock.advance(10)
    if (child := os.fork()) == 0:  # as a worker of gunicorn, with what its parent has counted
        try:
            driver.set("young", b"value")
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert postgres.ask("SELECT key FROM session_kit") == [(b"young",)]
    driver.set("old", b"value", ttl=10)
    clock.advance(10)
    short_lived = PostgresDriver(postgres.url, clock=clock)
    short_lived.set("young", b"value")
    short_lived.close()
    assert postgres.ask("SELECT key FROM session_kit") == [(b"young",)]


def test_expired_entries_are_found_by_the_index(postgres: Postgres, driver: PostgresDriver) -> None:
    driver.set_many({f"key-{number}": b"value" for number in range(5000)}, ttl=1000)
    postgres.ask("ANALYZE session_kit")
    plan = postgres.ask("EXPLAIN SELECT key FROM session_kit WHERE expires_at <= 5 ORDER BY expires_at LIMIT 1000")
    assert "session_kit_expiry" in str(plan)
    plan = postgres.ask(
        "EXPLAIN SELECT key FROM session_kit WHERE key >= 'key-1' AND key < 'key-2' ORDER BY key LIMIT 9"
    )
    assert "session_kit_pkey" in str(plan)


# --- event loops, and tasks that are cancelled ---


def test_loops_that_end_without_closing_the_driver_leave_no_connection(postgres: Postgres) -> None:
    driver = PostgresDriver(postgres.url)
    before = postgres.sessions()
    loops = []
    for _ in range(30):
        loop = asyncio.new_event_loop()
        loops.append(loop)  # some frameworks keep them
        loop.run_until_complete(driver.aget("key"))
        loop.close()
    wait_until(lambda: postgres.sessions() - before <= 1, "the end of the connections")
    driver.close()
    wait_until(lambda: postgres.sessions() == before, "the end of the last one")


def test_a_driver_that_is_forgotten_leaves_no_connection(postgres: Postgres) -> None:
    before = postgres.sessions()
    driver = PostgresDriver(postgres.url)
    driver.get("key")
    asyncio.run(driver.aget("key"))
    del driver
    wait_until(lambda: postgres.sessions() == before, "the end of the connections")


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 5])
def test_cancelled_calls_disturb_no_neighbour_and_lose_no_connection(driver: PostgresDriver, turns: int) -> None:
    async def main() -> None:
        await driver.aset_many(numbered(40))
        for _ in range(3):
            await cancel_every_third(driver, 40, turns)
        await driver.aclose()

    asyncio.run(main())


# --- how it is reached ---


def test_a_unix_socket_and_the_options_of_libpq(postgres: Postgres) -> None:
    driver = open_driver(
        f"postgres://postgres@/postgres?host={postgres.data}&port={postgres.port}&application_name=shop"
    )
    driver.set("key", b"value")
    assert postgres.ask("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'shop'") == [(1,)]
    driver.close()
    strict = open_driver(f"{postgres.url}?sslmode=require")
    with pytest.raises(DriverUnavailable, match="server does not support SSL"):
        strict.get("key")


@both
@pytest.mark.parametrize("client_certificates", [False, True])
def test_tls_checks_the_server_and_shows_a_certificate(
    postgres: Postgres, tmp_path: Path, mode: str, client_certificates: bool
) -> None:
    ours, others = tmp_path / "ours", tmp_path / "others"
    ours.mkdir()
    others.mkdir()
    with (
        TlsPostgres(postgres, ours, client_certificates=client_certificates) as tls,
        TlsPostgres(postgres, others) as other,
    ):

        def opened(host: str = HOST, **options: str) -> Driver:
            if client_certificates:
                options = {"sslcert": tls.cert_file, "sslkey": tls.key_file, **options}
            options = {"hostaddr": HOST, "sslmode": "verify-full", "sslrootcert": tls.ca_file, **options}
            return open_driver(
                f"postgresql://postgres:hunter2@{host}:{tls.port}/postgres?timeout=2s&{urlencode(options)}"
            )

        driver = opened()
        call(driver, mode, "set", "key", b"secret")
        assert call(driver, mode, "get", "key") == b"secret"
        driver.close()
        opened("db.example.com", sslmode="verify-ca").get("key")
        refused = [
            (opened(sslrootcert=other.ca_file), "certificate verify failed; sslrootcert= is"),
            (opened("db.example.com"), "does not match host name"),
            (
                opened(sslrootcert=str(tmp_path / "nothing.pem")),
                "root certificate file does not exist; sslrootcert= is",
            ),
        ]
        if client_certificates:
            refused.append(
                (opened(sslcert=other.cert_file, sslkey=other.key_file), "SSL error|closed the connection|EOF detected")
            )
        for stranger, message in refused:
            with pytest.raises(DriverUnavailable, match=message) as caught:
                call(stranger, mode, "get", "key")
            assert "\n" not in str(caught.value)
            assert "hunter2" not in str(caught.value)


@pytest.mark.slow  # PgBouncer has no wheel
@both
def test_pgbouncer_hands_out_fewer_connections_than_it_takes(
    postgres: Postgres, pgbouncer: PgBouncer, mode: str
) -> None:
    postgres.empty()
    driver = PostgresDriver(pgbouncer.url, max_connections=20)

    async def work(name: str) -> None:
        for number in range(20):
            version = await driver.aset(f"{name}-{number}", b"1", ttl=100)
            await driver.aset(f"{name}-{number}", b"2", expect=version)

    async def main() -> None:
        await asyncio.gather(*[work(f"task-{number}") for number in range(50)])
        await driver.aclose()

    if mode == "async":
        asyncio.run(main())
    else:
        in_threads([lambda: [driver.set(f"key-{number}", b"2", ttl=100) for number in range(50)] and None] * 20)
    assert set(driver.get_many(driver.keys()).values()) == {b"2"}
    assert 0 < postgres.sessions() <= 3
    driver.close()


# --- URLs, and what is shown of them ---


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("postgresql://host:port/db", "not a URL or an option"),
        ("postgresql://host:99999/db", "not a host with a port"),
        ("postgresql://host/db?timeout=0", "duration"),
        ("postgresql://host/db?tabel=x", "did you mean 'table'"),
        ("postgresql://host/db?sslmod=x", "did you mean 'sslmode'"),
        ("postgresql://host/db?max_connections=0", "max_connections"),
        ("postgresql://host/db?table=", "table must be a name of 1 to 56 bytes"),
        (f"postgresql://host/db?table={'t' * 57}", "table must be a name of 1 to 56 bytes"),
        ("postgresql://host/db?schema=a%00b", "schema must be a name"),
        ("postgresql://user:hun%zzter2@host/db", "not a URL or an option"),
        ("postgresql://user:hunter2@x@host/db", "not a URL or an option"),
        ("postgresql://user:hunter2/abc@host/db", "not a URL or an option"),
        ("postgresql://user:hunter2?abc@host/db", "no option has an '@'"),
        # What its client library would say at the first request.
        ("postgresql://host/db?sslmode=no-verify", 'says: invalid sslmode value: "no-verify"$'),
        ("postgresql://host/db?sslmode=", 'says: invalid sslmode value: ""$'),
        ("postgresql://host/db?channel_binding=maybe", "invalid channel_binding value"),
        ("postgresql://h1,h2/db?target_session_attrs=x", "invalid target_session_attrs value"),
        ("postgresql://host/db?port=0", 'invalid port number: "0"$'),
        ("postgresql://host/db?hostaddr=192.0.2.1&port=99999", "invalid port number"),
        ("postgresql://h1,h2/db?port=1,2,3", "could not match 3 port numbers to 2 hosts"),
        ("postgresql://host/db?service=none", "definition of service"),
        ("postgresql://host/db?connect_timeout=2s", "connect_timeout must be a whole number"),
        ("postgresql://host/db?keepalives_idle=99999999999", "keepalives_idle must be a whole number"),
        ("postgresql://host/db?table=public.sessions", "'public.sessions' is no table: write table=NAME&schema=SCHEMA"),
    ],
)
def test_a_url_that_cannot_be_meant_is_refused_at_start_without_the_password(url: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        open_driver(url)
    assert "hun" not in str(caught.value)


@given(st.text(min_size=1).filter(str.isprintable), st.text(min_size=6).filter(str.isprintable))
def test_a_password_in_a_url_is_never_shown(user: str, password: str) -> None:
    from urllib.parse import quote

    driver = PostgresDriver(f"postgresql://{quote(user, safe='')}:{quote(password, safe='')}@db.example.com:5432/shop")
    assert repr(driver) == 'PostgresDriver(postgresql://db.example.com:5432/shop, table="session_kit")'
    assert driver._settings.parameters["password"] == password


@both
def test_a_refused_user_is_told_so_without_the_password(tmp_path: Path, mode: str) -> None:
    with Postgres(tmp_path, {"fsync": "off"}) as server:
        server.ask("CREATE ROLE app LOGIN PASSWORD 'r1ght-passw0rd'")
        server.demand_passwords()
        url = f"{server.host}:{server.port}/postgres"
        for user in ("app:wr0ng-passw0rd", "app", "nobody:r1ght-passw0rd"):
            driver = open_driver(f"postgresql://{user}@{url}")
            with pytest.raises(DriverUnavailable, match="password") as caught:
                call(driver, mode, "set", "key", b"value")
            error: BaseException | None = caught.value
            while error is not None:
                assert "passw0rd" not in f"{error}{error!r}{error.__dict__}"
                error = error.__cause__ or error.__context__
        with pytest.raises(DriverUnavailable, match="database does not exist"):
            open_driver(f"postgresql://app:r1ght-passw0rd@{url}x").get("key")


def test_importing_the_library_imports_no_client() -> None:
    program = "import session_kit, sys; session_kit.open_driver('memory://'); sys.exit('psycopg' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_a_listing_holds_no_connection_while_its_caller_works(postgres: Postgres) -> None:
    postgres.empty()
    driver = PostgresDriver(postgres.url, max_connections=1, timeout=0.5)
    driver.set_many({f"key-{number}": b"value" for number in range(1500)})
    assert sum(driver.delete(key) for key in driver.keys("key-")) == 1500
    driver.set_many({f"key-{number}": b"value" for number in range(1500)})

    async def main() -> int:
        return sum([await driver.adelete(key) async for key in driver.akeys("key-")])

    assert asyncio.run(main()) == 1500
    driver.close()


def test_threads_that_share_a_driver_take_turns_fairly(driver: PostgresDriver) -> None:
    done = [0] * 20

    def work(number: int) -> Callable[[], None]:
        def count() -> None:
            end = time.monotonic() + 0.5
            while time.monotonic() < end:
                driver.get("key")
                done[number] += 1

        return count

    in_threads([work(number) for number in range(20)])
    assert min(done) > 0
    assert threading.active_count() < 20
