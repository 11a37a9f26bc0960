"""Which transports can be trusted: those that die young, or break the protocol, are left out for a while."""

from __future__ import annotations

import enum
import math
import os
import threading
from dataclasses import dataclass, replace

from connman.clock import Clock, SystemClock
from connman.errors import ConnectionClosed, ConnectionLost, ConnmanError, InvalidOption, ProtocolError
from connman.transport.base import Transport

# Closes that say the transport itself does not work: what arrives is not the protocol (RFC 6455 7.4.1).
_BROKEN = (1002, 1003)
# Not a code that was sent: the end came without a close (RFC 6455 7.4.1).
_NO_CLOSE = 1006


class Health(enum.StrEnum):
    """Name what a manager thinks of its transport; each member equals its name in lower case.

    ALIVE: it has lives left. DEAD: it has none, and the cool-down is not over. HALF_OPEN: the cool-down is over, and
    the next one that opens is the trial. TRIAL: that one is open and has proved nothing yet; others are not dialled.
    """

    ALIVE = "alive"
    DEAD = "dead"
    HALF_OPEN = "half_open"
    TRIAL = "trial"


@dataclass(frozen=True, slots=True)
class _Score:
    """What is held against a transport: deaths, when the newest was, and the pings that the deaths have asked for."""

    deaths: int = 0
    dead_at: float = -math.inf
    ping_delay: float | None = None


@dataclass(slots=True, eq=False)
class _Watched:
    """One open transport, told from others by what it is."""

    opened_at: float


class _State:
    """What a manager knows, with the lock that guards it."""

    __slots__ = ("before", "lock", "score", "trial")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        # Guarded by lock: all of these. before: the score when a tree last opened something, if there were deaths since.
        self.score = _Score()
        self.before: _Score | None = None
        self.trial: _Watched | None = None


class TransportManager:
    """Count the lives of a transport, and how often it wants to be pinged; shared by the leaves that it watches.

    ``lives``: deaths after which the transport counts as unsupported; None or 0 for no limit. A death is a close with code
    1002 or 1003, or with a broken protocol, whatever the age; else an end without a close at an age below twice the
    ping interval, since some proxies cut connections that idle: the next ones are then pinged at half that age, though
    no sooner than ``min_ping_delay`` seconds. ``max_ping_delay``: what counts as the ping interval, in seconds; the
    default is the connections' own default.

    Lives come back: all of them when ``cool_down`` seconds have passed since the last death. A transport that had none
    left gets one trial then; it is alive again when that one closes in order or grows old, and dead for another
    ``cool_down`` when it dies. What died since a tree has last opened something is given back when that tree then
    opens nothing at all: it was not the transport.

    In a forked child it knows nothing yet.

    Raises: InvalidOption.
    Threads: every method from any thread; never blocks.
    """

    def __init__(
        self,
        lives: int | None = None,
        *,
        min_ping_delay: float = 10.0,
        max_ping_delay: float = 20.0,
        cool_down: float = 300.0,
        clock: Clock | None = None,
    ) -> None:
        if lives is not None and (type(lives) is not int or lives < 0):
            raise InvalidOption("lives is a number; None or 0 for no limit")
        for name, seconds in (("min_ping_delay", min_ping_delay), ("max_ping_delay", max_ping_delay)):
            if not 0 < seconds < math.inf:
                raise InvalidOption(f"{name} is more than 0 seconds")
        if not 0 <= cool_down < math.inf:
            raise InvalidOption("cool_down is 0 or more seconds")
        self._lives = float(lives) if lives else math.inf
        self._min_ping_delay = min_ping_delay
        self._long_life = 2 * max_ping_delay
        self._cool_down = cool_down
        self._clock = clock or SystemClock()
        # By process: in a child the lock may be held by a thread that does not exist there.
        self._states: dict[int, _State] = {}

    @property
    def health(self) -> Health:
        """What is thought of the transport now."""
        state = self._state()
        with state.lock:
            return self._health_locked(state)

    @property
    def is_alive(self) -> bool:
        """Whether the transport may be dialled now."""
        return self.health in (Health.ALIVE, Health.HALF_OPEN)

    @property
    def lives_left(self) -> float:
        """How many more deaths make it a dead one; ``math.inf`` without a limit."""
        state = self._state()
        with state.lock:
            self._health_locked(state)
            return max(0, self._lives - state.score.deaths)

    @property
    def ping_delay(self) -> float | None:
        """Seconds between pings that the next transports get; None while none was cut."""
        return self._state().score.ping_delay

    def watch(self, transport: Transport) -> None:
        """Look after a transport that has just opened: set its ping pace, and hear of its end.

        Threads: any.
        """
        watched = _Watched(self._clock.now())
        state = self._state()
        with state.lock:
            if self._health_locked(state) is Health.HALF_OPEN:
                state.trial = watched
            transport.ping_pace = state.score.ping_delay
        transport.on_end = lambda ended: self._ended(watched, ended.error)

    def opened(self) -> None:
        """Note that a tree with this transport has opened one, whichever: who died before has died for itself.

        Threads: any.
        """
        state = self._state()
        with state.lock:
            state.before = None

    def nothing_opened(self) -> None:
        """Note that a tree with this transport has opened nothing at all: who died since it last did is forgiven.

        Threads: any.
        """
        state = self._state()
        with state.lock:
            state.score, state.before = state.before or state.score, None

    def _state(self) -> _State:
        return self._states.get(os.getpid()) or self._states.setdefault(os.getpid(), _State())

    def _health_locked(self, state: _State) -> Health:
        """Return what is thought of it, once what time has healed is forgotten."""
        now = self._clock.now()
        is_over = now - state.score.dead_at >= self._cool_down
        if state.score.deaths < self._lives:
            if is_over and state.score.deaths:
                self._revive_locked(state)
            return Health.ALIVE
        if state.trial is None:
            return Health.HALF_OPEN if is_over else Health.DEAD
        if now - state.trial.opened_at < self._long_life:
            return Health.TRIAL
        self._revive_locked(state)
        return Health.ALIVE

    @staticmethod
    def _revive_locked(state: _State) -> None:
        # The pings stay as they are: they may be what keeps it alive.
        state.score = replace(state.score, deaths=0)
        state.before = state.trial = None

    def _ended(self, watched: _Watched, error: ConnmanError | None) -> None:
        now = self._clock.now()
        age = now - watched.opened_at
        is_broken = _is_broken(error)
        state = self._state()
        with state.lock:
            self._health_locked(state)
            is_trial = state.trial is watched
            if is_trial:
                state.trial = None
            if is_broken or (_is_cut(error) and age < self._long_life):
                score = state.score
                state.before = state.before or score
                # Who breaks the protocol was not cut for idling.
                ping_delay = score.ping_delay if is_broken else max(age / 2, self._min_ping_delay)
                state.score = _Score(score.deaths + 1, now, ping_delay)
            elif is_trial and isinstance(error, ConnectionClosed):
                self._revive_locked(state)


def _is_broken(error: ConnmanError | None) -> bool:
    """Return whether what came over the transport was not its protocol, or the peer says so of what we sent."""
    return isinstance(error, ConnectionClosed | ProtocolError) and error.code in _BROKEN


def _is_cut(error: ConnmanError | None) -> bool:
    """Return whether it was cut: nobody closed it, neither we nor the peer."""
    if isinstance(error, ConnectionClosed):
        return error.code == _NO_CLOSE
    # A message that is too big says nothing of the transport; a NotConnected is of our own making.
    return isinstance(error, ConnectionLost) or (isinstance(error, ProtocolError) and error.code == 1007)
