"""``rango log``: look at the log that instances share, or take it away.

AMQP does not tell how large a stream queue is on disk, nor what it is bound to; the broker's own
`rabbitmqctl` does, and is named where it is needed.
"""

from __future__ import annotations

import argparse
import contextlib
import socket
import time
from typing import Any, Iterator

import amqp
from amqp.exceptions import AMQPError, NotFound

from rango_gevent import broker
from rango_gevent.commands.arguments import add_setting_flags, setting_flags
from rango_gevent.commands.terminal import say
from rango_gevent.environment import load_settings
from rango_gevent.settings import Settings
from rango_gevent.source.amqp.topology import log_name
from rango_gevent.source.bindings import EVERYTHING
from rango_gevent.source.message import offset_of
from rango_gevent.urls import mask_url

_ANSWER_S = 2.0


class LogFailed(Exception):
    """The broker does not do what is asked; the text says why and what helps."""


DESCRIPTION = """\
With `drop` unbind and delete the stream queue that instances share; first set
RANGO_LOG=off for all of them, or they declare it again."""
EXAMPLE = "  RABBITMQ_HOST=rabbit rango log status"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    parser.add_argument("what", choices=("status", "drop"), help="look at it, or delete it")
    add_setting_flags(parser, "amqp-addr", "exchange")


def run(arguments: argparse.Namespace) -> int:
    """Do ``status`` or ``drop`` and print its lines; return the exit code."""
    settings = load_settings(setting_flags(arguments)).settings
    if settings.broker_urls[0].startswith("memory"):
        say("rango: an embedded broker keeps no log; name a RabbitMQ")
        return 1
    try:
        for line in (drop if arguments.what == "drop" else status)(settings):
            print(line, flush=True)
    except LogFailed as error:
        say(f"rango: {error}")
        return 1
    return 0


def status(settings: Settings) -> Iterator[str]:
    """Yield lines about the log.

    Raises:
        LogFailed: there is none, or it cannot be looked at.
    """
    name = log_name(settings.exchange)
    with _connected(settings) as connection:
        yield f"log {name} of exchange {settings.exchange} at {_place(settings)}"
        first, last = (_offset(connection, name, place) for place in ("first", "last"))
        if first is None or last is None:
            yield "it is empty, or does not answer"
        else:
            yield f"offsets {first} to {last} or a little more: {last - first + 1} events"
        yield (
            "bytes, members, bindings: `rabbitmqctl list_queues name members online leader`, "
            f"`rabbitmqctl list_bindings source_name destination_name | grep {name}`"
        )


def drop(settings: Settings) -> Iterator[str]:
    """Unbind the log and delete it with all that is in it; yield what was done.

    Unbound first: a stream that has lost its quorum cannot be deleted, and as long as it is bound
    it holds publishers up.

    Raises:
        LogFailed: it could not be done.
    """
    name = log_name(settings.exchange)
    with _connected(settings) as connection:
        connection.channel().queue_unbind(name, settings.exchange, EVERYTHING)
        yield f"{name} is unbound from {settings.exchange}"
        connection.channel().queue_delete(name)
        yield f"{name} is deleted; a gateway with RANGO_LOG=stream declares it again"


@contextlib.contextmanager
def _connected(settings: Settings) -> Iterator[amqp.Connection]:
    """Give a connection to the first broker, each call of which is bounded in time."""
    name, timeout_s = log_name(settings.exchange), settings.broker_timeout_s
    description = broker.describe(
        settings.broker_urls[0], heartbeat_s=0, silence_s=timeout_s, timeout_s=timeout_s
    )
    try:
        description.ensure_connection(max_retries=0, interval_start=0)
        connection = description.connection
        with connection.transport.having_timeout(timeout_s):
            if not _is_there(connection, name):
                raise LogFailed(
                    f"there is no log {name} at {_place(settings)}: check RANGO_EXCHANGE"
                )
            yield connection
    except socket.timeout:
        raise LogFailed(
            f"{_place(settings)} did not answer within {timeout_s:g} s: has the log {name} lost "
            "its quorum? Start the other nodes; RANGO_BROKER_TIMEOUT_S allows more time"
        ) from None
    except (AMQPError, OSError, *description.connection_errors) as error:
        raise LogFailed(f"{_place(settings)}: {error}") from None
    finally:
        description.collect()


def _is_there(connection: amqp.Connection, name: str) -> bool:
    try:
        connection.channel().queue_declare(name, passive=True)
    except NotFound as error:
        return "down or inaccessible" in str(error)  # then it is there, and has no leader
    return True


def _place(settings: Settings) -> str:
    return mask_url(settings.broker_urls[0])


def _offset(connection: amqp.Connection, name: str, place: str) -> int | None:
    """Return the offset of the first event from a place on, None when none comes."""
    found: list[int] = []

    def note(message: Any) -> None:
        found.append(offset_of(message))

    channel = connection.channel()
    channel.basic_qos(0, 1, False)
    channel.basic_consume(name, place, callback=note, arguments={"x-stream-offset": place})
    deadline = time.monotonic() + _ANSWER_S
    with contextlib.suppress(socket.timeout):
        while not found and time.monotonic() < deadline:
            connection.blocking_read(_ANSWER_S)
    channel.basic_cancel(place)
    channel.close()
    return found[0] if found else None
