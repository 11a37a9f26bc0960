"""Dials that cannot succeed: how each ended, when, and at which stage."""

import time
from dataclasses import dataclass
from typing import Any

import pytest

import connman
from connman.errors import ConnectError
from tests.hostile.fleet import SLACK
from tests.promises.peers import PATIENCE, connection
from tests.waiting import Stalls

OPEN_TIMEOUT = 0.4


@dataclass(frozen=True)
class Failed:
    error: ConnectError
    seconds: float
    stalled: float  # of them, by the machine

    @property
    def stage(self) -> str:
        return self.error.attempts[-1].phase

    def assert_at_deadline(
        self, stage: str, kind: type[ConnectError] = connman.errors.ConnectTimeout
    ) -> None:
        """Fail unless it ended at its deadline, and says at which stage it was."""
        assert type(self.error) is kind, repr(self.error)
        assert OPEN_TIMEOUT - 0.05 <= self.seconds <= OPEN_TIMEOUT + SLACK + self.stalled
        assert self.stage == stage, str(self.error)
        assert stage in str(self.error)

    def assert_at_once(self, stage: str, cause: str) -> None:
        assert self.seconds <= SLACK + self.stalled
        assert self.stage == stage, str(self.error)
        assert cause in str(self.error)


def failed_dial(url: str, *, is_shared: bool = False, **options: Any) -> Failed:
    """Dial once and return how that failed."""
    conn = connection(is_shared, url, reconnect=False, proxy=None, open_timeout=OPEN_TIMEOUT, **options)
    with Stalls() as stalls, pytest.raises(ConnectError) as caught:
        began = time.monotonic()
        conn.get_connected().result(PATIENCE)
    failed = Failed(caught.value, time.monotonic() - began, stalls.seconds)
    print(f"{url.partition(':')[0]}: {failed.seconds:.2f} s: {failed.error}")
    conn.disconnect()
    return failed
