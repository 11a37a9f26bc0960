"""The acts of the demo, one method each: what is done to the server, and what is measured of the connections."""

from __future__ import annotations

import math
import threading
import time
from typing import TextIO

import pace
from audit import Audit, Track, seconds_until
from calls import Calls
from feed_process import HOST, FeedProcess
from leaks import LeakGuard
from measures import SETTLE, ask_together, left_after, open_sockets, own_threads, stuck_ports
from pace import Pace
from promises import COME_BACK, NOTICE_FREEZE, NOTICE_KILL, Numbers
from timeline import Look, Timeline

import connman
from connman import Connection, State
from connman.errors import ConnectionClosed, ConnmanError
from connman.transport.login import Channel

TOO_MANY = 0.2  # seconds in which sockets that should not be there would show up at the server
PATIENCE = 10.0  # seconds after which a promise counts as broken and the show goes on


class Show:
    """The whole demo on one pool and one server process.

    Threads: one; the connections' callbacks go to the audit.
    """

    def __init__(self, feed: FeedProcess, seconds: Pace, guard: LeakGuard, out: TextIO) -> None:
        self._feed = feed
        self._seconds = seconds
        self._guard = guard
        self._groups: list[list[Connection]] = []
        self.timeline = Timeline(out, guard, self._look)
        self._audit = Audit(guard, self.timeline.note)
        self._numbers = Numbers()
        self._pause = threading.Event()  # never set: to wait for a time, and for Ctrl-C meanwhile

    def run(self) -> Numbers:
        """Play all acts; return what was measured."""
        with self.timeline, stuck_ports() as (silent_port, refusing_port):
            mine = open_sockets()
            self._serve()
            self._one_for_all()
            self._open_pool()
            self._show_wrong_pass()
            self._kill_and_refuse()
            self._go_deaf()
            self._come_back()
            self._freeze()
            self._call_each_other()
            self._get_stuck(silent_port, refusing_port)
            self._disconnect_all()
            self._listen_to_silence()
            self._count(mine)
        return self._numbers

    def _look(self) -> Look:
        states = [[conn.state for conn in group] for group in self._groups]
        return Look(states, self._audit.sum("messages"), self._audit.news())

    def _wait(self, seconds: float) -> None:
        self._pause.wait(seconds)

    def _log_in(self, channel: Channel) -> None:
        """Show the pass; what comes behind the welcome is for `on_data`."""
        channel.send(self._guard.secret)
        channel.recv()

    @property
    def _pool(self) -> list[Connection]:
        return self._groups[0]

    def _tracks(self) -> list[Track]:
        return [self._audit.track(conn) for conn in self._pool]

    # The acts.

    def _serve(self) -> None:
        self.timeline.act(f"A pool of {pace.POOL_SIZE} to a price feed that wants a pass first")
        self._feed.start("serve")
        options = {**pace.options(), **self._audit.callbacks(), "handshake": self._log_in}
        pool = connman.create_pool("feed", url=self._feed.url, size=pace.POOL_SIZE, **options)
        self._groups.append(pool.get_connections())
        self.timeline.say(
            f"server process {self._feed.pid} listens on {self._feed.url}; nothing is dialled yet"
        )

    def _one_for_all(self) -> None:
        """Ask for one connection from many threads at the same moment."""
        conn, numbers = self._pool[0], self._numbers
        self.timeline.say(f"{pace.CALLERS} threads ask for the first connection")
        futures, served = ask_together(conn, pace.CALLERS)
        numbers.shared_futures, numbers.callers_served = futures, served
        self._wait(TOO_MANY)
        numbers.shared_sockets = self._feed.count("socket")
        self.timeline.say(f"{served} threads hold it; the server saw {numbers.shared_sockets} socket")

    def _open_pool(self) -> None:
        self.timeline.say("the other connections of the pool are opened")
        pool = connman.get_pool("feed")
        assert pool is not None
        pool.connect()
        self._audit.wait(lambda: all(track.opens for track in self._tracks()), PATIENCE)
        self._wait(self._seconds.calm)

    def _show_wrong_pass(self) -> None:
        def show_another(channel: Channel) -> None:
            channel.send("open sesame")
            channel.recv()

        self.timeline.say("one more comes with a wrong pass")
        conn = connman.connect(
            self._feed.url, handshake=show_another, **pace.options(), **self._audit.callbacks()
        )
        try:
            conn.wait_open(PATIENCE)
        except ConnmanError as error:
            self._guard.look(f"{error!r} {error}")
            if isinstance(error.__cause__, ConnectionClosed):
                self._numbers.refused_code = error.__cause__.code
        self._numbers.refused_attempts = conn.stats.failed_attempts + conn.stats.opens
        self._numbers.attempts = self._numbers.refused_attempts

    def _kill_and_refuse(self) -> None:
        self.timeline.act("The server is killed (SIGKILL), then nothing listens")
        began = time.monotonic()
        self._feed.kill()
        self._numbers.noticed_kill = self._seconds_to_lose_all(began, NOTICE_KILL)
        self._wait(self._seconds.refusing)

    def _go_deaf(self) -> None:
        self.timeline.act(
            f"It hangs: TCP is accepted, the upgrade never answered (open_timeout={pace.OPEN_TIMEOUT:g})"
        )
        self._feed.start("deaf")
        timed_out = [len(track.timeouts) for track in self._tracks()]
        self._audit.wait(
            lambda: all(len(t.timeouts) > n for t, n in zip(self._tracks(), timed_out, strict=True)), PATIENCE
        )
        self._wait(self._seconds.deaf)

    def _come_back(self) -> None:
        self.timeline.act("It is back")
        self._feed.kill()
        self._feed.start("serve")
        self._numbers.came_back = self._seconds_to_open_all(time.monotonic(), "listens again")
        self._wait(self._seconds.calm)

    def _freeze(self) -> None:
        limits = f"ping_interval={pace.PING_INTERVAL:g}, ping_timeout={pace.PING_TIMEOUT:g}"
        self.timeline.act(f"It freezes (SIGSTOP): its sockets stay open and say nothing ({limits})")
        began = time.monotonic()
        self._feed.freeze()
        self._numbers.noticed_freeze = self._seconds_to_lose_all(began, NOTICE_FREEZE)
        self._wait(self._seconds.frozen)
        self._feed.thaw()
        back = self._seconds_to_open_all(time.monotonic(), "goes on (SIGCONT)")
        self._numbers.came_back = max(self._numbers.came_back, back)
        self._wait(self._seconds.calm)

    def _call_each_other(self) -> None:
        """Call a process that only dials out, which calls back, while the relay between the two is killed."""
        self.timeline.act("Two processes that only dial out call each other through a relay, which is killed")
        secret = self._guard.secret
        with (
            FeedProcess(secret, "calls_server.py") as relay,
            FeedProcess(secret, "calls_server.py", relay.port) as device,
        ):
            device.start("device")
            relay.start("relay")
            with Calls(relay.url, self._guard) as calls:
                calls.seconds_until_both_kinds_go_on(0.0, PATIENCE)
                self._wait(self._seconds.calls)
                self.timeline.say(f"{calls.answered:,} answered; the relay is killed (SIGKILL)")
                calls.note_break()
                relay.kill()
                self._wait(self._seconds.calls)
                relay.start("relay")
                back = calls.seconds_until_both_kinds_go_on(time.monotonic(), COME_BACK + PATIENCE)
                self.timeline.say(f"the relay listens again; calls go on after {back:.2f} s")
                self._wait(self._seconds.calls)
        self._count_calls(calls, back, device.count("ran twice"))
        self.timeline.say(f"{calls.answered:,} answered, {calls.called_back:,} of them called back")

    def _count_calls(self, calls: Calls, back: float, twice: int) -> None:
        numbers = self._numbers
        numbers.calls_answered, numbers.calls_back, numbers.calls_wrong = (
            calls.answered, calls.called_back, calls.wrong,
        )  # fmt: skip
        numbers.calls_lost, numbers.calls_twice, numbers.calls_cut = calls.lost, twice, calls.cut
        numbers.calls_ended, numbers.calls_resumed = calls.slowest_end, back

    def _get_stuck(self, silent_port: int, refusing_port: int) -> None:
        """Dial where a connection is accepted, or the SYN dropped, and nothing else happens; and where it is refused."""
        self.timeline.act("The end comes while some are in the middle of opening")
        options = {**pace.options(), **self._audit.callbacks(), "open_timeout": 30.0}
        for port, count in ((silent_port, pace.DEAF_DIALS), (refusing_port, pace.REFUSED_DIALS)):
            self._groups.append([connman.connect(f"ws://{HOST}:{port}/", **options) for _ in range(count)])
        self._wait(self._seconds.ending)

    def _disconnect_all(self) -> None:
        numbers = self._numbers
        numbers.ended_open = sum(conn.is_open for conn in self._pool)
        numbers.ended_mid_open = sum(conn.state is State.CONNECTING for conn in self._groups[1])
        self.timeline.say("disconnect_all()")
        began = time.monotonic()
        connman.disconnect_all(timeout=5.0)
        numbers.disconnect_all = time.monotonic() - began
        self._audit.demand_silence()
        numbers.threads_left = left_after(SETTLE, own_threads)
        self.timeline.say(f"it took {numbers.disconnect_all:.3f} s")

    def _listen_to_silence(self) -> None:
        sockets = self._feed.count("socket")
        self._wait(self._seconds.silence)
        self._numbers.late_sockets = self._feed.count("socket") - sockets
        self._feed.kill()

    # Measuring.

    def _seconds_to_lose_all(self, began: float, bound: float) -> float:
        seconds = seconds_until(
            self._audit, began, lambda: [track.lost_at for track in self._tracks()], bound + PATIENCE
        )
        self.timeline.say(f"noticed by all after {seconds:.3f} s")
        return seconds

    def _seconds_to_open_all(self, began: float, what: str) -> float:
        self.timeline.say(f"the server {what}")
        seconds = seconds_until(
            self._audit, began, lambda: [track.opened_at for track in self._tracks()], COME_BACK + PATIENCE
        )
        self.timeline.say(f"all open again after {seconds:.2f} s")
        return seconds

    def _count(self, mine: set[tuple[int, int]]) -> None:
        """Add up what callbacks, connections, server and process have to show at the end."""
        numbers, audit = self._numbers, self._audit
        stats = [conn.stats for conn in self._pool]
        for name in ("messages", "gaps", "repeats", "out_of_order", "delays", "wrong_delays", "opens"):
            setattr(numbers, name, audit.sum(name))
        numbers.resets_of_open = audit.sum("losses")
        numbers.unpaired = sum(
            not track.opens == track.losses == known.opens
            for track, known in zip(self._tracks(), stats, strict=True)
        )
        numbers.losses = sum(known.losses for known in stats)
        numbers.losses_caused = 2 * len(stats)  # SIGKILL and SIGSTOP, each for all
        numbers.attempts += sum(known.opens + known.failed_attempts for known in stats)
        numbers.callback_errors = sum(known.callback_errors for known in stats)
        numbers.sockets, numbers.passes = self._feed.count("socket"), self._feed.count("pass")
        outages = [outage for track in self._tracks() for outage in track.outages]
        numbers.longest_outage = max(outages, default=math.nan)
        timeouts = [seconds for track in self._tracks() for seconds in track.timeouts]
        numbers.deaf_attempts, numbers.longest_attempt = len(timeouts), max(timeouts, default=math.nan)
        numbers.late_callbacks = audit.sum("late")
        numbers.sockets_left = left_after(SETTLE, lambda: open_sockets() - mine)
        numbers.leaks = self._guard.count
