"""The process that sends alerts: gathers what the gateway's processes hand to it, and says when.

``python -m rango_gevent.alerts.courier`` has a socket as its standard input, and messages there
are JSON: first the settings, then lines, at last a goodbye. It is shared by all workers of one
parent. Each sink has a box of its own: the first line leaves it after a second, so that others
join, and then at most one message in RANGO_ALERT_INTERVAL_S. What a sink did not take stays in its
box. When all who hold the other end are gone without a goodbye, that is told as well, and it ends.
"""

from __future__ import annotations

import json
import logging
import os
import select
import signal
import socket
import time
from collections import Counter
from typing import Any, Callable

from rango_gevent import logs
from rango_gevent.alerts.deliver import Delivery, Job
from rango_gevent.alerts.letter import plain, write
from rango_gevent.alerts.tally import CRITICAL, RECOVERED, Incidents, Line, Tally
from rango_gevent.urls import mask_sink

log = logging.getLogger("rango_gevent.alerts")

DELIVERED = "delivered"
FAILED = "failed"
OUTCOMES = (DELIVERED, FAILED)
MAX_MESSAGE = 64 * 1024
_GATHER_S = 1.0
_TURN_S = 0.25
_GRACE_S = 2.0  # for a process to start, beside the time that a sink has
_LAST_TURN_S = 0.02
_LAST_S = 3.0  # for the last message: whoever restarts the gateway may wait for us


