"""The demo does what it shows, and its page, its cookie and its secret are safe."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from session_kit import ConfigError
from session_kit.demo.app import make_app
from session_kit.demo.server import demo_folder, load_secret

ROOT = Path(__file__).parents[2]
SECRET = "Kx7-not-for-production-but-long-enough-0123"
SAME_ORIGIN = {"Sec-Fetch-Site": "same-origin"}


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "session_kit", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONIOENCODING": "utf-8", "COLUMNS": "200", **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def client() -> Iterator[TestClient]:
    with TestClient(make_app("memory://", SECRET), base_url="https://testserver") as client:
        yield client


# --- the command line ---


def test_the_check_sees_all_that_the_demo_promises() -> None:
    result = run("demo", "--check")
    assert result.returncode == 0, result.stdout + result.stderr
    lines = result.stdout.splitlines()
    steps = [line.removeprefix("✓ ") for line in lines if line.startswith("✓ ")]
    assert len(steps) == len(lines) - 2 == 13
    for words in ("stores nothing", "counter counts", "both kept", "restart", "new id", "is unknown", "Logging out"):
        assert any(words in step for step in steps), words


def test_a_step_that_fails_is_named_with_the_servers_output(tmp_path: Path) -> None:
    # Sessions that end so soon do not outlive the pause between reading the cart and changing it.
    result = run("demo", "--check", "--store", f"disk://{tmp_path}/sessions?ttl=0.3")
    assert result.returncode == 1
    assert "✗ " in result.stdout
    assert "The server's output:" in result.stdout
    assert "Demo at http://127.0.0.1:" in result.stdout
    assert "Traceback" not in result.stdout + result.stderr


@pytest.mark.skipif(os.name != "posix", reason="signals, and the process list")
def test_a_check_that_is_stopped_stops_its_server(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "session_kit", "demo", "--check"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL) as check:
        url = _wait_for_url(tmp_path)
        check.send_signal(signal.SIGTERM)
        assert check.wait(15) == 128 + signal.SIGTERM
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=5)
    assert list(tmp_path.iterdir()) == []


def _wait_for_url(folder: Path) -> str:
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        for log in folder.glob("*/server.log"):
            found = re.search(r"http://\S+:\d+", log.read_text())
            if found is not None:
                return found[0]
        time.sleep(0.02)
    raise AssertionError("the check started no server")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--store", "nope://x"], "no driver for nope://"),
        (["--check", "--store", "nope://x"], "no driver for nope://"),
        (["--store", "memory://?ttl=soon"], "ttl"),
        (["--host", "256.0.0.1"], "cannot listen on 256.0.0.1"),
    ],
)
def test_a_setting_that_cannot_work_is_one_line(arguments: list[str], words: str, tmp_path: Path) -> None:
    result = run("demo", *arguments, XDG_CACHE_HOME=str(tmp_path))
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1
    assert words in result.stderr


def test_a_port_in_use_is_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = run("demo", "--port", str(port), XDG_CACHE_HOME=str(tmp_path))
    assert result.returncode == 2
    assert result.stderr == f"session-kit: port {port} on 127.0.0.1 is in use; choose another with --port\n"


def test_a_missing_package_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text("raise ModuleNotFoundError('no typer', name='typer')")
    result = run("demo", PYTHONPATH=str(tmp_path))
    assert result.returncode == 1
    assert result.stderr == "session-kit: the package typer is missing: pip install 'session-kit-web[cli]'\n"


def test_secret_prints_a_new_one_that_can_sign() -> None:
    first, second = (run("secret").stdout.strip() for _ in range(2))
    assert first != second
    make_app("memory://", first)


def test_version() -> None:
    assert re.fullmatch(r"session-kit \d+\.\d+\.\d+\S*\n", run("--version").stdout)


# --- the secret ---


def test_the_secret_is_private_and_stays_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = demo_folder()
    assert folder == tmp_path / "session-kit" / "demo"
    secret = load_secret(folder)
    assert load_secret(folder) == secret
    if os.name == "posix":
        assert (folder / "secret").stat().st_mode & 0o777 == 0o600
        assert folder.stat().st_mode & 0o777 == 0o700


def test_a_secret_that_was_cut_short_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("short")
    with pytest.raises(ConfigError, match="delete this file"):
        load_secret(tmp_path)


# --- the page ---


def test_what_visitors_type_is_escaped(client: TestClient) -> None:
    nasty = "<script>alert(1)</script>\"'&"
    client.post("/login", data={"name": nasty}, headers=SAME_ORIGIN)
    client.post("/cart/add", data={"item": nasty}, headers=SAME_ORIGIN)
    page = client.get("/").text
    assert "<script" not in page
    escaped = "&lt;script&gt;alert(1)&lt;/script&gt;&quot;&#x27;&amp;"
    assert f'<span id="who">{escaped}</span>' in page
    assert f'value="{escaped}"' in page
    # In the record it is JSON first.
    assert "&lt;script&gt;alert(1)&lt;/script&gt;\\&quot;&#x27;&amp;" in page


def test_placeholders_in_what_visitors_type_stay_text(client: TestClient) -> None:
    client.post("/login", data={"name": "$account ${stored} $$"}, headers=SAME_ORIGIN)
    assert '<span id="who">$account ${stored} $$</span>' in client.get("/").text


def test_the_page_allows_no_script_and_shows_no_id(client: TestClient) -> None:
    response = client.post("/visit", headers=SAME_ORIGIN)
    assert "default-src 'none'" in response.headers["Content-Security-Policy"]
    assert "script-src" not in response.headers["Content-Security-Policy"]
    assert "no-store" in response.headers["Cache-Control"]
    sid = client.cookies["session"].rpartition(".")[0]
    assert sid[:6] in response.text
    assert sid[:7] not in response.text


def test_a_cart_takes_and_gives_back(client: TestClient) -> None:
    for path in ("add", "add", "remove"):
        page = client.post(f"/cart/{path}", data={"item": "Apples"}, headers=SAME_ORIGIN).text
    assert "<b>1</b>" in page
    page = client.post("/cart/remove", data={"item": "Apples"}, headers=SAME_ORIGIN).text
    assert "Nothing in it." in page
    client.post("/cart/remove", data={"item": "Pears"}, headers=SAME_ORIGIN)


@pytest.mark.parametrize("form", [{}, {"name": "  "}, {"name": "\udcff"}, {"name": "a" * 5000}, {"other": "x"}])
def test_forms_that_make_no_sense_log_nobody_in(client: TestClient, form: dict[str, str]) -> None:
    body = "&".join(f"{key}={value}" for key, value in form.items()).encode(errors="surrogateescape")
    response = client.post("/login", content=body, headers=SAME_ORIGIN, follow_redirects=False)
    assert response.status_code == (413 if len(body) > 4096 else 303)
    assert "Internal" not in client.get("/").text


# --- requests from elsewhere ---

ACTIONS = ("/login", "/logout", "/visit", "/cart/add", "/cart/remove", "/rotate")
REFUSED = [
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},  # another port of localhost
    {"Origin": "https://evil.test"},
    {"Origin": "null"},
    {"Origin": "https://testserver", "Sec-Fetch-Site": "cross-site"},
]
ALLOWED = [{"Sec-Fetch-Site": "same-origin"}, {"Origin": "https://testserver"}, {}]


@pytest.mark.parametrize("headers", REFUSED)
def test_forms_of_other_sites_are_refused(client: TestClient, headers: dict[str, str]) -> None:
    for path in ACTIONS:
        response = client.post(path, data={"name": "Eve", "item": "Eve"}, headers=headers, follow_redirects=False)
        assert response.status_code == 403
        assert "set-cookie" not in response.headers


@pytest.mark.parametrize("headers", ALLOWED)
def test_own_forms_and_programs_are_served(client: TestClient, headers: dict[str, str]) -> None:
    assert client.post("/visit", headers=headers, follow_redirects=False).status_code == 303


def test_a_link_changes_nothing(client: TestClient) -> None:
    assert [client.get(path).status_code for path in ACTIONS] == [405] * len(ACTIONS)
