"""The AMQP source: reads everything from one exchange, straight from the connection's bytes.

Every call to the broker has a timeout. Once a second, busy or not, the heartbeat is ticked (a
no-ack consumer never sends anything by itself, and the broker would drop a busy one) and the
queue is bound again: the broker says nothing when somebody deletes the exchange, and the
binding with it. What py-amqp raises becomes a `SourceError` or a `SourceRefused` here.
"""

from __future__ import annotations

import contextlib
import math
import socket
import time
from typing import Any, Callable, Iterator, Mapping

import amqp
from amqp.exceptions import (
    AMQPError,
    ConsumerCancelled,
    NotFound,
)
from gevent.timeout import Timeout
from kombu.connection import Connection

from rango_gevent import broker
from rango_gevent.source.amqp import declare
from rango_gevent.source.amqp.binder import Binder
from rango_gevent.source.amqp.connection import connect, drop, leave
from rango_gevent.source.amqp.declare import TAG
from rango_gevent.source.amqp.decoder import Decoder
from rango_gevent.source.base import (
    Accepts,
    BrokerLimits,
    BrokerTimeout,
    Sink,
    SourceError,
    SourceRefused,
    log_reading,
)
from rango_gevent.source.bindings import EVERYTHING, Bindings
from rango_gevent.turns import give_way
from rango_gevent.urls import mask_url

_GRACE_S = 3.0
_BEAT_S = 0.8
_PERIOD_S = 0.4  # a beat is late by half of it at most: one second from one to the next
_SILENT_HEARTBEATS = 1.5  # a broker sends something at least once in a heartbeat's time
_SLICE_S = 0.004
_READ_BYTES = 64 * 1024


class AmqpSource:
    """A source of one exchange of RabbitMQ.

    Args:
        urls: brokers, tried in turn.
        exchange: name of the topic exchange.
        sink: where messages go.
        limits: bounds.
        pace: called after each read, and told if more is there; waits until reading pays again.
        accepts: asked before a large body is collected.
        binder: keeps the queue bound; to everything by default.
    """

    def __init__(
        self,
        urls: list[str],
        exchange: str,
        sink: Sink,
        limits: BrokerLimits,
        pace: Callable[[bool], None],
        accepts: Accepts,
        binder: Binder | None = None,
    ) -> None:
        self.exchange = exchange
        self._urls = urls
        self._sink = sink
        self._limits = limits
        self._pace = pace
        self._accepts = accepts
        self._binder = binder or Binder(Bindings([EVERYTHING], follows=False))
        self._turn = -1
        self._slice_end = 0.0
        self._declare_after = 0.0
        self._gate: Callable[[], object] = _pass  # waits until messages may be handed on
        self._connection: Connection | None = None
        self._queue: Any = None

    waits_for = ""

    def reading(self) -> dict[str, float | Mapping[str, int]]:
        """Return what is counted of a log: there is none."""
        return log_reading()

    @property
    def place(self) -> str:
        """The URL that was connected to, without secrets."""
        return mask_url(self.url)

    @property
    def url(self) -> str:
        """The URL that was connected to, with its secrets."""
        return self._urls[self._turn % len(self._urls)]

    def connect(self, *, hasty: bool) -> None:
        """Connect to the next broker, declare queue and binding, begin to consume."""
        self._turn += 1
        limits = self._limits
        self._connection = broker.describe(
            self.url,
            heartbeat_s=limits.heartbeat_s,
            silence_s=limits.heartbeat_s * _SILENT_HEARTBEATS,
            timeout_s=limits.timeout_s,
        )
        with self._in_our_words():
            connect(self._connection, limits.timeout_s, hasty=hasty)
            with Timeout(limits.timeout_s, BrokerTimeout("no answer in time")):
                self._queue = self._subscribe(self._connection)

    def pump(self) -> None:
        """Hand messages to the sink; ends by an exception only."""
        assert self._connection is not None, "connect first"
        with self._in_our_words():
            self._pump(self._connection.connection, self._queue)

    def leave(self) -> None:
        """Say goodbye, in bounded time."""
        if self._connection is not None:
            leave(self._connection)

    def drop(self) -> None:
        """Close the connection, if there is one, at once and without a word."""
        self._binder.detach()
        if self._connection is not None:
            drop(self._connection)
            self._connection = self._queue = None

    # -- one connection -----------------------------------------------------------------

    @contextlib.contextmanager
    def _in_our_words(self) -> Iterator[None]:
        """Translate what py-amqp raises."""
        try:
            yield
        except AMQPError as error:
            if isinstance(error, NotFound):  # the binding failed: the exchange was deleted
                self._declare_after = time.monotonic() + _GRACE_S
            kind = SourceRefused if isinstance(error, broker.MISCONFIGURED) else SourceError
            raise kind(_detail(error)) from error

    def _subscribe(self, connection: Connection) -> Any:
        """Declare exchange, queue and binding, begin to consume; return the bound queue."""
        is_deleted = time.monotonic() < self._declare_after
        if is_deleted and not broker.exists(connection, self.exchange):
            # its owner may be about to declare it anew, in their way
            raise SourceError(f"exchange {self.exchange!r} was deleted")
        declare.take(connection, self.exchange)
        return self._queue_of(connection)

    def _queue_of(self, connection: Connection) -> Any:
        """Declare our own queue, begin to consume it; return it bound."""
        binder = self._binder
        queue = declare.own_queue(connection, self.exchange, self._limits.queue, binder.first())
        binder.attach(queue)
        declare.consume(queue, self._sink)
        return queue

    def _pump(self, connection: amqp.Connection, queue: Any) -> None:
        """Read ahead and decode; beat; give way to others."""
        # hot path: one recv for all that is there, then a pause for more to gather
        transport = connection.transport
        decoder = self._decoder(connection, queue.channel.channel_id)
        beat = _Beat(connection.heartbeat, connection.heartbeat_tick, *self._tasks(queue))
        with transport.having_timeout(_PERIOD_S):
            ahead, transport._read_buffer = transport._read_buffer, b""  # half a frame, if any
            decoder.feed(ahead, time.time())
            transport._read = _ReadAhead(transport, decoder)
            while True:
                try:
                    data = transport.sock.recv(_READ_BYTES)
                except socket.timeout:
                    beat.silence()
                    self._look()
                    continue
                if not data:
                    raise ConnectionResetError("the broker closed the connection")
                connection.bytes_recv += 1  # what the heartbeat looks at
                self._gate()
                decoder.feed(data, time.time())
                beat.heard()
                self._look()
                self._pause(len(data) == _READ_BYTES)

    def _decoder(self, connection: amqp.Connection, channel: int) -> Decoder:
        """Return what decodes the deliveries of a channel."""
        other = connection.on_inbound_frame
        return Decoder(channel, TAG, self.exchange, self._sink, other, self._accepts)

    def _tasks(self, queue: Any) -> tuple[Callable[[], object], ...]:
        """Return what is due every second."""
        return (self._binder.again,)

    def _look(self) -> None:
        """Do what is due after each read, and each `_PERIOD_S` without one."""

    def _pause(self, more: bool) -> None:
        """Give way: as long as it pays when all was read, for one turn when more is there."""
        self._pace(more)
        if more and time.monotonic() >= self._slice_end:
            give_way()  # reading what is there already never switches by itself
            self._slice_end = time.monotonic() + _SLICE_S


