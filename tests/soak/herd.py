"""``python -m tests.soak.herd``: many at once. Held, and reconnecting.

The invariants: 15,000 idle clients stay for as long as they answer pings; 10,000 clients that
come back in the same moment are all back in seconds, and nobody who stayed waits long for a
message meanwhile.
"""

# ruff: noqa: E402 - the standard library must be patched before anything else imports it
from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import argparse
import json
import os
import resource
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import gevent

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

from bench.machine import rss_kb

from tests.soak.swarm import Connection, Lost
from tests.support import Server, publish, start_gateway

_STREAM = "herd.trades"
_BACK_WITHIN_S = 10.0
_P99_S = 0.25


class Witness:
    """A client that stays and measures how old each message is when it comes."""

    def __init__(self, server: Server) -> None:
        self.ages: list[float] = []
        self.numbers: list[int] = []
        self._connection = Connection(server.port, f"/public?stream={_STREAM}")
        self.greenlet = gevent.spawn(self._run)

    def _run(self) -> None:
        with suppress(Lost):  # at the end; whoever is cut before has gaps
            self._listen()

    def _listen(self) -> None:
        while True:
            message = json.loads(self._connection.receive())
            if _STREAM in message:
                body = message[_STREAM]
                self.ages.append(time.time() - body["at"])
                self.numbers.append(body["n"])

    @property
    def gaps(self) -> int:
        """Return how many messages are missing or double."""
        whole = range(self.numbers[0], self.numbers[-1] + 1)
        return len(set(whole) ^ set(self.numbers)) + len(self.numbers) - len(set(self.numbers))


def _p99(witnesses: list[Witness]) -> float:
    ages = sorted(age for witness in witnesses for age in witness.ages)
    return ages[len(ages) * 99 // 100]


def _feed(server: Server, rate: float, size: int) -> gevent.Greenlet[..., None]:
    def run() -> None:
        started, number = time.monotonic(), 0
        while True:
            body = {"n": number, "at": time.time(), "pad": "x" * size}
            publish(server.exchange, f"public.{_STREAM}", json.dumps(body))
            number += 1
            gevent.sleep(max(0.0, started + number / rate - time.monotonic()))

    return gevent.spawn(run)


def _connect_all(server: Server, count: int, stream: str) -> list[Connection]:
    """Connect many at once; return when each has its first reply."""
    connections: list[Connection] = []

    def one() -> None:
        connection = Connection(server.port, f"/public?stream={stream}")
        connection.receive()
        connections.append(connection)

    greenlets = [gevent.spawn(one) for _ in range(count)]
    gevent.joinall(greenlets, timeout=60)
    return connections


def idle(count: int, seconds: float) -> dict[str, Any]:
    """Hold idle clients that answer pings, and nothing else."""
    env = {
        "RANGO_MAX_CONNECTIONS": str(count + 100),
        "RANGO_PING_INTERVAL_S": "20",
        "RANGO_PONG_TIMEOUT_S": "30",
        "LOG_LEVEL": "warn",
    }
    with start_gateway(env=env) as server:
        before_kb = rss_kb([server.process.pid])
        connections: list[Connection] = []
        for _ in range(count // 500):
            connections += _connect_all(server, 500, "idle.trades")
        held_kb = rss_kb([server.process.pid])
        ended: list[str] = []

        def answer(connection: Connection) -> None:
            try:
                connection.receive()
            except Lost as lost:
                ended.append(str(lost))

        greenlets = [gevent.spawn(answer, connection) for connection in connections]
        gevent.sleep(seconds)
        held = server.metric("rango_hub_clients_count")
        gevent.killall(greenlets, timeout=60)
    return {
        "case": "idle",
        "clients": count,
        "held": held,
        "ended": len(ended),
        "kb_per_connection": round((held_kb - before_kb) / count, 2),
        "ok": held == count and not ended,
    }


def reconnect(count: int) -> dict[str, Any]:
    """Let many clients go and come back in the same moment."""
    env = {"RANGO_MAX_CONNECTIONS": str(2 * count + 100), "LOG_LEVEL": "warn"}
    with start_gateway(env=env) as server:
        witnesses = [Witness(server) for _ in range(20)]
        feed = _feed(server, 50, 200)
        herd: list[Connection] = []
        for _ in range(count // 500):
            herd += _connect_all(server, 500, "herd.tickers")
        for witness in witnesses:
            witness.ages.clear()
        started = time.monotonic()
        for connection in herd:
            connection.close()
        back = _connect_all(server, count, "herd.tickers")
        took_s = time.monotonic() - started
        p99_s = _p99(witnesses)
        feed.kill()
        gaps = sum(witness.gaps for witness in witnesses)
        refused = count - len(back)
    return {
        "case": "reconnect",
        "clients": count,
        "back_s": round(took_s, 2),
        "refused": refused,
        "witness_p99_ms": round(p99_s * 1000, 1),
        "gaps": gaps,
        "ok": not refused and not gaps and took_s < _BACK_WITHIN_S and p99_s < _P99_S,
    }


def main() -> int:
    """Run the cases; 0 when each invariant held."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak.herd", description=__doc__)
    parser.add_argument("--idle", type=int, default=15_000)
    parser.add_argument("--hold-s", type=float, default=120)
    parser.add_argument("--reconnect", type=int, default=10_000)
    arguments = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if "AMQP_URL" not in os.environ:
        parser.error("run it under scripts/with-rabbitmq")
    results = [reconnect(arguments.reconnect), idle(arguments.idle, arguments.hold_s)]
    for result in results:
        print(json.dumps(result))
    return 0 if all(result["ok"] for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
