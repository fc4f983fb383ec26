"""The consumer: one greenlet that reads everything from the exchange, and comes back.

`Consumer.run` ends only when it is stopped: any exception drops the connection, waits a
jittered while, makes a new one and declares everything again. Every call to the broker has a
timeout. Once a second, busy or not, the heartbeat is ticked (a no-ack consumer never sends
anything by itself, and the broker would drop a busy one) and the queue is bound again: the
broker says nothing when somebody deletes the exchange, and the binding with it.

How long a fault goes unnoticed, and how soon messages flow after it, is in docs/FAULTS.md.
"""

from __future__ import annotations

import logging
import math
import random
import socket
import time
from contextlib import suppress
from typing import Any, Callable, NamedTuple

import amqp
import gevent
from amqp.exceptions import (
    AccessRefused,
    AMQPError,
    ConsumerCancelled,
    NotAllowed,
    NotFound,
    PreconditionFailed,
)
from gevent.timeout import Timeout
from kombu.connection import Connection

from rango_gevent.broker import topology
from rango_gevent.broker.connection import (
    BrokerTimeout,
    Overtaken,
    connect,
    describe,
    drop,
    leave,
)
from rango_gevent.broker.decoder import Accepts, Decoder, Sink, seconds
from rango_gevent.broker.topology import QueueLimits
from rango_gevent.turns import give_way
from rango_gevent.urls import mask_url

log = logging.getLogger(__name__)

FIRST_WAIT_S = 0.1
MAX_WAIT_S = 0.5  # a broker that is back is found within a second
REFUSED_WAIT_S = 0.75  # refused for its configuration: each attempt is a line in the broker's log
PATIENT_WAIT_S = 5.0  # the same, when it lasts
_PATIENT_AFTER_S = 60.0
_STEADY_S = 5.0  # a connection that lived so long was a good one
_GRACE_S = 3.0
_SAY_AGAIN_S = 60.0
_STOP_S = 2.0
_BEAT_S = 0.8
_PERIOD_S = 0.4  # a beat is late by half of it at most: one second from one to the next
_SILENT_HEARTBEATS = 1.5  # a broker sends something at least once in a heartbeat's time
_SLICE_S = 0.004
_READ_BYTES = 64 * 1024
_TAG = "rango"
_MISCONFIGURED = (AccessRefused, NotAllowed, PreconditionFailed)  # 403, 530, 406


class BrokerLimits(NamedTuple):
    """Seconds for any one call, seconds between heartbeats, bounds of the queue."""

    timeout_s: float
    heartbeat_s: int
    queue: QueueLimits


class ExchangeGone(Exception):
    """Somebody deleted the exchange and may be about to declare it anew, in their way."""


