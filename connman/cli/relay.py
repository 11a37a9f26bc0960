"""``connman relay``: a relay for those that can only dial out."""

from __future__ import annotations

import argparse
import contextlib
import resource
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from connman import relay
from connman.cli import words
from connman.cli.commands import UsageError, add_command, tell
from connman.cli.interrupt import Interrupted
from connman.errors import ConnmanError
from connman.relay.limits import Limits

if TYPE_CHECKING:
    from connman.relay import Relay, Tokens

_RELAY = """\
Listen for providers, which keep spare connections under a name, and for callers of a name: each caller is joined with
the newest spare, and from then on frames pass both ways. Without tokens it listens on loopback only.
"""

_RELAY_MORE = """\
tokens:
  --tokens FILE: a line each, TOKEN provide=PATTERNS reach=PATTERNS expires=DATE, or JSON. It is read again when it
  changes. --jwt-key FILE: what signs JWTs, with the claims "provide" and "reach", lists of patterns.

ending:
  SIGTERM and Ctrl-C: new clients are refused, pairs have --grace seconds to end, the rest is closed with 1001. A second
  signal ends the grace.

exit codes:
  1    it could not listen, or has failed
  2    the command line is wrong, or a file that it names
  130  Ctrl-C (143: SIGTERM), after an orderly end
"""

_LIMITS = {
    "max-message-size": (words.count, "BYTES", "of a message"),
    "max-connections": (words.count, "N", "sockets in all"),
    "max-per-address": (words.count, "N", "sockets of one address"),
    "max-per-name": (words.count, "N", "spares of one name"),
    "max-pairs-per-name": (words.count, "N", "callers that are joined under one name"),
    "max-names": (words.count, "N", "names"),
    "attempts-per-second": (words.seconds, "N", "upgrades of one address"),
    "burst": (words.count, "N", "upgrades of one address at once"),
    "handshake-timeout": (words.seconds, "SECONDS", "from accept to upgrade"),
    "join-timeout": (words.seconds, "SECONDS", "from there to the first message"),
    "ready-timeout": (words.seconds, "SECONDS", "from handover to ready"),
    "ping-interval": (words.ping_interval, "SECONDS", "between pings; 0 for none"),
    "ping-timeout": (words.seconds, "SECONDS", "for a sign of life behind a ping"),
}


def add(commands: Any) -> None:
    """Add the command to those of the command line.

    Threads: any.
    """
    parser = add_command(commands, "relay", "join those that can only dial out", _RELAY, _RELAY_MORE)
    add = parser.add_argument
    add("--host", default="127.0.0.1", metavar="HOST", help="listen there (default 127.0.0.1)")
    add("--port", type=_port, default=8765, metavar="PORT", help="default 8765; 0 for any")
    tokens = parser.add_mutually_exclusive_group()
    tokens.add_argument("--tokens", metavar="FILE", help="who may do what: a file of tokens")
    tokens.add_argument("--jwt-key", metavar="FILE", help="who may do what: the key or keys of JWTs")
    add("--jwt-audience", metavar="TEXT", help="the audience that a JWT must name")
    add("--jwt-issuer", metavar="TEXT", help="the issuer that a JWT must name")
    add("--cert", metavar="FILE", help="TLS: the certificate chain, as PEM")
    add("--key", metavar="FILE", help="TLS: its private key")
    _add_repeated(
        parser, "--origin", "ORIGIN", "let pages of this origin in, such as https://example.com, or *"
    )
    _add_repeated(
        parser, "--served-host", "NAME", "without tokens: a name by which clients may call the relay"
    )
    _add_repeated(parser, "--trust-proxy", "NETWORK", "believe X-Forwarded-For of proxies there")
    add(
        "--broker",
        metavar="URL",
        help="redis://…: join other relays; @FILE reads it, which keeps secrets off ps",
    )
    add(
        "--admin",
        type=_admin,
        metavar="[HOST:]PORT",
        help="a page, /healthz and /metrics, on loopback by default",
    )
    add("--admin-names", action="store_true", help="show names on that page")
    add("--grace", type=_grace, default=10.0, metavar="SECONDS", help="for pairs at the end (default 10)")
    for name, (kind, meta, text) in _LIMITS.items():
        default = getattr(Limits(), name.replace("-", "_"))
        add(f"--{name}", type=kind, metavar=meta, help=f"{text} (default {default:g})")
    parser.set_defaults(make=make_relay, last="the options")


