"""A primary dies or a slot moves under load: nothing acknowledged is lost, only `DriverUnavailable` is seen, it heals.

The figures are printed: `pytest -s tests/drivers/test_redis_failover.py`.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable

from session_kit.drivers import Driver, DriverUnavailable, open_driver
from tests.harness.servers import Cluster, Sentinel, Valkey, wait_until


class Load:
    """Writes keys until it is stopped: one at a time in a thread, and ten at a time in an event loop."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.acknowledged: dict[str, bytes] = {}
        self.errors: list[float] = []
        self.failures: list[BaseException] = []
        self.successes = {"blocking": 0.0, "async": 0.0}
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._guard, args=(work,)) for work in (self._block, self._loop)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        wait_until(lambda: len(self.acknowledged) > 200, "the load")
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)

    def recovered(self, since: float) -> float:
        """Wait until both modes write again; the seconds from the last error on either, counted from `since`."""
        wait_until(lambda: self.errors, "an error")
        wait_until(
            lambda: min(self.successes.values()) > max(self.errors) and time.monotonic() - max(self.errors) > 0.5,
            "the recovery",
            30,
        )
        return max(self.errors) - since

    def _guard(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as failure:
            self.failures.append(failure)

    def _note(self, mode: str, key: str, result: object) -> None:
        if isinstance(result, DriverUnavailable):
            self.errors.append(time.monotonic())
        elif isinstance(result, BaseException):
            self.failures.append(result)
        else:
            self.acknowledged[key] = key.encode()
            self.successes[mode] = time.monotonic()

    def _block(self) -> None:
        number = 0
        while not self._stop.is_set():
            number += 1
            key = f"blocking-{number}"
            try:
                self._note("blocking", key, self.driver.set(key, key.encode()))
            except DriverUnavailable as error:
                self._note("blocking", key, error)
                time.sleep(0.01)

    def _loop(self) -> None:
        async def write() -> None:
            number = 0
            while not self._stop.is_set():
                number += 1
                keys = [f"async-{number}-{task}" for task in range(10)]
                results = await asyncio.gather(
                    *[self.driver.aset(key, key.encode()) for key in keys], return_exceptions=True
                )
                for key, result in zip(keys, results, strict=True):
                    self._note("async", key, result)
                await asyncio.sleep(0.01)
            await self.driver.aclose()

        asyncio.run(write())


def check(load: Load, driver: Driver, recovery: float) -> None:
    """Nothing but `DriverUnavailable` was raised, and every acknowledged write is there."""
    assert load.failures == []
    kept = driver.get_many(load.acknowledged)
    assert kept == load.acknowledged
    print(f"{len(kept)} writes acknowledged, none lost; {len(load.errors)} errors; recovered in {recovery:.2f} s")


def opened(url: str) -> Driver:
    return open_driver(url + ("&" if "?" in url else "?") + "timeout=1s")


def kill_under_load(servers: Sentinel | Cluster, primary: Valkey) -> None:
    """Kill one of the servers while others write, and see that nothing is lost and that writing goes on."""
    driver = opened(servers.url)
    try:
        with Load(driver) as load:
            killed = time.monotonic()
            primary.kill()
            recovery = load.recovered(killed)
        check(load, driver, recovery)
    finally:
        servers.heal()
        driver.close()


def test_a_primary_that_dies_is_replaced_by_sentinel(valkey_sentinel: Sentinel) -> None:
    kill_under_load(valkey_sentinel, valkey_sentinel.primary)


def test_a_cluster_primary_that_dies_is_replaced(valkey_cluster: Cluster) -> None:
    kill_under_load(valkey_cluster, valkey_cluster.owner("key"))


def test_a_slot_that_moves_fails_nobody(valkey_cluster: Cluster) -> None:
    driver = opened(valkey_cluster.url)
    try:
        with Load(driver) as load:
            for number in range(1, 40):
                valkey_cluster.move_slot_of(f"async-{number}-1")
        check(load, driver, 0)
        assert load.errors == []
    finally:
        driver.close()


def test_nodes_that_send_a_call_to_and_fro_while_a_slot_moves_fail_nobody(valkey_cluster: Cluster) -> None:
    driver = opened(valkey_cluster.url)
    try:
        for mode in ("blocking", "async"):
            key = f"to and fro {mode}"
            driver.get(key)
            source = valkey_cluster.owner(key)
            target = next(node for node in valkey_cluster.running if node is not source and node.slots())
            moved = "CLUSTER SETSLOT", source.ask("CLUSTER KEYSLOT", key), "NODE", target.ask("CLUSTER MYID")
            source.ask("FLUSHALL")  # a node gives away no slot that holds keys
            source.ask(*moved)  # and to the target the slot is still the source's
            late = threading.Timer(0.2, target.ask, moved)
            late.start()
            assert (driver.get(key) if mode == "blocking" else asyncio.run(aget(driver, key))) is None
            late.join()
            valkey_cluster.wait_ok()
    finally:
        driver.close()


def test_a_cluster_client_can_start_while_a_node_is_down(valkey_cluster: Cluster) -> None:
    victim = valkey_cluster.owner("key")
    victim.kill()
    driver = opened(valkey_cluster.url)
    try:
        wait_until(lambda: works(driver), "the cluster", 15)
    finally:
        valkey_cluster.heal()
        driver.close()


def works(driver: Driver) -> bool:
    try:
        driver.set("key", b"value")
    except DriverUnavailable:
        return False
    return asyncio.run(aget(driver, "key")) == b"value"


async def aget(driver: Driver, key: str) -> bytes | None:
    try:
        return await driver.aget(key)
    finally:
        await driver.aclose()
