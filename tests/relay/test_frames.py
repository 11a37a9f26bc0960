"""A client's frames, cut anywhere, and what of them goes on."""

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connman.relay import frames as module
from connman.relay.frames import PIECE, Frames, head, unmasked
from tests.relay.rig import BINARY, CLOSE, PING, PONG, TEXT, close_frame, frame, mask

LIMIT = 1 << 20
SIZES = [0, 1, 3, 4, 125, 126, 127, 65535, 65536, 65537, 131072, 200_003]


def passing(limit: int = LIMIT) -> Frames:
    frames = Frames()
    frames.pass_on(limit)
    return frames


def server_frame(opcode: int, payload: bytes, fin: bool = True) -> bytes:
    return head((0x80 if fin else 0) | opcode, len(payload)) + payload


def read(data: bytes) -> list[tuple[int, bool, bytes]]:
    """Take a server's frames apart."""
    found = []
    while data:
        first, size, start = data[0], data[1], 2
        if size > 125:
            start = 4 if size == 126 else 10
            size = int.from_bytes(data[2:start])
        found.append((first & 15, bool(first & 128), data[start : start + size]))
        assert len(found[-1][2]) == size
        data = data[start + size :]
    return found


@pytest.mark.parametrize("size", SIZES)
def test_a_message_goes_on_as_it_is(size: int) -> None:
    payload = os.urandom(size)
    out = b"".join(passing().feed(frame(BINARY, payload)))
    if size < PIECE:
        assert out == server_frame(BINARY, payload)
    else:
        found = read(out)
        assert b"".join(part for _, _, part in found) == payload
        assert [opcode for opcode, _, _ in found] == [BINARY] + [0] * (len(found) - 1)
        assert [fin for _, fin, _ in found] == [False] * (len(found) - 1) + [True]
        assert max(len(part) for _, _, part in found) == PIECE


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(
    sizes=st.lists(st.sampled_from([0, 1, 5, 125, 126, 300, 65535, 65536, 70_000]), min_size=1, max_size=6),
    parts=st.lists(st.integers(1, 3), min_size=6, max_size=6),
    cuts=st.lists(st.integers(1, 40_000), min_size=1, max_size=12),
)
def test_any_cut_of_the_bytes_gives_the_same(sizes: list[int], parts: list[int], cuts: list[int]) -> None:
    wire, wanted = b"", []
    for number, size in enumerate(sizes):
        payload = os.urandom(size)
        count = parts[number]
        step = size // count + 1
        pieces = [payload[i * step : (i + 1) * step] for i in range(count)]
        for i, piece in enumerate(pieces):
            wire += frame(TEXT if i == 0 else 0, piece, fin=i == count - 1)
            wire += frame(PING, b"between") + frame(PONG)
        wanted.append(payload)
    frames, out, pos, turn = passing(), b"", 0, 0
    while pos < len(wire):
        cut = cuts[turn % len(cuts)]
        out += b"".join(frames.feed(wire[pos : pos + cut]))
        pos, turn = pos + cut, turn + 1
    assert (frames.error, frames.ping, frames.rest) == (None, b"between", b"")
    messages: list[bytes] = []
    is_done = True
    for opcode, fin, part in read(out):
        assert is_done is (opcode == TEXT)
        if is_done:
            messages.append(b"")
        messages[-1] += part
        is_done = fin
    assert messages == wanted


def test_no_more_than_a_piece_is_kept() -> None:
    frames = passing(16 << 20)
    wire = frame(BINARY, bytes(8 << 20))
    most = 0
    for pos in range(0, len(wire), 50_000):
        frames.feed(wire[pos : pos + 50_000])
        most = max(most, len(frames.rest))
    assert most < PIECE
    assert frames.error is None


@pytest.mark.parametrize(
    ("wire", "code"),
    [
        (frame(TEXT, b"x", first=0xC1), 1002),  # reserved bits
        (frame(TEXT, b"x", first=0xA1), 1002),
        (frame(TEXT, b"x", first=0x91), 1002),
        (frame(3, b"x"), 1002),
        (frame(7, b"x"), 1002),
        (frame(0, b"x"), 1002),  # a continuation of nothing
        (frame(0xB, b"x"), 1002),
        (frame(0xF, b"x"), 1002),
        (frame(TEXT, b"x", fin=False) + frame(TEXT, b"y"), 1002),
        (frame(PING, b"x", fin=False), 1002),
        (frame(PING, b"x" * 126), 1002),
        (frame(CLOSE, b"x" * 126), 1002),
        (b"\x81\x05hello", 1002),  # not masked
        (b"\x82\xfe\x00\x05" + bytes(9), 1002),  # lengths longer than they need be
        (b"\x82\xff" + (100).to_bytes(8) + bytes(104), 1002),
        (b"\x82\xff" + (1 << 63).to_bytes(8) + bytes(4), 1002),
        (frame(CLOSE, b"x"), 1002),
        (close_frame(999), 1002),
        (close_frame(1005), 1002),
        (close_frame(1006), 1002),
        (close_frame(1016), 1002),
        (close_frame(2999), 1002),
        (close_frame(5000), 1002),
        (close_frame(1000, b"\xff"), 1007),
        (b"\x82\xff" + (LIMIT + 1).to_bytes(8) + bytes(4), 1009),
        (b"\x82\xff" + ((1 << 63) - 1).to_bytes(8) + bytes(4), 1009),
        (frame(BINARY, bytes(700_000), fin=False) + frame(0, bytes(700_000)), 1009),
    ],
)
def test_a_violation_is_told_and_ends_it(wire: bytes, code: int) -> None:
    frames = passing()
    good = frame(TEXT, b"before")
    out = b"".join(frames.feed(good + wire + frame(TEXT, b"behind")))
    assert frames.error is not None
    assert frames.error[0] == code
    assert out.startswith(server_frame(TEXT, b"before"))
    assert b"behind" not in out
    assert frames.rest == b""


