"""A driver around another: the base of those that measure, count or disturb its calls."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, Final

from session_kit.drivers.base import Capabilities, Driver
from session_kit.drivers.support.findings import Finding


class WrappedDriver(Driver):
    """Passes every call on to `driver`; `before` and `after` see its name, the same for a method and its async twin."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        super().__init__(clock=driver.clock)

    @property
    def capabilities(self) -> Capabilities:  # type: ignore[override]  # asked of the driver inside
        return self.driver.capabilities

    def reads_at_once(self) -> bool:
        return self.capabilities.quick_reads and self.driver.reads_at_once()

    def prepare(self) -> None:
        self.driver.prepare()

    async def aprepare(self) -> None:
        await self.driver.aprepare()

    def examine(self) -> Iterator[Finding]:
        return self.driver.examine()

    def __repr__(self) -> str:
        return repr(self.driver)

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


_PASSED = (
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
)
CALLS: Final = ("keys", *_PASSED)
"""The blocking names of the calls that `before` and `after` see."""

for _name in _PASSED:
    _method, _twin = _passed(_name)
    setattr(WrappedDriver, _name, _method)
    setattr(WrappedDriver, f"a{_name}", _twin)
