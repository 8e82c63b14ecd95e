"""What timed operations say, in figures that people can read, and how noisy the machine was."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterable
from contextlib import suppress
from datetime import date
from importlib.metadata import PackageNotFoundError, version


def percentiles(values: Iterable[float], *shares: float) -> list[float]:
    """The values below which these shares of them lie; a share is less than 1.

    >>> percentiles([3, 1, 2], 0.5, 0.95)
    [2, 3]
    """
    ordered = sorted(values)
    return [ordered[int(len(ordered) * share)] for share in shares]


NOISY = 0.5


class Noise:
    """Times the same piece of plain Python between measurements: by as much as it varies, figures may too."""

    def __init__(self) -> None:
        self._seconds: list[float] = []
        self._elsewhere = 0.0

    def hear(self, spread: float) -> None:
        """Count the noise that another process has met."""
        self._elsewhere = max(self._elsewhere, spread)

    def probe(self) -> None:
        """Take one more sample, of about a millisecond."""
        begin = time.perf_counter()
        total = 0
        for number in range(20_000):
            total += number & 7
        self._seconds.append(time.perf_counter() - begin)

    @property
    def spread(self) -> float:
        """How far the slowest tenth of the samples lies above the fastest, as a share: 0.1 is ten per cent."""
        if not self._seconds:
            return self._elsewhere
        low, high = percentiles(self._seconds, 0.1, 0.9)
        return max(high / low - 1, self._elsewhere)

    @property
    def warning(self) -> str:
        """What has to stand in front of figures that were measured amid so much noise; empty up to 50 %."""
        said = f"The machine was busy: a fixed loop took up to {self.spread:.0%} longer than at its best."
        return f"{said} Take all figures as rough." if self.spread > NOISY else ""

    def __str__(self) -> str:
        return f"noise of the machine: {self.spread:.0%} between the fastest and the slowest tenth of a fixed loop"


def conditions(distributions: Iterable[str] = ()) -> str:
    """Say when and where this was measured, and with which versions."""
    named = (f"{name} {number}" for name, number in versions(distributions).items())
    return f"{date.today().isoformat()}: {', '.join([*named, machine()])}"


def machine() -> str:
    """Name the system, and say how many cores it has."""
    return f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"


def versions(distributions: Iterable[str]) -> dict[str, str]:
    """Return the versions of Python and of those that are installed."""
    found = {"Python": platform.python_version()}
    for name in distributions:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def microseconds(seconds: float) -> str:
    """Render a duration in microseconds, with as many digits as mean something.

    >>> microseconds(0.0000071), microseconds(0.00123)
    ('7.1', '1230')
    """
    amount = seconds * 1e6
    return f"{amount:.1f}" if amount < 100 else f"{amount:.0f}"


def brief(value: float, unit: str = "") -> str:
    """Render a number, or an amount of a unit, to three digits. Only seconds are divided further.

    >>> brief(12345), brief(0.5), brief(8_012_345, "B")
    ('12.3 k', '0.5', '8.01 MB')
    >>> brief(0.0000071, "s"), brief(0.0123, "s"), brief(77.3, "s")
    ('7.1 µs', '12.3 ms', '77.3 s')
    """
    sizes = {1e6: "M", 1e3: "k", 1.0: "", **({1e-3: "m", 1e-6: "µ"} if unit == "s" else {})}
    size = next((size for size in sizes if value >= size * 0.9995), min(sizes))
    return f"{value / size:.3g} {sizes[size]}{unit}".rstrip()
