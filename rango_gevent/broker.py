"""What gateway and publishers ask of a broker alike: a connection, and the topic exchange.

kombu's default is durable, and declaring an exchange so beside a publisher that did otherwise is
406 PRECONDITION_FAILED: so one that is there is taken as it is, and a missing one is declared as
Peatio does. Nothing here needs gevent.
"""

from __future__ import annotations

import socket
from typing import Any, Mapping
from urllib.parse import urlsplit

import amqp
from amqp.exceptions import AccessRefused, NotAllowed, PreconditionFailed
from kombu.connection import Connection

MISCONFIGURED = (AccessRefused, NotAllowed, PreconditionFailed)  # 403, 530, 406


def describe(
    url: str,
    *,
    heartbeat_s: int,
    silence_s: float,
    timeout_s: float,
    options: Mapping[str, object] | None = None,
) -> Connection:
    """Describe a connection; nothing is sent yet.

    Args:
        url: broker as a kombu URL.
        heartbeat_s: heartbeat to agree on.
        silence_s: how long sent data may stay unacknowledged by the peer's machine.
        timeout_s: limit for each step of connecting.
        options: more for the transport; kombu gets a copy, because it writes into what it gets.
    """
    parts = urlsplit(url)
    all_options: dict[str, object] = {}
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        # py-amqp's one second would end a connection for every short break of the network
        all_options = {"socket_settings": {socket.TCP_USER_TIMEOUT: int(silence_s * 1000)}}
    return Connection(
        url,
        heartbeat=heartbeat_s,
        connect_timeout=timeout_s,
        transport_options={**all_options, **(options or {})},
        # the name in the certificate is looked at only when it is asked for
        ssl={"server_hostname": parts.hostname} if parts.scheme == "amqps" else False,
    )


def exchange(channel: Any, name: str, *, passive: bool = False) -> None:
    """Declare the exchange as Rango, Ranger and Peatio do: topic, not durable, not auto-delete.

    Not by kombu's `Exchange`, which asks the broker nothing about names that begin with ``amq.``.

    Args:
        channel: of any transport.
        name: of the exchange.
        passive: it must be there, and may be anything.
    """
    channel.exchange_declare(
        exchange=name, type="topic", durable=False, auto_delete=False, passive=passive
    )


def exists(connection: Connection | amqp.Connection, name: str) -> bool:
    """Tell whether there is an exchange of that name."""
    try:
        exchange(connection.channel(), name, passive=True)
    except connection.channel_errors:  # 404, which closes the channel
        return False
    return True


def declare_missing(connection: Connection | amqp.Connection, name: str) -> None:
    """Declare the exchange if there is none; one that is there is taken as it is."""
    if not exists(connection, name):
        exchange(connection.channel(), name)
