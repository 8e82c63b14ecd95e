"""What docs/telemetry.md shows runs as printed, and its tables leave nothing out."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest

from session_kit.policy import EventName
from session_kit.telemetry import FAILURES, OPERATIONS
from tests.harness.scripts import run_code

PAGE = Path(__file__).parents[2] / "docs" / "telemetry.md"
TEXT = PAGE.read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
VISITS = {
    "prometheus": """
from fastapi.testclient import TestClient

client = TestClient(app, "https://testserver")
assert [client.get("/").json()["visits"] for _ in range(3)] == [1, 2, 3]
lines = client.get("/metrics").text.splitlines()
for line in (
    'session_events_total{event="created"} 1.0',
    'session_events_total{event="loaded"} 2.0',
    'session_store_seconds_count{operation="load",outcome="hit",store="memory"} 2.0',
    'session_store_seconds_count{operation="save",outcome="ok",store="memory"} 3.0',
):
    assert line in lines, lines
""",
    "opentelemetry": """
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

# An application may set them up after it was instrumented.
reader, spans, tracers = InMemoryMetricReader(), InMemorySpanExporter(), TracerProvider()
tracers.add_span_processor(SimpleSpanProcessor(spans))
trace.set_tracer_provider(tracers)
metrics.set_meter_provider(MeterProvider([reader]))

session = manager.open()
session["a"] = 1
session.save()
assert [span.name for span in spans.get_finished_spans()] == ["session.save"]
assert '"session.store.duration"' in reader.get_metrics_data().to_json()
assert '"session.events"' in reader.get_metrics_data().to_json()
""",
}


@pytest.mark.parametrize("library", VISITS)
def test_each_example_measures_what_it_says(library: str) -> None:
    (code,) = [each for each in EXAMPLES if library in each]
    run_code(code + VISITS[library])


def test_the_tables_leave_out_no_event_no_operation_and_no_outcome() -> None:
    log = TEXT.partition("## The log")[2].partition("##")[0]
    for name in get_args(EventName):
        assert f"`{name}`" in log, name
    for name in {*OPERATIONS.values(), "hit", "miss", "ok", *(each for _, each in FAILURES)}:
        assert f"`{name}`" in TEXT, name
