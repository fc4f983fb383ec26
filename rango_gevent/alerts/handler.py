"""The gateway's end of alerts: a log handler that counts, and the courier that it hands lines to.

Nothing here waits. A line is put into a socket's buffer, or, when that is full or much is said at
once, counted until the next `Alerts.flush`. It works with and without gevent: the parent of
workers, which is not patched, starts the courier that they share.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
import time
from collections import Counter
from contextlib import suppress
from typing import Any, Callable, NamedTuple

from rango_gevent.alerts.courier import MAX_MESSAGE
from rango_gevent.alerts.letter import plain
from rango_gevent.alerts.tally import CRITICAL, RECOVERED, Line, Tally

log = logging.getLogger(__name__)

_MAX_LINES = 200
_RESTART_S = 5.0
_BUFFER_BYTES = 256 * 1024
_GOODBYE_S = 4.0
_POLL_S = 0.02


class AlertSettings(NamedTuple):
    """What the courier is told.

    Attributes:
        urls: of the sinks; none: there are no alerts.
        host: name of the gateway in messages.
        interval_s: seconds from one message to the next.
        timeout_s: seconds for a sink to take one.
        lines: different lines in one.
        level: log level, as `rango_gevent.logs` names them.
        format: log format.
        shows_pid: the courier's log lines have its process id.
    """

    urls: tuple[str, ...]
    host: str
    interval_s: float
    timeout_s: float
    lines: int
    level: str
    format: str
    shows_pid: bool


class Alerts(logging.Handler):
    """Hands CRITICAL lines and recoveries to a courier.

    Args:
        settings: what to tell the courier.
        logger: who says that the courier was started again.
        now: monotonic time in seconds.

    Attributes:
        rest_s: seconds for which lines are gathered before they are handed over; the first goes
            at once. 0 while nobody calls `flush`.
        handed: lines that the courier got.
        delivered: messages by outcome, of those whose outcome this process was told.
    """

    def __init__(
        self,
        settings: AlertSettings,
        logger: logging.Logger = log,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self._log = logger
        self._settings = settings
        self.rest_s = 0.0
        self._now = now
        self._tally = Tally(_MAX_LINES)
        self._next_at = 0.0
        self._sock: socket.socket | None = None
        self._pid = 0
        self._owner = 0
        self._started_at = 0.0
        self.handed = 0
        self.delivered: Counter[str] = Counter()

    # -- what is said -------------------------------------------------------------------

    def emit(self, record: logging.LogRecord) -> None:
        """Count a record, if it is one for people."""
        if record.levelno >= logging.CRITICAL:
            key = getattr(record, "incident", "") or f"{record.name}: {record.msg}"
            kind = CRITICAL
        else:
            key, kind = getattr(record, "recovered", ""), RECOVERED
        if not key or not self._settings.urls:
            return
        text, at_s = plain(_text(record)), record.created
        pids = frozenset([os.getpid()])
        self._tally.add(Line(kind, plain(key), text, at_s, at_s, 1, pids))
        if self._now() >= self._next_at:
            self.flush()

    def flush(self) -> None:
        """Hand over what was counted, as far as there is room; take what was delivered."""
        self._next_at = self._now() + self.rest_s
        self._listen()
        if not self._tally:
            return
        waiting = self._tally.take()
        lines, others = waiting.lines, waiting.others
        for index, line in enumerate(lines):
            if not self._hand(line.kind, line.times, **_fields(line)):
                self._tally.give_back(lines[index:], others)
                return
        if others and not self._hand("others", others, times=others):
            self._tally.give_back([], others)

    def _hand(self, kind: str, weight: int, **fields: Any) -> bool:
        """Send a message; False when there is no room for it at present."""
        try:
            self._send(kind, **fields)
        except BlockingIOError:
            return False
        except OSError:  # the courier is gone
            if self._now() - self._started_at < _RESTART_S:
                return False
            self._log.error("the process that sends alerts is gone: started again")
            self.start()
            return self._hand(kind, weight, **fields)
        self.handed += weight
        return True

    def _send(self, kind: str, **fields: Any) -> None:
        if self._sock is None:
            raise ConnectionError
        message = json.dumps({"kind": kind, **fields}).encode()
        self._sock.send(message, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)

    def _listen(self) -> None:
        """Count what the courier says of its deliveries."""
        with suppress(OSError, ValueError):
            while self._sock is not None:
                said = self._sock.recv(MAX_MESSAGE, socket.MSG_DONTWAIT)
                if not said:
                    return
                self.delivered.update(json.loads(said))

    def adopt(self, rest_s: float) -> None:
        """Begin to count anew, in a process where `flush` is called every ``rest_s`` seconds."""
        self.rest_s = rest_s
        self.handed = 0
        self.delivered.clear()
        self._log = log

    # -- the courier --------------------------------------------------------------------

    def start(self) -> None:
        """Start the courier, if there are sinks."""
        if not self._settings.urls:
            return
        self._leave()
        self._started_at = self._now()
        self._owner = os.getpid()
        self._sock, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
            # not by gevent's subprocess, and not by fork: the parent of workers has neither
            self._pid = os.posix_spawn(
                sys.executable,
                [sys.executable, "-m", "rango_gevent.alerts.courier"],
                os.environ,
                file_actions=[(os.POSIX_SPAWN_DUP2, theirs.fileno(), 0)],
            )
        self._sock.setblocking(False)
        self._send("settings", **self._settings._asdict())

    def _leave(self) -> bool:
        """Close our end; tell whether the courier has ended."""
        if self._sock is not None:
            self._sock.close()
            self._sock = None
        try:
            return self._owner != os.getpid() or os.waitpid(self._pid, os.WNOHANG)[0] != 0
        except ChildProcessError:  # somebody else has heard of its end
            return True

    def goodbye(self) -> None:
        """Hand over what is left and let the courier end in peace; waits for its last message.

        In a process that shares the courier of its parent only what is left is handed over.
        """
        self.flush()
        if self._sock is None or self._owner != os.getpid():
            return
        with suppress(OSError):
            self._send("goodbye")
        deadline = self._now() + _GOODBYE_S
        while not self._leave() and self._now() < deadline:
            time.sleep(_POLL_S)


def _fields(line: Line) -> dict[str, Any]:
    fields = line._asdict()
    del fields["kind"]
    fields["pid"] = min(fields.pop("pids"))
    return fields


def _text(record: logging.LogRecord) -> str:
    """Return what a record says, with its exception's last words."""
    error = record.exc_info[1] if record.exc_info else None
    words = f": {type(error).__name__}: {error}" if error else ""
    return f"{record.getMessage()}{words}"