def _add_repeated(parser: argparse.ArgumentParser, name: str, meta: str, text: str) -> None:
    parser.add_argument(name, action="append", default=[], metavar=meta, help=f"{text}; may be repeated")


@dataclass(frozen=True, slots=True)
class Serving:
    """A relay that is to run until a signal. A `Job`."""

    relay: Relay
    grace: float

    def run(self) -> int:
        """Run it; return the exit code; see `Job`.

        Raises: Interrupted.
        Threads: the main one.
        """
        server = self.relay
        _allow_descriptors()
        try:
            server.start()
            tell("info", f"listening on {server.url}")
            if server.admin_url is not None:
                tell("info", f"admin on {server.admin_url}")
            server.wait()
        except Interrupted as interrupt:
            tell("info", f"{interrupt.word}; refusing new clients, {server.snapshot().pairs} pairs to end")
            self._end()
            raise
        except ConnmanError as error:
            tell("error", str(error))
            return 1
        tell("error", "the relay has failed")
        return 1

    def _end(self) -> None:
        try:
            self.relay.stop(self.grace)
        except Interrupted:
            self.relay.stop()


def _allow_descriptors() -> None:
    """Let this process have as many sockets as the system would let it: the usual 1,024 are few for a relay."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):  # some systems allow less than they say
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def make_relay(found: argparse.Namespace) -> Serving:
    """Return the relay that the words stand for; files are read.

    Raises: UsageError, InvalidOption.
    Threads: the main one.
    """
    if (found.cert is None) is not (found.key is None):
        raise UsageError("--cert and --key go together")
    if found.jwt_key is None and (found.jwt_audience or found.jwt_issuer):
        raise UsageError("--jwt-audience and --jwt-issuer go with --jwt-key")
    if found.admin_names and found.admin is None:
        raise UsageError("--admin-names goes with --admin")
    server = relay.Relay(
        found.host,
        found.port,
        tokens=_tokens(found),
        limits=_limits(found),
        tls=None if found.cert is None else (found.cert, found.key),
        origins=found.origin or None,
        hosts=found.served_host,
        trusted_proxies=found.trust_proxy,
        broker=None if found.broker is None else relay.RedisBroker(_broker_url(found.broker)),
        admin=found.admin,
        admin_names=found.admin_names,
    )
    return Serving(server, found.grace)


def _tokens(found: argparse.Namespace) -> Tokens | None:
    if found.tokens is not None:
        return relay.TokenFile(found.tokens)
    if found.jwt_key is not None:
        return relay.JwtTokens(Path(found.jwt_key), audience=found.jwt_audience, issuer=found.jwt_issuer)
    return None


def _limits(found: argparse.Namespace) -> Limits:
    names = (name.replace("-", "_") for name in _LIMITS)
    given: dict[str, Any] = {name: value for name in names if (value := getattr(found, name)) is not None}
    if "ping_interval" in given:
        given["ping_interval"] = given["ping_interval"] or None
    return Limits(**given)


def _broker_url(word: str) -> str:
    if not word.startswith("@"):
        return word
    try:
        return Path(word[1:]).read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "it is not UTF-8"
        raise UsageError(f"--broker: the file cannot be read: {why}") from None


def _port(word: str) -> int:
    if not (word.isascii() and word.isdigit() and int(word) < 65536):
        raise argparse.ArgumentTypeError("a port, 0 to 65535")
    return int(word)


def _admin(word: str) -> tuple[str, int]:
    host, _, port = word.rpartition(":")
    return host.strip("[]") or "127.0.0.1", _port(port)


def _grace(word: str) -> float:
    # Finite: what never ends is no grace.
    return words.ping_interval(word)
