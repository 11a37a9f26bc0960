"""What comes in on one transport of a peer: answers to their calls, requests to the workers, chunks to the streams."""

from __future__ import annotations

from typing import Any

from connman.errors import ConnmanError, NoSuchService, ProtocolError, RemoteError
from connman.records import Message
from connman.rpc import wire
from connman.rpc.codec import NotAllowed, decode, encode
from connman.rpc.serving import Request
from connman.rpc.session import Session
from connman.rpc.table import Table

MOST_ID = 128
"""Characters of the id of a call that may come twice."""
_RESPONSES = frozenset(("stream", "stream-start", "stream-end", "stream-error"))


class Routing:
    """The reader's side of a session. Bad frames are counted and survived, never answered (the model's rule).

    Threads: the reader's.
    """

    __slots__ = ("_counters", "_services", "_session", "_streams", "_table")

    def __init__(self, session: Session, table: Table) -> None:
        self._session = session
        self._table = table
        self._counters = table.counters
        self._services = session.services
        self._streams = session.streams

    def received(self, messages: list[Message]) -> None:
        """Take messages of the transport: one bad one says nothing of the next.

        Threads: the reader.
        """
        for message in messages:
            if self._session.is_over:
                return
            self._counters.bytes_received += wire.size_of(message)
            if isinstance(message, str):
                self._take(message)
            else:
                self._streams.binary(message)

    def _take(self, text: str) -> None:
        try:
            message = decode(text)
        except ProtocolError:
            message = None
        if not isinstance(message, dict):
            self._session.count_invalid()
            return
        kind = message.get("type")
        if kind == "data":
            if (call := self._table.answered(message.get("responseId"))) is not None:
                call.settled(message.get("data"))
        elif kind == "request":
            self._take_request(message, text)
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

    def _take_request(self, message: dict[str, Any], text: str) -> None:
        number, service = wire.whole(message.get("requestId")), wire.service_id(message.get("serviceId"))
        if number is None or service is None:
            self._session.count_invalid()
            return
        self._counters.received += 1
        if self._streams.uploads and service in self._streams.uploads:
            self._streams.pull(message)
            return
        function = self._services.get(service)
        is_notice = message.get("notice") is True
        if function is None:
            if not is_notice:
                self._refuse(number, wire.unknown_service(service))
            return
        request = Request(self._session, number, function, message, text)
        call_id = message.get("callId")
        if isinstance(call_id, str) and 0 < len(call_id) <= MOST_ID and not is_notice:
            request.key = (service, call_id, _digest_of(message.get("args")))
            must_run, kept = self._services.answered.begin(request.key, request)
            if not must_run:
                request.forget_args()
                if kept is not None:
                    self._refuse(number, kept)
                return
        if not self._services.submit(request.run, len(text)):
            self._session.count_refused()
            if request.key is not None:
                # Whoever has asked again meanwhile asks once more: it is not worth a thread.
                self._services.answered.give_back(request.key)
            if not is_notice:
                self._refuse(number, wire.TOO_BUSY)

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
