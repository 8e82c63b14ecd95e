"""A few of the applications under one real server, granian with one worker: requests a second, as wrk counts them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from session_kit.benchmarks.maintainers.apps import NONE, PEERS, Backends, Peer
from session_kit.benchmarks.maintainers.results import ROOT, Figures, best_of, markdown
from session_kit.benchmarks.maintainers.visits import Guest, validate
from session_kit.benchmarks.measure import Noise
from tests.harness.servers import HOST
from tests.harness.web_servers import HttpServer

REQUESTS = {"read": ("GET", "/read?key=user&turn="), "write": ("POST", "/write?key=visits&value=")}
SECONDS = 3
ROUNDS = 3
VISITORS = 64  # for 16 connections: two requests of one visitor hardly meet
# wrk runs it: each request is of the next visitor, and each write is of another value.
SCRIPT = """
local cookies, turn = {{{cookies}}}, 0
request = function()
  turn = turn + 1
  return wrk.format("{method}", "{path}" .. turn, {{Cookie = cookies[turn % #cookies + 1]}})
end
"""


class PeerServer(HttpServer):
    """One application under granian."""

    def __init__(self, peer: Peer, backends: Backends) -> None:
        self._peer, self._backends = peer, backends
        super().__init__(backends.folder, "granian")

    def _command(self) -> list[str]:
        app = "--factory session_kit.benchmarks.maintainers.apps:create --no-ws --no-log"
        address = f"--interface {self._peer.interface} --host {HOST} --port {self.port} --workers 1"
        return [sys.executable, "-W", "ignore", "-m", "granian", *app.split(), *address.split()]

    def _environment(self) -> dict[str, str]:
        backends = dict(zip(("FOLDER", "REDIS", "POSTGRES"), map(str, self._backends), strict=True))
        return {"PEER": self._peer.name, **backends, "PYTHONPATH": str(ROOT)}

    def rate(self, script: Path) -> float:
        """How many requests a second it answers."""
        command = ["wrk", "-t1", "-c16", f"-d{SECONDS}s", "-s", str(script), self.url]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        rate = re.search(r"Requests/sec:\s*([\d.]+)", said)
        if rate is None or "Non-2xx" in said or "Socket errors" in said:
            raise RuntimeError(f"not all requests were answered:\n{said}")
        return float(rate[1])


def prepare(stack: ExitStack, peer: Peer, backends: Backends) -> Callable[[], Figures]:
    """Start a server with many visitors, all logged in; return what asks for the seconds of each kind of request."""
    server = stack.enter_context(PeerServer(peer, backends))
    if peer.sessions != NONE:
        validate(server, peer)
    guests = [Guest(server, peer) for _ in range(VISITORS)]
    for guest in guests:
        guest.ask("login")
    cookies = ", ".join(f"[[{guest.request('read').headers['cookie']}]]" for guest in guests)
    scripts = {kind: server.folder / f"{kind}.lua" for kind in REQUESTS}
    for kind, (method, path) in REQUESTS.items():
        scripts[kind].write_text(SCRIPT.format(cookies=cookies, method=method, path=path))
    return lambda: {kind: 1 / server.rate(script) for kind, script in scripts.items()}


def report(backends: Backends) -> str:
    """Measure, each framework's servers by turns, and say it in Markdown."""
    if shutil.which("wrk") is None:
        raise SystemExit("--http needs wrk: apt-get install wrk, or brew install wrk")
    rows = []
    for framework in ("Starlette", "Flask"):
        print(f"{framework} under granian ...", file=sys.stderr)
        peers = [peer for peer in PEERS if peer.framework == framework]
        peers = [peer for peer in peers if peer.sessions != "Flask-Session" or peer.store == "Valkey"]
        with ExitStack() as stack:
            found = best_of({peer: prepare(stack, peer, backends) for peer in peers}, ROUNDS, Noise())
        rows += [[*peer.cells, *(f"{1 / costs[kind]:.0f}" for kind in REQUESTS)] for peer, costs in found.items()]
    how = f"granian, one worker, wrk with 16 connections and {VISITORS} visitors on the same machine"
    head = ["framework", "sessions", "store", "reads a second", "writes a second"]
    return f"\nRequests a second ({how}):\n\n{markdown(head, rows, 3)}"
