"""The table of drivers and promises in the README, made from a run of the conformance suite.

A run of all tests fails if the README says anything else; `pytest --write-table` writes it.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest

from session_kit.drivers import Capabilities
from session_kit.testing.conformance import Conditions, DriverConformance, Expiry, Keys, Sharing, Values

README = Path(__file__).parent.parent / "README.md"
PLACE = re.compile(r"(?<=<!-- conformance -->\n).*?(?=<!-- end -->)", re.DOTALL)
PROMISES = (Expiry, Conditions, Keys, Values, Sharing)
FLAGS = {"renew": "renews on read", "native_ttl": "own expiry", "shared": "shared by processes"}

_outcomes: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
_capabilities: dict[str, Capabilities] = {}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-table", action="store_true", help="write the conformance table into the README")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    report = yield
    cls = getattr(item, "cls", None)
    if isinstance(cls, type) and issubclass(cls, DriverConformance) and cls.title:
        if report.when == "call" or report.outcome != "passed":
            promise = item.function.__qualname__.split(".")[0]  # type: ignore[attr-defined]
            _outcomes[cls.title, promise][report.outcome] += 1
        driver = item.funcargs.get("driver")  # type: ignore[attr-defined]
        if driver is not None:
            _capabilities[cls.title] = driver.capabilities
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    text = README.read_text()
    known = re.findall(r"^\| ([^|]+) \|", PLACE.search(text)[0], re.MULTILINE)[2:]  # type: ignore[index]
    everything = {(title, promise.__name__) for title in known for promise in PROMISES}
    if not everything <= _outcomes.keys() or any(counts["failed"] for counts in _outcomes.values()):
        return
    made = PLACE.sub(lambda _: _table(), text)
    if session.config.getoption("--write-table", default=False):
        README.write_text(made)
    elif made != text:
        print("\nThe conformance table in the README is not what this run found: pytest --write-table")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _table() -> str:
    rows = [["driver", *(promise.__name__.lower() for promise in PROMISES), *FLAGS.values()]]
    rows.append(["---"] * len(rows[0]))
    for title in dict.fromkeys(title for title, _ in _outcomes):
        cells = [_cell(_outcomes[title, promise.__name__]) for promise in PROMISES]
        flags = ["yes" if getattr(_capabilities[title], flag) else "no" for flag in FLAGS]
        rows.append([title, *cells, *flags])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _cell(counts: Counter[str]) -> str:
    done, left_out = counts["passed"], counts["skipped"]
    return f"{done} of {done + left_out}" if left_out else f"all {done}"
