"""``python -m tests.torment.crowd OPTIONS``: the good clients, in a process of their own.

Two receive 50 messages a second that carry the time of their publishing, one sends a text
``ping`` ten times a second, one makes a new handshake and one asks for /healthz five times a
second. What they wait is the verdict's latency. Each line of standard input is an order, each
answered by one line of JSON: ``mark`` begins to measure anew, ``report`` says what was seen.

A message that has not come by the time of the report is as late as it is old; so is an answer.
"""

from __future__ import annotations

import contextlib
import json
import struct
import sys
import threading
import time
from typing import Any, Callable, Iterator

import amqp

from tests.support import PING, PONG, TEXT, RawSocket, broker_channel, frame, publish, wait_for

RECEIVERS = 2
_RATE = 50.0
_PING_EVERY_S = 0.1
_NEWCOMER_EVERY_S = 0.2
_TICK_S = 0.005
_PAUSE_S = 0.02
_MARK = b'{"at_ns":'


class Series:
    """Waits of one kind: those that are over, and the one that goes on."""

    def __init__(self) -> None:
        self.worst_ns = 0
        self.began_ns = 0

    def time(self, what: Callable[[], object]) -> None:
        """Do something and note how long it took; what never ends grows until the report."""
        self.began_ns = time.monotonic_ns()
        what()
        self.worst_ns = max(self.worst_ns, time.monotonic_ns() - self.began_ns)
        self.began_ns = 0

    def mark(self) -> None:
        """Begin anew; a wait that goes on counts on."""
        self.worst_ns = 0

    @property
    def worst_ms(self) -> float:
        """Return the longest wait so far."""
        began = self.began_ns
        now_ns = time.monotonic_ns() - began if began else 0
        return max(self.worst_ns, now_ns) / 1e6


class Receiver:
    """A client that receives the timed messages, and comes back when it is closed."""

    def __init__(self, crowd: Crowd) -> None:
        self.crowd = crowd
        self.waits_ns: dict[int, int] = {}
        self.closed = 0
        self._sock = crowd.connect(f"/public?stream={crowd.stream}")
        crowd.start(self._run)

    def _run(self) -> None:
        while True:
            with contextlib.suppress(OSError, EOFError, AssertionError):
                self._listen()
            self.closed += 1
            self._sock = self.crowd.connect_at_last(f"/public?stream={self.crowd.stream}")

    def _listen(self) -> None:
        head = b'{"' + self.crowd.stream.encode() + b'":' + _MARK
        buffer, sock = bytearray(self._sock.waiting), self._sock.sock
        sock.settimeout(None)
        while data := sock.recv(1 << 18):
            now_ns = time.monotonic_ns()
            buffer += data
            del buffer[: self._take(buffer, head, now_ns)]

    def _take(self, buffer: bytearray, head: bytes, now_ns: int) -> int:
        """Note the whole messages of a buffer; return where they end."""
        end = 0
        for opcode, start, end in whole_frames(buffer):
            if buffer.startswith(head, start):
                at_ns, number = buffer[start + len(head) : end - 2].split(b',"n":')
                self.waits_ns[int(number)] = now_ns - int(at_ns)
            elif opcode == PING:
                self._sock.send(frame(PONG, bytes(buffer[start:end])))
        return end


def whole_frames(buffer: bytearray) -> Iterator[tuple[int, int, int]]:
    """Yield opcode, start and end of the payload of each whole frame of a server."""
    end = 0
    while len(buffer) - end >= 2:
        size, start = buffer[end + 1], end + 2
        if size > 125:
            form, width = ("!H", 2) if size == 126 else ("!Q", 8)
            if len(buffer) < start + width:
                return
            (size,) = struct.unpack_from(form, buffer, start)
            start += width
        if len(buffer) < start + size:
            return
        opcode, end = buffer[end] & 0x0F, start + size
        yield opcode, start, end


