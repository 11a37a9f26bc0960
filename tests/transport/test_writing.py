"""What a client writes: read back by hand. More of it, with what is read, is in test_frames.py."""

import pytest

from connman.transport.writing import FrameWriter
from tests.transport.streams import BINARY, CLOSE, PING, TEXT, unmask


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, 100_000])
def test_frames_of_every_size(size: int) -> None:
    writer = FrameWriter()
    assert unmask(writer.encode("x" * size)) == [(TEXT, b"x" * size)]
    assert unmask(writer.encode(bytearray(size))) == [(BINARY, bytes(size))]


def test_control_frames() -> None:
    writer = FrameWriter()
    assert unmask(writer.encode_ping(b"p")) == [(PING, b"p")]
    assert unmask(writer.encode_close(1000, "bye")) == [(CLOSE, b"\x03\xe8bye")]
    with pytest.raises(ValueError, match="125"):
        writer.encode_ping(bytes(126))


def test_without_a_mask() -> None:
    writer = FrameWriter(mask=False)
    assert writer.encode(b"ab") == b"\x82\x02ab"
    assert writer.encode("x" * 200) == b"\x81\x7e\x00\xc8" + b"x" * 200


def test_nothing_depends_on_the_order() -> None:
    frames = [b"a", b"b"]
    assert FrameWriter().finish(frames) is frames
    assert not FrameWriter().is_ordered
