"""A connection: the socket of one client and its two greenlets.

A silent connection is a socket, an io watcher and these slots. The reader greenlet lives while
there are bytes to read; all readers share slices of time. Sending is `Sender`'s.
"""

from __future__ import annotations

import logging
import time
from itertools import islice
from typing import TYPE_CHECKING, Any, Iterable, Iterator

import gevent

from rango_gevent.delivery.inbound import PONG, TEXT, Inbound, InboundPool
from rango_gevent.delivery.sender import CLOSED, CLOSING, DEAF, Sender
from rango_gevent.errors import FatalClientError, RequestError, TokenError
from rango_gevent.model import Encoding
from rango_gevent.protocol import close
from rango_gevent.protocol.close import CloseReason

if TYPE_CHECKING:
    from websockets.frames import Opcode

    from rango_gevent.delivery.outlet import Part
    from rango_gevent.delivery.registry import Registry
    from rango_gevent.delivery.session import Session

log = logging.getLogger(__name__)

_READ_BYTES = 4 * 1024
_READABLE = 1
_MOST_PAUSE_S = 5.0
_STREAMS_SHOWN = 20


class Connection(Sender):
    """One connection after its handshake.

    Attributes:
        seen_s: coarse time at which bytes last came from it.
        slot: its slot in the heartbeat's wheel.
        due_s: the second under which the end of its token is waited for, 0 for none.
    """

    __slots__ = ("_inbound", "_pool", "_watcher", "due_s", "seen_s", "slot")

    def __init__(
        self,
        keeper: Registry,
        fd: int,
        *,
        id: int,
        peer: str,
        session: Session,
        encoding: Encoding,
        pool: InboundPool,
    ) -> None:
        super().__init__(keeper, fd, id=id, peer=peer, session=session, encoding=encoding)
        self.seen_s = self.opened_s
        self.slot = 0
        self.due_s = 0
        self._pool = pool
        self._inbound: Inbound | None = None
        self._watcher: Any = gevent.get_hub().loop.io(fd, _READABLE)

    def start(self, early: bytes = b"") -> None:
        """Begin to read.

        Args:
            early: bytes that came along with the handshake.
        """
        if self.state == CLOSED:
            return  # lost while its handshake was answered
        if early:
            self._keeper.spawn(self._read, early)
        else:
            self._watcher.start(self._on_readable)

    def _on_readable(self) -> None:
        """Start the reader greenlet: the loop calls this, so nothing here may wait."""
        self._watcher.stop()
        self._keeper.spawn(self._read)

    def _read(self, data: bytes = b"") -> None:
        """Reader greenlet: read until nothing is left, then end."""
        turns = self._keeper.reading
        try:
            turns.wait()
            while self.state != CLOSED:
                data = data or self._sock.recv(_READ_BYTES)
                if not data:
                    self._finish()
                    return
                self.seen_s = self._keeper.clock.now_s
                while self._receive(data):
                    data = b""
                    turns.wait()
                data = b""
                turns.wait()  # whoever sends without end waits for all the others
        except BlockingIOError:
            self._rest()
        except OSError:
            self.lost()
        except FatalClientError as error:
            self.close(error.reason)
            self._drain()
        except Exception:
            log.exception("reader failed", extra=self.labels)
            self.close(close.INTERNAL)
            self._drain()

    def _rest(self) -> None:
        """Go back to being a watcher."""
        self.session.rest()
        if self._inbound is not None and self._pool.give_back(self._inbound):
            self._inbound = None
        if self.state != CLOSED:
            self._watcher.start(self._on_readable)

    def _receive(self, data: bytes) -> bool:
        """Answer what some bytes hold; True: there is more of it."""
        if self._inbound is None:
            self._inbound = self._pool.lend()
        received = self._inbound.receive(data)
        refused = self.session.admit(received.frames, self._keeper.clock.now_s)
        if refused is None:
            self._answer(received.items)
        elif refused:
            self.push(refused)
        if received.closed_by_peer is not None:
            self._closed_by_peer(received.closed_by_peer, received.echo)
        elif received.failure is not None:
            raise FatalClientError(received.failure)
        return received.more and self.state != CLOSED

    def _answer(self, items: list[tuple[Opcode, bytes]]) -> None:
        """Handle messages and send pongs, in the order in which they are due."""
        for kind, data in items:
            self.pause()
            if not self.open:
                break
            if kind is PONG:
                self.push(data)
            else:
                self.handle(data, kind is TEXT)

    def handle(self, message: bytes, is_text: bool) -> None:
        """Answer one message; a binary one is read like text, as Rango does."""
        held = len(self.session.streams)
        self.answer(self._charged(self.session.answer(message)))
        if len(self.session.streams) != held:
            self._tell_streams()

    def come_back(
        self, names: tuple[str, ...], refused: TokenError | None, since: str, early: bytes
    ) -> None:
        """Subscribe with what was missed, in turn with all others who do, and begin to read."""
        self._keeper.returning.wait()
        try:
            if self.open:
                self._keeper.heartbeat.watch(self)  # its answers to pings are read from now on
                self.subscribe(names, refused, since)
        except Exception:
            log.exception("coming back failed", extra=self.labels)
            self.close(close.INTERNAL)
        self.start(early)

    def subscribe(
        self,
        names: tuple[str, ...],
        refused: TokenError | None = None,
        since: str | None = None,
    ) -> None:
        """Subscribe what the handshake named, and tell what is held: the first frame of all.

        Args:
            names: of the streams.
            refused: why it is not who its token says; told behind that.
            since: where it says that it stands, when it comes back.
        """
        try:
            parts = self.session.subscribe(names, since=since)
        except RequestError as error:
            parts = [self.session.error(error)]
        if refused is not None:
            parts.append(self.session.not_authenticated(refused))
        self.answer(self._charged(parts))
        if names:
            self._tell_streams()

    def renewed(self) -> None:
        """Take note that it has another token than before."""
        self._keeper.heartbeat.tokens.look_anew(self)

    def _tell_streams(self) -> None:
        if log.isEnabledFor(logging.DEBUG):
            streams = self.session.streams
            some = ", ".join(islice(streams, _STREAMS_SHOWN))
            log.debug("holds %d streams: %s", len(streams), some, extra=self.labels)

    def _charged(self, parts: Iterable[Part]) -> Iterator[Part]:
        """Put the parts of an answer on the client's account."""
        now_s = time.monotonic()
        for part in parts:
            self.session.charge(part, now_s)
            yield part

    def pause(self) -> None:
        """Answer no more while the client does not read, has had much, or others wait."""
        self._wait_for_reading()
        owed_s = self.session.owed_s(time.monotonic())
        if owed_s > 0:
            gevent.sleep(min(owed_s, _MOST_PAUSE_S))
        self._keeper.reading.wait()
        self._wait_for_reading()  # several may have waited for the same

    def _wait_for_reading(self) -> None:
        while True:
            outbox, bound = self._outbox, self._keeper.limits.outbox_bytes
            if outbox is None or not outbox.has_answered(bound) or self._writer is None:
                return
            self._writer.join()

    def _closed_by_peer(self, code: int, echo: bytes) -> None:
        """Answer a close frame, unless it is the answer to our own."""
        if self.open:
            self.ended_by = close.CLIENT_CLOSED._replace(code=code)
            self._begin_closing(echo)
            self._hear_no_more()
        else:
            self._finish()

    def _hear_no_more(self) -> None:
        """Half-close as soon as our close frame is out: the peer's is not waited for.

        While it may come the output stays open: a proxy may end both ways when one ends, and
        a reset would then answer what the client sends, and cost it our close frame.
        """
        if self.state == CLOSING:
            self._move(DEAF)
            if self._writer is None:
                self._end_output()

    def _drain(self) -> None:
        """Read and forget until the peer ends.

        Closing a socket with unread input sends a reset, which may overtake the close frame.
        """
        self._hear_no_more()
        try:
            while self.state != CLOSED and self._sock.recv(_READ_BYTES):
                self._keeper.reading.wait()
            self._finish()
        except BlockingIOError:
            self._watcher.start(self._on_drainable)
        except OSError:
            self.lost()

    def _on_drainable(self) -> None:
        self._watcher.stop()
        self._keeper.spawn(self._drain)

    def _finish(self) -> None:
        """End, now that the peer sends no more: at once, or as soon as our close frame is out."""
        if not self.open and self._writer is not None:
            self._writer.join()  # bounded by the write timeout and the heartbeat
        self.lost()

    def lost(self, reason: CloseReason | None = None) -> None:
        """End the connection at once; doing so twice is harmless."""
        if self.state != CLOSED:
            self._watcher.stop()
            self._watcher.close()
            self._inbound = None
        super().lost(reason)
