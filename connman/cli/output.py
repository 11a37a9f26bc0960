"""Write to a descriptor so that an interrupt gets through, also when nobody reads the other end."""

from __future__ import annotations

import errno
import os
import select

_ENOUGH = 65536


class OutputFailed(Exception):
    """Writing is over. ``is_gone``: nobody reads any more, as under ``| head -1``; else ``cause`` says what broke."""

    def __init__(self, error: OSError) -> None:
        self.is_gone = error.errno == errno.EPIPE
        self.cause = error.strerror or type(error).__name__
        super().__init__(self.cause)


class Writer:
    """Collect bytes for a descriptor and write them in few calls.

    Not a Python file: that would keep what an interrupt left over, and try to write it once more, without an end,
    when the interpreter exits.

    Threads: one at a time.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._pending = bytearray()

    def write(self, data: bytes) -> None:
        """Keep ``data`` for the next `flush`, or flush now if there is plenty.

        Raises: OutputFailed.
        """
        self._pending += data
        if len(self._pending) >= _ENOUGH:
            self.flush()

    def flush(self) -> None:
        """Write what was collected; blocks while the other end does not read.

        Raises: OutputFailed; from then on nothing is kept.
        """
        while self._pending:
            try:
                written = os.write(self._descriptor, self._pending)
            except BlockingIOError:
                # Somebody who shares this terminal or pipe has made it non-blocking.
                self._wait_writable()
                continue
            except OSError as error:
                self._pending.clear()
                raise OutputFailed(error) from error
            del self._pending[:written]

    def discard(self) -> None:
        """Forget what was collected and not written yet."""
        self._pending.clear()

    def _wait_writable(self) -> None:
        poller = select.poll()
        poller.register(self._descriptor, select.POLLOUT)
        poller.poll()


def fill_standard_descriptors() -> None:
    """Open /dev/null in place of closed standard descriptors.

    A socket would take the free number otherwise, and what is printed would be sent to the peer.

    Threads: the main one, before anything else is opened.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)


def has_colour(descriptor: int) -> bool:
    """Return whether what is printed there may be coloured: at a terminal, unless NO_COLOR is set.

    Threads: any.
    """
    return os.isatty(descriptor) and not os.environ.get("NO_COLOR")
