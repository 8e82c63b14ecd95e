"""A script that goes by the exit codes of `session-kit` is not misled: each is what docs/operate.md says."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import sys
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from session_kit import SessionManager, UnstorageSessionStore, open_store
from session_kit.cli import main
from session_kit.codec import Encrypted
from session_kit.operate import commands
from session_kit.record import hash_id
from tests.harness.scripts import started
from tests.harness.servers import HOST, free_ports, wait_until
from tests.harness.sessions import SECRET

ROOT = Path(__file__).parents[2]
QUICK = ["--workload", "get", "--mode", "sync", "--concurrency", "1", "--rounds", "1", "--seconds", "0.001"]
CODES = {
    "all is well": (
        0,
        [
            ["secret"],
            ["--version"],
            ["bench", "memory://", *QUICK],
            ["list", "{store}"],
            ["show", "{store}", "{handle}"],
            ["revoke", "{store}", "{handle}"],
            ["prune", "{store}"],
            ["copy", "{store}", "{new}"],
            ["doctor", "{store}"],
        ],
    ),
    "nothing there, and none was named": (
        0,
        [
            ["list", "memory://"],
            ["list", "{store}", "--owner", "nobody"],
            ["revoke", "{store}", "--owner", "nobody"],
            ["prune", "memory://"],
            ["copy", "memory://", "{new}"],
        ],
    ),
    "a session is not there": (1, [["show", "{store}", "0000"], ["revoke", "{store}", "0000"]]),
    "the list of a user cannot be read": (
        1,
        [["list", "{sealed}", "--owner", "ada"], ["revoke", "{sealed}", "--owner", "ada"]],
    ),
    "a session was left out": (1, [["copy", "{sealed}", "{new}"]]),
    "a check has failed": (1, [["doctor", "{store}", "--secret-env", "NOT_SET"]]),
    "a store is down": (
        1,
        [
            ["demo", "--check", "--store", "{down}"],
            ["bench", "{down}"],
            ["list", "{down}"],
            ["list", "{down}", "--owner", "ada"],
            ["show", "{down}", "0000"],
            ["revoke", "{down}", "0000"],
            ["revoke", "{down}", "--owner", "ada"],
            ["prune", "{down}"],
            ["copy", "{down}", "{new}"],
            ["copy", "{store}", "{down}"],
            ["doctor", "{down}"],
        ],
    ),
    "a wrong URL": (
        2,
        [
            ["demo", "--store", "nope://"],
            ["demo", "--check", "--store", "nope://"],
            ["bench", "nope://"],
            ["list", "nope://"],
            ["show", "nope://", "0000"],
            ["revoke", "nope://", "0000"],
            ["prune", "memory://?tll=7d"],
            ["copy", "nope://", "{new}"],
            ["copy", "{store}", "nope://"],
            ["copy", "{store}", "{store}"],
            ["doctor", "nope://"],
            ["doctor", "nope://", "--secret-env", "NOT_SET"],
        ],
    ),
    "a file that is not there": (
        2,
        [["list", "{new}"], ["show", "{new}", "0000"], ["revoke", "{new}", "0000"], ["prune", "{new}"]],
    ),
    "a wrong option": (
        2,
        [
            [],
            ["nope"],
            ["secret", "--nope"],
            ["demo", "--port", "-1"],
            ["bench"],
            ["bench", "memory://", "--workload", "nope"],
            ["list", "{store}", "--owner", ""],
            ["show", "{store}"],
            ["show", "{store}", "no handle"],
            ["revoke", "{store}"],
            ["revoke", "{store}", "--owner", ""],
            ["revoke", "{store}", "--owner", "x" * 5000],
            ["prune"],
            ["copy", "{store}"],
            ["doctor"],
        ],
    ),
}


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        pytest.param(arguments, code, id=f"{why}: {' '.join(arguments)[:60]}")
        for why, (code, many) in CODES.items()
        for arguments in many
    ],
)
def test_a_command_exits_with_the_code_that_the_documentation_gives(
    arguments: list[str], code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = f"sqlite://{tmp_path}/s.db"
    with closing(open_store(store)) as filled:
        filled.set("one", {})
    sealed = f"sqlite://{tmp_path}/sealed.db"
    with closing(UnstorageSessionStore(sealed, codec=Encrypted(bytes(range(32))))) as filled:
        SessionManager(filled, SECRET).open().bind("ada").save()
    places = {
        "store": store,
        "sealed": sealed,
        "new": f"sqlite://{tmp_path}/new.db",
        "down": f"redis://{HOST}:{free_ports(1)[0]}",
        "handle": hash_id("one"),
    }
    monkeypatch.setattr(sys, "argv", ["session-kit", *(argument.format_map(places) for argument in arguments)])
    found: object = 0
    try:
        main()
    except SystemExit as ended:
        found = ended.code
    assert found == code, capsys.readouterr()


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize("command", ["list", "show", "revoke", "prune", "copy", "doctor"])
def test_ctrl_c_is_told_from_success_and_from_failure(command: str, tmp_path: Path) -> None:
    more = {"show": ["0000"], "revoke": ["0000"], "copy": [f"sqlite://{tmp_path}/new.db"]}.get(command, [])
    with (
        socket.create_server((HOST, 0)) as silent,
        started(command, f"redis://{HOST}:{silent.getsockname()[1]}?timeout=60s", *more) as process,
    ):
        silent.settimeout(15)
        connection, _ = silent.accept()
        with connection:
            assert connection.recv(1)  # it asks, and is never answered
            process.send_signal(signal.SIGINT)
            output, errors = process.communicate(timeout=15)
    assert (process.returncode, output, errors) == (130, "", "session-kit: stopped\n")


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_ctrl_c_is_how_the_demo_ends_well(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    with started("demo", "--store", "memory://", "--port", str(port), XDG_CACHE_HOME=str(tmp_path)) as process:
        wait_until(lambda: _answers(f"http://{HOST}:{port}"), "the demo")
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=15)
    assert (process.returncode, errors) == (0, "")
    assert output.endswith("Stopped.\n")


def _answers(url: str) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(url).is_success
    return False


def test_the_documentation_lists_each_exit_code() -> None:
    table = (ROOT / "docs" / "operate.md").read_text(encoding="utf-8").partition("| exit code |")[2]
    listed = {int(code) for code in re.findall(r"^\| (\d+) \|", table.partition("\n\n")[0], re.MULTILINE)}
    assert listed == {code for code, _ in CODES.values()} | {commands.STOPPED}
