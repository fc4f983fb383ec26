"""Clients beside a flow: newcomers whose handshake and pings are timed, and some that read nothing.

A newcomer's own time on a busy machine is in the figures too, so they are upper bounds.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from types import TracebackType
from typing import Iterator

from bench import machine
from bench.report import Result
from bench.servers import HOST, Dial
from bench.tools import BenchError

_TIMEOUT_S = 10.0
_KEY = "dGhlIHNhbXBsZSBub25jZQ=="  # RFC 6455 section 1.3; any 16 bytes would do
_TEXT, _PING, _PONG = 1, 9, 10
_DEAF_BYTES = 4096  # so that it is the server that has to keep what they do not read


class Newcomer:
    """A WebSocket client that subscribes to nothing.

    Args:
        host: address.
        port: port.
        path: path.
        receive_bytes: size of the socket's receive buffer; 0: the system's choice.

    Attributes:
        port: its own port.
        handshake_s: seconds from the connect to the whole response.

    Raises:
        OSError: no connection, or no answer in time.
    """

    def __init__(self, host: str, port: int, path: str, receive_bytes: int = 0) -> None:
        self._unread = b""
        started = time.monotonic()
        self._sock = socket.socket()
        try:
            if receive_bytes:
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
            self._sock.settimeout(_TIMEOUT_S)
            self._sock.connect((host, port))
            self.port: int = self._sock.getsockname()[1]
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._shake_hands(host, port, path)
        except BaseException:
            self._sock.close()
            raise
        self.handshake_s = time.monotonic() - started

    def __enter__(self) -> Newcomer:
        """Do nothing: it is connected already."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave."""
        self._sock.close()

    def _shake_hands(self, host: str, port: int, path: str) -> None:
        request = (
            f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {_KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        self._sock.sendall(request.encode())
        while b"\r\n\r\n" not in self._unread:
            self._receive()
        head, _, self._unread = self._unread.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 101"):
            raise OSError(head.split(b"\r\n")[0].decode("latin-1"))

    def _receive(self) -> None:
        data = self._sock.recv(65536)
        if not data:
            raise ConnectionResetError("the server has closed the connection")
        self._unread += data

    def first_text(self) -> str:
        """Return the first message, the reply to the subscription of the handshake."""
        opcode, payload = self._next_frame()
        if opcode != _TEXT:
            raise OSError(f"the first frame is of kind {opcode}")
        return payload.decode()

    def ping_s(self) -> float:
        """Return the seconds until a ping frame is answered."""
        payload = os.urandom(8)
        return self._answered_s(_PING, payload, _PONG, payload)

    def text_ping_s(self) -> float:
        """Return the seconds until the message ``ping`` is answered."""
        return self._answered_s(_TEXT, b"ping", _TEXT, b"pong")

    def _answered_s(self, opcode: int, payload: bytes, answer: int, text: bytes) -> float:
        started = time.monotonic()
        mask = b"\0\0\0\0"  # a key like any other, and the payload stays as it is
        self._sock.sendall(bytes((0x80 | opcode, 0x80 | len(payload))) + mask + payload)
        while self._next_frame() != (answer, text):
            pass  # the reply to the subscription may come first
        return time.monotonic() - started

    def _next_frame(self) -> tuple[int, bytes]:
        while True:
            if len(self._unread) >= 2:
                size, at = self._unread[1] & 127, 2
                if size == 126:
                    size, at = int.from_bytes(self._unread[2:4], "big"), 4
                if len(self._unread) >= at + size:
                    opcode, payload = self._unread[0] & 15, self._unread[at : at + size]
                    self._unread = self._unread[at + size :]
                    return opcode, payload
            self._receive()


def standing(dial: Dial) -> str:
    """Return where a client stands that comes in now and could come back, percent-safe.

    Raises:
        BenchError: the server does not know.
    """
    with Newcomer(HOST, dial.port, coming_back(dial).path) as newcomer:
        at = json.loads(newcomer.first_text()).get("success", {}).get("at")
    if not isinstance(at, str):
        raise BenchError("the server keeps no history: RANGO_HISTORY_BYTES is 0, or it is another")
    return at


def coming_back(dial: Dial, since: str = "") -> Dial:
    """Return the way in for clients that come back by a position, or will."""
    more = f"resume=1&since={since}" if since else "resume=1"
    return dial._replace(path=f"{dial.path}{'&' if '?' in dial.path else '?'}{more}")


class Aside:
    """What is looked at while messages flow: nothing, here."""

    def look(self) -> None:
        """Look once."""

    def take(self, result: Result) -> None:
        """Set what was seen."""


class Newcomers(Aside):
    """Newcomers, one after the other.

    Args:
        dial: how they come in.
    """

    def __init__(self, dial: Dial) -> None:
        self._dial = dial
        self._handshakes_s: list[float] = []
        self._pings_s: list[float] = []

    def look(self) -> None:
        """Let one come, and take the slower of its two kinds of ping."""
        path = self._dial.path.partition("?")[0]
        with Newcomer(HOST, self._dial.port, path) as newcomer:
            self._handshakes_s.append(newcomer.handshake_s)
            self._pings_s.append(max(newcomer.ping_s(), newcomer.text_ping_s()))

    def take(self, result: Result) -> None:
        """Set the longest."""
        result.handshake_ms = 1e3 * max(self._handshakes_s)
        result.ping_ms = 1e3 * max(self._pings_s)
        result.probes = len(self._pings_s)


class Deaf(Aside):
    """Clients that subscribe and read nothing.

    Args:
        dial: how they came in.
        ports: their own ports.
    """

    def __init__(self, dial: Dial, ports: set[int]) -> None:
        self._dial = dial
        self._ports = ports
        self._most_bytes: int | None = None

    def look(self) -> None:
        """See what the kernel holds for them."""
        held_bytes = machine.send_memory_bytes(self._dial.port, self._ports)
        if held_bytes is not None:
            self._most_bytes = max(self._most_bytes or 0, held_bytes)

    def take(self, result: Result) -> None:
        """Set the most of it, or say why there is no figure."""
        self.look()  # a short run may have been over before the first bytes were kept
        if self._most_bytes is None:
            result.notes.append("the kernel's memory was not seen: that takes ss, of iproute2")
        else:
            result.kernel_kb_per_deaf = self._most_bytes / len(self._ports) / 1024


@contextlib.contextmanager
def deaf(dial: Dial, count: int) -> Iterator[Deaf]:
    """Connect clients that read nothing, for the length of a ``with`` block."""
    with contextlib.ExitStack() as stack:
        clients = [
            stack.enter_context(Newcomer(HOST, dial.port, dial.path, _DEAF_BYTES))
            for _ in range(count)
        ]
        yield Deaf(dial, {client.port for client in clients})
