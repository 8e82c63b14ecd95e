"""A network that fails on demand: an address in front of a server that cuts, stalls, trickles and forgets."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from dataclasses import dataclass
from typing import Final, Literal

from tests.harness.loops import LoopThread
from tests.harness.servers import HOST, Stoppable

Way = Literal["request", "reply"]
RESET: Final = struct.pack("ii", 1, 0)  # of SO_LINGER: a socket that is closed says RST, not FIN


@dataclass
class Fault:
    """What happens once, when so many bytes have gone one way, counted over all connections from when it is set.

    kind: `fin` and `rst` end the connection, `stall` passes nothing more on that comes this way, and `trickle` passes
        the rest on one byte at a time, with so many seconds (`pace`) between two.
    """

    kind: Literal["fin", "rst", "stall", "trickle"]
    way: Way
    after: int
    pace: float = 0.0
    fired: bool = False


class Wire:
    """One connection of a client, and its continuation to the server."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.ends: dict[Way, tuple[socket.socket, socket.socket]] = {
            "request": (client, server),
            "reply": (server, client),
        }
        self.dead: set[Way] = set()
        self.resets = False
        self.pace: dict[Way, float] = {}

    def close(self, *, reset: bool) -> None:
        for end in self.ends["request"]:
            if reset:
                with contextlib.suppress(OSError):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            end.close()


class Network(Stoppable):
    """An address in front of the server on this port.

    fault: the next one, if any; see `set`. delay: seconds that each reply takes longer. wires: the connections.
    sent: the bytes that went each way since `set`.
    """

    def __init__(self, port: int) -> None:
        self._server = HOST, port
        self.fault: Fault | None = None
        self.delay = 0.0
        self.wires: set[Wire] = set()
        self.sent: dict[Way, int] = {"request": 0, "reply": 0}
        self._listener = socket.create_server((HOST, 0), backlog=100)
        self._listener.setblocking(False)
        self.port = int(self._listener.getsockname()[1])
        self._loop = LoopThread()
        self._loop.run(self._begin())

    def set(self, fault: Fault | None = None) -> None:
        """Let this happen next, or nothing; the bytes are counted from here."""
        self.fault = fault
        self.sent = {"request": 0, "reply": 0}

    def forget(self, *, reset: bool = False) -> None:
        """Do what firewalls do to connections that were idle: pass nothing on any more, and say nothing.

        reset: answer whoever sends something on one with a reset, as load balancers do.
        """

        async def work() -> None:
            for wire in self.wires:
                wire.dead |= {"request", "reply"}
                wire.resets = reset

        self._loop.run(work())

    def end_all(self) -> None:
        """Close all connections, as a server does with those that were idle."""

        async def work() -> None:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

        self._loop.run(work())

    def stop(self) -> None:
        if not self._loop.closed:
            self._loop.run(self._end())
            self._listener.close()
            self._loop.close()

    async def _begin(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._accepting = asyncio.create_task(self._accept())

    async def _end(self) -> None:
        tasks = [self._accepting, *self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            client, _ = await loop.sock_accept(self._listener)
            task = asyncio.create_task(self._serve(Wire(client, socket.socket())))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _serve(self, wire: Wire) -> None:
        self.wires.add(wire)
        reset = False
        try:
            for end in wire.ends["request"]:
                end.setblocking(False)
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await asyncio.get_running_loop().sock_connect(wire.ends["request"][1], self._server)
            ways = [asyncio.create_task(self._pump(wire, way)) for way in wire.ends]
            try:
                ended, _ = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in ways:
                    task.cancel()
                outcomes = await asyncio.gather(*ways, return_exceptions=True)
            reset = any(outcomes[ways.index(task)] is not False for task in ended)
        except OSError:
            reset = True
        finally:
            wire.close(reset=reset)
            self.wires.discard(wire)

    async def _pump(self, wire: Wire, way: Way) -> bool:
        """Pass on what comes this way; returns whether the connection is to end with a reset."""
        loop = asyncio.get_running_loop()
        source, target = wire.ends[way]
        while data := await loop.sock_recv(source, 65536):
            if wire.resets:
                return True
            if way in wire.dead:
                continue
            if way == "reply" and self.delay:
                await asyncio.sleep(self.delay)
            fault, left = self.fault, len(data)
            if fault is not None and not fault.fired and fault.way == way:
                left = min(left, fault.after - self.sent[way])
                fault.fired = self.sent[way] + len(data) > fault.after
            await self._send(wire, way, target, data[:left])
            if fault is None or left == len(data):
                continue
            if fault.kind in ("fin", "rst"):
                return fault.kind == "rst"
            if fault.kind == "stall":
                wire.dead.add(way)
            else:
                wire.pace[way] = fault.pace
                await self._send(wire, way, target, data[left:])
        if way == "reply" and way in wire.dead:  # nor does the end come through
            await asyncio.Event().wait()
        return False

    async def _send(self, wire: Wire, way: Way, target: socket.socket, data: bytes) -> None:
        loop = asyncio.get_running_loop()
        self.sent[way] += len(data)
        if way not in wire.pace:
            await loop.sock_sendall(target, data)
            return
        for place in range(len(data)):
            await loop.sock_sendall(target, data[place : place + 1])
            await asyncio.sleep(wire.pace[way])
