"""gevent and Redis: what was made before gevent took over must not stop all its greenlets."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.harness.servers import HOST, Server, Valkey
from tests.harness.web_servers import CREATE_APP, ROOT

TOGETHER = 100


class Gunicorn(Server):
    """One worker of gunicorn with greenlets, which runs Bottle's test application."""

    def __init__(self, folder: Path, store: str, words: list[str]) -> None:
        self._store, self._words = store, words
        super().__init__(folder, "gunicorn")

    def _command(self) -> list[str]:
        ours = ["--bind", f"{HOST}:{self.port}", "--worker-class", "gevent", "--no-control-socket"]
        return [sys.executable, "-m", "gunicorn", f"{CREATE_APP}()", *ours, *self._words]

    def _environment(self) -> dict[str, str]:
        return {"APP": "bottle_app", "STORE": self._store, "PYTHONPATH": str(ROOT)}

    def _ready(self) -> bool:
        return "Booting worker" in self.log()


@pytest.fixture(params=[[], ["--preload"]], ids=["", "preload"])
def gunicorn(request: pytest.FixtureRequest, valkey: Valkey, tmp_path: Path) -> Iterator[Gunicorn]:
    with Gunicorn(tmp_path, f"{valkey.url}?prefix=gevent", request.param) as server:
        yield server


def test_a_hundred_greenlets_that_share_fewer_connections_are_all_answered(gunicorn: Gunicorn, valkey: Valkey) -> None:
    limits = httpx.Limits(max_connections=TOGETHER)
    with httpx.Client(base_url=f"http://{HOST}:{gunicorn.port}", limits=limits, timeout=20) as client:
        client.post("/count")
        valkey.ask("CLIENT PAUSE", 1500)  # so that all of them wait for a connection at once
        begin = time.monotonic()
        with ThreadPoolExecutor(TOGETHER) as pool:
            answers = list(pool.map(lambda _: client.get("/read?key=count"), range(TOGETHER)))
        assert [answer.text for answer in answers] == ['{"value": 1}'] * TOGETHER
        assert time.monotonic() - begin < 10
