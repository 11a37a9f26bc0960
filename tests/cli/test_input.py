import contextlib
import fcntl
import os
import queue
import termios
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from connman.cli.input import InputNews, InputThread, Source, source_kind
from connman.cli.lines import ChunkSplitter, LineSplitter
from connman.cli.render import Note
from connman.errors import ConnectionLost, NotConnected
from connman.records import Message
from tests.loopback import PATIENCE
from tests.waiting import eventually


class Desk:
    """An input thread on pipes, with a connection that is only pretended."""

    def __init__(self, *, is_binary: bool = False, fd: int | None = None) -> None:
        self.sent: list[Message] = []
        self.news: queue.Queue[InputNews | Note] = queue.Queue()
        self.on_send: Callable[[Message], object] = lambda _: None
        self._read_end, self._write_end = os.pipe()
        self._output_read, self._output_write = os.pipe()
        self.thread = InputThread(
            Source(
                fd=self._read_end if fd is None else fd,
                output=self._output_write,
                splitter=ChunkSplitter() if is_binary else LineSplitter(),
                is_binary=is_binary,
                send=self._send,
                tell=self.news.put,
            )
        )

    def _send(self, message: Message) -> None:
        self.on_send(message)
        self.sent.append(message)

    def __enter__(self) -> "Desk":
        self.thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.end()
        self.end_input()
        self.leave_output()
        for end in (self._read_end, self._output_write):
            os.close(end)

    def end(self) -> None:
        if self.thread is not None:
            self.thread.stop()
            self.thread.finish(PATIENCE)
            self.ended, self.thread = self.thread, None  # type: ignore[assignment]

    def type(self, data: bytes) -> None:
        os.write(self._write_end, data)

    def end_input(self) -> None:
        with contextlib.suppress(OSError):
            os.close(self._write_end)

    def leave_output(self) -> None:
        with contextlib.suppress(OSError):
            os.close(self._output_read)

    @property
    def unread(self) -> bytes:
        """How many bytes the thread has not read yet, zero bytes stripped: empty for none."""
        return fcntl.ioctl(self._read_end, termios.FIONREAD, bytes(4)).strip(b"\0")

    def next_news(self) -> InputNews | Note:
        return self.news.get(timeout=PATIENCE)


@pytest.fixture
def desk() -> Iterator[Desk]:
    with Desk() as desk:
        yield desk


def test_lines_wait_until_it_is_open_and_go_in_order(desk: Desk) -> None:
    desk.type(b"a\nb\nc")
    desk.end_input()
    assert desk.sent == []
    desk.thread.opened(1)
    assert desk.next_news() is InputNews.ENDED
    assert desk.sent == ["a", "b", "c"]
    desk.end()
    assert (desk.ended.sent, desk.ended.unsent) == (3, 0)


def test_bytes_stay_bytes() -> None:
    with Desk(is_binary=True) as desk:
        desk.thread.opened(1)
        desk.type(b"\xff\n")
        eventually(lambda: desk.sent == [b"\xff\n"])


def test_what_met_a_closed_connection_is_sent_on_the_next_one(desk: Desk) -> None:
    refused = threading.Event()

    def refuse_once(_: Message) -> None:
        if not refused.is_set():
            refused.set()
            raise NotConnected("gone")

    desk.on_send = refuse_once
    desk.thread.opened(1)
    desk.type(b"a\n")
    assert refused.wait(PATIENCE)
    assert desk.sent == []
    desk.thread.opened(2)
    eventually(lambda: desk.sent == ["a"])


def test_what_was_lost_half_way_is_told_and_not_sent_twice(desk: Desk) -> None:
    def lose(_: Message) -> None:
        desk.on_send = lambda _: None
        raise ConnectionLost("reset")

    desk.on_send = lose
    desk.thread.opened(1)
    desk.type(b"a\nb\n")
    assert desk.next_news() == Note("warning", "line 1 was not sent: perhaps it was, reset")
    desk.thread.opened(2)
    eventually(lambda: desk.sent == ["b"])
    desk.end()
    assert (desk.ended.sent, desk.ended.unsent) == (1, 1)


def test_a_line_that_is_no_text_is_told_and_left_out(desk: Desk) -> None:
    desk.thread.opened(1)
    desk.type(b"a\n\xff\nb\n")
    assert desk.next_news() == Note("warning", "line 2 was not sent: it is not UTF-8")
    eventually(lambda: desk.sent == ["a", "b"])


def test_stopping_counts_what_still_waited(desk: Desk) -> None:
    desk.type(b"a\nb\n")
    desk.end_input()
    eventually(lambda: not desk.unread)
    desk.end()
    assert (desk.ended.sent, desk.ended.unsent) == (0, 2)


def test_it_notices_that_nobody_reads_the_output_also_after_the_end_of_input(desk: Desk) -> None:
    desk.end_input()
    assert desk.next_news() is InputNews.ENDED
    desk.leave_output()
    assert desk.next_news() is InputNews.OUTPUT_GONE


def test_an_input_that_cannot_be_read_has_ended() -> None:
    with open(os.devnull, "wb") as writable, Desk(fd=writable.fileno()) as desk:
        assert desk.next_news() is InputNews.ENDED


def test_kinds_of_input(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    main, terminal = os.openpty()
    pipe = os.pipe()
    try:
        assert source_kind(terminal) == "terminal"
        assert source_kind(pipe[0]) == "finite"
    finally:
        for descriptor in (main, terminal, *pipe):
            os.close(descriptor)
    for path, mode, kind in (
        (tmp_path / "file", "rb", "finite"),
        (Path(os.devnull), "rb", "none"),
        (Path(os.devnull), "wb", "none"),
    ):
        with open(path, mode) as file:
            assert source_kind(file.fileno()) == kind
