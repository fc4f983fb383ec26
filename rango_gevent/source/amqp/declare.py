"""What is declared in the broker: the exchange, if it must be, and a worker's own queue.

Passive declaring tells that an exchange exists and not of which type it is; declaring it as
what we need is refused with 406 when it is something else, and the refusal names what it is.
"""

from __future__ import annotations

import logging
import random
import re
from functools import partial
from typing import Any

from amqp.exceptions import AccessRefused, PreconditionFailed
from kombu.connection import Connection

from rango_gevent.broker import exchange, exists
from rango_gevent.source.amqp import topology
from rango_gevent.source.base import QueueLimits, Sink, SourceRefused
from rango_gevent.source.message import hand_on

log = logging.getLogger(__name__)

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
    instance = f"{random.getrandbits(64):016x}"  # a name, not a secret
    queue = topology.queue(instance, name, limits)(connection.channel())
    queue.declare()
    queue.consume(TAG, partial(hand_on, sink=sink), no_ack=True)
    return queue
