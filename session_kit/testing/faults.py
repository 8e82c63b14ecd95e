"""Drivers around a driver: one counts what reaches it, one fails on demand."""

from __future__ import annotations

import threading

from session_kit.drivers import Driver, DriverUnavailable
from session_kit.drivers.support.wrapped import CALLS, WrappedDriver


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
        self._lock = threading.Lock()  # or calls in two threads would be the same one of so many `times`

    def fail(
        self, method: str, error: Exception | None = None, *, times: int | None = None, after: bool = False
    ) -> None:
        """Make `method` and its twin raise. Not `prepare` and `examine`, which are passed on as they are.

        Raises `ValueError` for a name that is no call of a driver: with it, nothing would ever fail.

        method: its blocking name, such as `"read"`, `"renew"`, `"set"` or `"delete"`.
        error: what to raise. Default `DriverUnavailable`.
        times: for so many calls; None (default) until `heal`.
        after: do the work first, and lose only the answer.
        """
        if method not in CALLS:
            raise ValueError(f"no call of a driver that can fail is named {method!r}; there are {', '.join(CALLS)}")
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
        with self._lock:
            error, times, when = self._faults.get(name, (None, 0, after))
            if error is None or when != after:
                return
            if times <= 1:
                del self._faults[name]
            else:
                self._faults[name] = (error, times - 1, when)
        raise error
