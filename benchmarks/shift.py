"""Workers that do one operation after another, side by side, until their time is up: threads, or tasks of a loop."""

from __future__ import annotations

import asyncio
import threading
import time
from array import array
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from random import random
from typing import Any

from session_kit.drivers import ConfigError

Check = Callable[[Any, Any], bool]
"""Tells of an argument and what the operation returned whether it found its own entry."""


class Shift:
    """How long each operation took, while several workers were at it.

    seconds: that the runs take together; `begin` gives more. check: asked of each operation, whether it found its
    entry. every: one duration of so many is kept.
    operations, found: how many there were. elapsed: from the beginning to the end of the last one, in each run.
    over: whether the time is up.
    """

    def __init__(self, seconds: float = 0.0, check: Check | None = None, every: int = 1) -> None:
        self.durations = array("d")
        self.operations = self.found = 0
        self.elapsed = self._until = 0.0
        self.over = False
        self._check, self._every = check, every
        self._tallies: list[Tally] = []
        self._errors: list[BaseException] = []
        self.begin(seconds)

    def begin(self, seconds: float) -> None:
        """Let the next runs take so many seconds together, and each worker do one operation at least in each."""
        self.over = False
        self._most = self.elapsed + seconds

    def stop(self) -> None:
        """Let every worker finish the operation that it is at, and no other."""
        self.over = True
        self._until = 0.0

    def run(self, do: Callable[[Any], object], arguments: list[Iterator[Any]]) -> None:
        """Work with one thread for each of `arguments`; raise what an operation raised."""
        if len(arguments) == 1:
            self._start()
            self._work(do, arguments[0])
        else:
            self._run_threads(do, arguments)
        self._end()

    async def arun(self, do: Callable[[Any], Coroutine[Any, Any, object]], arguments: list[Iterator[Any]]) -> None:
        """Async twin of `run`, with tasks."""
        self._start()
        await asyncio.gather(*(self._awork(do, own) for own in arguments))
        self._end()

    def _run_threads(self, do: Callable[[Any], object], arguments: list[Iterator[Any]]) -> None:
        barrier, threads = threading.Barrier(len(arguments), action=self._start), list[threading.Thread]()

        def work(own: Iterator[Any]) -> None:
            with suppress(threading.BrokenBarrierError):
                barrier.wait()
                self._work(do, own)

        try:
            for own in arguments:
                thread = threading.Thread(target=work, args=(own,))
                thread.start()
                threads.append(thread)
        except BaseException as error:
            barrier.abort()  # or those that have started would wait for ever
            raise ConfigError(f"only {len(threads)} of {len(arguments)} threads could be started: {error}") from error
        finally:
            for thread in threads:
                thread.join()

    def _start(self) -> None:
        self._began = time.perf_counter()
        self._until = self._began + self._most - self.elapsed
        if self.over:  # stopped meanwhile
            self._until = 0.0

    # Twice, because a coroutine around a blocking call would be measured too.

    def _work(self, do: Callable[[Any], object], arguments: Iterator[Any]) -> None:
        clock, tally = time.perf_counter, self._tally()
        try:
            for argument in arguments:
                begin = clock()
                result = do(argument)
                end = clock()
                tally.add(argument, result, begin, end)
                if end >= self._until:
                    self.over = True
                    break
        except BaseException as error:
            self._fail(error)

    async def _awork(self, do: Callable[[Any], Coroutine[Any, Any, object]], arguments: Iterator[Any]) -> None:
        clock, tally = time.perf_counter, self._tally()
        try:
            for argument in arguments:
                begin = clock()
                result = await do(argument)
                end = clock()
                tally.add(argument, result, begin, end)
                if end >= self._until:
                    self.over = True
                    break
        except BaseException as error:
            self._fail(error)

    def _tally(self) -> Tally:
        tally = Tally(self._every, self._check)
        self._tallies.append(tally)
        return tally

    def _fail(self, error: BaseException) -> None:
        # The others finish what they are at, so that nothing is written any more once `run` has raised.
        self._errors.append(error)
        self.stop()

    def _end(self) -> None:
        if self._errors:
            raise self._errors[0]
        for tally in self._tallies:
            self.durations.extend(tally.durations)
            self.operations += tally.operations
            self.found += tally.found
        self.elapsed += max(tally.end for tally in self._tallies) - self._began
        self._tallies.clear()


class Tally:
    """What one worker has done. Of the durations a sample is kept, or a long run would fill the memory."""

    def __init__(self, every: int, check: Check | None) -> None:
        self.durations = array("d")
        self.operations = self.found = 0
        self.end = 0.0
        self._check = check
        # At steps of many lengths, `every` on average: those of one length would always meet the same phase of what
        # comes in turns, such as hits and misses.
        self._span = 2 * every - 1
        self._kept_next = 1 + int(random() * every)

    def add(self, argument: object, result: object, begin: float, end: float) -> None:
        self.end = end
        self.operations += 1
        if self._check is not None:
            self.found += self._check(argument, result)
        if self.operations == self._kept_next:
            self.durations.append(end - begin)
            self._kept_next += 1 + int(random() * self._span)
