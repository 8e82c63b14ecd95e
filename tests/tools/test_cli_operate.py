"""The operator's commands, as they are typed: in `session-kit` and in the command line of each framework."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest

from session_kit import SessionManager, open_driver, open_store
from session_kit.cli import main
from session_kit.record import hash_id
from tests.harness.scripts import ROOT, started
from tests.harness.servers import Valkey, free_ports, start_valkey, wait_until
from tests.harness.sessions import SECRET

OPERATORS = ("list", "show", "revoke", "prune", "copy", "doctor")


@pytest.fixture
def session_kit(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> SessionKit:
    return SessionKit(capsys, monkeypatch)


class SessionKit:
    """The command line, run in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self._capsys, self._monkeypatch = capsys, monkeypatch
        self.said = ""
        """All that was printed so far."""

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        """Its exit code, and what it prints on stdout and on stderr."""
        self._monkeypatch.setattr(sys, "argv", ["session-kit", *arguments])
        with pytest.raises(SystemExit) as caught:
            main()
        output, errors = self._capsys.readouterr()
        self.said += output + errors
        assert isinstance(caught.value.code, int)
        return caught.value.code, output, errors

    def done(self, *arguments: str) -> str:
        """What it prints when all is well."""
        code, output, errors = self(*arguments)
        assert (code, errors) == (0, "")
        return output


