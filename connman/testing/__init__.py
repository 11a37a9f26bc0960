"""Test code that uses connman without waiting for real time, and on real sockets that fail when you say so.

`FakeClock` moves only when the test moves it, `ScriptedDialer` decides how each attempt to open ends, `FaultProxy` is a TCP
proxy that can be cut, reset, made deaf, slow or absent, and `BadServer` does to each client what a script says.
"""

from connman.testing.clock import FakeClock
from connman.testing.dialer import Peer, ScriptedDialer
from connman.testing.proxy import FaultProxy
from connman.testing.server import BadServer, Guest

__all__ = ["BadServer", "FakeClock", "FaultProxy", "Guest", "Peer", "ScriptedDialer"]
