"""Work on the items of a stream, several at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

WORKERS = 8


def at_once(work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """Yield `work(item)` of each item, in their order, with a few under way at a time and none collected.

    >>> list(at_once(len, ["a", "bcd"]))
    [1, 3]
    """
    pool, under_way = ThreadPoolExecutor(WORKERS), deque[Future[R]]()
    try:
        for item in items:
            under_way.append(pool.submit(work, item))
            if len(under_way) == 2 * WORKERS:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
