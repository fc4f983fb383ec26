"""All connections of one gateway, and what they share: limits, counters, slices of time.

Connections come in through `Registry.adopt` after their handshake and go out through
`Registry.remove`, so counts of connections, durations and reasons are right by construction.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from typing import Any, Callable, Iterable, Iterator, NamedTuple

import gevent
from prometheus_client import Histogram

from rango_gevent.auth.identity import ANONYMOUS, Identity
from rango_gevent.delivery import resuming
from rango_gevent.delivery.admission import Admission, AdmissionLimits, Network
from rango_gevent.delivery.arrivals import Arrivals
from rango_gevent.delivery.connection import Connection
from rango_gevent.delivery.dispatcher import Dispatcher
from rango_gevent.delivery.encoding import PLAIN, POSITIONED, Deflated
from rango_gevent.delivery.heartbeat import Heartbeat
from rango_gevent.delivery.inbound import InboundLimits, InboundPool
from rango_gevent.delivery.outlet import GONE
from rango_gevent.delivery.sender import ConnectionLimits, Sender
from rango_gevent.delivery.session import PLAIN_MANNER, Desk, Manner, Session, SessionLimits
from rango_gevent.errors import TokenError
from rango_gevent.hub.hub import Hub
from rango_gevent.hub.stream import Stream
from rango_gevent.model import Encoding
from rango_gevent.protocol import close, messages, routing
from rango_gevent.turns import Turns

log = logging.getLogger(__name__)

ENDS = tuple(reason.word for reason in close.TABLE)

RANGO = "rango"  # the dialect that is always spoken

_LEAVE_AT_ONCE = 20  # streams; who holds more leaves them in slices
_LEAVE_STEP = 100


class ClientLimits(NamedTuple):
    """Bounds on clients.

    Attributes:
        admission: connections at once.
        connection: what one holds, and for how long.
        session: what one asks for.
        inbound: what one sends.
        close_timeout_s: seconds for a client to answer a close frame.
    """

    admission: AdmissionLimits
    connection: ConnectionLimits
    session: SessionLimits
    inbound: InboundLimits
    close_timeout_s: float


class Registry:
    """The connections of a gateway.

    Args:
        hub: where their sessions subscribe.
        dispatcher: who serves them.
        heartbeat: who watches them.
        limits: bounds.
        duration: told the seconds that each lasted.
        trusted: networks whose forwarding headers are believed.
        pack: compresses one frame.

    Attributes:
        make_connection: class of the connections; the conformance tests echo with another.
        dialects: what makes a session of each protocol that is spoken.
        desk: what the sessions share.
        heartbeat: who watches them.
        clock: coarse monotonic time.
        reading: the slice of time that all readers share.
        writing: the slice of time that all writers share.
        returning: the slice of time that all who come back share.
        lagging: those for whom bytes wait.
        tapes: of those that an administrator listens to.
        closed: connections ended, by reason.
        refused: handshakes refused, by reason.
        admission: who may still come in.
    """

    def __init__(
        self,
        hub: Hub,
        dispatcher: Dispatcher,
        heartbeat: Heartbeat,
        limits: ClientLimits,
        duration: Histogram,
        *,
        trusted: Iterable[Network] = (),
        pack: Callable[[bytes], bytes] = lambda frame: frame,
    ) -> None:
        self.make_connection: type[Connection] = Connection
        self.dialects: dict[str, Callable[..., Session]] = {RANGO: Session}
        self.limits = limits.connection
        self.admission = Admission(limits.admission, trusted)
        self.arrivals = Arrivals(hub.history)
        self.desk = Desk(
            hub,
            limits.session,
            dispatcher.flush,
            now=time.time,
            move=self.admission.move,
            await_position=self.arrivals.wait,
        )
        self.flush = dispatcher.flush
        self.clock = heartbeat.clock
        self.reading = Turns()
        self.writing = Turns(0.002)
        self.returning = Turns()
        self.lagging: dict[Sender, None] = {}
        self.tapes: dict[Connection, list[Any]] = {}  # `rango_gevent.admin.tailed` knows of what
        self.closed: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.opened = 0
        self.greenlets = 0
        self._hub = hub
        self.heartbeat = heartbeat
        self._close_timeout_s = limits.close_timeout_s
        self._noticed = 0
        self._resuming = 0
        self._connections: dict[Connection, None] = {}
        self._departed: deque[Session] = deque()
        self._duration = duration
        self._plain_pool = InboundPool(limits.inbound)
        self._deflate_pool = InboundPool(limits.inbound, deflate=True)
        self._set_encodings(pack)
        hub.on_overflow = self._missed_by

    def _set_encodings(self, pack: Callable[[bytes], bytes]) -> None:
        """Make an encoding for each pair of: compressed, with positions."""
        self._encodings: dict[tuple[bool, bool], Encoding] = {
            (False, False): PLAIN,
            (False, True): POSITIONED,
            (True, False): Deflated(pack),
            (True, True): Deflated(pack, POSITIONED),
        }

    def set_limits(
        self, limits: ClientLimits, trusted: Iterable[Network], pack: Callable[[bytes], bytes]
    ) -> None:
        """Change the bounds; clients keep what they hold."""
        self.limits = limits.connection
        self.desk.limits = limits.session
        self._close_timeout_s = limits.close_timeout_s
        self.admission.set_limits(limits.admission, trusted)
        self._plain_pool.set_limits(limits.inbound)
        self._deflate_pool.set_limits(limits.inbound)
        self._set_encodings(pack)

    def __len__(self) -> int:
        return len(self._connections)

    def __iter__(self) -> Iterator[Connection]:
        return iter(list(self._connections))

    @property
    def requests(self) -> Counter[str]:
        """Return the number of requests by action, or ``error``."""
        return self.desk.requests

    @property
    def outbox_bytes(self) -> int:
        """Return the bytes that wait for all clients together, shared ones for each."""
        return sum(connection.outbox_bytes for connection in self.lagging)

    def adopt(
        self,
        fd: int,
        *,
        peer: str,
        identity: Identity = ANONYMOUS,
        manner: Manner = PLAIN_MANNER,
        deflate: bool = False,
        response: bytes,
        names: tuple[str, ...] = (),
        early: bytes = b"",
        refused: TokenError | None = None,
        make_session: Callable[..., Session] = Session,
        since: str | None = None,
    ) -> Connection:
        """Take over the socket of an accepted handshake.

        Args:
            fd: descriptor of the connected socket; the connection's from now on.
            peer: address for logs.
            identity: who it is.
            manner: how it wants to be spoken to.
            deflate: compression was negotiated.
            response: bytes of the 101 response, sent first.
            names: streams to subscribe at once.
            early: bytes that the client sent behind its handshake.
            refused: why it is not who its token says, where it is told.
            make_session: makes what the connection speaks with.
            since: where it says that it stands, when it comes back.
        """
        self.opened += 1
        session = make_session(self.desk, identity, manner, now_s=self.clock.now_s)
        manner = session.manner  # not every dialect has all of them
        connection = session.outlet = self.make_connection(
            self,
            fd,
            id=self.opened,
            peer=peer,
            session=session,
            encoding=self._encodings[deflate, manner.resumes],
            pool=self._deflate_pool if deflate else self._plain_pool,
        )
        self._connections[connection] = None
        self.admission.enter(peer, identity.uid)
        self._noticed += manner.notices
        self._resuming += manner.resumes
        log.debug("connection opened", extra=connection.labels)
        if since is not None and manner.resumes:
            connection.push(response)
            self.spawn(connection.come_back, names, refused, since, early)
            return connection
        self.heartbeat.watch(connection)
        connection.push(response)
        connection.subscribe(names, refused)
        connection.start(early)
        return connection

    def spawn(self, work: Callable[..., None], *args: object) -> gevent.Greenlet[..., None]:
        """Start a connection's reader or writer, and count it while it lives."""
        self.greenlets += 1
        greenlet = gevent.spawn(work, *args)
        greenlet.rawlink(self._greenlet_ended)
        return greenlet

    def _greenlet_ended(self, greenlet: object) -> None:
        self.greenlets -= 1

    def notify_stale(self, address: str) -> None:
        """Tell the subscribers of a book who asked for it that the book is stale."""
        if not self._noticed:
            return
        stream = self._hub.streams[routing.PUBLIC].get(address)
        if stream is not None:
            notice = messages.resync([address])
            for session in list(stream.subscribers):  # one that is lost leaves the stream
                if isinstance(session, Session) and session.notices:
                    session.outlet.push(notice)

    def _missed_by(self, stream: Stream) -> None:
        """Close those who come back by positions and miss an event here: they get it then."""
        if self._resuming:
            for session in list(stream.subscribers):
                if isinstance(session, Session) and session.manner.resumes:
                    session.outlet.too_slow()

    def history_broke(self, reason: str) -> None:
        """Tell those who come back by positions that nobody knows what they missed.

        It gives way. Whoever publishes must not go on before it returns: an event after the
        break, sent to somebody who was not told of it, would be a place to come back to.
        """
        for connection in list(self._connections) if self._resuming else ():
            if connection.session.manner.resumes:
                self.returning.wait()
                connection.answer(resuming.broken(connection.session, reason))

    def disconnect(self, selects: Callable[[Identity], bool]) -> int:
        """Close the connections of some identities with 4403; return how many there are."""
        selected = [one for one in self._connections if selects(one.session.identity)]
        if selected:
            self.spawn(self._disconnect, selected, selects)
        return len(selected)

    def _disconnect(
        self, connections: list[Connection], selects: Callable[[Identity], bool]
    ) -> None:
        for connection in connections:
            self.reading.wait()
            if selects(connection.session.identity):
                connection.close(close.REVOKED)

    # -- the end ------------------------------------------------------------------------

    def closing(self, connection: Connection) -> None:
        """Note that a closing handshake began; the heartbeat bounds it."""
        self.heartbeat.end_by(time.monotonic() + self._close_timeout_s, connection)

    def leave(self, session: Session) -> None:
        """End a session's subscriptions: those of many names in slices; twice is harmless."""
        session.ended = True
        if len(session.streams) <= _LEAVE_AT_ONCE:
            self._hub.drop(session)
            return
        self._departed.append(session)
        if len(self._departed) == 1:
            self.spawn(self._sweep)

    def _sweep(self) -> None:
        """Unsubscribe those who left, until nobody is left of them."""
        while self._departed:
            session = self._departed[0]
            while session.streams:
                self.reading.wait()
                self._hub.unsubscribe(session, list(session.streams)[:_LEAVE_STEP])
            self._departed.popleft()

    def remove(self, connection: Connection) -> None:
        """Forget a connection whose socket is closed, and say once why it ended."""
        session = connection.session
        self._connections.pop(connection, None)
        self.lagging.pop(connection, None)
        self.admission.leave(connection.peer, session.uid)
        self._noticed -= session.notices
        self._resuming -= session.manner.resumes
        self.heartbeat.forget(connection)
        session.outlet = GONE  # a circle less for the garbage collector to find
        reason = connection.ended_by or close.LOST
        seconds = time.monotonic() - connection.opened_s
        self.closed[reason.word] += 1
        self._duration.observe(max(0.0, seconds))
        log.info(
            "connection closed: %s (%d) after %.1f s",
            reason.word,
            reason.code,
            seconds,
            extra=connection.labels,
        )
