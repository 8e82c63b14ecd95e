"""`session-kit bench` leaves a store as it found it, however it ends, and reports what it has measured."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import struct
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from itertools import repeat
from pathlib import Path
from typing import Any

import pytest

from session_kit.benchmarks.bench import Report, Settings, run
from session_kit.benchmarks.measure import Noise
from session_kit.benchmarks.report import Outputs, as_json, cells
from session_kit.benchmarks.shift import Shift
from session_kit.cli import main
from session_kit.drivers import ANY, ConfigError, DriverUnavailable, open_driver, register_driver
from session_kit.drivers.memory import MemoryDriver
from tests.harness.postgres import Postgres
from tests.harness.scripts import started
from tests.harness.servers import S3Server, Valkey, free_ports, start_valkey, wait_until

FOREIGN = {"sess:" + "0" * 64: b"{}", "sess-bench:1": b"foreign", "other": b"foreign"}


def measure(*urls: str, **settings: Any) -> Report:
    """A short run."""
    quick = {"seconds": 0.001, "rounds": 1, "concurrency": (1, 3)}
    return run(Settings(urls, **(quick | settings)), lambda *_: None, lambda _: None)


def put_foreign(url: str) -> None:
    with closing(open_driver(url)) as driver:
        driver.set_many(FOREIGN)


def check_foreign(url: str) -> None:
    """Nothing is there but what others had put there."""
    with closing(open_driver(url)) as driver:
        assert driver.get_many(driver.keys()) == FOREIGN


# --- it leaves a store as it found it ---


@pytest.fixture(params=["disk", "file", "valkey", "postgres", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A store in which others have put something."""
    if request.param == "valkey":
        server: Valkey = request.getfixturevalue("valkey")
        server.ask("FLUSHALL")
        url = server.url
    elif request.param == "postgres":
        database: Postgres = request.getfixturevalue("postgres")
        database.empty()
        url = database.url
    elif request.param == "s3":
        weed: S3Server = request.getfixturevalue("seaweed")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", weed.access_key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", weed.secret_key)
        with closing(weed.client()) as client:
            client.create_bucket(Bucket="bench")
        url = f"s3://bench?endpoint_url={weed.endpoint_url}&region=us-east-1"
    else:
        url = f"{request.param}://{tmp_path}/store"
    put_foreign(url)
    yield url
    check_foreign(url)


def test_what_it_wrote_is_gone_and_nothing_else(url: str) -> None:
    writing = ["set", "delete", "first", "login"]
    report = measure(url, workloads=writing, hits=0.5, concurrency=[3], seconds=0.0001)
    assert {figure.workload for figure in report.figures} == set(writing)


