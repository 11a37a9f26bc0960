"""Calls where gevent has patched Python: before connman was imported, or when its objects were made already."""

import subprocess
import sys

import pytest

from tests.promises.peers import program_environment
from tests.servers import ws_server

pytest.importorskip("gevent")

pytestmark = pytest.mark.slow

PROGRAM = """
import sys
when, url = sys.argv[1:]
if when == "first":
    from gevent import monkey; monkey.patch_all()
from connman import Connection
from connman.rpc import Peer, current_peer
served = {"add": lambda a, b: a + b, "back": lambda n: n if not n else current_peer().call("back", n - 1)}
peer = Peer(Connection(url, ping_interval=None), services=served)
if when == "late":
    from gevent import monkey; monkey.patch_all()
import gevent
ticks = []
def tick():
    while True:
        gevent.sleep(0.001)
        ticks.append(1)
ticker = gevent.spawn(tick)
with peer:
    jobs = [gevent.spawn(peer.call, "add", number, 1, timeout=10) for number in range(100)]
    gevent.joinall(jobs, timeout=20)
    assert [job.value for job in jobs] == list(range(1, 101)), [job.exception for job in jobs]
    assert peer.call("back", 5) == 0
    assert peer.send("add", 1, 1).result(10) == 2
    try:
        peer.send("add", 1).result(10)
    except Exception as error:
        assert "missing" in str(error)
    gevent.sleep(0.01)
assert ticks
ticker.kill()
print("done")
"""


@pytest.mark.parametrize("when", ["first", "late"])
def test_calls_wait_without_holding_up_others(when: str) -> None:
    with ws_server() as server:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, when, server.url()],
            check=False,
            env=program_environment(),
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=50,
        )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")
