"""What `module:services` may name, and what is said of what cannot be served."""

import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from connman.cli.commands import UsageError
from connman.cli.services import load_services
from connman.rpc import Services

MODULE = """
import os
from os.path import join

def add(a, b):
    return a + b

def _hidden():
    return 1

class Thermometer:
    unit = "C"
    def read(self):
        return 21.5
    def _calibrate(self):
        return None
    @property
    def broken(self):
        raise OSError
    @staticmethod
    def units():
        return ["C", "F"]

class Shelf:
    thermometer = Thermometer()

thermometer = Thermometer()
shelf = Shelf()
services = {1: add, "plus": add}
broken = {1: add, "two": 2}
nothing = {}
strange = {0: add}
from connman.rpc import Services
ready = Services({"ready": add})
"""

# Whatever a module of these offers.
NAMES = (1, "plus", "add", "join", "_hidden", "read", "units", "ready", "broken", "unit", "Thermometer")


def ids(services: Services) -> list[int | str]:
    return [name for name in NAMES if services.get(name) is not None]


def called(services: Services, name: int | str, *args: object) -> object:
    function = services.get(name)
    assert function is not None
    return function(*args)


_numbers = itertools.count()


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], str]]:
    """Write a module into the working folder, and return its name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    names: list[str] = []

    def write(text: str) -> str:
        names.append(f"served_{next(_numbers)}")
        (tmp_path / f"{names[-1]}.py").write_text(text)
        return names[-1]

    yield write
    for name in names:
        sys.modules.pop(name, None)


Write = Callable[[str], str]


def test_a_mapping_is_taken_as_it_is(write: Write) -> None:
    services = load_services(f"{write(MODULE)}:services")
    assert ids(services) == [1, "plus"]
    assert called(services, 1, 2, 3) == 5


def test_services_are_taken_as_they_are(write: Write) -> None:
    assert ids(load_services(f"{write(MODULE)}:ready")) == ["ready"]


def test_a_module_offers_its_own_public_functions(write: Write) -> None:
    assert ids(load_services(write(MODULE))) == ["add"]


def test_a_module_with_a_list_offers_what_is_in_it(write: Write) -> None:
    name = write(MODULE + "__all__ = ['join', 'unit', 'services', '_hidden']\n")
    assert ids(load_services(name)) == ["join", "_hidden"]


@pytest.mark.parametrize("path", ["thermometer", "shelf.thermometer"])
def test_an_object_offers_its_public_methods(write: Write, path: str) -> None:
    services = load_services(f"{write(MODULE)}:{path}")
    assert ids(services) == ["read", "units"]
    assert called(services, "read") == 21.5


def test_a_function_goes_by_its_name(write: Write) -> None:
    assert ids(load_services(f"{write(MODULE)}:add")) == ["add"]


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (":missing", "there is no missing in the module"),
        (":thermometer.missing", "there is no missing in Thermometer"),
        (":Thermometer", "name an instance"),
        (":broken", "a service is a callable, not int"),
        (":strange", "service"),
        (":nothing", "has no public functions"),
    ],
)
def test_what_cannot_be_served_is_told(write: Write, path: str, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        load_services(write(MODULE) + path)


@pytest.mark.parametrize("place", ["", "a b", "a/b.py", "a:", ":b", "a:b:c", "../a", "a..b", "1a"])
def test_what_is_no_name_is_told(place: str) -> None:
    with pytest.raises(UsageError, match="module or module:name"):
        load_services(place)


def test_a_missing_module_is_told() -> None:
    with pytest.raises(UsageError, match="there is no module surely_missing"):
        load_services("surely_missing.inner:services")


def test_a_module_that_needs_a_missing_one_is_told(write: Write) -> None:
    name = write("import surely_missing\n")
    with pytest.raises(UsageError, match=f"{name} imports surely_missing"):
        load_services(name)


@pytest.mark.parametrize("text", ["1 / 0", "def ("])
def test_a_module_that_fails_is_told(write: Write, text: str) -> None:
    name = write(text)
    with pytest.raises(UsageError, match=f"importing {name} raised"):
        load_services(name)
