"""All orders in which requests can overlap, tried one after the other: a scheduler of driver calls, and an explorer."""

from __future__ import annotations

import asyncio
import random
import selectors
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import replace
from typing import Any, NamedTuple

from session_kit.drivers import ANY, Capabilities, Driver, Unsupported
from session_kit.drivers.support.wrapped import WrappedDriver

_request: ContextVar[int] = ContextVar("request", default=0)

Play = Callable[["Schedule"], Coroutine[Any, Any, object]]
"""A scenario: given a schedule, it makes its driver, runs its requests `together` and checks what came out."""


class Step(NamedTuple):
    """One step of a schedule.

    request: the number of the request that went on, from 1 in the order in which they were given to `together`.
    name: what it did, such as the name of the driver's method.
    """

    request: int
    name: str

    def __repr__(self) -> str:
        return f"{self.request}:{self.name}"


class Schedule:
    """One order of steps. `explore` makes them, and gives each to the scenario.

    A request runs until it comes to a `point`; there it waits until the schedule lets it go on. One request goes on at
    a time, so that the same choices always lead to the same run.

    choices: for each step, which of those that wait goes on, the one that waits longest being 0. From where they end
        the first goes on, or any if there is a `chance`.
    preemptions: how often a request that could go on has to wait for another. The one that ran is number 0 then.
    """

    def __init__(
        self, choices: Sequence[int] = (), chance: random.Random | None = None, preemptions: int | None = None
    ) -> None:
        self.choices = list(choices)
        self._preemptions = preemptions
        self.steps: list[Step] = []
        self._chance = chance
        self._options: list[int] = []  # how many there were to choose from, for each step
        self._waiting: list[tuple[Step, asyncio.Future[None]]] = []
        self._running = False
        self._at_rest: asyncio.Future[None] | None = None

    async def point(self, name: str) -> None:
        """Wait until the schedule lets this request go on. Outside `together` it does so at once."""
        if self._running:
            future = asyncio.get_running_loop().create_future()
            self._waiting.append((Step(_request.get(), name), future))
            await future

    async def together(self, *requests: Coroutine[Any, Any, Any]) -> list[Any]:
        """Run the requests in the order of this schedule, and return what each returned.

        It ends when all that they have started has ended too. If one raises, so does this, after that.
        """
        self._running = True
        try:
            results = await asyncio.gather(
                *(self._numbered(number, each) for number, each in enumerate(requests, 1)), return_exceptions=True
            )
            self._at_rest = asyncio.get_running_loop().create_future()
            await self._at_rest
        finally:
            self._running, self._at_rest = False, None
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return results

    async def _numbered(self, number: int, request: Coroutine[Any, Any, Any]) -> Any:
        _request.set(number)
        return await request

    # --- for the explorer ---

    def go_on(self) -> bool:
        """Let one of those that wait go on, when nothing else can. False if nobody waits."""
        waiting = self._waiting = [each for each in self._waiting if not each[1].done()]
        if not waiting:
            if self._at_rest is None or self._at_rest.done():
                return False
            self._at_rest.set_result(None)
            return True
        options, running = len(waiting), 0
        if self._preemptions is not None and self.steps:
            last = self.steps[-1].request
            waiting.sort(key=lambda each: each[0].request != last)
            running = sum(each[0].request == last for each in waiting)
            if running and not self._preemptions:
                options = running
        at = len(self._options)
        if at == len(self.choices):
            self.choices.append(0 if self._chance is None else self._chance.randrange(options))
        if self.choices[at] >= options:
            raise self._different()
        if self._preemptions is not None and 0 < running <= self.choices[at]:
            self._preemptions -= 1
        self._options.append(options)
        step, future = waiting.pop(self.choices[at])
        self.steps.append(step)
        future.set_result(None)
        return True

    def following(self) -> list[int] | None:
        """The choices of the next schedule, depth first; None if this was the last."""
        if len(self._options) < len(self.choices):
            raise self._different()
        choices = self.choices[: len(self._options)]
        while choices and choices[-1] + 1 >= self._options[len(choices) - 1]:
            choices.pop()
        if not choices:
            return None
        choices[-1] += 1
        return choices

    def _different(self) -> RuntimeError:
        return RuntimeError(f"the scenario is not the same at each run: after {self.steps} others waited before")


