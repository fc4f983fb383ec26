"""Try what the settings name: for ``rango config --check --connect`` and ``rango doctor``.

Keys are loaded, and who is asked about tokens is asked; each broker is connected to as the gateway
would, its exchange looked at, and a queue declared, bound and consumed, which goes with the
connection; with RANGO_LOG=stream also the rights that the log needs are tried. Nothing is left
behind, and an exchange that is missing is told instead of declared.
"""

from __future__ import annotations

import ssl
import time
import uuid
from typing import Iterator

from amqp.exceptions import AccessRefused, AMQPError, NotAllowed, NotFound, PreconditionFailed
from gevent.timeout import Timeout
from kombu.connection import Connection

from rango_gevent import broker
from rango_gevent.auth.keys import described
from rango_gevent.commands.findings import FAIL, OK, Finding
from rango_gevent.environment import load_keys
from rango_gevent.errors import ConfigError
from rango_gevent.kafka_source import open_kafka
from rango_gevent.remote.fetch import Fetcher, Unreachable
from rango_gevent.remote.jwks import read_keys
from rango_gevent.remote.lookup import read_answer
from rango_gevent.settings import Settings
from rango_gevent.source.amqp import declare
from rango_gevent.source.amqp.connection import connect, leave
from rango_gevent.source.amqp.topology import log_name
from rango_gevent.source.base import BrokerTimeout, QueueLimits, SourceError, SourceRefused
from rango_gevent.urls import mask_url

_LIMITS = QueueLimits(length=1, ttl_s=1.0)


def probe(settings: Settings) -> Iterator[Finding]:
    """Try everything that the settings name; what depends on a failure is not tried."""
    yield from probe_keys(settings)
    yield from probe_brokers(settings)


def probe_keys(settings: Settings) -> Iterator[Finding]:
    """Try what tokens are checked with: keys, and who is asked."""
    try:
        yield Finding(OK, described([*load_keys(settings), *settings.asked]))
    except ConfigError as error:
        for problem in error.problems:
            yield Finding(FAIL, problem)
    if settings.jwks_url:
        yield _probe_jwks(settings)
    if settings.auth_url:
        yield _probe_service(settings)


def probe_brokers(settings: Settings) -> Iterator[Finding]:
    """Try each broker, the exchange there, and what the user may do."""
    if settings.source:
        yield _probe_kafka(settings)
        return
    for url in settings.broker_urls:
        if url.startswith("memory"):
            yield Finding(OK, "the broker lives inside of the gateway: nothing to connect to")
        else:
            yield from _probe_broker(url, settings)


def _probe_jwks(settings: Settings) -> Finding:
    try:
        keys = read_keys(Fetcher(settings.jwks_url, settings.auth_timeout_s).get())
    except (Unreachable, ValueError) as error:
        text = f"JWT_JWKS_URL {mask_url(settings.jwks_url)}: {error}"
        return Finding(FAIL, text, "see whether it can be reached from here and is a list of keys")
    return Finding(OK, f"JWT_JWKS_URL: {described(keys)}")


def _probe_service(settings: Settings) -> Finding:
    """Ask about a token that nobody has: any answer will do."""
    url = settings.auth_url
    try:
        read_answer(Fetcher(url, settings.auth_timeout_s).get({"Authorization": "-"}), time.time())
    except (Unreachable, ValueError) as error:
        text = f"RANGO_AUTH_URL {mask_url(url)}: {error}"
        return Finding(FAIL, text, "see whether it can be reached from here")
    return Finding(OK, "RANGO_AUTH_URL answers")


def _probe_kafka(settings: Settings) -> Finding:
    """Connect as the gateway would, and look for all partitions."""
    place = mask_url(settings.source)
    try:
        source = open_kafka(settings, _nowhere, lambda more: None, _nowhere)
        try:
            source.connect(hasty=False)
        finally:
            source.drop()
    except (ConfigError, SourceError) as error:
        return Finding(FAIL, f"{place}: {error}")
    return Finding(OK, f"{place}: {source.exchange}")


