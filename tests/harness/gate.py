"""A gate that holds a request, in whatever process and framework, until the test lets it go on."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path


class Gate:
    """Two files tell each side what the other has done; path: where they are, without what they end with."""

    def __init__(self, path: str | Path) -> None:
        self._reached, self._opened = Path(f"{path}.reached"), Path(f"{path}.opened")

    def is_reached(self) -> bool:
        """Whether a request waits."""
        return self._reached.exists()

    def open(self) -> None:
        self._opened.touch()

    def hold(self) -> None:
        """Let the request wait here."""
        self._reached.touch()
        while not self._opened.exists():
            time.sleep(0.005)

    async def ahold(self) -> None:
        self._reached.touch()
        while not self._opened.exists():
            await asyncio.sleep(0.005)
