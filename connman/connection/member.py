"""One connection among many that a thread reads: its life in steps, none of which waits for the network."""

from __future__ import annotations

import enum
import logging
import math
import threading
from collections.abc import Callable
from functools import partial
from typing import Protocol

from connman.clock import Clock, Timer
from connman.connection import fork
from connman.connection.cycle import Cycle, internal
from connman.connection.diallers import Diallers
from connman.errors import ConnectionClosed, ConnmanError
from connman.records import Message
from connman.threads import is_kill
from connman.transport.base import Dial, Transport

logger = logging.getLogger("connman.connection")

_Outcome = tuple[Transport, list[Message]] | ConnmanError


class Host(Protocol):
    """The thread that reads members, as they see it."""

    clock: Clock
    diallers: Diallers

    def has(self, member: Member) -> bool:
        """Whether it has not left ``member``.

        Threads: any.
        """

    def post(self, member: Member, step: Callable[[], None]) -> None:
        """Have the thread call ``step()`` soon; nothing when it has left ``member``.

        Threads: any; never blocks.
        """

    def call_later(self, member: Member, delay: float, step: Callable[[], None]) -> Timer | None:
        """Have the thread call ``step()`` after ``delay`` seconds; None when that cannot be cancelled.

        Threads: the reading one.
        """

    def watch(self, member: Member, fd: int, reads_when: int) -> None:
        """Have ``member.read()`` called whenever ``fd`` is READABLE or WRITABLE, as ``reads_when`` says; 0: not any more.

        Threads: the reading one, or for 0 one that gives up.
        """

    def seen_until(self, transport: Transport) -> float:
        """Return the clock's time up to which what had arrived on ``transport`` has been read.

        Threads: any.
        """

    def leave(self, member: Member) -> None:
        """Forget ``member``: nothing is left to do.

        Threads: the reading one, or one that gives up.
        """


class _Phase(enum.Enum):
    IDLE = "idle"
    HELD = "held"  # before an attempt: too much waits for the thread of its callbacks
    DIALLING = "dialling"
    READING = "reading"
    PAUSED = "paused"  # open, but nobody takes what was read
    WAITING = "waiting"


