"""One HTTP request on one connection: its head is read, it is answered, the connection ends.

Rules, so that one connection cannot hold up the others:

* One deadline over all of it, however slowly bytes come or go.
* A head is bounded, a body is never read, a second request never looked at.
* Between two reads everything else has its turn, even when input is always ready.

A pywsgi server starts an `Exchange` for each connection as its ``handler_class``. The server
itself must be an `ExchangeServer`, which says who may connect and how long they may take.
"""

from __future__ import annotations

import io
import socket
import time
from contextlib import suppress
from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from gevent.pywsgi import WSGIServer

from rango_gevent.errors import Refused
from rango_gevent.protocol import refusals
from rango_gevent.protocol.http import HEAD_END, MAX_HEAD_BYTES, has_body, parse_head
from rango_gevent.turns import give_way

# How long and how much is read of what the peer sends behind its request. Closing with unread
# input resets the connection, and the peer may lose the answer (RFC 9112 section 9.6).
_LINGER_S = 2.0
_LINGER_BYTES = 256 * 1024
_READ_BYTES = 64 * 1024

if TYPE_CHECKING:
    Headers = list[tuple[str, str]]


class ExchangeServer(WSGIServer):
    """A pywsgi server whose connections are admitted when they are accepted."""

    @property
    def timeout_s(self) -> float:
        """Return the seconds that a request and its answer may take together."""
        raise NotImplementedError

    def admits(self, sock: Any, peer: str) -> bool:
        """Count a connection in, or say that it is to be closed at once."""
        raise NotImplementedError

    def ended(self, sock: Any, peer: str) -> None:
        """Count it out."""
        raise NotImplementedError

    def do_handle(self, sock: Any, address: Any) -> None:
        """Start a connection's handler, or close it.

        It is decided here, since hundreds may wait for their handlers to start.
        """
        if self.admits(sock, peer_of(address)):
            super().do_handle(sock, address)
        else:
            sock.close()

    def do_close(self, sock: Any, address: Any) -> None:
        """End a handler: its socket is a client's by now, or to be closed."""
        self.ended(sock, peer_of(address))
        super().do_close(sock, address)


class Exchange:
    """One connection of an `ExchangeServer`."""

    def __init__(self, sock: Any, address: Any, server: ExchangeServer) -> None:
        self.socket = sock
        self.peer = peer_of(address)
        self.server = server
        self._end_s = time.monotonic() + server.timeout_s

    def handle(self) -> None:
        """Serve the connection; the server closes the socket."""
        try:
            if self._serve():
                self._linger()
        except socket.timeout:
            self.refuse(None, Refused(refusals.TOO_SLOW))
        except OSError:
            return  # lost

    def _serve(self) -> bool:
        """Read a request and answer it; False: there was none, or it is taken over."""
        environ: dict[str, str] | None = None
        try:
            head, early = self._read_head()
            if not head:
                return False
            environ = parse_head(head)
            if self.takes(environ, early):
                return False
            if environ["REQUEST_METHOD"] in ("GET", "HEAD") and has_body(environ):
                raise Refused(refusals.BODY)
        except Refused as refused:
            self.refuse(environ, refused)
            body = refused.text.encode() + b"\n"
            headers = [*text_headers(body), *refused.refusal.headers]
            self._send(refused.refusal.status, headers, body)
        else:
            self._call(environ)
        return True

    def _read_head(self) -> tuple[bytes, bytes]:
        """Return the head of a request and what came right behind it; empty at an end.

        Raises:
            Refused: it has no end within the bound.
        """
        read = self._receive(MAX_HEAD_BYTES)
        head, end, early = read.partition(HEAD_END)
        while not end:
            if len(read) >= MAX_HEAD_BYTES:
                raise Refused(refusals.HEAD_TOO_LARGE)
            give_way()
            more = self._receive(MAX_HEAD_BYTES - len(read))
            if not more:
                return b"", b""
            read += more
            head, end, early = read.partition(HEAD_END)
        return head, early

    def _receive(self, size: int) -> bytes:
        self.socket.settimeout(self._left_s())
        data: bytes = self.socket.recv(size)
        return data

    def _left_s(self) -> float:
        """Return the seconds until the deadline.

        Raises:
            socket.timeout: it is over, even if there is always something to read.
        """
        left_s = self._end_s - time.monotonic()
        if left_s <= 0:
            raise socket.timeout("too slow")
        return left_s

    def takes(self, environ: dict[str, str], early: bytes) -> bool:
        """Take the connection over for another protocol; False: it is a plain request.

        Raises:
            Refused: it asks for one and is not accepted.
        """
        return False

    def refuse(self, environ: dict[str, str] | None, refused: Refused) -> None:
        """Take note of a refusal."""

    def answered(self, environ: dict[str, str], status: int) -> None:
        """Take note of an application's answer."""

    def _call(self, environ: dict[str, str]) -> None:
        """Let the application answer (PEP 3333)."""
        started: list[tuple[int, Headers]] = []

        def start_response(status: str, headers: Headers, exc_info: Any = None, /) -> Any:
            started.append((int(status[:3]), headers))

        full = self.server.get_environ()
        full.update(environ, REMOTE_ADDR=self.peer, **{"wsgi.input": io.BytesIO()})
        body = b"".join(self.server.application(full, start_response))
        status, headers = started[-1]
        self.answered(environ, status)
        self._send(status, headers, b"" if environ["REQUEST_METHOD"] == "HEAD" else body)

    def _send(self, status: int, headers: Headers, body: bytes) -> None:
        fields = [*headers, ("Date", formatdate(usegmt=True)), ("Connection", "close")]
        lines = [f"HTTP/1.1 {status_line(status)}", *(f"{name}: {value}" for name, value in fields)]
        self.socket.settimeout(self._left_s())
        self.socket.sendall("\r\n".join([*lines, "", ""]).encode("latin-1") + body)

    def _linger(self) -> None:
        """Let the peer read the answer: wait for its end, and read a bounded part of the rest."""
        self.socket.shutdown(socket.SHUT_WR)
        self._end_s = min(self._end_s, time.monotonic() + _LINGER_S)
        left = _LINGER_BYTES
        with suppress(socket.timeout):
            while left > 0:
                size = len(self._receive(_READ_BYTES))
                if not size:
                    return
                left -= size
                give_way()


def peer_of(address: Any) -> str:
    """Return the address of the other end of a socket; empty for a Unix socket."""
    return str(address[0]) if isinstance(address, tuple) else ""


def status_line(status: int) -> str:
    """Return a status with its reason phrase."""
    return f"{status} {HTTPStatus(status).phrase}"


def text_headers(body: bytes) -> Headers:
    """Return the headers of a plain text."""
    return [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))]
