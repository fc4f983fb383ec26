"""Messages from and to kombu's brokers that are no AMQP, such as memory, inside of this process.

They know no silence, so a fault is what they raise. For the demo and for tests.
"""

from __future__ import annotations

import socket
import time
from contextlib import suppress
from types import TracebackType
from typing import Callable, Mapping

from gevent.timeout import Timeout
from kombu.connection import Connection
from kombu.messaging import Producer

from rango_gevent import broker
from rango_gevent.source.amqp import declare
from rango_gevent.source.amqp.connection import connect, drop, leave
from rango_gevent.source.base import Accepts, BrokerLimits, BrokerTimeout, Sink, log_reading
from rango_gevent.turns import give_way
from rango_gevent.urls import mask_url

_PERIOD_S = 0.4
_POLL_S = 0.02
_SLICE_S = 0.004


class EmbeddedSource:
    """A source of kombu's virtual transports.

    Args:
        urls: brokers, tried in turn.
        exchange: name of the exchange, declared when it is missing.
        sink: where messages go.
        limits: bounds; those of the queue do not hold here.
        pace: not called: there is nothing to read ahead.
        accepts: not asked: a body is there as a whole.
    """

    def __init__(
        self,
        urls: list[str],
        exchange: str,
        sink: Sink,
        limits: BrokerLimits,
        pace: Callable[[bool], None],
        accepts: Accepts,
    ) -> None:
        self.exchange = exchange
        self._urls = urls
        self._turn = -1
        self._sink = sink
        self._limits = limits
        self._connection: Connection | None = None

    waits_for = ""

    def reading(self) -> dict[str, float | Mapping[str, int]]:
        """Return what is counted of a log: there is none."""
        return log_reading()

    @property
    def place(self) -> str:
        """The URL that was connected to, without secrets."""
        return mask_url(self._urls[self._turn % len(self._urls)])

    def connect(self, *, hasty: bool) -> None:
        """Connect to the next broker, declare exchange and queue, begin to consume."""
        self._turn += 1
        timeout_s = self._limits.timeout_s
        self._connection = Connection(
            self._urls[self._turn % len(self._urls)],
            connect_timeout=timeout_s,
            transport_options={"polling_interval": _POLL_S},
        )
        connect(self._connection, timeout_s, hasty=False)
        with Timeout(timeout_s, BrokerTimeout("no answer in time")):
            broker.declare_missing(self._connection, self.exchange)
            declare.subscribe(self._connection, self.exchange, self._limits.queue, self._sink)

    def pump(self) -> None:
        """Hand messages to the sink; ends by an exception only."""
        assert self._connection is not None, "connect first"
        slice_end = 0.0
        while True:
            with suppress(socket.timeout):  # silence
                self._connection.drain_events(timeout=_PERIOD_S)
            if time.monotonic() >= slice_end:
                give_way()  # taking what is there already never switches by itself
                slice_end = time.monotonic() + _SLICE_S

    def leave(self) -> None:
        """Say goodbye, in bounded time."""
        if self._connection is not None:
            leave(self._connection)

    def drop(self) -> None:
        """Close the connection, if there is one."""
        if self._connection is not None:
            drop(self._connection)
            self._connection = None


class EmbeddedPublisher:
    """Publishes to an embedded broker, on a connection of its own.

    Args:
        url: broker as a kombu URL.
        exchange: name of the exchange, declared when it is missing.
    """

    def __init__(self, url: str, exchange: str) -> None:
        self._connection = Connection(url)
        self._exchange = exchange

    def __enter__(self) -> EmbeddedPublisher:
        """Connect."""
        broker.declare_missing(self._connection, self._exchange)
        self._producer = Producer(self._connection.channel(), auto_declare=False)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the broker."""
        self._connection.release()

    def publish(self, routing_key: str, body: bytes) -> None:
        """Publish one message, with the time of publishing in a header."""
        self._producer.publish(
            body,
            exchange=self._exchange,
            routing_key=routing_key,
            content_type="application/json",
            content_encoding="binary",
            headers={"timestamp_in_ms": int(time.time() * 1000)},
        )
