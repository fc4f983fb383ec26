#!/usr/bin/env python3
"""measure_readers [--rate N] [--seconds N] [--workers N]: is one reader for a host worth it?

With RANGO_WORKERS each worker has a queue of its own in the broker and reads every message. The
other way: one of them reads, and hands what it read on to its siblings over unix sockets, the
messages of one read in one piece. Both ways do nothing with a message but note when it came, so
the figures are the cost of getting it there. They run in turns, against the broker of AMQP_URL.

Prints for each way: processor time of all workers and of the broker per message, and the age of a
message at the worker that got it last. Give RABBITMQ_PID for the broker's share.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from struct import Struct
from typing import Any, Callable, Sequence

WAYS = ("queue each", "one reader")
HOST_LIMIT_S = 120.0
BODY_BYTES = 200

_head = Struct(">IHd")  # bytes of the body and of the routing key, Unix time of publishing
_READ_BYTES = 64 * 1024


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure both ways, or be one of the processes of it."""
    parser = argparse.ArgumentParser(prog="measure_readers", description=__doc__.split("\n")[0])
    parser.add_argument("--rate", type=float, default=400.0, help="messages a second")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each turn")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--turns", type=int, default=2, help="of each way")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--exchange", help=argparse.SUPPRESS)
    parser.add_argument("--path", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if "AMQP_URL" not in os.environ:
        parser.error("give AMQP_URL, the URL of a RabbitMQ")
    if given.rate <= 0 or given.seconds <= 0 or given.workers < 2 or given.turns < 1:
        parser.error("give a rate, seconds and turns, and at least two workers")
    if given.child:
        return _CHILDREN[given.child](given)
    results: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for _ in range(given.turns):
        for way in WAYS:
            results[way].append(measure(way, given))
    print(f"{given.rate:g} messages/s of {BODY_BYTES} bytes to {given.workers} workers")
    for way in WAYS:
        print(f"{way:10}  " + "; ".join(map(_shown, results[way])))
    return 0


def _shown(result: dict[str, float]) -> str:
    return (
        f"workers {result['us']:.1f} us, broker {result['broker_us']:.0f} us a message, "
        f"p50 {result['p50_ms']:.2f} p99 {result['p99_ms']:.2f} ms, lost {result['lost']:.0f}"
    )


def measure(way: str, given: argparse.Namespace) -> dict[str, float]:
    """Run one way once and return its figures.

    Raises:
        RuntimeError: a process ended too early, or messages did not come.
    """
    exchange = f"rango.readers.{random.getrandbits(32):08x}"
    count = max(1, round(given.rate * given.seconds))
    with tempfile.TemporaryDirectory(prefix="rango-readers-") as place:
        common = ["--exchange", exchange, "--path", str(Path(place) / "hand-over")]
        common += ["--rate", str(given.rate), "--seconds", str(given.seconds)]
        common += ["--workers", str(given.workers)]
        kinds = ["worker"] * given.workers
        if way == WAYS[1]:
            kinds = ["reader"] + ["sibling"] * (given.workers - 1)
        children = [_start(kind, common) for kind in kinds]
        try:
            for child in children:
                _line(child)  # it is ready
            broker = _broker_cpu_s()
            publisher = _start("publisher", common)
            children.append(publisher)
            _line(publisher)
            broker_s = _broker_cpu_s() - broker
            found = [json.loads(_line(child)) for child in children[:-1]]
        finally:
            for child in children:
                child.kill()
                child.wait(10)
    ages = sorted(max(each) for each in zip(*(one["ages"] for one in found)))
    return {
        "us": 1e6 * sum(one["cpu_s"] for one in found) / count,
        "broker_us": 1e6 * broker_s / count,
        "p50_ms": 1e3 * ages[len(ages) // 2] if ages else 0.0,
        "p99_ms": 1e3 * ages[int(len(ages) * 0.99)] if ages else 0.0,
        "lost": count - min(len(one["ages"]) for one in found),
    }


def _start(kind: str, arguments: Sequence[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, __file__, "--child", kind, *arguments], stdout=subprocess.PIPE, text=True
    )


def _line(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None, "it was started with a pipe"
    line = child.stdout.readline()
    if not line:
        raise RuntimeError("a process ended too early")
    return line


def _broker_cpu_s() -> float:
    """Return the broker's processor time so far, 0 where it is not known."""
    pid = os.environ.get("RABBITMQ_PID")
    if not pid:
        return 0.0
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# -- the processes ----------------------------------------------------------------------------


class Tally:
    """What came, until all of it has or nothing comes any more."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.ages: list[float] = []
        self._count = max(1, round(given.rate * given.seconds))
        self._until_s = time.monotonic() + given.seconds + 20
        self._began_s = time.process_time()

    def sink(self, key: str, body: bytes, at_s: float, position: int) -> None:
        """Take one message."""
        self.ages.append(time.time() - at_s)

    def report(self) -> int:
        """Say that it can begin, wait for the end, print the figures."""
        import gevent

        print("ready", flush=True)
        self._began_s = time.process_time()
        while len(self.ages) < self._count and time.monotonic() < self._until_s:
            gevent.sleep(0.05)
        cpu_s = time.process_time() - self._began_s
        print(json.dumps({"cpu_s": cpu_s, "ages": self.ages}), flush=True)
        gevent.sleep(HOST_LIMIT_S)
        return 1


def _consume(given: argparse.Namespace, sink: Any, pace: Callable[[bool], None]) -> None:
    """Read from the broker in a greenlet, and return once messages can come."""
    import gevent

    from rango_gevent.source.base import BrokerLimits, QueueLimits
    from rango_gevent.source.kinds import open_source
    from rango_gevent.source.supervisor import Supervisor

    limits = BrokerLimits(5.0, 10, QueueLimits(100_000, 60.0))
    urls = [os.environ["AMQP_URL"]]
    source = Supervisor(open_source(urls, given.exchange, sink, limits, pace))
    gevent.spawn(source.run)
    while not source.connected:
        gevent.sleep(0.02)


def _give_way(more: bool) -> None:
    import gevent

    gevent.sleep(0)


def worker(given: argparse.Namespace) -> int:
    """Have a queue of its own."""
    tally = Tally(given)
    _consume(given, tally.sink, _give_way)
    return tally.report()


def reader(given: argparse.Namespace) -> int:
    """Read for all, and hand on what each read brought in one piece."""
    tally = Tally(given)
    siblings = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(given.path + ".new")
        listener.listen()
        os.rename(given.path + ".new", given.path)
        siblings = [listener.accept()[0] for _ in range(given.workers - 1)]
    parts: list[bytes] = []

    def sink(key: str, body: bytes, at_s: float, position: int) -> None:
        name = key.encode()
        parts.append(_head.pack(len(body), len(name), at_s) + name + body)
        tally.sink(key, body, at_s, position)

    def pace(more: bool) -> None:
        if parts:
            data = b"".join(parts)
            parts.clear()
            for sibling in siblings:
                sibling.sendall(data)
        _give_way(more)

    _consume(given, sink, pace)
    return tally.report()


def sibling(given: argparse.Namespace) -> int:
    """Take what the reader hands on."""
    import gevent

    tally = Tally(given)
    sock = socket.socket(socket.AF_UNIX)
    while True:
        try:
            sock.connect(given.path)
            break
        except OSError:
            gevent.sleep(0.02)
    gevent.spawn(partial(_take, sock, tally))
    return tally.report()


def _take(sock: socket.socket, tally: Tally) -> None:
    rest = b""
    while True:
        data = sock.recv(_READ_BYTES)
        if not data:
            return
        data = rest + data
        at = 0
        while len(data) - at >= _head.size:
            size, key_size, at_s = _head.unpack_from(data, at)
            key_at = at + _head.size
            end = key_at + key_size + size
            if end > len(data):
                break
            tally.sink(data[key_at : key_at + key_size].decode(), data[end - size : end], at_s, 0)
            at = end
        rest = data[at:]


def publisher(given: argparse.Namespace) -> int:
    """Publish at the rate, and say when that is done."""
    import amqp
    from kombu.connection import Connection

    body = b'{"data":"' + b"x" * (BODY_BYTES - 11) + b'"}'
    count = max(1, round(given.rate * given.seconds))
    with Connection(os.environ["AMQP_URL"]) as connection:
        channel = connection.channel()
        began_s = time.monotonic()
        for number in range(count):
            left_s = began_s + number / given.rate - time.monotonic()
            if left_s > 0:
                time.sleep(left_s)
            headers = {"timestamp_in_ms": time.time() * 1000}
            message = amqp.Message(body, application_headers=headers)
            channel.basic_publish(message, given.exchange, "public.btcusd.trades")
        print("done", flush=True)
        time.sleep(HOST_LIMIT_S)
    return 1


_CHILDREN = {"worker": worker, "reader": reader, "sibling": sibling, "publisher": publisher}

if __name__ == "__main__":
    if "--child" in sys.argv and "publisher" not in sys.argv:
        from gevent import monkey

        monkey.patch_all()
    sys.exit(main())
