"""What comes in on one transport of a peer: answers to their calls, requests to the workers, chunks to the streams."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from connman.errors import ConnmanError, NoSuchService, ProtocolError, RemoteError
from connman.records import Message
from connman.rpc import wire
from connman.rpc.calls import BlockingCall
from connman.rpc.codec import NotAllowed, decode, encode
from connman.rpc.serving import Request

if TYPE_CHECKING:
    from connman.rpc.session import Session
    from connman.rpc.table import Table

MOST_ID = 128
"""Characters of the id of a call that may come twice."""
_RESPONSES = frozenset(("stream", "stream-start", "stream-end", "stream-error"))


_ANSWER_WITHIN = 0.01
"""Seconds for which a caller reads himself; whether he still has to he asks each millisecond."""
_REQUEST_WITHIN = 0.001
"""Seconds for which a worker that has answered waits for the next request."""


class Routing:
    """The reader's side of a session. Bad frames are counted and survived, never answered (the model's rule).

    Two take what comes from the wire themselves while the reader stands by, so that nobody has to be woken to be given it:
    the caller who waits for the only answer that is due, and the worker that has just answered.

    Threads: the reader's, and in its place those of `read_answer` and `serve_next`, one at a time.
    """

    __slots__ = ("_clock", "_counters", "_services", "_session", "_streams", "_table")

    def __init__(self, session: Session, table: Table) -> None:
        self._session = session
        self._table = table
        self._counters = table.counters
        self._services = session.services
        self._streams = session.streams
        self._clock = session.clock

    def received(self, messages: list[Message]) -> bool:
        """Take messages of the transport: one bad one says nothing of the next.

        Return whether a caller or a worker may now wait for what comes next, and for nothing else.

        Threads: the reader.
        """
        is_waited_for = False
        for message in messages:
            if self._session.is_over:
                return False
            self._counters.bytes_received += wire.size_of(message)
            if isinstance(message, str):
                is_waited_for = self._take(message)
            else:
                self._streams.binary(message)
        return is_waited_for and len(messages) == 1

    def _take(self, text: str) -> bool:
        """Take one message; whether it may have been one of calls that come one at a time."""
        try:
            message = decode(text)
        except ProtocolError:
            message = None
        if not isinstance(message, dict):
            self._session.count_invalid()
            return False
        kind = message.get("type")
        if kind == "data":
            if (call := self._table.answered(message.get("responseId"))) is not None:
                call.settled(message.get("data"))
                return isinstance(call, BlockingCall) and not self._table.by_id
        elif kind == "request":
            request = self._request_of(message, text)
            if request is not None:
                self._submit(request, text)
                return not request.is_notice and request.service not in self._services.slow
        elif kind == "error":
            if (call := self._table.answered(message.get("responseId"))) is not None:
                call.failed(_error_of(message.get("error"), call.service))
        elif isinstance(kind, str) and kind in _RESPONSES:
            self._streams.response(message)
        elif kind == "write-stream-error":
            self._counters.received += 1
            self._streams.control(message)
        elif kind == "stream-credit":
            self._streams.control(message)
        else:
            self._session.count_invalid()
        return False

    # For those who wait.

    def read_answer(self, call: BlockingCall) -> None:
        """Take the answer of ``call`` from the wire if the reader stands by and it comes soon; else the reader will.

        Threads: the caller's.
        """
        number, transport = call.id, self._session.transport
        if number is None or not transport.may_take():
            return
        seconds = _ANSWER_WITHIN
        if call.deadline is not None:
            seconds = min(seconds, call.deadline - self._clock.now())
        transport.take_one(
            seconds,
            partial(self._take_answer, number),
            lambda: not call.is_over and len(self._table.by_id) == 1,
        )

    def _take_answer(self, number: int, text: str) -> bool:
        # Nothing of this runs anything of a user's, which the main thread's signal handlers might cut short.
        try:
            message = decode(text)
        except ProtocolError:
            return False
        if not isinstance(message, dict) or message.get("type") != "data" or self._session.is_over:
            return False
        if wire.whole(message.get("responseId")) != number:
            return False
        self._counters.bytes_received += wire.size_of(text)
        if (call := self._table.answered(number)) is not None:
            call.settled(message.get("data"))
        return True

    def serve_next(self) -> None:
        """Run the next request if the reader stands by and it comes very soon; else the reader will have it run.

        Threads: a worker.
        """
        transport, workers = self._session.transport, self._services.workers
        if not transport.may_take():
            return
        taken: list[Request] = []
        if not transport.take_one(
            _REQUEST_WITHIN, partial(self._take_next, taken), lambda: workers.has_spare
        ):
            return
        request = taken[0]
        if request.service in self._services.slow:
            transport.call_reader()  # nobody comes here again soon
        request.run()
        if self._session.is_over:  # or this is the child of a service that has forked
            return
        self._session.flush()  # at once: a caller who is alone waits for it
        if request.is_notice:  # which has no answer that brings us here again
            workers.run_last(self._session.round_over)

    def _take_next(self, taken: list[Request], text: str) -> bool:
        # Not past what the reader has handed on before; and what is not simply run is the reader's.
        if self._streams.uploads or self._services.workers.has_jobs or self._session.is_over:
            return False
        try:
            message = decode(text)
        except ProtocolError:
            return False
        if not isinstance(message, dict) or message.get("type") != "request" or "callId" in message:
            return False
        service = wire.service_id(message.get("serviceId"))
        if service is None or self._services.get(service) is None:
            return False
        if wire.whole(message.get("requestId")) is None:
            return False
        request = self._request_of(message, text)
        assert request is not None
        self._counters.bytes_received += wire.size_of(text)
        taken.append(request)
        return True

    # Requests.

    def _request_of(self, message: dict[str, Any], text: str) -> Request | None:
        """Return what has to be run; None when it was dealt with."""
        number, service = wire.whole(message.get("requestId")), wire.service_id(message.get("serviceId"))
        if number is None or service is None:
            self._session.count_invalid()
            return None
        self._counters.received += 1
        if self._streams.uploads and service in self._streams.uploads:
            self._streams.pull(message)
            return None
        function = self._services.get(service)
        is_notice = message.get("notice") is True
        if function is None:
            if not is_notice:
                self._refuse(number, wire.unknown_service(service))
            return None
        request = Request(self._session, number, function, message, text)
        call_id = message.get("callId")
        if isinstance(call_id, str) and 0 < len(call_id) <= MOST_ID and not is_notice:
            request.key = (service, call_id, _digest_of(message.get("args")))
            must_run, kept = self._services.answered.begin(request.key, request)
            if not must_run:
                request.forget_args()
                if kept is not None:
                    self._refuse(number, kept)
                return None
        return request

    def _submit(self, request: Request, text: str) -> None:
        if self._services.submit(request.run, len(text)):
            return
        self._session.count_refused()
        if request.key is not None:
            # Whoever has asked again meanwhile asks once more: it is not worth a thread.
            self._services.answered.give_back(request.key)
        if not request.is_notice:
            self._refuse(request.id, wire.TOO_BUSY)

    def _refuse(self, number: int, tail: str) -> None:
        self._session.post(f'{{"responseId":{number},{tail}')


def _digest_of(args: object) -> int:
    """Return what tells arguments from others: an id with others than those it came with is another call's."""
    try:
        return hash(encode(args))
    except NotAllowed:  # what JSON can say and nobody may answer, as 1e999
        return 0


def _error_of(told: object, service: int | str) -> ConnmanError:
    """Return the error that an answer to a call of ``service`` tells of."""
    fields = told if isinstance(told, dict) else {}
    name, message, code = fields.get("name"), fields.get("message"), fields.get("code")
    text = message if isinstance(message, str) else ""
    if code == wire.UNKNOWN_SERVICE:
        return NoSuchService(f"the peer offers no service {service!r}")
    known = code if isinstance(code, str | int) and not isinstance(code, bool) else None
    return RemoteError(name if isinstance(name, str) and name else "Error", text, known)
