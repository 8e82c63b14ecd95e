"""Where the primary is that the Sentinels watch: they are asked at each new connection."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from session_kit.drivers.redis.protocol import Command
from session_kit.drivers.redis.settings import Settings

Question = tuple[Settings, Command]
Answer = Any
"""What the Sentinel answered, or the error that kept it from it."""


def find_primary(settings: Settings) -> Generator[Question, Answer, Settings]:
    """Decided once for both colours: yields whom to ask what, is sent the answer, and returns where to connect."""
    failure: Exception = ConnectionError("no Sentinel was asked")
    for host, port in settings.hosts:
        answer = yield settings.sentinel(host, port), ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", settings.service)
        if answer is None:
            failure = ConnectionError(f"the Sentinel {host}:{port} knows no service {settings.service!r}")
        elif isinstance(answer, Exception):
            failure = answer
        else:
            primary, number = answer
            return settings.server(primary.decode(), int(number))
    raise failure
