"""Standard input on a thread of its own: each line is sent when the connection is open, or counted as unsent."""

from __future__ import annotations

import contextlib
import os
import select
import stat
import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Literal

from connman.cli.lines import Splitter
from connman.cli.render import Note
from connman.errors import ConnmanError, NotConnected
from connman.records import Message
from connman.threads import Condition, spawn

_CHUNK = 65536
# Between two looks at a terminal that another job reads from.
_BACKGROUND_PAUSE = 500  # milliseconds

SourceKind = Literal["terminal", "finite", "none"]


class InputNews(Enum):
    """What the input thread tells besides notes: nothing more comes, or nobody reads our output any more."""

    ENDED = "ended"
    OUTPUT_GONE = "output gone"


@dataclass(frozen=True, slots=True)
class Source:
    """What the thread reads and whom it tells.

    ``fd``: where lines come from. ``output``: a descriptor whose reader's end is to be noticed. ``send`` sends one
    message and raises as ``Connection.send`` does. ``tell`` takes news; it may block. ``is_binary``: pieces are sent
    as bytes, not as text.
    """

    fd: int
    output: int
    splitter: Splitter
    is_binary: bool
    send: Callable[[Message], None]
    tell: Callable[[InputNews | Note], None]


class InputThread:
    """Read pieces, wait until the connection is open, send them in order; what could not be sent is counted.

    It reads on only when everything read before is sent, which holds a pipe's writer back. Nothing is sent twice.

    Threads: every method from any thread, but for `finish`.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._is_terminal = os.isatty(source.fd)
        self._condition = Condition()
        # Guarded by _condition: _open_generation, _is_stopped.
        self._open_generation = 0
        self._is_stopped = False
        # Written by the thread alone, read by others when it has ended: sent, unsent, _spent, _pieces.
        self.sent = 0
        self.unsent = 0
        self._spent = 0  # the newest generation that turned out to be over
        self._pieces = 0
        self._poller = select.poll()
        self._wake_read, self._wake_write = os.pipe()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to read.

        Raises: RuntimeError when the system grants no thread.
        """
        self._poller.register(self._wake_read, select.POLLIN)
        self._poller.register(self._source.output, 0)  # errors only: the reader has gone
        self._poller.register(self._source.fd, select.POLLIN)
        self._thread = spawn("cli-input", self._input_loop)

    def opened(self, generation: int) -> None:
        """Say that messages can be sent now."""
        with self._condition:
            self._open_generation = generation
            self._condition.notify_all()

    def stop(self) -> None:
        """Have the thread end; returns at once. Idempotent. Before `finish`."""
        with self._condition:
            self._is_stopped = True
            self._condition.notify_all()
        os.write(self._wake_write, b"x")

    def finish(self, timeout: float) -> None:
        """Wait for the thread after `stop`, at most ``timeout`` seconds (0 and less: not), so that the counts are final.

        Threads: the one that started it, once.
        """
        if self._thread is not None:
            self._thread.join(timeout)
            if self._thread.is_alive():
                return  # stuck in a send; it keeps its descriptors, the process ends soon
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _input_loop(self) -> None:
        # poll and os.read, never sys.stdin: a daemon thread inside a buffered reader is a fatal error at exit.
        while not self._is_stopped:
            for descriptor, _ in self._poller.poll():
                if descriptor == self._source.fd:
                    self._read()
                elif descriptor == self._source.output:
                    self._poller.unregister(descriptor)
                    self._source.tell(InputNews.OUTPUT_GONE)

    def _read(self) -> None:
        if self._is_terminal and self._is_background():
            self._pause()
            return
        try:
            chunk = os.read(self._source.fd, _CHUNK)
        except BlockingIOError:
            return
        except OSError:
            chunk = b""  # such as what nohup leaves: open for writing only
        for piece in self._source.splitter.feed(chunk) if chunk else self._source.splitter.rest():
            self._handle(piece)
        if not chunk:
            self._poller.unregister(self._source.fd)
            self._source.tell(InputNews.ENDED)

    def _is_background(self) -> bool:
        """Whether another job has the terminal: reading now would stop us, and take what the shell's user types."""
        try:
            return os.tcgetpgrp(self._source.fd) != os.getpgrp()
        except OSError:
            return False

    def _pause(self) -> None:
        waker = select.poll()
        waker.register(self._wake_read, select.POLLIN)
        waker.poll(_BACKGROUND_PAUSE)

    def _handle(self, piece: bytes | None) -> None:
        self._pieces += 1
        if piece is None:
            self._refuse("it is too long")
        elif self._source.is_binary:
            self._send(piece)
        else:
            try:
                text = piece.decode()
            except UnicodeDecodeError:
                self._refuse("it is not UTF-8")
            else:
                self._send(text)

    def _refuse(self, why: str) -> None:
        self.unsent += 1
        self._source.tell(Note("warning", f"{self._source.splitter.unit} {self._pieces} was not sent: {why}"))

    def _send(self, message: Message) -> None:
        while (generation := self._wait_open()) is not None:
            try:
                self._source.send(message)
            except NotConnected:
                self._spent = generation
            except ConnmanError as error:
                # How much of it has left is unknown, so it is not sent again.
                self._spent = generation
                self._refuse(f"perhaps it was, {error}")
                return
            else:
                self.sent += 1
                return
        self.unsent += 1

    def _wait_open(self) -> int | None:
        """Return the generation that is open, waiting for one; None when stopped."""
        if self._is_terminal and self._open_generation <= self._spent:
            self._source.tell(Note("info", "not connected: what you type is sent as soon as it is open"))
        with self._condition:
            self._condition.wait_for(lambda: self._is_stopped or self._open_generation > self._spent)
            return None if self._is_stopped else self._open_generation


def source_kind(descriptor: int) -> SourceKind:
    """Return what standard input is: somebody types, something that ends, or nothing (such as /dev/null).

    Threads: any.
    """
    if os.isatty(descriptor):
        return "terminal"
    with contextlib.suppress(OSError):
        os.read(descriptor, 0)  # fails when it is open for writing only, as under nohup
        return "none" if stat.S_ISCHR(os.fstat(descriptor).st_mode) else "finite"
    return "none"
