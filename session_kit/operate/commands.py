"""The commands as every command line has them: what they print, and the exit code that they return.

0: done. 1: a store does not answer, a session is not there or was left out, a check has failed. 2: what was asked for
cannot work. 130: stopped by Ctrl-C.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import chain
from typing import TYPE_CHECKING, Any

from session_kit.drivers.registry import redact, split_url
from session_kit.drivers.support.findings import Finding
from session_kit.drivers.support.folder import expanded, named_in
from session_kit.errors import ConfigError, DriverError, SessionKitError
from session_kit.operate.copy import Counts, copy
from session_kit.operate.doctor import examine, examine_cookie, examine_secret
from session_kit.operate.sessions import NoSuchSession, Summary, details, revoke, summaries
from session_kit.store import UnstorageSessionStore, open_store

if TYPE_CHECKING:
    from session_kit.manager import SessionManager

Say = Callable[[str], object]
"""Prints one line."""

FAILED, CANNOT_WORK, STOPPED = 1, 2, 130

LOCAL = ("sqlite", "disk", "file")
"""The stores in a file or folder of this machine."""
SHOWN = 16
"""So much of a handle is listed: enough to tell a million sessions apart."""
UNKNOWN = "-"
NONE_BOUND = ": none was bound to this user by session.bind"
OUTCOMES = {
    "copied": "copied",
    "updated": "changed in the old store since they were copied, and updated",
    "same": "already there",
    "newer": "changed in the new store since they were copied, and left so",
    "both": "changed in both since they were copied: what the old store has is not carried over",
    "ended_in_new": "ended in the new store since they were copied, and left so",
    "ended_in_old": "ended in the old store since they were copied, and now in the new one too",
    "left": "gone from the old store with all others, as if it had been emptied, and left in the new one",
    "differs": "left out: the new store has another record in this place",
    "unreadable": "left out: the record or its owner's list cannot be read, or the new codec has no form for it",
}


def run(command: Callable[[], int], complain: Say) -> int:
    """Run a command, and make one line of what is wrong."""
    try:
        return command()
    except SessionKitError as error:
        complain(f"session-kit: {error}")
        return FAILED if isinstance(error, (DriverError, NoSuchSession)) else CANNOT_WORK
    except KeyboardInterrupt:
        complain("session-kit: stopped")
        return STOPPED


@contextmanager
def opened(url: str, *, new: bool = False) -> Iterator[UnstorageSessionStore]:
    """A store by URL, which is closed in the end.

    new: whether it may be made now. Otherwise `ConfigError` if its file or folder is not there: a mistyped path must
        not look like a store without sessions.
    """
    parts, _ = split_url(url)
    named = parts.scheme in LOCAL and not parts.netloc and parts.path
    if named and not new and not expanded(named_in(named)).exists():
        raise ConfigError(f"{redact(parts)}: there is no such store yet; is the path right?")
    store = open_store(url)
    try:
        yield store
    finally:
        store.close()


def checked(store: Any) -> UnstorageSessionStore:
    """The store of an application, if its sessions can be listed; else `ConfigError`."""
    if not isinstance(store, UnstorageSessionStore):
        raise ConfigError("a store of your own that has the four methods of SessionStore alone cannot be looked into")
    return store


def list_sessions(store: UnstorageSessionStore, say: Say, owner: str | None = None) -> int:
    """A line for each session, as they come: a million take no memory."""
    count = 0
    for summary in summaries(store, owner):
        if not count:
            say(f"{'HANDLE':{SHOWN}}  {'CREATED (UTC)':16}  {'LAST USED':16}  {'EXPIRES IN':>10}  {'SIZE':>8}")
        created, used, expires, size = _cells(summary, store.clock())
        say(f"{summary.handle[:SHOWN]}  {created:16}  {used:16}  {expires:>10}  {size:>8}")
        count += 1
    say(f"{count} sessions{NONE_BOUND if owner is not None and not count else ''}")
    return 0


def show_session(store: UnstorageSessionStore, handle: str, values: bool, say: Say) -> int:
    """One session: its keys with their types, and what they hold only if `values` is asked for."""
    summary, fields = details(store, handle)
    names = "created (UTC)", "last used", "expires in", "size"
    say(f"{'handle':13}  {summary.handle}")
    for name, cell in zip(names, _cells(summary, store.clock()), strict=True):
        say(f"{name:13}  {cell}")
    for field in fields:
        # As JSON, in ASCII: what a visitor has put in may not steer the terminal.
        text = f" = {json.dumps(field.value, default=repr)}" if values else f", {field.size} B"
        say(f"{json.dumps(field.key)}: {field.type}{text}")
    return 0


def revoke_sessions(
    store: UnstorageSessionStore, handles: Sequence[str], say: Say, complain: Say, owner: str | None = None
) -> int:
    """End sessions, or all of a user; one that is not there keeps none of the others."""
    if (owner is None) != bool(handles):
        raise ConfigError("say which sessions to end: some handles, or --owner USER for all of a user")
    if owner is not None:
        count = store.revoke(owner)
        say(f"revoked {count} sessions{'' if count else NONE_BOUND}")
        return 0
    code = 0
    for handle in handles:
        try:
            say(f"revoked {revoke(store, handle)}")
        except NoSuchSession as error:
            complain(f"session-kit: {error}")
            code = FAILED
    return code


def prune_store(store: UnstorageSessionStore, say: Say) -> int:
    """Drop what has expired and still takes room."""
    store.driver.has(store.prefix)  # a driver with nothing to drop would not notice that its store is down
    say(f"{store.driver.prune()} expired entries removed")
    return 0


def copy_sessions(old: UnstorageSessionStore, new: UnstorageSessionStore, say: Say, complain: Say) -> int:
    """Copy one store into another, or what has changed since."""
    counts, stopped = Counts(), None
    with _progress(old) as tell:
        try:
            copy(old, new, counts, tell)
        except DriverError as error:
            stopped = error
    if stopped is not None:
        complain(f"session-kit: {stopped}; stopped after {counts.done} sessions: the same command goes on from there")
        return FAILED
    say(f"{counts.done} sessions")
    for name, text in OUTCOMES.items():
        if number := getattr(counts, name):
            say(f"{number:8} {text}")
    if counts.differing:
        more = " ..." if counts.left_out > len(counts.differing) else ""
        say(f"left out: {' '.join(handle[:SHOWN] for handle in counts.differing)}{more}")
    return FAILED if counts.left_out else 0


def copy_with(store: UnstorageSessionStore, old: str | None, new: str | None, say: Say, complain: Say) -> int:
    """Copy from the store of a URL into an application's, or the other way round: one of the two is given."""
    if (old is None) == (new is None):
        raise ConfigError("say --from OLD, to copy into this application's store, or --to NEW, to copy out of it")
    if old is not None:
        with opened(old) as source:
            return copy_sessions(source, store, say, complain)
    with opened(str(new), new=True) as target:
        return copy_sessions(store, target, say, complain)


