"""A program that the documentation prints, started on a free port by the command that stands above it."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.harness.servers import free_ports

ROOT = Path(__file__).parents[2]
STORE = "/tmp/shop/"  # noqa: S108  # where printed programs keep their sessions
PRINTED = "8000"  # the port that commands and programs name
OPTION = {"uvicorn": "--port {port}", "flask": "--port {port}", "python": "{port} --noreload"}
"""How a command that names no port is given one."""


@contextmanager
def started(command: str, code: str, folder: Path, *, secret: str = "") -> Iterator[str]:
    """Save the code as shop.py, run the command, and yield where it answers. Its sessions are in `folder`."""
    (port,) = free_ports(1)
    if PRINTED not in command + code:
        command = f"{command} {OPTION[command.split()[0]].format(port=port)}"
    command, code = command.replace(PRINTED, str(port)), code.replace(PRINTED, str(port))
    (folder / "shop.py").write_text(code.replace(STORE, f"{folder}/shop/"))
    program, *words = shlex.split(command)
    path = [sys.executable] if program == "python" else [sys.executable, "-m", program]
    environment = {name: value for name, value in os.environ.items() if name != "SESSION_SECRET"}
    if secret:
        environment["SESSION_SECRET"] = secret
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(
            [*path, *words], cwd=folder, env={**environment, "PYTHONPATH": str(ROOT)}, stdout=log, stderr=log
        ) as process,
    ):
        try:
            url = f"http://localhost:{port}"
            for _ in range(300):
                try:
                    httpx.get(f"{url}/nowhere")
                    break
                except httpx.TransportError:
                    assert process.poll() is None, (folder / "log").read_text()
                    time.sleep(0.1)
            yield url
        finally:
            process.terminate()


def three_visits(url: str) -> list[object]:
    """What it answers to a client that sends its cookie back, as a browser does on localhost."""
    answers, cookie = [], ""
    for _ in range(3):
        answer = httpx.get(url, headers={"cookie": cookie})
        cookie = answer.headers.get("set-cookie", cookie).partition(";")[0]
        answers.append(answer.json())
    return answers