class Crowd:
    """All good clients, and what they publish to themselves.

    Args:
        options: ``port``, ``health_port``, ``exchange``, ``stream``, ``source``, and
            ``settle_s``, how long a report waits for what is on its way.
    """

    def __init__(self, options: dict[str, Any]) -> None:
        self.port: int = options["port"]
        self.health_port: int = options["health_port"]
        self.exchange: str = options["exchange"]
        self.stream: str = options["stream"]
        self.source: str = options["source"]
        self._settle_s: float = options["settle_s"]
        self.pings, self.newcomers, self.health, self.machine = (Series() for _ in range(4))
        self._sent_ns: list[int] = []
        self._since = 0
        self._ping_closed = 0
        self.receivers = [Receiver(self) for _ in range(RECEIVERS)]
        self._pinger = self.connect("/public")
        self._marked_closed = 0
        for work in (self._publish, self._ping, self._come, self._ask, self._tick):
            self.start(work)

    def start(self, work: Callable[[], None]) -> None:
        """Begin work that goes on for as long as the process lives."""
        threading.Thread(target=work, daemon=True).start()

    def connect(self, path: str) -> RawSocket:
        """Open a connection."""
        return RawSocket(self.port, source=self.source).open(path)

    def connect_at_last(self, path: str) -> RawSocket:
        """Open a connection, however often that takes."""
        while True:
            with contextlib.suppress(OSError, EOFError, AssertionError):
                return self.connect(path)
            time.sleep(_PAUSE_S)  # the pace of trying, not a wait for something

    def _publish(self) -> None:
        began = time.monotonic()
        while True:
            number = len(self._sent_ns)
            at_ns = time.monotonic_ns()
            body = f'{{"at_ns":{at_ns},"n":{number}}}'
            try:
                publish(self.exchange, f"public.{self.stream}", body)
                self._sent_ns.append(at_ns)
            except (OSError, amqp.AMQPError):
                broker_channel.cache_clear()
                began = time.monotonic() - number / _RATE + _PAUSE_S
            time.sleep(max(0.0, began + (number + 1) / _RATE - time.monotonic()))

    def _ping(self) -> None:
        while True:
            try:
                self.pings.time(self._ping_once)
            except (OSError, EOFError, AssertionError):
                self._ping_closed += 1
                self._pinger = self.connect_at_last("/public")
            time.sleep(_PING_EVERY_S)

    def _ping_once(self) -> None:
        self._pinger.send(frame(TEXT, b"ping"))
        assert self._pinger.read_text() == "pong"

    def _come(self) -> None:
        while True:
            self.newcomers.time(lambda: self.connect_at_last("/public").sock.close())
            time.sleep(_NEWCOMER_EVERY_S)

    def _ask(self) -> None:
        while True:
            self.health.time(self._health_at_last)
            time.sleep(_NEWCOMER_EVERY_S)

    def _health_at_last(self) -> None:
        while True:
            with contextlib.suppress(OSError, EOFError, ValueError, IndexError):
                if self._health_status() == 200:
                    return
            time.sleep(_PAUSE_S)

    def _health_status(self) -> int:
        with RawSocket(self.health_port, source=self.source) as sock:
            sock.send(b"GET /healthz HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
            return sock.response()[0]

    def _tick(self) -> None:
        """Notice how long this process was kept from running."""
        while True:
            began_ns = time.monotonic_ns()
            time.sleep(_TICK_S)
            over_ns = time.monotonic_ns() - began_ns - int(_TICK_S * 1e9)
            self.machine.worst_ns = max(self.machine.worst_ns, over_ns)

    @property
    def _closed(self) -> int:
        return self._ping_closed + sum(receiver.closed for receiver in self.receivers)

    def mark(self) -> dict[str, float]:
        """Begin to measure anew."""
        self._since = len(self._sent_ns)
        self._marked_closed = self._closed
        for series in (self.pings, self.newcomers, self.health, self.machine):
            series.mark()
        return {}

    def report(self) -> dict[str, float]:
        """Wait for what is on its way, in bounds, and say what was seen since the mark."""
        end = len(self._sent_ns)
        numbers = range(self._since, end)
        waits = [receiver.waits_ns for receiver in self.receivers]
        with contextlib.suppress(AssertionError):
            wait_for(lambda: all(n in own for own in waits for n in numbers), self._settle_s)
        now_ns = time.monotonic_ns()
        worst_ns = max(
            (own.get(n, now_ns - self._sent_ns[n]) for own in waits for n in numbers), default=0
        )
        return {
            "latency_ms": worst_ns / 1e6,
            "ping_ms": self.pings.worst_ms,
            "newcomer_ms": self.newcomers.worst_ms,
            "health_ms": self.health.worst_ms,
            "machine_ms": self.machine.worst_ms,
            "messages": float(len(numbers) * len(waits)),
            "lost": float(sum(n not in own for own in waits for n in numbers)),
            "closed": float(self._closed - self._marked_closed),
        }


def main() -> None:
    """Obey until standard input ends."""
    sys.setswitchinterval(0.001)
    crowd = Crowd(json.loads(sys.argv[1]))
    wait_for(lambda: all(receiver.waits_ns for receiver in crowd.receivers), 20, "first messages")
    orders = {"mark": crowd.mark, "report": crowd.report}
    print("{}", flush=True)
    for line in sys.stdin:
        print(json.dumps(orders[line.strip()]()), flush=True)


if __name__ == "__main__":
    main()
