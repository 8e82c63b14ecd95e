"""One way to call blocking and async methods, so that a test is written once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any


class Caller:
    """Calls the methods of `target` by their blocking names: directly, or by their async twins in `runner`'s loop.

    >>> from session_kit.drivers import open_driver
    >>> with asyncio.Runner() as runner:
    ...     Caller(open_driver("memory://"), runner).has("key")
    False
    """

    def __init__(self, target: Any, runner: asyncio.Runner | None) -> None:
        self.target = target
        self.runner = runner

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if self.runner is None:
            method: Callable[..., Any] = getattr(self.target, name)
            return method
        twin, run = getattr(self.target, f"a{name}"), self.runner.run

        def call(*args: Any, **kwargs: Any) -> Any:
            result = twin(*args, **kwargs)
            return run(_collect(result)) if isinstance(result, AsyncIterator) else run(result)

        return call


async def _collect(items: AsyncIterator[Any]) -> list[Any]:
    return [item async for item in items]
