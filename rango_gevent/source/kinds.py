"""Which kind of source a broker's URL asks for: one table, and the only place that knows them."""

from __future__ import annotations

from typing import Callable
from urllib.parse import urlsplit

import gevent

from rango_gevent.source.amqp.binder import Binder
from rango_gevent.source.amqp.log import LogSource
from rango_gevent.source.amqp.pump import AmqpSource
from rango_gevent.source.base import Accepts, BrokerLimits, Log, Sink, Source
from rango_gevent.source.embedded import EmbeddedSource

KINDS: dict[str, Callable[..., Source]] = {
    "amqp": AmqpSource,
    "amqps": AmqpSource,
    "pyamqp": AmqpSource,
    "memory": EmbeddedSource,
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
    """
    if log is not None:
        return LogSource(urls, exchange, sink, limits, pace, accepts, log)
    kind = KINDS[urlsplit(urls[0]).scheme]
    more = {"binder": binder} if kind is AmqpSource else {}
    return kind(urls, exchange, sink, limits, pace, accepts, **more)
