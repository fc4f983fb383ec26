"""The queue as the broker is asked for it: bounded, our own, and gone with its connection."""

from __future__ import annotations

from typing import Any

from kombu.transport.base import to_rabbitmq_queue_arguments

from rango_gevent.source.amqp import topology
from rango_gevent.source.base import QueueLimits

LIMITS = QueueLimits(length=1000, ttl_s=2.5)


def test_the_queue_goes_with_its_connection() -> None:
    """Exclusive, auto-delete and not durable: nothing is left behind, and no other consumes it."""
    queue = topology.queue("0123abcd", "x", LIMITS, "#")
    assert queue.name == "rango.instance.0123abcd"
    assert queue.exclusive is True
    assert queue.auto_delete is True
    assert queue.durable is False


def test_the_queue_gets_everything() -> None:
    """One binding by pattern for all; the gateway sorts by itself."""
    queue = topology.queue("0123abcd", "peatio.events.ranger", LIMITS, "#")
    assert queue.routing_key == "#"
    assert queue.exchange.name == "peatio.events.ranger"
    assert queue.bindings == set()


def test_declaring_the_queue_leaves_the_exchange_alone() -> None:
    """The exchange was taken as it is: declaring it along with the queue could be refused."""
    assert topology.queue("0123abcd", "x", LIMITS, "#").exchange.no_declare is True


def arguments(queue: Any) -> dict[str, Any]:
    """Return the arguments that RabbitMQ is given."""
    made: dict[str, Any] = to_rabbitmq_queue_arguments(
        queue.queue_arguments or {},
        expires=queue.expires,
        message_ttl=queue.message_ttl,
        max_length=queue.max_length,
        max_length_bytes=queue.max_length_bytes,
        max_priority=queue.max_priority,
    )
    return made


def test_the_queue_is_bounded() -> None:
    """A stalled gateway cannot fill the broker: bounds in messages and in milliseconds."""
    queue = topology.queue("0123abcd", "x", LIMITS, "#")
    assert arguments(queue) == {"x-max-length": 1000, "x-message-ttl": 2500}


def test_queues_of_two_workers_have_two_names() -> None:
    """Only the random part tells them apart."""
    one, other = topology.queue("1", "x", LIMITS, "#"), topology.queue("2", "x", LIMITS, "#")
    assert one.name != other.name


def test_the_log_is_a_stream_that_is_shared() -> None:
    """Its name is that of the exchange, its bounds are the settings'."""
    assert topology.log_name("peatio.events.ranger") == "rango.log.peatio.events.ranger"
    arguments = topology.log_arguments(1_000_000_000, 50_000_000)
    assert arguments["x-queue-type"] == "stream"
    assert arguments["x-max-length-bytes"] == 1_000_000_000
    assert arguments["x-stream-max-segment-size-bytes"] == 50_000_000
