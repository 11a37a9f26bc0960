import contextlib
import fcntl
import os
import subprocess
import sys
import termios
from collections.abc import Iterator

import pytest

from connman.cli.output import OutputFailed, Writer
from tests.loopback import PATIENCE, in_thread


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        with contextlib.suppress(OSError):
            os.close(end)


def waiting_bytes(read_end: int) -> int:
    return int.from_bytes(fcntl.ioctl(read_end, termios.FIONREAD, bytes(4)), sys.byteorder)


def test_it_writes_in_one_go_when_told(pipe: tuple[int, int]) -> None:
    writer = Writer(pipe[1])
    writer.write(b"a")
    writer.write(b"b")
    assert waiting_bytes(pipe[0]) == 0
    writer.flush()
    assert os.read(pipe[0], 99) == b"ab"


def test_plenty_is_written_without_being_told() -> None:
    with open(os.memfd_create("out"), "w+b") as file:
        writer = Writer(file.fileno())
        writer.write(b"x" * 70000)
        assert file.seek(0, os.SEEK_END) == 70000


def test_what_was_discarded_is_not_written(pipe: tuple[int, int]) -> None:
    writer = Writer(pipe[1])
    writer.write(b"a")
    writer.discard()
    writer.flush()
    assert waiting_bytes(pipe[0]) == 0


def test_a_reader_that_has_gone_is_told_from_other_failures(pipe: tuple[int, int]) -> None:
    os.close(pipe[0])
    writer = Writer(pipe[1])
    writer.write(b"a")
    with pytest.raises(OutputFailed) as failed:
        writer.flush()
    assert failed.value.is_gone
    writer.flush()  # nothing was kept, so the next one does not fail again


def test_a_full_disk_is_a_failure_with_a_cause() -> None:
    with open("/dev/full", "wb", buffering=0) as full:
        writer = Writer(full.fileno())
        writer.write(b"a")
        with pytest.raises(OutputFailed, match="No space left") as failed:
            writer.flush()
    assert not failed.value.is_gone


def test_a_pipe_that_somebody_made_non_blocking_is_waited_for(pipe: tuple[int, int]) -> None:
    os.set_blocking(pipe[1], False)
    data = bytes(range(256)) * 2048
    writer = Writer(pipe[1])
    writing = in_thread(writer.write, data)
    read = b""
    while len(read) < len(data):
        read += os.read(pipe[0], 65536)
    writing.result(PATIENCE)
    assert read == data


FILL = """
import os
from connman.cli.output import fill_standard_descriptors
fill_standard_descriptors()
free = os.open(os.devnull, os.O_RDONLY)
os._exit(free)
"""


def test_no_socket_can_take_the_number_of_a_closed_stream() -> None:
    shell = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", sys.executable, "-c", FILL]
    assert subprocess.run(shell, timeout=PATIENCE, check=False).returncode == 3
