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

    __slots__ = ("_since", "part", "window")

    def __init__(self) -> None:
        self.window = math.inf
        self.part = 0
        self._since = 0.0

    def is_life(self, size: int, now: float) -> bool:
        """Take note of ``size`` bytes with which no frame became complete; return whether they are a sign of life.

        Threads: the reader only.
        """
        if not self.part or now - self._since > self.window:
            self.part, self._since = 0, now
        self.part += size
        if self.part < _ENOUGH:
            return False
        self.part = 0
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
