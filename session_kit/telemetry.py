"""What can be measured of the calls that sessions make of their store, for the metrics of an application.

It is a driver around the driver of the store, put there by `watch`, and costs nothing where nobody has called that.
`session_kit.integrations.opentelemetry` makes spans and metrics of it.
"""

from __future__ import annotations

import logging
from asyncio import CancelledError
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from time import perf_counter
from typing import Any, Final, NamedTuple

from session_kit.drivers import Conflict, Driver, DriverUnavailable
from session_kit.drivers.support.wrapped import WrappedDriver
from session_kit.errors import ConfigError
from session_kit.manager import SessionManager
from session_kit.record import SEPARATOR
from session_kit.store import UnstorageSessionStore

log = logging.getLogger("session_kit")

OPERATIONS: Final = {"read": "load", "renew": "load", "set": "save", "delete": "destroy"}
"""What the driver's methods are called; others keep their names."""
FAILURES: Final = ((Conflict, "conflict"), (DriverUnavailable, "unavailable"), (CancelledError, "cancelled"))


class Call(NamedTuple):
    """A call that was made of the store.

    store: the kind of its driver, such as `"redis"` or `"memory"`; never its address.
    operation: `"load"`, `"save"`, `"destroy"`, `"index"` (the list of a user's sessions) or, of what is rarer, the name
        of the driver's method.
    outcome: `"hit"` or `"miss"` of a load, else `"ok"`; `"conflict"` if another request was faster, so that the changes
        are merged and saved again; `"unavailable"`, `"cancelled"` or `"error"`.
    seconds: how long it took.
    """

    store: str
    operation: str
    outcome: str
    seconds: float


OnCall = Callable[[Call], object]
Around = Callable[[str, str], AbstractContextManager[OnCall]]
"""Is given the store and the operation, is entered before a call, and yields what is called with its outcome."""


def watch(manager: SessionManager, on_call: OnCall) -> None:
    """Call `on_call` with each call that the manager's sessions, and whoever else uses its store, make of that store.

    Not with `keys`, which goes on for as long as its caller reads.

    Raises `ConfigError` for a store that has no driver.

    >>> manager = SessionManager("memory://", secret="N3w-secret-of-at-least-32-characters!")
    >>> watch(manager, lambda call: print(call.store, call.operation, call.outcome))
    >>> session = manager.open()
    >>> session["user"] = "ada"
    >>> session.save()
    memory save ok
    """
    if not watch_around(manager, lambda store, operation: nullcontext(on_call)):
        raise ConfigError(f"watch needs a store on a driver; of {type(manager.store).__name__} only on_event tells")


def watch_around(manager: SessionManager, around: Around) -> bool:
    """`watch`, for what has to be there before a call begins, such as a span. False for a store that has no driver."""
    store = manager.store
    if not isinstance(store, UnstorageSessionStore):
        return False
    store.use(WatchedDriver(store.driver, around, f"{store.prefix}:{SEPARATOR}"))
    return True


class WatchedDriver(WrappedDriver):
    """Tells of each call. index: how the keys of the lists of users' sessions begin."""

    def __init__(self, driver: Driver, around: Around, index: str) -> None:
        super().__init__(driver)
        self.kind = kind_of(driver)
        self._around = around
        self._index = index

    def call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        with self._watching(name, args) as answers:
            answers.append(super().call(name, *args, **kwargs))
        return answers[0]

    async def acall(self, name: str, *args: Any, **kwargs: Any) -> Any:
        with self._watching(name, args) as answers:
            answers.append(await super().acall(name, *args, **kwargs))
        return answers[0]

    @contextmanager
    def _watching(self, name: str, args: tuple[Any, ...]) -> Iterator[list[Any]]:
        """Around a call, which puts its answer into the list."""
        filed = bool(args) and isinstance(args[0], str) and args[0].startswith(self._index)
        operation = "index" if filed else OPERATIONS.get(name, name)
        answers: list[Any] = []
        with self._around(self.kind, operation) as on_call:
            begin = perf_counter()
            try:
                yield answers
                outcome = "ok" if operation != "load" else "miss" if answers[0] is None else "hit"
            except BaseException as error:
                outcome = next((each for kind, each in FAILURES if isinstance(error, kind)), "error")
                raise
            finally:
                self._tell(on_call, Call(self.kind, operation, outcome, perf_counter() - begin))

    def _tell(self, on_call: OnCall, call: Call) -> None:
        try:
            on_call(call)
        except Exception:  # it must not take the request with it
            log.exception("the on_call callback failed at %r", call.operation)


def kind_of(driver: Driver) -> str:
    """What a driver is called in metrics.

    >>> from session_kit import open_driver
    >>> kind_of(open_driver("memory://"))
    'memory'
    """
    while isinstance(driver, WrappedDriver):
        driver = driver.driver
    return type(driver).__name__.removesuffix("Driver").lower()
