"""Queues as the broker is asked for them. Pure: names and arguments.

Each process has one queue of its own: exclusive and auto-delete, so that it goes with its
connection, and bounded in length and time, so that a stalled gateway cannot fill the
broker's memory.
"""

from __future__ import annotations

from kombu.entity import Exchange, Queue

from rango_gevent.source.base import QueueLimits


def queue(instance: str, exchange_name: str, limits: QueueLimits, key: str) -> Queue:
    """Describe a worker's queue, bound to what its exchange carries.

    Args:
        instance: random text that makes the name unique.
        exchange_name: exchange to bind to.
        limits: bounds in the broker.
        key: of its first binding.
    """
    return Queue(
        f"rango.instance.{instance}",
        Exchange(exchange_name, type="topic", durable=False, no_declare=True),
        routing_key=key,
        durable=False,
        exclusive=True,
        auto_delete=True,
        max_length=limits.length,
        message_ttl=limits.ttl_s,
    )


def log_name(exchange_name: str) -> str:
    """Return the name of the stream queue that all instances share as a log."""
    return f"rango.log.{exchange_name}"


def log_arguments(max_bytes: int, segment_bytes: int) -> dict[str, object]:
    """Return the arguments that a log is declared with.

    Args:
        max_bytes: of the log, about; whole segments go.
        segment_bytes: size of one.
    """
    return {
        "x-queue-type": "stream",
        "x-max-length-bytes": max_bytes,
        "x-stream-max-segment-size-bytes": segment_bytes,
        "x-queue-leader-locator": "client-local",
    }
