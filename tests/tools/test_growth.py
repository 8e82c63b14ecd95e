"""Cost grows no faster than it must: walks take no more memory, processes lose nothing, and the figures are sane."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from session_kit.benchmarks.maintainers import growth
from session_kit.benchmarks.maintainers.growth import PARTS, WALKS, Row, Scale, Stock
from session_kit.benchmarks.measure import Noise
from session_kit.drivers import base
from session_kit.drivers.support import sqlite_file

QUICK = Scale(most=60, seconds=0.02, threads=(1, 3), processes=(2,), shared=50, counts=30)
# Some pages of keys. All 20,000 at once would take three megabytes.
PEAK = 500_000


@pytest.fixture
def stock(tmp_path: Path) -> Stock:
    return Stock(tmp_path)


def measured(name: str, stock: Stock, scale: Scale = QUICK) -> list[Row]:
    return list(PARTS[name].measure(stock, scale, Noise()))


# --- what is measured ---

# A whole part takes long, and tells little of the library.
slow = pytest.mark.slow


@slow
def test_each_call_on_each_store_is_measured(stock: Stock) -> None:
    rows = measured("entries", stock)
    calls = [(row.driver, row.what) for row in rows if row.aside is not None]
    assert calls == [(driver, what) for driver in growth.DRIVERS for what in ("get", "set", "renew", "delete")]
    assert all(0 < row.cost <= row.aside < 1 for row in rows if row.aside is not None)


def test_a_session_in_memory_takes_at_most_400_bytes_beyond_its_value(stock: Stock) -> None:
    assert 100 < growth.weight(20_000) <= 400


@slow
def test_each_walk_is_measured_and_finds_everything(stock: Stock) -> None:
    rows = measured("walks", stock)
    assert [(row.driver, row.what) for row in rows] == [(driver, what) for driver in growth.DRIVERS for what in WALKS]
    assert all(row.cost > 0 and row.aside is not None and row.aside > 0 for row in rows)


def test_a_walk_that_misses_entries_is_no_figure(stock: Stock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(WALKS, "keys", lambda store: 59)
    with pytest.raises(RuntimeError, match="keys on memory:// found 59 of 60 entries"):
        measured("walks", stock)


@slow
def test_threads_side_by_side_are_measured(stock: Stock) -> None:
    rows = measured("threads", stock)
    assert [(row.driver, row.size) for row in rows] == [
        (driver, count) for driver in growth.DRIVERS for count in (1, 3)
    ]
    assert all(row.cost > 10 and row.aside is not None and 0 < row.aside < 5 for row in rows)


def test_processes_that_count_on_one_number_lose_nothing(stock: Stock) -> None:
    rows = measured("processes", stock)
    assert [(row.driver, row.what) for row in rows] == [
        (driver, what) for driver in ("sqlite", "disk", "file") for what in ("mixed", "lost", "counting")
    ]
    assert [row.cost for row in rows if row.what == "lost"] == [0, 0, 0]
    assert all(row.cost > 1 for row in rows if row.what != "lost")


def test_what_is_written_says_how_it_was_made_and_shows_every_row(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def some(stock: Stock, scale: Scale, noise: Noise) -> Iterator[Row]:
        for part in ("mixed", "counting"):
            yield Row("disk", part, 1, 1234.0, 0.002)
            yield Row("disk", part, 2, 2345.0, 0.003)

    for name, part in PARTS.items():
        monkeypatch.setitem(PARTS, name, part._replace(measure=some))
    growth.run(["threads", "processes"], QUICK, "the command", tmp_path)
    text = (tmp_path / "growth.txt").read_text(encoding="utf-8")
    assert capsys.readouterr().out.strip() == text.strip()
    assert "    the command\n" in text
    assert re.search(r"\d{4}-\d\d-\d\d: Python 3.*cores.*noise of the machine", text)
    assert text.count("| disk:// | mixed | 1.23 k / 2 ms | 2.35 k / 3 ms |") == 2
    for name in ("threads", "processes"):
        assert (tmp_path / f"growth-{name}.png").read_bytes().startswith(b"\x89PNG")


def test_an_unknown_part_is_refused_with_the_names_of_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        growth.main(["walk"])
    assert "there is no part 'walk'; the parts are entries, walks, threads, processes" in capsys.readouterr().err


# --- constant memory ---


@pytest.mark.parametrize(
    ("driver", "entries", "most"), [("memory", 20_000, PEAK), ("disk", 20_000, PEAK), ("file", 1_500, 100_000)]
)
def test_a_walk_takes_no_more_memory_for_more_entries(
    driver: str, entries: int, most: int, stock: Stock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_file, "CLEAR_BATCH", 1_000)
    if driver == "file":  # making files is slow; smaller pages tell as much
        monkeypatch.setattr(base, "LIST_BATCH", 100)
    peaks: dict[str, float] = {}

    # Python's table of interned strings moves now and then, which is no cost of a walk; it does not move three times.
    for _ in range(3):
        for what in ("length", "keys", "clear", "prune"):
            with growth.traced():
                _, peak = growth.walk(stock, driver, entries, what)  # which makes sure that it finds everything
            peaks[what] = min(peak, peaks.get(what, peak))
        if max(peaks.values()) < most:
            return
    pytest.fail(f"peaks in bytes: {peaks}")