def _probe_broker(url: str, settings: Settings) -> Iterator[Finding]:
    timeout_s = settings.broker_timeout_s
    connection = broker.describe(
        url,
        heartbeat_s=settings.broker_heartbeat_s,
        silence_s=settings.broker_heartbeat_s,
        timeout_s=timeout_s,
    )
    try:
        with Timeout(timeout_s, BrokerTimeout("no answer in time")):
            connect(connection, timeout_s, hasty=False)
            yield Finding(OK, f"broker {mask_url(url)}")
            yield from _probe_exchange(connection, settings.exchange)
            if settings.log != "off":
                yield from _probe_log(connection, settings.exchange)
    except (AMQPError, OSError) as error:
        yield Finding(FAIL, f"broker {mask_url(url)}: {_words(error)}", _cure(error))
    finally:
        leave(connection)


def _probe_exchange(connection: Connection, name: str) -> Iterator[Finding]:
    if not broker.exists(connection, name):
        yield Finding(
            FAIL,
            f"exchange {name!r} does not exist",
            "check RANGO_EXCHANGE, or start its publisher; the gateway would declare it and wait",
        )
        return
    try:
        declare.take(connection, name)
    except SourceRefused as error:
        text, _, cure = str(error).partition(": ")
        yield Finding(FAIL, text, cure)
        return
    kind = "of type topic" if _may_ask(connection, name) else "taken for topic: may not ask"
    yield Finding(OK, f"exchange {name!r}, {kind}")
    try:
        declare.subscribe(connection, name, _LIMITS, lambda *message: None)
    except AccessRefused as error:
        user, vhost = connection.userid, connection.virtual_host
        own = r"'^rango\.instance\.'"
        yield Finding(
            FAIL,
            f"rights: {_words(error)}",
            f"give them by `rabbitmqctl set_permissions -p {vhost} {user} "
            f"{own} {own} '^(rango\\.instance\\..*|{name})$'`",
        )
    else:
        yield Finding(OK, "rights to declare a queue, to bind it and to consume it")


def _probe_log(connection: Connection, exchange: str) -> Iterator[Finding]:
    """Try the rights that a log needs, by a queue whose name begins as the log's does.

    The log itself is not declared: once it is bound it costs the broker, and holds publishers up
    when it has no quorum.
    """
    name = log_name(exchange)
    channel = connection.channel()
    try:
        trial = f"{log_name('probe')}.{uuid.uuid4().hex}"
        channel.queue_declare(trial, exclusive=True, auto_delete=True)
        channel.queue_bind(trial, exchange, "rango.probe")
        channel.basic_get(trial, no_ack=True)
        channel.queue_delete(trial)
    except AccessRefused as error:
        yield Finding(FAIL, *declare.no_rights(name, error).split(": ", 1))
        return
    try:
        connection.channel().queue_declare(name, passive=True)
    except NotFound as error:
        if "down or inaccessible" in str(error):
            yield Finding(FAIL, f"log {name} has no leader", "start the other nodes")
            return
        yield Finding(OK, f"rights for the log {name}; the gateway declares it at its start")
    else:
        yield Finding(OK, f"rights for the log {name}, which is there")


def _may_ask(connection: Connection, name: str) -> bool:
    """Tell whether the user may declare an exchange, which is how its type is learnt."""
    try:
        broker.exchange(connection.channel(), name)
    except AccessRefused:
        return False
    except PreconditionFailed:  # durable, say: a topic exchange all the same
        return True
    return True


def _nowhere(*message: object) -> bool:
    return True


def _words(error: Exception) -> str:
    """Return the broker's own words, or the system's."""
    return str(getattr(error, "reply_text", "") or error or type(error).__name__).rstrip(".")


def _cure(error: Exception) -> str:
    if isinstance(error, AccessRefused):
        return (
            "check RABBITMQ_USER and RABBITMQ_PASSWORD, or RANGO_AMQP_URL; "
            "RabbitMQ lets `guest` in from its own host alone"
        )
    if isinstance(error, NotAllowed):
        return "check RABBITMQ_VHOST, and the user's permissions there"
    if isinstance(error, ssl.SSLError):
        return "check the certificate; SSL_CERT_FILE names a private authority"
    return "check that it runs and can be reached; see RABBITMQ_HOST and _PORT, or RANGO_AMQP_URL"
