"""OpenTelemetry: a span for each call of the session store, and metrics of sessions (`session-kit-web[otel]`)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry import metrics, trace

from session_kit import __version__
from session_kit.manager import SessionManager
from session_kit.policy import Event
from session_kit.telemetry import Call, OnCall, watch_around

SCOPE = "session_kit"
BOUNDARIES = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
"""Of the buckets of the histogram, in seconds: those that OpenTelemetry has by itself are for milliseconds."""
FAILED = {"unavailable", "error"}


def instrument(
    manager: SessionManager,
    *,
    tracer_provider: trace.TracerProvider | None = None,
    meter_provider: metrics.MeterProvider | None = None,
) -> SessionManager:
    """Make spans and metrics of what the manager's sessions do, and return the manager. Call it once for each.

    tracer_provider, meter_provider: default: the global ones.

    Spans `session.load`, `session.save`, `session.destroy` and `session.index`, one for each call of the store, with
    `session.store` and `session.outcome`. A histogram `session.store.duration` in seconds, by `session.store`,
    `session.operation` and `session.outcome`; a counter `session.events` by `session.event`. The values are those of
    `session_kit.telemetry.Call` and `session_kit.Event`; none of them holds an id, a secret, an address or data.
    A store of your own that has no driver has the counter alone.

    >>> manager = SessionManager("memory://", secret="N3w-secret-of-at-least-32-characters!")
    >>> instrument(manager) is manager
    True
    """
    tracer = trace.get_tracer(SCOPE, __version__, tracer_provider)
    meter = metrics.get_meter(SCOPE, __version__, meter_provider)
    seconds = meter.create_histogram(
        "session.store.duration",
        unit="s",
        description="How long calls of the session store take.",
        explicit_bucket_boundaries_advisory=BOUNDARIES,
    )
    events = meter.create_counter("session.events", unit="{event}", description="What happened to sessions.")

    @contextmanager
    def around(store: str, operation: str) -> Iterator[OnCall]:
        # An exception's own text stays out of the span.
        with tracer.start_as_current_span(
            f"session.{operation}",
            attributes={"session.store": store},
            record_exception=False,
            set_status_on_exception=False,
        ) as span:

            def tell(call: Call) -> None:
                span.set_attribute("session.outcome", call.outcome)
                if call.outcome in FAILED:
                    span.set_status(trace.StatusCode.ERROR)
                labels = {
                    "session.store": store,
                    "session.operation": operation,
                    "session.outcome": call.outcome,
                }
                seconds.record(call.seconds, labels)

            yield tell

    def count(event: Event) -> None:
        events.add(1, {"session.event": event.name})

    watch_around(manager, around)
    manager.policy.listen(count)
    return manager
