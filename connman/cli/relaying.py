"""The words about a relay that those who dial one share: where it is, and the token it wants."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from connman.cli.commands import UsageError, tell
from connman.cli.dialling import INSECURE, add_dial_options, dial_options
from connman.errors import InvalidOption

VARIABLE = "CONNMAN_TOKEN"

TOKENS = f"""\
token:
  What the relay lets one in for is read from --token-file, anew for each attempt, else taken from {VARIABLE} in the
  environment. It is no word of the command line, which ps would show to everybody.
"""


def add_relay_options(parser: argparse.ArgumentParser) -> None:
    """Add the words to a command's parser.

    Threads: any.
    """
    parser.add_argument("--token-file", metavar="FILE", help="read the relay's token from this file")
    add_dial_options(parser, has_subprotocols=False)


def relay_options(found: argparse.Namespace) -> dict[str, Any]:
    """Return the options for `provide` and `reach` that the words stand for, ``token`` among them.

    Raises: InvalidOption; UsageError when the file cannot be read.
    Threads: any.
    """
    if found.insecure:
        tell("warning", INSECURE)
    return {**dial_options(found), "token": _token(found.token_file)}


def _token(file: str | None) -> str | Callable[[], str] | None:
    if file is None:
        return os.environ.get(VARIABLE) or None
    path = Path(file)

    def read() -> str:
        # The token that it holds is in no text, whatever is wrong with it.
        try:
            return path.read_text(encoding="ascii").strip()
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or "it is not ASCII"
            raise InvalidOption(f"the token's file cannot be read: {why}") from None

    try:
        read()  # only to hear its complaint now
    except InvalidOption as error:
        raise UsageError(str(error)) from None
    return read
