"""``connman provide``: the functions of a module, offered under a name on a relay."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from typing import Any

from connman.cli import words
from connman.cli.commands import add_command, tell
from connman.cli.interrupt import HURRIED_CLOSE, Interrupted
from connman.cli.relaying import TOKENS, add_relay_options, relay_options
from connman.cli.services import load_services
from connman.errors import ConnmanError
from connman.rpc import Peer, Provider, Services, provide
from connman.rpc.joining import Joining

_PROVIDE = """\
Offer the functions of MODULE:SERVICES under NAME on the relay at URL, until Ctrl-C. It comes back when it is lost.

SERVICES is a mapping of ids (numbers from 1, or names) to functions, or an object whose public methods are offered;
without it the module's own public functions are. The working folder is looked through first.
"""

_PROVIDE_MORE = f"""\
{TOKENS}
exit codes:
  1    the relay refused for good: a token it does not take, a name that the token does not allow
  2    the command line is wrong, or the services cannot be imported
  130  Ctrl-C (143: SIGTERM), after an orderly end; calls under way fail at their callers
"""


def add(commands: Any) -> None:
    """Add the command to those of the command line.

    Threads: any.
    """
    parser = add_command(commands, "provide", "offer functions behind a relay", _PROVIDE, _PROVIDE_MORE)
    add = parser.add_argument
    add("services", metavar="MODULE:SERVICES")
    add("url", metavar="URL")
    add("name", metavar="NAME")
    add(
        "--spares",
        type=words.count,
        default=2,
        metavar="N",
        help="connections that wait for callers (default 2)",
    )
    add(
        "--max-peers",
        type=words.count,
        default=100,
        metavar="N",
        help="callers and spares at most (default 100)",
    )
    add(
        "--max-workers",
        type=words.count,
        default=32,
        metavar="N",
        help="threads that run services (default 32)",
    )
    add_relay_options(parser)
    parser.set_defaults(make=make_offer, last="NAME")


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What is offered where. A `Job`."""

    services: Services
    url: str
    name: str
    options: dict[str, Any] = field(repr=False)

    def run(self) -> int:
        """Offer it until a signal, or the relay for good, ends it; return the exit code; see `Job`.

        Raises: Interrupted.
        Threads: the main one.
        """
        provider = provide(self.url, self.name, self.services, on_peer=_tell_peer, **self.options)
        try:
            provider.wait_ready()
            tell("info", f"{self.name} is provided")
            provider.wait_closed()
        except Interrupted as interrupt:
            tell("info", f"{interrupt.word}; {_summary(provider)}")
            raise
        except ConnmanError as error:
            tell("error", f"{error}; {_summary(provider)}")
            return 1
        finally:
            provider.close(timeout=HURRIED_CLOSE)
        return 0


def _tell_peer(peer: Peer) -> None:
    tell("info", "a caller is joined")
    peer.closed.add_done_callback(lambda _: tell("info", "a caller has left"))


def _summary(provider: Provider) -> str:
    return f"callers joined: {provider.stats.handovers}"


def make_offer(found: argparse.Namespace) -> Offer:
    """Return the offer that the words stand for; this imports the services.

    Raises: UsageError, InvalidTarget, InvalidOption.
    Threads: the main one.
    """
    options = relay_options(found)
    Joining("provide", found.url, found.name)  # only to hear its complaints now
    counts = {name: getattr(found, name) for name in ("spares", "max_peers")}
    services = load_services(found.services, max_workers=found.max_workers)
    return Offer(services=services, url=found.url, name=found.name, options={**options, **counts})
