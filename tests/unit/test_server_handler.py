"""The gateway's port: a handshake is decided once, and what is refused is told, counted, logged."""

from __future__ import annotations

import logging
import socket
from types import SimpleNamespace
from typing import Any, Iterator

import pytest
from delivery_room import LIMITS, Room, delivery_room
from gevent import socket as gsocket

from rango_gevent.auth.origin import parse_origins
from rango_gevent.auth.tokens import Identity
from rango_gevent.errors import TokenError
from rango_gevent.server.handler import GatewayHandler, GatewayServer
from rango_gevent.server.handshake import Handshake

HEAD = (
    "GET {path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{fields}\r\n"
)


class Someone:
    """Knows one token, and counts what it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def identify(self, token: str) -> Identity:
        """Return who it is."""
        self.asked += 1
        if token != "good":
            raise TokenError("the token has expired", "expired")
        return Identity("ID1", "", None)


class Door:
    """A server without a listener before a real registry."""

    def __init__(self, room: Room) -> None:
        self.authenticator = Someone()
        self.registry = room.registry
        handshake = Handshake(
            self.authenticator,  # type: ignore[arg-type]  # what it asks of one
            parse_origins("", ""),
            LIMITS.session.names,
        )
        self.access = SimpleNamespace(handshake=handshake)
        self.settings = SimpleNamespace(handshake_timeout_s=5.0)
        app: Any = SimpleNamespace(gateway=self)
        self.server = GatewayServer(("127.0.0.1", 0), lambda *_: [], log=None, error_log=None)
        self.server.application = app

    def knock(self, path: str = "/public", *fields: str) -> bytes:
        """Send a handshake and return all that comes back, of a client its first bytes."""
        near, far = socket.socketpair()
        with gsocket.socket(fileno=far.detach()) as peer:
            lines = "".join(f"{field}\r\n" for field in fields)
            peer.sendall(HEAD.format(path=path, fields=lines).encode())
            peer.shutdown(socket.SHUT_WR)
            sock = gsocket.socket(fileno=near.detach())
            GatewayHandler(sock, ("192.0.2.1", 1), self.server).handle()
            sock.close()
            return peer.recv(65536)


@pytest.fixture
def door() -> Iterator[Door]:
    """A door to a room of its own."""
    with delivery_room() as room:
        yield Door(room)
        for client in room.registry:
            client.lost()


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What is logged."""
    monkeypatch.setattr(logging.getLogger("rango_gevent"), "propagate", True)
    caplog.set_level(logging.INFO, "rango_gevent.server")
    return lambda: [record.getMessage() for record in caplog.records]


def test_an_accepted_handshake_is_a_client(door: Door) -> None:
    """Its token is verified once."""
    assert door.knock("/private", "Authorization: bearer good").startswith(b"HTTP/1.1 101 ")
    assert door.registry.opened == 1
    assert door.authenticator.asked == 1


def test_a_refused_token_is_verified_once(door: Door, lines: Any) -> None:
    """It costs a signature each time; why it was refused is in the one line about it."""
    answer = door.knock("/private?x=secret", "Authorization: Bearer no.such.token")
    assert answer.startswith(b"HTTP/1.1 401 Unauthorized\r\n")
    assert door.authenticator.asked == 1
    assert door.registry.refused == {"bad_token": 1}
    assert lines() == ["GET /private 401 bad_token: expired"]


def test_a_foreign_origin_is_named(door: Door, lines: Any) -> None:
    """So that an operator sees which one to allow."""
    assert door.knock("/public", "Origin: https://shop.example").startswith(b"HTTP/1.1 403 ")
    assert lines() == ["GET /public 403 origin: 'https://shop.example'"]


def test_many_refusals_are_few_lines(door: Door, lines: Any) -> None:
    """Each is answered and counted all the same."""
    for _ in range(50):
        assert door.knock("/private").startswith(b"HTTP/1.1 401 ")
    assert door.registry.refused == {"no_token": 50}
    assert lines() == ["GET /private 401 no_token"]
