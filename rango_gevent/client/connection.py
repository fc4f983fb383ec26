"""One WebSocket connection as bare as it goes: the protocol is pure, the socket is a plain one.

For what holds many connections at once, each in a greenlet of its own, with the standard
library patched; `stream` is the client to work with. Data goes from the socket through the
sans-I/O layer of ``websockets`` to one function, which gets whole text messages.
"""

from __future__ import annotations

import socket
import ssl
import time
from contextlib import suppress
from typing import Callable

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.uri import parse_uri

from rango_gevent.client.model import ConnectionLost
from rango_gevent.client.wire import reason, refused

CUT = 1006  # RFC 6455 section 7.4.1: ended without a close frame

_READ_BYTES = 1 << 16
_OPEN_S = 10.0
_MESSAGE_BYTES = 32 << 20

Take = Callable[[bytes, int], object]


class Connection:
    """A connection.

    Args:
        url: whole URL, ``ws://`` or ``wss://``.
        token: JWT, empty for none.
        tls: how a server's certificate is checked.
        take: called with each text message and the time of its arrival, in ns of this
            process's monotonic clock.
    """

    def __init__(self, url: str, token: str, tls: ssl.SSLContext, take: Take) -> None:
        self._uri = parse_uri(url)
        self._protocol = ClientProtocol(self._uri, max_size=_MESSAGE_BYTES)
        self._token = token
        self._tls = tls
        self._take = take
        self._sock: socket.socket | None = None
        self._parts: list[bytes] = []

    def open(self) -> None:
        """Connect and shake hands.

        Raises:
            Refused: the server answered with another status than 101.
            ConnectionLost: there is no connection; the text says why.
        """
        try:
            self._sock = self._connected()
            self._shake_hands()
        except InvalidStatus as error:
            self.close()
            raise refused(error) from None
        except Exception as error:  # a peer that speaks something else gives errors of any kind
            self.close()
            raise ConnectionLost(_why(error)) from None

    def _connected(self) -> socket.socket:
        sock = socket.create_connection((self._uri.host, self._uri.port), _OPEN_S)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._uri.secure:
                return self._tls.wrap_socket(sock, server_hostname=self._uri.host)
        except BaseException:
            sock.close()
            raise
        return sock

    def _shake_hands(self) -> None:
        request = self._protocol.connect()
        if self._token:
            request.headers["Authorization"] = f"Bearer {self._token}"
        self._protocol.send_request(request)
        while self._protocol.state is State.CONNECTING and self._protocol.handshake_exc is None:
            self._exchange()
        if self._protocol.handshake_exc is not None:
            raise self._protocol.handshake_exc
        assert self._sock is not None
        self._sock.settimeout(None)  # silence is no failure from here on

    def serve(self) -> int:
        """Take messages until the connection ends.

        Returns:
            The close code, `CUT` without one.
        """
        with suppress(OSError):
            self._pass_on(time.monotonic_ns())  # what came with the response
            while self._exchange():
                self._pass_on(time.monotonic_ns())
        self.close()
        return self._protocol.close_code or CUT

    def _exchange(self) -> bool:
        """Send what is due and read once; tell whether there can be more."""
        assert self._sock is not None
        for data in self._protocol.data_to_send():
            if data:
                self._sock.sendall(data)
        if self._protocol.state is State.CLOSED:
            return False
        received = self._sock.recv(_READ_BYTES)
        if received:
            self._protocol.receive_data(received)
        else:
            self._protocol.receive_eof()
        return True

    def _pass_on(self, now_ns: int) -> None:
        """Give whole messages away; one may come in parts (RFC 6455 section 5.4)."""
        for frame in self._protocol.events_received():
            if not isinstance(frame, Frame) or frame.opcode not in (Opcode.TEXT, Opcode.CONT):
                continue
            if frame.fin and not self._parts:
                self._take(bytes(frame.data), now_ns)
                continue
            self._parts.append(bytes(frame.data))
            if frame.fin:
                self._take(b"".join(self._parts), now_ns)
                self._parts.clear()

    def leave(self) -> None:
        """Say goodbye; `serve` ends when the server has answered."""
        if self._protocol.state is State.OPEN and self._sock is not None:
            self._protocol.send_close(1000)
            with suppress(OSError):
                for data in self._protocol.data_to_send():
                    self._sock.sendall(data)

    def close(self) -> None:
        """Close the socket."""
        if self._sock is not None:
            self._sock.close()


def _why(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"TLS: the certificate does not hold ({error.verify_message})"
    if isinstance(error, ssl.SSLError):
        return f"TLS: {error.reason or reason(error)}"
    return reason(error)
