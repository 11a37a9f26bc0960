"""A file that changes while it is held."""

import logging
import os
from pathlib import Path

import pytest

from connman.errors import InvalidOption
from connman.relay import watched
from connman.relay.watched import WatchedFile


class Clock:
    """Seconds that a test counts up."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def number(content: bytes) -> int:
    if not content.isdigit():
        raise InvalidOption("not a number")
    return int(content)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "number"
    path.write_bytes(b"1")
    return path


def test_it_is_read_at_once(path: Path) -> None:
    assert WatchedFile(path, number).get() == 1


def test_a_change_is_seen_when_the_interval_has_passed(path: Path) -> None:
    clock = Clock()
    watched_file = WatchedFile(path, number, now=clock)
    path.write_bytes(b"2")
    clock.now = 0.9
    assert watched_file.get() == 1
    clock.now = 1.0
    assert watched_file.get() == 2


def test_a_file_put_in_its_place_is_seen(path: Path) -> None:
    watched_file = WatchedFile(path, number, interval=0.0)
    other = path.with_name("other")
    other.write_bytes(b"7")
    other.replace(path)
    assert watched_file.get() == 7


def test_a_change_with_the_same_size_and_time_is_seen(path: Path) -> None:
    """Two writes within one tick of the file system's clock: stamps alone would hide the second for ever."""
    watched_file = WatchedFile(path, number, interval=0.0)
    status = path.stat()
    path.write_bytes(b"3")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert watched_file.get() == 3


def test_an_old_file_is_not_read_again(path: Path) -> None:
    parsed: list[bytes] = []
    os.utime(path, (1000, 1000))
    watched_file = WatchedFile(path, lambda content: parsed.append(content) or len(parsed), interval=0.0)
    assert [watched_file.get() for _ in range(3)] == [1, 1, 1]


def test_what_cannot_be_parsed_changes_nothing_and_is_told_once(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    watched_file = WatchedFile(path, number, interval=0.0)
    path.write_bytes(b"garbage")
    assert [watched_file.get() for _ in range(3)] == [1, 1, 1]
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert "not a number" in caplog.text
    assert "garbage" not in caplog.text
    path.write_bytes(b"2")
    assert watched_file.get() == 2


def test_a_file_that_is_gone_changes_nothing_and_is_told_once(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    watched_file = WatchedFile(path, number, interval=0.0)
    path.unlink()
    assert [watched_file.get() for _ in range(3)] == [1, 1, 1]
    assert len(caplog.records) == 1
    path.write_bytes(b"2")
    assert watched_file.get() == 2


def test_the_first_time_it_must_be_there_and_right(path: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidOption, match="cannot be read"):
        WatchedFile(tmp_path / "nowhere", number)
    with pytest.raises(InvalidOption, match="cannot be read"):
        WatchedFile(tmp_path, number)
    path.write_bytes(b"x")
    with pytest.raises(InvalidOption, match="number: not a number"):
        WatchedFile(path, number)


def test_a_file_without_end_is_not_read_to_it(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(watched.LARGEST_FILE + 1)
    with pytest.raises(InvalidOption, match="is larger than"):
        WatchedFile(path, number)
