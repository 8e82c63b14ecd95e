"""What tests of drivers with a native async client share: each call in both modes, and calls that are cancelled."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from session_kit.drivers import Driver

both = pytest.mark.parametrize("mode", ["blocking", "async"])
"""Runs a test once by the blocking methods and once by the async twins."""


def call(driver: Driver, mode: str, method: str, *args: Any, **kwargs: Any) -> Any:
    """Call a method of a driver, or its twin on an event loop that it has to itself."""
    if mode == "blocking":
        return getattr(driver, method)(*args, **kwargs)

    async def main() -> Any:
        try:
            return await getattr(driver, f"a{method}")(*args, **kwargs)
        finally:
            await driver.aclose()

    return asyncio.run(main())


async def cancel_every_third(driver: Driver, number: int, turns: int) -> None:
    """Read so many keys at the same time, and cancel every third call after some turns of the loop.

    The others must read the values of `numbered`.
    """
    tasks = [asyncio.create_task(driver.aget(key)) for key in numbered(number)]
    for _ in range(turns):
        await asyncio.sleep(0)
    for task in tasks[::3]:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    for place, (result, value) in enumerate(zip(results, numbered(number).values(), strict=True)):
        if place % 3:
            assert result == value


def numbered(number: int) -> dict[str, bytes]:
    """So many keys and values."""
    return {f"key-{place}": b"%d" % place for place in range(number)}
