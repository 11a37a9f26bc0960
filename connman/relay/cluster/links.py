"""The links of this relay to all others: which batch belongs to which life of which link, and when one is over.

A link begins on each side by itself, with an epoch by chance and with batch 0. A batch that does not follow (one was
lost on the way, one of the two has begun anew) ends the link with its pairs, and the sender is told by a reset; so no
pair goes on with a hole in it, and none waits for an answer that was lost.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterator
from typing import Final

from connman.relay.cluster import wire
from connman.relay.cluster.link import Claims, Link
from connman.relay.wire import BROKER_LOST, OTHER_LOST, REASONS

ROUND: Final = 1024 * 1024  # bytes to publish at a time, over all links
SILENCE: Final = 8  # beats without a word of a relay whose pairs live, after which it counts as lost

# What all relays together may have under way to one: Redis closes a subscriber at 8 MiB for a minute, or 32 MiB.
BUDGET: Final = 6 * 1024 * 1024
LEAST_WINDOW: Final = 256 * 1024
MOST_WINDOW: Final = 1024 * 1024

MOST_LINKS: Final = 1024  # relays that are talked to; anybody may make up others
MOST_REFUSALS: Final = 256  # resets that wait to be sent; a link without one ends by its silence

logger = logging.getLogger("connman.relay")


class Links:
    """All links of one relay. Pure, as they are: bytes in, bytes out."""

    def __init__(self, here: bytes, claims: Claims, wake: Callable[[], None]) -> None:
        self.others = 1  # how many other relays there are, as far as is known
        self.resets = 0  # links that ended for a lost or senseless batch
        self.dropped = 0  # what came and was no batch of this version
        self._here = here
        self._claims = claims
        self._wake = wake
        self._links: dict[bytes, Link] = {}
        self._due: dict[bytes, None] = {}  # links with something to send, in order
        self._refusals: dict[tuple[bytes, int], bytes] = {}  # resets to send, by relay and its epoch
        self._random = random.Random()

    def __iter__(self) -> Iterator[Link]:
        return iter(list(self._links.values()))

    def to(self, there: bytes) -> Link:
        """Return the link to a relay, a new one when there is none."""
        link = self._links.get(there)
        if link is None:
            window = min(MOST_WINDOW, max(LEAST_WINDOW, BUDGET // max(1, self.others)))
            epoch = self._random.randrange(1, 2**32)
            link = Link(self._here, there, epoch=epoch, window=window, claims=self._claims, wake=self._mark)
            self._links[there] = link
        return link

    def receive(self, batch: bytes) -> None:
        """Take in a batch, whoever sent it. Never raises for what it says."""
        try:
            header = wire.unpack_header(batch)
        except wire.BadBatch as error:
            # Once: whoever publishes nonsense here does not fill the log as well.
            logger.log(logging.DEBUG if self.dropped else logging.WARNING, "relay cluster: dropped %s", error)
            self.dropped += 1
            return
        there = header.sender
        link = self._links.get(there)
        if header.is_reset:
            if link is not None and header.peer_epoch == link.epoch:
                self._end(there, BROKER_LOST)
            return
        if link is not None and link.peer_epoch not in (0, header.epoch) and not header.number:
            self._end(there, BROKER_LOST)  # the other relay has begun anew
            link = None
        if there == self._here or (link is None and len(self._links) >= MOST_LINKS):
            self.dropped += 1
            return
        if header.number == 0 and (link is None or not link.peer_epoch):
            link = self.to(there)
            if header.peer_epoch in (0, link.epoch):
                link.peer_epoch = header.epoch
        if link is None or not link.follows(header):
            self._refuse(there, header)
            return
        try:
            link.receive(header, batch)
        except wire.BadBatch as error:
            logger.debug("relay cluster: a batch of relay %s makes no sense: %s", there.hex(), error)
            self._refuse(there, header)
            return
        if link.owes_news:
            self._mark(link)

    def take(self) -> list[tuple[bytes, bytes]]:
        """Return what to publish now, as relay and batch: a round's worth, in each link's order."""
        batches = [(there, reset) for (there, _), reset in self._refusals.items()]
        self._refusals = {}
        size = 0
        while self._due and size < ROUND:
            there = next(iter(self._due))
            del self._due[there]
            link = self._links[there]
            batch = link.take_batch()
            size += len(batch)
            batches.append((there, batch))
            if link.has_batch:
                self._due[there] = None  # behind the others
        return batches

    def tick(self) -> None:
        """Let a beat pass: say that this relay lives, and give up those that say nothing."""
        for there, link in list(self._links.items()):
            if link.tick():
                self._mark(link)
            if link.heard_ticks > SILENCE:
                logger.warning("relay cluster: relay %s is silent", there.hex())
                self.lost(there)

    def lost(self, there: bytes) -> None:
        """End what there is with a relay that has died."""
        self._end(there, OTHER_LOST)

    def lost_all(self) -> None:
        """End everything: the broker is gone, and what was under way with it."""
        self._refusals.clear()
        for there in list(self._links):
            self._end(there, BROKER_LOST)

    def leave(self, code: int, reason: str) -> None:
        """End all pairs with a word to both sides, which is to be published."""
        for link in self:
            link.leave(code, reason)

    def _refuse(self, there: bytes, header: wire.Header) -> None:
        """End the link, and have the other relay end its own."""
        self.resets += 1
        if len(self._refusals) < MOST_REFUSALS:
            reset = wire.Header(self._here, 0, header.epoch, 0, 0, is_reset=True)
            self._refusals[there, header.epoch] = wire.pack(reset)
        link = self._links.get(there)
        # A late batch of an earlier life ends that life's remains on the other side, not what there is now.
        if link is not None and link.peer_epoch == header.epoch:
            self._end(there, BROKER_LOST)
        self._wake()

    def _end(self, there: bytes, code: int) -> None:
        link = self._links.pop(there, None)
        self._due.pop(there, None)
        if link is not None:
            link.end(code, REASONS[code])

    def _mark(self, link: Link) -> None:
        # One that has ended may still be told of an end.
        if self._links.get(link.there) is link:
            self._due[link.there] = None
            self._wake()
