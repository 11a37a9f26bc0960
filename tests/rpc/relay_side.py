"""The relay's end of scripted connections: what a provider and a caller hear and say, without a relay."""

import itertools
import json
from typing import Any

from connman import Message
from connman.testing import Peer, ScriptedDialer
from connman.testing.dialer import Outcome

PATIENCE = 10.0  # seconds that only a failing test reaches

HANDOVER = '{"command":"handover"}'


def words(message: Message) -> dict[str, Any]:
    found = json.loads(message)
    assert isinstance(found, dict)
    return found


class RelaySide:
    """A target that opens as often as it is dialled, or as `script` says; each connection waits for a relay's words."""

    def __init__(self, script: list[Outcome] | None = None) -> None:
        self.dialer = ScriptedDialer(itertools.chain(script or (), itertools.repeat(ScriptedDialer.OPEN)))

    def dialled(self) -> Peer:
        """The next connection, which has said nothing yet that was answered."""
        return self.dialer.next_peer(PATIENCE)

    def spare(self, name: str = "device") -> Peer:
        """The next connection, granted as a spare."""
        side = self.dialled()
        assert words(side.recv(PATIENCE)) == {"command": "provide", "name": name}
        side.send('{"command":"provided"}')
        return side

    def joined(self, name: str = "device") -> Peer:
        """The next connection, granted as a caller's."""
        side = self.dialled()
        assert words(side.recv(PATIENCE)) == {"command": "reach", "name": name}
        side.send('{"command":"reached"}')
        return side


def hand_over(side: Peer, *first: Message) -> Peer:
    """Join a caller to a spare; `first` comes with the handover already. What is sent from now on is the caller's."""
    side.send(HANDOVER)
    for message in first:
        side.send(message)
    assert words(side.recv(PATIENCE)) == {"command": "ready"}
    return side


def ask(side: Peer, number: int, service: int | str, *args: object) -> None:
    side.send(json.dumps({"requestId": number, "type": "request", "serviceId": service, "args": args}))


def answer(side: Peer) -> dict[str, Any]:
    return words(side.recv(PATIENCE))
