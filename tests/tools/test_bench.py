"""`session-kit bench` leaves a store as it found it, however it ends, and reports what it has measured."""

from __future__ import annotations

import asyncio
import io
import json
import math
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
from inspect import signature
from itertools import cycle, islice, repeat
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from matplotlib.figure import Figure as Picture

from session_kit import SessionManager, UnstorageSessionStore, open_store
from session_kit.benchmarks.bench import Report, Settings, run
from session_kit.benchmarks.measure import Noise, percentiles
from session_kit.benchmarks.measured_store import MeasuredStore, Meter, like
from session_kit.benchmarks.plot import LOOKS
from session_kit.benchmarks.report import HEADS, Outputs, as_json, cells, show
from session_kit.benchmarks.shift import Shift
from session_kit.benchmarks.workloads import SECRET, WORKLOADS, session_data
from session_kit.cli import main
from session_kit.codec import make_codec
from session_kit.codec.names import CODECS
from session_kit.drivers import (
    ANY,
    ConfigError,
    Driver,
    DriverUnavailable,
    open_driver,
    register_driver,
)
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


def test_a_table_that_it_made_is_told(postgres: Postgres) -> None:
    said: list[str] = []
    postgres.empty()
    for _ in range(2):
        run(Settings([postgres.url], ["get"], seconds=0.001, rounds=1), lambda *_: None, said.append)
        put_foreign(postgres.url)
    assert len([line for line in said if line.endswith("an empty table stays in the database")]) == 1


class SlowWrites(MemoryDriver):
    """Five milliseconds for each entry, also of many."""

    def set(self, key: str, value: bytes, **options: Any) -> object:
        time.sleep(0.005)
        return super().set(key, value, **options)

    set_many = Driver.set_many


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_ctrl_c_is_heard_while_much_is_written_to_a_slow_store() -> None:
    register_driver("slow-writes", SlowWrites)
    settings = Settings(["slow-writes://"], ["delete"], modes=["sync"], concurrency=[500], rounds=1)
    timer = threading.Timer(0.5, signal.raise_signal, [signal.SIGINT])
    timer.start()
    began = time.monotonic()
    with pytest.raises(SystemExit, match="130"):
        run(settings, lambda *_: None, lambda _: None)
    assert time.monotonic() - began < 2  # the stock alone takes 2.5 s


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


@pytest.mark.parametrize("enough", [0, 3])
def test_threads_that_cannot_be_started_are_an_error_and_no_hang(monkeypatch: pytest.MonkeyPatch, enough: int) -> None:
    start, left, errors = threading.Thread.start, iter(range(1 + enough)), []

    def start_some(thread: threading.Thread) -> None:
        if next(left, None) is None:
            raise RuntimeError("can't start new thread")
        start(thread)

    def work() -> None:
        try:
            Shift(0.01).run(str, [repeat(1)] * 5)
        except ConfigError as error:
            errors.append(str(error))

    monkeypatch.setattr(threading.Thread, "start", start_some)
    first = threading.Thread(target=work, daemon=True)
    first.start()
    first.join(5)
    assert errors == [f"only {enough} of 5 threads could be started: can't start new thread"]


def test_all_workers_work_until_the_time_is_up_on_quick_stores_too() -> None:
    lasts: dict[int, float] = {}

    def do(worker: int) -> None:
        lasts[worker] = time.perf_counter()

    shift, began = Shift(0.3), time.perf_counter()
    shift.run(do, [repeat(worker) for worker in range(4)])
    assert shift.elapsed >= 0.3
    assert min(lasts.values()) - began > 0.1  # a thread may have to wait for the others at the end


# --- what it reports ---


@pytest.mark.parametrize("name", WORKLOADS)
def test_no_two_workers_share_an_iterator_and_none_gets_what_another_has_deleted(name: str) -> None:
    measured = MeasuredStore(open_store("memory://"), "memory://", lambda: None, [])
    workload = WORKLOADS[name](measured, 150, 4)
    workload.prepare()
    arguments = workload.arguments(4, None)
    assert len({id(each) for each in arguments}) == 4  # without the GIL two would be given the same item
    if name == "delete":
        keys = [key for own in arguments for key in own]
        assert sorted(keys) == sorted(workload.entries)


def test_deletions_are_measured_for_the_time_that_was_asked_for() -> None:
    report = measure("memory://", workloads=["delete"], modes=["sync"], concurrency=[1], seconds=0.2)
    for figure in report.figures:
        assert figure.operations / figure.rate == pytest.approx(0.2, rel=0.2)


def test_the_durations_that_are_kept_are_a_fair_share_of_those_that_come_in_turns() -> None:
    shift = Shift(math.inf)
    shift.durations.extend(islice(cycle([1, 0, 0, 0]), 40_000))
    shift.thin(10_000)
    assert len(shift.durations) == 10_000
    assert sum(shift.durations) / len(shift.durations) == pytest.approx(0.25, abs=0.05)


