"""Workers that do one operation after another, side by side, until their time is up: threads, or tasks of a loop."""

from __future__ import annotations

import asyncio
import threading
import time
from array import array
from collections.abc import Callable, Coroutine, Iterator
from itertools import islice
from typing import Any

# Of all workers together. More would say nothing new, and each is kept as a number.
MOST_OPERATIONS = 20_000


class Shift:
    """How long each operation took, while several workers were at it.

    seconds: for which they work; every worker does one operation at least.
    durations: seconds that each operation took. elapsed: from the beginning of the first to the end of the last.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.durations = array("d")
        self._until = 0.0
        self._begins: list[float] = []
        self._ends: list[float] = []
        self._errors: list[BaseException] = []

    @property
    def elapsed(self) -> float:
        return max(self._ends) - min(self._begins)

    def stop(self) -> None:
        """Let every worker finish the operation that it is at, and no other."""
        self.seconds = self._until = 0.0

    def run(self, do: Callable[[Any], object], arguments: list[Iterator[Any]]) -> None:
        """Work with one thread for each of `arguments`; raise what an operation raised."""
        if len(arguments) == 1:
            self._start()
            self._work(do, arguments[0], MOST_OPERATIONS)
        else:
            barrier = threading.Barrier(len(arguments), action=self._start)

            def work(own: Iterator[Any]) -> None:
                barrier.wait()
                self._work(do, own, MOST_OPERATIONS // len(arguments))

            threads = [threading.Thread(target=work, args=(own,)) for own in arguments]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        self._raise()

    async def arun(self, do: Callable[[Any], Coroutine[Any, Any, object]], arguments: list[Iterator[Any]]) -> None:
        """Async twin of `run`, with tasks."""
        self._start()
        most = MOST_OPERATIONS // len(arguments)
        await asyncio.gather(*(self._awork(do, own, most) for own in arguments))
        self._raise()

    def _start(self) -> None:
        self._until = time.perf_counter() + self.seconds

    # Twice, because a coroutine around a blocking call would be measured too.

    def _work(self, do: Callable[[Any], object], arguments: Iterator[Any], most: int) -> None:
        clock, durations = time.perf_counter, array("d")
        begin = end = first = clock()
        try:
            for argument in islice(arguments, most):
                begin = clock()
                do(argument)
                end = clock()
                durations.append(end - begin)
                if end >= self._until:
                    break
        except BaseException as error:
            self._fail(error)
        self._note(durations, first, end)

    async def _awork(
        self, do: Callable[[Any], Coroutine[Any, Any, object]], arguments: Iterator[Any], most: int
    ) -> None:
        clock, durations = time.perf_counter, array("d")
        begin = end = first = clock()
        try:
            for argument in islice(arguments, most):
                begin = clock()
                await do(argument)
                end = clock()
                durations.append(end - begin)
                if end >= self._until:
                    break
        except BaseException as error:
            self._fail(error)
        self._note(durations, first, end)

    def _note(self, durations: array[float], first: float, last: float) -> None:
        self.durations.extend(durations)
        self._begins.append(first)
        self._ends.append(last)

    def _fail(self, error: BaseException) -> None:
        # The others finish what they are at, so that nothing is written any more once `run` has raised.
        self._errors.append(error)
        self.stop()

    def _raise(self) -> None:
        if self._errors:
            raise self._errors[0]
