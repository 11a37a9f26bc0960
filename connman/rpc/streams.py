"""All streams of a session, both ways: what a Peer brings them, and asks of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from connman.rpc.codec import LARGEST_ID
from connman.rpc.incoming import Incoming
from connman.rpc.outgoing import MARK, Outgoing, Upload
from connman.rpc.reading import Stream
from connman.rpc.seams import Call, Session


class Streams:
    """All streams of one session.

    Threads: as each method says; those of the reader neither block nor raise.
    """

    def __init__(self, session: Session, name: str) -> None:
        self._session = session
        self._incoming = Incoming(session)
        self._outgoing = Outgoing(session, name)
        self.response = self._incoming.response
        self.binary = self._incoming.binary
        self.send = self._outgoing.send
        self.upload = self._outgoing.upload
        self.pull = self._outgoing.pull
        self.uploads = self._outgoing.offers
        """What the peer may ask for, by the id of the service; `pull` answers it."""

    def control(self, message: dict[str, Any]) -> None:
        """Take a frame of type stream-credit or write-stream-error.

        Threads: the reader.
        """
        request_id, size = message.get("requestId"), message.get("bytes")
        if message["type"] == "write-stream-error":
            # The model sends one without an id as well; it counts, and that is all.
            if isinstance(request_id, int):
                self._outgoing.cancel(request_id)
        elif isinstance(request_id, int) and isinstance(size, int) and 0 < size < LARGEST_ID:
            self._outgoing.credit(request_id, size)
        else:
            self._session.count_invalid()

    def dropped(self, call: Call) -> None:
        """Tell the sender of a call that is over for us that nobody reads its stream.

        Threads: any; it does not block.
        """
        self._incoming.leave(call.id)

    def open(self, service_id: int | str, args: Sequence[Any], timeout: float | None) -> Stream:
        """Ask for a stream and return its reader; ``timeout``: how long to wait for each chunk.

        Raises: PeerGone, NotAllowed.
        Threads: any.
        """
        stream = self._incoming.stream(service_id, args, timeout)
        stream.begin()
        return stream

    def unwrap(self, args: list[Any]) -> list[Any]:
        """Put the reader of a stream in the place of each argument that stands for one; it is asked for when it is read.

        Threads: any.
        """
        todo: list[Any] = [args]
        while todo:
            holder = todo.pop()
            pairs = list(enumerate(holder)) if isinstance(holder, list) else list(holder.items())
            for key, value in pairs:
                if isinstance(value, dict) and len(value) == 1 and isinstance(value.get(MARK), str):
                    holder[key] = self._incoming.stream(value[MARK], (), self._session.call_timeout)
                elif isinstance(value, dict | list):
                    todo.append(value)
        return args

    def end(self, error: Exception) -> None:
        """End every stream with ``error``: the path broke.

        Threads: any; it does not block.
        """
        self._incoming.end(error)
        self._outgoing.end()


__all__ = ["Stream", "Streams", "Upload"]
