"""Sync and async, written once: logic is an `async def`, which blocking code runs to its end without an event loop.

Above the drivers every operation is one coroutine that does its I/O by awaiting calls of `io`. That is a `Native`,
which makes an object's async calls, or a `Blocking`, whose coroutines make the blocking ones and never suspend, so that
`run` can step the operation to its end.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import random
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from functools import partial
from typing import Any, TypeVar

from session_kit.drivers.support.threads import in_thread

T = TypeVar("T")


class Blocking:
    """The blocking methods of `target`, as coroutines that never suspend."""

    def __init__(self, target: Any) -> None:
        self._target = target

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._target, name)

        async def call(*args: Any, **kwargs: Any) -> Any:
            return method(*args, **kwargs)

        setattr(self, name, call)  # the next look-up finds it without coming here
        return call

    async def keys(self, prefix: str) -> AsyncIterator[str]:
        for key in self._target.keys(prefix):
            yield key

    async def pause(self, seconds: float) -> None:
        """Wait, and with it the thread."""
        time.sleep(seconds)


class Native:
    """The async twins of `target`, under the names of the blocking methods; a missing twin runs in a thread."""

    def __init__(self, target: Any) -> None:
        self._target = target

    def __getattr__(self, name: str) -> Callable[..., Any]:
        call: Callable[..., Any] | None = getattr(self._target, f"a{name}", None)
        if call is None:
            method = getattr(self._target, name)

            async def call(*args: Any, **kwargs: Any) -> Any:
                return await in_thread(partial(contextvars.copy_context().run, method, *args, **kwargs))

        setattr(self, name, call)
        return call

    async def pause(self, seconds: float) -> None:
        """Wait, and let other tasks run meanwhile."""
        await pause(seconds)


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Step a coroutine that never suspends to its end and return its result.

    >>> async def answer():
    ...     return 42
    >>> run(answer())
    42
    """
    try:
        coroutine.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    coroutine.close()
    raise RuntimeError("a coroutine that makes blocking calls has suspended")


def iterate(items: AsyncIterator[T]) -> Iterator[T]:
    """Step an async iterator that never suspends."""
    while True:
        try:
            yield run(items.__anext__())  # type: ignore[arg-type]  # of an async generator it is a coroutine in all but name
        except StopAsyncIteration:
            return


async def pause(seconds: float = 0) -> None:
    """Wait, and let other tasks run meanwhile, under trio too."""
    sleep: Any = asyncio.sleep
    if not on_event_loop() and "trio" in sys.modules:
        sleep = sys.modules["trio"].sleep
    await sleep(seconds)


LONGEST_PAUSE = 0.016
"""Seconds."""


async def let_racers_part(io: Any, attempt: int) -> None:
    """Wait after a write that others have overtaken, a little longer each time, and at random so that racers part."""
    await io.pause(random.random() * min(LONGEST_PAUSE, attempt / 1000))  # noqa: S311  # no secret


async def run_to_end(step: Coroutine[Any, Any, T]) -> tuple[T | None, asyncio.CancelledError | None]:
    """Await a step to its end although the task is cancelled meanwhile.

    Returns what it returned, and the cancellation if there was one; without one, what the step raises is raised.
    """
    task = asyncio.ensure_future(step)
    cancelled: asyncio.CancelledError | None = None
    anyio: Any = sys.modules.get("anyio")
    # A scope of anyio that is cancelled cancels again in each turn of the loop: a wait outside it would spin.
    with anyio.CancelScope(shield=True) if anyio else contextlib.nullcontext():
        while not task.done():
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError as error:
                cancelled = error
    if anyio and cancelled is None:
        from anyio.lowlevel import checkpoint_if_cancelled

        try:
            await checkpoint_if_cancelled()
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is None:
        return task.result(), None
    failed = task.cancelled() or task.exception() is not None
    return None if failed else task.result(), cancelled


def on_event_loop() -> bool:
    """Whether the calling thread is running an event loop, which a blocking call would hold up."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
