"""Which kind of source a broker's URL asks for: one table, and the only place that knows them."""

from __future__ import annotations

from typing import Any, Callable
from urllib.parse import urlsplit

import gevent

from rango_gevent.source.amqp.binder import Binder
from rango_gevent.source.amqp.log import LogSource
from rango_gevent.source.amqp.pump import AmqpSource
from rango_gevent.source.base import Accepts, BrokerLimits, KafkaWishes, Log, Sink, Source
from rango_gevent.source.embedded import EmbeddedSource


def _kafka(*arguments: Any, **more: Any) -> Source:
    """Return a source of Kafka; only who has one needs its library."""
    from rango_gevent.source.kafka.source import KafkaSource

    return KafkaSource(*arguments, **more)


KINDS: dict[str, Callable[..., Source]] = {
    "amqp": AmqpSource,
    "amqps": AmqpSource,
    "pyamqp": AmqpSource,
    "memory": EmbeddedSource,
    "kafka": _kafka,
    "kafkas": _kafka,
}


def open_source(
    urls: list[str],
    exchange: str,
    sink: Sink,
    limits: BrokerLimits,
    pace: Callable[[bool], None] = lambda more: gevent.sleep(0),
    accepts: Accepts = lambda key, size: True,
    log: Log | None = None,
    binder: Binder | None = None,
    wishes: KafkaWishes | None = None,
) -> Source:
    """Return a source; nothing is connected yet.

    Args:
        urls: brokers of one kind, tried in turn.
        exchange: name of what to consume.
        sink: where messages go.
        limits: bounds.
        pace: called after each read, and told if more is there; waits until reading pays again.
        accepts: asked before a large body is collected.
        log: keep one, and read it; for RabbitMQ only.
        binder: keeps RabbitMQ's queue bound, to everything by default; a log has everything.
        wishes: what else a source of Kafka is asked for.
    """
    if log is not None:
        return LogSource(urls, exchange, sink, limits, pace, accepts, log)
    kind = KINDS[urlsplit(urls[0]).scheme]
    more: dict[str, Any] = {"binder": binder} if kind is AmqpSource else {}
    if wishes is not None:
        more = {"wishes": wishes}
    return kind(urls, exchange, sink, limits, pace, accepts, **more)
