"""The two tables of the documentation that a run of all tests makes: what drivers promise, what frameworks pass.

Such a run fails if a page says anything else; `pytest --write-tables` writes them.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter, defaultdict
from typing import Any

import pytest

from session_kit.benchmarks.maintainers.results import ROOT, markdown, put_into
from session_kit.drivers import Capabilities
from session_kit.drivers.errors import DISTRIBUTION
from session_kit.testing.conformance import Conditions, DriverConformance, Expiry, Keys, Sharing, Values
from tests.harness.web_servers import FRAMEWORKS

# Other versions of the same frameworks are no news, nor are a few more lines in a module.
VERSION_OR_LENGTH = re.compile(r"\d+(\.\d+)+|\d+(?= \|$)", re.MULTILINE)

# A row, a column and the outcomes there, for each place of a table; and what else is known of each row.
Found = tuple[list[tuple[str, str, dict[str, int]]], dict[str, dict[str, bool]]]


class Table:
    """Counts the outcomes of tests by row and column, and renders them."""

    marker: str
    page: str  # in docs/
    head: list[str]  # of the columns before the counts, and after them
    tail: list[str]

    def __init__(self) -> None:
        # In the order in which the tests were collected: several processes may run them in any.
        self.outcomes: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        self.flags: dict[str, dict[str, bool]] = {}  # what else is known of a row

    def place(self, item: Any) -> tuple[str, str] | None:
        """The row and column that a test belongs to, if any."""
        raise NotImplementedError

    def rows(self) -> list[str]:
        """The rows that a complete run fills."""
        return list(dict.fromkeys(row for row, _ in self.outcomes))

    def columns(self) -> list[str]:
        """The columns that are counted."""
        return list(dict.fromkeys(column for _, column in self.outcomes))

    def before(self, row: str) -> list[str]:
        """The cells before the counts."""
        raise NotImplementedError

    def after(self, row: str) -> list[str]:
        """The cells after the counts."""
        raise NotImplementedError

    def expect(self, item: Any) -> None:
        """Take note of a test that will run."""
        place = self.place(item)
        if place is not None:
            self.outcomes.setdefault(place, Counter())

    def count(self, item: Any, report: pytest.TestReport) -> None:
        place = self.place(item)
        if place is not None and (report.when == "call" or report.outcome != "passed"):
            self.outcomes[place][report.outcome] += 1

    def is_complete(self) -> bool:
        """Whether all tests of the table have run, and none has failed."""
        counts = [self.outcomes[row, column] for row in self.rows() for column in self.columns()]
        return bool(counts) and all(count.total() for count in counts) and not any(count["failed"] for count in counts)

    def found(self) -> Found:
        """What was counted, to be sent to another process."""
        return [(*place, dict(counts)) for place, counts in self.outcomes.items()], self.flags

    def add(self, found: Found) -> None:
        """Add what another process has found, which collected the same tests."""
        outcomes, flags = found
        for row, column, counts in outcomes:
            self.outcomes[row, column].update(counts)
        self.flags |= flags

    def write(self, text: str) -> str:
        """The page with this table in its place."""
        head = [*self.head, *(name.lower() for name in self.columns()), *self.tail]
        rows = []
        for row in self.rows():
            counts = [_cell(self.outcomes[row, column]) for column in self.columns()]
            rows.append([*self.before(row), *counts, *self.after(row)])
        return put_into(text, self.marker, markdown(head, rows, names=len(head)))


class Drivers(Table):
    """What the conformance suite found, by driver and promise."""

    marker = "conformance"
    page = "stores.md"
    promises = (Expiry, Conditions, Keys, Values, Sharing)
    shown = {"renew": "renews on read", "native_ttl": "own expiry", "shared": "shared by processes"}  # noqa: RUF012
    head = ["driver"]  # noqa: RUF012
    tail = list(shown.values())  # noqa: RUF012

    def place(self, item: Any) -> tuple[str, str] | None:
        cls = getattr(item, "cls", None)
        if not (isinstance(cls, type) and issubclass(cls, DriverConformance) and cls.title):
            return None
        driver = item.funcargs.get("driver")
        if driver is not None:
            capabilities: Capabilities = driver.capabilities
            self.flags[cls.title] = {name: getattr(capabilities, name) for name in self.shown}
        return cls.title, item.function.__qualname__.split(".")[0]

    def columns(self) -> list[str]:
        return [promise.__name__ for promise in self.promises]

    def before(self, row: str) -> list[str]:
        return [row]

    def after(self, row: str) -> list[str]:
        return ["yes" if self.flags[row][name] else "no" for name in self.shown]


class Frameworks(Table):
    """What the suite that is one for all found, by framework and feature."""

    marker = "frameworks"
    page = "frameworks.md"
    head = ["framework", "server"]  # noqa: RUF012
    tail = ["module", "lines"]  # noqa: RUF012

    def place(self, item: Any) -> tuple[str, str] | None:
        feature = item.get_closest_marker("feature")
        if feature is None:
            return None
        for value in item.callspec.params.values():
            name = value[0] if isinstance(value, tuple) else value
            if name in FRAMEWORKS:
                return name, feature.args[0]
        raise AssertionError(f"{item.nodeid} has a feature but no framework")

    def rows(self) -> list[str]:
        return list(FRAMEWORKS)

    def is_complete(self) -> bool:
        # The last is in another file than the others.
        return "outage of the store" in self.columns() and "cookie" in self.columns() and super().is_complete()

    def before(self, row: str) -> list[str]:
        framework = FRAMEWORKS[row]
        own = framework.distribution in (DISTRIBUTION, framework.server)
        server = "its own" if framework.distribution == framework.server else framework.server
        label = framework.label if framework.distribution == DISTRIBUTION else f"{framework.label} {framework.version}"
        return [label, server if own and server == "its own" else f"{server} {framework.server_version}"]

    def after(self, row: str) -> list[str]:
        module = FRAMEWORKS[row].integration
        path = ROOT / "session_kit" / module.replace(".", "/")
        files = list(path.glob("*.py")) or [path.with_suffix(".py")]
        return [f"`{module}`", str(sum(file.read_text().count("\n") for file in files))]


TABLES: list[Table] = [Drivers(), Frameworks()]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--write-tables", action="store_true", help="write the tables of the documentation that tests make"
    )


def pytest_collection_finish(session: pytest.Session) -> None:
    for item in session.items:
        for table in TABLES:
            table.expect(item)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    report = yield
    for table in TABLES:
        table.count(item, report)
    return report


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """A worker of pytest-xdist has ended: what it found is added up here."""
    for table, found in zip(TABLES, getattr(node, "workeroutput", {}).get("tables", []), strict=False):
        table.add(found)


def pytest_sessionfinish(session: pytest.Session) -> None:
    config = session.config
    if hasattr(config, "workeroutput"):  # a worker of pytest-xdist
        config.workeroutput["tables"] = [table.found() for table in TABLES]
        return
    selected = config.option.keyword or config.option.markexpr != "not slow"
    if config.args_source is not config.ArgsSource.TESTPATHS or selected:
        return  # not all that the tables count
    for table in TABLES:
        if not table.is_complete():
            continue
        page = ROOT / "docs" / table.page
        text = page.read_text()
        made = table.write(text)
        if config.getoption("--write-tables", default=False):
            page.write_text(made)
        elif differences := _differences(table.page, text, made):
            print(
                f"\nThe table in docs/{table.page} is not what this run found: pytest --write-tables",
                *differences,
                sep="\n",
            )
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _differences(page: str, text: str, made: str) -> list[str]:
    old, new = (VERSION_OR_LENGTH.sub("", each).splitlines() for each in (text, made))
    return list(difflib.unified_diff(old, new, page, "this run", lineterm="", n=0))


def _cell(counts: Counter[str]) -> str:
    done, left_out = counts["passed"], counts["skipped"]
    return f"{done} of {done + left_out}" if left_out else f"all {done}"
