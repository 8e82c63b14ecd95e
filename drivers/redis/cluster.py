"""A Redis or Valkey cluster: which node holds a key, and what to do when it has moved."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Generator, Iterator, Mapping, Sequence
from typing import Any, Final

from redis.crc import key_slot
from redis.exceptions import AskError, ClusterDownError, MovedError, TryAgainError

from session_kit.drivers.errors import DriverUnavailable
from session_kit.drivers.redis.protocol import Command
from session_kit.drivers.redis.server import Server
from session_kit.drivers.redis.settings import Settings

Address = tuple[str, int]
Requests = Mapping[Address, list[Command]]
Answers = Mapping[Address, list[Any] | DriverUnavailable]

SLOTS: Final = 16384
# A key that moves sends us on once or twice. Nodes that send us to and fro hear of a change one after the other.
QUICK_ROUNDS: Final = 3
MAX_ROUNDS: Final = 8
PAUSE: Final = 0.1  # seconds
ASKING: Final = ("ASKING",)


class Cluster:
    """A transport to each node that is needed, and the map of slots to nodes.

    Each command goes to the primary that holds its key; commands for different nodes travel at the same time in
    asyncio. The map is learned from any node that answers, and again when a node is lost. (That of redis-py's cluster
    clients belongs to one event loop each, and is not to be had while a node is down.)
    """

    asynchronous = True

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._nodes: dict[Address, Server] = {}
        self._owners: list[Address] | None = None

    def __str__(self) -> str:
        return str(self._settings)

    def run(self, commands: Sequence[Command], repeatable: bool = False) -> list[Any]:
        return self._step(self._route(commands, repeatable), repeatable)

    async def arun(self, commands: Sequence[Command], repeatable: bool = False) -> list[Any]:
        return await self._astep(self._route(commands, repeatable), repeatable)

    def scan(self, pattern: bytes) -> Iterator[bytes]:
        for address in self._step(self._primaries(), True):
            yield from self._node(address).scan(pattern)

    async def ascan(self, pattern: bytes) -> AsyncIterator[bytes]:
        for address in await self._astep(self._primaries(), True):
            async for key in self._node(address).ascan(pattern):
                yield key

    def close(self) -> None:
        for node in list(self._nodes.values()):
            node.close()

    async def aclose(self) -> None:
        for node in list(self._nodes.values()):
            await node.aclose()

    def after_fork(self) -> None:
        for node in self._nodes.values():
            node.after_fork()

    # --- decided once for blocking and async code: a generator says what to ask which node, and is sent the answers ---

    def _route(self, commands: Sequence[Command], repeatable: bool) -> Generator[Requests, Answers, list[Any]]:
        answers: list[Any] = [None] * len(commands)
        todo = set(range(len(commands)))
        asking: dict[int, Address] = {}
        lost = 0
        for turn in range(MAX_ROUNDS):
            if turn >= QUICK_ROUNDS:
                yield {}
            owners = self._owners or (yield from self._learn())
            batches: dict[Address, list[int]] = defaultdict(list)
            for number in sorted(todo):
                batches[asking.get(number) or owners[_slot(commands[number])]].append(number)
            sent = {
                address: [word for number in numbers for word in _announced(commands[number], number in asking)]
                for address, numbers in batches.items()
            }
            replies = yield sent
            for address, numbers in batches.items():
                got = replies[address]
                if isinstance(got, DriverUnavailable):
                    self._owners = None
                    lost += 1
                    if not repeatable or lost > 1:
                        raise got
                    continue
                for number, reply in zip(numbers, _without_announcements(got, sent[address]), strict=True):
                    asking.pop(number, None)
                    if isinstance(reply, AskError):
                        target = (reply.host or address[0], reply.port)  # without a host it is the one that was asked
                        if not isinstance(reply, MovedError):
                            asking[number] = target
                        elif (known := self._owners) is not None:  # asked once: another thread may drop it
                            known[reply.slot_id] = target
                    elif not isinstance(reply, TryAgainError):
                        answers[number] = reply
                        todo.discard(number)
                        if isinstance(reply, ClusterDownError):
                            self._owners = None
            if not todo:
                return answers
        raise DriverUnavailable(f"{self}: the cluster keeps sending us from node to node; it is changing its shape")

    def _learn(self) -> Generator[Requests, Answers, list[Address]]:
        """Ask the nodes, one after the other, who holds what."""
        error = DriverUnavailable(f"{self}: no node covers all slots")
        for address in dict.fromkeys([*self._nodes, *self._settings.hosts]):
            (reply,) = (yield {address: [("CLUSTER", "SLOTS")]}).values()
            if isinstance(reply, DriverUnavailable):
                error = reply
                continue
            owners: dict[int, Address] = {}
            for first, last, primary, *_ in [] if isinstance(reply[0], Exception) else reply[0]:
                host = (primary[0] or b"").decode() or address[0]
                owners |= dict.fromkeys(range(first, last + 1), (host, primary[1]))
            if len(owners) == SLOTS:
                self._owners = found = [owners[slot] for slot in range(SLOTS)]
                return found
            if isinstance(reply[0], Exception):
                error = DriverUnavailable(f"{self}: {address[0]}:{address[1]} is no node of a cluster; use redis://")
        raise error

    def _primaries(self) -> Generator[Requests, Answers, list[Any]]:
        return sorted(set((yield from self._learn())))

    # --- the two ways to carry it out ---

    def _step(self, plan: Generator[Requests, Answers, list[Any]], repeatable: bool) -> list[Any]:
        try:
            requests = next(plan)
            while True:
                answers: dict[Address, Any] = {}
                if not requests:
                    time.sleep(PAUSE)
                for address, commands in requests.items():
                    try:
                        answers[address] = self._node(address).run(commands, repeatable)
                    except DriverUnavailable as error:
                        answers[address] = error
                requests = plan.send(answers)
        except StopIteration as done:
            result: list[Any] = done.value
            return result

    async def _astep(self, plan: Generator[Requests, Answers, list[Any]], repeatable: bool) -> list[Any]:
        async def ask(address: Address, commands: list[Command]) -> list[Any] | DriverUnavailable:
            try:
                return await self._node(address).arun(commands, repeatable)
            except DriverUnavailable as error:
                return error

        try:
            requests = next(plan)
            while True:
                if not requests:
                    await asyncio.sleep(PAUSE)
                if len(requests) == 1:
                    ((address, commands),) = requests.items()
                    replies = [await ask(address, commands)]
                else:
                    replies = await asyncio.gather(*[ask(address, words) for address, words in requests.items()])
                requests = plan.send(dict(zip(requests, replies, strict=True)))
        except StopIteration as done:
            result: list[Any] = done.value
            return result

    def _node(self, address: Address) -> Server:
        node = self._nodes.get(address)
        if node is None:
            node = self._nodes.setdefault(address, Server(self._settings.server(*address)))
        return node


def _slot(command: Command) -> int:
    key = command[3] if command[0].startswith("EVAL") else command[1]
    return int(key_slot(key.encode()))


def _announced(command: Command, asking: bool) -> list[Command]:
    """To the node that a slot is on its way to, a command has to say that it knows."""
    return [ASKING, command] if asking else [command]


def _without_announcements(replies: list[Any], sent: list[Command]) -> list[Any]:
    return [reply for reply, command in zip(replies, sent, strict=True) if command is not ASKING]
