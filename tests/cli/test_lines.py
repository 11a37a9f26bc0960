import itertools

from hypothesis import given
from hypothesis import strategies as st

from connman.cli.lines import ChunkSplitter, LineSplitter, Splitter


def fed(splitter: Splitter, *chunks: bytes) -> list[bytes | None]:
    return [*itertools.chain.from_iterable(map(splitter.feed, chunks)), *splitter.rest()]


def test_each_line_is_a_piece_without_its_end() -> None:
    assert fed(LineSplitter(), b"a\nb\r\n\nlast") == [b"a", b"b", b"", b"last"]


def test_only_the_end_of_a_line_is_taken_off() -> None:
    assert fed(LineSplitter(), b" a\r\r\n\tb \n") == [b" a\r", b"\tb "]


def test_nothing_is_left_behind_a_line_that_was_ended() -> None:
    assert fed(LineSplitter(), b"a\n") == [b"a"]
    assert fed(LineSplitter()) == []


@given(st.lists(st.binary(max_size=6).map(lambda b: b.replace(b"\0", b"\n"))))
def test_any_split_gives_the_same_lines(chunks: list[bytes]) -> None:
    assert fed(LineSplitter(4), *chunks) == fed(LineSplitter(4), b"".join(chunks))


def test_a_line_that_is_too_long_is_thrown_away_alone() -> None:
    assert fed(LineSplitter(3), b"ab", b"cd", b"ef\nabc\n") == [None, b"abc"]
    assert fed(LineSplitter(3), b"abcd") == [None]


def test_chunks_pass_as_they_are() -> None:
    assert fed(ChunkSplitter(), b"a\nb", b"\xff") == [b"a\nb", b"\xff"]
