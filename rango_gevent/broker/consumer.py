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
from typing import Any, Callable, NamedTuple

import gevent
from amqp.exceptions import AccessRefused, NotAllowed, NotFound, PreconditionFailed
from gevent.timeout import Timeout
from kombu import Connection, Consumer as KombuConsumer

from rango_gevent.broker import topology
from rango_gevent.broker.topology import QueueLimits
from rango_gevent.settings import mask_url

log = logging.getLogger(__name__)

FIRST_WAIT_S = 0.1
MAX_WAIT_S = 5.0
_TICK_S = 1.0
_SLICE_S = 0.004
_MISCONFIGURED = (AccessRefused, NotAllowed, PreconditionFailed)  # 403, 530, 406

Sink = Callable[[str, bytes, float], object]


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

    Attributes:
        connected: messages can arrive.
        problem: why not, for readiness; empty while connected.
        connects: connections made so far.
    """

    def __init__(
        self, urls: list[str], exchange: str, sink: Sink, limits: BrokerLimits
    ) -> None:
        self._urls = urls
        self._exchange = exchange
        self._sink = sink
        self._limits = limits
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
            transport_options={"polling_interval": 0.02} if url.startswith("memory") else None,
        )
        self._connection = connection
        try:
            with Timeout(self._limits.timeout_s, BrokerTimeout("no answer in time")):
                consumer = self._declare(connection)
                consumer.consume()
            self._ready(url)
            self._pump(connection)
        finally:
            self._connection = None
            self._close(connection)

    def _declare(self, connection: Connection) -> KombuConsumer:
        try:
            topology.exchange(self._exchange, passive=True).declare(channel=connection.channel())
        except (NotFound, *connection.channel_errors):  # 404 closes the channel: open another
            topology.exchange(self._exchange).declare(channel=connection.channel())
        instance = f"{random.getrandbits(64):016x}"  # noqa: S311 - a name, not a secret
        queue = topology.queue(instance, self._exchange, self._limits.queue)
        return KombuConsumer(
            connection.channel(), [queue], no_ack=True, on_message=self._on_message
        )

    def _ready(self, url: str) -> None:
        self._wait_s = FIRST_WAIT_S
        self.connects += 1
        self.connected = True
        self.problem = ""
        if self._lost_at is not None:
            self._away_s += time.monotonic() - self._lost_at
            self._lost_at = None
        log.info("consuming %s at %s", self._exchange, mask_url(url))

    def _pump(self, connection: Connection) -> None:
        """Hand on what arrives, tick the heartbeat, give way to others."""
        next_tick = slice_end = 0.0
        while True:
            try:
                connection.drain_events(timeout=_TICK_S)
            except socket.timeout:
                pass  # silence: only the tick is due
            now = time.monotonic()
            if now >= next_tick:
                next_tick = now + _TICK_S
                if connection.supports_heartbeats:
                    connection.heartbeat_check()
            if now >= slice_end:
                gevent.sleep(0)  # reading what is there already never switches by itself
                slice_end = time.monotonic() + _SLICE_S

    def _on_message(self, message: Any) -> None:
        body = message.body
        if isinstance(body, memoryview):
            body = bytes(body)
        elif isinstance(body, str):
            body = body.encode("utf-8", "surrogatepass")
        key = message.delivery_info.get("routing_key", "")
        self._sink(key, body, published_at(message.headers))

    # -- between connections ------------------------------------------------------------

    def _failed(self, url: str, error: Exception) -> None:
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


def published_at(headers: dict[str, Any] | None) -> float:
    """Return when a message was published, in Unix seconds; now where it does not say.

    Read is the header ``timestamp_in_ms``, which the broker's timestamp plugin sets too;
    the AMQP property ``timestamp`` has whole seconds only, too coarse to measure a lag.
    """
    at_ms = (headers or {}).get("timestamp_in_ms")
    if type(at_ms) in (int, float):
        return float(at_ms) / 1000
    return time.time()
