"""For tests of drivers and applications: the conformance suite, a clock, faults, visitors whose requests overlap."""

from session_kit.testing.clock import ManualClock
from session_kit.testing.conformance import DriverConformance
from session_kit.testing.face import Face
from session_kit.testing.faults import CountingDriver, FaultyDriver
from session_kit.testing.visitor import Visitor

__all__ = ["CountingDriver", "DriverConformance", "Face", "FaultyDriver", "ManualClock", "Visitor"]
