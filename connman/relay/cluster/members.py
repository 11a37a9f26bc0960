"""Which relays there are: what this one has seen of the others, from beat to beat. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from connman.relay.cluster.presence import EXPIRY
from connman.relay.cluster.store import RelayInfo
from connman.relay.counts import RelaySeen


class Members:
    """The relays of the cluster as this one knows them."""

    def __init__(self, here: bytes) -> None:
        self._here = here
        self._alive: dict[bytes, str] = {}  # the address of each; never changed, but replaced
        self._heard = 0.0  # when they were
        self._dead: dict[bytes, float] = {}  # seen once, not any more, and since when

    @property
    def others(self) -> int:
        """How many relays there are beside this one."""
        return len(self._alive.keys() - {self._here})

    def seen(self, relays: Iterable[RelayInfo], now: float) -> list[bytes]:
        """Take in who lives; return those that did and do not any more."""
        before, self._alive = self._alive, {relay.id: relay.address for relay in relays}
        self._heard = now
        gone = [relay for relay in before if relay not in self._alive]
        # Ids are by chance and come once: those of dead relays are kept as long as a name may be written as theirs.
        dead = self._dead | dict.fromkeys(gone, now)
        self._dead = {
            relay: since for relay, since in dead.items() if relay not in self._alive and now - since < EXPIRY
        }
        return gone

    def forget(self) -> None:
        """Know nothing any more: the broker was lost, and who is back first knows nobody yet."""
        self._alive = {}
        self._dead.clear()

    def is_known(self, relay: bytes) -> bool:
        """Return whether a relay was alive at the last beat."""
        return relay in self._alive

    def died(self, relay: bytes) -> None:
        """Take a relay out before the next beat does: nobody listens for it."""
        if relay in self._alive:
            self._alive = {other: address for other, address in self._alive.items() if other != relay}
            self._dead[relay] = self._heard

    def order(self, owners: Mapping[bytes, bytes]) -> tuple[list[bytes], list[bytes]]:
        """Return whom to ask, the newest spare first, and whose entries are to be taken out."""
        asked = [relay for relay in owners if relay != self._here and relay not in self._dead]
        asked.sort(key=lambda relay: stamp_of(owners[relay]), reverse=True)
        return asked, [relay for relay in owners if relay in self._dead]

    def table(self, now: float) -> tuple[RelaySeen, ...]:
        """Return those that live, by id.

        Threads: any.
        """
        alive, heard = self._alive, self._heard
        return tuple(RelaySeen(relay.hex(), alive[relay], now - heard) for relay in sorted(alive))


def stamp_of(text: bytes) -> int:
    """Return when a relay's newest spare came; 0 for what is no number."""
    return int(text) if text.isdigit() and len(text) < 16 else 0