class Box:
    """What one sink is due.

    Args:
        number: of the sink, from 1.
        url: of the sink.
        given: the settings.
        count: called with the outcome of each delivery.
        now: monotonic time in seconds.
    """

    def __init__(
        self,
        number: int,
        url: str,
        given: dict[str, Any],
        count: Callable[[str], None],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = f"alert sink {number} ({mask_sink(url)})"
        self._url = url
        self._given = given
        self._count = count
        self._now = now
        self._tally = Tally(given["lines"])
        self._under_way: Delivery | None = None
        self._sent: Tally | None = None
        self._deadline = 0.0
        self._due_at = 0.0
        self._next_at = 0.0
        self._failures = 0
        self._is_last = False
        self._gave_up = False

    @property
    def under_way(self) -> Delivery | None:
        """The delivery that goes on."""
        return self._under_way

    @property
    def is_empty(self) -> bool:
        """Nothing is to be told."""
        return not self._tally and not self._sent

    def add(self, line: Line) -> None:
        """Put a line into the box."""
        if not self._tally:
            self._due_at = self._now() + _GATHER_S
        self._tally.add(line)

    def add_others(self, times: int) -> None:
        """Note lines of which only the number is known."""
        self._tally.others += times

    def check(self) -> None:
        """Look whether the URL is one that a library knows; what is wrong is logged."""
        self._begin(None)

    def last_turns(self) -> bool:
        """Send what there is without waiting for more, once; tell whether that goes on."""
        self._is_last = True
        self.turn()
        return self._under_way is not None

    def turn(self) -> None:
        """Do what is due; never waits."""
        now = self._now()
        if self._under_way is not None:
            self._look(self._under_way, now)
        if self._under_way is None and self._tally and self._is_due(now):
            self._next_at = now + self._given["interval_s"]
            self._begin(self._tally.take())

    def _is_due(self, now: float) -> bool:
        if self._is_last:
            return not self._gave_up
        return now >= self._due_at and now >= self._next_at

    def _begin(self, sent: Tally | None) -> None:
        given = self._given
        letter = None if sent is None else write(sent, given["host"])
        self._sent = sent
        self._deadline = self._now() + given["timeout_s"] + _GRACE_S
        self._under_way = Delivery(Job(self._url, given["host"], given["timeout_s"], letter))

    def _look(self, delivery: Delivery, now: float) -> None:
        """See how a delivery goes."""
        if select.select([delivery], [], [], 0)[0]:
            self._ended(delivery.problem())
        elif now >= self._deadline:
            delivery.kill()
            self._ended(f"it takes longer than {self._given['timeout_s']:g} s")

    def _ended(self, problem: str) -> None:
        sent, self._sent, self._under_way = self._sent, None, None
        if problem:
            self._failures += 1
            self._gave_up = self._is_last
            self._count(FAILED)
            log.error("%s: %s; %s", self.name, plain(problem), _cure(sent is None))
        elif self._failures and sent is not None:
            log.info("%s takes alerts again, after %d failures", self.name, self._failures)
            self._failures = 0
        if sent is None:
            return
        if problem:
            self._tally.give_back(sent.lines, sent.others)
            self._next_at = self._now() + self._given["interval_s"]
        else:
            self._count(DELIVERED)

    def close(self) -> None:
        """Give up what is under way."""
        if self._under_way is not None:
            self._under_way.kill()


def _cure(is_check: bool) -> str:
    if is_check:
        return "correct RANGO_ALERT_URLS; `rango alert --test` tries it"
    return "what it was due is kept, and tried again"


class Courier:
    """Takes messages from one socket and fills the boxes of all sinks.

    Args:
        sock: the gateway's processes are at its other end.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._boxes: list[Box] = []
        self._incidents = Incidents()
        self._outcomes: Counter[str] = Counter()
        self._parent = os.getppid()

    def run(self) -> None:
        """Work until the others are gone."""
        said_goodbye = False
        while True:
            message = self._next()
            if message == b"":
                break
            if message is not None:
                said_goodbye = self._take(json.loads(message))
            self._turn()
        if not said_goodbye:
            who = f"the gateway, process {self._parent}"
            text = f"{who}, is gone without a goodbye: killed, or crashed"
            self._tell(Line(CRITICAL, "gone", text, time.time(), time.time(), 1, frozenset()))
        self._finish()

    def _next(self) -> bytes | None:
        """Return a message, nothing when they are gone, None when none comes for a while."""
        waits: list[socket.socket | Delivery] = [self._sock]
        waits += [box.under_way for box in self._boxes if box.under_way]
        if self._sock not in select.select(waits, [], [], _TURN_S)[0]:
            return None
        try:
            return self._sock.recv(MAX_MESSAGE, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        except ConnectionError:  # the last of them left while something was on its way to it
            return b""

    def _take(self, said: dict[str, Any]) -> bool:
        """Do what a message says; tell whether it was a goodbye."""
        kind = said.pop("kind")
        if kind == "settings":
            self._begin(said)
        elif kind == "others":
            for box in self._boxes:
                box.add_others(said["times"])
        elif kind == CRITICAL:
            line = _line(CRITICAL, said)
            self._incidents.opened(line.key, said["pid"])
            self._tell(line)
        elif kind == RECOVERED:
            alive = frozenset(filter(_runs, self._incidents.processes(said["key"])))
            if self._incidents.is_over(said["key"], said["pid"], alive):
                self._tell(_line(RECOVERED, said))
        return bool(kind == "goodbye")

    def _begin(self, given: dict[str, Any]) -> None:
        if self._boxes:
            return  # another process of the same gateway
        logs.configure(given["level"], given["format"])
        if given["shows_pid"]:
            logs.show_pid()
        count = self._count
        self._boxes = [Box(i, url, given, count) for i, url in enumerate(given["urls"], 1)]
        for box in self._boxes:
            box.check()

    def _tell(self, line: Line) -> None:
        for box in self._boxes:
            box.add(line)

    def _count(self, outcome: str) -> None:
        self._outcomes[outcome] += 1

    def _turn(self) -> None:
        for box in self._boxes:
            box.turn()
        if self._outcomes:
            self._report()

    def _report(self) -> None:
        """Hand what was counted to whichever process reads it first; all of them are summed."""
        try:
            self._sock.send(json.dumps(self._outcomes).encode(), socket.MSG_DONTWAIT)
        except BlockingIOError:
            return  # nobody looks at present
        except OSError:
            pass  # they are gone
        self._outcomes.clear()

    def _finish(self) -> None:
        """Deliver what is left, in bounded time."""
        deadline = time.monotonic() + _LAST_S
        going = self._boxes
        while going and time.monotonic() < deadline:
            going = [box for box in going if box.last_turns()]
            time.sleep(_LAST_TURN_S)
        for box in self._boxes:
            box.close()
            if not box.is_empty:
                log.error("%s: what it was due is lost: the gateway has ended", box.name)


def _line(kind: str, said: dict[str, Any]) -> Line:
    pids = frozenset([said["pid"]])
    return Line(
        kind, said["key"], said["text"], said["first_s"], said["last_s"], said["times"], pids
    )


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def main() -> None:
    """Serve the socket that is standard input."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the gateway ends us, by going
    Courier(socket.socket(fileno=0)).run()


if __name__ == "__main__":
    main()
