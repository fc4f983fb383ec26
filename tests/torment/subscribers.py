"""Attacks behind the upgrade: clients that ask for much, read nothing, or come in crowds."""

from __future__ import annotations

import contextlib
import itertools
import json
import random
import subprocess
import time

from prometheus_client.parser import text_string_to_metric_families

from tests.support import PING, frame, text_frame
from tests.torment.target import Drain, Target, bodies, subscribe_frames
from tests.torment.verdict import send_memory_bytes

_SMALL_BUFFER = 4096  # a deaf client's: what it does not read stays at the gateway
_MB = 1 << 20
_BOOK = "torment-big.ob-inc"
_SERIES = "rango_hub_subscriptions_count"
_GAUGE_SLACK_MB = 30.0
_WATCH_S = 0.1
_LEAST_PACKED = 100_000  # bytes of one of the books to be packed, packed well


def long_replies(target: Target) -> None:
    """Clients hold long names, and ask for the list of them again and again in one write."""
    sockets = target.websockets(target.size["clients"], lambda _: "/public")
    names = [f"{number}." + '"' * 250 for number in range(target.size["names"])]
    drain = Drain()
    requests = subscribe_frames(names)
    for sock in sockets:
        drain.add(sock)
        for request in requests:
            sock.sendall(request)
    drain.wait_until_quiet()
    drain.stop()
    target.begin()
    again = text_frame({"event": "subscribe", "streams": []}) * 97
    for sock in sockets:
        with contextlib.suppress(OSError):
            sock.sendall(again)
    target.hold()


def distinct_sets(target: Target) -> None:
    """Each client holds a set of streams of its own, and all of them get a burst."""
    drain = Drain()
    names = [f"torment{number}.t" for number in range(1200)]
    own = random.Random(1)
    for sock in target.websockets(target.size["clients"], lambda _: "/public"):
        for request in subscribe_frames(own.sample(names, 1000)):
            sock.sendall(request)
        drain.add(sock)
    drain.wait_until_quiet()
    target.begin()
    burst = itertools.islice(itertools.cycle(names), target.size["messages"])
    target.burst(burst, bodies(target.size["bytes"]))
    target.hold()
    drain.wait_until_quiet()


