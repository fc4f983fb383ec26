"""How a client connects: to whom, as whom, and with which options of ``websockets``."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, Callable, NamedTuple

from rango_gevent.client.model import Limits
from rango_gevent.client.wire import endpoint
from rango_gevent.errors import ConfigError

# That ``websockets`` reads ahead while somebody's full queue (policy ``block``) holds the reader.
_QUEUE_FRAMES = 16_384


class Plan(NamedTuple):
    """How a client connects.

    Attributes:
        urls: of gateways.
        has_token: it has one, or a way to get one.
        renews: it can get another.
        in_band: the token goes in a message, not with the handshake.
        per_connection: streams of one connection; 0: all.
        resume: ask for positions and come back by them.
        reconnect: come back when a connection is lost.
    """

    urls: Sequence[str]
    has_token: bool = False
    renews: bool = False
    in_band: bool = False
    per_connection: int = 0
    resume: bool = True
    reconnect: bool = True


def make_plan(url: str | Sequence[str], token: object, *, in_band: bool) -> Plan:
    """Return how to connect.

    Raises:
        ConfigError: a URL cannot be one, or there is none.
    """
    urls = [url] if isinstance(url, str) else list(url)
    if not urls:
        raise ConfigError("give the URL of a gateway, such as ws://127.0.0.1:8080")
    private = bool(token) and not in_band
    return Plan(
        [endpoint(one, private=private) for one in urls],
        has_token=bool(token),
        renews=callable(token),
        in_band=in_band,
    )


def connect_options(
    connect: Callable[..., Any], limits: Limits, bearer: str, more: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the options to connect with, as far as this version of ``websockets`` has them.

    Args:
        connect: the function that will take them.
        limits: bounds.
        bearer: token for the handshake, empty for none.
        more: the user's own, which win.
    """
    headers = {"Authorization": f"Bearer {bearer}"} if bearer else {}
    wanted: dict[str, Any] = {
        "user_agent_header": "rango_gevent",
        "compression": None,
        "open_timeout": limits.open_s,
        "close_timeout": limits.close_s,
        "max_size": limits.message_bytes,
        "max_queue": _QUEUE_FRAMES,
        "proxy": None,
        "ping_interval": None,  # the core asks for signs of life
        "legacy": True,  # connect, now
    }
    known = inspect.signature(connect).parameters
    options = {name: value for name, value in wanted.items() if name in known}
    headers.update(more.get("additional_headers") or {})
    return {**options, **more, "additional_headers": headers}
