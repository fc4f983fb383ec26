"""One connection to a broker: made, left or dropped, each in bounded time.

Nothing is tried twice here: when to try again is the supervisor's business.
"""

from __future__ import annotations

import logging
import socket
import ssl
import time
from typing import Any

import amqp
import gevent
from gevent.timeout import Timeout
from kombu.connection import Connection

from rango_gevent.source.base import BrokerTimeout, Overtaken

log = logging.getLogger(__name__)

HANGS_AFTER_S = 0.4
_LEAVE_S = 1.0
_HEADER = b"AMQP\x00\x00\x09\x01"  # AMQP 0-9-1, section 4.2.2
_METHOD = b"\x01"  # the first byte of connection.start, a method frame


def connect(connection: Connection, timeout_s: float, *, hasty: bool) -> None:
    """Connect, once.

    What a broken path has swallowed it does not give back when it is whole again: an attempt
    that hangs is no sign that the next one would.

    Args:
        connection: from `broker.describe`.
        timeout_s: limit for all of it.
        hasty: give an attempt that hangs up as soon as the broker answers a probe.

    Raises:
        Overtaken: it was given up so; or the broker is slow, and should be given all the time.
        BrokerTimeout: it took too long.
        Exception: whatever kombu raises.
    """
    attempt: gevent.Greenlet[..., Any] = gevent.spawn(_try, connection)
    probes: list[gevent.Greenlet[..., Any]] = []
    if hasty:
        probes = [gevent.spawn(_wait_until_answers, connection)]
    try:
        gevent.wait([attempt, *probes], timeout_s, count=1)
        if attempt.ready():
            if attempt.value is not None:
                raise attempt.value
        elif any(probe.ready() for probe in probes):
            raise Overtaken("no answer, while others get one")
        else:
            raise BrokerTimeout("no answer in time")
    finally:
        gevent.killall(probes, block=False)
        attempt.kill(BrokerTimeout("given up"), block=False)


def _try(connection: Connection) -> Exception | None:
    """Connect, and return what went wrong: raised here it would be printed by gevent."""
    try:
        connection.ensure_connection(
            max_retries=0, interval_start=0, interval_step=0, reraise_as_library_errors=False
        )
    except Exception as error:
        return error
    return None


def leave(connection: Connection) -> None:
    """Say goodbye, in bounded time."""
    try:
        with Timeout(_LEAVE_S, BrokerTimeout("no answer to close")):
            connection.release()
    except Exception as error:
        log.debug("while leaving the broker: %s", error)


def drop(connection: Connection) -> None:
    """Close the socket at once: who is at the other end may not answer any more."""
    try:
        if connection.connected and isinstance(connection.connection, amqp.Connection):
            connection.connection.sock.settimeout(0)  # TLS would wait for the other's goodbye
        connection.collect()
    except Exception as error:
        log.debug("while dropping the connection: %s", error)


# -- probes -----------------------------------------------------------------------------


def _wait_until_answers(connection: Connection) -> None:
    """Probe again and again, and return when the broker has answered."""
    while True:
        started = time.monotonic()
        gevent.sleep(HANGS_AFTER_S)
        while time.monotonic() - started >= HANGS_AFTER_S:  # one that was refused was quicker
            started = time.monotonic()
            if _answers(connection):
                return


def _answers(connection: Connection) -> bool:
    """Tell whether a broker is there: it has sent its first byte, or shaken hands.

    That a port is open proves nothing: the kernel accepts connections for a stopped process.
    """
    address = (connection.hostname, connection.port)  # kombu has filled them in to connect
    try:
        with socket.create_connection(address, HANGS_AFTER_S) as sock:
            if connection.ssl:
                with _believing_anybody().wrap_socket(sock):
                    return True
            sock.sendall(_HEADER)
            return sock.recv(1) == _METHOD
    except OSError:
        return False


def _believing_anybody() -> ssl.SSLContext:
    """Return a context for a probe, which tells no secrets: who answers is checked later."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
