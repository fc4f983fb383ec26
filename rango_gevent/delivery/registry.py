"""All clients of one gateway, and what they share: limits, counters, a coarse clock.

Clients come in through `Registry.adopt` after their handshake and go out through
`Registry.remove`, so counts of connections, durations and reasons are right by construction.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from typing import Callable, Iterable, Iterator, NamedTuple

import gevent
from prometheus_client import Histogram

from rango_gevent.delivery.admission import Admission, AdmissionLimits, Network
from rango_gevent.delivery.client import CLIENT_CLOSED, Client
from rango_gevent.delivery.dispatcher import Dispatcher
from rango_gevent.delivery.inbound import InboundLimits, InboundPool
from rango_gevent.errors import RequestError
from rango_gevent.hub.hub import Hub
from rango_gevent.protocol import close, messages, routing
from rango_gevent.protocol.close import CloseReason
from rango_gevent.protocol.messages import NameLimits

log = logging.getLogger(__name__)

LOST = CloseReason(1006, "connection_lost", "", "")
ENDS = tuple(reason.word for reason in (*close.TABLE, CLIENT_CLOSED, LOST))


class ClientLimits(NamedTuple):
    """Bounds on clients.

    Attributes:
        admission: connections at once.
        outbox_bytes: bytes that may wait for one client before it counts as slow.
        write_timeout_s: seconds that a write may wait for a client.
        close_timeout_s: seconds for a client to answer a close frame.
        requests_per_s: frames that a client may send a second in the long run.
        requests_burst: frames that it may send at once.
        names: bounds on the streams that one client holds.
        inbound: bounds on what one client sends.
    """

    admission: AdmissionLimits
    outbox_bytes: int
    write_timeout_s: float
    close_timeout_s: float
    requests_per_s: float
    requests_burst: int
    names: NameLimits
    inbound: InboundLimits


class Registry:
    """The clients of a gateway.

    Attributes:
        make_client: class of the clients; the conformance tests echo with another.
        clock_s: monotonic time in seconds, exact to one tick of the heartbeat.
        requests: requests by action, or ``error``.
        closed: connections ended, by reason.
        refused: handshakes refused, by reason.
        admission: who may still come in.
    """

    def __init__(
        self,
        hub: Hub,
        dispatcher: Dispatcher,
        limits: ClientLimits,
        duration: Histogram,
        trusted: Iterable[Network] = (),
    ) -> None:
        self.make_client: type[Client] = Client
        self.hub = hub
        self.dispatcher = dispatcher
        self.limits = limits
        self.inbound_pools = (
            InboundPool(limits.inbound),
            InboundPool(limits.inbound, deflate=True),
        )
        self.clock_s = time.monotonic()
        self.requests: Counter[str] = Counter()
        self.closed: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.admission = Admission(limits.admission, trusted)
        self._noticed = 0
        self.opened = 0
        self.greenlets = 0
        self.leaving: deque[tuple[float, Client]] = deque()
        self.slots: list[dict[Client, None]] = [{}]
        self._clients: dict[Client, None] = {}
        self._duration = duration

    def set_limits(self, limits: ClientLimits, trusted: Iterable[Network]) -> None:
        """Change the bounds; clients keep what they hold."""
        self.limits = limits
        self.admission.set_limits(limits.admission, trusted)
        self.inbound_pools = (
            InboundPool(limits.inbound),
            InboundPool(limits.inbound, deflate=True),
        )

    def __len__(self) -> int:
        return len(self._clients)

    def __iter__(self) -> Iterator[Client]:
        return iter(list(self._clients))

    @property
    def outbox_bytes(self) -> int:
        """Return the bytes that wait for all clients together."""
        return sum(client.outbox_bytes for client in self._clients)

    def adopt(
        self,
        fd: int,
        *,
        peer: str,
        uid: str | None,
        role: str,
        deflate: bool,
        notices: bool,
        response: bytes,
        names: tuple[str, ...],
        early: bytes,
    ) -> Client:
        """Take over the socket of an accepted handshake.

        Args:
            fd: descriptor of the connected socket; the client's from now on.
            peer: address for logs.
            uid: user id of a verified token.
            role: role of a verified token.
            deflate: compression was negotiated.
            notices: it asked to be told of stale books.
            response: bytes of the 101 response, sent first.
            names: streams to subscribe at once.
            early: bytes that the client sent behind its handshake.
        """
        self.opened += 1
        client = self.make_client(
            self,
            fd,
            id=self.opened,
            peer=peer,
            uid=uid,
            role=role,
            deflate=deflate,
            notices=notices,
        )
        self._clients[client] = None
        self.admission.enter(peer, uid)
        self.dispatcher.deflating += deflate
        self._noticed += notices
        client.due = self.opened % len(self.slots)
        self.slots[client.due][client] = None
        client.push(response)
        try:
            client.subscribe(names)
        except RequestError as error:
            client.push(messages.error(str(error)))
        client.start(early)
        return client

    def spawn(self, work: Callable[..., None], *args: object) -> gevent.Greenlet[..., None]:
        """Start a client's reader or writer, and count it while it lives."""
        self.greenlets += 1
        greenlet = gevent.spawn(work, *args)
        greenlet.rawlink(self._greenlet_ended)
        return greenlet

    def _greenlet_ended(self, greenlet: object) -> None:
        self.greenlets -= 1

    def subscribe(self, client: Client, names: tuple[str, ...]) -> list[bytes]:
        """Subscribe a client, for the first time or afresh; return what to send for it.

        What the dispatcher still holds for the client is handed to it first: a replay contains it.
        """
        self.dispatcher.flush(client)
        if not client.open:  # lost while it was answered: nothing would unsubscribe it again
            return []
        return self.hub.subscribe(client, names)

    def notify_stale(self, address: str) -> None:
        """Tell the subscribers of a book who asked for it that the book is stale."""
        if not self._noticed:
            return
        stream = self.hub.streams[routing.PUBLIC].get(address)
        if stream is not None:
            notice = messages.resync([address])
            for client in list(stream.subscribers):  # one that is lost leaves the stream
                if isinstance(client, Client) and client.notices:
                    client.push(notice)

    def closing(self, client: Client) -> None:
        """Note that a closing handshake began; the heartbeat bounds it."""
        self.slots[client.due].pop(client, None)
        self.leaving.append((time.monotonic() + self.limits.close_timeout_s, client))

    def remove(self, client: Client) -> None:
        """Forget a client whose socket is closed, and say once why it ended."""
        self._clients.pop(client, None)
        self.admission.leave(client.peer, client.uid)
        self.dispatcher.deflating -= client.deflate
        self._noticed -= client.notices
        self.slots[client.due].pop(client, None)
        reason = client.ended_by or LOST
        seconds = time.monotonic() - client.opened_s
        self.closed[reason.word] += 1
        self._duration.observe(max(0.0, seconds))
        log.info(
            "connection closed: %s (%d) after %.1f s",
            reason.word,
            reason.code,
            seconds,
            extra={"conn": client.id, "peer": client.peer},
        )