@pytest.fixture
def in_the_background() -> Iterator[None]:
    """SIGINT is ignored, as shells have it for jobs in the background."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.usefixtures("in_the_background")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_it_wrote_is_gone_after_a_signal(number: int, valkey: Valkey, tmp_path: Path) -> None:
    urls = [f"disk://{tmp_path}", valkey.url]
    valkey.ask("FLUSHALL")
    for url in urls:
        put_foreign(url)
    # The first that is measured makes new sessions on disk, by fifty threads.
    with started(
        "bench", *urls, "--workload", "first", "--workload", "login", "--seconds", "60", "--concurrency", "50"
    ) as bench:
        with closing(open_driver(urls[0])) as disk:
            wait_until(lambda: sum(1 for _ in disk.keys("sess-bench-")) > 300, "the benchmark")
        bench.send_signal(number)
        output, errors = bench.communicate(timeout=15)
    assert (bench.returncode, output) == (128 + number, "")
    assert errors == "session-kit: stopped, and deleted what was written\n"
    for url in urls:
        check_foreign(url)


def test_an_outage_of_one_store_leaves_nothing_in_the_others(tmp_path: Path) -> None:
    others = f"disk://{tmp_path}/store"
    put_foreign(others)
    said: list[str] = []
    with start_valkey(tmp_path, password="s3cret-password") as server:

        def tell(done: int, steps: int, what: str) -> None:
            if steps > 1 and done > steps // 2:
                server.kill()

        settings = Settings([others, server.url], ["get", "login"], seconds=0.001, rounds=2)
        report = run(settings, tell, said.append)
    first, *_, last = report.failures
    assert re.fullmatch(r"redis://127.0.0.1:\d+/0: (driver|session) \w+, 200 B.*: .*refused.*", first)
    assert re.fullmatch(r"redis://.*: entries that begin with sess-bench-\w+: may be left .* after 86400 s: .*", last)
    assert {figure.workload for figure in report.figures if figure.driver == others} == {"get", "login"}
    check_foreign(others)


def test_a_store_that_is_down_from_the_start_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    others = f"disk://{tmp_path}/store"
    put_foreign(others)
    line = refused(capsys, monkeypatch, others, f"redis://ada:s3cret@127.0.0.1:{free_ports(1)[0]}", code=1)
    assert re.fullmatch(r"session-kit: redis://127.0.0.1:\d+: .*refused\n", line)
    check_foreign(others)


def test_a_folder_that_it_made_is_told(tmp_path: Path) -> None:
    said: list[str] = []
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "cache.db").touch()
    for name in ("new", "old"):
        run(Settings([f"disk://{tmp_path}/{name}"], ["get"], seconds=0.001, rounds=1), lambda *_: None, said.append)
    assert said == [f"disk://{tmp_path}/new: an empty store stays in the folder"]


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_nobody_writes_any_more_once_an_operation_has_failed(mode: str) -> None:
    busy, ended = threading.Event(), []

    def do(worker: str) -> None:
        if worker == "fails":
            busy.wait(5)
            raise DriverUnavailable("down")
        busy.set()
        time.sleep(0.05)
        ended.append(worker)

    shift, arguments = Shift(5), [repeat("slow"), repeat("fails")]
    with pytest.raises(DriverUnavailable):
        if mode == "sync":
            shift.run(do, arguments)
        else:
            asyncio.run(shift.arun(lambda worker: asyncio.to_thread(do, worker), arguments))
    assert ended == ["slow"]


# --- what it reports ---


def test_table_json_and_picture_hold_what_was_measured_and_no_password(tmp_path: Path) -> None:
    found, picture = tmp_path / "found.json", tmp_path / "found.png"
    quick = ["--seconds", "0.001", "--rounds", "2", "--mode", "async", "--concurrency", "1", "--concurrency", "2"]
    some = ["--workload", "get", "--workload", "read", "--workload", "renew", "--size", "200", "--size", "4KB"]
    with start_valkey(tmp_path, password="s3cret-password") as server:
        urls = [server.url, f"disk://{tmp_path}/store", "memory://", "memory://"]
        with started("bench", *urls, *quick, *some, "--json", str(found), "--plot", str(picture)) as bench:
            table, errors = bench.communicate(timeout=30)
    assert (bench.returncode, errors) == (
        0,
        f"session-kit: disk://{tmp_path}/store: an empty store stays in the folder\n",
    )
    content = json.loads(found.read_text())
    names = [f"redis://127.0.0.1:{server.port}/0", f"disk://{tmp_path}/store", "memory://", "memory:// #2"]
    assert content["drivers"] == names
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", content["date"])
    assert {"Python", "session-kit-web", "redis", "diskcache"} <= content["versions"].keys()
    assert 0 <= content["noise"] < 100

    rows = [line.split() for line in table.splitlines()]
    rows = [row for row in rows if len(row) >= 8 and row[-3].endswith("%")]
    # Two numbers of workers, two sizes, and one of three workloads that the disk does not promise.
    assert len(rows) == len(content["figures"]) == 2 * 2 * (4 + 4 + 3)
    for row, figure in zip(rows, content["figures"], strict=True):
        assert " ".join(row[:-7]).endswith(figure["driver"])
        for text, name in zip(row[-7:-3], ("median_us", "p95_us", "p99_us", "ops_per_second"), strict=True):
            assert float(text) == pytest.approx(figure[name], rel=0.02, abs=0.51)
        assert float(row[-2]) == figure["round_trips"] == 1
        assert float(row[-1]) == pytest.approx(figure["bytes"], abs=0.5)
        assert figure["median_us"] <= figure["p95_us"] <= figure["p99_us"]
        assert figure["operations"] >= 2
    assert f"renew: not for disk://{tmp_path}/store, which does not promise it (renew)" in table
    # A row for each number of workers and each size.
    assert re.findall(r"^ +(\S+) +n/a *$", table, re.MULTILINE) == [f"disk://{tmp_path}/store"] * 4
    assert "noise of the machine" in table

    pixels = picture.read_bytes()
    assert pixels.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", pixels[16:24])
    assert 700 < width < 3000
    assert 400 < height < 6000
    assert "s3cret" not in table + found.read_text() + pixels.decode("latin-1")


@pytest.mark.parametrize(
    ("codec", "least", "most"), [("json", 4000, 4300), ("msgpack", 3900, 4200), ("json+zlib", 1, 999)]
)
def test_the_codec_of_a_store_url_is_the_one_that_is_measured(codec: str, least: int, most: int) -> None:
    report = measure(f"memory://?codec={codec}", workloads=["read"], sizes=[4096], concurrency=(1,))
    assert all(least < figure.counted.bytes < most for figure in report.figures)


class Kept(MemoryDriver):
    """Knows the most bytes that it has held."""

    peak = 0

    def set_many(self, items: Mapping[str, bytes], *, ttl: float | None = None) -> None:
        super().set_many(items, ttl=ttl)
        self.look()

    def set(self, key: str, value: bytes, *, ttl: float | None = None, expect: object = ANY) -> object:
        version = super().set(key, value, ttl=ttl, expect=expect)
        self.look()
        return version

    def look(self) -> None:
        Kept.peak = max(Kept.peak, sum(map(len, self.get_many(self.keys()).values())))


def test_so_little_is_written_that_a_store_with_a_limit_evicts_nobody_elses_entries(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Kept, "peak", 0)
    register_driver("kept", Kept)
    measure("kept://", workloads=["delete", "first", "set"], sizes=[65536], seconds=0.2, modes=["sync"])
    assert 65536 < Kept.peak < 9_000_000


class Forgetful(MemoryDriver):
    """Answers with what it was not given."""

    def get(self, key: str) -> bytes | None:
        return b"another"


def test_a_store_that_loses_entries_is_named_before_the_figures(capsys: pytest.CaptureFixture[str]) -> None:
    register_driver("forgetful", Forgetful)
    report = measure("forgetful://", "memory://", workloads=["get"], modes=["sync"])
    assert [figure.found for figure in report.figures] == [0, 1, 0, 1]
    Outputs(None, None).publish(report)
    output = capsys.readouterr().out
    before, _, _ = output.partition("driver get")
    assert "Written entries were lost, evicted or mixed up in forgetful://:" in before
    assert "100% of the reads found something" not in output


class Slow(MemoryDriver):
    def get(self, key: str) -> bytes | None:
        time.sleep(0.001)
        return super().get(key)


@pytest.mark.parametrize("url", ["memory://", "slow://"])
@pytest.mark.parametrize("hits", [0.0, 0.3, 0.9, 1.0])
def test_as_many_reads_find_something_as_were_asked_for_on_slow_stores_too(url: str, hits: float) -> None:
    register_driver("slow", Slow)
    report = measure(url, workloads=["get"], hits=hits, seconds=0.02, rounds=2, modes=["sync"])
    for figure in report.figures:
        assert figure.found == pytest.approx(hits, abs=3 / figure.summary.operations)
        assert not figure.wrong


class LoudMachine(Noise):
    spread = 0.64


class QuietMachine(Noise):
    spread = 0.5


def test_a_noisy_machine_is_said_before_the_figures_and_in_the_picture(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    report = measure("memory://", workloads=["get"])
    for noise, said in ((LoudMachine(), True), (QuietMachine(), False)):
        Outputs(None, str(tmp_path / "found.svg")).publish(replace(report, noise=noise))
        output = capsys.readouterr().out
        assert output.startswith("The machine was busy: a fixed loop took up to 64% longer") is said
        # Text of an SVG is drawn, with a comment that says what it is.
        assert ("<!-- The machine was busy: a fixed loop" in (tmp_path / "found.svg").read_text()) is said


def test_json_on_stdout_is_json_alone(capsys: pytest.CaptureFixture[str]) -> None:
    report = measure("memory://", workloads=["get"])
    Outputs("-", None).publish(report)
    output, errors = capsys.readouterr()
    assert json.loads(output)["figures"] == json.loads(as_json(report))["figures"]
    assert "median" in errors
    for figure in report.figures:
        assert cells(figure)[0] in errors


@pytest.mark.parametrize("scheme", ["memory", "disk"])
def test_round_trips_and_bytes_are_those_of_the_budget(scheme: str, tmp_path: Path) -> None:
    url = "memory://" if scheme == "memory" else f"disk://{tmp_path}/store"
    report = measure(url, sizes=[200, 4000], concurrency=[1], seconds=0.0001)
    found = {(f.workload, f.size, f.mode): f.counted for f in report.figures}
    for (workload, size, _), counted in found.items():
        assert counted.round_trips == {"login": 2, "write": 2}.get(workload, 1)
        if workload in ("get", "set", "swap", "renew"):
            assert counted.bytes == size
        elif workload in ("read", "first"):
            assert size < counted.bytes < size + 60  # the notes of the library


def test_hits_is_the_share_of_reads_that_find_something() -> None:
    report = measure("memory://", workloads=["get", "read"], hits=0.25)
    for figure in report.figures:
        assert figure.counted.round_trips == 1
        assert figure.counted.bytes == pytest.approx(0.25 * (200 if figure.workload == "get" else 241), abs=1)


def test_what_a_driver_does_not_promise_is_left_out_with_a_word() -> None:
    report = measure("fsspec+memory://bench", "memory://", workloads=["swap", "write"])
    assert report.left_out == ["swap: not for fsspec+memory://bench, which does not promise it (swap)"]
    assert {(f.workload, f.driver) for f in report.figures} == {
        ("swap", "memory://"),
        ("write", "memory://"),
        ("write", "fsspec+memory://bench"),
    }


# --- what it refuses ---


def refused(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str, code: int = 2) -> str:
    """Run the command line and return what it says when it does not want to."""
    monkeypatch.setattr(sys, "argv", ["session-kit", "bench", *arguments])
    with pytest.raises(SystemExit) as caught:
        main()
    output, errors = capsys.readouterr()
    assert (caught.value.code, output) == (code, "")
    return errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workload", "reed"], "there is no workload 'reed'; there are get, set, swap, renew, delete, list, read, "),
        (["--mode", "threads"], "there is no mode 'threads'; there are sync, async"),
        (["--size", "4 apples"], "size: '4 apples' is not a size like 64KB, 10MiB or 2GiB"),
        (["--concurrency", "0"], "concurrency is a number of workers from 1 to 500"),
        (["--hits", "50"], "hits is a share between 0 and 1, not 50"),
        (["--seconds", "0"], "seconds must be above 0, and rounds at least 1"),
        (["--rounds", "0"], "seconds must be above 0, and rounds at least 1"),
        (["--json", "/nowhere/found.json"], "/nowhere/found.json cannot be written"),
        (["memory://?max_entrys=5"], "memory://: unknown option 'max_entrys'; did you mean 'max_entries'?"),
        (["rediss"], "a store URL needs a scheme"),
        (["memory://shop?ttl=90"], "memory://shop: ttl=90 may end before the benchmark does"),
    ],
)
def test_what_cannot_be_measured_is_one_clear_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    line = refused(capsys, monkeypatch, "memory://", *arguments)
    assert line.startswith(f"session-kit: {message}")
    assert line.count("\n") == 1


def test_a_missing_matplotlib_is_told_before_anything_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("session_kit.benchmarks.report.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"matplotlib: pip install 'session-kit-web\[bench\]'"):
        Outputs(None, "found.png")


def test_prefix_and_ttl_of_a_store_url_are_kept(tmp_path: Path) -> None:
    url, seen = f"disk://{tmp_path}/store", set()
    with closing(open_driver(url)) as driver:

        def tell(done: int, steps: int, what: str) -> None:
            for key in driver.keys():
                entry = driver.read(key)
                assert entry is not None
                assert entry.expires_at is not None
                seen.add((key.partition("-bench-")[0], round((entry.expires_at - time.time()) / 3600)))

        run(Settings([url + "?prefix=shop&ttl=2h"], ["get", "first"], seconds=0.001, rounds=1), tell, lambda _: None)
    assert seen == {("shop", 2)}


def test_a_store_whose_ttl_is_too_short_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="may end before the benchmark does"):
        measure(f"file://{tmp_path}/store?ttl=90")
    assert list(tmp_path.iterdir()) == []


def test_a_ttl_that_is_no_time_is_one_clear_line() -> None:
    with pytest.raises(ConfigError, match="ttl: '7x' is not a duration"):
        measure("memory://?ttl=7x")


@pytest.mark.parametrize(("name", "begin"), [("x.png", b"\x89PNG"), ("x.svg", b"<?xml"), ("x.pdf", b"%PDF")])
def test_a_picture_is_what_its_name_says(tmp_path: Path, name: str, begin: bytes) -> None:
    Outputs(None, str(tmp_path / name)).publish(measure("memory://", workloads=["get"]))
    assert (tmp_path / name).read_bytes().startswith(begin)
