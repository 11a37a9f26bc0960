"""The streams that go out over a session: what services return, and what callers put among their arguments."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from connman.rpc.codec import LARGEST_ID, NotAllowed, encode
from connman.rpc.sending import PIECE, Sending, Source, is_stream
from connman.rpc.wire import MARGIN, STREAM_MARK, failure, unknown_service, whole

if TYPE_CHECKING:
    from connman.rpc.session import Session

MAX_STREAMS = 1000
"""Streams that a session sends at the same time; each takes one of `Services.senders` while it has something to send."""
TOO_MANY = failure("TooBusy", "too many streams are being sent here already", "TOO-BUSY")
BAD_ID = failure(
    "RangeError", "a request id from 0 and below 2**53 is needed for a stream: it travels as a double"
)


class _Offer(NamedTuple):
    """A stream among the arguments of a call that the peer has not asked for yet."""

    value: Any
    context: contextvars.Context


class Upload:
    """The streams among the arguments of one call. They end with it.

    Threads: `add` by one, `close` by any.
    """

    def __init__(self, offer: Callable[[Any], str], withdraw: Callable[[Sequence[str]], None]) -> None:
        self._offer = offer
        self._withdraw = withdraw
        self._names: list[str] = []

    def add(self, value: object) -> object:
        """Offer ``value``, and return what stands for it among the arguments.

        Raises: TypeError for what is no stream.
        Threads: the one that encodes the arguments.
        """
        if not is_stream(value):
            raise TypeError("neither JSON nor a stream")
        self._names.append(self._offer(value))
        return {STREAM_MARK: self._names[-1]}

    def close(self) -> None:
        """Offer nothing any more, and send no more of what is being sent. Idempotent; it does not block.

        Threads: any.
        """
        self._withdraw(self._names)


class StreamsOut:
    """The streams that go out over one session.

    Threads: every method from any thread; none blocks.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        # A letter may take six on the wire, and what the other side takes is thought to be what we do.
        self._most = min(PIECE, max(4, (session.max_message_size - MARGIN) // 6))
        self._workers = session.services.senders
        self.make_locks()
        # Guarded by _lock: _sending (by the peer's request id), _pulled (those of them that are uploads, by name),
        # offers (by name), _count, _is_ended.
        self._sending: dict[int, Sending] = {}
        self._pulled: dict[str, Sending] = {}
        self.offers: dict[str, _Offer] = {}
        self._count = 0
        self._is_ended = False

    def make_locks(self) -> None:
        """Have locks that nobody holds: at first, and in a forked child."""
        self._lock = threading.Lock()
        # One stream at a time waits for the network: what waits beside is not more for more streams.
        self._turn = threading.Lock()

    def _write(self, frame: str | bytes) -> None:
        with self._turn:
            self._session.write(frame)

    def send(self, request_id: int, window: int | None, value: Any) -> None:
        """Send what a service returned, as the answer to ``request_id``.

        Threads: any.
        """
        self._start(request_id, window, Source(value, is_ours=True), contextvars.copy_context())

    def upload(self, args: Sequence[Any]) -> tuple[str, Upload]:
        """Encode arguments some of which are streams.

        Raises: NotAllowed.
        Threads: any.
        """
        upload = Upload(self._offer, self._withdraw)
        try:
            return encode(args, upload.add), upload
        except NotAllowed:
            upload.close()
            raise

    def _offer(self, value: Any) -> str:
        with self._lock:
            self._count += 1
            name = f"{STREAM_MARK}{self._count}"
            self.offers[name] = _Offer(value, contextvars.copy_context())
        return name

    def _withdraw(self, names: Sequence[str]) -> None:
        # All before one of them is told to end: whoever hears of that end must not find the others still offered.
        with self._lock:
            for name in names:
                self.offers.pop(name, None)
            streams = [self._pulled[name] for name in names if name in self._pulled]
        for sending in streams:
            sending.cancel()

    def pull(self, message: dict[str, Any]) -> None:
        """Send what is offered by the name that a request asks for; a notice asks for nothing.

        Threads: the reader.
        """
        if message.get("notice") is True:
            return
        name = message["serviceId"]
        with self._lock:
            offer = self.offers.get(name)
        number = whole(message["requestId"])
        assert number is not None  # that was looked at
        if offer is None:  # its call was over just now
            self._session.post(f'{{"responseId":{number},{unknown_service(name)}')
            return
        source = Source(offer.value, is_ours=False)
        self._start(number, whole(message.get("window")), source, offer.context, name)

    def _start(
        self, request_id: int, window: int | None, source: Source, context: contextvars.Context, name: str = ""
    ) -> None:  # fmt: skip
        def over(sending: Sending) -> None:
            with self._lock:
                if self._sending.get(request_id) is sending:
                    del self._sending[request_id]
                self._pulled.pop(name, None)

        size = window if window is not None and 0 < window < LARGEST_ID else None
        sending = Sending(
            self._write,
            self._session.post,
            request_id,
            size,
            source,
            context=context,
            resume=self._run,
            over=over,
            most=self._most,
        )
        with self._lock:
            # Taken here, where the stream is entered: whoever withdraws it finds the one or the other.
            is_wanted = not name or self.offers.pop(name, None) is not None
            is_welcome = (
                is_wanted
                and len(self._sending) < MAX_STREAMS
                and request_id not in self._sending
                and 0 <= request_id < LARGEST_ID
                and not self._is_ended
            )
            if is_welcome:
                self._sending[request_id] = sending
                if name:
                    self._pulled[name] = sending
        if is_welcome:
            self._run(sending)
        elif not is_wanted:  # its call was over just now
            self._refuse(sending, unknown_service(name))
        else:
            self._refuse(sending, TOO_MANY if 0 <= request_id < LARGEST_ID else BAD_ID)

    def _run(self, sending: Sending) -> None:
        if not self._workers.submit(sending.run):
            self._refuse(sending)

    def _refuse(self, sending: Sending, why: str = TOO_MANY) -> None:
        self._session.post(f'{{"responseId":{sending.request_id},{why}')
        sending.drop()

    def credit(self, request_id: int, size: int) -> None:
        """Let ``size`` more bytes of a stream go out.

        Threads: the reader.
        """
        sending = self._sending.get(request_id)
        if sending is not None:
            sending.add_credit(size)

    def cancel(self, request_id: int) -> None:
        """Stop a stream that nobody reads any more.

        Threads: the reader.
        """
        sending = self._sending.get(request_id)
        if sending is not None:
            sending.cancel()

    def end(self) -> None:
        """Stop every stream: the path broke.

        Threads: any.
        """
        with self._lock:
            self._is_ended = True
            self.offers.clear()
            streams = list(self._sending.values())
        for sending in streams:
            sending.cancel()
