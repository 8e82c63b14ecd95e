"""The Redis protocol, version 2: it has all we ask for, and no push message can come between two answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import hiredis
import redis.cluster
from redis.connection import DefaultParser
from redis.exceptions import ConnectionError, InvalidResponse

from session_kit.drivers.base import LIST_BATCH

Command = tuple[Any, ...]
"""The words of one command: str, bytes or int."""

BlockingParser: Final[Any] = getattr(redis.cluster, "ClusterParser", DefaultParser)
"""What makes errors of redis-py's from those of a server. In redis-py 5 only this one knows those of a cluster."""

BUFFER: Final = 65_536  # bytes
PIECE: Final = 16_384  # bytes; hiredis gets slow with much at a time
_NOT_YET: Final = object()


def pack(commands: Sequence[Command]) -> bytes:
    """The commands as a server reads them."""
    packed = [hiredis.pack_command(command) for command in commands]
    return packed[0] if len(packed) == 1 else b"".join(packed)


class Parser:
    """Parses the answers that come over one connection; redis-py's parsers read from its own streams and sockets.

    An error of the server is one of redis-py's, among the answers. What it says of the connection as a whole, as that
    the server is still loading, is raised.

    buffer: where the next bytes from the socket belong. (To allocate one at each read takes longer than to read.)
    """

    def __init__(self) -> None:
        self.buffer = bytearray(BUFFER)
        self._reader = hiredis.Reader(protocolError=InvalidResponse, replyError=_refusal, notEnoughData=_NOT_YET)

    def parse(self, size: int) -> Iterator[Any]:
        """The answers that the first `size` bytes of the buffer complete. Raises redis-py's errors."""
        for start in range(0, size, PIECE):
            self._reader.feed(self.buffer, start, min(PIECE, size - start))  # type: ignore[arg-type]  # any buffer will do
            while (answer := self._reader.gets()) is not _NOT_YET:
                if isinstance(answer, ConnectionError):
                    raise answer
                yield answer

    def is_empty(self) -> bool:
        """Whether nothing has come of a further answer."""
        return not self._reader.has_data()


def _refusal(text: str) -> Any:
    # Redis 6 puts what it says of the script before what a command in it was refused for.
    return BlockingParser.parse_error(
        text.rpartition(": -")[2] if text.startswith("ERR Error running script") else text
    )


def scan(cursor: bytes, pattern: bytes) -> Command:
    """Ask for the next keys that match `pattern`; a scan begins and ends with the cursor `0`."""
    return "SCAN", cursor, "MATCH", pattern, "COUNT", LIST_BATCH
