"""The plugin of pytest: a store and a clock of one test's own, and visitors who have a session already.

pytest imports this wherever session_kit is installed, so it imports nothing before a test asks for a fixture.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from session_kit.store import UnstorageSessionStore
    from session_kit.testing import ManualClock


@pytest.fixture
def session_clock() -> ManualClock:
    """The clock of `session_store`, which stands still until the test moves it; for `SessionManager(clock=...)` too."""
    from session_kit.testing import ManualClock

    return ManualClock()


@pytest.fixture
def session_store(session_clock: ManualClock) -> UnstorageSessionStore:
    """An empty store in memory, with the default ttl of a day."""
    from session_kit.drivers.memory import MemoryDriver
    from session_kit.store import UnstorageSessionStore

    return UnstorageSessionStore(MemoryDriver(clock=session_clock), clock=session_clock)


@pytest.fixture
def session_cookies() -> Callable[..., dict[str, str]]:
    """`session_cookies(app, user="ada")` stores a session and returns its cookie, for the client of the test.

    `app` is the application, our middleware, or a `SessionManager`; see `session_kit.testing.session_cookies`.
    """
    from session_kit.testing import session_cookies

    return session_cookies
