"""The outbound half of a connection: its socket, its outbox, its writer greenlet, its end.

The writer lives while the outbox holds bytes.

Rules:
- One writer at a time: `Sender.offer` sends in place while nothing waits, else it appends to
  the outbox and the writer greenlet alone touches the socket.
- Nothing here waits for a client without a bound: the outbox is bounded in bytes, the writer
  in seconds without progress, the closing handshake in seconds.
- No step is long: a send takes a bounded portion, and all writers share slices of time.
- `offer` never closes: a client that is too slow is an answer, and its caller drops it when
  it is convenient.

States, and what leads from one to the next:

READY    open, and nothing waits           BLOCKED -> WAITING
WAITING  open, and the outbox holds bytes  EMPTIED -> READY
CLOSING  a close frame is out or waits     DEAF -> ENDING
ENDING   the same, and the peer's is not waited for: the output ends behind ours
CLOSED   for good
"""

from __future__ import annotations

import _socket  # the plain C socket: gevent's wrapper would cost memory and time per client
import socket as pysocket
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Iterable, NamedTuple, cast

import gevent
from gevent.timeout import Timeout

from rango_gevent.delivery.outbox import CLOSE as CLOSE_POLICY
from rango_gevent.delivery.outbox import Outbox
from rango_gevent.delivery.resuming import notice
from rango_gevent.model import SEGMENT_BYTES, Encoding, Event, Segment
from rango_gevent.protocol import close, frames
from rango_gevent.protocol.close import CloseReason

if TYPE_CHECKING:
    from rango_gevent.delivery.connection import Connection
    from rango_gevent.delivery.outlet import Part
    from rango_gevent.delivery.registry import Registry
    from rango_gevent.delivery.session import Session
    from rango_gevent.hub.stream import Stream

READY = 0
WAITING = 1
CLOSING = 2
ENDING = 3
CLOSED = 4

BLOCKED = "blocked"
EMPTIED = "emptied"
CLOSE = "close"
DEAF = "deaf"
LOST = "lost"

_NEXT = {
    (READY, BLOCKED): WAITING,
    (WAITING, EMPTIED): READY,
    (READY, CLOSE): CLOSING,
    (WAITING, CLOSE): CLOSING,
    (CLOSING, DEAF): ENDING,
    (READY, LOST): CLOSED,
    (WAITING, LOST): CLOSED,
    (CLOSING, LOST): CLOSED,
    (ENDING, LOST): CLOSED,
}

_WRITABLE = 2
_PING_FRAME = frames.ping()
_STEP_S = 0.001  # in which segments are encoded and sent, before others have their turn
_LEAST_LOOK_S = 0.2  # between two looks at a client that takes nothing


class ConnectionLimits(NamedTuple):
    """Bounds on what one connection holds and for how long.

    Attributes:
        outbox_bytes: bytes that may wait for a client before it counts as slow.
        slow_after_s: seconds that more may wait.
        write_timeout_s: seconds that a write may wait for a client.
        send_buffer_bytes: size of the kernel's buffer, 0: as the system has it.
        replay_s: seconds for one who comes back to take what it missed.
    """

    outbox_bytes: int
    slow_after_s: float
    write_timeout_s: float
    send_buffer_bytes: int
    replay_s: float = 120.0


