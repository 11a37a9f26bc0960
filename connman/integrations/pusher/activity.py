"""Notice that a Pusher server says nothing any more, though the network may still answer for it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

from connman.clock import Clock, Timer, maybe_call_later
from connman.errors import ConnmanError, PingTimeout, SendTimeout
from connman.threads import spawn
from connman.transport.base import Transport

# How long a reader that is held up, or has just taken the answer, may need to tell of it; and the pause before it is
# looked for again while a listener keeps it.
_DOUBT = 0.1
# A tick that comes this much later than it was due tells that this process, or the machine, was stopped meanwhile.
_LATE = 1.0


class Activity:
    """Ask with ``ping()`` after ``quiet`` seconds without a frame, and abort the transport ``patience`` later.

    The keepalive of the connection asks the other end of the websocket, which may be a gateway; this asks the server
    behind it. While the reader is busy with what it got (a listener that blocks), the server is not judged.

    Threads: `heard` from the reader, everything else from any thread.
    """

    def __init__(
        self, transport: Transport, clock: Clock, ping: Callable[[], None], *, quiet: float, patience: float
    ) -> None:
        self._transport = transport
        self._clock = clock
        self._ping = ping
        self._quiet = quiet
        self._patience = patience
        # Of the frames that came: how many, and when the last one did. Written by the reader alone.
        self.frames = 0
        self._heard = clock.now()
        self._lock = threading.Lock()
        # Guarded by _lock: everything below.
        self._asked = -1  # how many frames had come when the last ping went out
        self._is_asking = False  # one is being sent
        self._is_doubted = False  # it is overdue, and was looked at once
        self._due = 0.0
        self._timer: Timer | None = None
        self._is_stopped = False

    def heard(self) -> None:
        """Note that a frame has come."""
        self._heard = self._clock.now()
        self.frames += 1

    def start(self) -> None:
        """Begin: the first ping is due ``quiet`` seconds from now."""
        with self._lock:
            # `check` may have come first.
            if self._timer is None and not self._is_asking:
                self._schedule_locked(self._quiet)

    def stop(self) -> None:
        """End; a tick that is running may still finish. Idempotent."""
        with self._lock:
            self._is_stopped = True
            timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def check(self) -> None:
        """Ask now, unless the answer to another ping is due. Never blocks."""
        with self._lock:
            if self._is_stopped or self._is_asking or self._asked == self.frames:
                return
            timer, self._timer = self._timer, None
            self._begin_asking_locked()
        if timer is not None:
            timer.cancel()

    def _schedule_locked(self, delay: float) -> None:
        if not self._is_stopped:
            self._due = self._clock.now() + delay
            self._timer = maybe_call_later(self._clock, delay, self.tick)

    def tick(self) -> None:
        """Look at how things stand: what the timer calls."""
        now = self._clock.now()
        with self._lock:
            if self._is_stopped or self._is_asking:
                return
            if self._asked != self.frames:
                if now >= self._heard + self._quiet:
                    self._begin_asking_locked()
                else:
                    self._schedule_locked(self._heard + self._quiet - now)
                return
            if now - self._due > _LATE:
                # The answer, and the server's patience with us, had no time either.
                self._begin_asking_locked()
                return
            # Looked at twice: between the first look and this one the reader has told of what it had taken already.
            is_over = self._is_doubted and self._transport.reading and not self._transport.is_readable()
            self._is_doubted = True
            if not is_over:
                self._schedule_locked(_DOUBT)
                return
        # Outside the lock: it wakes the reader, which stops this.
        self._transport.abort(PingTimeout("no answer to a Pusher ping"))

    def _begin_asking_locked(self) -> None:
        self._is_asking = True
        self._is_doubted = False
        # On a thread of its own: a send may block, and the timer thread serves every connection of the process. At the
        # interpreter's end there is none, and nothing to look after.
        with contextlib.suppress(RuntimeError):
            spawn("pusher-ping", self._ask)

    def _ask(self) -> None:
        # Before it goes out: the answer may be here before the send has returned.
        frames = self.frames
        delay = self._patience
        try:
            self._ping()
        except SendTimeout:
            # Others were sending all the time; or this one has ended the transport, of which the reader tells.
            frames, delay = -1, _DOUBT
        except ConnmanError:
            return
        with self._lock:
            self._is_asking = False
            self._asked = frames
            self._schedule_locked(delay)
