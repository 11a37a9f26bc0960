"""When to try again: tenacity decides, this file is the only one that knows it."""

from __future__ import annotations

import logging
import math
import random
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import Any, cast

import tenacity
from tenacity import RetryCallState

from connman.clock import Clock
from connman.errors import ConnectError, ConnmanError, GaveUp, Retry, UpgradeRefused, retry_verdict
from connman.options import Options
from connman.threads import is_kill

logger = logging.getLogger("connman.backoff")

FIRST_DELAY = 0.1
LONGEST_DELAY = 128.0
# What a server asks for is stretched by up to a tenth: those whom it has refused together must not come back together.
SPREAD = 0.1
# Whatever a user's wait says, no peer is asked more often than this: nothing is retried without a limit on its rate.
SHORTEST_DELAY = 0.01


# From the system: a generator's state would be the same in every worker that was forked from one master. One for all:
# each carries the 2.5 KiB of a generator's state that it never uses.
_random = random.SystemRandom()


_doubling = tenacity.wait_exponential(multiplier=FIRST_DELAY, max=LONGEST_DELAY)


class Backoff:
    """The delays of one connection: a value that is fed with errors and answers with delays; it never waits itself.

    It drives tenacity by its iteration protocol instead of letting it call and sleep: the wait between attempts is
    then ours, to be cut by ``disconnect`` and ``reconnect_now`` and to be shared by many connections on one thread.
    tenacity's idea of time is replaced by our clock, so ``stop_after_delay`` and the like follow a fake one.
    ``chance``: what the random part comes from, for simulations that can be repeated.

    Threads: one at a time, the connection's reader.
    """

    __slots__ = ("_began", "_chance", "_clock", "_name", "_options", "_refusals", "_state")

    def __init__(
        self, options: Options, clock: Clock, name: str = "", *, chance: random.Random = _random
    ) -> None:
        self._options = options
        self._name = name
        self._clock = clock
        self._chance = chance
        self._refusals = 0
        self._began = clock.now()
        # tenacity's part, made at the first failure: most connections never meet it, and it takes 1.5 KiB.
        self._state: RetryCallState | None = None

    @property
    def attempt(self) -> int:
        """How many failures in a row have been told, plus one: the number of the try that is under way."""
        return 1 if self._state is None else self._state.attempt_number

    def reset(self) -> None:
        """Start the series anew: a connection was stable, or a new series of attempts begins."""
        self._refusals = 0
        self._began = self._clock.now()
        self._state = None

    def failed(self, error: ConnmanError) -> float | ConnmanError:
        """Return the seconds to wait before the next try, or the error with which retrying ends.

        That error is ``error`` itself when it is fatal, GaveUp (caused by it) when ``stop`` says so.
        """
        state = self._state = self._state or self._fresh_state()
        state.set_exception((type(error), error, error.__traceback__))
        # What stop_after_delay and its kin reckon with, together with the start_time of _fresh_state().
        state.outcome_timestamp = self._clock.now()
        retrying = state.retry_object
        retrying.begin()  # tenacity's statistics are thread-local and want to exist
        try:
            step = retrying.iter(state)
        except tenacity.RetryError:
            endpoint, log = (error.endpoint, error.attempts) if isinstance(error, ConnectError) else ("", ())
            cause = error.message if isinstance(error, ConnectError) else error
            gave_up = GaveUp(endpoint, log, f"gave up after {state.attempt_number} tries: {cause}")
            gave_up.__cause__ = error
            return gave_up
        except ConnmanError as fatal:
            # Raised by tenacity as it is when `retry` says no.
            return fatal
        state.prepare_for_next_attempt()
        return float(cast(tenacity.DoSleep, step))

    def _fresh_state(self) -> RetryCallState:
        retrying = tenacity.Retrying(
            wait=self._delay,
            stop=self._must_stop,
            retry=tenacity.retry_if_exception(self._is_worth_it),
        )
        state = RetryCallState(retrying, None, (), {})
        state.start_time = self._began
        return state

    def _is_worth_it(self, error: BaseException) -> bool:
        verdict = retry_verdict(error)
        if verdict is Retry.ONCE:
            self._refusals += 1
        retry_if = self._options.retry_if
        said = None if retry_if is None else self._asked(lambda: retry_if(error))
        if said is not None:
            return bool(said)
        return verdict is Retry.AGAIN or (verdict is Retry.ONCE and self._refusals == 1)

    def _delay(self, state: RetryCallState) -> float:
        wait = self._options.wait
        delay = None if wait is None else self._asked(lambda: float(wait(state)))
        if delay is None or not math.isfinite(delay):
            delay = self._default_delay(state)
        error = state.outcome.exception() if state.outcome is not None else None
        hint = retry_after(error) if isinstance(error, UpgradeRefused) else None
        # A server may ask for patience, but not put us off for longer than we would wait ourselves.
        asked = min(hint or 0.0, LONGEST_DELAY)
        return max(SHORTEST_DELAY, delay, asked + self._chance.uniform(0, SPREAD * asked))

    def _default_delay(self, state: RetryCallState) -> float:
        # Half fixed and half random, so that a restarted fleet does not come back as one.
        full = _doubling(state)
        return full / 2 + self._chance.uniform(0, full / 2)

    def _must_stop(self, state: RetryCallState) -> bool:
        stop = self._options.stop
        return stop is not None and bool(self._asked(lambda: stop(state)))

    def _asked(self, function: Callable[[], Any]) -> Any:
        """Call a user's function; None when it raised."""
        try:
            return function()
        except BaseException as error:  # user callback: its failure must not end the connection
            if is_kill(error):
                raise
            logger.exception(
                "retry_if=, wait= or stop= raised; the default rule applies", extra={"conn": self._name}
            )
            return None


def retry_after(refused: UpgradeRefused) -> float | None:
    """Return the seconds a server asks for by Retry-After, as a number or a date (RFC 9110 10.2.3); None without one.

    Threads: any.
    """
    value = refused.headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        # Nine digits are thirty years; int() and float() of endless ones would only cost time.
        return float(value[:9])
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError, OverflowError):
        return None
