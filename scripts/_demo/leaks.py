"""A guard for the pass: nothing that leaves the demo may contain it."""

from __future__ import annotations

import logging
import threading


class LeakGuard(logging.Handler):
    """Count the texts that contain the secret; as a log handler it looks at every record of connman.

    Threads: every method from any thread.
    """

    def __init__(self, secret: str) -> None:
        super().__init__(logging.DEBUG)
        self.secret = secret
        self._count_lock = threading.Lock()
        # Guarded by _count_lock: count.
        self.count = 0

    def look(self, text: str) -> None:
        """Count ``text`` if it contains the secret."""
        if self.secret in text:
            with self._count_lock:
                self.count += 1

    def emit(self, record: logging.LogRecord) -> None:
        """Look at a record as it would be written, traceback included."""
        self.look(f"{self.format(record)} {vars(record)}")
