"""Calls across a connection: each side may serve, and call the services of the other.

Who is who, from the user's end to the wire's::

    Peer          one side, for the life of its connection
      Services    what it offers: functions, their Workers, and what has been Answered
      Path        the way to the other side: a Session while there is one, else what calls have to expect
      Table       the Calls under way, whatever path they are on
    Session       one opened transport
      Outbox      what goes out
      Routing     what comes in: to a Call, as a Request to the Services, or to the Streams
      Streams     StreamsIn (a Stream reads what its Buffer holds) and StreamsOut (a Sending sends what its Source gives)
    Provider      a name on a relay: a Crew of Spares, each of which becomes a Peer; Joining is how they and `reach` ask
"""

from connman.rpc.codec import UNDEFINED, NotAllowed, Undefined
from connman.rpc.counters import CloseStatus, PeerStats
from connman.rpc.joining import RelayRefused, Token
from connman.rpc.path import PeerClosed
from connman.rpc.peer import Peer
from connman.rpc.provide import provide
from connman.rpc.provider import Provider, ProviderStats
from connman.rpc.reach import reach
from connman.rpc.reading import Stream, StreamFailed
from connman.rpc.receiving import StreamTooFast
from connman.rpc.services import Services
from connman.rpc.serving import current_peer

__all__ = [
    "UNDEFINED",
    "CloseStatus",
    "NotAllowed",
    "Peer",
    "PeerClosed",
    "PeerStats",
    "Provider",
    "ProviderStats",
    "RelayRefused",
    "Services",
    "Stream",
    "StreamFailed",
    "StreamTooFast",
    "Token",
    "Undefined",
    "current_peer",
    "provide",
    "reach",
]