class Consumer:
    """Supervised consumer of one exchange.

    Args:
        urls: brokers, tried in turn.
        exchange: name of the topic exchange.
        sink: called with routing key, body and Unix time for each message; must not block.
        limits: bounds.
        on_lost: called when a connection that was consumed from is lost.
        accepts: asked with routing key and size whether to collect a large body.
        pace: called after each read, and told if more is there; waits until reading pays again.

    Attributes:
        connected: messages can arrive.
        problem: why not, for readiness; empty while connected.
        connects: connections made so far.
        failures: connections lost and attempts failed so far.
    """

    def __init__(
        self,
        urls: list[str],
        exchange: str,
        sink: Sink,
        limits: BrokerLimits,
        pace: Callable[[bool], None] = lambda more: gevent.sleep(0),
        on_lost: Callable[[], None] = lambda: None,
        accepts: Accepts = lambda key, size: True,
    ) -> None:
        self._urls = urls
        self._exchange = exchange
        self._sink = sink
        self._limits = limits
        self._pace = pace
        self._on_lost = on_lost
        self._accepts = accepts
        self._slice_end = 0.0
        self._turn = 0
        self._wait_s = FIRST_WAIT_S
        self._is_refused = False
        self._is_patient = False
        self._declare_after = 0.0
        self._said: tuple[str, float] = ("", 0.0)
        self._greenlet: Any = None
        self.connected = False
        self.problem = "not connected to the broker yet"
        self.connects = 0
        self.failures = 0
        self._away_s = 0.0
        self._since = time.monotonic()  # of being connected, or of being away

    def run(self) -> None:
        """Consume until stopped."""
        self._greenlet = gevent.getcurrent()
        while True:
            url = self._urls[self._turn % len(self._urls)]
            try:
                self._consume(url)
            except Exception as error:  # whatever it is, the cure is a new connection
                self._failed(url, error)
            gevent.sleep(self._next_wait())

    def stop(self) -> None:
        """End `run` from another greenlet; it leaves the broker cleanly, in bounded time."""
        if self._greenlet is not None:
            gevent.killall([self._greenlet], timeout=_STOP_S)

    def away_s(self) -> float:
        """Return for how many seconds in all there was no broker."""
        now_away = 0.0 if self.connected else time.monotonic() - self._since
        return self._away_s + now_away

    # -- one connection -----------------------------------------------------------------

    def _consume(self, url: str) -> None:
        limits = self._limits
        connection = describe(
            url,
            heartbeat_s=limits.heartbeat_s,
            silence_s=limits.heartbeat_s * _SILENT_HEARTBEATS,
            timeout_s=limits.timeout_s,
        )
        try:
            connect(connection, limits.timeout_s, hasty=not self._is_patient)
            with Timeout(limits.timeout_s, BrokerTimeout("no answer in time")):
                queue = self._subscribe(connection)
            self._ready(url)
            if isinstance(connection.connection, amqp.Connection):
                self._pump(connection.connection, queue)
            else:
                self._poll(connection)
        except gevent.GreenletExit:
            leave(connection)
            raise
        except Exception:
            self._lost()
            raise
        finally:
            drop(connection)

    def _subscribe(self, connection: Connection) -> Any:
        """Declare exchange, queue and binding, begin to consume; return the bound queue."""
        try:
            topology.exchange(self._exchange, passive=True).declare(channel=connection.channel())
        except connection.channel_errors:  # 404, which closes the channel: take another
            if time.monotonic() < self._declare_after:
                raise ExchangeGone(f"exchange {self._exchange!r} was deleted") from None
            topology.exchange(self._exchange).declare(channel=connection.channel())
        instance = f"{random.getrandbits(64):016x}"  # a name, not a secret
        channel = connection.channel()
        queue = topology.queue(instance, self._exchange, self._limits.queue)(channel)
        queue.declare()
        queue.consume(_TAG, self._on_message, no_ack=True)
        return queue

    def _ready(self, url: str) -> None:
        now = time.monotonic()
        self._away_s += now - self._since
        self._since = now
        self.connects += 1
        self.connected = True
        self.problem = ""
        self._said = ("", 0.0)
        log.info("consuming %s at %s", self._exchange, mask_url(url))

    def _pump(self, connection: amqp.Connection, queue: Any) -> None:
        """Read ahead and decode; beat; give way to others."""
        # hot path: one recv for all that is there, then a pause for more to gather
        transport = connection.transport
        channel = queue.channel.channel_id
        decoder = Decoder(
            channel, _TAG, self._exchange, self._sink, connection.on_inbound_frame, self._accepts
        )
        beat = _Beat(connection.heartbeat, connection.heartbeat_tick, _binder(queue))
        with transport.having_timeout(_PERIOD_S):
            transport._read = _ReadAhead(transport, decoder)
            while True:
                try:
                    data = transport.sock.recv(_READ_BYTES)
                except socket.timeout:
                    beat.silence()
                    continue
                if not data:
                    raise ConnectionResetError("the broker closed the connection")
                connection.bytes_recv += 1  # what the heartbeat looks at
                decoder.feed(data, time.time())
                beat.heard()
                self._pause(len(data) == _READ_BYTES)

    def _poll(self, connection: Connection) -> None:
        """Take messages from a transport that is not AMQP, such as kombu's memory."""
        ticks = [connection.heartbeat_check] if connection.supports_heartbeats else []
        beat = _Beat(0, *ticks)
        while True:
            with suppress(socket.timeout):  # silence: only the beat is due
                connection.drain_events(timeout=_PERIOD_S)
            beat.heard()
            self._pause(True)

    def _pause(self, more: bool) -> None:
        """Give way: as long as it pays when all was read, for one turn when more is there."""
        self._pace(more)
        if more and time.monotonic() >= self._slice_end:
            give_way()  # reading what is there already never switches by itself
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

    def _lost(self) -> None:
        """Note that no messages can arrive; nothing changes when none could."""
        if not self.connected:
            return
        now = time.monotonic()
        if now - self._since > _STEADY_S:
            self._wait_s = FIRST_WAIT_S
        self._since = now
        self.connected = False
        self._on_lost()

    def _failed(self, url: str, error: Exception) -> None:
        self._turn += 1
        self.failures += 1
        self._is_refused = isinstance(error, _MISCONFIGURED)
        self._is_patient = isinstance(error, Overtaken)
        if self._is_patient:
            self._wait_s = FIRST_WAIT_S
        if isinstance(error, NotFound):  # the binding failed: the exchange was deleted
            self._declare_after = time.monotonic() + _GRACE_S
        detail = _detail(error)
        self.problem = f"broker: {detail}"
        self._say(url, error, detail)

    def _say(self, url: str, error: Exception, detail: str) -> None:
        """Log a failure; the same one again only once a minute."""
        said, at = self._said
        if said == detail and time.monotonic() - at < _SAY_AGAIN_S:
            return
        self._said = (detail, time.monotonic())
        if self._is_refused:
            log.error("the broker at %s refuses this configuration: %s", mask_url(url), detail)
        else:
            foreseen = isinstance(error, (OSError, AMQPError, ExchangeGone))
            log.warning("no broker at %s: %s", mask_url(url), detail, exc_info=not foreseen)

    def _next_wait(self) -> float:
        longest_s = MAX_WAIT_S
        if self._is_refused:
            is_new = time.monotonic() - self._since < _PATIENT_AFTER_S
            longest_s = REFUSED_WAIT_S if is_new else PATIENT_WAIT_S
        wait_s = min(self._wait_s, longest_s)
        self._wait_s = min(self._wait_s * 2, PATIENT_WAIT_S)
        return wait_s * random.uniform(0.5, 1.0)  # jitter


def _binder(queue: Any) -> Callable[[], object]:
    """Return a call that binds the queue again, without waiting for an answer.

    A binding that is there already costs the broker one look-up; when the exchange is gone
    it answers 404, and an exchange that was deleted and declared again gets its binding.
    """
    return lambda: queue.queue_bind(nowait=True)


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


def published_at(headers: dict[str, Any] | None) -> float:
    """Return when a message was published, in Unix seconds; now where it does not say.

    Read is the header ``timestamp_in_ms``, which the broker's timestamp plugin sets too;
    the AMQP property ``timestamp`` has whole seconds only, too coarse to measure a lag.
    """
    at_ms = (headers or {}).get("timestamp_in_ms")
    return seconds(at_ms if isinstance(at_ms, (int, float)) else 0, time.time())
