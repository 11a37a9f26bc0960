"""Asking the broker who has a name: callers that come at once share one round trip."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from connman.relay.broker import BrokerLost

MOST: Final = 500  # names in one round trip

Owners = dict[bytes, bytes]  # a relay's id: when its newest spare came


class Lookups:
    """Names that callers wait for, on the relay's loop."""

    def __init__(self, ask: Callable[[Sequence[str]], Awaitable[Sequence[Owners]]]) -> None:
        self._ask = ask
        self._wanted: dict[str, asyncio.Future[Owners]] = {}
        self._under_way: list[asyncio.Future[Owners]] = []
        self._wake = asyncio.Event()

    async def owners(self, name: str) -> Owners:
        """Return the relays that have spares of a name.

        Raises: BrokerLost when it cannot be asked.
        """
        future = self._wanted.get(name)
        if future is None:
            future = self._wanted[name] = asyncio.get_running_loop().create_future()
            self._wake.set()
        return await asyncio.shield(future)  # one caller's leaving is not the others'

    async def run(self) -> None:
        """Ask, round after round, until that fails."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while names := list(self._wanted)[:MOST]:
                self._under_way = [self._wanted.pop(name) for name in names]
                found = await self._ask(names)
                for future, owners in zip(self._under_way, found, strict=True):
                    future.set_result(owners)
                self._under_way = []

    def fail(self) -> None:
        """Tell all who wait that the broker is lost."""
        futures = [*self._under_way, *self._wanted.values()]
        self._under_way = []
        self._wanted.clear()
        for future in futures:
            if not future.done():
                future.set_exception(BrokerLost("the broker is lost"))
                future.exception()  # its caller may have left
