"""Whatever overlaps with whatever: every order of the store calls of two requests, and many of three, are tried."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from session_kit.testing import Schedule, explore
from tests.overlaps import HANDLERS, Broken, Handler, Judge, World

MAX_LIFETIME = 500


class Tried:
    """Counts what was tried and, if `broken` is given, what did not hold in place of failing at the first."""

    def __init__(self) -> None:
        self.scenarios = self.orders = 0


def try_all(
    handlers: Iterable[tuple[Handler, ...]],
    *,
    time: tuple[float, bool] | None = None,
    sample: int | None = None,
    **options: Any,
) -> Tried:
    """Try all orders of the requests of each group; `time`: so many seconds pass in between, and whether that ends it."""
    tried = Tried()
    for group in handlers:

        async def play(schedule: Schedule, group: tuple[Handler, ...] = group) -> None:
            world = World(schedule, **options)
            await world.begin()
            requests = [world.request("ABC"[number], each) for number, each in enumerate(group)]
            if time is not None:
                requests.append(world.pass_time(time[0], expires=time[1]))  # type: ignore[arg-type]
            await schedule.together(*requests)
            await Judge(world).judge()

        tried.scenarios += 1
        try:
            tried.orders += explore(play, sample=sample)
        except Exception as error:
            error.add_note(f"The requests were {' and '.join(each.name for each in group)}; {options}, time {time}")
            raise
    return tried
