"""The limits of a relay are checked when they are made."""

import math
from typing import Any

import pytest

from connman.errors import InvalidOption
from connman.relay import Limits


def test_the_usual_ones_are_valid_and_fixed() -> None:
    limits = Limits()
    assert limits.max_message_size == 16 * 1024 * 1024
    with pytest.raises(AttributeError):
        limits.burst = 1  # type: ignore[misc]


def test_no_pings() -> None:
    assert Limits(ping_interval=None).ping_interval is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_connections": 0},
        {"max_connections": 1.5},
        {"max_connections": True},
        {"burst": None},
        {"join_timeout": -1},
        {"join_timeout": math.nan},
        {"join_timeout": math.inf},
        {"join_timeout": "5"},
        {"low_water": 300 * 1024},
        {"max_message_size": 100},
        {"max_head": 100},
    ],
)
def test_what_cannot_work_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidOption):
        Limits(**wrong)
