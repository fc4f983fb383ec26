"""What an attacker's process has at hand: the gateway's addresses, and sockets in numbers.

No greenlets here: plain blocking sockets, and one thread that takes what many of them get. All
attackers but those that say otherwise come from addresses of 127.0.1.0/24, so that the proxies'
own bounds on one address do not take the edge off.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import random
import select
import socket
import threading
import time
from pathlib import Path
from typing import Any, Callable, Iterable, Iterator, Mapping, Sequence

import amqp
from bench.machine import family, rss_kb

from tests.support import RawSocket, broker_channel, handshake, publish, sample_of, text_frame

_SOURCES = 250
_DEFLATE = {"Sec-WebSocket-Extensions": "permessage-deflate"}
_MESSAGE_BYTES = 8000  # of the 8192 that a client's message may have
_WAIT_S = 20.0
_TRY_S = 0.05
_BODIES = 16
_BURST_PER_S = 15_000.0  # faster ones wait in the broker, which would be measured with the gateway
_BURST_STEP = 50
_PINGS_BYTES = 100


class Drain:
    """Takes what sockets get, and counts it; in a thread of its own."""

    def __init__(self) -> None:
        self._poll = select.epoll()
        self._sockets: dict[int, socket.socket] = {}
        self.bytes: dict[int, int] = {}
        self._stopping = False
        threading.Thread(target=self._run, daemon=True).start()

    def add(self, sock: socket.socket) -> socket.socket:
        """Take what this one gets from now on."""
        self._sockets[sock.fileno()] = sock
        self.bytes[sock.fileno()] = 0
        self._poll.register(sock, select.EPOLLIN)
        return sock

    def _run(self) -> None:
        while not self._stopping:
            for number, _ in self._poll.poll(0.05):
                with contextlib.suppress(OSError, KeyError):
                    size = len(self._sockets[number].recv(1 << 18))
                    self.bytes[number] += size
                    if not size:
                        self._poll.unregister(number)

    def stop(self) -> None:
        """Take nothing more: what comes now stays at the gateway."""
        self._stopping = True

    def close(self) -> None:
        """End the connections too."""
        self.stop()
        for sock in self._sockets.values():
            sock.close()

    @property
    def total(self) -> int:
        """Return the bytes taken so far."""
        return sum(self.bytes.values())

    def wait_until_quiet(self, quiet_s: float = 0.5, timeout_s: float = _WAIT_S) -> None:
        """Wait until nothing but a ping or two has come for a while."""
        deadline, seen, since = time.monotonic() + timeout_s, -_PINGS_BYTES - 1, 0.0
        while time.monotonic() < deadline:
            if self.total - seen > _PINGS_BYTES:
                seen, since = self.total, time.monotonic()
            elif time.monotonic() - since > quiet_s:
                return
            time.sleep(_TRY_S)


class Target:
    """The gateway under attack.

    Attributes:
        port: of its WebSocket listener, or of the proxy before it.
        gateway_port: of its WebSocket listener itself.
        front: that proxy's name, or ``none``.
        metrics_port: of its metrics listener.
        exchange: exchange that it consumes.
        stream: stream that the good clients read.
        pid: its process, or its workers' parent.
        log_path: its log.
        seconds: how long to go on, where that is a choice.
        size: numbers of the attack's form, full or short.
        token: one that the gateway takes.
        found: what the attack itself measured, by name.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.port: int = options["port"]
        self.gateway_port: int = options["gateway_port"]
        self.front: str = options["front"]
        self.metrics_port: int = options["metrics_port"]
        self.exchange: str = options["exchange"]
        self.stream: str = options["stream"]
        self.pid: int = options["pid"]
        self.log_path = Path(options["log_path"])
        self.seconds: float = options["seconds"]
        self.size: dict[str, int] = options["size"]
        self.compression: bool = options["compression"]
        self.token: str = options["token"]
        self.found: dict[str, float] = {}
        self._sources = itertools.cycle(f"127.0.1.{number + 1}" for number in range(_SOURCES))
        self._held: list[socket.socket] = []

    def begin(self) -> None:
        """Let the good clients measure anew: what came before was preparation."""
        print(json.dumps({"begin": True}), flush=True)

    def note(self, text: str) -> None:
        """Say something that belongs to the row, in words."""
        if text:
            print(json.dumps({"note": text}), flush=True)

    def until_over(self) -> Iterable[int]:
        """Count for as long as the attack is to last."""
        end = time.monotonic() + self.seconds
        for number in itertools.count():
            if time.monotonic() > end:
                return
            yield number

    def hold(self) -> None:
        """Do nothing for as long as the attack is to last."""
        time.sleep(self.seconds)

    # -- sockets ------------------------------------------------------------------------

    def connect(
        self, port: int = 0, source: str = "", receive_buffer: int | None = None
    ) -> socket.socket:
        """Open a TCP connection; it stays open until the process ends.

        Raises:
            OSError: refused.
        """
        own = source or next(self._sources)
        sock = RawSocket(port or self.port, receive_buffer, own).sock
        self._held.append(sock)
        return sock

    def connect_many(self, count: int, port: int = 0, source: str = "") -> list[socket.socket]:
        """Open connections, those that are let in."""
        found = []
        for _ in range(count):
            with contextlib.suppress(OSError):
                found.append(self.connect(port, source))
        return found

    def websocket(
        self, path: str = "/public", receive_buffer: int | None = None, behind: bytes = b""
    ) -> socket.socket:
        """Open a WebSocket connection; what comes after the response's head is left unread.

        Raises:
            OSError: refused.
        """
        sock = self.connect(receive_buffer=receive_buffer)
        sock.sendall(self.head(path) + behind)
        take_head(sock)
        return sock

    def websockets(
        self, count: int, path: Callable[[int], str], receive_buffer: int | None = None
    ) -> list[socket.socket]:
        """Open WebSocket connections, those that are let in."""
        found = []
        for number in range(count):
            with contextlib.suppress(OSError):
                found.append(self.websocket(path(number), receive_buffer))
        return found

    def head(self, path: str) -> bytes:
        """Return the bytes of a handshake."""
        return handshake(path, _DEFLATE if self.compression else None)

    # -- the broker and the gateway's own words -----------------------------------------

    def publish(
        self, key: str, body: str | bytes, headers: Mapping[str, Any] | None = None
    ) -> None:
        """Publish to the gateway's exchange, as soon as there is a broker.

        Raises:
            OSError, AMQPError: there was none for long.
        """
        end = time.monotonic() + _WAIT_S
        while True:
            try:
                publish(self.exchange, key, body, headers)
                return
            except (OSError, amqp.AMQPError):
                if time.monotonic() > end:
                    raise
                broker_channel.cache_clear()
                time.sleep(_TRY_S)

    def burst(self, names: Iterable[str], bodies: Iterable[str]) -> None:
        """Publish to public streams, about as fast as a broker passes messages on."""
        began = time.monotonic()
        for number, (name, body) in enumerate(zip(names, bodies)):
            self.publish(f"public.{name}", body)
            if number % _BURST_STEP == 0:
                time.sleep(max(0.0, began + number / _BURST_PER_S - time.monotonic()))

    def scrape(self) -> str:
        """Return the metrics."""
        with RawSocket(self.metrics_port) as sock:
            sock.sock.settimeout(60)
            sock.send(b"GET /metrics HTTP/1.0\r\nHost: h\r\n\r\n")
            return sock.read_to_end().partition(b"\r\n\r\n")[2].decode()

    def metric(self, name: str, **labels: str) -> float:
        """Return one sample."""
        return sample_of(self.scrape(), name, **labels)

    def rss_mb(self) -> float:
        """Return the resident memory of all processes of the gateway."""
        return rss_kb(family(self.pid)) / 1024


