"""What a connection has done, summed over its generations."""

from __future__ import annotations

from dataclasses import dataclass

from connman.records import Stats
from connman.transport.base import Transport


@dataclass(slots=True)
class Counters:
    """What has been counted in earlier generations; guarded by the life's lock."""

    opens: int = 0
    losses: int = 0
    failed_attempts: int = 0
    messages_out: int = 0
    messages_lent: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    ping_rtt: float | None = None

    def add(self, transport: Transport) -> None:
        """Add what ``transport`` has counted."""
        self.messages_out += transport.messages_out
        self.messages_lent += transport.lent
        self.bytes_in += transport.bytes_in
        self.bytes_out += transport.bytes_out
        if transport.ping_rtt is not None:
            self.ping_rtt = transport.ping_rtt

    def snapshot(
        self, messages_in: int, callback_errors: int, error: Exception | None, uptime: float
    ) -> Stats:
        """Return the numbers together with those that others keep."""
        return Stats(
            messages_in=messages_in + self.messages_lent,
            messages_out=self.messages_out,
            bytes_in=self.bytes_in,
            bytes_out=self.bytes_out,
            opens=self.opens,
            losses=self.losses,
            failed_attempts=self.failed_attempts,
            callback_errors=callback_errors,
            last_error=None if error is None else str(error),
            ping_rtt=self.ping_rtt,
            uptime=uptime,
        )
