"""The exchange as the broker has it: whether it is there, and whether it is one for us.

Passive declaring tells that an exchange exists and not of which type it is; declaring it as
what we need is refused with 406 when it is something else, and the refusal names what it is.
"""

from __future__ import annotations

import logging
import re

from amqp.exceptions import AccessRefused, PreconditionFailed
from kombu.connection import Connection

from rango_gevent.source.amqp import topology
from rango_gevent.source.base import SourceRefused

log = logging.getLogger(__name__)

# RabbitMQ's words: it looks at the type before anything else
_OTHER_TYPE = re.compile(r"inequivalent arg 'type'.*?(?:current is '([^']*)'|$)", re.DOTALL)


def exists(connection: Connection, name: str) -> bool:
    """Tell whether there is an exchange of that name."""
    try:
        topology.exchange(name, passive=True).declare(channel=connection.channel())
    except connection.channel_errors:  # 404, which closes the channel
        return False
    return True


def declare_missing(connection: Connection, name: str) -> None:
    """Declare the exchange if there is none; one that is there is taken as it is."""
    if not exists(connection, name):
        topology.exchange(name).declare(channel=connection.channel())


def take(connection: Connection, name: str) -> None:
    """Make sure that there is a topic exchange; declare it if there is none.

    Durable or not, and whatever else may differ, it is taken as it is. Without the right to
    configure it its type cannot be asked for, and it is taken for one.

    Raises:
        SourceRefused: its type is another one, or it is missing and may not be declared.
    """
    try:
        topology.exchange(name).declare(channel=connection.channel())
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
