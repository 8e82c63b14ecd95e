"""What hears of it when this process forks."""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Forked(Protocol):
    """What has locks, threads or connections that a child would inherit."""

    def before_fork(self) -> None: ...

    def after_fork_in_parent(self) -> None: ...

    def after_fork(self) -> None: ...


def tell_of_forks(one: Forked) -> None:
    """Call these methods of `one` whenever this process forks, for as long as `one` lives."""
    _told.add(one)


_told: weakref.WeakSet[Forked] = weakref.WeakSet()


def _before_fork() -> None:
    for one in list(_told):
        one.before_fork()


def _after_fork_in_parent() -> None:
    for one in list(_told):
        one.after_fork_in_parent()


def _after_fork() -> None:
    for one in list(_told):
        one.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork)
