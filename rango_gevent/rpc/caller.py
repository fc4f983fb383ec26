"""Questions over AMQP: a connection of its own, and RabbitMQ's direct reply-to.

A question goes to the default exchange with a queue's name as its routing key, and the answer
comes back on the same channel by its ``correlation_id``; no queue is declared. Where there is no
such queue the question comes back at once. One greenlet reads (`Caller.run`); who asks writes, one
at a time.
"""

from __future__ import annotations

import logging
import random
import time
from contextlib import suppress
from itertools import count
from socket import timeout as socket_timeout
from typing import Any, cast

import amqp
import gevent
from gevent.event import AsyncResult
from gevent.lock import BoundedSemaphore
from gevent.timeout import Timeout

from rango_gevent import broker
from rango_gevent.backoff import Backoff
from rango_gevent.rpc.errors import Away, Busy, Late, RpcError
from rango_gevent.source.amqp import connection as link
from rango_gevent.source.base import BrokerTimeout
from rango_gevent.throttle import ThrottledLog
from rango_gevent.urls import mask_url

log = logging.getLogger(__name__)

_REPLIES = "amq.rabbitmq.reply-to"  # https://www.rabbitmq.com/docs/direct-reply-to
_FIRST_WAIT_S, _MAX_WAIT_S, _STEADY_S = 0.1, 2.0, 5.0
_TICK_S = 1.0
_SAY_AGAIN_S = 60.0


class CallerLimits:
    """Bounds of a caller.

    Args:
        timeout_s: seconds for an answer.
        waiting: questions that may wait for theirs.
        answer_bytes: size of an answer; a larger one is none.
        connect_s: seconds to connect.
        heartbeat_s: AMQP's heartbeat.
    """

    __slots__ = ("answer_bytes", "connect_s", "heartbeat_s", "timeout_s", "waiting")

    def __init__(
        self,
        *,
        timeout_s: float = 1.0,
        waiting: int = 1000,
        answer_bytes: int = 1 << 20,
        connect_s: float = 5.0,
        heartbeat_s: int = 10,
    ) -> None:
        self.timeout_s = timeout_s
        self.waiting = waiting
        self.answer_bytes = answer_bytes
        self.connect_s = connect_s
        self.heartbeat_s = heartbeat_s


class Caller:
    """Asks over one connection.

    Args:
        urls: brokers, tried in turn.
        limits: bounds.

    Attributes:
        connected: questions can be asked.
        connects: connections made so far.
    """

    def __init__(self, urls: list[str], limits: CallerLimits) -> None:
        self._urls = urls
        self._limits = limits
        self._ids = count(1)
        self._waiting: dict[str, AsyncResult[bytes]] = {}
        self._writing = BoundedSemaphore()
        self._channel: Any = None
        self._backoff = Backoff(
            _FIRST_WAIT_S, _MAX_WAIT_S, steady_s=_STEADY_S, least=0.5, jitter=random.Random()
        )
        self._since_s = 0.0  # of being connected
        self._told = ThrottledLog(log, _SAY_AGAIN_S)
        self.connects = 0

    @property
    def connected(self) -> bool:
        """Tell whether questions can be asked."""
        return self._channel is not None

    def __len__(self) -> int:
        """Return how many questions wait for their answers."""
        return len(self._waiting)

    # -- asking -------------------------------------------------------------------------

    def ask(self, queue: str, body: bytes) -> bytes:
        """Ask, and wait for the answer.

        Args:
            queue: whose consumer answers.
            body: JSON.

        Raises:
            Away: there is no broker, or no such queue.
            Late: no answer in time.
            Busy: too many wait.
        """
        if len(self._waiting) >= self._limits.waiting:
            raise Busy("too many questions wait")
        id = str(next(self._ids))
        answer = self._waiting[id] = AsyncResult()
        try:
            with Timeout(self._limits.timeout_s, Late("no answer in time")):
                self._send(queue, body, id)
                return cast("bytes", answer.get())
        finally:
            del self._waiting[id]

    def _send(self, queue: str, body: bytes, id: str) -> None:
        message = amqp.Message(
            body,
            content_type="application/json",
            correlation_id=id,
            reply_to=_REPLIES,
            # in milliseconds: nobody wants the answer later
            expiration=str(max(1, int(self._limits.timeout_s * 1000))),
        )
        with self._writing:
            channel = self._channel
            if channel is None:
                raise Away("no broker")
            is_sent = False
            try:
                channel.basic_publish(message, exchange="", routing_key=queue, mandatory=True)
                is_sent = True
            except RpcError:  # its time was over
                raise
            except Exception:  # of a connection that is half closed py-amqp raises anything
                raise Away("the broker was lost") from None
            finally:
                if not is_sent:  # in the middle of a frame nothing can follow
                    self._lose(channel)

    # -- the connection -----------------------------------------------------------------

    def run(self) -> None:
        """Connect and read answers, for ever."""
        turn = 0
        while True:
            url = self._urls[turn % len(self._urls)]
            turn += 1
            try:
                self._attend(url)
            except Exception as error:  # whatever it is, the cure is a new connection
                known = isinstance(error, (OSError, amqp.exceptions.AMQPError))
                words = str(error) or type(error).__name__
                text = "no questions can be asked at %s: %s"
                self._told.warning(words, text, mask_url(url), words, exc_info=not known)
            if self._since_s:
                self._backoff.lived(time.monotonic() - self._since_s)
            self._since_s = 0.0
            self._lose(self._channel)
            gevent.sleep(self._backoff.next())

    def _attend(self, url: str) -> None:
        """Connect, and read answers as long as the connection lives."""
        limits = self._limits
        described = broker.describe(
            url,
            heartbeat_s=limits.heartbeat_s,
            silence_s=limits.connect_s,
            timeout_s=limits.connect_s,
        )
        try:
            link.connect(described, limits.connect_s, hasty=False)
            connection = described.connection
            with Timeout(limits.connect_s, BrokerTimeout("no answer in time")):
                channel = connection.channel()
                channel.basic_consume(_REPLIES, no_ack=True, callback=self._on_answer)
            channel.events["basic_return"].add(self._on_return)
            self._channel = channel
            self._since_s = time.monotonic()
            self.connects += 1
            self._told.clear()
            log.info("asking questions at %s", mask_url(url))
            self._read(connection)
        finally:
            link.drop(described)

    def _read(self, connection: Any) -> None:
        while self._channel is not None:
            with suppress(socket_timeout):
                connection.drain_events(timeout=_TICK_S)
            with self._writing:
                connection.heartbeat_tick()
        raise OSError("a question could not be written")

    def _lose(self, channel: Any) -> None:
        """Know no connection any more; who waits for an answer gets none."""
        if channel is None or self._channel is not channel:
            return
        self._channel = None
        for answer in self._waiting.values():
            answer.set_exception(Away("the broker was lost"))

    def _on_answer(self, message: Any) -> None:
        answer = self._waiting.get(str(message.properties.get("correlation_id")))
        if answer is None:
            return  # too late
        body = message.body if isinstance(message.body, bytes) else str(message.body).encode()
        if len(body) > self._limits.answer_bytes:
            answer.set_exception(Away("the answer is too large"))
        else:
            answer.set(body)

    def _on_return(self, error: Exception, exchange: str, key: str, message: Any) -> None:
        answer = self._waiting.get(str(message.properties.get("correlation_id")))
        if answer is not None:
            answer.set_exception(Away("no such queue"))
