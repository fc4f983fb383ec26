"""A delivery room to test in: a real hub, dispatcher and registry, and clients over real sockets.

Everything runs under gevent in the test's own process, which is not patched: the classes take
what they need as arguments. The other end of each connection is a `Peer`, which reads frames
by an independent implementation of the protocol.
"""

from __future__ import annotations

import contextlib
import io
import json
import socket
import struct
from typing import Any, Callable, Iterator

import gevent
from gevent import socket as gsocket
from gevent.queue import SimpleQueue
from prometheus_client import Histogram
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame, Opcode
from websockets.protocol import CLIENT, OPEN, Protocol

from rango_gevent.auth.identity import Identity
from rango_gevent.delivery.admission import AdmissionLimits
from rango_gevent.delivery.connection import Connection
from rango_gevent.delivery.dispatcher import Dispatcher
from rango_gevent.delivery.heartbeat import Heartbeat
from rango_gevent.delivery.inbound import InboundLimits
from rango_gevent.delivery.registry import ClientLimits, Registry
from rango_gevent.delivery.sender import ConnectionLimits
from rango_gevent.delivery.session import Manner, SessionLimits
from rango_gevent.hub.history import History
from rango_gevent.hub.hub import Hub, HubLimits
from rango_gevent.model import Event, Segment
from rango_gevent.protocol.messages import NameLimits

TIME_LIMIT_S = 60
RESPONSE = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"
LIMITS = ClientLimits(
    admission=AdmissionLimits(connections=1000, per_address=0, per_uid=0),
    connection=ConnectionLimits(
        outbox_bytes=64 * 1024, slow_after_s=0.0, write_timeout_s=30.0, send_buffer_bytes=0
    ),
    session=SessionLimits(
        requests_per_s=1000.0,
        requests_burst=1000,
        reply_bytes_per_s=1e9,
        names=NameLimits(max_names=20, max_name_bytes=64),
    ),
    inbound=InboundLimits(message_bytes=4096, fragments=8),
    close_timeout_s=5.0,
)


def limits(**changes: Any) -> ClientLimits:
    """Return the limits with some of them changed, whichever part they are in."""
    connection = {k: v for k, v in changes.items() if k in ConnectionLimits._fields}
    session = {k: v for k, v in changes.items() if k in SessionLimits._fields}
    others = {k: v for k, v in changes.items() if k in ClientLimits._fields}
    assert len(connection) + len(session) + len(others) == len(changes), changes
    return LIMITS._replace(
        connection=LIMITS.connection._replace(**connection),
        session=LIMITS.session._replace(**session),
        **others,
    )


def wait_until(predicate: Callable[[], Any], what: str = "a condition") -> None:
    """Let others run until the predicate holds; the room's time limit bounds the wait."""
    try:
        while not predicate():
            gevent.sleep(0)  # at every turn: what is waited for may last a few of them only
    except gevent.Timeout:
        raise AssertionError(f"{what}: not in time") from None


def as_segments(frames: bytes) -> list[Segment]:
    """Return bytes of whole frames as what the dispatcher offers."""
    return [Segment([Event(0, frames, 0, 0.0)], len(frames))]


class Peer:
    """The client's end of a connection."""

    def __init__(self, sock: socket.socket, deflate: bool) -> None:
        self.sock = gsocket.socket(fileno=sock.detach())
        self.sock.settimeout(TIME_LIMIT_S)
        self.core = Protocol(CLIENT, state=OPEN, max_size=None)
        if deflate:
            self.core.extensions = [PerMessageDeflate(True, True, 15, 15)]
        self.frames: list[Frame] = []
        self.raw = b""
        self._expected = len(RESPONSE)

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.sock.sendall(data)

    def say(self, text: str | bytes) -> None:
        """Send a text message."""
        self.core.send_text(text if isinstance(text, bytes) else text.encode())
        self.flush()

    def ask(self, event: str, *names: str) -> None:
        """Send a request."""
        self.say(json.dumps({"event": event, "streams": names}))

    def flush(self) -> None:
        """Send what the protocol's core wants to be sent."""
        self.send(b"".join(self.core.data_to_send()))

    def read(self, size: int = 65536) -> bool:
        """Read once; False at the end of the stream."""
        try:
            data = self.sock.recv(size)
        except ConnectionResetError:
            return False
        if not data:
            return False
        self.raw += data
        rest = data[self._expected :]
        self._expected = max(0, self._expected - len(data))
        if rest:
            self.core.receive_data(rest)
        events = self.core.events_received()
        self.frames += [event for event in events if isinstance(event, Frame)]
        assert self.core.parser_exc is None, f"a frame of the server is bad: {self.core.parser_exc}"
        return True

    def receive(self) -> str:
        """Return the next message."""
        while not self.frames:
            assert self.read(), "the server ended the connection"
        frame = self.frames.pop(0)
        assert frame.opcode is Opcode.TEXT, frame
        return bytes(frame.data).decode()

    def receive_all(self, count: int) -> list[str]:
        """Return the next messages."""
        return [self.receive() for _ in range(count)]

    def receive_frame(self) -> Frame:
        """Return the next frame of any kind."""
        while not self.frames:
            assert self.read(), "the server ended the connection"
        return self.frames.pop(0)

    def receive_to_the_end(self) -> list[Frame]:
        """Answer a close frame; return all frames that come before the server ends the stream."""
        self.answer_close()
        while self.read():
            self.answer_close()
        found, self.frames = self.frames, []
        return found

    def answer_close(self) -> None:
        """Send the close frame that answers the server's, if one came: the core has made it."""
        with contextlib.suppress(OSError):
            self.flush()

    def reset(self) -> None:
        """End the connection so that the server's next write fails."""
        if self.sock.family != socket.AF_UNIX:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def close(self) -> None:
        """Close the socket."""
        self.sock.close()


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Return two ends of a TCP connection over loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        one = socket.create_connection(listener.getsockname())
        other, _ = listener.accept()
    return one, other


