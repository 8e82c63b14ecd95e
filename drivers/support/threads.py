"""Threads that are started when they are needed."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor


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
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=False)

    def after_fork(self) -> None:
        """Forget threads and locks of the parent, which are of no use in the child."""
        self._begin()
