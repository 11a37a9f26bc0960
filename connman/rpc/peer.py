"""A peer: one side of a connection on which each side may serve and call."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from types import EllipsisType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from connman.connection import fork
from connman.errors import InvalidOption, MessageTooBig, WouldDeadlock
from connman.options import check_seconds
from connman.records import Message
from connman.rpc import wire
from connman.rpc.calls import BlockingCall, Call, FutureCall
from connman.rpc.codec import NotAllowed, encode
from connman.rpc.counters import CloseStatus, PeerStats
from connman.rpc.path import Path
from connman.rpc.reading import Stream
from connman.rpc.services import Service, Services
from connman.rpc.session import Parts
from connman.rpc.table import Table
from connman.rpc.workers import Workers

if TYPE_CHECKING:
    from connman.connection.connection import Connection
    from connman.connection.receiver import Receiver

_C = TypeVar("_C", BlockingCall, FutureCall)
Timeout = float | EllipsisType | None


class Peer:
    """One side of a connection: it calls the services of the other side, and serves its calls.

    ``conn``: without ``on_data``; what it brings is the peer's from now on, and `Peer.close` ends it. An idle one is
    started by the first call. ``services``: what the other side may call: ids and functions, or a `Services` that several
    peers share (``max_workers``, threads for services, is that one's then). ``call_timeout``: seconds a call waits for
    its answer unless it says otherwise, None for no limit. ``first``: messages that were received on ``conn`` already.
    ``replaces``: who takes what ``conn`` reads until now, and makes this inside its own ``received``.

    Calls made while an attempt to connect is under way go out when it has succeeded, and fail when it fails. Calls under
    way when a connection is lost fail with PeerGone at once, but for those that are ``retry_safe``.

    Raises: TypeError, ValueError or InvalidOption for a connection or an option that cannot work.
    Threads: every method from any thread, but for what is said there; services run on several threads at once.
    """

    def __init__(
        self,
        conn: Connection,
        *,
        services: Services | Mapping[int | str, Service] | None = None,
        call_timeout: float | None = 30.0,
        max_workers: int = 32,
        first: Sequence[Message] = (),
        replaces: Receiver | None = None,
    ) -> None:
        if conn.endpoint is not None and conn.endpoint.scheme in ("tcp", "tls", "unix"):
            raise InvalidOption("a peer needs messages: ws, wss, memory or HTTP, not a stream of bytes")
        if call_timeout is not None:
            check_seconds("call_timeout", call_timeout)
        self._conn = conn
        self._call_timeout = call_timeout
        if not isinstance(services, Services):
            services = Services(services, max_workers=max_workers, clock=conn.clock)
        self.services = services
        self._clock = conn.clock
        self._workers = Workers(f"calls-{conn.name}", 2, 8)
        self._table = Table(conn.clock, self._workers.submit)
        options = conn.options
        self._parts = Parts(
            self, conn.name, conn.clock, self._table, services, self._workers, conn.is_reader,
            options.send_timeout, call_timeout, options.max_message_size,
        )  # fmt: skip
        self._path = Path(self._parts, conn)
        self._path.attach(first, replaces)
        fork.register(self)

    # Serving.

    def add_service(self, service: int | str, function: Service) -> None:
        """Let the other side call ``function`` as ``service``, in the place of what was there.

        Raises: ValueError for an id that is neither a positive int nor a text; TypeError for what cannot be called.
        Threads: any.
        """
        self.services.add(service, function)

    def remove_service(self, service: int | str) -> None:
        """Offer ``service`` no longer; nothing when it is not there. Calls that run go on.

        Threads: any.
        """
        self.services.remove(service)

    def clear_services(self) -> None:
        """Offer nothing any more.

        Threads: any.
        """
        self.services.clear()

    # Calling.

    def send(
        self, service: int | str, /, *args: Any, timeout: Timeout = ..., retry_safe: bool = False
    ) -> Future[Any]:
        """Call ``service`` of the other side and return a Future of its answer.

        ``timeout``: seconds until the Future fails with CallTimeout; None for no limit, left out for the peer's
        ``call_timeout``, 0 and less: at once. ``retry_safe``: it may go out more than once: it survives losses until its
        deadline, and goes out again on each new path. A provider of connman's runs it once all the same, as long as it
        keeps the answer; any other may run it more than once.

        The Future fails with RemoteError when the service raised; NoSuchService; NoSuchPeer and PeerGone when there is no
        path or it breaks; CallTimeout; Forked in a child process. Its callbacks run on the thread that settles it, most
        often the reader, and must not block.

        Raises: ValueError for an id that is none; NotAllowed for an argument that cannot travel; MessageTooBig. Nothing
        was sent then.
        Threads: any.
        """
        call = self._make(FutureCall, service, args, timeout, retry_safe)
        self._submit(call)
        return call.future

    def call(
        self, service: int | str, /, *args: Any, timeout: Timeout = ..., retry_safe: bool = False
    ) -> Any:
        """Call ``service`` of the other side and return its answer; the rest as `send`.

        Raises: what `send` raises, and what its Future fails with; WouldDeadlock on the reader thread.
        Threads: any but the reader's.
        """
        if self._conn.is_reader():
            raise WouldDeadlock("the reader thread cannot wait for the answer that only it can read")
        call = self._make(BlockingCall, service, args, timeout, retry_safe)
        self._submit(call)
        session = self._path.session
        return call.wait(None if session is None else session.routing.read_answer)

    def notify(self, service: int | str, /, *args: Any) -> None:
        """Call ``service`` without wanting to know what comes of it.

        Raises: PeerGone when there is no path; ValueError, NotAllowed and MessageTooBig as `send`.
        Threads: any.
        """
        text = wire.request(wire.checked_service_id(service), encode(args), ',"notice":true')
        fork.check_process()
        session = self._path.session
        if session is None:
            raise self._path.gone()
        self._parts.check_size(text)
        session.notify(text)

    def _make(
        self,
        kind: type[_C],
        service: int | str,
        args: tuple[Any, ...],
        timeout: Timeout,
        retry_safe: bool,
    ) -> _C:
        fork.check_process()
        wire.checked_service_id(service)
        session = upload = None
        try:
            encoded = encode(args)
        except NotAllowed:
            if retry_safe:
                raise  # what streams can be read once only
            session = self._path.wait_session(self._deadline(timeout))
            encoded, upload = session.streams.upload(args)
        call_id, extra = None, ""
        if retry_safe:
            call_id = secrets.token_hex(16)
            extra = f',"callId":"{call_id}"'
        text = wire.request(service, encoded, extra)
        try:
            self._parts.check_size(text)
        except MessageTooBig:
            if upload is not None:
                upload.close()
            raise
        call = kind(self._table, service, text, self._conn.is_reader)
        call.call_id, call.upload, call.session = call_id, upload, session
        call.began = now = self._clock.now()
        seconds = self._seconds(timeout)
        if seconds is not None:
            call.deadline = now + seconds
        return call

    def _submit(self, call: Call) -> None:
        try:
            self._path.submit(call)
        except BaseException:  # user code (a signal handler) raised: nobody will wait for it
            self._table.drop(call)
            raise

    def _seconds(self, timeout: Timeout) -> float | None:
        return self._call_timeout if isinstance(timeout, EllipsisType) else timeout

    def _deadline(self, timeout: Timeout) -> float | None:
        seconds = self._seconds(timeout)
        return None if seconds is None else self._clock.now() + seconds

    def stream(self, service: int | str, /, *args: Any, timeout: Timeout = ...) -> Stream:
        """Call ``service`` and return what it streams, to be iterated and closed: an iterator and a with-block.

        ``timeout``: seconds to wait for each chunk, else as for `send`. The sender is told to stop when the stream is
        closed, or nobody holds it any more.

        Raises: as `call` for the request; while iterating what a call's Future fails with.
        Threads: any but the reader's; the stream one at a time.
        """
        fork.check_process()
        wire.checked_service_id(service)
        session = self._path.wait_session(self._deadline(timeout))
        return session.streams.open(service, args, self._seconds(timeout))

    # Its end, and looking at it.

    def close(self, reason: str = "", *, timeout: float | None = None) -> None:
        """End the connection with code 1000 and ``reason``, cut to 123 bytes between two characters. Idempotent.

        Calls under way fail with PeerGone. ``timeout``: as for `Connection.disconnect`.

        Threads: any.
        """
        self._conn.disconnect(1000, reason, timeout=timeout)

    @property
    def closed(self) -> Future[CloseStatus]:
        """The Future of its end: it resolves when the connection was closed with code 1000.

        Whatever else ends it for good fails the Future with a ConnectionClosed whose ``status`` is the `CloseStatus`. A
        loss after which the connection comes back is no end.
        """
        return self._path.closed

    @property
    def conn(self) -> Connection:
        """The connection that it sits on."""
        return self._conn

    @property
    def conn_id(self) -> int:
        """The id of its connection."""
        return self._conn.id

    @property
    def stats(self) -> PeerStats:
        """What it has done since it was made: a snapshot.

        Threads: any.
        """
        fork.check_process()
        return self._table.snapshot()

    def __enter__(self) -> Self:
        """Wait until the connection is open, at most its ``open_timeout``.

        Raises: as `Connection.wait_open`, after having ended the connection.
        """
        self._conn.__enter__()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._conn.name} {self._conn.state.value}>"

    def after_fork(self) -> Callable[[], None]:
        """Be a peer without calls in a child process; return what fails those of the parent's.

        Threads: the first one of the child that uses connman.
        """
        return self._path.after_fork()
