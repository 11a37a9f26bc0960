"""What all commands of the command line share: their parser, the complaint about a wrong line, and what runs one."""

from __future__ import annotations

import argparse
import contextlib
from typing import Any, NoReturn, Protocol

from connman.cli.output import OutputFailed, Writer, has_colour
from connman.cli.render import Note, NoteKind, TextRenderer


class UsageError(Exception):
    """The command line is wrong; the text is one line without secrets."""


class Job(Protocol):
    """What a checked command line asks for."""

    def run(self) -> int:
        """Do it and return the exit code; the library's log is shown on standard error already.

        Raises: UsageError for what only doing it could tell; Interrupted.
        Threads: the main one.
        """


class Parser(argparse.ArgumentParser):
    """Raise instead of printing the usage and exiting."""

    def error(self, message: str) -> NoReturn:
        """Raise.

        Raises: UsageError.
        """
        raise UsageError(message)


def plain_renderer() -> TextRenderer:
    """Return how standard error looks where nothing else is asked for.

    Threads: any.
    """
    return TextRenderer(binary="hex", is_terminal=True, has_colour=has_colour(2))


def tell(kind: NoteKind, text: str) -> None:
    """Write one line to standard error; nothing where nobody listens.

    Threads: any.
    """
    writer = Writer(2)
    with contextlib.suppress(OutputFailed):
        writer.write(plain_renderer().note(Note(kind, text)))
        writer.flush()


def add_command(
    commands: Any,
    name: str,
    summary: str,
    description: str,
    more: str,
    *,
    verbose: str = "the library's log as well, -vv: in full",
) -> Parser:
    """Add a command to those of the command line; return its parser, for its words.

    ``verbose``: the help of ``-v``.

    Threads: any.
    """
    parser: Parser = commands.add_parser(
        name,
        help=summary,
        description=description,
        epilog=more,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        exit_on_error=False,
    )
    parser.add_argument(
        "-v",
        "--verbose",
        action="count",
        default=0,
        help=verbose,
    )
    return parser