def test_a_long_run_keeps_few_durations_and_counts_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("session_kit.benchmarks.bench.KEPT", 10)
    kept: list[int] = []
    monkeypatch.setattr(
        "session_kit.benchmarks.bench.percentiles",
        lambda durations, *rest: (kept.append(len(durations)), percentiles(durations, *rest))[1],
    )
    (figure,) = measure("memory://", workloads=["get"], modes=["sync"], concurrency=[1], rounds=2).figures
    assert kept == [10]
    assert figure.operations > 50


def test_one_round_lies_apart_from_no_other() -> None:
    (figure,) = measure("memory://", workloads=["get"], modes=["sync"], concurrency=[1]).figures
    assert cells(figure)[HEADS.index("±")] == "-"


class Losing(MemoryDriver):
    """Forgets each entry at once."""

    def set(self, key: str, value: bytes, **options: Any) -> object:
        version = super().set(key, value, **options)
        super().delete(key)
        return version


@pytest.mark.parametrize("workload", ["swap", "write"])
def test_a_store_that_loses_what_is_needed_is_named_with_the_row_and_the_others_are_measured(
    workload: str, capsys: pytest.CaptureFixture[str]
) -> None:
    register_driver("losing", Losing)
    report = measure("losing://", "memory://", workloads=[workload], modes=["sync"], concurrency=[1])
    assert {figure.driver for figure in report.figures} == {"memory://"}
    (line,) = report.failures
    assert re.fullmatch(
        rf"losing://: (driver|session) {workload}, 200 B.*: an entry that was written is gone, .*", line
    )
    assert Outputs(None, None).publish(report) == 1
    output, errors = capsys.readouterr()
    assert errors == f"session-kit: {line}\n"
    assert output.index(line) < output.index("median")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("columns", [40, 60, 80, 200])
