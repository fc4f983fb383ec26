"""The consumer: one greenlet that reads everything from the exchange, and comes back.

`Consumer.run` never ends: any exception drops the connection, waits a jittered while,
makes a new one and declares everything again. Every call to the broker has a timeout.
Heartbeats are ticked here, once a second, busy or not: a no-ack consumer never sends
anything by itself, and the broker would drop a busy one.
"""

from __future__ import annotations

import logging
import random
import socket
import time
from contextlib import suppress
from typing import Any, Callable, NamedTuple

import amqp
import gevent
from amqp.exceptions import AccessRefused, NotAllowed, PreconditionFailed
from gevent.timeout import Timeout
from kombu.connection import Connection

from rango_gevent.broker import topology
from rango_gevent.broker.decoder import Decoder, Sink
from rango_gevent.broker.topology import QueueLimits
from rango_gevent.settings import mask_url

log = logging.getLogger(__name__)

FIRST_WAIT_S = 0.1
MAX_WAIT_S = 5.0
_TICK_S = 1.0
_SLICE_S = 0.004
_READ_BYTES = 64 * 1024
_TAG = "rango"
_OPTIONS = {"memory": {"polling_interval": 0.02}}
_MISCONFIGURED = (AccessRefused, NotAllowed, PreconditionFailed)  # 403, 530, 406


class BrokerLimits(NamedTuple):
    """Seconds for any one call, seconds between heartbeats, bounds of the queue."""

    timeout_s: float
    heartbeat_s: int
    queue: QueueLimits


class BrokerTimeout(Exception):
    """A call to the broker did not come back in time."""


