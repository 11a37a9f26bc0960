"""The namespaces of the tests: a network of their own, a firewall that bites, and a machine that never notices."""

import socket
import subprocess
import sys

import pytest

from tests.hostile.netns import namespace
from tests.hostile.netns.namespace import Firewall
from tests.loopback import PATIENCE, Server, echo

ONE_WAY = 0.3  # seconds in which a packet on loopback arrives unless it is lost


def test_the_machines_own_firewall_is_refused() -> None:
    with pytest.raises(PermissionError):
        Firewall()


@pytest.mark.netns
@pytest.mark.slow
def test_a_namespace_has_one_interface_and_is_not_the_machines(firewall: Firewall) -> None:
    assert namespace.is_inside()
    assert [name for _, name in socket.if_nameindex()] == ["lo"]
    with Server(echo) as server, socket.create_connection(("127.0.0.1", server.port), PATIENCE) as sock:
        sock.sendall(b"x")
        assert sock.recv(1) == b"x"


@pytest.mark.netns
@pytest.mark.slow
def test_a_drop_loses_one_way_or_both_until_it_heals(firewall: Firewall) -> None:
    with Server(echo) as server, socket.create_connection(("127.0.0.1", server.port), PATIENCE) as sock:
        for way in ("up", "down", "both"):
            firewall.drop(server.port, way=way)
            sock.sendall(b"x")
            sock.settimeout(ONE_WAY)
            with pytest.raises(TimeoutError):
                sock.recv(1)
            firewall.heal()
            sock.settimeout(PATIENCE)
            assert sock.recv(1) == b"x"


@pytest.mark.netns
@pytest.mark.slow
def test_a_reject_resets_or_is_unreachable(firewall: Firewall) -> None:
    with Server(echo) as server:
        firewall.reject(server.port, "tcp reset")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", server.port), PATIENCE)
        firewall.heal()
        firewall.reject(server.port, "icmpx host-unreachable")
        with pytest.raises(OSError, match="No route to host"):
            socket.create_connection(("127.0.0.1", server.port), PATIENCE)


@pytest.mark.slow
def test_where_there_is_no_nft_the_tests_say_so() -> None:
    program = (
        "import pytest\nfrom tests.hostile.netns import namespace\n"
        "namespace.SBIN = '/nowhere'\n"
        "try: namespace.way_in()\nexcept pytest.skip.Exception as skipped: print(skipped)"
    )
    told = subprocess.run(
        [sys.executable, "-c", program], cwd=namespace.ROOT, text=True, capture_output=True, check=True
    )
    assert told.stdout == "no network namespace: unshare is not installed\n"