class SteppedDriver(WrappedDriver):
    """Passes every call on to `driver`, an instant one such as memory, when the schedule says so. Async twins only.

    swaps: False hides that the driver can write on a condition.
    network: a call waits twice, before it takes effect and until its answer arrives, so that others can run in between.
    """

    def __init__(self, driver: Driver, schedule: Schedule, *, swaps: bool = True, network: bool = False) -> None:
        super().__init__(driver)
        self.schedule = schedule
        self.network = network
        promised = driver.capabilities
        self._capabilities = replace(
            promised,
            create=swaps and promised.create,
            swap=swaps and promised.swap,
            never_blocks=False,
            quick_reads=False,
        )

    @property
    def capabilities(self) -> Capabilities:  # type: ignore[override]  # here it depends on the instance
        return self._capabilities

    async def acall(self, name: str, *args: Any, **kwargs: Any) -> Any:
        if not self._capabilities.swap and kwargs.get("expect", ANY) is not ANY:
            raise Unsupported("this driver is one that cannot write on a condition")
        await self.schedule.point(name)
        if not self.network:
            return await super().acall(name, *args, **kwargs)
        try:
            return await super().acall(name, *args, **kwargs)
        finally:
            await self.schedule.point(f"answer of {name}")


def explore(play: Play, *, sample: int | None = None, seed: int = 0, preemptions: int | None = None) -> int:
    """Run a scenario in every order of its steps, and return how many there were.

    play: the scenario, a coroutine function that is given a `Schedule`. It begins anew each time, with a new driver.
    sample: try so many random orders in place of all. seed: of their choice.
    preemptions: try all orders in which a request that could go on has to wait for another so often at most, where all
        orders are too many. Most faults show with two (Musuvathi and Qadeer, "Iterative context bounding", 2007).

    Timers, as those of `asyncio.sleep`, go off as soon as nothing else can go on; nobody really waits.
    What a scenario raises is passed on, with a note that says in which order the steps were; `replay` runs it again.

    Two requests that read a number and write it back, raised by one, lose one in some orders:

    >>> from session_kit.drivers import open_driver
    >>> found = []
    >>> async def play(schedule):
    ...     driver = SteppedDriver(open_driver("memory://"), schedule)
    ...     await driver.aset("count", b"0")
    ...     async def add():
    ...         await driver.aset("count", b"%d" % (int(await driver.aget("count")) + 1))
    ...     await schedule.together(add(), add())
    ...     found.append((await driver.aget("count"), schedule.steps))
    >>> explore(play)
    6
    >>> [count for count, steps in found]
    [b'1', b'1', b'2', b'1', b'1', b'2']
    >>> found[0][1]
    [1:get, 2:get, 1:set, 2:set]
    """
    if sample is not None and sample < 1:
        raise ValueError(f"sample is a number of orders from 1, not {sample}")
    chance = None if sample is None else random.Random(seed)  # noqa: S311  # nothing depends on its being secret
    count, choices = 0, list[int]()
    with _Loop() as loop:
        while True:
            schedule = Schedule(choices, chance, preemptions)
            loop.run(play, schedule)
            count += 1
            following = schedule.following() if sample is None else []
            if following is None or count == sample:
                return count
            choices = following


def replay(play: Play, choices: Sequence[int], *, preemptions: int | None = None) -> Schedule:
    """Run a scenario once, by the choices that a failure has named, and return the schedule.

    preemptions: as it was for `explore`.
    """
    with _Loop() as loop:
        return loop.run(play, Schedule(choices, preemptions=preemptions))


class _Loop:
    """An event loop that asks the schedule, whenever nothing can go on, who shall."""

    def __enter__(self) -> _Loop:
        self._selector = _Selector()
        self._loop = _TimelessLoop(self._selector)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._selector.go_on = lambda: False
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
            with suppress(asyncio.CancelledError, RuntimeError):
                self._loop.run_until_complete(task)
        self._loop.close()

    def run(self, play: Play, schedule: Schedule) -> Schedule:
        self._selector.go_on = schedule.go_on
        try:
            self._loop.run_until_complete(play(schedule))
        except BaseException as error:
            error.add_note(f"The order was {schedule.steps}; to see it again: replay(play, {schedule.choices})")
            raise
        return schedule


class _TimelessLoop(asyncio.SelectorEventLoop):
    """An event loop whose time is what its selector says."""

    def __init__(self, selector: _Selector) -> None:
        self._told = selector
        super().__init__(selector)

    def time(self) -> float:
        return self._told.now


class _Selector(selectors.SelectSelector):
    """Is asked by the loop to wait when no task can go on. It lets a request go on, or time pass, and never waits."""

    go_on: Callable[[], bool] = staticmethod(lambda: False)

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is not None and timeout <= 0:
            return []
        if not self.go_on():
            if timeout is None:
                raise RuntimeError("every request waits for something that is neither a call of the driver nor a timer")
            self.now += timeout
        return []
