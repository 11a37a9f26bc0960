"""One transport's worth of a peer: what goes out on it, and what comes in by it belongs together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from connman.clock import Clock, Deadline
from connman.errors import MessageTooBig, PeerGone, WouldDeadlock
from connman.records import Data
from connman.rpc import wire
from connman.rpc.calls import BlockingCall, Call, StreamCall
from connman.rpc.outbox import Outbox
from connman.rpc.routing import Routing
from connman.rpc.services import Services
from connman.rpc.streams import Streams
from connman.rpc.table import Table, timed_out
from connman.rpc.workers import Job, Workers
from connman.transport.base import Transport

if TYPE_CHECKING:
    from connman.rpc.peer import Peer

_GATHERED = 32
_MOST_PARKED = 1024


@dataclass(frozen=True, slots=True)
class Parts:
    """What a peer is made of; the same for all of its sessions."""

    peer: Peer
    name: str
    clock: Clock
    table: Table
    services: Services
    workers: Workers  # of the peer's own, for what its reader and its timer cannot do themselves
    is_reader: Callable[[], bool]
    send_timeout: float
    call_timeout: float | None
    max_message_size: int

    def check_size(self, text: str) -> None:
        """Raise when a request with ``text`` in it would be too large.

        Raises: MessageTooBig.
        Threads: any.
        """
        if self.is_too_big(text):
            raise MessageTooBig("the arguments are larger than a message may be")

    def is_too_big(self, text: str) -> bool:
        """Return whether a message with ``text`` in it would be larger than the other side is thought to take.

        Threads: any.
        """
        most = self.max_message_size - wire.MARGIN
        # No character takes more than four bytes.
        return len(text) * 4 > most and wire.size_of(text) > most


class Session:
    """One open transport of a peer: requests go out on it and nowhere else, answers go back by it or are dropped.

    Threads: any, but for what is said there.
    """

    def __init__(self, parts: Parts, transport: Transport) -> None:
        self._parts = parts
        self._table = parts.table
        self._counters = parts.table.counters
        self.peer = parts.peer
        self.clock = parts.clock
        self.services = parts.services
        self.max_message_size = parts.max_message_size
        self.call_timeout = parts.call_timeout
        self.is_too_big = parts.is_too_big
        self.transport = transport
        self._outbox = Outbox(
            transport,
            parts.table.lock,
            parts.table.counters,
            parts.workers.submit,
            send_timeout=parts.send_timeout,
            most=parts.max_message_size,
            on_room=self._go_on,
        )
        # Guarded by the table's lock: is_over, _parked (requests that are run when there is room for their answers).
        self.is_over = False
        self._parked: list[Job] = []
        self.streams = Streams(self)
        self.routing = Routing(self, parts.table)

    # Going out.

    def send(self, call: Call) -> bool:
        """Send the request of ``call``; False when the path is gone.

        While much waits to go out it waits as well, and ends the call when its deadline passes before that.
        """
        if self._outbox.is_full and not self._wait_room(Deadline(self.clock, call.deadline)):
            call.is_over = True
            call.failed(timed_out(call))
            return True
        with self._table.lock:
            if self.is_over:
                return False
            self.put_locked(call)
        if call.deadline is not None:
            self._table.watch(call)
        self._outbox.flush()
        if not isinstance(call, BlockingCall):
            self.transport.call_reader()
        return True

    def _wait_room(self, deadline: Deadline) -> bool:
        """Wait for room in the outbox, but on the reader; False at ``deadline``."""
        if self._parts.is_reader():
            return True
        return self._outbox.wait_room(deadline, lambda: self.is_over) or self.is_over

    def put_locked(self, call: Call) -> None:
        """Give ``call`` its id, and its request to the outbox; the table's lock is held."""
        number = self._table.number_locked(call)
        self._outbox.put_locked(f'{{"requestId":{number},{call.text}')

    def notify(self, text: str) -> None:
        """Send a request that nobody waits for; ``text``: behind its id.

        Raises: PeerGone.
        """
        self._wait_to_write()
        with self._table.lock:
            if self.is_over:
                raise self.gone()
            number = self._counters.sent
            self._counters.sent = number + 1
            self._outbox.put_locked(f'{{"requestId":{number},{text}')
        self._outbox.flush()

    def _wait_to_write(self) -> None:
        if self._outbox.is_full:
            self._wait_room(Deadline.after(self.clock, self._parts.send_timeout))

    def start(self, service: int | str, args: str, stream: Any, extra: str = "") -> Call:
        """Send a request whose answers go to ``stream``; ``args``: encoded, ``extra``: more fields, each behind a comma.

        Raises: PeerGone; MessageTooBig.
        """
        text = wire.request(service, args, extra)
        self._parts.check_size(text)
        call = StreamCall(self._table, service, text, self._parts.is_reader)
        call.stream = stream
        call.began = self.clock.now()
        if not self.send(call):
            raise self.gone()
        return call

    def cancel(self, call: Call) -> None:
        """Take ``call`` out of the table; nothing is told to anybody."""
        self._table.take(call)

    def post(self, message: Data) -> bool:
        """Have ``message`` go out without ever waiting for the network; False when the path is gone.

        Threads: any, the reader included.
        """
        with self._table.lock:
            if self.is_over:
                return False
            self._outbox.owe_locked(message)
        self._outbox.flush()
        return True

    def write(self, message: Data) -> None:
        """Send ``message``, behind what waits; when that is much, not before it has gone out.

        Raises: PeerGone.
        Threads: any but the reader.
        """
        self._wait_to_write()
        with self._table.lock:
            if self.is_over:
                raise self.gone()
            self._outbox.put_locked(message)
        self._outbox.flush()

    def answer(self, number: int, tail: str) -> None:
        """Send an answer together with those of the jobs that follow, but soon.

        While much waits to go out, a large one waits as well, for the time to send at most: the peer may read slowly.

        Threads: a worker.
        """
        # Smaller ones may come from all workers at once, and are not too much together; then no more are run, see `park`.
        is_large = len(tail) > self.max_message_size // self.services.max_workers
        if is_large:
            self._outbox.flush()  # what this thread has put there may wait for nothing else
        with self._table.lock:
            if is_large:
                # Under the lock: of all who wait for room one has it, and the others go on waiting.
                self._wait_to_write()
            if self.is_over:
                return
            self._outbox.owe_locked(f'{{"responseId":{number},{tail}')
        if len(self._outbox.waiting) < _GATHERED:
            self.services.workers.run_last(self.round_over)
        else:
            self._outbox.flush()

    def round_over(self) -> None:
        """Send the answers of the jobs that were there, and look for the next request.

        Threads: a worker.
        """
        self._outbox.flush()
        self.routing.serve_next()

    def park(self, job: Job) -> bool:
        """Have ``job()`` run when fewer answers wait to go out; False when not many do, or too many are parked.

        The workers are for all peers: they must not wait for room with the answers of one that does not read.

        Threads: a worker.
        """
        if not self._outbox.is_owing:
            return False
        with self._table.lock:
            is_parked = self._may_park_locked()
            if is_parked:
                self._parked.append(job)
            return is_parked

    def _may_park_locked(self) -> bool:
        # Owing still: or nobody would tell of room any more.
        return not self.is_over and self._outbox.is_owing and len(self._parked) < _MOST_PARKED

    def _go_on(self) -> None:
        with self._table.lock:
            jobs, self._parked = self._parked, []
        for job in jobs:
            self.services.workers.submit(job, is_new=False)

    def flush(self) -> None:
        """Send what waits, unless somebody is at it; never blocks."""
        self._outbox.flush()

    # For the streams.

    def count_invalid(self) -> None:
        """Count a frame that is no message.

        Threads: the reader.
        """
        self._counters.invalid += 1

    def refuse_reader(self) -> None:
        """Raise on the reader thread, which must not wait for what only it can read.

        Raises: WouldDeadlock.
        """
        if self._parts.is_reader():
            raise WouldDeadlock("the reader thread cannot wait for what only it can read")

    def count_refused(self) -> None:
        """Count a request that was refused because too many wait.

        Threads: the reader.
        """
        self._counters.refused += 1

    def was_sent(self, number: int) -> bool:
        """Return whether a request of ours had this id."""
        return 0 <= number < self._counters.sent

    def find(self, number: object) -> Call | None:
        """Return the call that a part of an answer is for; None, and counted, when there is none.

        Threads: the reader.
        """
        return self._table.find(number)

    # Its end.

    def gone(self) -> PeerGone:
        """Return the error for who comes too late."""
        return gone(f"{self._parts.name}: the path to the peer is gone", was_sent=False)

    def unsent_ids(self) -> set[int]:
        """Return the ids of requests that did not go out; once it is over."""
        return self._outbox.unsent_ids()

    def end(self, error: PeerGone) -> None:
        """End what streams, and what waits to go out; it is over already.

        Threads: any.
        """
        self._outbox.wake()
        self._go_on()
        self.streams.end(error)


def gone(text: str, *, was_sent: bool) -> PeerGone:
    """Return a PeerGone.

    Threads: any; pure.
    """
    error = PeerGone(text)
    error.sent = was_sent
    return error
