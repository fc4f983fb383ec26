"""Clients for the soak, on gevent: each a greenlet with a bare socket.

Well-behaved ones check what they get; the others do what clients of the field do: subscribe
and unsubscribe at random, stop reading, come and go, vanish without a word.
"""

from __future__ import annotations

import json
import os
import random
import struct
from collections import Counter
from typing import Any, Callable

import gevent
from gevent import socket
from gevent.timeout import Timeout

_KEY = "dGhlIHNhbXBsZSBub25jZQ=="
_TEXT, _CLOSE, _PING, _PONG = 1, 8, 9, 10
_CONNECT_TIMEOUT_S = 20.0
_DEAF_SHARE = 0.03


class Lost(Exception):
    """The server ended the connection."""


class Connection:
    """A WebSocket connection, as much of one as the soak needs."""

    def __init__(self, port: int, path: str, headers: str = "") -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=_CONNECT_TIMEOUT_S)
        self.close_code: int | None = None
        self._buffer = b""
        try:
            self._shake_hands(port, path, headers)
        except BaseException:
            self.sock.close()  # a greenlet that is killed here would keep it open
            raise

    def _shake_hands(self, port: int, path: str, headers: str) -> None:
        self.sock.sendall(
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {_KEY}\r\n"
            f"{headers}\r\n".encode()
        )
        head = self._until(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 101"):
            raise Lost(head[:40].decode("latin-1"))
        self.sock.settimeout(None)

    def _until(self, end: bytes) -> bytes:
        while end not in self._buffer:
            self._more()
        head, _, self._buffer = self._buffer.partition(end)
        return head

    def _more(self) -> None:
        try:
            data = self.sock.recv(65536)
        except OSError as error:
            raise Lost(str(error)) from None
        if not data:
            raise Lost("end of stream")
        self._buffer += data

    def receive(self) -> bytes:
        """Return the next text message; pings are answered."""
        while True:
            opcode, payload = self._frame()
            if opcode == _TEXT:
                return payload
            if opcode == _PING:
                self.send(payload, _PONG)
            elif opcode == _CLOSE:
                self.close_code = struct.unpack("!H", payload[:2])[0] if payload else 1005
                self.send(payload[:2], _CLOSE)

    def _frame(self) -> tuple[int, bytes]:
        while len(self._buffer) < 2:
            self._more()
        size, start = self._buffer[1], 2
        if size > 125:
            start = 4 if size == 126 else 10
            while len(self._buffer) < start:
                self._more()
            size = int.from_bytes(self._buffer[2:start], "big")
        while len(self._buffer) < start + size:
            self._more()
        opcode = self._buffer[0] & 0x0F
        payload = self._buffer[start : start + size]
        self._buffer = self._buffer[start + size :]
        return opcode, payload

    def send(self, payload: bytes, opcode: int = _TEXT) -> None:
        """Send a small message, masked with a key of zeros."""
        size = bytes((0x80 | len(payload),))
        if len(payload) > 125:
            size = bytes((0x80 | 126,)) + struct.pack("!H", len(payload))
        try:
            self.sock.sendall(bytes((0x80 | opcode,)) + size + bytes(4) + payload)
        except OSError as error:
            raise Lost(str(error)) from None

    def request(self, action: str, names: list[str]) -> None:
        """Subscribe or unsubscribe."""
        self.send(json.dumps({"event": action, "streams": names}).encode())

    def reset(self) -> None:
        """Vanish: the server gets a reset."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def close(self) -> None:
        """Close the socket."""
        self.sock.close()


class Swarm:
    """All clients of a soak.

    Attributes:
        seen: what happened, by word.
        errors: what must not happen: gaps, duplicates, refusals; the first few.
    """

    def __init__(self, port: int, streams: list[str], seed: int) -> None:
        self.port = port
        self.streams = streams
        self.seen: Counter[str] = Counter()
        self.errors: list[str] = []
        self.stopping = False
        self._random = random.Random(seed)
        self._greenlets: list[gevent.Greenlet[..., None]] = []

    def start(self, steady: int, unruly: int) -> None:
        """Start clients: well-behaved ones, and an even mix of the others."""
        kinds: list[Callable[[random.Random], None]] = [self._flapper, self._lagger, self._vanisher]
        for index in range(steady + unruly):
            own = random.Random(self._random.random())
            kind = self._steady if index < steady else kinds[index % len(kinds)]
            self._greenlets.append(gevent.spawn(self._live, kind, own))
            if index % 50 == 49:
                gevent.sleep(0.05)

    def stop(self, timeout_s: float) -> None:
        """Let all clients leave."""
        self.stopping = True
        gevent.killall(self._greenlets, timeout=timeout_s)

    def _live(self, kind: Callable[[random.Random], None], own: random.Random) -> None:
        while not self.stopping:
            try:
                kind(own)
            except Lost as lost:
                self.seen["lost"] += 1
                self._note_refusal(str(lost))
                gevent.sleep(own.uniform(0.2, 1.0))
            except OSError:
                self.seen["connect_failed"] += 1
                gevent.sleep(own.uniform(0.2, 1.0))

    def _note_refusal(self, text: str) -> None:
        if text.startswith("HTTP/1.1 "):
            self.error(f"refused: {text}")

    def error(self, text: str) -> None:
        """Note what must not happen."""
        self.seen["errors"] += 1
        if len(self.errors) < 20:
            self.errors.append(text)

    def _connect(self, names: list[str]) -> Connection:
        self.seen["connected"] += 1
        return Connection(self.port, "/public?stream=" + ",".join(names))

    def _steady(self, own: random.Random) -> None:
        """Stay, and see every message of two streams once and in order."""
        names = own.sample(self.streams, 2)
        connection = self._connect(names)
        last: dict[str, tuple[int, int]] = {}
        try:
            while True:
                self._check(json.loads(connection.receive()), last)
        except Lost:
            self.error(f"a well-behaved client was closed: {connection.close_code}")
            raise
        finally:
            connection.close()

    def _check(self, message: dict[str, Any], last: dict[str, tuple[int, int]]) -> None:
        """Within one life of the broker numbers follow each other."""
        for name, body in message.items():
            if name == "success":
                continue
            epoch, number = body["e"], body["n"]
            known = last.get(name)
            if known is not None and known[0] == epoch and number != known[1] + 1:
                self.error(f"{name}: {number} after {known[1]} in epoch {epoch}")
            last[name] = (epoch, number)
            self.seen["checked"] += 1

    def _flapper(self, own: random.Random) -> None:
        """Subscribe and unsubscribe at random for a while, then leave."""
        connection = self._connect([])
        try:
            with Timeout(own.uniform(2, 10), False):
                while True:
                    action = own.choice(["subscribe", "subscribe", "unsubscribe"])
                    connection.request(action, own.sample(self.streams, own.randint(1, 5)))
                    for _ in range(own.randint(1, 20)):
                        connection.receive()
        finally:
            connection.close()

    def _lagger(self, own: random.Random) -> None:
        """Subscribe to much, then read nothing for a while; some for so long that they are cut."""
        is_deaf = own.random() < _DEAF_SHARE
        connection = self._connect(own.sample(self.streams, len(self.streams) if is_deaf else 10))
        try:
            connection.receive()
            gevent.sleep(own.uniform(35, 60) if is_deaf else own.uniform(1, 8))
            with Timeout(2, False):
                while True:
                    connection.receive()
        finally:
            connection.close()

    def _vanisher(self, own: random.Random) -> None:
        """Connect, see some messages, send half a frame perhaps, and vanish."""
        connection = self._connect(own.sample(self.streams, 3))
        try:
            for _ in range(own.randint(0, 10)):
                connection.receive()
            if own.random() < 0.5:
                connection.sock.sendall(os.urandom(1))
        finally:
            connection.reset()
