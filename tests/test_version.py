"""The version is in one place."""

import configparser
import re
from pathlib import Path

import connman
from connman.version import __version__


def test_the_version_is_one_number() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", __version__)
    assert connman.__version__ == __version__


def test_the_package_takes_its_version_from_there() -> None:
    settings = configparser.ConfigParser()
    settings.read(Path(__file__).parent.parent / "setup.cfg")
    assert settings["metadata"]["version"] == "attr: connman.version.__version__"
