"""Notice a peer that is gone without a word."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable

from connman.clock import Clock, Timer
from connman.errors import PingTimeout
from connman.transport.base import Transport
from connman.transport.traffic import TrafficWatch

# A tick that comes this much later than it was due tells that this process, or the machine, was stopped meanwhile. So
# does one that is late by all the time a peer may take to answer.
_LATE = 1.0
# No peer is looked after more often than this, however short its timeout.
_SOON = 0.01
# How long at most the reader may take, at the end of the time, to tell of what lies in the socket or was just taken out.
_DOUBT = 0.2


class Keepalive:
    """Ping a transport every ``interval`` seconds, and abort it when it shows no life.

    The rule needs one number, the transport's last sign of life: a ping goes out at most ``interval`` after it, so
    ``interval + timeout`` without another one is ``timeout`` without an answer. While the reader is busy with what it
    got (a callback that blocks), the peer is not judged; its return to reading counts as life. After a suspension the
    peer is pinged first and judged ``timeout`` later. A peer from which a TLS record arrives, or whose system still
    takes what was sent before the ping, is not judged either while that goes on at 1 KiB each ``timeout`` or more.

    ``seen_until``: up to when what had arrived has been looked at; without it, now if the reader is inside ``receive``.

    Threads: `start` and `stop` from the reader; the ticks run on the timer thread and never block.
    """

    __slots__ = (
        "_asked_at", "_clock", "_doubted_until", "_due", "_interval", "_is_stopped", "_lock", "_moved_at", "_next_ping",
        "_probed_at", "_seen_until", "_timeout", "_timer", "_transport", "_watch",
    )  # fmt: skip

    def __init__(
        self,
        transport: Transport,
        clock: Clock,
        interval: float,
        timeout: float,
        *,
        seen_until: Callable[[], float] | None = None,
    ) -> None:
        self._transport = transport
        self._seen_until = seen_until
        transport.progress.window = timeout
        self._watch: TrafficWatch | None = None  # made when it is needed first
        self._clock = clock
        self._interval = interval
        self._timeout = timeout
        self._next_ping = self._due = clock.now() + interval
        self._asked_at = self._probed_at = self._moved_at = -math.inf
        self._doubted_until: float | None = None
        self._lock = threading.Lock()
        # Guarded by _lock: _timer, _is_stopped.
        self._timer: Timer | None = None
        self._is_stopped = False

    def start(self) -> None:
        """Begin; the first ping is ``interval`` from now.

        Raises: RuntimeError when no timer thread can be started (the interpreter is ending).
        """
        self._schedule(self._interval)

    def stop(self) -> None:
        """End; a tick that is running may still finish. Idempotent."""
        with self._lock:
            self._is_stopped = True
            timer, self._timer = self._timer, None
        # Outside the lock: cancelling takes the one of the timer thread.
        if timer is not None:
            timer.cancel()

    def _schedule(self, patience: float) -> None:
        """Have the next tick come when it is due; ``patience``: seconds to leave a peer that is overdue, but not seen."""
        now = self._clock.now()
        dead_at = self._dead_at()
        look_at = dead_at if dead_at > now else now + patience
        self._due = max(now, min(self._next_ping, look_at))
        with self._lock:
            # Looked at and set under one lock: a stop() in between would leave a timer that nobody cancels.
            if not self._is_stopped:
                self._timer = self._clock.call_later(self._due - now, self._tick)

    def _dead_at(self) -> float:
        last = max(self._transport.life + self._interval, self._asked_at, self._probed_at, self._moved_at)
        return last + self._timeout

    def _seen_by_reader(self) -> float:
        # The answer may lie unread in the socket while a callback of the user's keeps the reader.
        return self._clock.now() if self._transport.reading else -math.inf

    def _tick(self) -> None:
        now = self._clock.now()
        late = now - self._due
        if late > min(_LATE, self._timeout):
            self._probed_at = self._next_ping = now
        # Neither abort() nor ping() ever blocks: the thread this runs on serves every connection of the process.
        self._look_at_traffic(now)
        # In this order: what is seen moves the end further away.
        seen = self._seen_by_reader() if self._seen_until is None else self._seen_until()
        dead_at = self._dead_at()
        is_overdue = now >= dead_at and seen >= dead_at
        if is_overdue and not self._is_doubtful(now, late):
            self._transport.abort(PingTimeout(f"no sign of life for {now - self._transport.life:.1f} s"))
            return
        if not is_overdue:
            self._doubted_until = None
        if now >= self._next_ping:
            self._ping(now)
        # Where nobody looks, whoever looks again is life by itself; a busy thread is behind by a round or two.
        busy = _SOON if is_overdue else max(_SOON, self._timeout / 20)
        self._schedule(self._interval if seen == -math.inf else busy)

    def _look_at_traffic(self, now: float) -> None:
        traffic = self._transport.traffic()
        if traffic is not None:
            if self._watch is None:
                self._watch = TrafficWatch(self._timeout)
            if self._transport.life > self._asked_at:
                self._watch.answered()
            self._moved_at = max(self._moved_at, self._watch.moved_at(traffic, now))

    def _is_doubtful(self, now: float, late: float) -> bool:
        """Return whether the answer may be here and only the reader has not got round to it: both were held up."""
        if self._doubted_until is None:
            self._doubted_until = now + (_DOUBT if self._transport.is_readable() else min(late, _DOUBT))
        return now < self._doubted_until

    def _ping(self, now: float) -> None:
        self._next_ping = now + self._interval
        if self._transport.life >= self._asked_at:
            # The oldest ping without an answer: a peer has its time from when it went out, be that late.
            self._asked_at = now
        self._transport.ping()
        if self._watch is not None:
            self._watch.pinged(self._transport.traffic())
