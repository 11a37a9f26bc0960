"""The command line's words, checked: what it says is either a `Settings` or one line of complaint.

No complaint quotes a value: a URL, a header or a stray word may hold a secret, and terminals are recorded.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from typing import Any

from connman.cli import call, provide, relay, words
from connman.cli.commands import Job, Parser, UsageError, add_command
from connman.cli.dialling import INSECURE, add_dial_options, dial_options
from connman.cli.doctor import Checkup
from connman.cli.session import Settings
from connman.cli.ways import TREE_TIMEOUT, default_tree, ways_to
from connman.endpoint import Endpoint
from connman.errors import ConnmanError
from connman.options import make_options
from connman.strategy import Strategy
from connman.version import __version__

_CONNECT = """\
Keep a connection to URL: every line of standard input is sent as one message, messages go to standard output, and
what becomes of the connection goes to standard error. It comes back when it is lost, until Ctrl-C.

URL is ws://, wss://, tcp://, tls:// or unix:///path, or for SockJS over HTTP xhr-streaming+https:// and the like. A text
message is printed with a newline behind it, a binary one as --binary says. Over tcp, tls and unix there are no messages:
bytes pass as they are, both ways.
"""

_CONNECT_STRATEGY = """strategy default:
  Several ways to one server, in turn, as connman.strategy.pusher_default() has it: URL at once, the same over wss:// 2 s
  later (--wss, or the usual port if URL is ws:// at its usual port), SockJS over HTTP (--http) 2 s after URL, 5 s where
  there is a wss:// as well, and polling 4 s behind streaming. What opens first is the connection. With --http it is kept
  in the user's cache folder which way that was, and tried first for half an hour; HTTP only when it has been passed over four times.
  "open" says which it is, and -v what each way did, a line a step.

"""

_CONNECT_MORE = """\
end of input:
  Ctrl-D at a terminal ends the session. A pipe or a file that ends is sent to its end; then the session ends as soon
  as it is open and no message has come for 1 second (--eof-wait SECONDS; 'inf' for never; never by itself with
  --count). /dev/null and closed input never end it, so a listener lives on under nohup, cron and systemd.
  Lines wait while there is no connection. What was not sent in the end is counted on standard error.

json:
  standard output: {"type":"message","time":…,"format":"text"|"base64","data":…}
  standard error:  {"type":"state","time":…,"state":…,"attempt":…,"retry_in":…,"cause":…,"code":…,"reason":…,…}
                   {"type":"step","time":…,"leaf":…,"start":…,"phase":…,"address":…,"seconds":…,"cause":…}
                   {"type":"note","time":…,"kind":"info"|"warning"|"error","text":…}

exit codes:
  0    ended by the end of input, by --count, by the peer in order (--once), or because nobody reads the output
  1    failed: a fatal error, a loss or a failure under --once, input that was not sent, fewer than --count messages
  2    the command line is wrong
  130  Ctrl-C (143: SIGTERM), after an orderly disconnect; a second one does not wait for the peer
"""

_DOCTOR = """\
Dial URL once in every way there is, and say phase by phase (dns, tcp, proxy, tls, upgrade, ping, message) where to,
how long it took, how it ended, and what to do about it. Nothing is sent but the request, a ping and a goodbye.
If any opens, all are then dialled in turn, as connman.strategy.pusher_default() does: what a connection would choose.
"""

_DOCTOR_MORE = """\
ways:
  URL itself; for ws:// also wss:// (--wss, or the usual port if URL is at its usual port); with --http also SockJS over
  HTTP, streaming and polling, whose server is asked what it says of itself at /info. What is meant for TLS is never
  dialled without.

json, on standard output:
  {"type":"way","time":…,"way":"wss","address":…,"proxy":…,"is_open":…,"transport":…,"message":…,"seconds":…,"cause":…,
   "kind":…,"advice":…,"steps":[{"leaf":…,"start":…,"phase":…,"address":…,"seconds":…,"cause":…},…]}
  {"type":"info",… as a way, but "is_answered":…,"says":{"websocket":true,"cookie_needed":false}}
  {"type":"tree",… as a way; the steps tell their leaf}
  {"type":"verdict","time":…,"is_open":…,"ways":[…],"advice":…}

exit codes:
  0    there is a way through
  1    there is none, or the report could not be written
  2    the command line is wrong
  130  Ctrl-C (143: SIGTERM)
"""


# What may be quoted of a word that means nothing: anything else could be part of a secret.
_OPTION = re.compile("--[a-z-]{1,30}")


def parse(arguments: Sequence[str]) -> tuple[Settings | Checkup | Job, int]:
    """Return what the command line asks for, and how often it says -v.

    Raises: UsageError; SystemExit after --help and --version, which print.
    Threads: any.
    """
    parser = _make_parser()
    first = next((word for word in arguments if not word.startswith("-")), None)
    if first not in (None, *_COMMANDS):
        # Before argparse, which would quote it; a forgotten "connect" makes the URL the first word.
        raise UsageError(f"the first word is a command, as in connman connect URL: {', '.join(_COMMANDS)}")
    try:
        found, strays = parser.parse_known_args(arguments)
    except argparse.ArgumentError as error:
        raise UsageError(_without_value(error)) from None
    if strays:
        names = (word.partition("=")[0] for word in strays)
        unknown = next((name for name in names if _OPTION.fullmatch(name)), "")
        raise UsageError(
            f"there is no option {unknown}"
            if unknown
            else f"there are words behind {found.last} that mean nothing"
        )
    try:
        return found.make(found), found.verbose
    except ConnmanError as error:
        raise UsageError(str(error)) from None


def _make_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="connman", description="Keep connections open.", allow_abbrev=False, exit_on_error=False
    )
    parser.add_argument("--version", action="version", version=f"connman {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar=f"{{{','.join(_COMMANDS)}}}")
    for add in _COMMANDS.values():
        add(commands)
    return parser


def _add_connect(commands: Any) -> None:
    summary = "connect to a URL: lines in, messages out"
    verbose = "what each step of an attempt came to; -vv: the library's log as well"
    more = _CONNECT_STRATEGY + _CONNECT_MORE
    parser = add_command(commands, "connect", summary, _CONNECT, more, verbose=verbose)
    _add_what(parser)
    _add_session_options(parser)
    _add_way_options(parser)
    add_dial_options(parser)
    parser.set_defaults(make=_settings, last="URL")


def _add_doctor(commands: Any) -> None:
    summary = "dial a URL in every way and say what is wrong"
    parser = add_command(commands, "doctor", summary, _DOCTOR, _DOCTOR_MORE, verbose="-vv: the library's log")
    _add_what(parser)
    _add_doctor_options(parser)
    _add_way_options(parser)
    add_dial_options(parser)
    parser.set_defaults(make=_checkup, last="URL")


def _add_what(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("url", metavar="URL")
    parser.add_argument("--json", action="store_true", help="one JSON object a line; see below")


def _add_session_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--once", action="store_true", help="do not reconnect: end with the connection")
    add(
        "--binary",
        type=words.binary,
        metavar="{hex,base64,raw}",
        help="binary messages as hex (default), base64 or raw bytes",
    )
    add("--count", type=words.count, metavar="N", help="end after N messages received")
    add(
        "--eof-wait",
        type=words.wait,
        metavar="SECONDS",
        help="how long it must be quiet after the end of input",
    )
    add(
        "--ping-interval",
        type=words.ping_interval,
        metavar="SECONDS",
        help="between keepalive pings (default 20); 0 for none",
    )
    add("--strategy", type=words.strategy, metavar="default", help="go several ways; see below")


def _add_doctor_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--expect-message",
        action="store_true",
        help="the server greets: a way counts only when a first message has come",
    )


def _add_way_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--wss", metavar="URL", help="where the same is served over TLS")
    add(
        "--http",
        metavar="URL",
        help="the base of the same over SockJS, http:// or https://: xhr_streaming and xhr_polling",
    )


def _settings(found: argparse.Namespace) -> Settings:
    options = dial_options(found) | {"reconnect": not found.once}
    if found.ping_interval is not None:
        options["ping_interval"] = found.ping_interval or None
    if found.strategy is not None:
        options.setdefault("open_timeout", TREE_TIMEOUT)
    make_options(options)  # only to hear its complaints now
    endpoint = Endpoint.parse(found.url)
    return Settings(
        endpoint=endpoint,
        strategy=_strategy(found, endpoint),
        options=options,
        is_json=found.json,
        binary=found.binary,
        count=found.count,
        eof_wait=found.eof_wait,
        is_verbose=found.verbose > 0,
        warnings=(INSECURE,) if found.insecure else (),
    )


def _strategy(found: argparse.Namespace, endpoint: Endpoint) -> Strategy | None:
    if found.strategy is None:
        if found.wss is not None or found.http is not None:
            raise UsageError("--wss and --http go with --strategy default")
        return None
    if not endpoint.is_websocket:
        raise UsageError("--strategy default takes a ws:// or wss:// URL")
    return default_tree(endpoint, wss=_wss(found, endpoint), http=_http(found, endpoint))


def _checkup(found: argparse.Namespace) -> Checkup:
    options = dial_options(found)
    make_options(options)  # only to hear its complaints now
    endpoint = Endpoint.parse(found.url)
    return Checkup(
        ways=ways_to(endpoint, wss=_wss(found, endpoint), http=_http(found, endpoint)),
        options=options,
        expects_message=found.expect_message,
        is_json=found.json,
        warnings=(INSECURE,) if found.insecure else (),
    )


def _wss(found: argparse.Namespace, beside: Endpoint) -> Endpoint | None:
    if found.wss is None:
        return None
    endpoint = Endpoint.parse(found.wss)
    if endpoint.scheme != "wss" or beside.scheme != "ws":
        raise UsageError("--wss takes a wss:// URL, and goes with a ws:// one")
    return endpoint


def _http(found: argparse.Namespace, beside: Endpoint) -> str | None:
    url: str | None = found.http
    if url is not None and not (url.startswith(("http://", "https://")) and beside.is_websocket):
        raise UsageError("--http takes an http:// or https:// URL, and goes with a ws:// or wss:// one")
    return url


def _without_value(error: argparse.ArgumentError) -> str:
    """Return what argparse complains of, without the word that it quotes."""
    text = str(error)
    is_ours = isinstance(error.__context__, argparse.ArgumentTypeError)
    return text if is_ours else re.split("[:,]? ['\"]", text, maxsplit=1)[0]


_COMMANDS = {
    "connect": _add_connect,
    "doctor": _add_doctor,
    "provide": provide.add,
    "call": call.add,
    "relay": relay.add,
}
"""The commands, each with what adds its parser: that sets ``make``, which turns the words found into what is run, and
``last``, the name of the last word."""
