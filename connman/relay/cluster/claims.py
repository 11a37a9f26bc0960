"""Claims: what this relay asks of others for its callers, and what others ask of it. The owner of a spare decides.

So a spare is given out once, without a lock in the broker: there is one relay that pops it, in one thread.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Final

from connman.relay.broker import BrokerHost
from connman.relay.cluster.link import Link
from connman.relay.cluster.pair import RemoteSide
from connman.relay.wire import NO_PROVIDER, OTHER_LOST, REASONS, TOO_MANY

MOST_SERVED: Final = 4096  # claims of one relay at a time; what is beyond is refused at once

logger = logging.getLogger("connman.relay")


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a claim got nothing."""

    code: int
    reason: str


class ClaimDesk:
    """The claims of one relay, both ways, on its loop."""

    def __init__(self, host: BrokerHost) -> None:
        self._host = host
        self._asked: dict[tuple[Link, int], asyncio.Future[RemoteSide | Refusal]] = {}
        self._served: dict[tuple[Link, int], asyncio.Task[None]] = {}

    async def claim(self, link: Link, name: str) -> RemoteSide | Refusal:
        """Ask a relay for a spare. When the waiting is cancelled, the claim is taken back or its spare's pair ended."""
        key = link.claim(name)
        future: asyncio.Future[RemoteSide | Refusal] = asyncio.get_running_loop().create_future()
        self._asked[link, key] = future
        try:
            return await future
        except asyncio.CancelledError:
            # The answer may have come in the same moment: nobody will take it.
            if future.done() and not future.cancelled() and isinstance(side := future.result(), RemoteSide):
                side.close(OTHER_LOST, REASONS[OTHER_LOST])
            raise
        finally:
            del self._asked[link, key]
            link.cancel(key)

    async def stop(self) -> None:
        """Cancel what is being served, and wait for it."""
        tasks = list(self._served.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # What links call

    def granted(self, link: Link, key: int, side: RemoteSide) -> None:
        """Hand the far side to who asked; the link has made sure that somebody did."""
        future = self._asked.get((link, key))
        if future is None or future.done():
            side.close(OTHER_LOST, REASONS[OTHER_LOST])
        else:
            future.set_result(side)

    def refused(self, link: Link, key: int, code: int, reason: str) -> None:
        """Tell who asked."""
        future = self._asked.get((link, key))
        if future is not None and not future.done():
            future.set_result(Refusal(code, reason))

    def claimed(self, link: Link, key: int, name: str) -> None:
        """Begin to serve a claim of another relay."""
        if len(link.serving) > MOST_SERVED:
            link.refuse(key, TOO_MANY, "too many claims")
            return
        task = asyncio.get_running_loop().create_task(self._serve(link, key, name))
        self._served[link, key] = task
        task.add_done_callback(lambda _task: self._served.pop((link, key), None))

    def cancelled(self, link: Link, key: int) -> None:
        """Stop serving a claim: the spare stays, or is closed when it was told already."""
        if (task := self._served.get((link, key))) is not None:
            task.cancel()

    async def _serve(self, link: Link, key: int, name: str) -> None:
        side = await self._host.take_spare(name)
        if side is None:
            link.refuse(key, NO_PROVIDER, REASONS[NO_PROVIDER])
        elif (remote := link.grant(key)) is None:
            side.close(OTHER_LOST, REASONS[OTHER_LOST])
        else:
            self._host.join(side, remote)
