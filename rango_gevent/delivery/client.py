"""A client: one WebSocket connection, its socket, its outbox and its two greenlets.

A silent client is a socket, an io watcher and these slots. The reader greenlet lives while
there are bytes to read, the writer greenlet while the outbox holds any.

Rules:
- One writer at a time: `Client.offer` sends in place while nothing waits, else it appends to
  the outbox and the writer greenlet alone touches the socket.
- Nothing here waits for a client without a bound: the outbox is bounded in bytes, the writer
  in seconds without progress, the closing handshake in seconds.
- `offer` never closes: a client that is too slow is an answer, and its caller drops it when
  it is convenient.
"""

from __future__ import annotations

import _socket  # the plain C socket: gevent's wrapper would cost memory and time per client
import logging
import socket as pysocket
from typing import TYPE_CHECKING, Any

import gevent
from gevent.timeout import Timeout

from rango_gevent.delivery.inbound import PONG, TEXT, Inbound
from rango_gevent.delivery.outbox import DROP_OLDEST, LATEST, RESYNC, Outbox, Piece
from rango_gevent.errors import FatalClientError, RequestError
from rango_gevent.hub.hub import NEVER
from rango_gevent.protocol import close, frames, messages
from rango_gevent.protocol.close import CloseReason
from rango_gevent.turns import give_way

if TYPE_CHECKING:
    from websockets.frames import Opcode

    from rango_gevent.delivery.registry import Registry
    from rango_gevent.hub.stream import Stream

log = logging.getLogger(__name__)

OPEN = 0
CLOSING = 1  # a close frame is sent or waits to be; nothing else goes out
CLOSED = 2

CLIENT_CLOSED = CloseReason(1000, "client_closed", "", "")

_READ_BYTES = 4 * 1024  # 700 of the smallest frames take 10 ms: then others have their turn
_READABLE = 1
_WRITABLE = 2
_PING_FRAME = frames.ping()