def test_a_size_is_judged_by_the_head_alone() -> None:
    frames = passing(1000)
    frames.feed(frame(BINARY, bytes(1001))[:8])
    assert frames.error is not None
    assert frames.error[0] == 1009
    exact = passing(1000)
    assert exact.feed(frame(BINARY, bytes(1000)))
    assert exact.error is None


def test_endless_empty_fragments_are_too_big() -> None:
    frames = passing(10_000)
    frames.feed(frame(TEXT, b"", fin=False) + b"".join(frame(0, b"", fin=False) for _ in range(1000)))
    assert frames.error == (1009, "the message is too big")


def test_a_goodbye_is_heard() -> None:
    frames = passing()
    frames.feed(close_frame(4005, "bye ☃".encode()) + frame(TEXT, b"behind"))
    assert frames.closed == (4005, "bye ☃")
    frames = passing()
    assert b"".join(frames.feed(frame(TEXT, b"last") + close_frame())) == server_frame(TEXT, b"last")
    assert frames.closed == (1005, "")


def test_messages_are_taken_one_by_one() -> None:
    frames = Frames()
    frames.rest = (
        frame(TEXT, b"on", fin=False)
        + frame(PING, b"p")
        + frame(0, b"e")
        + frame(BINARY, b"two")
        + frame(TEXT)[:3]
    )
    assert frames.take() == (TEXT, b"one")
    assert frames.ping == b"p"
    assert frames.take() == (BINARY, b"two")
    assert frames.take() is None
    assert len(frames.rest) == 3


def test_a_first_message_is_short() -> None:
    frames = Frames()
    frames.rest = frame(TEXT, bytes(16385))[:20]
    assert frames.take() is None
    assert frames.error == (1009, "the message is too big")
    frames = Frames()
    frames.rest = frame(TEXT, b"", fin=False) * 2000
    assert frames.take() is None
    assert frames.error is not None


def test_what_is_held_stays_and_control_frames_are_seen() -> None:
    frames = Frames()
    frames.rest = frame(PING, b"p") + frame(TEXT, b"held") + frame(PING, b"q")
    assert frames.take(hold=True) is None
    assert frames.ping == b"p"
    frames.pass_on(LIMIT)
    assert b"".join(frames.feed(b"")) == server_frame(TEXT, b"held")
    assert frames.ping == b"q"


@pytest.mark.parametrize("size", [10, 200_000])
def test_the_rest_of_a_message_is_skipped(size: int) -> None:
    frames = passing()
    whole = frame(TEXT, b"x" * size, fin=False)
    frames.feed(whole[:-5])
    frames.skip()
    out = frames.feed(whole[-5:] + frame(0, b"y") + frame(TEXT, b"next"))
    if size == 10:  # nothing of it had been seen yet: it is a message of its own still
        assert read(b"".join(out))[-1] == (TEXT, True, b"next")
    else:
        assert b"".join(out) == server_frame(TEXT, b"next")


@given(st.binary(max_size=400), st.binary(min_size=4, max_size=4))
def test_unmasking_is_the_same_with_and_without_c(payload: bytes, key: bytes) -> None:
    assert bytes(unmasked(payload, key)) == mask(payload, key) == bytes(module.unmask(payload, key))


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_whatever_comes_is_judged_the_same_however_it_is_cut(data: st.DataObject) -> None:
    opcodes = st.sampled_from([0, TEXT, BINARY, PING, PONG, CLOSE, 3, 11])
    wire = b"".join(
        frame(data.draw(opcodes), data.draw(st.binary(max_size=200)), fin=data.draw(st.booleans()))
        for _ in range(data.draw(st.integers(1, 6)))
    )
    for _ in range(data.draw(st.integers(0, 3))):
        place = data.draw(st.integers(0, len(wire) - 1))
        wire = wire[:place] + data.draw(st.binary(max_size=3)) + wire[place + 1 :]
    whole, cut = passing(500), passing(500)
    out = b"".join(whole.feed(wire))
    step = data.draw(st.integers(1, 50))
    parts = b"".join(
        b"".join(cut.feed(wire[pos : pos + step])) for pos in range(0, len(wire), step) if not cut.is_over
    )
    assert parts == out
    assert (cut.error, cut.closed, cut.ping) == (whole.error, whole.closed, whole.ping)
    if not whole.is_over:
        assert cut.rest == whole.rest
