"""The demo does what it shows, and its page, its cookie and its secret are safe."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from session_kit import ConfigError
from session_kit.demo.app import make_app
from session_kit.demo.device import device_name
from session_kit.demo.page import hash_of
from session_kit.demo.server import demo_folder, load_secret
from tests.harness.sessions import SECRET

ROOT = Path(__file__).parents[2]
SAME_ORIGIN = {"Sec-Fetch-Site": "same-origin"}
MOZILLA = "Mozilla/5.0"
WEBKIT = "AppleWebKit/537.36 (KHTML, like Gecko)"


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
    assert len(steps) == len(lines) - 2 == 16
    told = (
        "stores nothing",
        "counter counts",
        "both kept",
        "restart",
        "new id",
        "is unknown",
        "Logging out",
        "second device",
        "next click",
        "all others",
    )
    for words in told:
        assert any(words in step for step in steps), words


@pytest.mark.slow
def test_the_check_passes_on_a_store_that_cannot_swap() -> None:
    result = run("demo", "--check", "--store", "fsspec+memory://demo")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "one after the other" in result.stdout


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
    assert result.returncode == 2
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
    assert nasty not in page
    assert page.count("<script") == 1  # the page's own
    escaped = "&lt;script&gt;alert(1)&lt;/script&gt;&quot;&#x27;&amp;"
    assert f'<span id="who">{escaped}</span>' in page
    assert f'value="{escaped}"' in page
    # In the record it is JSON first.
    assert "&lt;script&gt;alert(1)&lt;/script&gt;\\&quot;&#x27;&amp;" in page


def test_placeholders_in_what_visitors_type_stay_text(client: TestClient) -> None:
    client.post("/login", data={"name": "$account ${stored} $$"}, headers=SAME_ORIGIN)
    assert '<span id="who">$account ${stored} $$</span>' in client.get("/").text


def test_the_page_allows_no_script_but_its_own_and_shows_no_id(client: TestClient) -> None:
    response = client.post("/visit", headers=SAME_ORIGIN)
    policy = dict(part.strip().split(" ", 1) for part in response.headers["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == hash_of("script")
    script = response.text.partition("<script>")[2].partition("</script>")[0]
    assert f"'sha256-{b64encode(sha256(script.encode()).digest()).decode()}'" == policy["script-src"]
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


def test_a_page_tells_a_logout_and_nothing_that_a_link_makes_up(client: TestClient) -> None:
    client.post("/login", data={"name": "Ada"}, headers=SAME_ORIGIN)
    page = client.post("/logout", headers=SAME_ORIGIN)
    assert "You are logged out." in page.text
    assert "set-cookie" not in page.headers  # to tell it, no new session was begun
    assert client.cookies == {}
    assert 'id="notice"' not in client.get("/").text
    for notice in ("page", "You have won", "../ended"):
        assert 'id="notice"' not in client.get("/", params={"notice": notice}).text


# --- devices ---

HANDLE = re.compile(r'name="handle" value="([0-9a-f]{64})"')


def another(client: TestClient, name: str, **headers: str) -> TestClient:
    """Another browser, logged in on the same demo."""
    other = TestClient(client.app, base_url="https://testserver")
    other.post("/login", data={"name": name}, headers={**SAME_ORIGIN, **headers})
    return other


def test_one_user_can_end_no_device_of_another(client: TestClient) -> None:
    ada, eve = another(client, "Ada"), another(client, "Eve")
    [adas] = HANDLE.findall(another(client, "Ada").get("/").text)
    eve.post("/devices/end", data={"handle": adas}, headers=SAME_ORIGIN)
    eve.post("/devices/end-others", headers=SAME_ORIGIN)
    client.post("/devices/end", data={"handle": adas}, headers=SAME_ORIGIN)  # who is not logged in at all
    assert 'Hello, <span id="who">Ada' in ada.get("/").text


@pytest.mark.parametrize("handle", ["", "x", "0" * 64, "\udcff"])
def test_a_handle_that_names_nothing_ends_nothing(client: TestClient, handle: str) -> None:
    ada = another(client, "Ada")
    body = f"handle={handle}".encode(errors="surrogateescape")
    page = ada.post("/devices/end", content=body, headers=SAME_ORIGIN)
    assert page.status_code == 200
    assert '<span id="who">Ada' in page.text


def test_a_device_that_was_ended_is_told_so_whatever_it_does_next(client: TestClient) -> None:
    for path in ("/visit", "/cart/add", "/cart/remove", "/rotate", "/devices/end", "/devices/end-others"):
        ended, ender = another(client, "Ada"), another(client, "Ada")
        ender.post("/devices/end-others", headers=SAME_ORIGIN)
        page = ended.post(path, data={"item": "Apples"}, headers=SAME_ORIGIN).text
        assert "Your session has ended" in page, path
        assert '<span id="who">stranger' in page, path
        assert '<span id="who">Ada' in ender.get("/").text, path


def test_what_a_browser_calls_itself_is_escaped_and_cut(client: TestClient) -> None:
    nasty = "<script>alert(1)</script>" * 100
    ada = another(client, "Ada", **{"User-Agent": nasty})
    page = ada.get("/").text
    assert nasty[:20] not in page
    assert '<span id="this-device">Another program</span>' in page


@pytest.mark.parametrize(
    ("user_agent", "name"),
    [
        (f"{MOZILLA} (Windows NT 10.0; Win64; x64) {WEBKIT} Chrome/141.0.0.0 Safari/537.36", "Chrome on Windows"),
        (f"{MOZILLA} (Windows NT 10.0) {WEBKIT} Chrome/141.0.0.0 Safari/537.36 Edg/141.0.0.0", "Edge on Windows"),
        (f"{MOZILLA} (Linux; Android 10; K) {WEBKIT} Chrome/141.0.0.0 Mobile Safari/537.36", "Chrome on Android"),
        (f"{MOZILLA} (Macintosh; Intel Mac OS X 10_15_7) {WEBKIT} Version/18.5 Safari/605.1.15", "Safari on Mac"),
        (f"{MOZILLA} (iPhone; CPU iPhone OS 18_5 like Mac OS X) {WEBKIT} CriOS/141.0 Safari/604.1", "Chrome on iPhone"),
        (f"{MOZILLA} (X11; Ubuntu; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0", "Firefox on Linux"),
        (
            f"{MOZILLA} (Linux; Android 13) {WEBKIT} SamsungBrowser/28.0 Chrome/130.0 Safari/537.36",
            "Samsung Internet on Android",
        ),
        ("Firefox", "Firefox"),
        ("", "Another program"),
    ],
)
def test_a_device_is_called_in_plain_words(user_agent: str, name: str) -> None:
    assert device_name(user_agent) == name


# --- requests from elsewhere ---

ACTIONS = (
    *("/login", "/logout", "/rotate", "/devices/end", "/devices/end-others"),
    *("/visit", "/cart/add", "/cart/remove"),
)
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
