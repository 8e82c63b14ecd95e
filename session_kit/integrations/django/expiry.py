"""How long a session lives: what `set_expiry` was given, else the ttl of the store, else `SESSION_COOKIE_AGE`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django.utils import timezone

EXPIRY = "_session_expiry"
"""The key under which Django keeps what `set_expiry` was given."""


class Lifetime:
    """The ttl of a session, as a function of its data.

    usual: the ttl without `set_expiry`.
    touch_after: seconds between two renewals. The session layer stores a session for so much longer than its ttl, or
        for a tenth of the ttl if that is less. What `set_expiry` was given is kept to the second: it is taken off here.
    """

    def __init__(self, usual: Any, touch_after: float) -> None:
        self.usual = usual
        self.touch_after = touch_after

    def __call__(self, data: Mapping[str, Any]) -> Any:
        expiry = data.get(EXPIRY)
        if not expiry:
            usual = self.usual
            return usual(data) if callable(usual) else usual
        seconds = seconds_of(expiry)
        return seconds if seconds <= 0 else max(seconds / 1.1, seconds - self.touch_after) + 1e-6


def seconds_of(expiry: Any) -> float:
    """Seconds from now, of what Django keeps: a number, or a date as text."""
    if isinstance(expiry, str):
        return float((datetime.fromisoformat(expiry) - timezone.now()).total_seconds())
    return float(expiry)
