"""A clock that tests set."""

from __future__ import annotations

import time
from collections.abc import Callable


class ManualClock:
    """Returns Unix time in seconds, and stands still until it is moved. Pass it as `clock=`.

    start: the first time to return. Default: the real time now.

    >>> clock = ManualClock(1000.0)
    >>> clock.advance(60)
    >>> clock()
    1060.0
    """

    def __init__(self, start: float | None = None) -> None:
        self.now = time.time() if start is None else start
        self._followers: list[Callable[[float], None]] = []

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        """Move the clock; a negative number sets it back."""
        self.now += seconds
        for follow in self._followers:
            follow(seconds)

    def follow(self, callback: Callable[[float], None]) -> None:
        """Call `callback(seconds)` at each move, so that a backend that keeps time by itself can be moved along."""
        self._followers.append(callback)