class Consumer:
    """Supervised consumer of one exchange.

    Args:
        urls: brokers, tried in turn.
        exchange: name of the topic exchange.
        sink: called with routing key, body and Unix time for each message; must not block.
        limits: bounds.
        on_lost: called when a connection that was consumed from is lost.
        pace: called when all that had arrived is handed on; waits until reading pays again.

    Attributes:
        connected: messages can arrive.
        problem: why not, for readiness; empty while connected.
        connects: connections made so far.
    """

    def __init__(
        self,
        urls: list[str],
        exchange: str,
        sink: Sink,
        limits: BrokerLimits,
        pace: Callable[[], None] = lambda: gevent.sleep(0),
        on_lost: Callable[[], None] = lambda: None,
    ) -> None:
        self._urls = urls
        self._exchange = exchange
        self._sink = sink
        self._limits = limits
        self._pace = pace
        self._on_lost = on_lost
        self._slice_end = 0.0
        self._turn = 0
        self._wait_s = FIRST_WAIT_S
        self._connection: Connection | None = None
        self.connected = False
        self.problem = "not connected to the broker yet"
        self.connects = 0
        self.failures = 0
        self._away_s = 0.0
        self._lost_at: float | None = time.monotonic()

    def run(self) -> None:
        """Consume for ever."""
        while True:
            url = self._urls[self._turn % len(self._urls)]
            try:
                self._consume(url)
            except Exception as error:  # whatever it is, the cure is a new connection
                self._failed(url, error)
            finally:
                self._disconnected()
            gevent.sleep(self._next_wait())

    def stop(self) -> None:
        """Leave the broker cleanly, within the timeout."""
        self._close(self._connection)

    def away_s(self) -> float:
        """Return for how many seconds in all there was no broker."""
        now_away = 0.0 if self._lost_at is None else time.monotonic() - self._lost_at
        return self._away_s + now_away

    # -- one connection -----------------------------------------------------------------

    def _consume(self, url: str) -> None:
        connection = Connection(
            url,
            heartbeat=self._limits.heartbeat_s,
            connect_timeout=self._limits.timeout_s,
            transport_options=_OPTIONS.get(url.partition(":")[0]),
        )
        self._connection = connection
        try:
            with Timeout(self._limits.timeout_s, BrokerTimeout("no answer in time")):
                channel = self._subscribe(connection)
            self._ready(url)
            if isinstance(connection.connection, amqp.Connection):
                self._pump(connection.connection, channel.channel_id)
            else:
                self._poll(connection)
        finally:
            self._connection = None
            self._close(connection)

    def _subscribe(self, connection: Connection) -> Any:
        """Declare exchange, queue and binding, begin to consume; return the channel."""
        try:
            topology.exchange(self._exchange, passive=True).declare(channel=connection.channel())
        except connection.channel_errors:  # 404, which closes the channel: take another
            topology.exchange(self._exchange).declare(channel=connection.channel())
        instance = f"{random.getrandbits(64):016x}"  # noqa: S311 - a name, not a secret
        channel = connection.channel()
        queue = topology.queue(instance, self._exchange, self._limits.queue)(channel)
        queue.declare()
        queue.consume(_TAG, self._on_message, no_ack=True)
        return channel

    def _ready(self, url: str) -> None:
        self._wait_s = FIRST_WAIT_S
        self.connects += 1
        self.connected = True
        self.problem = ""
        if self._lost_at is not None:
            self._away_s += time.monotonic() - self._lost_at
            self._lost_at = None
        log.info("consuming %s at %s", self._exchange, mask_url(url))

    def _pump(self, connection: amqp.Connection, channel: int) -> None:
        """Read ahead and decode; tick the heartbeat; give way to others."""
        # hot path: one recv for all that is there, then a pause for more to gather
        transport = connection.transport
        decoder = Decoder(channel, _TAG, self._exchange, self._sink, connection.on_inbound_frame)
        with transport.having_timeout(_TICK_S):
            transport._read = _ReadAhead(transport, decoder)
            beat = _Beat(connection.heartbeat_tick)
            while True:
                try:
                    data = transport.sock.recv(_READ_BYTES)
                except socket.timeout:
                    beat.tick()
                    continue
                if not data:
                    raise ConnectionResetError("the broker closed the connection")
                connection.bytes_recv += 1  # what the heartbeat looks at
                decoder.feed(data, time.time())
                beat.tick()
                self._pause(len(data) == _READ_BYTES)

    def _poll(self, connection: Connection) -> None:
        """Take messages from a transport that is not AMQP, such as kombu's memory."""
        beat = _Beat(connection.heartbeat_check if connection.supports_heartbeats else None)
        while True:
            with suppress(socket.timeout):  # silence: only the tick is due
                connection.drain_events(timeout=_TICK_S)
            beat.tick()
            self._pause(True)

    def _pause(self, more: bool) -> None:
        """Give way: as long as it pays when all was read, for one turn when more is there."""
        if not more:
            self._pace()
        elif time.monotonic() >= self._slice_end:
            gevent.sleep(0)  # reading what is there already never switches by itself
            self._slice_end = time.monotonic() + _SLICE_S

    def _on_message(self, message: Any) -> None:
        """Take a delivery that did not come through the decoder."""
        body = message.body
        if isinstance(body, str):
            body = body.encode("utf-8", "surrogatepass")
        headers = message.headers if hasattr(message, "headers") else message.properties
        key = message.delivery_info.get("routing_key", "")
        self._sink(key, bytes(body), published_at(headers))

    # -- between connections ------------------------------------------------------------

    def _failed(self, url: str, error: Exception) -> None:
        if self.connected:
            self._on_lost()
        self._turn += 1
        self.failures += 1
        detail = str(error) or type(error).__name__
        if isinstance(error, _MISCONFIGURED):
            self._wait_s = MAX_WAIT_S
            log.error("the broker at %s refuses this configuration: %s", mask_url(url), detail)
        else:
            log.warning("no broker at %s: %s", mask_url(url), detail)
        self.problem = f"broker: {detail}"

    def _disconnected(self) -> None:
        self.connected = False
        if self._lost_at is None:
            self._lost_at = time.monotonic()

    def _next_wait(self) -> float:
        wait_s = self._wait_s * random.uniform(0.5, 1.0)  # noqa: S311 - jitter
        self._wait_s = min(MAX_WAIT_S, self._wait_s * 2)
        return wait_s

    def _close(self, connection: Connection | None) -> None:
        """Close in bounded time, whatever state the connection is in."""
        if connection is None:
            return
        try:
            with Timeout(min(1.0, self._limits.timeout_s), BrokerTimeout("no answer to close")):
                connection.release()
        except Exception as error:
            log.debug("while leaving the broker: %s", error)
            self._collapse(connection)

    @staticmethod
    def _collapse(connection: Connection) -> None:
        try:
            connection.collect()
        except Exception as error:
            log.debug("while dropping the connection: %s", error)


class _Beat:
    """Calls a heartbeat's tick once a second."""

    def __init__(self, tick: Callable[[], object] | None) -> None:
        self._tick = tick
        self._next = 0.0

    def tick(self) -> None:
        """Tick when a second is over."""
        now = time.monotonic()
        if self._tick is not None and now >= self._next:
            self._next = now + _TICK_S
            self._tick()


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


def published_at(headers: dict[str, Any] | None) -> float:
    """Return when a message was published, in Unix seconds; now where it does not say.

    Read is the header ``timestamp_in_ms``, which the broker's timestamp plugin sets too;
    the AMQP property ``timestamp`` has whole seconds only, too coarse to measure a lag.
    """
    at_ms = (headers or {}).get("timestamp_in_ms")
    if isinstance(at_ms, (int, float)):
        return at_ms / 1000
    return time.time()
