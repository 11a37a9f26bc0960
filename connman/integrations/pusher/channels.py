"""The channels of a Pusher application: public, private and presence."""

from __future__ import annotations

from typing import Any, Protocol

from connman.integrations.pusher.auth import user_id_of
from connman.integrations.pusher.listeners import Listeners
from connman.integrations.pusher.members import Members
from connman.integrations.pusher.wire import Event, is_text

_SUCCEEDED = "pusher_internal:subscription_succeeded"
_COUNT = "pusher_internal:subscription_count"


class Owner(Protocol):
    """What a channel asks of those whose it is."""

    def trigger(self, channel: PusherChannel, event: str, data: object) -> None:
        """Send a client event.

        Threads: any.
        """

    def remove(self, name: str) -> None:
        """Leave the channel of that name.

        Threads: any; never blocks.
        """


class PusherChannel(Listeners):
    """One channel: bind to its events here. It outlives reconnects, each of which subscribes it anew.

    Beside the application's events there are ``pusher:subscription_succeeded``, ``pusher:subscription_error`` and
    ``pusher:subscription_count``.

    Threads: every method from any thread, listeners included.
    """

    is_private = False
    """Whether subscribing takes a signature."""

    def __init__(self, name: str, owner: Owner) -> None:
        super().__init__()
        self.name = name
        self.is_subscribed = False
        self.subscription_count: int | None = None
        self._owner = owner

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}{' subscribed' if self.is_subscribed else ''}>"

    def trigger(self, event: str, data: object = None) -> None:
        """Send a client event, whose name begins with ``client-``, to all others on this channel.

        ``data``: what JSON can hold. Applications have to allow client events, on private and presence channels only.

        Raises: ValueError for another name, on a public channel, and for what JSON cannot hold (TypeError too);
        NotConnected while it is not subscribed: nothing was sent; ConnectionLost, SendTimeout as ``Connection.send``.
        Threads: any.
        """
        if not str(event).startswith("client-") or not self.is_private:
            raise ValueError("client events begin with 'client-', on private and presence channels only")
        self._owner.trigger(self, event, data)

    def unsubscribe(self) -> None:
        """Leave it: no listener of it is called any more, and subscribing to the name again makes a new channel.

        Threads: any.
        """
        self._owner.remove(self.name)

    def left(self) -> None:
        """Note that the connection is gone, or that nobody wants it any more.

        Threads: any.
        """
        self.is_subscribed = False

    def joining(self, channel_data: str | None) -> None:
        """Note what was signed for it, before it is sent.

        Threads: the one that asks for the signature.
        """

    def take(self, event: Event) -> Event | None:
        """Take in an event of the server's and return it as listeners see it; None for what is the protocol's own.

        Threads: the reader.
        """
        if event.name == _SUCCEEDED:
            joined = self._joined(event.data)
            self.is_subscribed = True  # last: who sees it on another thread finds the members there
            return Event("pusher:subscription_succeeded", joined, self.name)
        if event.name == "pusher:subscription_error":
            self.left()
        if event.name == _COUNT:
            count = event.data.get("subscription_count") if isinstance(event.data, dict) else None
            self.subscription_count = count if isinstance(count, int) else None
            return Event("pusher:subscription_count", event.data, self.name)
        return None if event.name.startswith("pusher_internal:") else event

    def _joined(self, data: Any) -> Any:
        return data


class PrivateChannel(PusherChannel):
    """A channel whose subscribers the application's server signs for.

    Threads: every method from any thread, listeners included.
    """

    is_private = True


class PresenceChannel(PrivateChannel):
    """A private channel that knows who is on it.

    ``pusher:subscription_succeeded`` comes with the `Members`; ``pusher:member_added`` and ``pusher:member_removed``
    with a `Member`.

    Threads: every method from any thread, listeners included.
    """

    def __init__(self, name: str, owner: Owner) -> None:
        super().__init__(name, owner)
        self.members = Members()

    def left(self) -> None:
        """Note that the connection is gone, or that nobody wants it any more: nobody is known to be on it.

        Threads: any.
        """
        super().left()
        self.members.reset()

    def joining(self, channel_data: str | None) -> None:
        """Note as whom it is joined: the user id in what was signed.

        Threads: the one that asks for the signature.
        """
        self.members.my_id = user_id_of(channel_data)

    def _joined(self, data: Any) -> Members:
        self.members.reset({} if data is None else data)
        return self.members

    def take(self, event: Event) -> Event | None:
        """Take in an event of the server's, also who comes and goes; see `PusherChannel.take`.

        Threads: the reader.
        """
        changes = {
            "pusher_internal:member_added": self.members.add,
            "pusher_internal:member_removed": self.members.remove,
        }
        if event.name not in changes:
            return super().take(event)
        member = changes[event.name](event.data)
        return None if member is None else Event(event.name.replace("_internal", ""), member, self.name)


def make_channel(name: str, owner: Owner) -> PusherChannel:
    """Return a fresh channel of the kind that its name says.

    Raises: ValueError for a name that is none, or of a kind that is not spoken here.
    Threads: any.
    """
    if not name or not is_text(name):
        raise ValueError("the name of a channel is a text, of whole characters")
    if name.startswith("private-encrypted-"):
        raise ValueError(
            "encrypted channels are not supported: the key would have to come with the signature"
        )
    if name.startswith("presence-"):
        return PresenceChannel(name, owner)
    return PrivateChannel(name, owner) if name.startswith("private-") else PusherChannel(name, owner)
