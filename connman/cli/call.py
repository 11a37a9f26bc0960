"""``connman call``: one call to a service behind a relay, its result on standard output."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import math
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any, NoReturn

from connman.cli import words
from connman.cli.commands import add_command, tell
from connman.cli.interrupt import HURRIED_CLOSE
from connman.cli.output import OutputFailed, Writer
from connman.cli.relaying import TOKENS, add_relay_options, relay_options
from connman.errors import ConnmanError
from connman.rpc import Peer, reach
from connman.rpc.joining import Joining

logger = logging.getLogger("connman.cli")

_STDOUT = 1

_CALL = """\
Call SERVICE of whoever provides NAME on a relay, and print its result as one line of JSON.

SERVICE is the number of a service, or its name. Each ARG is JSON where it reads as JSON ('5', 'true', '"5"', '[1, 2]'),
else a text as it stands. Options come before or behind all of them; '--' before an ARG that begins with a dash.
"""

_CALL_MORE = f"""\
result:
  One line of JSON; bytes, which a service can only stream, as they are. With --stream the chunks of a stream are
  written as they come, texts with nothing in between; without it when all are there.

{TOKENS}
exit codes:
  0    the result was printed
  1    it failed: nobody provides NAME, the service raised, no answer in time, the way broke (all told on standard error)
  2    the command line is wrong
  130  Ctrl-C (143: SIGTERM)
"""


def add(commands: Any) -> None:
    """Add the command to those of the command line.

    Threads: any.
    """
    parser = add_command(commands, "call", "call a service behind a relay", _CALL, _CALL_MORE)
    add = parser.add_argument
    add("name", metavar="NAME")
    add("service", metavar="SERVICE", type=service)
    add("arguments", metavar="ARG", nargs="*", type=argument)
    add("--relay", metavar="URL", required=True, help="where the relay is: ws:// or wss://")
    add(
        "--timeout",
        type=words.seconds,
        default=30.0,
        metavar="SECONDS",
        help="for the whole call, with --stream for each chunk (default 30)",
    )
    add("--stream", action="store_true", help="write the chunks of a stream as they come")
    add_relay_options(parser)
    parser.set_defaults(make=make_call, last="ARG")


def service(word: str) -> int | str:
    """Return the id of a service: a number, or a name.

    Raises: argparse.ArgumentTypeError.
    Threads: any; pure.
    """
    if not word:
        raise argparse.ArgumentTypeError("a service is a number from 1, or a name")
    if not (word.isascii() and word.isdigit()):
        return word
    return words.count(word)


def argument(word: str) -> object:
    """Return what a word says as JSON, the word itself where it says nothing.

    Threads: any; pure.
    """
    try:
        return json.loads(word, parse_constant=_refuse, parse_float=_finite)
    except (ValueError, RecursionError):
        return word


def _finite(digits: str) -> float:
    number = float(digits)
    return number if math.isfinite(number) else _refuse(digits)


def _refuse(constant: str) -> NoReturn:
    # NaN and the infinities, which Python's parser lets through, and makes of 1e999: nothing to send, so they are texts.
    raise ValueError(constant)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call. A `Job`."""

    name: str
    service: int | str
    relay: str
    timeout: float
    is_stream: bool
    arguments: tuple[object, ...] = field(repr=False)
    options: dict[str, Any] = field(repr=False)

    def run(self) -> int:
        """Call, print, and return the exit code; see `Job`.

        Raises: Interrupted.
        Threads: the main one.
        """
        writer = Writer(_STDOUT)
        peer = reach(self.relay, self.name, **self.options)
        try:
            with contextlib.closing(self._chunks(peer)) as chunks:
                for chunk in chunks:
                    writer.write(chunk)
                    if self.is_stream:
                        writer.flush()
            writer.flush()
        except ConnmanError as error:
            tell("error", f"{type(error).__name__}: {error}")
            return 1
        except OutputFailed as failed:
            if not failed.is_gone:
                tell("error", f"writing the result failed: {failed.cause}")
            return 0 if failed.is_gone else 1
        finally:
            peer.close(timeout=HURRIED_CLOSE)
        return 0

    def _chunks(self, peer: Peer) -> Generator[bytes]:
        if not self.is_stream:
            result = peer.call(self.service, *self.arguments, timeout=self.timeout)
            is_raw = isinstance(result, bytes)
            yield result if is_raw else _json_of(result)
            return
        with peer.stream(self.service, *self.arguments, timeout=self.timeout) as stream:
            for chunk in stream:
                yield _raw(chunk)


def _raw(chunk: object) -> bytes:
    if isinstance(chunk, str):
        return chunk.encode(errors="replace")
    return chunk if isinstance(chunk, bytes) else _json_of(chunk)  # of a service that does not stream


def _json_of(result: object) -> bytes:
    # Half of a surrogate pair, which UTF-8 does not have, is written as the escape that JSON has for it.
    return json.dumps(result, ensure_ascii=False).encode(errors="backslashreplace") + b"\n"


def make_call(found: argparse.Namespace) -> Call:
    """Return the call that the words stand for.

    Raises: UsageError, InvalidTarget, InvalidOption.
    Threads: any.
    """
    options = relay_options(found)
    Joining("reach", found.relay, found.name)  # only to hear its complaints now
    return Call(
        name=found.name,
        service=found.service,
        relay=found.relay,
        timeout=found.timeout,
        is_stream=found.stream,
        arguments=tuple(found.arguments),
        options=options,
    )
