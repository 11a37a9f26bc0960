"""Test code that uses connman without waiting for real time, and on real sockets that fail when you say so.

`FakeClock` moves only when the test moves it, `ScriptedDialer` decides how each attempt to open ends, and
`FaultProxy` is a TCP proxy that can be cut, reset, made deaf, slow or absent.
"""

from connman.testing.clock import FakeClock
from connman.testing.dialer import Peer, ScriptedDialer
from connman.testing.proxy import FaultProxy

__all__ = ["FakeClock", "FaultProxy", "Peer", "ScriptedDialer"]