class Sender:
    """What is sent to one client, and how its connection ends.

    Attributes:
        id: number of the connection, on every line logged about it.
        peer: address for logs.
        session: who it is and what it holds.
        encoding: how events are sent to it.
        state: one of the states above.
        ended_by: why it ended, None while it is open or when it was lost.
    """

    __slots__ = (
        "_keeper",
        "_outbox",
        "_sock",
        "_write_watcher",
        "_writer",
        "encoding",
        "ended_by",
        "id",
        "opened_s",
        "peer",
        "pinged_s",
        "session",
        "state",
    )

    def __init__(
        self, keeper: Registry, fd: int, *, id: int, peer: str, session: Session, encoding: Encoding
    ) -> None:
        self.id = id
        self.peer = peer
        self.session = session
        self.encoding = encoding
        self.state = READY
        self.opened_s = keeper.clock.now_s
        self.pinged_s = 0.0
        self.ended_by: CloseReason | None = None
        self._keeper = keeper
        self._sock = _socket.socket(fileno=fd)
        self._sock.setblocking(False)
        if self._sock.family != pysocket.AF_UNIX:
            # without it a close frame can wait behind unread input for ever
            self._sock.setsockopt(pysocket.IPPROTO_TCP, pysocket.TCP_NODELAY, 1)
        if keeper.limits.send_buffer_bytes:
            # the kernel doubles it for its own bookkeeping, which takes about that (tcp(7))
            size = keeper.limits.send_buffer_bytes // 2
            self._sock.setsockopt(pysocket.SOL_SOCKET, pysocket.SO_SNDBUF, size)
        self._outbox: Outbox | None = None
        self._write_watcher: Any = None
        self._writer: gevent.Greenlet[..., None] | None = None

    def _move(self, event: str) -> None:
        """Go to the next state; an event that leads nowhere changes nothing."""
        self.state = _NEXT.get((self.state, event), self.state)

    @property
    def labels(self) -> dict[str, object]:
        """Return what each line of the log says of it."""
        found: dict[str, object] = {"conn": self.id, "peer": self.peer}
        uid = self.session.uid
        return found if uid is None else {**found, "uid": uid}

    @property
    def ready(self) -> bool:
        """Tell whether nothing waits for it."""
        return self.state == READY

    @property
    def open(self) -> bool:
        """Tell whether events may still be sent to it."""
        return self.state < CLOSING

    @property
    def outbox_bytes(self) -> int:
        """Return the bytes that wait for its socket."""
        return self._outbox.size if self._outbox is not None else 0

    @property
    def waits_since_s(self) -> float | None:
        """Return the coarse monotonic time since which bytes wait; None when there are none."""
        return self._outbox.since_s if self._outbox is not None else None

    # -- outbound -----------------------------------------------------------------------

    def offer(self, segments: list[Segment]) -> bool:
        """Send now what can be sent, keep the rest in the outbox; never waits.

        Returns:
            False when too much has waited for too long: the client is too slow.
        """
        # hot path: in the common case one send and three comparisons
        if self.state == READY:
            first, encoding = segments[0], self.encoding
            data = first.made.get(encoding) or first.encoded(encoding)
            try:
                sent = self._sock.send(data)
            except BlockingIOError:
                sent = 0
            except OSError:
                self.lost()
                return True
            if sent == len(data) and len(segments) == 1:
                return True
            rest = self._send_on(segments, data, sent)
            return not rest or self._queue(rest)
        return self._queue(segments)

    def _send_on(self, segments: list[Segment], data: bytes, sent: int | None) -> list[Segment]:
        """Send what follows a first segment as far as the socket takes it; return the rest."""
        until_s = time.monotonic() + _STEP_S
        for index in range(1, len(segments)):
            if sent != len(data) or time.monotonic() > until_s:
                break
            data = segments[index].encoded(self.encoding)
            sent = self._try_to_send(data)
        else:
            index = len(segments)
        if sent is None:
            return []  # it is lost
        if sent < len(data) or index < len(segments):
            self._block(data, sent)
        return segments[index:]

    def _try_to_send(self, data: bytes | memoryview) -> int | None:
        """Return how much the socket took, None when the client is lost."""
        try:
            return self._sock.send(data)
        except BlockingIOError:
            return 0
        except OSError:
            self.lost()
            return None

    def _queue(self, segments: list[Segment]) -> bool:
        if self.state != WAITING or self._outbox is None:
            return True  # on its way out: events are not for it any more
        self._outbox.append(segments)
        return not self._is_slow(self._outbox)

    def _is_slow(self, outbox: Outbox) -> bool:
        limits = self._keeper.limits
        if not outbox.over(limits.outbox_bytes) and not outbox.over_since_s:
            return False
        return outbox.is_slow(limits.outbox_bytes, limits.slow_after_s, time.monotonic())

    def lag(self, stream: Stream, policy: str, events: list[Event]) -> int | None:
        """Queue events of one stream while the client does not keep up.

        Returns:
            How many events were left out for it, None when it is too slow to go on.
        """
        outbox = self._outbox
        if outbox is None or self.state != WAITING:
            return 0
        skipped = outbox.lag(stream.address, policy, events, self._keeper.limits.outbox_bytes)
        return None if policy == CLOSE_POLICY and self._is_slow(outbox) else skipped

    def forget(self, addresses: set[str]) -> None:
        """Leave out what waits of streams that the client gives up, where it may be left out."""
        if self._outbox is not None:
            self._outbox.forget(addresses)

    def answer(self, parts: Iterable[Part]) -> None:
        """Send or keep an answer; what is long is left to the writer, which gives way."""
        size = 0
        for part in parts:
            if size > SEGMENT_BYTES and self.state == READY:
                self._block(b"", 0)
            if not isinstance(part, Segment):
                size += len(part)
            elif self.encoding not in part.made:  # what is made already costs little to send
                size += part.size
            self.push(part)

    def push(self, part: Part) -> None:
        """Send or keep whatever the outbox holds: for replies, replays and control frames.

        These answer what the client asked for; its reader stops while the outbox is over
        its bound, which keeps them bounded as well.
        """
        if self.state == READY:
            data = part.encoded(self.encoding) if isinstance(part, Segment) else part
            sent = self._try_to_send(data)
            if sent is not None and sent < len(data):
                self._block(data, sent)
        elif self.state == WAITING and self._outbox is not None:
            self._outbox.append_free(part)

    def _block(self, data: bytes, sent: int) -> None:
        """Leave what the socket did not take of some bytes to the writer greenlet."""
        self._move(BLOCKED)
        if self._outbox is None:
            self._outbox = Outbox(self._keeper.clock.now_s)
            self._keeper.lagging[self] = None
        if sent < len(data):
            self._outbox.put_back(data, sent)
        if self._writer is None:
            self._writer = self._keeper.spawn(self._write)

    def too_slow(self) -> None:
        """Close a client whose outbox is over its bound."""
        self.close(close.SLOW)

    def _write(self) -> None:
        """Writer greenlet: empty the outbox, then end."""
        self._write_watcher = gevent.get_hub().loop.io(self._sock.fileno(), _WRITABLE)
        limits = self._keeper.limits
        look_s = min(limits.write_timeout_s, max(limits.slow_after_s, _LEAST_LOOK_S))
        began_s = taken_s = time.monotonic()
        try:
            while self._pieces_wait():
                # one timer for many writes: most end long before it
                with suppress(Timeout), Timeout(look_s):
                    self._write_on()
                taken_s = self._judge(taken_s)
                self._judge_replay(began_s)
        finally:
            if self._write_watcher is not None:
                self._write_watcher.close()
            self._write_watcher = self._writer = None
        if self.state != CLOSED:
            self._outbox = None
            self._keeper.lagging.pop(self, None)
            self._move(EMPTIED)
        if self.state == ENDING:
            self._end_output()

    def _write_on(self) -> None:
        """Write whenever the socket takes more, until nothing waits."""
        wait, watcher, turns = gevent.get_hub().wait, self._write_watcher, self._keeper.writing
        while self._pieces_wait():
            wait(watcher)
            turns.wait()
            if self.state != CLOSED:
                self._write_some()

    def _judge(self, taken_s: float) -> float:
        """Give up a client that takes nothing, close one for whom too much has waited too long.

        Args:
            taken_s: monotonic time until which it is known to have taken bytes.

        Returns:
            The same, as it is now.
        """
        outbox, now_s = self._outbox, time.monotonic()
        if outbox is None:
            return now_s
        if outbox.has_moved:
            outbox.has_moved = False
            taken_s = now_s
        elif now_s - taken_s >= self._keeper.limits.write_timeout_s:
            self.lost(close.SLOW)
        if self.open and self._is_slow(outbox):
            self.close(close.SLOW)
        return taken_s

    def _judge_replay(self, began_s: float) -> None:
        """Close one who came back and does not take what it missed: it is kept for it alone."""
        outbox, limits = self._outbox, self._keeper.limits
        if outbox is None or not outbox.free_bytes or not self.session.manner.resumes:
            return
        if time.monotonic() - began_s > limits.replay_s and self.open:
            self.close(close.SLOW)

    def _pieces_wait(self) -> bool:
        """Tell whether there is something to write, after giving books afresh if need be."""
        outbox = self._outbox
        if outbox is not None and not outbox.size and outbox.resync and self.open:
            names = tuple(name for name in outbox.resync if name in self.session.streams)
            # what it is still due of these books is left out, as long as they are in resync
            replays = self.session.replay(names) or []
            outbox.resync = None
            for replay in replays:
                self.push(replay)
        return outbox is not None and outbox.size > 0

    def _write_some(self) -> None:
        """Send the first pieces of the outbox, as far as the socket takes them in one step."""
        outbox = self._outbox
        assert outbox is not None, "only the writer ends it"
        until_s = time.monotonic() + _STEP_S
        while time.monotonic() < until_s:
            data = outbox.take(self.encoding)
            if not data:
                break
            sent = self._try_to_send(data)
            if sent is None:
                return
            outbox.has_moved |= sent > 0
            if sent < len(data):
                outbox.put_back(data, sent)
                break
        if self.open and self._is_slow(outbox):
            self.close(close.SLOW)

    # -- the end ------------------------------------------------------------------------

    def ping(self, now_s: float) -> None:
        """Send a ping frame unless bytes wait anyway; behind where it stands, if it was quiet."""
        if self.state == READY:
            is_quiet = self.session.served.at_s <= self.pinged_s
            self.pinged_s = now_s
            if is_quiet and self.session.manner.resumes:
                self.answer(notice(self.session))
            self.push(_PING_FRAME)

    def close(self, reason: CloseReason) -> None:
        """Begin the closing handshake; what waits is sent first unless that is too much."""
        if not self.open:
            return
        self.ended_by = reason
        if reason is close.SLOW and self._outbox is not None:
            self._outbox.forget_whole()
        self._begin_closing(frames.close(reason.code, reason.text))

    def _begin_closing(self, close_frame: bytes) -> None:
        self._keeper.flush(self.session)
        if not self.open:
            return  # flushing was too much for it, or told that it is gone
        self._keeper.leave(self.session)
        if self._outbox is None:
            self._block(b"", 0)
        assert self._outbox is not None, "blocked just now"
        self._outbox.commit()  # nothing may follow the close frame
        self._outbox.append_free(close_frame)
        self._move(CLOSE)
        self._keeper.closing(cast("Connection", self))

    def _end_output(self) -> None:
        try:
            self._sock.shutdown(pysocket.SHUT_WR)
        except OSError:
            self.lost()

    def lost(self, reason: CloseReason | None = None) -> None:
        """End the connection at once; doing so twice is harmless."""
        if self.state == CLOSED:
            return
        self._move(LOST)
        if self.ended_by is None:
            self.ended_by = reason
        self._keeper.leave(self.session)
        if self._writer is not None and self._writer is not gevent.getcurrent():
            if self._write_watcher is not None:
                self._write_watcher.stop()  # before the descriptor's number is another's
            self._writer.kill(block=False)
            self._writer = None
        self._outbox = None
        self._sock.close()
        self._keeper.remove(cast("Connection", self))