class Room:
    """A hub, a dispatcher, a registry, and who is in it."""

    def __init__(
        self,
        limits: ClientLimits = LIMITS,
        hub_limits: HubLimits | None = None,
        history: History | None = None,
        **of_the_dispatcher: Any,
    ) -> None:
        self.packed: list[bytes] = []
        self.hub = Hub(
            allows=lambda prefix, role: prefix == role,
            make_queue=SimpleQueue,
            limits=hub_limits,
            history=history,
        )
        self.dispatcher = Dispatcher(self.hub, **of_the_dispatcher)
        self.duration = Histogram("duration_seconds", "Test.", registry=None)
        self.heartbeat = Heartbeat()
        self.registry = Registry(
            self.hub, self.dispatcher, self.heartbeat, limits, self.duration, pack=self._pack
        )
        self.peers: list[Peer] = []
        self.clients: list[Connection] = []

    def set_heartbeat(self, heartbeat: Heartbeat) -> None:
        """Have another heartbeat watch those who come."""
        self.heartbeat = self.registry.heartbeat = heartbeat
        self.registry.clock = heartbeat.clock

    def _pack(self, frame: bytes) -> bytes:
        """Count what is compressed; the smallest frames stay plain."""
        from rango_gevent.protocol import frames

        self.packed.append(frame)
        return frames.packed(frame, 30, 6)

    def connect(
        self,
        *names: str,
        uid: str | None = None,
        role: str = "",
        deflate: bool = False,
        notices: bool = False,
        identity: Identity | None = None,
        manner: Manner | None = None,
        since: str | None = None,
        early: bytes = b"",
        tcp: bool = False,
        buffer: int | None = None,
    ) -> tuple[Connection, Peer]:
        """Adopt a client, as after its handshake.

        Args:
            names: streams to subscribe at once.
            uid: user id.
            role: role.
            deflate: compression was negotiated.
            notices: it asked to be told of stale books.
            identity: who it is, instead of uid and role.
            manner: how it wants to be spoken to, instead of notices.
            since: where it says that it stands, when it comes back.
            early: bytes that came with the handshake.
            tcp: over TCP instead of a Unix socket pair.
            buffer: size of the socket's buffers, so that it is full soon.
        """
        outside, inside = tcp_pair() if tcp else socket.socketpair()
        if buffer is not None:
            inside.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
            outside.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        peer = Peer(outside, deflate)
        self.peers.append(peer)
        client = self.adopt(
            inside,
            identity=identity or Identity(uid, role, None),
            manner=manner or Manner(notices=notices),
            deflate=deflate,
            names=names,
            since=since,
            early=early,
        )
        return client, peer

    def adopt(self, sock: socket.socket, **more: Any) -> Connection:
        """Give a socket to the registry."""
        client = self.registry.adopt(
            sock.detach(), **{"peer": "peer", "response": RESPONSE, **more}
        )
        self.clients.append(client)
        return client

    def publish(self, key: str, body: str | bytes, at_s: float = 0.0) -> str:
        """Publish a message; nothing is sent before `round`."""
        return self.hub.publish(key, body if isinstance(body, bytes) else body.encode(), at_s)

    def round(self) -> None:
        """Let the dispatcher send all that waits."""
        self.dispatcher.serve_all()

    def end(self) -> None:
        """End all connections, and check that nothing is left of them anywhere."""
        for peer in self.peers:
            peer.close()
        for client in self.clients:
            client.lost()
        wait_until(lambda: self.registry.greenlets == 0, "the end of all greenlets")
        self.round()
        assert len(self.registry) == 0
        assert self.registry.outbox_bytes == 0
        assert not len(self.heartbeat)
        assert not self.registry.lagging
        assert self.dispatcher.idle
        assert self.hub.streams == {"public": {}, "private": {}, "prefixed": {}}
        assert self.hub.topics.total == 0
        assert sum(self.registry.closed.values()) == self.registry.opened


@contextlib.contextmanager
def delivery_room(limits: ClientLimits = LIMITS, **more: Any) -> Iterator[Room]:
    """Run a room for the length of a ``with`` block, in bounded time.

    An exception in any greenlet fails the test: gevent itself would only print it.
    """
    hub = gevent.get_hub()
    before, hub.exception_stream = hub.exception_stream, io.StringIO()
    try:
        with gevent.Timeout(TIME_LIMIT_S):
            room = Room(limits, **more)
            try:
                yield room
            finally:
                room.end()
        assert hub.exception_stream.getvalue() == ""
    finally:
        hub.exception_stream = before
