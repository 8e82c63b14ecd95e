"""Web servers one after another: the next one starts while tests run, because a start takes longer than a test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from tests.harness.servers import Stoppable
from tests.harness.web_servers import WebServer


class Relay(Stoppable):
    """Each server starts while the tests of the one before it run, and stops while those of the next do.

    Parameters:
        start: starts the server of a key.
        keys: of the servers, in the order in which the tests ask for them.
    """

    def __init__(self, start: Callable[[Any], WebServer], keys: list[Any]) -> None:
        self._start, self._keys = start, keys
        self._pool = ThreadPoolExecutor(2)
        self._started: dict[Any, Future[WebServer]] = {}
        self._stopped: list[Future[None]] = []

    @contextmanager
    def server(self, key: Any) -> Iterator[WebServer]:
        """The running server of `key`."""
        place = self._keys.index(key)
        for each in self._keys[place : place + 2]:
            if each not in self._started:
                self._started[each] = self._pool.submit(self._start, each)
        server = self._started.pop(key).result()
        try:
            yield server
        finally:
            self._stopped.append(self._pool.submit(server.stop))

    def stop(self) -> None:
        for started in self._started.values():
            started.result().stop()
        self._pool.shutdown()
        for stopped in self._stopped:
            stopped.result()


def wanted(request: pytest.FixtureRequest, fixture: str) -> list[Any]:
    """The parameters of this fixture for which tests of this module are selected, in order."""
    specs = [getattr(item, "callspec", None) for item in request.session.items if item.path == request.path]
    return list(dict.fromkeys(spec.params[fixture] for spec in specs if spec and fixture in spec.params))
