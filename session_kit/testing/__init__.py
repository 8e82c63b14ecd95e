"""For tests of drivers and of applications: the conformance suite, a clock, faults, and visitors whose requests overlap."""

from session_kit.testing.clock import ManualClock
from session_kit.testing.conformance import DriverConformance
from session_kit.testing.faults import CountingDriver, FaultyDriver
from session_kit.testing.visitor import Visitor

__all__ = ["CountingDriver", "DriverConformance", "FaultyDriver", "ManualClock", "Visitor"]
