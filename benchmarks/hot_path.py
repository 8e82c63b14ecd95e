"""Where the time of a request goes: samples of a running application, by function and by line, as text.

    python -m session_kit.benchmarks.hot_path [KIND ...] [--seconds 10] [--write]

The signal that takes a sample is delivered between two steps of the interpreter, so a line may be charged for the one
before it; by function the picture is true. A profiler that traces every call would make small functions look slow.
"""

from __future__ import annotations

import argparse
import asyncio
import linecache
import signal
import time
from collections import Counter
from pathlib import Path
from types import FrameType

import session_kit
from session_kit.asgi import SessionMiddleware
from session_kit.benchmarks import harness
from session_kit.benchmarks.harness import HANDLERS, SECRET, asgi_app, asgi_case, ask
from session_kit.benchmarks.measure import Case, conditions, microseconds
from session_kit.benchmarks.readme import keep

PACKAGE = str(Path(session_kit.__file__).parent)
OURSELVES = str(Path(PACKAGE, "benchmarks"))
INTERVAL = 0.0005  # seconds of processor time from one sample to the next
BATCH = 500


class Profile:
    """What was seen while a case ran for some seconds."""

    def __init__(self, case: Case, seconds: float) -> None:
        self.samples = self.requests = 0
        self.functions: Counter[str] = Counter()
        self.lines: Counter[tuple[str, int]] = Counter()
        case(BATCH)
        before = signal.signal(signal.SIGPROF, self._take)
        begin = time.perf_counter()
        signal.setitimer(signal.ITIMER_PROF, INTERVAL, INTERVAL)
        try:
            while time.perf_counter() - begin < seconds:
                case(BATCH)
                self.requests += BATCH
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.signal(signal.SIGPROF, before)
        self.elapsed = time.perf_counter() - begin

    def _take(self, number: int, frame: FrameType | None) -> None:
        self.samples += 1
        innermost, seen = True, set[str]()
        while frame is not None:
            code = frame.f_code
            if code.co_filename.startswith(PACKAGE) and not code.co_filename.startswith(OURSELVES):
                name = f"{Path(code.co_filename).name}: {code.co_qualname}"
                if name not in seen:
                    seen.add(name)
                    self.functions[name] += 1
                if innermost:
                    self.lines[code.co_filename, frame.f_lineno] += 1
                innermost = False
            frame = frame.f_back

    def report(self, title: str) -> str:
        """The functions with all that they call, and the lines by themselves, in microseconds a request."""
        each = self.elapsed / self.requests / max(1, self.samples)

        def cost(count: int) -> str:
            return f"{microseconds(count * each):>6}"

        lines = [f"{title}: {microseconds(self.elapsed / self.requests)} us a request, {self.samples} samples", ""]
        lines += [f"{cost(count)}  {name}" for name, count in self.functions.most_common(30)]
        lines += ["", "by line:"]
        for (file, number), count in self.lines.most_common(15):
            code = linecache.getline(file, number).strip()[:90]
            lines.append(f"{cost(count)}  {Path(file).name}:{number}  {code}")
        return "\n".join(lines) + "\n"


def profile(kind: str, seconds: float) -> Profile:
    """Profile requests of one kind to an ASGI application with sessions in memory."""
    with asyncio.Runner() as runner:
        first = SessionMiddleware(asgi_app(harness.login), store="memory://", secret=SECRET)
        cookie = b"" if kind == "first visit" else runner.run(ask(first, b"")).cookie()
        app = SessionMiddleware(asgi_app(HANDLERS[kind]), manager=first.manager)
        found = Profile(asgi_case(runner, app, cookie), seconds)
        runner.run(first.manager.aclose())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Where the time of a request goes.")
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"of {', '.join(HANDLERS)}; default: all")
    parser.add_argument("--seconds", type=float, default=10.0, help="for each kind")
    parser.add_argument("--write", action="store_true", help="into benchmarks/results/hot-path.txt")
    chosen = parser.parse_args()
    if unknown := [kind for kind in chosen.kinds if kind not in HANDLERS]:
        parser.error(f"unknown: {unknown[0]}; known are {', '.join(HANDLERS)}")
    reports = [profile(kind, chosen.seconds).report(kind) for kind in chosen.kinds or HANDLERS]
    text = "\n".join([conditions(("session-kit", "msgspec")) + "\n", *reports])
    print(text)
    if chosen.write:
        keep("hot-path.txt", text)


if __name__ == "__main__":
    main()
