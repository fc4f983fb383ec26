"""One request a connection: bounded in bytes and in time, whatever the other end does."""

from __future__ import annotations

import socket
from typing import Any, Iterator

import gevent
import pytest
from gevent import socket as gsocket
from gevent.pywsgi import WSGIServer

from rango_gevent.errors import Refused
from rango_gevent.protocol.http import MAX_HEAD_BYTES
from rango_gevent.server.exchange import Exchange

REQUEST = b"GET /a?b HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture(autouse=True)
def bounded() -> Iterator[None]:
    """Nothing here may take long."""
    with gevent.Timeout(60):
        yield


class Server:
    """What an exchange needs of its server; the application tells what it was asked."""

    def __init__(self, timeout_s: float = 30.0, body: bytes = b"hello") -> None:
        self.timeout_s = timeout_s
        self.body = body
        self.asked: list[dict[str, Any]] = []
        self.get_environ = WSGIServer(("127.0.0.1", 0), self.application).get_environ

    def application(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        """Answer."""
        self.asked.append(environ)
        start_response("200 OK", [("Content-Length", str(len(self.body)))])
        return [self.body]


class Served(Exchange):
    """An exchange that notes what it hands over and what it refuses."""

    def __init__(self, sock: Any, server: Any, takes: bool) -> None:
        super().__init__(sock, ("192.0.2.1", 1), server)
        self.taken: list[bytes] = []
        self.refused: list[str] = []
        self._takes = takes

    def takes(self, environ: dict[str, str], early: bytes) -> bool:
        """Take the connection over."""
        if self._takes:
            self.taken.append(early)
        return self._takes

    def refuse(self, environ: dict[str, str] | None, refused: Refused) -> None:
        """Note it."""
        self.refused.append(refused.reason)


class Room:
    """An exchange under way and the other end of its socket."""

    def __init__(self, server: Server | None = None, takes: bool = False) -> None:
        near, far = socket.socketpair()
        near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        self.peer = gsocket.socket(fileno=far.detach())
        self._near = gsocket.socket(fileno=near.detach())
        self.server = server or Server()
        self.exchange = Served(self._near, self.server, takes)
        self.greenlet = gevent.spawn(self._run)

    def _run(self) -> None:
        self.exchange.handle()
        self._near.close()

    def answer(self) -> tuple[bytes, bytes]:
        """Return head and body of all that comes until the end."""
        data = b""
        while more := self.peer.recv(65536):
            data += more
        head, _, body = data.partition(b"\r\n\r\n")
        return head, body


def test_the_application_gets_the_request() -> None:
    """It is an application of PEP 3333; its answer goes out, and then comes the end."""
    room = Room()
    room.peer.sendall(REQUEST)
    head, body = room.answer()
    assert head.startswith(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nDate: ")
    assert head.endswith(b"\r\nConnection: close")
    assert body == b"hello"
    (environ,) = room.server.asked
    assert (environ["PATH_INFO"], environ["QUERY_STRING"]) == ("/a", "b")
    assert environ["REMOTE_ADDR"] == "192.0.2.1"
    assert environ["wsgi.input"].read() == b""


def test_a_head_may_come_byte_by_byte() -> None:
    """And is the same."""
    room = Room()
    for position in range(len(REQUEST)):
        room.peer.sendall(REQUEST[position : position + 1])
        gevent.sleep(0)
    assert room.answer()[1] == b"hello"


@pytest.mark.parametrize("early", [b"", b"x", b"x" * 9000, b"x" * 100_000])
def test_what_comes_behind_a_head_is_bounded(early: bytes) -> None:
    """No more than one reading of the head brings is handed over; the rest waits in the socket."""
    room = Room(takes=True)
    room.peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    room.peer.sendall(REQUEST + early)
    room.greenlet.join()
    (taken,) = room.exchange.taken
    assert early.startswith(taken)
    assert len(REQUEST + taken) <= MAX_HEAD_BYTES
    assert room.server.asked == []


def test_a_head_is_bounded() -> None:
    """Past it there is an answer, however much is still to come."""
    room = Room()
    room.peer.sendall(b"GET / HTTP/1.1\r\nX: " + b"a" * MAX_HEAD_BYTES)
    assert room.answer()[0].startswith(b"HTTP/1.1 431 ")
    assert room.exchange.refused == ["head_too_large"]


def test_a_head_of_the_bound_is_taken() -> None:
    """To the byte."""
    room = Room()
    filled = b"GET / HTTP/1.1\r\nHost: x\r\nX: "
    room.peer.sendall(filled + b"a" * (MAX_HEAD_BYTES - len(filled) - 4) + b"\r\n\r\n")
    assert room.answer()[1] == b"hello"


@pytest.mark.parametrize("sent", [b"", b"GET", REQUEST[:-1]])
def test_an_end_without_a_request_is_nothing(sent: bytes) -> None:
    """A port that is looked at, or a client that gave up."""
    room = Room()
    room.peer.sendall(sent)
    room.peer.shutdown(socket.SHUT_WR)
    assert room.answer() == (b"", b"")
    assert room.exchange.refused == []


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\n"])
def test_a_request_that_does_not_come_is_given_up(sent: bytes) -> None:
    """Without an answer: nobody can tell what it was to be."""
    room = Room(Server(timeout_s=0.05))
    room.peer.sendall(sent)
    assert room.answer() == (b"", b"")
    assert room.exchange.refused == ["too_slow"]


def test_bytes_that_always_come_are_given_up_too() -> None:
    """The deadline is over all of it."""
    room = Room(Server(timeout_s=0.05))
    while not room.greenlet.ready():
        room.peer.sendall(b"X")
        gevent.sleep(0.001)
    assert room.exchange.refused == ["too_slow"]


def test_an_answer_that_nobody_takes_is_given_up() -> None:
    """It has the rest of the same time."""
    room = Room(Server(timeout_s=0.05, body=b"x" * 1_000_000))
    room.peer.sendall(REQUEST)
    room.greenlet.join()
    assert room.exchange.refused == ["too_slow"]


def test_a_peer_that_does_not_leave_is_left() -> None:
    """When it has its answer."""
    room = Room(Server(timeout_s=0.5))  # from the request to the end, on a busy machine too
    room.peer.sendall(REQUEST)
    room.greenlet.join()
    assert room.answer()[1] == b"hello"
    assert room.exchange.refused == []


def test_an_answer_survives_what_is_still_sent() -> None:
    """A body that nobody reads must not reset the connection under the answer."""
    room = Room()
    room.peer.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\n\r\n")
    room.peer.sendall(b"x" * 200_000)
    assert room.answer()[1] == b"hello"


def test_what_is_still_sent_is_bounded() -> None:
    """Somebody who never stops is cut off."""
    room = Room()
    room.peer.sendall(REQUEST)
    with pytest.raises(OSError, match=r"reset|pipe"):
        room.peer.sendall(b"x" * 10_000_000)


@pytest.mark.parametrize(
    ("method", "status"), [(b"GET", b"413"), (b"HEAD", b"413"), (b"POST", b"200")]
)
def test_a_body_is_refused(method: bytes, status: bytes) -> None:
    """Other methods are the application's to refuse."""
    room = Room()
    room.peer.sendall(method + b" / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n")
    assert room.answer()[0].startswith(b"HTTP/1.1 " + status)


def test_head_gets_no_body() -> None:
    """Whatever the application gives."""
    room = Room()
    room.peer.sendall(REQUEST.replace(b"GET", b"HEAD"))
    head, body = room.answer()
    assert b"Content-Length: 5" in head
    assert body == b""
