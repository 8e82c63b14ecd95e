"""What pools of connections share: how many calls may be under way, and which connections are still good."""

from __future__ import annotations

import queue
import select
import weakref
from typing import Final

LONGEST_IDLE: Final = 60.0
"""Seconds without use after which a connection is not used again. Firewalls and load balancers forget those that are
idle, most after four minutes or more, and do not say so: it would cost a call its answer."""


class Place:
    """That of one call among those that may be under way at a time.

    It goes back by itself when nobody holds it any more: what a signal or another thread raises in a thread may come
    when the place has been taken and no `finally` is reached yet.
    """

    __slots__ = ("_places",)

    def __init__(self, places: Places) -> None:
        self._places = weakref.ref(places)

    def __del__(self) -> None:
        if (places := self._places()) is not None:
            places.leave(Place(places))


class Places:
    """So many places for calls of blocking code."""

    def __init__(self, number: int) -> None:
        # A queue in C is several times faster than a semaphore.
        self._free: queue.SimpleQueue[Place] = queue.SimpleQueue()
        for _ in range(number):
            self.leave(Place(self))

    def enter(self, seconds: float) -> Place:
        """Take a place; `queue.Empty` if there is none within so many seconds."""
        return self._free.get(timeout=seconds)

    def leave(self, place: Place) -> None:
        self._free.put(place)


def is_ready(socket: int, *, writing: bool = False, seconds: float = 0) -> bool:
    """Wait until the socket can be read, or written to; False if it cannot for so many seconds."""
    if not hasattr(select, "poll"):  # Windows
        return any(select.select([socket], [socket] if writing else [], [], max(seconds, 0)))
    poll = select.poll()
    poll.register(socket, select.POLLIN | (select.POLLOUT if writing else 0))
    return bool(poll.poll(max(seconds, 0) * 1000))
