"""PostgreSQL keeps the contract, in one round trip a call, through restarts, failovers, forks and PgBouncer."""

from __future__ import annotations

from pathlib import Path

import pytest

from session_kit import open_driver
from session_kit.drivers import Driver
from session_kit.testing import DriverConformance, ManualClock
from tests.postgres import Postgres


class TestPostgres(DriverConformance):
    title = "`postgresql://` (PostgreSQL 18)"

    @pytest.fixture(autouse=True)
    def server(self, postgres: Postgres) -> None:
        self.postgres = postgres

    def open_driver(self, clock: ManualClock, tmp_path: Path) -> Driver:
        self.postgres.empty()
        return open_driver(self.postgres.url, clock=clock)

    def url(self, tmp_path: Path) -> str:
        return self.postgres.url
