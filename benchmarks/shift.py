"""Workers that do one operation after another, side by side, until their time is up: threads, or tasks of a loop."""

from __future__ import annotations

import asyncio
import threading
import time
from array import array
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from random import sample
from typing import Any

from session_kit.drivers import ConfigError

Check = Callable[[Any, Any], bool]
"""Tells of an argument and what the operation returned whether it found its own entry."""
Outcome = tuple["array[float]", int, float] | BaseException
"""Of one worker: the durations, how many operations found their entry, and when the last ended; or what was raised."""


class Shift:
    """How long each operation took, while several workers were at it.

    seconds: that all runs take together. check: asked of each operation, whether it found its entry.
    operations, found: how many there were, and how many found their entry. durations: of the operations, in seconds.
    elapsed: from the beginning to the end of the last one, in each run. over: whether the time is up.
    """

    def __init__(self, seconds: float, check: Check | None = None) -> None:
        self.durations = array("d")
        self.operations = self.found = 0
        self.elapsed = 0.0
        self.over = False
        self._seconds, self._check = seconds, check
        self._until = 0.0

    def stop(self) -> None:
        """Let every worker finish the operation that it is at, and no other."""
        self.over = True
        self._until = 0.0

    def thin(self, most: int) -> None:
        """Keep so many durations, drawn by lot: those of a long run would fill the memory."""
        self.durations = array("d", sample(self.durations, min(most, len(self.durations))))

    def run(self, do: Callable[[Any], object], arguments: list[Iterator[Any]]) -> None:
        """Work with one thread for each of `arguments`; raise what an operation raised."""
        if len(arguments) == 1:
            self._start()
            self._add([self._work(do, arguments[0])])
        else:
            self._add(self._in_threads(do, arguments))

    async def arun(self, do: Callable[[Any], Coroutine[Any, Any, object]], arguments: list[Iterator[Any]]) -> None:
        """Async twin of `run`, with tasks."""
        self._start()
        self._add(await asyncio.gather(*(self._awork(do, own) for own in arguments)))

    def _in_threads(self, do: Callable[[Any], object], arguments: list[Iterator[Any]]) -> list[Outcome]:
        many, workers = len(arguments), list[Future[Outcome]]()
        barrier = threading.Barrier(many, action=self._start)

        def work(own: Iterator[Any]) -> Outcome:
            barrier.wait()
            return self._work(do, own)

        with ThreadPoolExecutor(many) as pool:
            try:
                for own in arguments:
                    workers.append(pool.submit(work, own))
            except BaseException as error:
                barrier.abort()  # or those that have started would wait for ever
                raise ConfigError(f"only {len(workers)} of {many} threads could be started: {error}") from error
        return [worker.result() for worker in workers]

    def _start(self) -> None:
        self._began = time.perf_counter()
        if not self.over:  # or it was stopped meanwhile
            self._until = self._began + self._seconds - self.elapsed

    # Twice, because a coroutine around a blocking call would be measured too.

    def _work(self, do: Callable[[Any], object], arguments: Iterator[Any]) -> Outcome:
        clock, check, durations, found, end = time.perf_counter, self._check, array("d"), 0, 0.0
        try:
            for argument in arguments:
                begin = clock()
                result = do(argument)
                end = clock()
                durations.append(end - begin)
                found += check is not None and check(argument, result)
                if end >= self._until:
                    self.over = True
                    break
        except BaseException as error:
            self.stop()  # or others would still write when `run` has raised
            return error
        return durations, found, end

    async def _awork(self, do: Callable[[Any], Coroutine[Any, Any, object]], arguments: Iterator[Any]) -> Outcome:
        clock, check, durations, found, end = time.perf_counter, self._check, array("d"), 0, 0.0
        try:
            for argument in arguments:
                begin = clock()
                result = await do(argument)
                end = clock()
                durations.append(end - begin)
                found += check is not None and check(argument, result)
                if end >= self._until:
                    self.over = True
                    break
        except BaseException as error:
            self.stop()  # or others would still write when `run` has raised
            return error
        return durations, found, end

    def _add(self, outcomes: list[Outcome]) -> None:
        ends = [self._began]
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
            durations, found, end = outcome
            self.durations.extend(durations)
            self.operations += len(durations)
            self.found += found
            ends.append(end)
        self.elapsed += max(ends) - self._began
