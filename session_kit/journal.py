"""What the log `session_kit` says of events: some lines for operators, never one a request, and the rest at DEBUG."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final, NamedTuple

from session_kit.errors import Conflict

log = logging.getLogger("session_kit")

AGAIN_AFTER = 60.0
"""Seconds between two lines of one kind, of which the later one says how often it happened in between."""
MOST_REASONS = 50
"""So many reasons are told apart; further ones are one kind of line."""
QUIET = 5.0
"""Seconds without a failure after which a store that answers is taken to be back."""

LINES: Final = {
    "store_error": (logging.WARNING, "the store does not answer"),
    "undecodable": (logging.WARNING, "session {} cannot be decoded, and its visitor gets an empty one"),
    "other_codec": (logging.WARNING, "session {} is left alone, and its visitor gets an empty one"),
    "misfit": (logging.WARNING, "session {} does not fit data_type and is left alone; its visitor gets a new one"),
    "reuse": (logging.WARNING, "session {}: an id that was replaced long ago came again, it may have been stolen"),
    "bad_signature": (logging.INFO, "the id that came with a request has a wrong signature"),
}
"""Of which events an operator is to know, at which level, and how it is said; `{}` is the session."""
NO_ANSWERS: Final = {"store_error", "bad_signature"}
"""The events that do not show that the store answers."""


class Outage(NamedTuple):
    """A store that does not answer. began, failed: Unix times, of the first and the last failure of so many.

    logged: whether the log says so.
    """

    began: float
    failed: float
    failures: int
    logged: bool


class Journal:
    """Writes the log of one manager's sessions. It holds hashes of names, and no id, secret or data.

    clock: Unix time in seconds.
    """

    # Threads that write at once may lose a count: a lock would cost more than that is worth.

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._wants_all = log.isEnabledFor(logging.DEBUG)
        self._written: dict[str, tuple[float, int]] = {}  # when a line was written last, and how often it was not since
        self._outage: Outage | None = None

    @property
    def listens(self) -> bool:
        """Whether it wants to hear of what happens in every request: at DEBUG, and until the store is back."""
        return self._wants_all or self._outage is not None

    def note(self, event: str, session: str | None, reason: Exception | None = None) -> None:
        """An event has happened. session: the hash of its name. reason: what is said behind the line."""
        outage, written = self._outage, False
        if event in LINES and not isinstance(reason, Conflict):  # others were faster at the list of a user's sessions
            # One that lasts is news, even if another was told a moment ago.
            lasts = outage is not None and not outage.logged and self._clock() - outage.began >= QUIET
            written = self._write(event, session, reason, anyway=lasts and event == "store_error")
            if event == "store_error":
                now = self._clock()
                began, _, failures, logged = outage or (now, now, 0, False)
                self._outage = Outage(began, now, failures + 1, logged or written)
        if outage is not None and event not in NO_ANSWERS:
            self._answered(outage)
        if not written:
            log.debug("%s (session %s)", event, session)

    def refused(self, reason: Exception) -> None:
        """A client was answered that the store does not answer, which may be known already."""
        if self._outage is None:
            self.note("store_error", None, reason)

    def _answered(self, outage: Outage) -> None:
        now = self._clock()
        if 0 <= now - outage.failed < QUIET:
            return
        self._outage = None
        if outage.logged:
            log.info("the store answers again after %d s; failures: %d", max(0.0, now - outage.began), outage.failures)

    def _write(self, event: str, session: str | None, reason: Exception | None, *, anyway: bool) -> bool:
        """Write a line, unless one of its kind, and for the same reason, was written a moment ago; or anyway."""
        now = self._clock()
        why = "" if reason is None else f": {reason}"
        kind = event + why
        if kind not in self._written and len(self._written) >= MOST_REASONS:
            kind = event
        last, since = self._written.get(kind, (None, 0))
        if last is not None and 0 <= now - last < AGAIN_AFTER and not anyway:
            self._written[kind] = last, since + 1
            return False
        self._written[kind] = now, 0
        level, line = LINES[event]
        often = f"; {since} times more since the line before" if since else ""
        log.log(level, "%s%s%s", line.format(session), why, often)
        return True
