"""What a fork means for several drivers of one process."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from session_kit import ConfigError
from session_kit.drivers import open_driver
from session_kit.drivers.support.forks import tell_of_forks


class Noted:
    def __init__(self, *, broken: bool) -> None:
        self.broken, self.heard = broken, list[str]()

    def note(self, what: str) -> None:
        self.heard.append(what)
        if self.broken:
            raise RuntimeError("broken for a test")

    def before_fork(self) -> None:
        self.note("before")

    def after_fork_in_parent(self) -> None:
        self.note("parent")

    def after_fork(self) -> None:
        self.note("child")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_one_that_fails_at_a_fork_keeps_no_other_from_getting_ready() -> None:
    those = [Noted(broken=number % 2 == 0) for number in range(10)]
    for one in those:
        tell_of_forks(one)
    child = os.fork()
    if child == 0:
        os._exit(0 if all(one.heard == ["before", "child"] for one in those) else 1)
    for one in those:
        one.broken = False  # the report of what was raised may keep it alive
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert all(one.heard == ["before", "parent"] for one in those)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost/abc",
        "redis+cluster://localhost/7",
        "postgresql://localhost:port/db",
        "memory://?max_entries=0",
        "sqlite://{path}/a-folder",
        "disk://{path}/a-file",
        "file://{path}/a-file",
        "s3://bucket?max_connections=0",
        "fsspec+nothing://path",
    ],
)
def test_a_driver_that_could_not_be_made_does_no_harm_at_a_fork(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a-folder").mkdir()
    (tmp_path / "a-file").touch()
    with pytest.raises(ConfigError) as kept:  # and with it what was half made
        open_driver(url.format(path=tmp_path))
    failures: list[ExceptionGroup] = []

    def note(failed: Any) -> None:
        if isinstance(failed.exc_value, ExceptionGroup):  # what other packages do at a fork is their affair
            failures.append(failed.exc_value)

    monkeypatch.setattr(sys, "unraisablehook", note)
    child = os.fork()
    if child == 0:
        os._exit(len(failures))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert failures == []
    assert kept.traceback
