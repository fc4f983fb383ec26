"""The bare connection, against a server that sends what a test says, cut as it says."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import re
import socket
import ssl
import threading
from typing import Iterator

import pytest

from rango_gevent.client.connection import CUT, Connection
from rango_gevent.client.wire import ConnectionLost
from rango_gevent.errors import Refused
from rango_gevent.protocol import frames

HOST = "127.0.0.1"
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3


class Peer:
    """A server of one client.

    Attributes:
        url: where it listens.
        request: the client's handshake.
        answers: what the client sent after it.
    """

    def __init__(self, head: bytes, data: bytes, portion: int) -> None:
        self._listener = socket.create_server((HOST, 0))
        self.url = f"ws://{HOST}:{self._listener.getsockname()[1]}/public?stream=a.b"
        self._head, self._data, self._portion = head, data, portion
        self.request = self.answers = b""
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        sock, _ = self._listener.accept()
        sock.settimeout(60)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._listener, sock, contextlib.suppress(OSError):
            while b"\r\n\r\n" not in self.request:
                self.request += sock.recv(4096)
            found = re.search(rb"(?i)sec-websocket-key: (\S+)", self.request)
            accept = base64.b64encode(hashlib.sha1((found[1] if found else b"") + _GUID).digest())
            whole = self._head.replace(b"ACCEPT", accept) + self._data
            for at in range(0, len(whole), self._portion):
                sock.sendall(whole[at : at + self._portion])
            sock.shutdown(socket.SHUT_WR)
            while data := sock.recv(4096):
                self.answers += data


SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: ACCEPT\r\n\r\n"
)


@contextlib.contextmanager
def opened(peer: Peer, token: str = "") -> Iterator[tuple[Connection, list[bytes]]]:
    """Give a connection to a peer, and the texts that come."""
    texts: list[bytes] = []
    context = ssl.create_default_context()
    connection = Connection(peer.url, token, context, lambda text, now_ns: texts.append(text))
    try:
        connection.open()
        yield connection, texts
    finally:
        connection.close()
        peer.thread.join(60)


@pytest.mark.parametrize("portion", [1, 7, 10**6])
def test_messages_come_whole_however_they_are_cut(portion: int) -> None:
    """In parts, with a ping between them, and right behind the response: text is text."""
    data = b"".join(
        (
            frames.text(b"first"),
            b"\x01\x02th",  # RFC 6455 section 5.4: a text in three parts
            b"\x00\x01e",
            frames.ping(b"there?"),
            b"\x80\x04 end",
            b"\x82\x01x",  # no text
            frames.text(b"y" * 300),
            frames.close(4008, "slow client"),
        )
    )
    peer = Peer(SWITCH, data, portion)
    with opened(peer, "abc") as (connection, texts):
        assert connection.serve() == 4008
    assert texts == [b"first", b"the end", b"y" * 300]
    assert b"GET /public?stream=a.b HTTP/1.1\r\n" in peer.request
    assert b"Authorization: Bearer abc\r\n" in peer.request
    assert peer.answers[:1] == b"\x8a", "the pong"
    assert b"\x88" in peer.answers, "the close"


def test_a_connection_that_is_cut_has_the_code_for_it() -> None:
    """The end of the stream without a close frame is told from a close."""
    with opened(Peer(SWITCH, frames.text(b"only"), 10**6)) as (connection, texts):
        assert connection.serve() == CUT
    assert texts == [b"only"]


def test_a_refusal_has_its_status_and_the_server_s_words() -> None:
    """Another status than 101 is an error with the body's first line."""
    head = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 5\r\n\r\nfull\n"
    refused = pytest.raises(Refused, match="refused with HTTP 503: full")
    with refused as caught, opened(Peer(head, b"", 10**6)):
        pass
    assert caught.value.status == 503


@pytest.mark.parametrize(
    "head", [b"", b"SSH-2.0-x\r\n\r\n", SWITCH.replace(b"ACCEPT", b"nonsense"), SWITCH[:60]]
)
def test_what_is_no_websocket_server_is_told(head: bytes) -> None:
    """Whatever else answers, there is one kind of error, with a text."""
    with pytest.raises(ConnectionLost, match=r"\w"), opened(Peer(head, b"", 10**6)):
        pass
