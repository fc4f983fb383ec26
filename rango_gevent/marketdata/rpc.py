"""Questions over AMQP: a queue, JSON in, JSON back to who asks (`reply_to`, `correlation_id`).

``{"method":"kline.query","params":["btcusd",1700000000,1700003600,60]}`` is answered
``{"error":null,"result":[…]}``, or ``{"error":{"code":1,"message":"…"},"result":null}``.

The queue is exclusive: where nobody answers there is none, and who asks with ``mandatory`` hears
so at once. It is bounded in length and time: an answer that comes too late is of no use.
"""

from __future__ import annotations

import json
import logging
import socket
import time
from contextlib import suppress
from typing import Any, Callable

import amqp
from kombu.connection import Connection

from rango_gevent.marketdata.queries import INTERNAL, INVALID, QueryError
from rango_gevent.source.amqp.pump import AmqpSource
from rango_gevent.source.base import BrokerLimits

log = logging.getLogger(__name__)

_TICK_S = 0.5
_BEAT_S = 0.8
_MAX_REQUEST_BYTES = 64 * 1024

_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


class RpcServer(AmqpSource):
    """Answers what comes to a queue.

    Args:
        urls: brokers, tried in turn.
        queue: its name, on the default exchange.
        ask: answers a method with its parameters, or raises `QueryError`.
        limits: bounds of the connection and of the queue.

    Attributes:
        answered: questions answered.
        refused: questions answered with an error.
    """

    def __init__(
        self,
        urls: list[str],
        queue: str,
        ask: Callable[[object, object], Any],
        limits: BrokerLimits,
    ) -> None:
        super().__init__(
            urls, queue, lambda *_: None, limits, lambda more: None, lambda key, size: True
        )
        self._ask = ask
        self.answered = 0
        self.refused = 0

    def _subscribe(self, connection: Connection) -> Any:
        channel = connection.channel()
        bounds = self._limits.queue
        channel.queue_declare(
            self.exchange,
            exclusive=True,
            auto_delete=True,
            arguments={
                "x-max-length": bounds.length,
                "x-message-ttl": int(bounds.ttl_s * 1000),
            },
        )
        channel.basic_consume(
            self.exchange, no_ack=True, callback=lambda message: self._answer(channel, message)
        )
        return channel

    def _pump(self, connection: amqp.Connection, queue: Any) -> None:
        due = 0.0
        while True:
            with suppress(socket.timeout):
                connection.drain_events(timeout=_TICK_S)
            if time.monotonic() >= due:
                due = time.monotonic() + _BEAT_S
                connection.heartbeat_tick()

    def _answer(self, channel: amqp.Channel, message: Any) -> None:
        reply_to = message.properties.get("reply_to")
        if not reply_to:
            return  # nobody would hear
        body = message.body
        reply = self.reply(body.encode("utf-8", "replace") if isinstance(body, str) else body)
        properties = {"content_type": "application/json"}
        if "correlation_id" in message.properties:
            properties["correlation_id"] = message.properties["correlation_id"]
        channel.basic_publish(amqp.Message(reply, **properties), "", reply_to)

    def reply(self, body: bytes) -> bytes:
        """Return the answer to a question, whatever it is."""
        try:
            error, result = None, self._asked(body)
            self.answered += 1
        except QueryError as problem:
            error, result = {"code": problem.code, "message": str(problem)}, None
            self.refused += 1
        except Exception as problem:
            log.exception("a question could not be answered: %s", type(problem).__name__)
            error, result = {"code": INTERNAL, "message": "internal error"}, None
            self.refused += 1
        return _encode({"error": error, "result": result}).encode("utf-8", "replace")

    def _asked(self, body: bytes) -> Any:
        if len(body) > _MAX_REQUEST_BYTES:
            raise QueryError(INVALID, "invalid argument: too long")
        try:
            question = json.loads(body)
        except (ValueError, RecursionError):
            raise QueryError(INVALID, "invalid argument: not JSON") from None
        if not isinstance(question, dict):
            raise QueryError(INVALID, "invalid argument: give an object")
        return self._ask(question.get("method"), question.get("params", []))