@pytest.fixture(params=["sqlite", "disk", "valkey"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "valkey":
        server: Valkey = request.getfixturevalue("valkey")
        server.ask("FLUSHALL")
        return server.url
    return f"{request.param}://{tmp_path}/store"


def fill(url: str, count: int) -> list[str]:
    """Store sessions, and return their ids."""
    with closing(open_store(url)) as store:
        manager = SessionManager(store, SECRET)
        ids = []
        for number in range(count):
            session = manager.open()
            session.update({"user": f"canary-{number}", "canary\x1b[2J": ["\x1b]0;canary\x07"]})
            manager.commit(session)
            ids.append(session.id)
    return ids


@pytest.mark.parametrize("number", [200, pytest.param(2000, marks=pytest.mark.slow)])
def test_many_sessions_are_listed_shown_revoked_and_copied(
    url: str, number: int, session_kit: SessionKit, tmp_path: Path
) -> None:
    ids = fill(url, number)
    handles = [hash_id(sid) for sid in ids]
    header, *rows, last = session_kit.done("list", url).splitlines()
    assert header.split()[0] == "HANDLE"
    assert last == f"{number} sessions"
    assert sorted(row.split()[0] for row in rows) == sorted(handle[:16] for handle in handles)
    assert re.fullmatch(r"[0-9a-f]{16}  (\d{4}-\d\d-\d\d \d\d:\d\d  ){2} +(1d 0h|23h 59m) +\d+ B", rows[0])

    shown = session_kit.done("show", url, handles[0][:16])
    assert handles[0] in shown
    assert re.search(r'^"user": str, \d+ B$', shown, re.MULTILINE)
    assert (
        session_kit.done("revoke", url, handles[0][:16], handles[1]) == f"revoked {handles[0]}\nrevoked {handles[1]}\n"
    )
    assert session_kit.done("prune", url) == "0 expired entries removed\n"

    target = f"sqlite://{tmp_path}/new.db?prefix=shop"
    left = number - 2
    assert session_kit.done("copy", url, target) == f"{left} sessions\n{left:8} copied\n"
    assert session_kit.done("copy", url, target) == f"{left} sessions\n{left:8} already there\n"
    assert session_kit.done("list", target).splitlines()[-1] == f"{left} sessions"
    assert session_kit.done("doctor", url)
    for sid in ids:
        name, _, token = sid.partition("~")
        assert name not in session_kit.said
        assert token not in session_kit.said
    assert not re.search(r"canary-|\x1b|\x07", session_kit.said)

    assert '"user": str = "canary-2"' in session_kit.done("show", url, handles[2], "--values")
    assert not re.search(r"\x1b|\x07", session_kit.said)


@pytest.mark.parametrize("scheme", ["sqlite", "disk", "file"])
def test_a_mistyped_path_does_not_look_like_an_empty_store(
    scheme: str, session_kit: SessionKit, tmp_path: Path
) -> None:
    url, typo = f"{scheme}://{tmp_path}/sessions", f"{scheme}://{tmp_path}/session"
    fill(url, 1)
    for command in (["list"], ["show"], ["revoke"], ["prune"], ["copy"]):
        rest = {"show": ["0a"], "revoke": ["0a"], "copy": [url]}.get(command[0], [])
        code, _, errors = session_kit(*command, f"{typo}?prefix=shop", *rest)
        assert (code, errors) == (2, f"session-kit: {typo}: there is no such store yet; is the path right?\n")
    assert not (tmp_path / "session").exists()
    assert session_kit.done("copy", url, f"{scheme}://{tmp_path}/new") == "1 sessions\n       1 copied\n"


def test_that_nobody_was_bound_to_a_user_is_said(session_kit: SessionKit, tmp_path: Path) -> None:
    url = f"sqlite://{tmp_path}/s.db"
    fill(url, 1)
    none_bound = "0 sessions: none was bound to this user by session.bind\n"
    assert session_kit.done("list", url, "--owner", "ada") == none_bound
    assert session_kit.done("revoke", url, "--owner", "ada") == f"revoked {none_bound}"


def test_a_bad_address_or_handle_is_one_line(session_kit: SessionKit, tmp_path: Path) -> None:
    url = f"sqlite://{tmp_path}/s.db"
    (sid,) = fill(url, 1)
    down = f"redis://ada:s3cret-canary@127.0.0.1:{free_ports(1)[0]}"
    for arguments, code, words in (
        (["list", "nope://x"], 2, "no driver for nope://"),
        (["list", down], 1, "refused"),
        (["show", url, "0" * 64], 1, "no session has a handle that begins with 0000"),
        # An id may begin with a dash.
        (["show", url, "--", sid], 2, "that is no handle"),
        (["revoke", url, "--", sid], 2, "that is no handle"),
        (["revoke", url, "0" * 64], 1, "no session has a handle that begins with 0000"),
        (["revoke", down, "abc"], 1, "refused"),
        (["prune", "memory://?tll=7d"], 2, "did you mean 'ttl'?"),
        (["copy", url, url], 2, "both are the same store: there is nothing to copy"),
        (["copy", url, f"{url}?ttl=9d"], 2, "both are the same store: there is nothing to copy"),
        (["copy", url, down], 1, "refused; stopped after 0 sessions: the same command goes on from there"),
        (["copy", down, url], 1, "refused"),
    ):
        found, output, errors = session_kit(*arguments)
        assert (found, output) == (code, ""), arguments
        assert errors.startswith("session-kit: ")
        assert errors.count("\n") == 1
        assert words in errors
    assert sid not in session_kit.said
    assert "s3cret" not in session_kit.said
    with closing(open_store(url)) as store:
        assert store.length() == 1


def test_revoking_several_does_not_stop_at_one_that_is_gone(session_kit: SessionKit, tmp_path: Path) -> None:
    url = f"sqlite://{tmp_path}/s.db"
    one, two = (hash_id(sid) for sid in fill(url, 2))
    session_kit.done("revoke", url, one)
    code, output, errors = session_kit("revoke", url, one, two)
    assert (code, output) == (1, f"revoked {two}\n")
    assert errors == f"session-kit: no session has a handle that begins with {one}\n"


@pytest.mark.parametrize("killed", ["old", "new"])
def test_a_store_that_dies_in_the_middle_of_a_copy_is_one_line_and_the_same_command_ends_the_work(
    killed: str, tmp_path: Path
) -> None:
    with start_valkey(tmp_path, config=["--appendonly", "yes", "--appendfsync", "always"]) as server:
        other = f"sqlite://{tmp_path}/other.db"
        urls = (server.url, other) if killed == "old" else (other, server.url)
        fill(urls[0], 2000)
        with started("copy", *urls) as copying:
            with closing(open_driver(urls[1])) as target:
                wait_until(lambda: sum(1 for _ in target.keys("sess:")) > 200, "the copy")
                server.kill()
            output, errors = copying.communicate(timeout=30)
        assert (copying.returncode, output) == (1, "")
        stopped = re.fullmatch(
            r"session-kit: redis://127.0.0.1:\d+/0: .*;"
            r" stopped after (\d+) sessions: the same command goes on from there\n",
            errors,
        )
        assert stopped is not None, errors
        assert 0 < int(stopped[1]) < 2000
        server.start()
        with started("copy", *urls) as copying:
            output, errors = copying.communicate(timeout=60)
        assert (copying.returncode, errors) == (0, "")
        first, *counts = output.splitlines()
        assert first == "2000 sessions"
        found = dict(reversed(line.split(maxsplit=1)) for line in counts)
        assert found.keys() == {"copied", "already there"}
        with closing(open_store(urls[0])) as old, closing(open_store(urls[1])) as new:
            keys = list(old.session_keys())
            assert sorted(new.session_keys()) == sorted(keys)
            assert new.driver.get_many(keys) == old.driver.get_many(keys)


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize(
    "name", ["SIGKILL", *(pytest.param(name, marks=pytest.mark.slow) for name in ("SIGTERM", "SIGINT"))]
)
def test_who_logs_out_after_a_copy_was_killed_is_not_logged_in_on_the_new_store(
    name: str, tmp_path: Path, valkey: Valkey
) -> None:
    valkey.ask("FLUSHALL")
    urls = f"sqlite://{tmp_path}/old.db", valkey.url
    with closing(open_store(urls[0])) as old, closing(open_store(urls[1])) as new:
        manager = SessionManager(old, SECRET)
        sessions = [manager.open() for _ in range(600)]
        for number, session in enumerate(sessions):
            session.bind(f"user {number // 3}").save()

        def copied() -> str:
            with started("copy", *urls) as copying:
                output, errors = copying.communicate(timeout=60)
            assert (copying.returncode, errors) == (0, "")
            return output

        def is_under_way() -> bool:
            return any(b"page" in value for value in new.driver.get_many(old.session_keys()).values())

        copied()
        for session in sessions:
            session["page"] = 1
            session.save()
        with started("copy", *urls) as copying:
            wait_until(is_under_way, "the copy")
            copying.send_signal(getattr(signal, name))
            copying.wait(30)
        assert copying.returncode != 0
        assert "both" not in copied()
        for number in range(200):
            owner = f"user {number}"
            assert {info.handle for info in new.sessions_of(owner)} == {info.handle for info in old.sessions_of(owner)}
        for session in sessions[1:]:
            session.destroy()
        copied()
        assert list(new.session_keys()) == list(old.session_keys()) == [old.key(sessions[0].id)]


def test_a_copy_beside_a_busy_application_loses_no_write(tmp_path: Path, valkey: Valkey) -> None:
    valkey.ask("FLUSHALL")
    urls = f"sqlite://{tmp_path}/old.db", valkey.url
    ids = fill(urls[0], 300)
    with closing(open_store(urls[0])) as old, closing(open_store(urls[1])) as new:
        stop = threading.Event()

        def write() -> None:
            number = 0
            while not stop.is_set():
                number += 1
                for sid in ids[:50]:
                    old.set(sid, {"count": number})

        writer = threading.Thread(target=write)
        writer.start()
        try:
            with started("copy", *urls) as copying:
                assert copying.wait(60) == 0
        finally:
            stop.set()
            writer.join()
        with started("copy", *urls) as copying:
            output, errors = copying.communicate(timeout=60)
        assert errors == ""
        assert "left" not in output
        for sid in ids:
            assert new.get(sid) == old.get(sid)


# --- without the packages ---


@pytest.fixture
def bare(tmp_path: Path) -> str:
    """A folder that hides what the extra `cli` brings."""
    folder = tmp_path / "bare"
    folder.mkdir()
    for name in ("typer", "rich", "click"):
        (folder / f"{name}.py").write_text(f"raise ModuleNotFoundError('no {name}', name='{name}')")
    return os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])


