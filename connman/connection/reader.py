"""A thread for each connection: it dials, logs in, reads, and waits between attempts."""

from __future__ import annotations

import logging
import os

from connman.connection.cycle import Cycle, internal
from connman.errors import ConnectionClosed, ConnectionLost, ConnmanError
from connman.threads import is_kill, spawn
from connman.transport.base import Transport

logger = logging.getLogger("connman.connection")


class ThreadReaders:
    """A thread for each connection. `Readers` documents the methods.

    Threads: any.
    """

    def start(self, cycle: Cycle) -> None:
        """Start the thread; see `Readers`.

        Raises: RuntimeError when no thread is granted.
        Threads: any.
        """
        spawn(f"reader-{cycle.name}", Reader(cycle).run_loop)

    def wait_gone(self, within: float) -> bool:
        """Return True: a connection waits for its own thread itself.

        Threads: any.
        """
        return True


class Reader:
    """Drive one connection from its first attempt until nothing is left to do.

    Threads: `run_loop` is the body of the reader thread; one at a time for each connection.
    """

    __slots__ = ("_cycle", "_life")

    def __init__(self, cycle: Cycle) -> None:
        self._cycle = cycle
        self._life = cycle.life

    def run_loop(self) -> None:
        """Dial, read and come back until the connection is closed or idle."""
        if not self._life.claim_reader():
            return
        pid = os.getpid()
        try:
            self._loop(pid)
        except BaseException as bug:  # top of a thread: it must not end in silence
            if os.getpid() == pid:
                self._cycle.failed(bug)

    def _loop(self, pid: int) -> None:
        cycle = self._cycle
        cycle.restart()
        while (error := self._live(pid)) is not None:
            # It forked in a callback, or is gevent's copy in a child of another's: what it reads is the parent's, and of
            # the locks around it any may have been taken by a thread that is not here.
            if os.getpid() != pid:
                return
            delay = cycle.ended(error)
            if delay is not None:
                self._life.wait_retry(delay)
            cycle.wait_told()

    def _live(self, pid: int) -> ConnmanError | None:
        """Open one transport, read it to its end, and return why it ended; None when nothing is left to do."""
        dial = self._cycle.begin()
        if dial is None:
            return None
        opened = self._cycle.dial(dial)
        if isinstance(opened, ConnmanError):
            return opened
        transport, first = opened
        # Nothing of the dial has to live as long as what came of it.
        del dial, opened
        transport.on_abort = self._cycle.wake
        try:
            if not self._cycle.opened(transport, first):
                return self._life.closing or ConnectionClosed()
            del first
            return self._read(transport)
        except ConnmanError as error:
            return error
        except BaseException as bug:  # top of a thread: what opened must be told as lost, and may come back
            if is_kill(bug):
                raise
            logger.exception("reading failed", extra={"conn": self._cycle.name})
            return internal(bug)
        finally:
            if os.getpid() == pid:
                self._cycle.stop_keepalive()
                transport.dispose()

    def _read(self, transport: Transport) -> ConnmanError:
        cycle = self._cycle
        while cycle.takes_all or transport.has_end or cycle.wait_room(lambda: transport.error is not None):
            if cycle.deliver(transport.receive()):
                transport.stand_by()
        # Aborted while nobody took what had arrived. Nothing else would tell: the peer's end is behind what is not read.
        return transport.error or ConnectionLost("ended while nobody took what had arrived")
