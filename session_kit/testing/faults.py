"""Drivers around a driver: one counts what reaches it, one fails on demand."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any

from session_kit.drivers import Capabilities, Driver, DriverUnavailable


class WrappedDriver(Driver):
    """Passes every call on to `driver`; `before` and `after` see its name, the same for a method and its async twin."""

    def __init__(self, driver: Driver) -> None:
        super().__init__(clock=driver.clock)
        self.driver = driver

    @property
    def capabilities(self) -> Capabilities:  # type: ignore[override]  # asked of the driver inside
        return self.driver.capabilities

    def prepare(self) -> None:
        self.driver.prepare()

    async def aprepare(self) -> None:
        await self.driver.aprepare()

    def before(self, name: str) -> None:
        """Called before each call reaches the driver."""

    def after(self, name: str) -> None:
        """Called when the driver has done it, before its caller hears of it."""

    def call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """Pass a blocking call on. Override it to do more than to look at the name."""
        self.before(name)
        result = getattr(self.driver, name)(*args, **kwargs)
        self.after(name)
        return result

    async def acall(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """Async twin of `call`; `name` is that of the blocking method."""
        self.before(name)
        result = await getattr(self.driver, f"a{name}")(*args, **kwargs)
        self.after(name)
        return result

    def keys(self, prefix: str = "") -> Iterator[str]:
        self.before("keys")
        yield from self.driver.keys(prefix)
        self.after("keys")

    async def akeys(self, prefix: str = "") -> AsyncIterator[str]:
        self.before("keys")
        async for key in self.driver.akeys(prefix):
            yield key
        self.after("keys")


def _passed(name: str) -> tuple[Callable[..., Any], Callable[..., Coroutine[Any, Any, Any]]]:
    def method(self: WrappedDriver, *args: Any, **kwargs: Any) -> Any:
        return self.call(name, *args, **kwargs)

    async def twin(self: WrappedDriver, *args: Any, **kwargs: Any) -> Any:
        return await self.acall(name, *args, **kwargs)

    return method, twin


for _name in [
    "read",
    "get",
    "has",
    "renew",
    "touch",
    "set",
    "delete",
    "get_many",
    "set_many",
    "delete_many",
    "clear",
    "prune",
    "close",
]:
    _method, _twin = _passed(_name)
    setattr(WrappedDriver, _name, _method)
    setattr(WrappedDriver, f"a{_name}", _twin)


class CountingDriver(WrappedDriver):
    """Notes each call that reaches the driver, by name, in `calls`.

    >>> from session_kit.drivers import open_driver
    >>> driver = CountingDriver(open_driver("memory://"))
    >>> driver.has("key")
    False
    >>> driver.calls
    ['has']
    """

    def __init__(self, driver: Driver) -> None:
        super().__init__(driver)
        self.calls: list[str] = []

    def before(self, name: str) -> None:
        self.calls.append(name)

    def reset(self) -> None:
        """Forget what was counted."""
        self.calls.clear()


class FaultyDriver(WrappedDriver):
    """Fails on demand, as a backend does that is down, or that does the work and loses the answer.

    >>> from session_kit.drivers import open_driver
    >>> driver = FaultyDriver(open_driver("memory://"))
    >>> driver.fail("get")
    >>> driver.get("key")
    Traceback (most recent call last):
    session_kit.drivers.errors.DriverUnavailable: down for a test
    >>> driver.heal()
    """

    def __init__(self, driver: Driver) -> None:
        super().__init__(driver)
        self._faults: dict[str, tuple[Exception, float, bool]] = {}

    def fail(
        self, method: str, error: Exception | None = None, *, times: int | None = None, after: bool = False
    ) -> None:
        """Make `method` and its twin raise.

        error: what to raise. Default `DriverUnavailable`.
        times: for so many calls; None (default) until `heal`.
        after: do the work first, and lose only the answer.
        """
        self._faults[method] = (
            error or DriverUnavailable("down for a test"),
            float("inf") if times is None else times,
            after,
        )

    def heal(self) -> None:
        """Fail no more."""
        self._faults.clear()

    def before(self, name: str) -> None:
        self._raise(name, after=False)

    def after(self, name: str) -> None:
        self._raise(name, after=True)

    def _raise(self, name: str, *, after: bool) -> None:
        error, times, when = self._faults.get(name, (None, 0, after))
        if error is None or when != after:
            return
        if times <= 1:
            del self._faults[name]
        else:
            self._faults[name] = (error, times - 1, when)
        raise error
