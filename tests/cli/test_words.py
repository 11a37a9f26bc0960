"""Words of the command line one by one; `test_arguments.py` has what is said of them in whole command lines."""

import argparse
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from connman.cli import words


def test_words_become_values() -> None:
    assert words.count("12") == 12
    assert words.wait("inf") == math.inf
    assert words.ping_interval("0") == 0.0
    assert words.seconds("2.5") == 2.5
    assert words.binary("raw") == "raw"
    assert words.strategy("default") == "default"
    assert words.proxy("none") == ""
    assert words.proxy("http://u:p@proxy:3128") == "http://u:p@proxy:3128"
    assert words.headers("A:b: c ") == [("A", "b: c")]


@pytest.mark.parametrize(
    ("read", "word"),
    [
        (words.strategy, "defaul"),
        (words.count, "٣"),
        (words.count, "1e3"),
        (words.wait, "nan"),
        (words.seconds, "0"),
        (words.ping_interval, "inf"),
        (words.proxy, "gopher://s3cret"),
        (words.headers, "s3cret"),
        (words.headers, "@/nonexistent/s3cret"),
    ],
)
def test_a_refusal_quotes_nothing(read: Callable[[str], object], word: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError) as error:
        read(word)
    assert "s3cret" not in str(error.value)


def test_a_file_of_headers_may_have_empty_lines(tmp_path: Path) -> None:
    (tmp_path / "headers").write_text("A: b\n\n  \nC: d\n")
    assert words.headers(f"@{tmp_path / 'headers'}") == [("A", "b"), ("C", "d")]
