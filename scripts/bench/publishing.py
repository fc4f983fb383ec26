"""What publishing costs whoever publishes: our library, and plain kombu beside it.

Each runs in a process of its own, ``python -m bench.publishing LIBRARY URL EXCHANGE QUEUE SIZE
COUNT BATCH``, publishes to an exchange with one queue, and says what it took. kombu has no batch:
it waits for each confirm.
"""

from __future__ import annotations

import json
import sys
import time
import uuid
from typing import Callable, List, Sequence

from kombu.connection import Connection
from kombu.messaging import Producer

from bench.report import Result, per
from bench.scenarios import KOMBU, Scenario
from bench.servers import Server
from bench.tools import Tool
from rango_gevent.publisher import Publisher

OURS = "rango"
LIBRARIES = (OURS, KOMBU)
_KEY = "public.btcusd.trades"
_WARM_UP = 200
_LIMIT_S = 120.0

Run = Callable[[int], List[float]]  # publishes so many, and returns the seconds of each


class Library(Server):
    """A way to publish.

    Attributes:
        name: one of `LIBRARIES`.
        url: the broker.
    """

    uses_broker = True

    def __init__(self, name: str, url: str) -> None:
        self.name = name
        self.url = url

    @property
    def pids(self) -> list[int]:
        """Return no process: it runs while it is measured."""
        return []


def measure(scenario: Scenario, library: Library, result: Result) -> None:
    """Publish, and set what it took and how much arrived in the queue.

    Raises:
        BenchError: it failed.
    """
    count = scenario.messages
    connection = Connection(library.url, connect_timeout=5)
    exchange = f"bench.{uuid.uuid4().hex[:12]}"
    with connection:
        channel = connection.channel()
        channel.exchange_declare(exchange, "topic", durable=False, auto_delete=True)
        queue = channel.queue_declare(exclusive=True).queue
        channel.queue_bind(queue, exchange, "#")
        words = [library.name, library.url, exchange, str(scenario.size), str(count)]
        command = [sys.executable, "-m", "bench.publishing", *words, str(int(scenario.batch))]
        with Tool(command, _LIMIT_S) as tool:
            found = tool.answer(_LIMIT_S)
        arrived = channel.queue_declare(queue, passive=True).message_count
    result.messages, result.size = count, scenario.size
    result.cpu_s = found["cpu_s"]
    result.us_per_message = per(1e6 * found["cpu_s"], count)
    result.messages_per_s = per(count, found["seconds"])
    result.lost = count + _WARM_UP - arrived
    result.p50_ms, result.p99_ms = found["p50_ms"], found["p99_ms"]


# -- the process that publishes ---------------------------------------------------------------


def main(words: Sequence[str]) -> int:
    """Publish, and print what it took as JSON."""
    name, url, exchange, size, count, batch = words[:6]
    body = {"trades": [{"tid": 1, "price": "9001.0", "pad": "x" * max(0, int(size) - 50)}]}
    run = _kombu(url, exchange, body) if name == KOMBU else _ours(url, exchange, body, batch == "1")
    run(_WARM_UP)
    cpu_s, started_s = time.process_time(), time.monotonic()
    ages_s = sorted(run(int(count)))
    seconds, cpu_s = time.monotonic() - started_s, time.process_time() - cpu_s
    found: dict[str, float | None] = {"seconds": seconds, "cpu_s": cpu_s}
    for percent in (50, 99):
        at = len(ages_s) * percent // 100
        found[f"p{percent}_ms"] = 1000 * ages_s[at] if ages_s else None
    print(json.dumps(found), flush=True)
    return 0


def _ours(url: str, exchange: str, body: object, in_batches: bool) -> Run:
    publisher = Publisher(url, exchange=exchange)

    def run(count: int) -> list[float]:
        if not in_batches:
            return _timed(lambda: publisher.publish(_KEY, body), count)
        with publisher.batch() as batch:
            for _ in range(count):
                batch.publish(_KEY, body)
        return []

    return run


def _kombu(url: str, exchange: str, body: object) -> Run:
    connection = Connection(url, transport_options={"confirm_publish": True})
    producer = Producer(connection.channel(), auto_declare=False)

    def publish() -> None:
        producer.publish(
            json.dumps(body),
            exchange=exchange,
            routing_key=_KEY,
            content_type="application/json",
            content_encoding="utf-8",
            delivery_mode="transient",
            headers={"timestamp_in_ms": int(time.time() * 1000)},
        )

    return lambda count: _timed(publish, count)


def _timed(publish: Callable[[], object], count: int) -> list[float]:
    """Call so many times, and return the seconds of each."""
    ages_s = []
    for _ in range(count):
        started_s = time.perf_counter()
        publish()
        ages_s.append(time.perf_counter() - started_s)
    return ages_s


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