def _pass() -> None:
    pass


def _detail(error: Exception) -> str:
    if isinstance(error, ConsumerCancelled):
        return "the broker cancelled the consumer: its queue is gone"
    return str(error) or type(error).__name__


class _Beat:
    """What is due every second, and the broker's silence.

    Args:
        heartbeat_s: seconds of the heartbeat that was agreed on, 0 for none.
        tasks: called every second, or a little more often.
    """

    def __init__(self, heartbeat_s: float, *tasks: Callable[[], object]) -> None:
        self._most = math.ceil(heartbeat_s * _SILENT_HEARTBEATS / _PERIOD_S)
        self._tasks = tasks
        self._next = 0.0
        self._silent = 0

    def heard(self) -> None:
        """Note that data came."""
        self._silent = 0
        now = time.monotonic()
        if now >= self._next:
            self._beat(now)

    def silence(self) -> None:
        """Note that `_PERIOD_S` went by without data.

        Periods are counted, not seconds: when this process itself stood still, what came
        meanwhile is only not read yet.

        Raises:
            BrokerTimeout: there were too many.
        """
        self._silent += 1
        if self._most and self._silent >= self._most:
            raise BrokerTimeout(f"nothing heard for {self._silent * _PERIOD_S:.1f} s")
        now = time.monotonic()
        if now >= self._next - _PERIOD_S / 2:
            self._beat(now)

    def _beat(self, now: float) -> None:
        self._next = now + _BEAT_S
        for task in self._tasks:
            task()


class _ReadAhead:
    """Stands in for py-amqp's reading: bytes that were read ahead come first.

    Only the closing handshake still reads through py-amqp.
    """

    def __init__(self, transport: Any, decoder: Decoder) -> None:
        self._read = transport._read
        self._decoder = decoder

    def __call__(self, size: int, initial: bool = False) -> bytes:
        """Return exactly ``size`` bytes."""
        ahead = self._decoder.take(size)
        return ahead if len(ahead) == size else ahead + self._read(size - len(ahead), initial)
