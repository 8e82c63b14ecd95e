"""Files that are not ours lie beside the entries: whatever their names, nobody lists or deletes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pytest

from session_kit.drivers import Driver, open_driver
from session_kit.drivers.support.envelope import HEADER
from session_kit.testing import ManualClock

# Keys could have any of these names.
STRANGERS = {"id_rsa": b"-----BEGIN KEY-----" + b"x" * 300, "secret": b"short", "empty": b"", "nul": b"\0" * 100}
Place = tuple[Driver, ManualClock, Callable[[str], bytes | None], Callable[[str, bytes], object]]


@pytest.fixture(params=["file", "fsspec+file", "fsspec+memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """A store, its clock, and what reads and writes a file in it by its name."""
    monkeypatch.setattr("session_kit.drivers.fsspec.WAITS", (0.0,))  # for a torn file to be whole
    clock = ManualClock()
    folder = tmp_path / "store"
    folder.mkdir(mode=0o700)
    files = fsspec.filesystem(request.param.removeprefix("fsspec+"))
    driver = open_driver(f"{request.param}://{folder}", clock=clock)
    files.makedirs(str(folder), exist_ok=True)

    def load(name: str) -> bytes | None:
        path = f"{folder}/{name}"
        return bytes(files.cat_file(path)) if files.exists(path) else None

    yield driver, clock, load, lambda name, data: files.pipe_file(f"{folder}/{name}", data)
    driver.close()


def test_what_is_not_ours_is_neither_listed_nor_pruned_nor_cleared(place: Place) -> None:
    driver, clock, load, put = place
    for name, data in STRANGERS.items():
        put(name, data)
    driver.set("old", b"value", ttl=10)
    driver.set("new", b"value", ttl=1000)
    clock.advance(100)
    assert sorted(driver.keys()) == ["new"]
    assert driver.prune() == 1
    assert driver.clear() == 1
    assert {name: load(name) for name in STRANGERS} == STRANGERS


def test_an_entry_lies_where_its_url_says(place: Place) -> None:
    driver, _, load, _ = place
    driver.set("key", b"value")
    assert load("key")


def test_a_damaged_entry_does_not_keep_others_from_being_pruned(place: Place) -> None:
    driver, clock, load, put = place
    names = [f"key{number}" for number in range(5)]
    for name in names:
        driver.set(name, b"value", ttl=10)
    torn = load("key2")
    assert torn is not None
    put("key2", torn[: HEADER.size // 2])
    clock.advance(100)
    assert driver.prune() >= 4
    assert [name for name in names if load(name) is not None] in ([], ["key2"])
    assert driver.prune() == 0
