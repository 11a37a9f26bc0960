"""The word behind each option of the command line, turned into its value or refused without being quoted.

argparse quotes the word of a ValueError, but not that of an ArgumentTypeError: a word may hold a secret.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from connman.errors import ConnmanError
from connman.options import checked_headers
from connman.transport.proxy import usable_proxy


def headers(word: str) -> list[tuple[str, str]]:
    """Return the headers of ``-H``: one, or those of a file, a line each, which keeps secrets off ``ps``.

    Raises: argparse.ArgumentTypeError.
    Threads: any.
    """
    lines = [word]
    if word.startswith("@"):
        try:
            lines = [line for line in Path(word[1:]).read_text(encoding="utf-8").splitlines() if line.strip()]
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or "it is not UTF-8"
            raise argparse.ArgumentTypeError(f"the file cannot be read: {why}") from None
    pairs = [tuple(part.strip(" \t") for part in line.split(":", 1)) for line in lines]
    if any(len(pair) != 2 for pair in pairs):
        raise argparse.ArgumentTypeError("a header is 'NAME: VALUE'")
    try:
        return checked_headers(pairs)  # type: ignore[arg-type]  # the lengths were checked above
    except ConnmanError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def proxy(word: str) -> str:
    """Return a proxy's URL that can be used, "" for "none".

    Raises: argparse.ArgumentTypeError.
    Threads: any.
    """
    if word == "none":
        return ""
    try:
        usable_proxy(word)
    except ConnmanError as error:
        raise argparse.ArgumentTypeError(str(error).removeprefix("proxy: ")) from None
    return word


def binary(word: str) -> str:
    """Return a form for binary messages.

    Raises: argparse.ArgumentTypeError.
    Threads: any.
    """
    if word not in ("hex", "base64", "raw"):
        raise argparse.ArgumentTypeError("one of hex, base64, raw")
    return word


def strategy(word: str) -> str:
    """Return the name of a strategy.

    Raises: argparse.ArgumentTypeError.
    Threads: any.
    """
    if word != "default":
        raise argparse.ArgumentTypeError("there is one strategy: default")
    return word


def count(word: str) -> int:
    """Return a whole number from 1.

    Raises: argparse.ArgumentTypeError.
    Threads: any.
    """
    if not (word.isascii() and word.isdigit() and int(word)):
        raise argparse.ArgumentTypeError("a whole number from 1")
    return int(word)


def wait(word: str) -> float:
    """Return seconds from 0, inf included.

    Raises: argparse.ArgumentTypeError.
    Threads: any.
    """
    try:
        seconds = float(word)
    except ValueError:
        seconds = math.nan
    if not seconds >= 0:  # not a number compares false
        raise argparse.ArgumentTypeError("a number of seconds from 0")
    return seconds


def ping_interval(word: str) -> float:
    """Return finite seconds from 0.

    Raises: argparse.ArgumentTypeError.
    Threads: any.
    """
    seconds = wait(word)
    if math.isinf(seconds):
        raise argparse.ArgumentTypeError("a finite number of seconds; 0 for no pings")
    return seconds


def seconds(word: str) -> float:
    """Return finite seconds, more than 0.

    Raises: argparse.ArgumentTypeError.
    Threads: any.
    """
    seconds = wait(word)
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError("a finite number of seconds, more than 0")
    return seconds
