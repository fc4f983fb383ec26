"""A client beside a flow: how long its handshake and its pings take, or one that reads nothing.

Its own time on a busy machine is in the figures too, so they are upper bounds.
"""

from __future__ import annotations

import os
import socket
import time
from types import TracebackType

_TIMEOUT_S = 10.0
_KEY = "dGhlIHNhbXBsZSBub25jZQ=="  # RFC 6455 section 1.3; any 16 bytes would do
_TEXT, _PING, _PONG = 1, 9, 10


class Newcomer:
    """A WebSocket client that subscribes to nothing.

    Args:
        host: address.
        port: port.
        path: path.
        receive_bytes: size of the socket's receive buffer; 0: the system's choice.

    Attributes:
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
