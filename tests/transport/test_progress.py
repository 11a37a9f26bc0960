import pytest

from connman.transport.progress import Progress, whole_frames


def test_nothing_is_none() -> None:
    assert not Progress().is_life(0, 0)


@pytest.mark.parametrize(("window", "is_life"), [(9.0, True), (8.0, False)])
def test_parts_count_together_within_the_window(window: float, is_life: bool) -> None:
    progress = Progress()
    progress.window = window
    assert not any(progress.is_life(102, now) for now in range(9))
    assert progress.is_life(1024 - 9 * 102, 9) is is_life


def test_a_drip_is_never_life() -> None:
    """1 KiB in more than the window, for ever: it passed for life while the bytes were counted without a window."""
    progress = Progress()
    progress.window = 0.3
    assert not any(progress.is_life(1000, 0.5 * count) for count in range(100))


def test_the_count_begins_anew_after_life() -> None:
    progress = Progress()
    assert progress.is_life(2000, 0)
    assert not progress.is_life(1000, 0)
    assert progress.is_life(24, 0)


@pytest.mark.parametrize(
    ("missing", "whole"), [(0, 3), (1, 2), (3, 2), (4, 1), (5, 1), (6, 0), (7, 0), (9, 0)]
)
def test_only_whole_frames_are_counted(missing: int, whole: int) -> None:
    assert whole_frames([b"a", b"bb", b"ccc"], missing) == whole


def test_the_count_begins_anew_when_a_frame_was_complete() -> None:
    progress = Progress()
    assert not progress.is_life(1000, 0)
    progress.part = 0  # as whoever saw the frame does
    assert not progress.is_life(1000, 0)
