"""What an operator should know of a backend beyond the contract: findings, each with what to do about it."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal, NamedTuple

State = Literal["ok", "warning", "failed"]

MOST_SKEW: Final = 2.0
"""Seconds by which two clocks may differ before it is reported; some servers give the time in whole seconds."""
LEAST_ROOM: Final = 100 * 2**20
OWN_MACHINE: Final = ("localhost", "127.", "::1")


class Finding(NamedTuple):
    """One thing that was looked at.

    subject: what it is about, in a word or two. state: `"ok"`, `"warning"` or `"failed"`.
    text: what was found; never an id, a secret or a value. advice: what to do, where there is something to do.
    """

    subject: str
    state: State
    text: str
    advice: str = ""


def clock_finding(ahead: float, whose: str) -> Finding:
    """How far another clock is ahead of ours, in seconds.

    >>> clock_finding(-90.0, "the server's").text
    "the server's clock is 90 s behind ours"
    """
    if abs(ahead) < MOST_SKEW:
        return Finding("clock", "ok", f"{whose} clock and ours agree")
    text = f"{whose} clock is {abs(ahead):.3g} s {'ahead of' if ahead > 0 else 'behind'} ours"
    return Finding("clock", "warning", text, "let NTP set both: sessions would end too early or too late")


def network_finding(host: str, encrypted: bool, advice: str) -> Finding:
    """Whether what goes to a host can be read on the way. advice: how to encrypt it."""
    if encrypted:
        return Finding("network", "ok", "encrypted (TLS)")
    if host.startswith(OWN_MACHINE):
        return Finding("network", "ok", "it stays on this machine")
    return Finding("network", "warning", "passwords and sessions cross the network in clear text", advice)


def path_findings(path: Path) -> Iterator[Finding]:
    """Of the file or folder that the sessions lie in: who may read it, how much room is left, what its clock says."""
    folder = path if path.is_dir() else path.parent
    if os.name == "posix":
        found = path.stat()
        if found.st_mode & 0o077:
            text = f"other users may use {path} (mode {stat.S_IMODE(found.st_mode):04o})"
            yield Finding("permissions", "failed", text, f"chmod go-rwx {path}")
        elif found.st_uid != os.geteuid():
            text = f"{path} belongs to the user {found.st_uid}, and this process is {os.geteuid()}"
            yield Finding("permissions", "warning", text, "run this as the user that the application runs as")
        else:
            yield Finding("permissions", "ok", f"only this user may use {path}")
    room = shutil.disk_usage(folder).free
    text = f"{room / 2**20:,.0f} MiB are free"
    if room < LEAST_ROOM:
        yield Finding("room", "warning", text, "make room: on a full disk nobody can log in")
    else:
        yield Finding("room", "ok", text)
    with tempfile.TemporaryFile(dir=folder) as probe:
        yield clock_finding(os.fstat(probe.fileno()).st_mtime - time.time(), "the file system's")
