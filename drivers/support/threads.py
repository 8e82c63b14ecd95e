"""Threads that are started when they are needed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import TypeVar

from session_kit.drivers.errors import DriverUnavailable

T = TypeVar("T")


async def in_thread(work: Callable[[], T], pool: Executor | None = None) -> T:
    """Do `work` in a thread of `pool`, or of the event loop's own. `DriverUnavailable` if none can be started.

    Then it is not done later either: Python leaves it in the queue, for the next thread that there is.
    """
    refused = False

    def unless_refused() -> T:
        if refused:
            raise DriverUnavailable("refused")
        return work()

    try:
        future = asyncio.get_running_loop().run_in_executor(pool, unless_refused)
    except RuntimeError as error:
        refused = True
        raise DriverUnavailable(f"no thread of this process is to be had: {error}") from None
    return await future


class Threads:
    """A pool of up to `size` threads. After `close`, and in the child of a fork, the next use begins it anew.

    name: what the names of the threads begin with.
    """

    def __init__(self, size: int, name: str) -> None:
        self._size = size
        self._name = name
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None

    def pool(self) -> ThreadPoolExecutor:
        """The pool, started unless it is there."""
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self._size, thread_name_prefix=self._name)
            return self._pool

    def close(self) -> None:
        """Let the threads end with what they are at. Idempotent."""
        # As soon as nobody holds the pool. One that was shut down would refuse what a call that holds it has to do.
        with self._lock:
            self._pool = None

    def after_fork(self) -> None:
        """Forget threads and locks of the parent, which are of no use in the child."""
        self._begin()