class Member:
    """One connection that a `Host` reads.

    Threads: the host's, but for what is said there.
    """

    __slots__ = (
        "_dialling",
        "_host",
        "_is_read_posted",
        "_phase",
        "_timer",
        "_waits",
        "_watched_for",
        "cycle",
        "transport",
    )

    def __init__(self, cycle: Cycle, host: Host) -> None:
        self.cycle = cycle
        self.transport: Transport | None = None
        self._host = host
        self._dialling: Dial | None = None
        self._is_read_posted = False
        self._phase = _Phase.IDLE
        self._timer: Timer | None = None
        self._waits = 0  # between attempts, so far
        self._watched_for = 0

    def begin(self) -> None:
        """Become the connection's reader and begin its first attempt."""
        look = partial(self._host.post, self, self._look)
        if not self.cycle.life.claim_reader(look):
            self._leave()
            return
        self.cycle.on_room(look)
        self.cycle.restart()
        self._attempt()

    def _leave(self) -> None:
        self._phase = _Phase.IDLE
        self._host.leave(self)

    def _look(self) -> None:
        """See whether what it waits for has come: posted by whoever may have brought it."""
        life, transport = self.cycle.life, self.transport
        if self._phase is _Phase.WAITING and life.is_wait_over:
            if self._timer is not None:
                self._timer.cancel()
            self._wait_is_over(self._waits)
        elif self._phase is _Phase.HELD:
            self._attempt()
        elif self._phase is _Phase.PAUSED and transport is not None:
            if transport.error is not None:
                self._ended(transport.error)
            elif self.cycle.has_room:
                self._resume()

    # Dialling: on another thread.

    def _attempt(self) -> None:
        if not self.cycle.is_told:
            self._phase = _Phase.HELD
            return
        dial = self.cycle.begin()
        if dial is None:
            self._leave()
            return
        self._phase = _Phase.DIALLING
        self._dialling = dial
        self._host.diallers.submit(dial, partial(self._dial, dial), partial(self._tell_dialled, dial))

    def _dial(self, dial: Dial) -> None:
        """Dial. Threads: a dialler's."""
        life = self.cycle.life
        life.note_dialler(threading.get_ident())
        try:
            outcome: _Outcome = self.cycle.dial(dial)
        except BaseException as bug:  # top of a thread: the connection would wait for ever
            outcome = internal(bug)
            if is_kill(bug):
                self._tell_dialled(dial, outcome)
                raise
            logger.exception("dialling failed", extra={"conn": self.cycle.name})
        finally:
            life.note_dialler(None)
        fork.check_process()  # a login may have forked: its child has another life
        self._tell_dialled(dial, outcome)

    def _tell_dialled(self, dial: Dial, outcome: _Outcome) -> None:
        if self._host.has(self):
            self._host.post(self, partial(self._dialled, dial, outcome))
        elif not isinstance(outcome, ConnmanError):
            outcome[0].dispose()  # a bug has made it leave meanwhile

    def _dialled(self, dial: Dial, outcome: _Outcome) -> None:
        if dial is not self._dialling:  # an abort has told of its end before the dialler did
            if not isinstance(outcome, ConnmanError):
                outcome[0].dispose()
            return
        self._dialling = None
        if isinstance(outcome, ConnmanError):
            self._after(outcome)
            return
        self.transport, first = transport, _ = outcome
        transport.on_abort = partial(self._host.post, self, self._look)
        if not self.cycle.opened(transport, first, self._seen_until):
            self._ended(self.cycle.life.closing or ConnectionClosed())
            return
        if transport.fileno() < 0:
            transport.watch(self._post_read)
        self._resume()

    def _seen_until(self) -> float:
        """Return up to when what had arrived was read; see `Keepalive`. Threads: any."""
        transport = self.transport
        if self._phase is not _Phase.READING or transport is None:
            return -math.inf
        return self._host.seen_until(transport)

    # Reading. A callback may have forked: before anything but the end of a step follows one, `check_process` has to see
    # to it that a child touches neither the socket nor the selector, which it shares with its parent.

    def read(self) -> None:
        """Read once and deliver what that brought. Threads: the host's, within a round."""
        transport = self.transport
        assert transport is not None
        messages, end = transport.receive_ready()
        if messages:
            self.cycle.deliver(messages)
        if end is not None:
            self._ended(end)
        elif transport.has_end:  # told without room as well, and behind what the callback has sent
            self._post_read()
        elif messages and not (self.cycle.takes_all or self.cycle.has_room):
            self._pause()
        elif transport.rest:  # perhaps not even one message yet: a long one is unpacked in pieces
            self._post_read()
        elif not messages and transport.reads_when != self._watched_for:
            self._watch(transport, transport.reads_when)

    def _post_read(self) -> None:
        """Have it read in the next round: for what no descriptor tells of. Threads: any."""
        # One at a time, however many ask: each round reads each connection once.
        if not self._is_read_posted:
            self._is_read_posted = True
            self._host.post(self, self._maybe_read)

    def _maybe_read(self) -> None:
        self._is_read_posted = False  # before reading: who finds it set has brought what is read now
        transport = self.transport
        if self._phase is _Phase.READING and transport is not None:
            before = transport.bytes_in
            self.read()
            if transport.bytes_in > before and transport.fileno() < 0:
                # Without a descriptor it tells of what comes, not of what is there.
                self._post_read()

    def _resume(self) -> None:
        fork.check_process()
        transport = self.transport
        assert transport is not None
        transport.life = self._host.clock.now()  # as long as nobody read, the peer could give no sign of life
        self._phase = _Phase.READING
        self._watch(transport, transport.reads_when)
        self.read()  # what came with the upgrade, or while it was paused
        if transport.fileno() < 0:
            self._post_read()

    def _pause(self) -> None:
        fork.check_process()
        assert self.transport is not None
        self._watch(self.transport, 0)
        self._phase = _Phase.PAUSED
        self._host.post(self, self._look)  # it may have been taken meanwhile

    def _watch(self, transport: Transport, reads_when: int) -> None:
        self._watched_for = reads_when
        if (fd := transport.fileno()) >= 0:
            self._host.watch(self, fd, reads_when)

    # Ending.

    def _ended(self, error: ConnmanError) -> None:
        fork.check_process()
        self._let_go()
        self._after(error)

    def _let_go(self) -> None:
        transport, self.transport = self.transport, None
        self.cycle.stop_keepalive()
        if transport is None:
            return
        if self._watched_for:
            self._watch(transport, 0)
        transport.on_abort = None
        if transport.is_slow_to_dispose:
            self._host.diallers.run(transport.dispose)
        else:
            transport.dispose()

    def _after(self, error: ConnmanError) -> None:
        delay = self.cycle.ended(error)
        fork.check_process()
        if delay is None:
            self._attempt()
            return
        self._phase = _Phase.WAITING
        self._waits += 1
        if self.cycle.life.is_wait_over:  # cut in a callback
            self._wait_is_over(self._waits)
            return
        self._timer = self._host.call_later(self, delay, partial(self._wait_is_over, self._waits))

    def _wait_is_over(self, number: int) -> None:
        # A late timer, of a wait that was cut, must not cut the next.
        if self._phase is _Phase.WAITING and self._waits == number:
            self.cycle.life.retry()
            self._attempt()

    def fail(self, bug: BaseException) -> None:
        """Have a bug of ours end the transport, or at least the connection, and nothing else."""
        try:
            if self.transport is not None:
                logger.error("reading failed", exc_info=bug, extra={"conn": self.cycle.name})
                self._ended(internal(bug))
                return
        except BaseException as another:  # top of a thread: the other connections are not concerned
            bug = another
        self.abandon(bug)

    def abandon(self, bug: BaseException) -> None:
        """Leave it idle, with the bug as its last error; asking for it starts it anew."""
        # First, as what is told of the failure may raise as well.
        self._leave()
        try:
            self._let_go()
        except BaseException:  # top of a thread: the selector may be what is broken
            logger.exception("letting go failed", extra={"conn": self.cycle.name})
        self.cycle.failed(bug)