def bodies(size: int) -> Iterator[str]:
    """Return JSON bodies of a size in bytes, without end, that compress to three quarters."""
    own = random.Random(size)
    texts = [base64.b64encode(own.randbytes(size * 3 // 4)).decode() for _ in range(_BODIES)]
    return itertools.cycle(f'{{"pad":"{text}"}}' for text in texts)


def take_head(sock: socket.socket) -> bytes:
    """Read the head of a response that accepts a handshake, and nothing behind it.

    Raises:
        OSError: it was refused.
    """
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        ahead = sock.recv(512, socket.MSG_PEEK)
        if not ahead:
            raise ConnectionError("no answer")
        end = (head + ahead).find(b"\r\n\r\n")
        head += sock.recv(end + 4 - len(head) if end >= 0 else len(ahead))
    if not head.startswith(b"HTTP/1.1 101"):
        raise ConnectionError(head[:40].decode("latin-1"))
    return head


def subscribe_frames(names: Sequence[str], event: str = "subscribe") -> list[bytes]:
    """Return the requests that it takes to subscribe to so many names."""
    found: list[bytes] = []
    part: list[str] = []
    size = 0
    for name in names:
        needed = len(json.dumps(name)) + 2
        if size + needed > _MESSAGE_BYTES:
            found.append(text_frame({"event": event, "streams": part}))
            part, size = [], 0
        part.append(name)
        size += needed
    return [*found, text_frame({"event": event, "streams": part})]


def send_what_goes(sock: socket.socket, data: bytes, timeout_s: float = 1.0) -> bool:
    """Send bytes as far as the other side takes them; False: it has ended the connection."""
    sock.settimeout(timeout_s)
    try:
        sock.sendall(data)
    except socket.timeout:
        return True
    except OSError:
        return False
    return True
