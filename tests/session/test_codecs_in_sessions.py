"""What holds of sessions holds with every codec: changes side by side, and typed data, are played again with each."""

from __future__ import annotations

from typing import Any

import pytest

from session_kit import UnstorageSessionStore
from session_kit.codec import Encrypted
from session_kit.drivers.memory import MemoryDriver
from session_kit.testing import CountingDriver, ManualClock
from tests.session.test_lost_updates import *  # noqa: F403  # their tests and fixtures
from tests.session.test_typed_data import *  # noqa: F403

KEY = "vhX1ZkDyV9mV4Uq8b2Zb0k5WJ7n3xH6cT0rYpLs2aQE"


@pytest.fixture
def backend(clock: ManualClock) -> MemoryDriver:
    return MemoryDriver(clock=clock)


@pytest.fixture(params=["msgpack", "encrypted"])
def store(request: pytest.FixtureRequest, driver: CountingDriver) -> UnstorageSessionStore:
    codec: Any = Encrypted(KEY, "msgpack+zlib") if request.param == "encrypted" else request.param
    return UnstorageSessionStore(driver, ttl=1000, codec=codec)
