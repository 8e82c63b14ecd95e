"""Key-value drivers: bytes in, bytes out, chosen by URL. They know nothing of sessions.

>>> driver = open_driver("memory://")
>>> version = driver.set("greeting", b"hello", ttl=60)
>>> driver.get("greeting")
b'hello'
"""

from session_kit.drivers.base import ABSENT, ANY, Capabilities, Driver, Entry, check_key, check_value
from session_kit.drivers.errors import (
    ConfigError,
    Conflict,
    CorruptEntry,
    DriverError,
    DriverUnavailable,
    SessionKitError,
    Unsupported,
)
from session_kit.drivers.registry import open_driver, register_driver

__all__ = [
    "ABSENT",
    "ANY",
    "Capabilities",
    "ConfigError",
    "Conflict",
    "CorruptEntry",
    "Driver",
    "DriverError",
    "DriverUnavailable",
    "Entry",
    "SessionKitError",
    "Unsupported",
    "check_key",
    "check_value",
    "open_driver",
    "register_driver",
]
