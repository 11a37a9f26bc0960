"""What of a stream that arrives counts as a sign of life."""

from __future__ import annotations

import math
from collections.abc import Sequence

# A partial frame is a sign of life while it grows by this much each ping_timeout; a drip is none.
_ENOUGH = 1024


class Progress:
    """Judge what arrives: a complete frame is a sign of life, a part of one when `_ENOUGH` came within ``window``.

    ``window``: seconds, the keepalive's ``ping_timeout``; without a limit until a keepalive sets it.

    Threads: the reader, but for ``window``, which is set before it reads.
    """

    def __init__(self) -> None:
        self.window = math.inf
        self._bytes = 0
        self._since = 0.0

    def is_life(self, size: int, frames: int, now: float) -> bool:
        """Take note of ``size`` bytes, with which ``frames`` frames became complete; return whether it is life.

        Threads: the reader only.
        """
        if not self._bytes or now - self._since > self.window:
            self._bytes, self._since = 0, now
        self._bytes += size
        if not frames and self._bytes < _ENOUGH:
            return False
        self._bytes = 0
        return True


def whole_frames(frames: Sequence[bytes], missing: int) -> int:
    """Return how many of ``frames``, sent in one go, went out whole when the last ``missing`` bytes did not.

    Threads: any; pure.
    """
    count = len(frames)
    while missing > 0 and count:  # a control frame may lie before them
        count -= 1
        missing -= len(frames[count])
    return count
