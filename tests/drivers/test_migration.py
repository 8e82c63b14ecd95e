"""A user who outgrows one store moves its sessions to another by driver calls alone, and nobody is logged out early."""

from __future__ import annotations

import contextlib
import itertools
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from session_kit import UnstorageSessionStore
from session_kit.drivers import Driver, open_driver

SESSIONS = 1000


def move(source: Driver, target: Driver, now: float) -> None:
    """What a migration script does: each key with its value and the time that it has left."""

    def copy(key: str) -> None:
        entry = source.read(key)
        if entry is not None:
            target.set(key, entry.value, ttl=None if entry.expires_at is None else entry.expires_at - now)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(copy, source.keys("sess:")))


@pytest.mark.slow
def test_a_thousand_sessions_move_from_store_to_store_and_back(
    valkey: Any, seaweed: Any, monkeypatch: pytest.MonkeyPatch, clock: Any, tmp_path: Path
) -> None:
    with valkey.client() as client:
        client.flushall()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", seaweed.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", seaweed.secret_key)
    with contextlib.closing(seaweed.client()) as client:
        client.create_bucket(Bucket="migration")
    urls = [f"disk://{tmp_path}/store", valkey.url, f"s3://migration?endpoint_url={seaweed.endpoint_url}"]
    stores = [open_driver(url, clock=clock) for url in urls]
    origin = UnstorageSessionStore(stores[0])
    ends = {}
    for number in range(SESSIONS):
        ttl = 100.0 + number
        origin.set(f"sid-{number}", {"number": number, "name": "Zo\u00eb"}, ttl=ttl)
        ends[number] = clock() + ttl
    for source, target in itertools.pairwise([*stores, stores[0]]):
        move(source, target, clock())
        assert source.clear("sess:") == SESSIONS
    for number in range(SESSIONS):
        record = origin.read(f"sid-{number}")
        assert record is not None
        assert record.data == {"number": number, "name": "Zo\u00eb"}
        assert record.expires_at == pytest.approx(ends[number], abs=5)
    for driver in stores:
        driver.close()
