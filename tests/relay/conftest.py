"""A relay for each test."""

from collections.abc import Iterator

import pytest

from connman.relay import Relay
from tests.relay.rig import make


@pytest.fixture
def relay() -> Iterator[Relay]:
    with make() as relay:
        yield relay
