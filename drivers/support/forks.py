"""What hears of it when this process forks."""

from __future__ import annotations

import os
import weakref
from functools import partial
from typing import Protocol


class Forked(Protocol):
    """What has locks, threads or connections that a child would inherit."""

    def before_fork(self) -> None: ...

    def after_fork_in_parent(self) -> None: ...

    def after_fork(self) -> None: ...


def tell_of_forks(one: Forked) -> None:
    """Call these methods of `one` whenever this process forks, for as long as `one` lives."""
    _told[id(one)] = one


_told: weakref.WeakValueDictionary[int, Forked] = weakref.WeakValueDictionary()


def _tell(method: str) -> None:
    """Call a method of each. What one raises keeps none of the others from its turn; then the interpreter prints it."""
    errors = []
    # Copied in one step: other threads make drivers meanwhile, and a walk over them would fail.
    for reference in _told.valuerefs():
        try:
            if (one := reference()) is not None:
                getattr(one, method)()
        except Exception as error:
            errors.append(error)
    if errors:
        raise ExceptionGroup(f"{method} failed", errors)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=partial(_tell, "before_fork"),
        after_in_parent=partial(_tell, "after_fork_in_parent"),
        after_in_child=partial(_tell, "after_fork"),
    )
