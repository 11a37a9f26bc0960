"""One request: the service is run on a worker thread, and its answer goes back the way the request came."""

from __future__ import annotations

import contextvars
import logging
from typing import TYPE_CHECKING, Any

from connman.rpc import wire
from connman.rpc.answered import Key
from connman.rpc.codec import NotAllowed, encode
from connman.rpc.sending import discard, is_stream
from connman.threads import is_kill

if TYPE_CHECKING:
    from connman.rpc.peer import Peer
    from connman.rpc.services import Service
    from connman.rpc.session import Session

logger = logging.getLogger("connman.rpc")

_peer: contextvars.ContextVar[Peer | None] = contextvars.ContextVar("connman_peer", default=None)


def current_peer() -> Peer:
    """Return the peer over which the running service was called, so that it may call back.

    Raises: LookupError outside of a service.
    Threads: the one that runs the service.
    """
    peer = _peer.get()
    if peer is None:
        raise LookupError("no service is running here")
    return peer


class Request:
    """A request that is valid, from the reader's look at it to its answer.

    Threads: `run` is a worker's.
    """

    __slots__ = (
        "_function",
        "_has_streams",
        "_is_large",
        "_message",
        "_session",
        "id",
        "is_notice",
        "key",
        "service",
    )

    def __init__(
        self, session: Session, number: int, function: Service, message: dict[str, Any], text: str
    ) -> None:
        self._session = session
        self.id = number
        self._function = function
        self._message = message
        self._is_large = len(text) >= wire.LARGE  # how much of these may wait is counted
        self._has_streams = wire.STREAM_MARK in text
        self.is_notice = message.get("notice") is True
        self.service: int | str = message["serviceId"]
        self.key: Key | None = None  # of a call that may come twice

    def forget_args(self) -> None:
        """Keep the arguments no longer: it only waits for the answer of one that is like it."""
        self._message = {}

    def answer(self, tail: str) -> None:
        """Send an answer, soon and together with others."""
        self._session.answer(self.id, tail)

    def run(self) -> None:
        """Run the service and answer."""
        session = self._session
        if session.is_over and self.key is None and not self.is_notice:
            return  # nobody would learn of it
        if not (self._is_large or self.is_notice) and session.park(self.run):
            return
        token = _peer.set(session.peer)
        began = session.clock.now()
        try:
            tail = self._run()
        except BaseException:  # top of a thread: killed; who waits for the answer must not wait for ever
            self._finish(wire.failure("Error", "the service was killed"))
            raise
        finally:
            _peer.reset(token)
        session.services.note(self.service, session.clock.now() - began)
        self._finish(tail)

    def _run(self) -> str | None:
        """Return the answer, None for one that the streams give."""
        try:
            args = wire.spread(self._message.get("args", []))
            if self._has_streams:
                args = self._session.streams.unwrap(args)
            result = self._function(*args)
            return self._told(result)
        except BaseException as error:  # user code: what it raises is the caller's to know
            if is_kill(error):
                raise
            if self.is_notice:
                logger.error("a service that was given notice raised", exc_info=error)
            return wire.failure_of(error)

    def _told(self, result: object) -> str | None:
        try:
            tail = wire.answer(encode(result))
        except NotAllowed:
            if isinstance(result, bytes | bytearray | memoryview):
                return wire.BYTES
            if not is_stream(result):
                raise
            if self.is_notice:
                discard(result)
                return None
            self._session.transport.call_reader()
            window = wire.whole(self._message.get("window"))
            self._session.streams.send(self.id, window, result)
            return None
        return wire.TOO_BIG if self._session.is_too_big(tail) else tail

    def _finish(self, tail: str | None) -> None:
        if self.key is not None:
            self._session.services.answered.finish(self.key, tail)
        elif tail is not None and not self.is_notice:
            self.answer(tail)
