"""Exchange and queue as Rango, Ranger and Peatio declare them. Pure: names and arguments.

The exchange is topic, non-durable, not auto-delete; kombu's default is durable, and
declaring it so beside a publisher that did otherwise is 406 PRECONDITION_FAILED. So an
existing exchange is taken as it is, and a missing one is declared as Peatio does.

Each process has one queue of its own: exclusive and auto-delete, so that it goes with its
connection, and bounded in length and time, so that a stalled gateway cannot fill the
broker's memory.
"""

from __future__ import annotations

from kombu.entity import Exchange, Queue

from rango_gevent.source.base import QueueLimits

EVERYTHING = "#"


def exchange(name: str, *, passive: bool = False) -> Exchange:
    """Describe the exchange; passive: it must exist and is taken as it is."""
    return Exchange(name, type="topic", durable=False, auto_delete=False, passive=passive)


def queue(instance: str, exchange_name: str, limits: QueueLimits) -> Queue:
    """Describe a worker's queue, bound to everything the exchange carries.

    Args:
        instance: random text that makes the name unique.
        exchange_name: exchange to bind to.
        limits: bounds in the broker.
    """
    return Queue(
        f"rango.instance.{instance}",
        Exchange(exchange_name, type="topic", durable=False, no_declare=True),
        routing_key=EVERYTHING,
        durable=False,
        exclusive=True,
        auto_delete=True,
        max_length=limits.length,
        message_ttl=limits.ttl_s,
    )
