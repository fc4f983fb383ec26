"""What ``rango load`` is to do: its arguments, checked and made into one `Plan`."""

from __future__ import annotations

import argparse
import ssl
import time
import uuid
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import quote

from rango_gevent.client.wire import checked_token, endpoint
from rango_gevent.commands.arguments import given_token
from rango_gevent.errors import ConfigError


class Plan(NamedTuple):
    """What to do.

    Attributes:
        url: whole URL of a client, its streams included.
        token: JWT, empty for none.
        tls: how certificates are checked.
        names: streams that each client asks for.
        own: the stream that this run publishes to, empty for none.
        clients: connections.
        connects_per_s: pace of connecting.
        seconds: length of the flow.
        rate: events to publish a second.
        start_ns: where the times of events are counted from, on the monotonic clock.
    """

    url: str
    token: str
    tls: ssl.SSLContext
    names: tuple[str, ...]
    own: str
    clients: int
    connects_per_s: float
    seconds: float
    rate: float
    start_ns: int


def make_plan(arguments: argparse.Namespace, environ: Mapping[str, str]) -> Plan:
    """Check what was asked for.

    Raises:
        ConfigError: the URL or the token cannot be one, or there is no stream.
    """
    own = f"load-{uuid.uuid4().hex[:8]}.events" if arguments.publish else ""
    names = (*dict.fromkeys(arguments.streams), *([own] if own else []))
    if not names:
        raise ConfigError("name a stream to listen to, or a broker to publish to by --publish")
    token = checked_token(given_token(arguments, environ))
    url = endpoint(arguments.url, private=bool(token))
    query = "&".join(f"stream={quote(name, safe='')}" for name in names)
    return Plan(
        f"{url}{'&' if '?' in url else '?'}{query}",
        token,
        _tls(arguments.insecure),
        names,
        own,
        int(arguments.clients),
        arguments.connect_rate,
        arguments.seconds,
        arguments.rate,
        time.monotonic_ns(),
    )


def _tls(insecure: bool) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