class Client:
    """One connection after its handshake.

    Attributes:
        id: number of the connection, on every line logged about it.
        uid: user id of its verified token, None for anonymous.
        role: role of its verified token.
        deflate: it takes compressed frames (RFC 7692).
        notices: it asked to be told of stale books.
        streams: names it holds; the hub's to change.
        ready: nothing waits and the connection is open: `offer` may send in place.
        seen_s: coarse time at which bytes last came from it.
        due: slot in the heartbeat's wheel.
    """

    __slots__ = (
        "_inbound",
        "_outbox",
        "_registry",
        "_send",
        "_sock",
        "_state",
        "_watcher",
        "_write_watcher",
        "_writer",
        "deflate",
        "due",
        "ended_by",
        "id",
        "notices",
        "opened_s",
        "peer",
        "pinged_s",
        "ready",
        "refilled_s",
        "role",
        "seen_s",
        "served",
        "streams",
        "tokens",
        "uid",
    )

    def __init__(
        self,
        registry: Registry,
        fd: int,
        *,
        id: int,
        peer: str,
        uid: str | None,
        role: str,
        deflate: bool = False,
        notices: bool = False,
    ) -> None:
        self.id = id
        self.peer = peer
        self.uid = uid
        self.role = role
        self.deflate = deflate
        self.notices = notices
        self.tokens = registry.limits.requests_burst
        self.refilled_s = registry.clock_s
        self.streams: dict[str, Stream] = {}
        self.ready = True
        self.served = NEVER
        self.opened_s = self.seen_s = registry.clock_s
        self.pinged_s = 0.0
        self.due = 0
        self.ended_by: CloseReason | None = None
        self._registry = registry
        self._sock = _socket.socket(fileno=fd)
        self._sock.setblocking(False)
        if self._sock.family != pysocket.AF_UNIX:
            # without it a close frame can wait behind unread input for ever
            self._sock.setsockopt(pysocket.IPPROTO_TCP, pysocket.TCP_NODELAY, 1)
        self._send = self._sock.send
        self._state = OPEN
        self._outbox: Outbox | None = None
        self._write_watcher: Any = None
        self._writer: gevent.Greenlet[..., None] | None = None
        self._inbound: Inbound | None = None
        self._watcher: Any = gevent.get_hub().loop.io(fd, _READABLE)

    def start(self, early: bytes = b"") -> None:
        """Begin to read.

        Args:
            early: bytes that came along with the handshake.
        """
        if self._state == CLOSED:
            return  # lost while its handshake was answered
        if early:
            self._registry.spawn(self._read, early)
        else:
            self._watcher.start(self._on_readable)

    @property
    def outbox_bytes(self) -> int:
        """Return the bytes that wait for its socket."""
        return self._outbox.bytes if self._outbox is not None else 0

    @property
    def open(self) -> bool:
        """Tell whether events may still be sent to it."""
        return self._state == OPEN

    # -- outbound -----------------------------------------------------------------------

    def offer(self, data: bytes) -> bool:
        """Send now what can be sent, keep the rest in the outbox; never waits.

        Returns:
            False when the outbox was over its bound already: the client is too slow.
        """
        # hot path: in the common case one send and two comparisons
        if self.ready:
            try:
                sent = self._send(data)
            except BlockingIOError:
                sent = 0
            except OSError:
                self.lost()
                return True
            if sent != len(data):
                self._defer(memoryview(data)[sent:])  # shared by all who lag, not copied
            return True
        return self._queue(data)

    def _queue(self, data: bytes) -> bool:
        if self._outbox is None:
            return True  # on its way out: events are not for it any more
        if self._outbox.over(self._registry.limits.outbox_bytes):
            return False
        if self._state == OPEN:
            self._outbox.append(data)
        return True

    def lag(self, stream: Stream, policy: str, frames: list[bytes]) -> int:
        """Queue frames of one stream for a client that does not keep up.

        Returns:
            How many frames were left out for it, -1 when it is too slow to go on.
        """
        outbox, bound = self._outbox, self._registry.limits.outbox_bytes
        if outbox is None or self._state != OPEN:
            return 0
        if policy == LATEST:
            skipped = len(frames) - 1 + outbox.put_latest(stream.address, frames[-1])
            return -1 if outbox.holds_over(bound) else skipped
        if policy == DROP_OLDEST:
            return sum(outbox.append_droppable(frame, bound) for frame in frames)
        if policy == RESYNC:
            if outbox.resync is None:
                outbox.resync = {}
            if outbox.over(bound) or stream.address in outbox.resync:
                outbox.resync[stream.address] = None
                return len(frames)
        elif outbox.over(bound):
            return -1
        for frame in frames:
            outbox.append(frame)
        return 0

    def push(self, data: bytes) -> None:
        """Send or keep whatever the outbox holds: for replies, replays and control frames.

        These answer what the client asked for; its reader stops while the outbox is over
        its bound, which keeps them bounded as well.
        """
        if self.ready:
            self.offer(data)
            if self._outbox is not None:
                self._outbox.free_bytes = self._outbox.bytes
        elif self._outbox is not None and self._state == OPEN:
            self._outbox.append_free(data)

    def _defer(self, rest: Piece) -> None:
        """Leave bytes to the writer greenlet."""
        self.ready = False
        if self._outbox is None:
            self._outbox = Outbox()
        self._outbox.append(rest)
        if self._writer is None:
            self._writer = self._registry.spawn(self._write)

    def too_slow(self) -> None:
        """Close a client whose outbox is over its bound."""
        self.close(close.SLOW)

    def _write(self) -> None:
        """Writer greenlet: empty the outbox, then end."""
        hub = gevent.get_hub()
        self._write_watcher = hub.loop.io(self._sock.fileno(), _WRITABLE)
        try:
            while self._pieces_wait():
                try:
                    with Timeout(self._registry.limits.write_timeout_s):
                        hub.wait(self._write_watcher)
                except Timeout:
                    self.lost(close.SLOW)
                    break
                self._write_some()
        finally:
            self._write_watcher.close()
            self._write_watcher = self._writer = None
        if self._state != CLOSED:
            self._outbox = None
            self.ready = self._state == OPEN
        if self._state == CLOSING:
            self._end_output()

    def _pieces_wait(self) -> bool:
        """Tell whether there is something to write, after giving books afresh if need be."""
        outbox = self._outbox
        if outbox is not None and not outbox.bytes and outbox.resync and self._state == OPEN:
            names = tuple(name for name in outbox.resync if name in self.streams)
            # what it is still due of these books is left out, as long as they are in resync
            replays = self._registry.subscribe(self, names)
            outbox.resync = None
            for replay in replays:
                outbox.append_free(replay)
        return outbox is not None and outbox.bytes > 0

    def _write_some(self) -> None:
        """Send the first pieces of the outbox."""
        assert self._outbox is not None, "only the writer takes from it"
        try:
            sent = self._sock.sendmsg(self._outbox.next_pieces())
        except BlockingIOError:
            return
        except OSError:
            self.lost()
            return
        self._outbox.sent(sent)

    # -- inbound ------------------------------------------------------------------------

    def _on_readable(self) -> None:
        """Start the reader greenlet: the loop calls this, so nothing here may wait."""
        self._watcher.stop()
        self._registry.spawn(self._read)

    def _read(self, data: bytes = b"") -> None:
        """Reader greenlet: read until nothing is left, then end."""
        is_first = True
        try:
            while self._state != CLOSED:
                data = data or self._sock.recv(_READ_BYTES)
                if not data:
                    self._finish()
                    return
                self.seen_s = self._registry.clock_s
                self._receive(data)
                data = b""
                self._wait_for_outbox()
                if not is_first:
                    give_way()  # whoever sends without end waits for all the others
                is_first = False
        except BlockingIOError:
            self._rest()
        except OSError:
            self.lost()
        except FatalClientError as error:
            self.close(error.reason)
            self._drain()
        except Exception:
            log.exception("client %d: reader failed", self.id)
            self.close(close.INTERNAL)
            self._drain()

    def _rest(self) -> None:
        """Go back to being a watcher."""
        pool = self._registry.inbound_pools[self.deflate]
        if self._inbound is not None and pool.give_back(self._inbound):
            self._inbound = None
        self._watcher.start(self._on_readable)

    def _wait_for_outbox(self) -> None:
        """Read no more requests while the client does not read the answers."""
        while self.outbox_bytes > self._registry.limits.outbox_bytes and self._writer is not None:
            self._writer.join()

    def _receive(self, data: bytes) -> None:
        if self._inbound is None:
            self._inbound = self._registry.inbound_pools[self.deflate].lend()
        received = self._inbound.receive(data)
        if self._within_rate(received.frames):
            self._answer(received.items)
        if received.closed_by_peer is not None:
            self._closed_by_peer(received.closed_by_peer, received.echo)
        elif received.failure is not None:
            raise FatalClientError(received.failure)

    def _within_rate(self, frames: int) -> bool:
        """Take tokens for frames of any kind; without any left: an error, then a close.

        The bucket refills with the registry's coarse clock, so it costs no timer.
        """
        registry = self._registry
        limits = registry.limits
        if registry.clock_s > self.refilled_s:
            due = (registry.clock_s - self.refilled_s) * limits.requests_per_s
            refill = int(due + 1e-6)  # seconds are binary fractions: 2.9999999 are three
            self.tokens += refill
            self.refilled_s += refill / limits.requests_per_s  # part of a token counts on
            if self.tokens >= limits.requests_burst:  # but not in a full bucket
                self.tokens, self.refilled_s = limits.requests_burst, registry.clock_s
        had = self.tokens
        self.tokens -= frames
        if self.tokens >= 0 or self._state != OPEN:
            return True
        if self.tokens < -limits.requests_burst:
            raise FatalClientError(close.TOO_MANY_REQUESTS)
        if had >= 0:
            self.push(
                messages.error(f"Too many requests: the limit is {limits.requests_per_s:g}/s")
            )
        registry.requests["over_rate"] += frames
        return False

    def _answer(self, items: list[tuple[Opcode, bytes]]) -> None:
        """Handle messages and send pongs, in the order in which they are due."""
        for kind, data in items:
            if self._state != OPEN:
                break
            if kind is PONG:
                self.push(data)
            else:
                self._handle(data, kind is TEXT)

    def _closed_by_peer(self, code: int, echo: bytes) -> None:
        """Answer a close frame, unless it is the answer to our own."""
        if self._state == OPEN:
            self.ended_by = CLIENT_CLOSED._replace(code=code)
            self._begin_closing(echo)
        else:
            self._finish()

    def _handle(self, message: bytes, is_text: bool) -> None:
        """Answer one request; binary messages are read like text, as Rango does."""
        try:
            request = messages.parse_request(
                message.decode("utf-8", "replace"), self._registry.limits.names
            )
            if request is not None:
                self._registry.requests[request.action] += 1
                self._perform(request)
        except RequestError as error:
            self._registry.requests["error"] += 1
            self.push(messages.error(str(error)))

    def _perform(self, request: messages.Request) -> None:
        if request.action == messages.PING:
            self.push(messages.PONG_FRAME)
        elif request.action == messages.SUBSCRIBE:
            self.subscribe(request.names)
        else:
            self._registry.dispatcher.flush(self)
            self._registry.hub.unsubscribe(self, request.names)
            self.push(messages.unsubscribed(self._registry.hub.names(self)))

    def subscribe(self, names: tuple[str, ...]) -> None:
        """Subscribe and answer: notices, replays, then the list of all names held.

        Raises:
            RequestError: with these the client would hold too many names.
        """
        registry = self._registry
        if len(self.streams) + len(names) > registry.limits.names.max_names and (
            len(self.streams.keys() | set(names)) > registry.limits.names.max_names
        ):
            raise RequestError(f"Too many streams: the limit is {registry.limits.names.max_names}")
        for part in registry.subscribe(self, names):
            self.push(part)
        self.push(messages.subscribed(registry.hub.names(self)))

    # -- the end ------------------------------------------------------------------------

    def ping(self, now_s: float) -> None:
        """Send a ping frame unless bytes wait anyway."""
        if self.ready:
            self.pinged_s = now_s
            self.offer(_PING_FRAME)

    def close(self, reason: CloseReason) -> None:
        """Begin the closing handshake; what waits is sent first unless that is too much."""
        if self._state != OPEN:
            return
        self.ended_by = reason
        if reason is close.SLOW and self._outbox is not None:
            self._outbox.forget_whole()
        self._begin_closing(frames.close(reason.code, reason.text))

    def _begin_closing(self, close_frame: bytes) -> None:
        registry = self._registry
        registry.dispatcher.flush(self)
        if self._state != OPEN:
            return  # flushing was too much for it, or told that it is gone
        registry.hub.drop(self)
        self._state = CLOSING
        self.ready = False
        registry.closing(self)
        if self._outbox is not None:
            self._outbox.commit()  # nothing may follow the close frame
        self._defer(close_frame)

    def _end_output(self) -> None:
        """Half-close: the peer reads our close frame before the end of the stream."""
        try:
            self._sock.shutdown(pysocket.SHUT_WR)
        except OSError:
            self.lost()

    def _drain(self) -> None:
        """Read and forget until the peer ends.

        Closing a socket with unread input sends a reset, which may overtake the close frame.
        """
        try:
            while self._state != CLOSED and self._sock.recv(_READ_BYTES):
                give_way()
            self._finish()
        except BlockingIOError:
            self._watcher.start(self._on_drainable)
        except OSError:
            self.lost()

    def _on_drainable(self) -> None:
        self._watcher.stop()
        self._registry.spawn(self._drain)

    def _finish(self) -> None:
        """End, now that the peer sends no more: at once, or as soon as our close frame is out."""
        if self._state == CLOSING and self._writer is not None:
            self._writer.join()  # bounded by the write timeout and the heartbeat
        self.lost()

    def lost(self, reason: CloseReason | None = None) -> None:
        """End the connection at once; doing so twice is harmless."""
        if self._state == CLOSED:
            return
        self._state = CLOSED
        self.ready = False
        if self.ended_by is None:
            self.ended_by = reason
        self._registry.hub.drop(self)
        self._watcher.stop()
        self._watcher.close()
        if self._writer is not None and self._writer is not gevent.getcurrent():
            if self._write_watcher is not None:
                self._write_watcher.stop()  # before the descriptor's number is another's
            self._writer.kill(block=False)
        self._outbox = None
        self._inbound = None
        self._sock.close()
        self._registry.remove(self)
