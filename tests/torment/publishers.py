"""Attacks by publishers: books without end, bodies that cost, timestamps that make no sense."""

from __future__ import annotations

import contextlib
import json
import time

import amqp

from tests.support import broker_address
from tests.torment.target import Drain, Target

_MB = 1 << 20
_PAUSE_S = 0.2


def books_flood(target: Target) -> None:
    """Books of a megabyte, of ever other names."""
    body = json.dumps({"sequence": 1, "pad": "x" * (_MB - 100)})
    for number in range(target.size["books"]):
        target.publish(f"public.flood{number}.ob-snap", body)
    _wait_until_read(target)


def junk_books(target: Target) -> None:
    """Junk snapshots use up the places for books; then real ones come."""
    for number in range(target.size["books"]):
        target.publish(f"public.junk{number}.ob-snap", "{}")
    _wait_until_read(target)
    refused = 0
    for number in range(10):
        name = f"real{number}.ob"
        Drain().add(target.websocket(f"/public?stream={name}-inc"))
        target.publish(f"public.{name}-snap", '{"sequence":1,"asks":[["1","2"]]}')
        target.publish(f"public.{name}-inc", '{"sequence":2}')
    _wait_until_read(target)
    for number in range(10):
        sock = target.websocket(f"/public?stream=real{number}.ob-inc")
        refused += b"ob-snap" not in sock.recv(4096)
    target.found["refused"] = float(refused)


def big_body(target: Target) -> None:
    """One body is a hundred times the size that is allowed."""
    broker = broker_address()
    connection = amqp.Connection(
        host=f"{broker.host}:{broker.port}", userid=broker.user, password=broker.password,
        virtual_host=broker.vhost, connect_timeout=5,
    )  # fmt: skip
    connection.connect()
    body = b'"' + b"x" * (target.size["mb"] * _MB) + b'"'
    with contextlib.suppress(amqp.AMQPError, OSError):
        connection.channel().basic_publish(
            amqp.Message(body), target.exchange, routing_key="public.big.trades"
        )
        _wait_until_read(target, 10)
    connection.collect()


def surrogates(target: Target) -> None:
    """Bodies of a megabyte, many small values, hold half of a surrogate pair: a slow check."""
    body = '["\\ud800"' + ',{"a":1}' * ((_MB - 100) // 8) + "]"
    for _ in target.until_over():
        target.publish("public.torment.t", body)
        time.sleep(_PAUSE_S)


def odd_timestamps(target: Target) -> None:
    """Messages say that they were published at a millisecond and a half after the epoch."""
    Drain().add(target.websocket("/public?stream=torment.t"))
    before_s = target.metric("rango_delivery_lag_seconds_sum")
    for value in [1.5, -1, 0, "now", "1.5", 2**62, 1e300] * 5:
        target.publish("public.torment.t", "{}", {"timestamp_in_ms": value})
    _wait_until_read(target)
    target.found["lag_sum_s"] = abs(target.metric("rango_delivery_lag_seconds_sum") - before_s)


def _wait_until_read(target: Target, timeout_s: float = 30) -> None:
    """Wait until a message that is published now has come, behind all that came before."""
    sock = target.websocket("/public?stream=torment-fence.t")
    sock.settimeout(timeout_s)
    target.publish("public.torment-fence.t", '"fence"')
    seen = b""
    with contextlib.suppress(OSError):
        while b'"fence"' not in seen and (data := sock.recv(4096)):
            seen += data
