"""Callers that have come while all spares of a name were taken, though its provider is there: more spares are on their way."""

from __future__ import annotations

import asyncio
from collections import OrderedDict


class Waiting:
    """Who waits for the next spare of a name: at most ``most`` for each, first come, first told.

    Threads: one at a time (the relay's).
    """

    __slots__ = ("_callers", "_most")

    def __init__(self, most: int) -> None:
        self._most = most
        self._callers: dict[str, OrderedDict[asyncio.Future[None], None]] = {}

    async def wait(self, name: str, timeout: float) -> bool:
        """Wait until a spare of ``name`` has come that nobody before us was told of.

        False after ``timeout`` seconds, and at once where too many wait already. Whoever is told has to be quick: the
        spare is there for everybody.
        """
        callers = self._callers.setdefault(name, OrderedDict())
        if len(callers) >= self._most:
            return False
        told: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        callers[told] = None
        try:
            async with asyncio.timeout(timeout):
                await told
            return True
        except TimeoutError:
            return False
        except asyncio.CancelledError:
            if told.done() and not told.cancelled():
                self.tell(name)  # who left before he could do anything with it
            raise
        finally:
            callers.pop(told, None)
            if not callers and self._callers.get(name) is callers:
                del self._callers[name]

    def tell(self, name: str) -> None:
        """Say that a spare of ``name`` has come to whoever has waited longest."""
        callers = self._callers.get(name)
        while callers:
            told, _ = callers.popitem(last=False)
            if not told.done():  # else it is leaving in this moment
                told.set_result(None)
                return

    def __len__(self) -> int:
        return sum(map(len, self._callers.values()))
