"""A publisher with a connection of its own: for ``rango inject``, the demo and tests.

A consumer's connection is never shared with a publisher: two greenlets must not use one
AMQP connection at the same time.
"""

from __future__ import annotations

import time
from types import TracebackType

from kombu.connection import Connection
from kombu.messaging import Producer

from rango_gevent import broker
from rango_gevent.source.base import SourceError


class Publisher:
    """Publish JSON bodies to a topic exchange, as Peatio does.

    Args:
        url: broker as a kombu URL.
        exchange: name of the exchange.
        timeout_s: seconds to connect.
        create: declare the exchange like Peatio's when it is missing.
    """

    def __init__(
        self, url: str, exchange: str, timeout_s: float = 5.0, *, create: bool = True
    ) -> None:
        self._connection = Connection(url, connect_timeout=timeout_s)
        self._exchange = exchange
        self._create = create
        self._producer: Producer | None = None

    def __enter__(self) -> Publisher:
        """Connect."""
        self.connect()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the broker."""
        self.close()

    def connect(self) -> None:
        """Connect and make sure that the exchange exists.

        Raises:
            OSError: the broker cannot be reached.
            amqp.exceptions.AMQPError: the broker refuses.
            SourceError: the exchange is missing, and is not to be made.
        """
        self._connection.ensure_connection(max_retries=1)
        if self._create:
            broker.declare_missing(self._connection, self._exchange)
        elif not broker.exists(self._connection, self._exchange):
            raise SourceError(f"exchange {self._exchange!r} does not exist")
        self._producer = Producer(self._connection.channel(), auto_declare=False)

    def publish(self, routing_key: str, body: bytes) -> None:
        """Publish one message, with the time of publishing in a header."""
        assert self._producer is not None, "connect first"
        self._producer.publish(
            body,
            exchange=self._exchange,
            routing_key=routing_key,
            content_type="application/json",
            content_encoding="binary",
            headers={"timestamp_in_ms": int(time.time() * 1000)},
        )

    def close(self) -> None:
        """Leave the broker."""
        self._connection.release()