def examine_url(url: str, secret_env: str | None, say: Say) -> int:
    """Examine the store of a URL, and a secret if the name of its environment variable is given."""
    try:
        with opened(url, new=True) as store:
            code = show_findings(examine(store), say)
    except ConfigError as error:
        show_findings([Finding("store", "failed", str(error))], say)
        code = CANNOT_WORK
    if secret_env is not None:
        code = max(code, show_findings([examine_secret(os.environ.get(secret_env), secret_env)], say))
    return code


def examine_application(store: UnstorageSessionStore, manager: SessionManager, say: Say) -> int:
    """Examine the store of an application, and its cookie. Without a good secret it would not have started."""
    secret = Finding("secret", "ok", "long enough, and no placeholder")
    return show_findings(chain(examine(store), [secret], examine_cookie(manager.policy.cookie)), say)


def show_findings(findings: Iterable[Finding], say: Say) -> int:
    """Print findings as they come, and return the exit code."""
    code = 0
    for finding in findings:
        if finding.state == "failed":
            code = FAILED
        advice = f"; {finding.advice}" if finding.advice else ""
        say(f"{finding.state:8} {finding.subject:14} {finding.text}{advice}")
    return code


def _cells(summary: Summary, now: float) -> tuple[str, str, str, str]:
    expires = "never" if summary.expires is None else _duration(summary.expires - now)
    size = f"{summary.size:,} B" if summary.size is not None else "not ours"
    return _moment(summary.created), _moment(summary.last_used), expires if summary.size is not None else UNKNOWN, size


def _moment(at: float | None) -> str:
    return UNKNOWN if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M")


def _duration(seconds: float) -> str:
    """In two units at most.

    >>> _duration(90_061), _duration(61), _duration(0.2)
    ('1d 1h', '1m 1s', '0s')
    """
    left, parts = int(seconds), list[str]()
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        number, left = divmod(left, size)
        if parts or number or unit == "s":
            parts.append(f"{number}{unit}")
    return " ".join(parts[:2])


@contextmanager
def _progress(store: UnstorageSessionStore) -> Iterator[Callable[[Counts], object]]:
    """Show on stderr how far a copy is, if that is a terminal and rich is installed."""
    if not sys.stderr.isatty():
        yield lambda counts: None
        return
    try:
        from rich.console import Console
        from rich.progress import Progress
    except ModuleNotFoundError:
        yield lambda counts: None
        return
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("copying", total=store.length())
        yield lambda counts: bar.update(task, completed=counts.done)
