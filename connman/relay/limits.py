"""The limits of a relay: one frozen value, checked when it is made."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

from connman.errors import InvalidOption

_MAY_BE_NONE = ("ping_interval",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one relay puts up with; durations in seconds, sizes in bytes.

    ``max_connections``: sockets in all, in whatever phase. ``max_per_address``: of them from one address (IPv6: one
    /64). ``max_per_name``: spares that wait under one name. ``max_pairs_per_name``: callers that are joined under
    one name. ``max_names``: names that have a spare.
    ``handshake_timeout``: from the accept to the end of the upgrade, TLS included. ``join_timeout``: from there to the
    first message, and for a caller until it is joined. ``ready_timeout``: from the handover to the provider's "ready".
    ``attempts_per_second`` and ``burst``: upgrades of one address. ``ping_interval``: None for no pings;
    a side that shows no life for ``ping_timeout`` behind a ping is lost. ``close_timeout``: how long a side may take to
    answer a close. ``high_water``: a side that has so much to be sent to it stops the reading of the other, until it is
    down to ``low_water``. ``max_head``: bytes of the upgrade's head.
    """

    max_message_size: int = 16 * 1024 * 1024
    max_connections: int = 10_000
    max_per_address: int = 4096
    max_per_name: int = 64
    max_pairs_per_name: int = 1024
    max_names: int = 100_000
    handshake_timeout: float = 5.0
    join_timeout: float = 10.0
    ready_timeout: float = 2.0
    close_timeout: float = 2.0
    attempts_per_second: float = 50.0
    burst: int = 1000
    ping_interval: float | None = 20.0
    ping_timeout: float = 20.0
    high_water: int = 256 * 1024
    low_water: int = 64 * 1024
    max_head: int = 16 * 1024

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is None and field.name in _MAY_BE_NONE:
                continue
            whole = isinstance(field.default, int)
            if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
                raise InvalidOption(f"{field.name} must be a {'whole ' if whole else ''}number")
            # Written so that NaN is refused as well.
            if not (value > 0 and math.isfinite(value)):
                raise InvalidOption(f"{field.name} must be above 0")
        if self.low_water >= self.high_water:
            raise InvalidOption("low_water must be below high_water")
        if self.max_message_size < 125:
            raise InvalidOption("max_message_size must be at least 125")
        if self.max_head < 1024:
            raise InvalidOption("max_head must be at least 1024")