def repeated_book(target: Target) -> None:
    """A handshake names one big book again and again; what it gets is counted in books."""
    book_bytes = _publish_book(target, target.size["book_mb"])
    target.begin()
    path = "/public?stream=" + ",".join([_BOOK] * (7800 // (len(_BOOK) + 1)))
    most = 0
    for _ in range(target.size["clients"]):
        drain = Drain()
        with contextlib.suppress(OSError):
            drain.add(target.websocket(path))
            end = time.monotonic() + 5
            while drain.total < 10 * book_bytes and time.monotonic() < end:
                before = drain.total
                time.sleep(_WATCH_S)
                if drain.total == before and before >= book_bytes:
                    break
        most = max(most, drain.total)
        drain.close()
    target.found["books_each"] = most / book_bytes


def _publish_book(target: Target, size_mb: int) -> int:
    """Publish a book and wait until it is there; return its size in bytes."""
    body = json.dumps({"sequence": 1, "bids": ["1"] * (size_mb * _MB // 5)}, separators=(",", ":"))
    target.publish(f"public.{_BOOK.replace('ob-inc', 'ob-snap')}", body)
    end = time.monotonic() + 10
    while target.metric("rango_book_bytes") < len(body) and time.monotonic() < end:
        time.sleep(_WATCH_S)
    return len(body)


def deaf_distinct(target: Target) -> None:
    """Clients that read nothing get bytes of their own each: subsets of streams, a burst."""
    names = [f"torment{number}.t" for number in range(300)]
    own = random.Random(2)
    for sock in target.websockets(target.size["clients"], lambda _: "/public", _SMALL_BUFFER):
        for request in subscribe_frames(own.sample(names, 250)):
            sock.sendall(request)
    _wait_for_clients(target)
    target.begin()
    before_mb = target.rss_mb()
    target.burst(names * 10, bodies(4000))
    _watch_gauge(target, before_mb)


def deaf_book(target: Target) -> None:
    """Clients that read nothing subscribe a big book that changes between them."""
    _publish_book(target, target.size["book_mb"])
    target.begin()
    before_mb = target.rss_mb()
    increment = json.dumps({"asks": ["1", "2"] * 500})
    for _ in range(target.size["clients"]):
        target.publish(f"public.{_BOOK}", increment)
        with contextlib.suppress(OSError):
            target.websocket(f"/public?stream={_BOOK}", _SMALL_BUFFER)
        time.sleep(0.01)
    _watch_gauge(target, before_mb)


def _wait_for_clients(target: Target) -> None:
    """Wait until the gateway has read all that was asked for."""
    end = time.monotonic() + 20
    before = -1.0
    while time.monotonic() < end:
        now = target.metric("rango_requests_total", action="subscribe")
        if now == before:
            return
        before = now
        time.sleep(0.3)


def _watch_gauge(target: Target, before_mb: float) -> None:
    """Compare the gauge with the growth of memory, at the moment of the greatest growth.

    It may say more, as what clients share counts for each of them, but not less.
    """
    most_mb = gauge_mb = 0.0
    for _ in target.until_over():
        said_mb = target.metric("rango_outbox_bytes") / _MB
        grown_mb = target.rss_mb() - before_mb
        if grown_mb > most_mb:
            most_mb, gauge_mb = grown_mb, said_mb
        time.sleep(_WATCH_S)
    short_mb = max(0.0, most_mb - gauge_mb - _GAUGE_SLACK_MB)
    target.found["gauge_short_percent"] = 100 * short_mb / max(most_mb, _GAUGE_SLACK_MB)
    target.note(f"gauge {gauge_mb:.0f} MB at a growth of {most_mb:.0f} MB")


def unique_names(target: Target) -> None:
    """Many hold names that nobody else holds, are counted in scrapes, and leave at once."""
    drain = Drain()
    sockets = target.websockets(target.size["clients"], lambda _: "/public")
    for index, sock in enumerate(sockets):
        drain.add(sock)
        for request in subscribe_frames([f"u{index}n{number}.t" for number in range(1000)]):
            sock.sendall(request)
    drain.wait_until_quiet(timeout_s=60)
    target.begin()
    for _ in target.until_over():
        target.scrape()
        time.sleep(0.5)
    for sock in sockets:
        sock.close()
    time.sleep(1)


def polite_crowd(target: Target) -> None:
    """A crowd within its rate: each sends a second's worth of pings, all at the same instant."""
    all_at_once(target, [frame(PING) * 48])


def polite_subscribers(target: Target) -> None:
    """A crowd within its rate: each subscribes to many names and unsubscribes again."""
    names = [f"torment{number}.t" for number in range(1000)]
    all_at_once(
        target,
        [b"".join(subscribe_frames(names)), b"".join(subscribe_frames(names, "unsubscribe"))],
    )


def token_crowd(target: Target) -> None:
    """A crowd within its rate: each brings its token again and again, and each is a signature."""
    request = text_frame({"event": "auth", "token": target.token})
    all_at_once(target, [request * 48])


def admin_strangers(target: Target) -> None:
    """Strangers ask for all that administrators may, and none of them is one."""
    asked: list[dict[str, object]] = [
        {"event": "overview"},
        {"event": "connections", "stream": target.stream},
        {"event": "tail", "conn": f"{target.pid}-1"},
        {"event": "disconnect", "uid": "ID1"},
        {"event": "auth", "token": "a.b.c"},
        {"event": "subscribe", "streams": [target.stream]},
    ]
    all_at_once(target, [text_frame(each) * 8 for each in asked], "/admin/ws")
    target.found["let_in"] = target.metric("rango_admin_connections")


def all_at_once(target: Target, writes: list[bytes], path: str = "/public") -> None:
    """Let all clients write at once, once a second, one of the writes after the other."""
    drain = Drain()
    sockets = target.websockets(target.size["clients"], lambda _: path)
    for sock in sockets:
        drain.add(sock)
    drain.wait_until_quiet()
    target.begin()
    for number in target.until_over():
        began = time.monotonic()
        for sock in sockets:
            with contextlib.suppress(OSError):
                sock.sendall(writes[number % len(writes)])
        time.sleep(max(0.0, began + 1 - time.monotonic()))


def packed_books(target: Target) -> None:
    """One request asks for many books that have to be compressed."""
    own = random.Random(3)
    names = [f"torment{number}.ob-inc" for number in range(target.size["books"])]
    for name in names:
        sides = [[str(own.random()), str(own.random())] for _ in range(450_000 // 46)]
        target.publish(
            f"public.{name.replace('ob-inc', 'ob-snap')}",
            json.dumps({"sequence": 1, "asks": sides}),
        )
    end = time.monotonic() + 10
    while target.metric("rango_books") < len(names) and time.monotonic() < end:
        time.sleep(_WATCH_S)
    target.compression = True
    drain = Drain()
    sock = drain.add(target.websocket())
    target.begin()
    sock.sendall(text_frame({"event": "subscribe", "streams": names}))
    end = time.monotonic() + 15
    while drain.total < _LEAST_PACKED * len(names) and time.monotonic() < end:
        time.sleep(_WATCH_S)
    target.found["books_missing"] = len(names) - min(len(names), drain.total // _LEAST_PACKED)


def other_names(target: Target) -> None:
    """One client holds other names at each scrape; series of the metrics are counted."""
    sock = target.websocket()
    Drain().add(sock)
    seen: set[str] = set()
    asked: set[str] = set()
    held: list[str] = []
    for number in range(target.size["scrapes"]):
        for request in subscribe_frames(held, "unsubscribe") if held else []:
            sock.sendall(request)
        held = [f"r{number}n{index}.t" for index in range(500)]
        for request in subscribe_frames(held):
            sock.sendall(request)
        asked.update(held)
        time.sleep(_WATCH_S)
        seen |= _topics(target.scrape())
    target.found["series"] = float(len(seen))
    target.found["unpublished_series"] = float(len(seen & asked))


def _topics(text: str) -> set[str]:
    return {
        sample.labels["topic"]
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == _SERIES
    }


def burst_deaf(target: Target) -> None:
    """Readers that never read share a stream with a good client, and get bursts."""
    target.websockets(target.size["clients"], lambda _: f"/public?stream={target.stream}")
    target.begin()
    most = 0
    for _ in range(target.size["bursts"]):
        target.burst([target.stream] * target.size["messages"], bodies(4000))
        for _ in range(10):
            time.sleep(_WATCH_S)
            most = max([most, *_send_memory(target.gateway_port)])
    target.found["kernel_kb_each"] = most / 1024


def burst_read(target: Target) -> None:
    """The same bursts to readers that do read; the good client holds another stream."""
    drain = Drain()
    for sock in target.websockets(
        target.size["clients"], lambda _: "/public?stream=torment-burst.t"
    ):
        drain.add(sock)
    target.begin()
    for _ in range(target.size["bursts"]):
        target.burst(["torment-burst.t"] * target.size["messages"], bodies(4000))
        drain.wait_until_quiet(0.3)
    drain.close()


def _send_memory(port: int) -> list[int]:
    """Return what the kernel holds to be sent from a port, by connection."""
    command = ["ss", "-tmnOH", "state", "established", f"( sport = :{port} )"]
    return send_memory_bytes(subprocess.run(command, capture_output=True, text=True).stdout)
