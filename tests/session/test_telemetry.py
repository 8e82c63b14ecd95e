"""An operator is told what matters, not a line a request; what is measured is right; no secret is in any of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from starlette.testclient import TestClient

from session_kit import ConfigError, Conflict, DriverUnavailable, SessionManager, UnstorageSessionStore, open_driver
from session_kit.asgi import SessionMiddleware, use_session
from session_kit.codec import Encrypted
from session_kit.drivers.memory import MemoryDriver
from session_kit.integrations.opentelemetry import instrument
from session_kit.journal import AGAIN_AFTER, QUIET
from session_kit.policy import Event, EventName
from session_kit.telemetry import Call, watch
from session_kit.testing import FaultyDriver, ManualClock, Visitor
from tests.harness.servers import start_valkey
from tests.harness.sessions import SECRET, PlainStore

Line = tuple[str, str]
ENCRYPTION_KEY = "3f1c9a0b7d2e4856a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60719"


@pytest.fixture
def faulty(clock: ManualClock) -> FaultyDriver:
    return FaultyDriver(MemoryDriver(clock=clock))


@pytest.fixture
def visitor(faulty: FaultyDriver, clock: ManualClock, runner: asyncio.Runner | None) -> Visitor:
    """Of an application that does not listen to events."""
    return Visitor(SessionManager(UnstorageSessionStore(faulty, ttl=10**6), SECRET, clock=clock), runner)


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Callable[[], list[Line]]:
    """What the log `session_kit` has said since it was asked last, at INFO and above."""
    caplog.set_level(logging.INFO, "session_kit")

    def lines() -> list[Line]:
        ours = [record for record in caplog.records if record.name.startswith("session_kit")]
        found = [(record.levelname, record.getMessage()) for record in ours]
        caplog.clear()
        return found

    return lines


def ask(visitor: Visitor, times: int = 1, **data: Any) -> None:
    for _ in range(times):
        with suppress(DriverUnavailable), visitor.request() as session:
            session.update(data)


def use(visitor: Visitor, user: str) -> str | None:
    """A write, a merge, and a login whose old cookie comes once more; returns that cookie."""
    ask(visitor, a=1)
    with visitor.request() as slow:
        slow["b"] = 1
        ask(visitor, c=1)
    old = visitor.cookie
    ask(visitor, user=user)
    with visitor.request(old):
        pass
    return old


# --- the log ---


def test_an_outage_is_one_warning_and_its_end_one_line(
    ada: Visitor, faulty: FaultyDriver, clock: ManualClock, lines: Callable[[], list[Line]]
) -> None:
    policy = ada.manager.policy
    assert policy.on_event is None  # nobody is told what happens in every request
    faulty.fail("renew")
    ask(ada, 300)
    assert lines() == [("WARNING", "the store does not answer: down for a test")]
    clock.advance(AGAIN_AFTER)
    ask(ada, 5)
    more = "; 299 times more since the line before"
    assert lines() == [("WARNING", f"the store does not answer: down for a test{more}")]
    faulty.heal()
    ask(ada, 10)
    assert lines() == []  # it may go away again at once
    clock.advance(QUIET)
    ask(ada, 10)
    assert lines() == [("INFO", f"the store answers again after {AGAIN_AFTER + QUIET:.0f} s; failures: 305")]
    assert policy.on_event is None
    faulty.fail("renew", DriverUnavailable("down for another reason"))
    ask(ada, 3)
    assert lines() == [("WARNING", "the store does not answer: down for another reason")]  # though it is soon
    faulty.heal()
    clock.advance(QUIET)
    ask(ada)
    assert [level for level, _ in lines()] == ["INFO"]
    ask(ada, 10, a=1)
    assert lines() == []


def test_a_store_that_reads_but_does_not_write_is_no_line_a_request(
    ada: Visitor, faulty: FaultyDriver, clock: ManualClock, lines: Callable[[], list[Line]]
) -> None:
    faulty.fail("set")
    for second in range(300):
        ask(ada, a=second)
        clock.advance(1)
    found = lines()
    assert [level for level, _ in found] == ["WARNING"] * 5
    assert "59 times more since the line before" in found[1][1]


def test_a_second_outage_that_lasts_is_told_though_the_first_was_a_moment_ago(
    ada: Visitor, faulty: FaultyDriver, clock: ManualClock, lines: Callable[[], list[Line]]
) -> None:
    for _ in range(2):
        faulty.fail("renew")
        ask(ada, 3)
        faulty.heal()
        clock.advance(QUIET)
        ask(ada)
    assert [level for level, _ in lines()] == ["WARNING", "INFO"]  # the second was short
    faulty.fail("renew")
    ask(ada, 3)
    clock.advance(QUIET)
    ask(ada, 300)
    assert [level for level, _ in lines()] == ["WARNING"]
    faulty.heal()
    clock.advance(QUIET)
    ask(ada, 3)
    assert lines() == [("INFO", f"the store answers again after {2 * QUIET:.0f} s; failures: 303")]


def test_a_clock_that_goes_back_makes_no_outage_shorter_than_nothing(
    ada: Visitor, faulty: FaultyDriver, clock: ManualClock, lines: Callable[[], list[Line]]
) -> None:
    faulty.fail("renew")
    ask(ada)
    faulty.heal()
    clock.advance(-100)
    ask(ada)
    assert lines()[1:] == [("INFO", "the store answers again after 0 s; failures: 1")]


def test_a_store_that_comes_and_goes_is_no_line_a_request(
    ada: Visitor, faulty: FaultyDriver, clock: ManualClock, lines: Callable[[], list[Line]]
) -> None:
    for _ in range(30):
        faulty.fail("renew", times=1)
        ask(ada, 2)
        clock.advance(QUIET + 5)
        ask(ada, 2)
    assert [level for level, _ in lines()] == ["WARNING", "INFO"] * 5


def test_an_outage_that_a_handler_meets_by_name_is_told_when_the_client_is(
    faulty: FaultyDriver, lines: Callable[[], list[Line]]
) -> None:
    async def fails(scope: Any, receive: Any, send: Any) -> None:
        session = await use_session(scope)
        session["a"] = 1
        await session.asave()

    manager = SessionManager(UnstorageSessionStore(faulty), SECRET)
    client = TestClient(SessionMiddleware(fails, manager=manager))
    faulty.fail("set")
    for _ in range(10):
        assert client.post("/").status_code == 503
    assert lines() == [("WARNING", "the store does not answer: down for a test")]


def test_others_that_are_faster_are_no_outage(
    ada: Visitor, faulty: FaultyDriver, lines: Callable[[], list[Line]], monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    ada.manager.policy.listen(lambda event: events.append(event.name))
    monkeypatch.setattr("session_kit.owners.MAX_ATTEMPTS", 3)
    for visitor in (ada, Visitor(ada.manager, ada.runner)):
        with visitor.request() as session:
            visitor.do(session, "bind", user_id="ada")
    faulty.fail("set", Conflict("others were faster"), times=3)  # at the list of the user's sessions
    with ada.request() as session:
        ada.do(session, "destroy")
    assert events[-2:] == ["destroyed", "store_error"]
    assert lines() == []


def test_a_wrong_clock_does_not_silence_the_log(
    ada: Visitor, faulty: FaultyDriver, clock: ManualClock, lines: Callable[[], list[Line]]
) -> None:
    faulty.fail("renew")
    ask(ada)
    clock.advance(-3600)
    ask(ada)
    assert [level for level, _ in lines()] == ["WARNING", "WARNING"]
    faulty.heal()
    clock.advance(-3600)
    ask(ada)
    assert [level for level, _ in lines()] == ["INFO"]


@dataclass
class Other:
    items: int


def test_what_is_wrong_with_records_and_cookies_is_told_once_in_a_while(
    ada: Visitor, faulty: FaultyDriver, clock: ManualClock, lines: Callable[[], list[Line]]
) -> None:
    whole = ada.manager
    typed = SessionManager(whole.store, SECRET, clock=clock, data_type=Other, generate=lambda: Other(1))
    locked = SessionManager(whole.store.with_codec(Encrypted(ENCRYPTION_KEY)), SECRET, clock=clock)
    good = ada.cookie
    for level, manager, cookie, text in (
        ("WARNING", typed, good, "does not fit data_type"),
        ("WARNING", locked, good, "is left alone"),
        ("INFO", whole, f"{good}x", "has a wrong signature"),
    ):
        ada.manager = manager
        for _ in range(2):
            for _ in range(20):
                with ada.request(cookie) as session:
                    assert "user" not in session
            [found] = lines()
            assert found[0] == level
            assert text in found[1]
            clock.advance(AGAIN_AFTER)
        assert "19 times more" in found[1]
    ada.manager = whole
    for number in range(3):
        with ada.request() as session:
            session["user"] = "ada"
        (key,) = faulty.keys()
        faulty.set(key, b"{")
        with ada.request() as session:
            assert "user" not in session
        found = lines()[0] if number == 0 else ("", "")
        assert number or "cannot be decoded" in found[1]
    assert lines() == []


def test_at_debug_each_event_is_a_line_and_without_it_none_is(
    faulty: FaultyDriver, clock: ManualClock, runner: asyncio.Runner | None, caplog: pytest.LogCaptureFixture
) -> None:
    said = {}
    for level in (logging.INFO, logging.DEBUG):
        with caplog.at_level(level, "session_kit"):
            visitor = Visitor(SessionManager(UnstorageSessionStore(faulty), SECRET, clock=clock), runner)
            use(visitor, user="ada")
            with visitor.request() as session:
                visitor.do(session, "destroy")
        said[level] = [record.getMessage().partition(" ")[0] for record in caplog.records]
        caplog.clear()
    assert said[logging.INFO] == []
    assert set(said[logging.DEBUG]) == {"created", "loaded", "saved", "merged", "rotated", "displaced", "destroyed"}


# --- the calls of the store ---


@pytest.fixture
def calls() -> list[Call]:
    return []


def test_each_call_is_told_with_what_came_of_it(ada: Visitor, faulty: FaultyDriver, calls: list[Call]) -> None:
    watch(ada.manager, calls.append)

    def seen() -> list[tuple[str, str]]:
        found = [(call.operation, call.outcome) for call in calls]
        assert all(call.store == "memory" and 0 <= call.seconds < 10 for call in calls)
        calls.clear()
        return found

    ask(ada)
    assert seen() == [("load", "hit")]
    ask(ada, a=1)
    assert seen() == [("load", "hit"), ("save", "ok")]
    with ada.request() as slow:
        slow["b"] = 1
        ask(ada, c=1)
    assert seen()[3:] == [("save", "conflict"), ("load", "hit"), ("save", "ok")]
    with ada.request() as session:
        ada.do(session, "bind", user_id="ada")
    assert seen() == [("load", "hit"), ("index", "ok"), ("index", "ok"), ("save", "ok")]
    faulty.fail("renew", times=1)
    ask(ada)
    assert seen() == [("load", "unavailable")]
    faulty.fail("renew", ZeroDivisionError(), times=1)
    with pytest.raises(ZeroDivisionError):
        ask(ada)
    assert seen() == [("load", "error")]
    cookie = ada.cookie
    with ada.request() as session:
        ada.do(session, "destroy")
    assert seen()[:2] == [("load", "hit"), ("destroy", "ok")]
    with ada.request(cookie):
        pass
    assert seen() == [("load", "miss")]


def test_a_call_whose_request_was_cancelled_is_told_too(calls: list[Call]) -> None:
    class Slow(MemoryDriver):
        async def aset(self, *args: Any, **options: Any) -> object:
            await asyncio.sleep(60)
            raise AssertionError

    async def go() -> None:
        store = UnstorageSessionStore(Slow())
        watch(SessionManager(store, SECRET), calls.append)
        task = asyncio.create_task(store.aset("some-id", {}))
        await asyncio.sleep(0)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    asyncio.run(go())
    assert [call.outcome for call in calls if call.operation == "save"] == ["cancelled"]


def test_a_callback_that_fails_takes_no_request_with_it(ada: Visitor, caplog: pytest.LogCaptureFixture) -> None:
    def fail(call: Call) -> None:
        raise ZeroDivisionError

    watch(ada.manager, fail)
    ask(ada, a=1)
    with ada.request() as session:
        assert session["a"] == 1
    assert "the on_call callback failed at 'load'" in caplog.text


@pytest.mark.parametrize("scheme", ["sqlite", "disk", "memory"])
def test_a_watched_store_runs_on_the_event_loop_only_what_it_would_unwatched(scheme: str, tmp_path: Path) -> None:
    driver = open_driver("memory://" if scheme == "memory" else f"{scheme}://{tmp_path}/store")
    manager = SessionManager(UnstorageSessionStore(driver), SECRET)
    watch(manager, lambda call: None)
    watched = manager.store.driver
    assert watched is not driver
    assert watched.reads_at_once() is driver.reads_at_once() is (scheme == "memory")  # a file may have to be waited for
    driver.prepare()
    assert watched.reads_at_once() is driver.reads_at_once() is True
    driver.close()


def test_a_store_without_a_driver_is_one_clear_error_and_has_its_events_counted(otel: Otel) -> None:
    manager = SessionManager(PlainStore(), SECRET)
    with pytest.raises(ConfigError, match="watch needs a store on a driver; of PlainStore only on_event tells"):
        watch(manager, print)
    visitor = Visitor(otel.instrument(manager))
    ask(visitor, a=1)
    ask(visitor)
    assert otel.events() == {"created": 1, "loaded": 1}
    assert otel.spans() == []


def test_whoever_does_not_watch_pays_nothing(ada: Visitor) -> None:
    """No driver stands in between, and no event is made of a load and a save: the guard in front of both says no."""
    made: list[str] = []
    policy = ada.manager.policy
    emit = policy.emit
    policy.emit = lambda name, *args: (made.append(name), emit(name, *args))[1]  # type: ignore[method-assign]
    ask(ada, 3, a=1)
    ask(ada, 3)
    assert made == []
    assert isinstance(ada.manager.store.driver, FaultyDriver)


# --- OpenTelemetry ---


class Otel:
    """Spans and metrics that are kept in memory."""

    def __init__(self) -> None:
        self.reader, self.exporter = InMemoryMetricReader(), InMemorySpanExporter()
        self.meters, self.tracers = MeterProvider([self.reader]), TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))

    def instrument(self, manager: SessionManager) -> SessionManager:
        return instrument(manager, tracer_provider=self.tracers, meter_provider=self.meters)

    def points(self, name: str) -> list[Any]:
        data = self.reader.get_metrics_data()
        return [
            point
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
        ]

    def events(self) -> dict[str, int]:
        return {point.attributes["session.event"]: point.value for point in self.points("session.events")}

    def spans(self) -> list[tuple[str, dict[str, Any]]]:
        return [(span.name, dict(span.attributes or {})) for span in self.exporter.get_finished_spans()]


@pytest.fixture
def otel() -> Iterator[Otel]:
    otel = Otel()
    yield otel
    otel.tracers.shutdown()
    otel.meters.shutdown()


def test_spans_and_metrics_tell_hits_conflicts_rotations_displaced_and_latency(
    ada: Visitor, faulty: FaultyDriver, otel: Otel
) -> None:
    otel.instrument(ada.manager)
    old = use(ada, user="eve")
    faulty.fail("renew", times=1)
    ask(ada)
    with ada.request() as session:
        ada.do(session, "destroy")
    with ada.request(old):
        pass
    assert otel.events() == {
        "loaded": 5,
        "saved": 3,
        "merged": 1,
        "rotated": 1,
        "displaced": 1,
        "store_error": 1,
        "destroyed": 1,
        "unknown_id": 1,
    }
    points = otel.points("session.store.duration")
    counts = {(each.attributes["session.operation"], each.attributes["session.outcome"]): each.count for each in points}
    assert counts == {
        ("load", "hit"): 7,
        ("load", "miss"): 1,
        ("load", "unavailable"): 1,
        ("destroy", "ok"): 1,
        ("save", "ok"): 4,
        ("save", "conflict"): 1,
    }
    assert {each.attributes["session.store"] for each in points} == {"memory"}
    assert all(0 < each.sum < 10 and each.explicit_bounds[0] == 0.0001 for each in points)
    spans = otel.spans()
    assert len(spans) == sum(counts.values())
    assert spans[0] == ("session.load", {"session.store": "memory", "session.outcome": "hit"})
    assert ("session.save", {"session.store": "memory", "session.outcome": "conflict"}) in spans
    failed = [span for span in otel.exporter.get_finished_spans() if span.status.status_code is StatusCode.ERROR]
    assert [(span.name, span.events, span.status.description) for span in failed] == [("session.load", (), None)]


def test_the_spans_lie_in_that_of_the_request_on_a_real_store(otel: Otel, tmp_path: Path) -> None:
    tracer = otel.tracers.get_tracer("test")

    async def handler(scope: Any, receive: Any, send: Any) -> None:
        with tracer.start_as_current_span("handler"):
            session = await use_session(scope)
            session["visits"] = session.get("visits", 0) + 1
            await session.asave()
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    manager = otel.instrument(SessionManager(f"sqlite://{tmp_path}/sessions.db", SECRET))
    client = TestClient(SessionMiddleware(handler, manager=manager), "https://testserver")
    for _ in range(2):
        client.post("/")
    manager.close()
    spans = otel.exporter.get_finished_spans()
    parents = {span.context.span_id: span for span in spans if span.context}
    found = [(span.name, parents[span.parent.span_id].name) for span in spans if span.parent]
    assert found == [("session.save", "handler"), ("session.load", "handler"), ("session.save", "handler")]
    assert {dict(span.attributes or {}).get("session.store") for span in spans} == {"sqlite", None}


# --- canaries ---


class Flows:
    """Visitors whose sessions go through all that can happen to one. Notes each id and signature that they had."""

    def __init__(self, otel: Otel, clock: ManualClock) -> None:
        self.canaries = [
            "CANARY-of-a-secret-0123456789-abcdefgh",
            "CANARY-of-an-older-secret-0123456789-abc",
            "CANARY-password",
            ENCRYPTION_KEY,
            "CANARY-key",
            "CANARY-data",
            "CANARY-user",
            "CANARY-label",
        ]
        self.secrets, self.password = self.canaries[:2], self.canaries[2]
        self.key, self.data, self.user, self.label = self.canaries[4:]
        self.otel, self.clock = otel, clock
        self.told: list[str] = []
        self.registry = CollectorRegistry()
        self.happened = Counter("session_events", "What happened.", ["event"], registry=self.registry)
        labels = ["store", "operation", "outcome"]
        self.seconds = Histogram("session_store_seconds", "Calls.", labels, registry=self.registry)

    def manager(self, store: Any, **options: Any) -> SessionManager:
        """A manager with everything switched on."""

        def count(event: Event) -> None:
            self.told.append(repr(event))
            self.happened.labels(event.name).inc()

        manager = SessionManager(store, self.secrets, on_event=count, clock=self.clock, **options)
        watch(manager, lambda call: self.seconds.labels(*call[:3]).observe(call.seconds))
        return self.otel.instrument(manager)

    def use(self, visitor: Visitor, cookie: str | None = None, **data: Any) -> None:
        with visitor.request(cookie) as session:
            self.canaries += session.id.split("~")
            session.update({self.key: self.data}, **data)
            session.flash(self.data, self.label)
        self.canaries += session.id.split("~")
        if visitor.cookie:
            self.canaries.append(visitor.cookie.rpartition(".")[2])

    def go(self, visitor: Visitor, down: Callable[[], None], up: Callable[[], None]) -> None:
        use, store = self.use, visitor.manager.store
        use(visitor)
        planted = visitor.cookie
        with visitor.request() as slow:  # a conflict
            slow["slow"] = self.data
            use(visitor)
        with visitor.request() as session:
            visitor.do(session, "bind", user_id=self.user, label=self.label)
        use(visitor, planted)  # displaced
        use(visitor, f"{planted}x")  # forged
        use(visitor, user=self.user)  # rotated
        with visitor.request() as session:
            assert session.flashes()
            arguments = (self.user,)
            if visitor.runner is None:
                store.sessions_of(*arguments, current=session)
                store.revoke(*arguments, keep=session)
            else:
                visitor.runner.run(store.asessions_of(*arguments, current=session))
                visitor.runner.run(store.arevoke(*arguments, keep=session))
        with visitor.request() as slow, visitor.request() as fast:  # a logout wins
            slow["slow"] = 1
            visitor.do(fast, "destroy")
        use(visitor, planted)  # unknown
        use(visitor)
        for key in list(store.driver.keys()):
            store.driver.set(key, f'{{"{self.key}": "{self.data}'.encode())  # corrupt
        use(visitor)
        down()
        for _ in range(3):
            with suppress(DriverUnavailable):
                use(visitor)
        up()
        self.clock.advance(QUIET + 1)
        use(visitor)
        locked = store.with_codec(Encrypted(ENCRYPTION_KEY))
        use(Visitor(self.manager(locked), visitor.runner), visitor.cookie)
        use(visitor)
        self.clock.advance(100)
        older = Visitor(self.manager(store, max_lifetime=50), visitor.runner)
        use(older, visitor.cookie)  # expired


def test_nothing_that_is_logged_traced_or_measured_gives_anything_away(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, otel: Otel, runner: asyncio.Runner | None, clock: ManualClock
) -> None:
    """Everything is switched on, at DEBUG, also on a real server with a password; then all output is searched."""
    caplog.set_level(logging.DEBUG)
    flows = Flows(otel, clock)
    faulty = FaultyDriver(MemoryDriver(clock=clock))

    def fail() -> None:
        for method in ("renew", "set"):
            faulty.fail(method)

    store = UnstorageSessionStore(faulty)
    flows.go(Visitor(flows.manager(store, on_error="anonymous"), runner), fail, faulty.heal)
    store = UnstorageSessionStore(faulty, codec=Encrypted(ENCRYPTION_KEY))
    flows.go(Visitor(flows.manager(store), runner), fail, faulty.heal)
    with start_valkey(tmp_path, password=flows.password) as server:
        manager = flows.manager(server.url)
        flows.go(Visitor(manager, runner), server.kill, server.start)
        if runner is None:
            manager.close()
        else:
            runner.run(manager.aclose())

    output = {
        "log": "\n".join(f"{each.name} {each.getMessage()} {each.args} {each.exc_text}" for each in caplog.records),
        "spans": "\n".join(span.to_json() for span in otel.exporter.get_finished_spans()),
        "metrics": str(otel.reader.get_metrics_data()),
        "prometheus": generate_latest(flows.registry).decode(),
        "events": "\n".join(flows.told),
    }
    assert set(get_args(EventName)) - {"misfit", "reuse"} <= otel.events().keys()
    for line in ("does not answer: ", "answers again", "wrong signature", "cannot be decoded", "left alone"):
        assert line in output["log"]
    assert len(flows.canaries) > 100
    for place, text in output.items():
        assert text
        for number, canary in enumerate(flows.canaries):
            assert canary not in text, f"canary {number} in {place}"
