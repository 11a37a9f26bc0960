"""How often one address may try: a bucket of tokens for each, in a table that does not grow."""

from __future__ import annotations

from collections import OrderedDict

from connman.errors import InvalidOption


class Rates:
    """Allow ``per_second`` attempts a second from each address, and ``burst`` of them at once.

    Pure: it is fed with ``now``, in seconds of any clock that does not go back. The table holds ``max_addresses`` at
    most; beyond that the address that has not tried for the longest is forgotten, so that a flood of addresses costs
    no honest one anything. An attempt that is refused costs nothing, but is remembered: whoever hammers stays known.

    Threads: one at a time (the relay's).
    """

    __slots__ = ("_buckets", "_burst", "_max_addresses", "_per_second")

    def __init__(self, per_second: float, burst: int, max_addresses: int = 10_000) -> None:
        # Written so that NaN is refused as well.
        if not (per_second > 0 and burst >= 1 and max_addresses >= 1):
            raise InvalidOption("a rate, its burst and its number of addresses are above 0")
        self._per_second = per_second
        self._burst = float(burst)
        self._max_addresses = max_addresses
        # Address: what is left in its bucket, and when that was reckoned. In the order of the newest attempt.
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def delay(self, address: str, now: float) -> float:
        """Count an attempt of ``address`` and return 0.0; or count none, and return the seconds until one is allowed.

        Threads: one at a time.
        """
        left, then = self._buckets.get(address, (self._burst, now))
        left = min(self._burst, left + max(0.0, now - then) * self._per_second)
        allowed = left >= 1.0
        self._buckets[address] = (left - 1.0 if allowed else left, now)
        self._buckets.move_to_end(address)
        self._forget(now)
        return 0.0 if allowed else (1.0 - left) / self._per_second

    def _forget(self, now: float) -> None:
        # A bucket that is full by now is as good as none. Two for each that may come in: the table shrinks when it can.
        # The newest is neither full nor too many, so there is always a first.
        for _ in range(2):
            address, (left, then) = next(iter(self._buckets.items()))
            full = left + (now - then) * self._per_second >= self._burst
            if not (full or len(self._buckets) > self._max_addresses):
                return
            del self._buckets[address]
