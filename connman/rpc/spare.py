"""One connection of a provider: it waits at the relay under a name until a caller is joined to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from connman.connection.connection import Connection
from connman.errors import ConnectionLost, NotConnected
from connman.records import Message, Reset, State
from connman.rpc.joining import READY, Joining, command_of
from connman.transport.base import Transport

# Seconds between two attempts, at most: a relay that comes back has a fleet at its door.
LONGEST_PAUSE = 60.0


class Owner(Protocol):
    """Whose spare it is: the provider."""

    def take(self, spare: Spare) -> bool:
        """Count ``spare`` as a pair's from now on; False when it is not wanted any more.

        Threads: the spare's reader.
        """

    def taken(self, spare: Spare, first: list[Message] | None) -> None:
        """Go on with what `take` took: ``first`` has come behind the handover; None when the caller was lost at once.

        Threads: the spare's reader.
        """

    def changed(self, spare: Spare, state: State) -> None:
        """Learn of the state of the spare's connection.

        Threads: the one that made the change; never blocks.
        """


class Spare:
    """A connection that says the provider's name, comes back when it is lost, and is a caller's once one is joined.

    From then on it does not come back: what is lost is this caller's, who asks for another. A `Receiver` until then.

    Threads: as for `Receiver`.
    """

    def __init__(self, owner: Owner, number: int, joining: Joining, options: Mapping[str, Any]) -> None:
        self._owner = owner
        self._retry_if = options.get("retry_if")
        self.number = number
        # Set by the owner, on the reader thread, on which it is asked for as well.
        self.is_taken = False
        chosen = joining.options(options, longest_pause=LONGEST_PAUSE, number=number)
        self.conn = Connection(joining, **{**chosen, "retry_if": self._is_worth_it})
        self.conn.watch(self._changed)
        self.conn.attach(self)

    def _is_worth_it(self, error: BaseException) -> bool | None:
        if self.is_taken:
            return False
        said: bool | None = None if self._retry_if is None else self._retry_if(error)
        return said

    def _changed(self, _: Connection, state: State) -> None:
        self._owner.changed(self, state)

    def opened(self, transport: Transport) -> None:
        """Do nothing: the relay has been told who this is."""

    def received(self, messages: list[Message]) -> bool:
        """Look for the handover; what else a relay may say while nobody is joined means nothing to us."""
        for index, message in enumerate(messages):
            if command_of(message) == "handover":
                self._hand_over(messages[index + 1 :])
                break
        return False

    def _hand_over(self, first: list[Message]) -> None:
        if not self._owner.take(self):
            self.conn.end_soon(1001)
            return
        behind: list[Message] | None = first
        try:
            self.conn.send(READY)
        except (NotConnected, ConnectionLost):
            # The reader hears of it next; until then this is a pair without anybody.
            behind = None
        self._owner.taken(self, behind)

    def reset(self, reset: Reset) -> None:
        """Do nothing: the connection comes back by itself, or its state says that it does not."""

    def changed(self, state: State) -> None:
        """Do nothing: the owner is told by a watch, which outlasts the handover."""
