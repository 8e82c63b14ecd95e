"""Cost grows no faster than it must: walks take no more memory, and the figures are sane."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from session_kit.benchmarks.maintainers import growth
from session_kit.benchmarks.maintainers.growth import CALLS, DRIVERS, WALKS, Row
from session_kit.benchmarks.measure import Noise
from session_kit.drivers import base
from session_kit.drivers.support import sqlite_file

ENTRIES = 60
# Some pages of keys. All 20,000 at once would take three megabytes.
PEAK = 500_000

Measure = Callable[[Path, str, int, Noise], Iterator[Row]]


# --- what is measured ---


@pytest.mark.slow  # and tells little of the library
@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize(("measure", "names"), [(growth.calls, CALLS), (growth.walks, WALKS)])
def test_each_call_and_each_walk_on_each_store_is_measured(
    measure: Measure, names: dict[str, object], driver: str, tmp_path: Path
) -> None:
    rows = list(measure(tmp_path, driver, ENTRIES, Noise()))
    assert [row.what for row in rows] == list(names)
    assert all(0 < row.seconds < 1 and row.aside is not None and row.aside > 0 for row in rows)
    if names is CALLS:
        assert all(row.aside is not None and row.seconds <= row.aside < 1 for row in rows)


def test_no_more_files_are_made_than_can_be_waited_for() -> None:
    assert growth.sizes("disk", 1_000_000) == [1_000, 10_000, 100_000, 1_000_000]
    assert growth.sizes("file", 1_000_000) == [1_000, 10_000, 30_000]
    assert growth.sizes("file", 500) == [500]


def test_a_session_in_memory_takes_at_most_400_bytes_beyond_its_value() -> None:
    assert 100 < growth.weight(20_000) <= 400


def test_a_walk_that_misses_entries_is_no_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(WALKS, "keys", lambda store: 59)
    with pytest.raises(RuntimeError, match="keys on memory:// found 59 of 60 entries"):
        list(growth.walks(tmp_path, "memory", ENTRIES, Noise()))


@pytest.mark.slow
def test_what_is_written_says_how_it_was_made_and_shows_every_row(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    growth.main(["--most", "60", "--write"], tmp_path)
    text = (tmp_path / "growth.txt").read_text(encoding="utf-8")
    assert capsys.readouterr().out.strip() == text.strip()
    assert "    python -m session_kit.benchmarks.maintainers.growth --most 60 --write\n" in text
    assert re.search(r"\d{4}-\d\d-\d\d: Python 3.*cores.*noise of the machine", text)
    for driver in DRIVERS:
        for what in (*CALLS, *WALKS):
            assert re.search(rf"^\| {driver}:// \| {what} \| .* / .* \|$", text, re.MULTILINE)
    assert (tmp_path / "growth.png").read_bytes().startswith(b"\x89PNG")


def test_too_few_entries_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        growth.main(["--most", "1"])
    assert "--most must be at least 2" in capsys.readouterr().err


# --- constant memory ---


@pytest.mark.slow
@pytest.mark.parametrize(
    ("driver", "entries", "most"), [("memory", 20_000, PEAK), ("disk", 20_000, PEAK), ("file", 1_500, 100_000)]
)
def test_a_walk_takes_no_more_memory_for_more_entries(
    driver: str, entries: int, most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_file, "CLEAR_BATCH", 1_000)
    if driver == "file":  # making files is slow; smaller pages tell as much
        monkeypatch.setattr(base, "LIST_BATCH", 100)
    peaks: dict[str, float] = {}

    # Python's table of interned strings moves now and then, which is no cost of a walk; it does not move three times.
    for _ in range(3):
        for what in ("length", "keys", "clear", "prune"):
            with growth.traced():
                _, peak = growth.walk(tmp_path, driver, entries, what)  # which makes sure that it finds everything
            peaks[what] = min(peak, peaks.get(what, peak))
        if max(peaks.values()) < most:
            return
    pytest.fail(f"peaks in bytes: {peaks}")
