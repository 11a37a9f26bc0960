"""The readers that a pool's connections share: so many threads, and those that dial for them."""

from __future__ import annotations

import time

from connman.clock import Clock
from connman.connection import fork
from connman.connection.cycle import Cycle
from connman.connection.diallers import Diallers
from connman.connection.shared import SharedReader


class SharedReaders:
    """A fixed number of threads that read however many connections, and the threads that dial for them. A `Readers`.

    Threads: every method from any thread.
    """

    def __init__(self, count: int, name: str, clock: Clock) -> None:
        self._diallers = Diallers(name)
        self._readers = [
            SharedReader(f"{name}-{number}", clock, self._diallers) for number in range(1, count + 1)
        ]
        fork.register(self)

    def start(self, cycle: Cycle) -> None:
        """Have the reader that has the fewest connections drive ``cycle``; see `Readers`.

        Raises: RuntimeError when no thread is granted.
        Threads: any; never blocks.
        """
        min(self._readers, key=lambda reader: reader.size).start(cycle)

    def wait_gone(self, within: float) -> bool:
        """Wait up to ``within`` seconds for those threads to end that have nothing to do any more; see `Readers`.

        Threads: any but connman's own.
        """
        until = time.monotonic() + within
        if not all(reader.wait_gone(max(0.0, until - time.monotonic())) for reader in self._readers):
            return False
        is_idle = not any(reader.size for reader in self._readers)
        return not is_idle or self._diallers.wait_gone(max(0.0, until - time.monotonic()))

    def after_fork(self) -> None:
        """Become fresh in a child process: the threads are the parent's.

        Threads: the first one of the child that uses connman.
        """
        self._diallers.after_fork()
        for reader in self._readers:
            reader.after_fork()
