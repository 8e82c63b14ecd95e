"""The collection of garbage while tests run: made cheap, and at the end it finds what was left open."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop() -> None:
    """Leave the modules and all tests, half a million objects, out of each collection that a test asks for."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def leaks() -> Iterator[None]:
    """What was left open fails the last test. pytest looks once more later, when nobody hears a worker of xdist."""
    yield
    for _ in range(5):  # what is freed may free more
        gc.collect()
