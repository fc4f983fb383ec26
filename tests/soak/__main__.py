"""``python -m tests.soak --seconds 600``: run the soak and print what it counted.

The invariant: when all clients are gone, the gateway holds what it held before they came
(greenlets, file descriptors, subscriptions, waiting bytes), its memory is within 10 % of what
it was after warm-up, and no well-behaved client saw a gap or a duplicate within one life of
the broker, or was closed.
"""

# ruff: noqa: E402 - the standard library must be patched before anything else imports it
from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import argparse
import json
import os
import sys
import time
from pathlib import Path

import amqp
import gevent

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

from bench.machine import rss_kb
from rabbitmq_node import PrivateNode

from tests.soak.swarm import Swarm
from tests.support import Server, http_request, start_gateway, wait_for

_STREAMS = [f"m{index}.trades" for index in range(100)]
_SETTLE_S = 30.0
_MEMORY_SLACK = 1.10


class Feed:
    """Publishes numbered messages at a steady rate, through the broker's restarts."""

    def __init__(self, port: int, exchange: str, rate: float) -> None:
        self._port = port
        self._exchange = exchange
        self._rate = rate
        self.epoch = 0
        self.published = 0
        self.stopping = False

    def run(self) -> None:
        """Publish until told to stop; a new connection begins a new epoch."""
        while not self.stopping:
            self.epoch += 1
            try:
                self._publish()
            except (OSError, amqp.AMQPError):
                gevent.sleep(0.2)

    def _publish(self) -> None:
        connection = amqp.Connection(host=f"127.0.0.1:{self._port}", connect_timeout=3)
        connection.connect()
        channel = connection.channel()
        numbers = dict.fromkeys(_STREAMS, 0)
        started, count = time.monotonic(), 0
        while not self.stopping:
            name = _STREAMS[count % len(_STREAMS)]
            numbers[name] += 1
            body = json.dumps({"e": self.epoch, "n": numbers[name], "pad": "x" * 200})
            channel.basic_publish(amqp.Message(body), self._exchange, f"public.{name}")
            self.published += 1
            count += 1
            gevent.sleep(max(0.0, started + count / self._rate - time.monotonic()))
        connection.close()


class Gauges:
    """What the gateway holds at a moment."""

    def __init__(self, server: Server) -> None:
        self.greenlets = server.metric("python_greenlets")
        self.clients = server.metric("rango_hub_clients_count")
        self.outbox_bytes = server.metric("rango_outbox_bytes")
        self.subscriptions = server.metric("rango_subscriptions")
        self.descriptors = len(os.listdir(f"/proc/{server.process.pid}/fd"))
        self.rss_kb = rss_kb([server.process.pid])

    def held(self) -> tuple[float, ...]:
        """Return everything that must come back to its start value."""
        return (self.greenlets, self.clients, self.outbox_bytes, self.subscriptions)


def _metrics(server: Server) -> str:
    return http_request(server.metrics_port, "/metrics").body


def main() -> int:
    """Run the soak; 0 when its invariant held."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--clients", type=int, default=2000)
    parser.add_argument("--rate", type=float, default=500, help="messages a second")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    node = PrivateNode()
    try:
        node.start()
        os.environ["AMQP_URL"] = node.amqp_url
        env = {
            "RANGO_OUTBOX_BYTES": "65536",
            "LOG_LEVEL": "warn",
            "RANGO_MAX_REQUESTS_PER_S": "200",
        }
        with start_gateway(env=env) as server:
            return _soak(arguments, node, server)
    finally:
        node.stop()


def _soak(arguments: argparse.Namespace, node: PrivateNode, server: Server) -> int:
    before = Gauges(server)
    feed = Feed(node.port, server.exchange, arguments.rate)
    feeder = gevent.spawn(feed.run)
    swarm = Swarm(server.port, _STREAMS, arguments.seed)
    swarm.start(arguments.clients // 2, arguments.clients - arguments.clients // 2)
    quarter = arguments.seconds / 4
    gevent.sleep(quarter)
    warm_kb = rss_kb([server.process.pid])
    for _ in range(2):
        node.ctl("stop_app")
        gevent.sleep(2)
        node.ctl("start_app")
        gevent.sleep(quarter)
    gevent.sleep(quarter)
    end_kb = rss_kb([server.process.pid])
    swarm.stop(20)
    feed.stopping = True
    feeder.join(5)
    return _judge(server, swarm, feed, before, warm_kb, end_kb)


def _judge(
    server: Server, swarm: Swarm, feed: Feed, before: Gauges, warm_kb: int, end_kb: int
) -> int:
    problems = list(swarm.errors)
    try:
        wait_for(
            lambda: Gauges(server).held() == before.held(), _SETTLE_S, "everything to be let go"
        )
    except AssertionError as error:
        problems.append(f"{error}: {vars(Gauges(server))} was {vars(before)}")
    after = Gauges(server)
    deadline = time.monotonic() + _SETTLE_S
    while after.descriptors > before.descriptors and time.monotonic() < deadline:
        gevent.sleep(0.5)  # a scrape's own connection may be closing still
        after = Gauges(server)
    if after.descriptors > before.descriptors:
        problems.append(f"descriptors: {after.descriptors}, before {before.descriptors}")
    if end_kb > warm_kb * _MEMORY_SLACK:
        problems.append(f"memory: {end_kb} KB at the end, {warm_kb} KB after warm-up")
    if not server.metric("rango_connections_closed_total", reason="slow_client"):
        problems.append("no client was cut for being slow: the soak is too short, or too mild")
    if "rango_greenlet_restarts_total{" in _metrics(server):
        problems.append("a long-lived greenlet was restarted")
    print(
        json.dumps(
            {
                "published": feed.published,
                "epochs": feed.epoch,
                "clients_saw": dict(swarm.seen),
                "closed": {
                    reason: server.metric("rango_connections_closed_total", reason=reason)
                    for reason in ("slow_client", "connection_lost", "client_closed")
                },
                "rss_kb": {"before": before.rss_kb, "warm": warm_kb, "end": end_kb},
                "before": vars(before),
                "after": vars(after),
                "problems": problems,
            },
            indent=1,
        )
    )
    return 1 if problems else 0


sys.exit(main())
