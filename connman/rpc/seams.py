"""What streams need of the session they belong to and of a call, and what a call needs of them."""

from __future__ import annotations

from typing import Any, Protocol

from connman.clock import Clock


class Upload(Protocol):
    """The streams among the arguments of a call, until it is over."""

    def close(self) -> None:
        """Offer them no longer, and send no more of them. Idempotent; it does not block.

        Threads: any.
        """


class Call(Protocol):
    """A request of ours that is waiting for its answer."""

    id: int | None
    stream: Any
    """A `Receiving` when the answer is read as a stream, or has begun to come as one."""

    def settle(self, value: object) -> bool:
        """Answer the call with ``value``; False when it was over already.

        Threads: the reader.
        """

    def fail(self, error: BaseException) -> bool:
        """Fail the call; False when it was over already.

        Threads: any.
        """


class Session(Protocol):
    """One opened transport, from its open to its end."""

    clock: Clock
    max_message_size: int
    call_timeout: float | None

    def post(self, message: str | bytes) -> bool:
        """Queue ``message`` without blocking; False when the path is gone.

        Threads: any.
        """

    def write(self, message: str | bytes) -> None:
        """Send ``message``, waiting while the peer does not read.

        Raises: PeerGone.
        Threads: any but the reader.
        """

    def start(self, service: int | str, args: str, stream: Any, extra: str = "") -> Any:
        """Send a request and return its call: it has no deadline, and what comes goes to ``stream``.

        ``args``: encoded. ``extra``: more fields, each behind a comma.

        Raises: PeerGone, MessageTooBig.
        Threads: any.
        """

    def find(self, number: object) -> Any:
        """Return the call of this id, which stays; None, and counted, when there is none.

        Threads: the reader.
        """

    def cancel(self, call: Any) -> None:
        """Forget ``call``: nobody waits for its answer any more. Idempotent.

        Threads: any.
        """

    def was_sent(self, number: int) -> bool:
        """Return whether a request of this id went out.

        Threads: any.
        """

    def refuse_reader(self) -> None:
        """Refuse to wait on the thread that brings what is waited for.

        Raises: WouldDeadlock.
        Threads: any.
        """

    def count_invalid(self) -> None:
        """Count a message that is none.

        Threads: the reader.
        """
