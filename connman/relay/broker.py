"""The seam between a relay and others like it: who else has spares of a name, and a side that is on another machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from connman.errors import ConnmanError
from connman.relay.counts import BrokerState, RelaySeen


class BrokerLost(ConnmanError):
    """The broker cannot be reached just now: whether anybody else has the name is unknown."""


class RemoteRefused(ConnmanError):
    """Another relay has the name but could not hand a spare over: ``code`` and ``reason`` are for the caller."""

    def __init__(self, code: int, reason: str) -> None:
        self.code = code
        self.reason = reason
        super().__init__(f"{code} {reason}")


class Other(Protocol):
    """What a side of a pair is to the other one, be it here or on another machine.

    Threads: the relay's.
    """

    def forward(self, frames: Sequence[bytes | bytearray]) -> None:
        """Send frames on to this side's client: head, payload, head, payload and so on, of at most 64 KiB each."""

    def close(self, code: int, reason: str) -> None:
        """Close this side, after what has been forwarded; the first call counts."""

    def pause(self) -> None:
        """Read no more from this side's client: the other side has too much to be sent."""

    def resume(self) -> None:
        """Read from this side's client again."""


class RemoteSide(Other, Protocol):
    """A side whose client is connected to another relay."""

    def attach(self, side: Other) -> None:
        """Let what the far client sends go to ``side``; until then it is kept, which bounds how much it may send."""


class BrokerHost(Protocol):
    """What a broker may ask of the relay it belongs to.

    Threads: the relay's.
    """

    async def take_spare(self, name: str) -> Other | None:
        """Return a side that has been handed over and is ready, or None when none of the name's spares can be had.

        It waits for the next one where the name is in use.

        Cancelled before the handover went out it leaves the spare where it was; after that the spare is closed.
        """

    def join(self, side: Other, remote: RemoteSide) -> None:
        """Make a pair of what `take_spare` returned and a remote side."""


class Broker(Protocol):
    """Joins several relays. The owner of a spare decides who gets it, so that it is handed out once.

    Threads: the relay's.
    """

    @property
    def state(self) -> BrokerState:
        """Whether there is one at all, and whether it can be reached."""

    async def start(self, host: BrokerHost) -> None:
        """Begin; it goes on by itself when what it stands on cannot be reached yet."""

    async def stop(self) -> None:
        """Take this relay's names away and close what goes across machines."""

    def spare_added(self, name: str) -> None:
        """Be told of one more spare under ``name``; must not wait for anything."""

    def spare_gone(self, name: str) -> None:
        """Be told of one less, because it was taken or has left."""

    async def open_remote(self, name: str) -> RemoteSide | None:
        """Return a side on another relay that is ready, or None when no other relay has the name.

        Cancelled it gives back what it had claimed.

        Raises: BrokerLost, RemoteRefused.
        """

    def relays(self) -> tuple[RelaySeen, ...]:
        """Return the relays of the cluster as far as they are known."""


class NoBroker:
    """A relay that is on its own.

    Threads: the relay's.
    """

    @property
    def state(self) -> BrokerState:
        """Always "none"."""
        return "none"

    async def start(self, host: BrokerHost) -> None:
        """Do nothing.

        Threads: the relay's.
        """

    async def stop(self) -> None:
        """Do nothing.

        Threads: the relay's.
        """

    def spare_added(self, name: str) -> None:
        """Do nothing.

        Threads: the relay's.
        """

    def spare_gone(self, name: str) -> None:
        """Do nothing.

        Threads: the relay's.
        """

    async def open_remote(self, name: str) -> RemoteSide | None:
        """Return None: nobody else has the name.

        Threads: the relay's.
        """
        return None

    def relays(self) -> tuple[RelaySeen, ...]:
        """Return none.

        Threads: the relay's.
        """
        return ()
