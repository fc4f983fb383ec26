"""What kombu and py-amqp call a message, as a sink takes it."""

from __future__ import annotations

import time
from typing import Any

from rango_gevent.source.amqp.decoder import seconds
from rango_gevent.source.base import Sink


def hand_on(message: Any, sink: Sink) -> None:
    """Give a sink a message of a library's own."""
    body = message.body
    if isinstance(body, str):
        body = body.encode("utf-8", "surrogatepass")
    headers = message.headers if hasattr(message, "headers") else message.properties
    key = message.delivery_info.get("routing_key", "")
    sink(key, bytes(body), published_at(headers), 0)


def offset_of(message: Any) -> int:
    """Return where a message of py-amqp's stands in the log; -1: its queue is none."""
    offset = (message.headers or {}).get("x-stream-offset")
    return offset if isinstance(offset, int) and offset >= 0 else -1


def published_at(headers: dict[str, Any] | None) -> float:
    """Return when a message was published, in Unix seconds; now where it does not say.

    Read is the header ``timestamp_in_ms``, which the broker's timestamp plugin sets too;
    the AMQP property ``timestamp`` has whole seconds only, too coarse to measure a lag.
    """
    at_ms = (headers or {}).get("timestamp_in_ms")
    return seconds(at_ms if isinstance(at_ms, (int, float)) else 0, time.time())
