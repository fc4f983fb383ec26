"""What is declared in the broker: the exchange, if it must be, a worker's own queue, the log.

Passive declaring tells that an exchange exists and not of which type it is; declaring it as
what we need is refused with 406 when it is something else, and the refusal names what it is.
"""

from __future__ import annotations

import logging
import random
import re
from functools import partial
from typing import Any

from amqp.exceptions import AccessRefused, InternalError, NotFound, PreconditionFailed
from kombu.connection import Connection

from rango_gevent.broker import exchange, exists
from rango_gevent.source.amqp import topology
from rango_gevent.source.base import LogLimits, QueueLimits, Sink, SourceError, SourceRefused
from rango_gevent.source.bindings import EVERYTHING
from rango_gevent.source.message import hand_on
from rango_gevent.throttle import ThrottledLog

log = logging.getLogger(__name__)

_differences = ThrottledLog(log, 3600)

TAG = "rango"

# RabbitMQ's words: it looks at the type before anything else
_OTHER_TYPE = re.compile(r"inequivalent arg 'type'.*?(?:current is '([^']*)'|$)", re.DOTALL)


def take(connection: Connection, name: str) -> None:
    """Make sure that there is a topic exchange; declare it if there is none.

    Durable or not, and whatever else may differ, it is taken as it is. Without the right to
    configure it its type cannot be asked for, and it is taken for one.

    Raises:
        SourceRefused: its type is another one, or it is missing and may not be declared.
    """
    try:
        exchange(connection.channel(), name)
    except PreconditionFailed as error:
        found = _OTHER_TYPE.search(str(error))
        if found:
            raise SourceRefused(
                f"exchange {name!r} is of type {found[1] or 'another'}, not topic, and would give "
                "us nothing: name a topic exchange in RANGO_EXCHANGE, or delete this one and "
                "let its publisher declare it as topic"
            ) from None
    except AccessRefused as error:
        if not exists(connection, name):
            raise SourceRefused(
                f"exchange {name!r} does not exist, and this user may not declare it: "
                f"start its publisher first, or check RANGO_EXCHANGE ({error})"
            ) from None
        log.info("exchange %s is taken for one of type topic: this user may not ask", name)


def subscribe(connection: Connection, name: str, limits: QueueLimits, sink: Sink) -> Any:
    """Declare a queue of our own, bind it to the exchange, begin to consume; return it bound."""
    queue = own_queue(connection, name, limits)
    consume(queue, sink)
    return queue


def own_queue(connection: Connection, name: str, limits: QueueLimits, key: str = EVERYTHING) -> Any:
    """Declare a queue of our own, bind it by a key; return it bound to its channel."""
    queue = _described(connection, name, limits, key)
    queue.declare()
    return queue


def stand_by(connection: Connection, name: str, limits: QueueLimits) -> Any:
    """Declare a queue of our own, bind it, and leave it alone; return it bound."""
    queue = _described(connection, name, limits, EVERYTHING)
    queue.auto_delete = False  # it must outlive its consumer; kombu sets it where exclusive is
    queue.declare()
    return queue


def consume(queue: Any, sink: Sink) -> None:
    """Begin to consume a queue that was declared."""
    queue.consume(TAG, partial(hand_on, sink=sink), no_ack=True)


def _described(connection: Connection, name: str, limits: QueueLimits, key: str) -> Any:
    instance = f"{random.getrandbits(64):016x}"  # a name, not a secret
    return topology.queue(instance, name, limits, key)(connection.channel())


def log_queue(connection: Connection, exchange_name: str, limits: LogLimits) -> bool:
    """Declare the log if there is none, and bind it; tell whether it is new, and so empty.

    One that is there is taken as it is: its bounds are those it was declared with.

    Raises:
        SourceRefused: it cannot be had, in words that say what to do.
    """
    name = topology.log_name(exchange_name)
    arguments = topology.log_arguments(limits.bytes, limits.segment_bytes)
    is_new = not _is_there(connection, name)
    try:
        connection.channel().queue_declare(
            name, durable=True, auto_delete=False, arguments=arguments
        )
    except InternalError as error:
        raise SourceRefused(
            f"the broker has no stream queues ({error}): `rabbitmqctl enable_feature_flag "
            "stream_queue`, RabbitMQ 3.9 or later; or RANGO_LOG=off"
        ) from None
    except PreconditionFailed as error:
        if "'x-queue-type'" in str(error) or "'durable'" in str(error):
            raise SourceRefused(no_stream(name)) from None  # unless another difference is named
        if "inequivalent" not in str(error):  # no leader yet
            raise SourceError(str(error)) from error
        text = "log %s keeps the bounds that it was declared with: %s"
        _differences.say(logging.INFO, name, text, name, error)
    except AccessRefused as error:
        if is_new:
            raise SourceRefused(no_rights(name, error)) from None
    try:
        connection.channel().queue_bind(name, exchange_name, EVERYTHING)
    except AccessRefused as error:
        raise SourceRefused(no_rights(name, error)) from None
    return is_new


def _is_there(connection: Connection, name: str) -> bool:
    """Tell whether there is a queue of that name; whoever may not know is told that there is."""
    try:
        connection.channel().queue_declare(name, passive=True)
    except NotFound:
        return False
    except AccessRefused:
        return True
    return True


def no_rights(name: str, error: Exception) -> str:
    """Say that a user may not use the log, and what to do."""
    return (
        f"this user may not use the log {name}: give it the rights to configure, write and read "
        r"`^rango\..*`, and to read the exchange, by `rabbitmqctl set_permissions`; "
        f"or RANGO_LOG=off ({error})"
    )


def no_stream(name: str) -> str:
    """Say that a queue has the name of the log and is of another type, and what to do."""
    return (
        f"queue {name} is no stream queue: delete it, by `rabbitmqctl delete_queue {name}`, "
        "and it is declared as one; or RANGO_LOG=off"
    )
