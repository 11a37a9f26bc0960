"""The names of the package, each imported when it is used."""

import subprocess
import sys

import pytest

from connman import relay


def test_every_name_is_there() -> None:
    for name in relay.__all__:
        assert getattr(relay, name)


def test_an_unknown_name() -> None:
    with pytest.raises(AttributeError, match="nothing"):
        relay.nothing  # noqa: B018


def test_limits_need_no_loop() -> None:
    program = "import sys; from connman.relay import Limits; Limits(); print('asyncio' in sys.modules, 'redis' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert out == "False False\n"
