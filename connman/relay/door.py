"""One socket of a relay before its upgrade: the head under one deadline, then a side, or a refusal and the way out."""

from __future__ import annotations

import asyncio
from typing import Protocol, cast

from connman.relay.head import HttpRefused, Request, accept, parse_request, refuse
from connman.relay.limits import Limits
from connman.relay.side import Side

# How long a client that was refused may take to read why.
_LINGER = 1.0


class Porter(Protocol):
    """What a door asks: who may come in, and what becomes of them."""

    limits: Limits

    def admit(self, request: Request, peer: str, transport: asyncio.Transport) -> Side:
        """Return the side that this client is from now on.

        Raises: HttpRefused.
        """

    def refused(self, why: str) -> None:
        """Count a client that was not let in."""

    def door_gone(self, door: Door) -> None:
        """Take note that the socket is closed; once for each door that became no side."""

    def door_passed(self, door: Door) -> None:
        """Take note that the door has become a side."""


class Door(asyncio.Protocol):
    """A client that has not been let in yet.

    Threads: the relay's.
    """

    __slots__ = (
        "_head",
        "_is_done",
        "_is_gone",
        "_peer",
        "_porter",
        "_timer",
        "_transport",
        "has_begun",
        "opening",
    )

    def __init__(self, porter: Porter, peer: str) -> None:
        self.opening: asyncio.Task[None] | None = None
        self.has_begun = False
        self._porter = porter
        self._peer = peer
        self._head = bytearray()
        self._is_done = False
        self._is_gone = False
        self._transport: asyncio.Transport | None = None
        # One deadline for all of it, so that a head in drips gains nothing.
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(porter.limits.handshake_timeout, self._too_late)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the socket, TLS and all."""
        # Not a subclass of asyncio.Transport where the loop is uvloop's.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Take a part of the head."""
        if self._is_done:
            return  # what comes behind a refusal
        self._head += data
        end = self._head.find(b"\r\n\r\n")
        if end < 0 and len(self._head) <= self._porter.limits.max_head:
            return
        try:
            if not 0 <= end <= self._porter.limits.max_head:
                raise HttpRefused(431, "the head is too long", "head")
            self._let_in(bytes(self._head[:end]), bytes(self._head[end + 4 :]))
        except HttpRefused as refused:
            self._refuse(refused)

    def _let_in(self, head: bytes, rest: bytes) -> None:
        transport = self._transport
        assert transport is not None
        request = parse_request(head)
        side = self._porter.admit(request, self._peer, transport)
        self._is_done = True
        self._timer.cancel()
        self._porter.door_passed(self)
        transport.set_protocol(side)
        transport.write(accept(request))
        if rest:
            side.data_received(rest)

    def _refuse(self, refused: HttpRefused) -> None:
        self._porter.refused(refused.why)
        self._is_done = True
        transport = self._transport
        assert transport is not None
        transport.write(refuse(refused))
        if transport.can_write_eof():
            # Not closed yet: with bytes unread the system would reset the connection, and the answer with it.
            self._timer.cancel()
            self._timer = asyncio.get_running_loop().call_later(_LINGER, self.abort)
            try:
                transport.write_eof()
            except OSError:  # asyncio's own does it at once, and the client may be gone
                self.abort()
        else:
            transport.close()

    def eof_received(self) -> None:
        """Take the end of what the client sends for its leaving."""

    def connection_lost(self, exc: Exception | None) -> None:
        """Take note of the end."""
        self._timer.cancel()
        if not self._is_gone:
            self._is_gone = True
            self._porter.door_gone(self)

    def _too_late(self) -> None:
        if not self._is_done:
            self._porter.refused("handshake")
        self.abort()

    def abort(self) -> None:
        """Close the socket at once, in whatever phase."""
        if self._transport is not None:
            self._transport.abort()
        elif self.opening is not None:
            self.opening.cancel()  # in the middle of TLS
