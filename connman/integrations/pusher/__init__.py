"""A client for Pusher Channels, and for servers that speak its protocol: ``Pusher(key, cluster="eu")``."""

from connman.integrations.pusher.auth import AuthError, HttpAuth, SecretAuth
from connman.integrations.pusher.channels import PresenceChannel, PrivateChannel, PusherChannel
from connman.integrations.pusher.client import Pusher
from connman.integrations.pusher.members import Member, Members
from connman.integrations.pusher.status import PusherConnection, PusherState, StateChange
from connman.integrations.pusher.wire import Event, PusherError, PusherRefused

__all__ = [
    "AuthError",
    "Event",
    "HttpAuth",
    "Member",
    "Members",
    "PresenceChannel",
    "PrivateChannel",
    "Pusher",
    "PusherChannel",
    "PusherConnection",
    "PusherError",
    "PusherRefused",
    "PusherState",
    "SecretAuth",
    "StateChange",
]