def test_names_and_figures_are_whole_on_narrow_terminals(
    columns: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    url = "memory://a-name-that-is-longer-than-what-a-narrow-terminal-has-beside-all-of-the-figures"
    report = measure(url, f"disk://{tmp_path}/[red]b[/red]", workloads=["get"])
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")  # to rich, a dumb one has eighty columns
    file = Terminal()
    show(report, file)
    text = re.sub(r"\x1b\[[0-9;]*m", "", file.getvalue())
    lines = text.splitlines()
    assert max(map(len, lines)) <= columns
    words = " ".join(lines).split()
    for figure in report.figures:
        for cell in cells(figure):
            assert cell in words
        assert figure.driver in text.replace("\n", "")


def test_the_names_of_many_stores_are_in_the_picture_and_no_two_look_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(set(LOOKS)) == len(LOOKS) > 50
    saved: list[Picture] = []
    save = Picture.savefig

    def note(picture: Picture, *args: Any, **options: Any) -> None:
        save(picture, *args, **options)
        saved.append(picture)

    monkeypatch.setattr(Picture, "savefig", note)
    urls = [f"memory://{'a-rather-long-name' * times}-{times}" for times in (1, 2, 3, 9)]
    Outputs(None, str(tmp_path / "x.png")).publish(measure(*urls, workloads=["get"], modes=["sync"]))
    (picture,) = saved
    (legend,) = picture.legends
    box = legend.get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= picture.bbox.x1


def test_files_are_written_though_nobody_reads_the_table(tmp_path: Path) -> None:
    found = tmp_path / "found.json"
    with started("bench", "memory://", "--workload", "get", "--rounds", "1", "--json", str(found)) as bench:
        assert bench.stdout is not None
        bench.stdout.close()
        bench.wait(30)
    assert json.loads(found.read_text())["figures"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_file_that_cannot_be_written_is_one_line_and_the_table_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert Outputs("/dev/full", None).publish(measure("memory://", workloads=["get"])) == 1
    output, errors = capsys.readouterr()
    assert "median" in output
    assert errors == "session-kit: /dev/full cannot be written: No space left on device\n"


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


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("wrapped", ["", "+zlib", "+zstd", "+encrypt:KEYS", "+zlib+encrypt:KEYS"])
def test_the_codec_of_a_store_url_is_the_one_that_is_measured(
    name: str, wrapped: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEYS", bytes(range(32)).hex())
    url = f"memory://?codec={quote(name + wrapped)}"
    store = open_store(url)
    session = SessionManager(store, SECRET).open()
    session.set(session_data(4096))
    session.save()
    (stored,) = store.driver.get_many(store.driver.keys()).values()
    report = measure(url, workloads=["read"], sizes=[4096], concurrency=(1,))
    for figure in report.figures:
        assert figure.bytes == pytest.approx(len(stored), abs=30)  # texts of another random token


def test_every_setting_of_a_store_is_the_one_that_is_measured() -> None:
    settings: dict[str, Any] = {"ttl": 7200.0, "hash_ids": False, "codec": make_codec("msgpack"), "clock": lambda: 1.0}
    parameters = signature(UnstorageSessionStore).parameters
    assert {"driver", "prefix", *settings} == parameters.keys(), "a new setting: add it here"
    store = UnstorageSessionStore(MemoryDriver(), prefix="shop", **settings)
    measured = MeasuredStore(like(store, prefix="bench"), "label", lambda: None, [])
    for each in (measured.store, measured.behind(Meter(store.driver)).store):
        assert each.prefix == "bench"
        assert {name: getattr(each, name) for name in settings} == settings


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
    measure("kept://", workloads=["delete", "first", "set"], sizes=[65536], seconds=0.02, modes=["sync"])
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
        assert figure.found == pytest.approx(hits, abs=3 / figure.operations)
        assert not figure.wrong


@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize("hits", [0.3, 0.5, 0.9])
def test_rounds_of_one_read_each_meet_the_share_together(hits: float, mode: str) -> None:
    register_driver("slow", Slow)
    (figure,) = measure(
        "slow://", workloads=["get"], hits=hits, seconds=0.0001, rounds=20, modes=[mode], concurrency=[1]
    ).figures
    assert figure.operations == 20
    assert figure.found == pytest.approx(hits, abs=1 / 20)


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
    for figure in report.figures:
        assert figure.round_trips == {"login": 2, "write": 2}.get(figure.workload, 1)
        if figure.workload in ("get", "set", "swap", "renew"):
            assert figure.bytes == figure.size
        elif figure.workload in ("read", "first"):
            assert figure.size < figure.bytes < figure.size + 60  # the notes of the library


def test_hits_is_the_share_of_reads_that_find_something() -> None:
    report = measure("memory://", workloads=["get", "read"], hits=0.25)
    for figure in report.figures:
        assert figure.round_trips == 1
        assert figure.bytes == pytest.approx(0.25 * (200 if figure.workload == "get" else 241), abs=1)


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
        (["--size", "100"], "a session has 134 B at least; smaller sizes are for workloads of the driver"),
        (["--size", "1MB"], "50 entries of 1000000 B, one a worker, are 50 MB: too much for a store in use"),
        (["--plot", "-"], "--plot needs the name of a file; only --json can be - for stdout"),
        (["--plot", "found.x", "--json", "./found.x"], "--json and --plot are both ./found.x"),
    ],
)
def test_what_cannot_be_measured_is_one_clear_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    line = refused(capsys, monkeypatch, "memory://", *arguments)
    assert line.startswith(f"session-kit: {message}")
    assert line.count("\n") == 1


def test_workloads_that_no_store_can_do_are_one_clear_line() -> None:
    with pytest.raises(ConfigError, match=r"^none of the stores promises what this needs: swap, renew$"):
        measure("fsspec+memory://bench", workloads=["swap", "renew"])


def test_a_missing_matplotlib_is_told_before_anything_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("session_kit.benchmarks.report.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"matplotlib: pip install 'session-kit-web\[bench\]'"):
        Outputs(None, "found.png")


@pytest.mark.parametrize(("ttl", "hours"), [("2h", 2), ("90", 1)])
def test_prefix_and_ttl_of_a_store_url_are_kept_but_nothing_ends_within_the_run(
    ttl: str, hours: int, tmp_path: Path
) -> None:
    url, seen = f"disk://{tmp_path}/store", set()
    with closing(open_driver(url)) as driver:

        def tell(done: int, steps: int, what: str) -> None:
            for key in driver.keys():
                entry = driver.read(key)
                assert entry is not None
                assert entry.expires_at is not None
                seen.add((key.partition("-bench-")[0], round((entry.expires_at - time.time()) / 3600)))

        settings = Settings([f"{url}?prefix=shop&ttl={ttl}"], ["get", "first"], seconds=0.001, rounds=1)
        run(settings, tell, lambda _: None)
    assert seen == {("shop", hours)}


def test_a_ttl_that_is_no_time_is_one_clear_line() -> None:
    with pytest.raises(ConfigError, match="ttl: '7x' is not a duration"):
        measure("memory://?ttl=7x")


@pytest.mark.parametrize(("name", "begin"), [("x.png", b"\x89PNG"), ("x.svg", b"<?xml"), ("x.pdf", b"%PDF")])
def test_a_picture_is_what_its_name_says(tmp_path: Path, name: str, begin: bytes) -> None:
    Outputs(None, str(tmp_path / name)).publish(measure("memory://", workloads=["get"]))
    assert (tmp_path / name).read_bytes().startswith(begin)
