"""The seam for what sits on a connection instead of a user: it is told of each transport and takes what that brings."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol

from connman.records import Message, Reset, State
from connman.transport.base import Transport


class Receiver(Protocol):
    """Who takes what a connection reads, on the reader thread itself, whatever ``dispatch`` says.

    It must neither block nor raise. It is told before the user's own ``on_open`` and ``on_reset``.
    """

    def opened(self, transport: Transport) -> None:
        """Learn that ``transport`` is open; when it is attached to a connection that opens just now, perhaps twice.

        Threads: the reader; the one that attaches it.
        """

    def received(self, messages: list[Message]) -> bool:
        """Take messages of the transport that was opened last; whether some thread may want to read what comes next itself.

        See `Transport.stand_by`.

        Threads: the reader; the one that attaches it.
        """

    def reset(self, reset: Reset) -> None:
        """Learn that an attempt failed, or that the transport has ended.

        Threads: the reader.
        """

    def changed(self, state: State) -> None:
        """Learn of a change of state, see `Connection.watch`; WAITING and IDLE come before `reset`, OPEN before `opened`.

        Threads: the one that made the change.
        """


class Handover:
    """Stands in for a receiver that comes to a running connection: holds the reader back until it knows all. A `Receiver`.

    ``receiver()``: the one to pass on to, which may have been replaced meanwhile.

    Threads: as for `Receiver`.
    """

    def __init__(self, receiver: Callable[[], Receiver | None]) -> None:
        self._receiver = receiver
        # Held while the receiver learns what lies there already, by whoever attaches it; then only taken and given back.
        self._lock = threading.RLock()

    def run(self, tell: Callable[[], None]) -> None:
        """Call ``tell()``; what the reader brings meanwhile comes behind it."""
        with self._lock:
            tell()

    def opened(self, transport: Transport) -> None:
        """Pass on, in order; see `Receiver`."""
        with self._lock:
            if (receiver := self._receiver()) is not None:
                receiver.opened(transport)

    def received(self, messages: list[Message]) -> bool:
        """Pass on, in order; see `Receiver`."""
        with self._lock:
            receiver = self._receiver()
            return receiver is not None and receiver.received(messages)

    def reset(self, reset: Reset) -> None:
        """Pass on, in order; see `Receiver`."""
        with self._lock:
            if (receiver := self._receiver()) is not None:
                receiver.reset(reset)

    def changed(self, state: State) -> None:
        """Pass on at once: whoever ends a connection must not wait for its reader."""
        if (receiver := self._receiver()) is not None:
            receiver.changed(state)
