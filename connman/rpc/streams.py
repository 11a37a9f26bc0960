"""All streams of a session, both ways: what a Peer brings them, and asks of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from connman.connection import fork
from connman.errors import ConnmanError, RpcError
from connman.rpc.codec import LARGEST_ID, NotAllowed, encode
from connman.rpc.reading import Stream
from connman.rpc.receiving import WINDOW, Buffer
from connman.rpc.streams_in import StreamsIn
from connman.rpc.streams_out import MAX_STREAMS, StreamsOut
from connman.rpc.wire import STREAM_MARK, whole

if TYPE_CHECKING:
    from connman.rpc.calls import Call
    from connman.rpc.session import Session


class Streams:
    """All streams of one session.

    Threads: as each method says; those of the reader neither block nor raise.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._incoming = StreamsIn(session)
        self.outgoing = StreamsOut(session)
        self.response = self._incoming.response
        self.binary = self._incoming.binary
        self.send = self.outgoing.send
        self.upload = self.outgoing.upload
        self.pull = self.outgoing.pull
        self.uploads = self.outgoing.offers
        """What the peer may ask for, by the id of the service; `pull` answers it."""
        fork.register(self)

    def after_fork(self) -> None:
        """Have locks that nobody holds in a child process, in which the path is gone.

        Threads: the first one of the child that uses connman.
        """
        self._incoming.make_lock()
        self.outgoing.make_locks()

    def control(self, message: dict[str, Any]) -> None:
        """Take a frame of type stream-credit or write-stream-error.

        Threads: the reader.
        """
        number, size = whole(message.get("requestId")), whole(message.get("bytes"))
        if message["type"] == "write-stream-error":
            # The model sends one without an id as well; it counts, and that is all.
            if number is not None:
                self.outgoing.cancel(number)
        elif number is not None and size is not None and 0 < size < LARGEST_ID:
            self.outgoing.credit(number, size)
        else:
            self._session.count_invalid()

    def open(self, service: int | str, args: Sequence[Any], timeout: float | None) -> Stream:
        """Ask for a stream and return its reader; ``timeout``: how long to wait for each chunk.

        Raises: PeerGone, NotAllowed.
        Threads: any.
        """
        stream = self._reader(service, args, timeout)
        stream.begin()
        return stream

    def _reader(self, service: int | str, args: Sequence[Any], timeout: float | None) -> Stream:
        return self._incoming.stream(lambda buffer: self._begin(buffer, service, args), timeout)

    def _begin(self, buffer: Buffer, service: int | str, args: Sequence[Any]) -> Call:
        upload = None
        try:
            text = encode(args)
        except NotAllowed:
            text, upload = self.upload(args)
        try:
            call = self._session.start(service, text, buffer, f',"window":{WINDOW}')
        except ConnmanError:
            if upload is not None:
                upload.close()
            raise
        if upload is not None:
            buffer.keep_upload(upload)
        return call

    def unwrap(self, args: list[Any]) -> list[Any]:
        """Put the reader of a stream in the place of each argument that stands for one; it is asked for when it is read.

        Raises: RpcError for more streams than are sent at a time.
        Threads: any.
        """
        todo: list[Any] = [args]
        count = 0
        while todo:
            holder = todo.pop()
            pairs = list(enumerate(holder)) if isinstance(holder, list) else list(holder.items())
            for key, value in pairs:
                if isinstance(value, dict) and len(value) == 1 and isinstance(value.get(STREAM_MARK), str):
                    count += 1
                    if count > MAX_STREAMS:
                        raise RpcError(f"more than {MAX_STREAMS} streams among the arguments")
                    holder[key] = self._reader(value[STREAM_MARK], (), self._session.call_timeout)
                elif isinstance(value, dict | list):
                    todo.append(value)
        return args

    def end(self, error: Exception) -> None:
        """End every stream with ``error``: the path broke.

        Threads: any; it does not block.
        """
        self._incoming.end(error)
        self.outgoing.end()
