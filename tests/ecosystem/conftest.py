"""What the tests of packages share: the sessions that an application runs on, and who visits it how."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from harness.servers import Valkey, start_valkey
from harness.sites import InProcess, serve
from provider import Provider, serve_provider
from visitor import STORES, Visit, visits

OWN = "own"
IN_PROCESS, OVER_HTTP = WAYS = ["in process", "over HTTP"]


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    with start_valkey(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture(scope="session")
def provider() -> Iterator[Provider]:
    """An OpenID provider at which everybody is ada."""
    with serve_provider() as provider:
        yield provider


def url_of(store: str, folder: Path, valkey: Valkey) -> str:
    """The URL of one of `STORES`."""
    return {"memory": "memory://", "disk": f"disk://{folder}/store", "Valkey": valkey.url}[store]


@pytest.fixture(params=[OWN, *STORES])
def store(request: pytest.FixtureRequest, tmp_path: Path, valkey: Valkey) -> str | None:
    """The URL of a store for our sessions, or None for the framework's own sessions."""
    return None if request.param == OWN else url_of(request.param, tmp_path, valkey)


@pytest.fixture(params=WAYS)
def visit(request: pytest.FixtureRequest) -> Iterator[Visit]:
    """Brings a new visitor to an application, which is started for the first one."""
    with visits(InProcess if request.param == IN_PROCESS else serve) as visit:
        yield visit


# --- the rows of the table ---

OUTCOMES: dict[tuple[str, str], Counter[str]] = {}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--outcomes", type=Path, help="write what each package passed to this file, for the table")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: Any, call: pytest.CallInfo[None]) -> Any:
    report = yield
    marker = item.get_closest_marker("package")
    if marker is not None and (report.when == "call" or report.outcome == "failed"):
        # An item's parameters are the sessions and the way, as its fixtures have them.
        ours = next((str(value) for value in item.callspec.params.values() if value not in WAYS), OWN)
        kind = f"{'own' if ours == OWN else 'ours'} {report.outcome}"
        OUTCOMES.setdefault(tuple(marker.args), Counter())[kind] += 1
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    path = session.config.getoption("--outcomes")
    if path is not None:
        rows = [
            {
                "package": package,
                "version": version(package),
                "framework": f"{framework} {version(framework)}",
                **counts,
            }
            for (package, framework), counts in OUTCOMES.items()
        ]
        path.write_text(json.dumps(rows))
