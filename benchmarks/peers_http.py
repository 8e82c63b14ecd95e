"""A few of the applications under one real server, granian with one worker: requests a second, as wrk counts them."""

from __future__ import annotations

import http.client
import re
import shutil
import subprocess
import sys
import time
from contextlib import ExitStack, closing
from pathlib import Path

from session_kit.benchmarks.peer_apps import NONE, OURS, PEERS, Peer, Place
from session_kit.benchmarks.peers import validate
from session_kit.benchmarks.readme import ROOT
from session_kit.benchmarks.sites import HEADERS, Answer, Browser
from tests.harness.servers import HOST, Server

FRAMEWORKS = ("Starlette", "Flask")
PATHS = ("/read", "/write")
SECONDS = 3
ROUNDS = 3
VISITORS = 64  # for 16 connections: two requests of one visitor hardly meet
# wrk runs it: each request is of the next visitor.
SCRIPT = """
local cookies, requests, last = {{{cookies}}}, {{}}, 0
init = function(args)
  for number, cookie in ipairs(cookies) do
    wrk.headers["Cookie"] = cookie
    requests[number] = wrk.format("GET", "{path}")
  end
end
request = function()
  last = last % #requests + 1
  return requests[last]
end
"""


class PeerServer(Server):
    """One application under granian, in a process of its own."""

    def __init__(self, peer: Peer, place: Place) -> None:
        self._peer, self._place = peer, place
        super().__init__(place.folder, "granian")

    def _command(self) -> list[str]:
        app = "--factory session_kit.benchmarks.peer_apps:create --no-ws --no-log"
        address = f"--interface {self._peer.interface} --host {HOST} --port {self.port} --workers 1"
        return [sys.executable, "-W", "ignore", "-m", "granian", *app.split(), *address.split()]

    def _environment(self) -> dict[str, str]:
        folder, redis, postgres = map(str, self._place)
        place = {"FOLDER": folder, "REDIS": redis, "POSTGRES": postgres}
        return {"PEER": self._peer.name, **place, "PYTHONPATH": str(ROOT)}

    def _ready(self) -> bool:
        return self.get("/untouched", "").body == ""

    def get(self, path: str, cookie: str) -> Answer:
        begin = time.perf_counter()
        with closing(http.client.HTTPConnection(HOST, self.port, timeout=5)) as connection:
            connection.request("GET", path, headers={**HEADERS, "cookie": cookie})
            response = connection.getresponse()
            body = response.read().decode()
        if response.status != 200:
            raise RuntimeError(f"{path} was answered with status {response.status}")
        return Answer(body, response.headers.get_all("set-cookie", []), time.perf_counter() - begin)

    def close(self) -> None:
        self.stop()


def load(server: PeerServer, script: Path) -> float:
    """Return how many requests a second a server answers."""
    command = ["wrk", "-t1", "-c16", f"-d{SECONDS}s", "-s", str(script), f"http://{HOST}:{server.port}"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in said or "Socket errors" in said:
        raise RuntimeError(f"not all requests were answered:\n{said}")
    rate = re.search(r"Requests/sec:\s*([\d.]+)", said)
    assert rate is not None, said
    return float(rate[1])


def rates(peers: list[Peer], place: Place) -> dict[Peer, dict[str, float]]:
    """Requests a second by path, the best of a few rounds in which the servers take turns."""
    best = {peer: dict.fromkeys(PATHS, 0.0) for peer in peers}
    with ExitStack() as stack:
        runs = []
        for number, peer in enumerate(peers):
            server = stack.enter_context(PeerServer(peer, place))
            if peer.sessions != NONE:
                validate(server)
            visitors = [Browser(server) for _ in range(VISITORS)]
            for visitor in visitors:
                visitor.get("/login")
            cookies = ", ".join(f"[[{visitor.cookie}]]" for visitor in visitors)
            for path in PATHS:
                script = place.folder / f"{number}{path.replace('/', '-')}.lua"
                script.write_text(SCRIPT.format(cookies=cookies, path=path))
                runs.append((peer, server, path, script))
        for _ in range(ROUNDS):
            for peer, server, path, script in runs:
                best[peer][path] = max(best[peer][path], load(server, script))
    return best


def report_http(place: Place) -> str:
    """Measure, and say it in Markdown."""
    if shutil.which("wrk") is None:
        raise SystemExit("--http needs wrk: apt-get install wrk, or brew install wrk")
    lines = ["| framework | sessions | store | reads a second | writes a second |", "| --- | --- | --- | ---: | ---: |"]
    for framework in FRAMEWORKS:
        peers = [peer for peer in PEERS if peer.framework == framework]
        peers = [peer for peer in peers if peer.sessions != "Flask-Session" or peer.store == "Valkey"]
        print(f"{framework} under granian ...", file=sys.stderr)
        for peer, found in rates(peers, place).items():
            name = f"**{peer.sessions}**" if peer.sessions == OURS else peer.sessions
            lines.append(f"| {framework} | {name} | {peer.store} | {' | '.join(f'{r:.0f}' for r in found.values())} |")
    how = f"granian, one worker, wrk with 16 connections and {VISITORS} visitors on the same machine"
    return f"Requests a second ({how}):\n\n" + "\n".join(lines) + "\n"
