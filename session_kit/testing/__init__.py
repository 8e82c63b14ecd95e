"""For tests of drivers and applications: the conformance suite, a clock, faults, requests that overlap in every order.

`DriverConformance` needs pytest and hypothesis; the rest needs neither.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from session_kit.drivers.support.wrapped import WrappedDriver
from session_kit.testing.caller import Caller
from session_kit.testing.clock import ManualClock
from session_kit.testing.cookies import session_cookies, session_headers
from session_kit.testing.faults import CountingDriver, FaultyDriver
from session_kit.testing.schedule import Schedule, SteppedDriver, explore, replay
from session_kit.testing.visitor import Visitor

if TYPE_CHECKING:
    from session_kit.testing.conformance import DriverConformance

__all__ = [
    "Caller",
    "CountingDriver",
    "DriverConformance",
    "FaultyDriver",
    "ManualClock",
    "Schedule",
    "SteppedDriver",
    "Visitor",
    "WrappedDriver",
    "explore",
    "replay",
    "session_cookies",
    "session_headers",
]


def __getattr__(name: str) -> object:
    if name != "DriverConformance":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from session_kit.testing.conformance import DriverConformance

    return DriverConformance
