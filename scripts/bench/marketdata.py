"""What ``rango marketdata`` costs: trades a second, and its share of a core.

    PYTHONPATH=scripts scripts/with-rabbitmq .venv/bin/python -m bench.marketdata

Trades of many markets are published evenly, each as a message of its own, while the worker saves,
publishes all periods and answers a question a second. Its CPU time is the kernel's count for its
process, over the seconds in which trades flow and those that it takes to count the last of them.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
import uuid
from typing import Iterator

import urllib3
from urllib3.exceptions import HTTPError
from urllib3.response import BaseHTTPResponse

from bench.machine import cpu_s, rss_kb
from rango_gevent.publisher import Publisher

_STEPS_PER_S = 20
_END_S = 60.0


def main() -> int:
    """Measure, and print a row for each way in which trades can come."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rate", type=int, default=10_000, help="trades a second")
    parser.add_argument("--markets", type=int, default=100)
    parser.add_argument("--seconds", type=int, default=15)
    parser.add_argument("--source", choices=("live", "stream", "both"), default="both")
    arguments = parser.parse_args()
    sources = ("live", "stream") if arguments.source == "both" else (arguments.source,)
    for source in sources:
        print(json.dumps(measure(source, arguments)), flush=True)
    return 0


def measure(source: str, arguments: argparse.Namespace) -> dict[str, object]:
    """Run one worker under load and return figures."""
    exchange = f"bench.{uuid.uuid4().hex[:8]}"
    with (
        tempfile.TemporaryDirectory(prefix="rango-bench-") as directory,
        _worker(source, exchange, directory) as (pid, url),
    ):
        publisher = Publisher(os.environ["AMQP_URL"], exchange=exchange, confirm=False)
        _publish(publisher, arguments.markets, 1000, 1)  # markets are made, caches are filled
        _wait_for(url, 1000)
        before, began = cpu_s([pid]), time.monotonic()
        _publish(publisher, arguments.markets, arguments.rate, arguments.seconds)
        published_s = time.monotonic() - began
        _wait_for(url, 1000 + arguments.rate * arguments.seconds)
        wall_s = time.monotonic() - began
        used_s = cpu_s([pid]) - before
        publisher.close()
        trades = arguments.rate * arguments.seconds
        return {
            "source": source,
            "markets": arguments.markets,
            "trades_per_s": round(trades / published_s),
            "core_percent": round(100 * used_s / wall_s, 1),
            "us_per_trade": round(1e6 * used_s / trades, 1),
            "behind_s": round(wall_s - published_s, 2),
            "save_ms": round(1000 * _sample(url, "rango_marketdata_save_seconds"), 1),
            "published": _sample(url, "rango_marketdata_published_total"),
            "rss_mb": rss_kb([pid]) // 1024,
        }


@contextlib.contextmanager
def _worker(source: str, exchange: str, directory: str) -> Iterator[tuple[int, str]]:
    port = random.randrange(20_000, 30_000)
    environ = {
        **os.environ,
        "RANGO_AMQP_URL": os.environ["AMQP_URL"],
        "RANGO_EXCHANGE": exchange,
        "RANGO_METRICS_HOST": "127.0.0.1",
        "RANGO_MARKETDATA_SOURCE": source,
        "RANGO_MARKETDATA_STORE": f"sqlite:///{directory}/marketdata.db",
        "RANGO_MARKETDATA_METRICS_PORT": str(port),
        "RANGO_MARKETDATA_RPC_QUEUE": f"{exchange}.rpc",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "rango_gevent", "marketdata"], env=environ, cwd=directory
    )
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + _END_S
        while True:
            with contextlib.suppress(HTTPError):
                if _get(f"{url}/readyz", 5).status == 200:
                    break
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("the worker did not come up")
            time.sleep(0.1)
        yield process.pid, url
    finally:
        process.terminate()
        process.wait(30)


def _publish(publisher: Publisher, markets: int, rate: int, seconds: int) -> None:
    """Publish at an even pace; ids grow, prices and amounts have the usual digits."""
    rng = random.Random(1)
    number = time.time_ns() // 1000
    due = time.monotonic()
    for _ in range(seconds * _STEPS_PER_S):
        with publisher.batch() as batch:
            for _ in range(rate // _STEPS_PER_S):
                number += 1
                batch.publish(
                    f"public.m{number % markets}usd.trades",
                    b'{"trades":[{"tid":%d,"taker_type":"buy","date":%d,"price":"%d.%02d",'
                    b'"amount":"0.%08d"}]}'
                    % (
                        number,
                        time.time(),
                        60_000 + rng.randrange(100),
                        rng.randrange(100),
                        rng.randrange(1, 10**8),
                    ),
                )
        due += 1 / _STEPS_PER_S
        time.sleep(max(0.0, due - time.monotonic()))


def _wait_for(url: str, trades: int) -> None:
    deadline = time.monotonic() + _END_S
    while _sample(url, 'rango_marketdata_trades_total{kind="new"}') < trades:
        if time.monotonic() > deadline:
            raise RuntimeError("trades are missing")
        time.sleep(0.1)


def _get(url: str, timeout_s: float) -> BaseHTTPResponse:
    return urllib3.request("GET", url, timeout=timeout_s, retries=False)


def _sample(url: str, name: str) -> float:
    for line in _get(f"{url}/metrics", 10).data.decode().splitlines():
        if line.startswith(name + " "):
            return float(line.split()[-1])
    raise KeyError(name)


if __name__ == "__main__":
    sys.exit(main())
