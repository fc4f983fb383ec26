"""A publisher with a connection of its own: for ``rango inject``, the demo and tests.

A consumer's connection is never shared with a publisher: two greenlets must not use one
AMQP connection at the same time.
"""

from __future__ import annotations

import time
from types import TracebackType

from kombu.connection import Connection
from kombu.messaging import Producer

from rango_gevent.broker import topology


class Publisher:
    """Publish JSON bodies to a topic exchange, as Peatio does.

    Args:
        url: broker as a kombu URL.
        exchange: exchange, declared like Peatio's when it is missing.
        timeout_s: seconds to connect.
    """

    def __init__(self, url: str, exchange: str, timeout_s: float = 5.0) -> None:
        self._connection = Connection(url, connect_timeout=timeout_s)
        self._exchange = exchange
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
        """
        self._connection.ensure_connection(max_retries=1)
        try:
            topology.exchange(self._exchange, passive=True).declare(
                channel=self._connection.channel()
            )
        except self._connection.channel_errors:
            topology.exchange(self._exchange).declare(channel=self._connection.channel())
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