def test_a_secret_needs_no_package(bare: str) -> None:
    with started("secret", PYTHONPATH=bare) as process:
        output, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (0, "")
    assert len(output.strip()) == 43


@pytest.mark.parametrize("command", ["list", "doctor"])
def test_other_commands_say_in_one_line_what_to_install(command: str, bare: str) -> None:
    with started(command, "memory://", PYTHONPATH=bare) as process:
        output, errors = process.communicate(timeout=30)
    assert (process.returncode, output) == (2, "")
    assert errors == "session-kit: the package typer is missing: pip install 'session-kit-web[cli]'\n"


def test_a_failed_check_is_an_exit_code(session_kit: SessionKit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOD", SECRET)
    monkeypatch.setenv("BAD", "sh0rt-canary")
    code, output, errors = session_kit("doctor", "memory://", "--secret-env", "GOOD")
    assert (code, errors) == (0, "")
    assert re.search(r"^ok +secret +GOOD: ", output, re.MULTILINE)
    code, output, errors = session_kit("doctor", "memory://", "--secret-env", "BAD")
    assert (code, errors) == (1, "")
    assert re.search(r"^failed +secret +BAD: .*12 bytes", output, re.MULTILINE)
    code, output, errors = session_kit("doctor", "redis://127.0.0.1:1", "--secret-env", "MISSING")
    assert (code, errors) == (1, "")
    assert [line.split()[:2] for line in output.splitlines()] == [["failed", "reach"], ["failed", "secret"]]
    assert "canary" not in session_kit.said
    assert SECRET not in session_kit.said


# --- in the command line of a framework ---

APPLICATIONS = {
    "flask": """
from flask import Flask
from session_kit.integrations.flask import SessionKit

app = Flask(__name__)
app.secret_key = {secret!r}
SessionKit(app, store={url!r})
""",
    "quart": """
from quart import Quart
from session_kit.integrations.quart import SessionKit

app = Quart(__name__)
app.secret_key = {secret!r}
SessionKit(app, store={url!r})
""",
    "litestar": """
from litestar import Litestar
from session_kit.integrations.litestar import SessionKit

app = Litestar([], plugins=[SessionKit(store={url!r}, secret={secret!r})])
""",
    "django": """
import sys

from django.conf import settings
from django.core.management import execute_from_command_line

settings.configure(
    SECRET_KEY={secret!r},
    INSTALLED_APPS=["session_kit.integrations.django"],
    SESSION_ENGINE="session_kit.integrations.django",
    SESSION_KIT={{"store": {url!r}}},
)
execute_from_command_line(sys.argv)
""",
}
COMMANDS = {
    "flask": ["-m", "flask", "--app", "app", "session"],
    "quart": ["-m", "quart", "--app", "app", "session"],
    "litestar": ["-m", "litestar", "--app", "app:app", "session"],
    "django": ["app.py", "sessionkit"],
}


# Quart's command line is Flask's.
@pytest.mark.parametrize("framework", ["flask", pytest.param("quart", marks=pytest.mark.slow), "litestar", "django"])
def test_each_framework_has_the_commands_on_its_own_store(framework: str, tmp_path: Path) -> None:
    url, target = f"sqlite://{tmp_path}/s.db", f"disk://{tmp_path}/new"
    (tmp_path / "app.py").write_text(APPLICATIONS[framework].format(secret=SECRET, url=url))
    ids = fill(url, 3)

    def run(*arguments: str) -> tuple[int, str, str]:
        result = subprocess.run(
            [sys.executable, *COMMANDS[framework], *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        for sid in ids:
            assert sid.partition("~")[2] not in result.stdout + result.stderr
        assert "canary-" not in result.stdout + result.stderr
        return result.returncode, result.stdout, result.stderr

    _, *rows, last = run("list")[1].splitlines()
    assert sorted(row.split()[0] for row in rows) == sorted(hash_id(sid)[:16] for sid in ids)
    assert last == "3 sessions"
    handle = hash_id(ids[0])
    assert handle in run("show", handle[:16])[1]
    assert run("revoke", handle) == (0, f"revoked {handle}\n", "")
    assert run("copy", "--to", target) == (0, "2 sessions\n       2 copied\n", "")
    code, output, errors = run("copy")
    assert (code, output) == (2, "")
    assert errors.startswith("session-kit: say --from OLD")
    assert run("list", "--owner", "")[0] == run("list", "--nope")[0] == 2
    code, output, errors = run("doctor")
    assert (code, errors) == (0, "")
    assert {"reach", "expiry", "cookie"} <= {line.split()[1] for line in output.splitlines()}
    assert SECRET not in output


@pytest.mark.parametrize("framework", APPLICATIONS)
def test_no_framework_lacks_a_command(framework: str, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APPLICATIONS[framework].format(secret=SECRET, url=f"sqlite://{tmp_path}/s.db"))
    result = subprocess.run(
        [sys.executable, *COMMANDS[framework], "--help"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    for name in OPERATORS:
        assert re.search(rf"^ +{name} ", result.stdout, re.MULTILINE), name
