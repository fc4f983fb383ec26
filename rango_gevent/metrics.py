"""Metrics in Prometheus text: what is counted, and one port for all workers.

Hot rooms count in plain integers; `GatewayCollector` reads them when a scrape comes, so
counting costs an addition. The names of Rango are kept (PROTOCOL section 7), with each
go_* group's Python counterpart.

With several workers each writes its samples to a file of a shared directory once a
second, and whichever holds the metrics port answers with the sum: `merge` below. A dead
worker's gauges are forgotten and its counters kept, so that no total ever falls.
"""

from __future__ import annotations

import fcntl
import gc
import logging
import os
import stat
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any, Callable, Iterable, Iterator, NamedTuple

import gevent
from gevent.pywsgi import WSGIServer
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    Summary,
    generate_latest,
)
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

log = logging.getLogger(__name__)

OTHER_TOPICS = "_other"
_LAG_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
_DURATION_BUCKETS = (1, 10, 60, 600, 3600, 6 * 3600, 24 * 3600)
_WRITE_EVERY_S = 1.0

Numbers = Callable[[], "Reading"]


class Reading(NamedTuple):
    """What the gateway's rooms have counted, read at a scrape.

    Attributes:
        gauges: name to value.
        counters: name to value, without ``_total``.
        labelled: counter name to its label's name and its counts.
        subscriptions: (type, topic) to number of subscriptions.
    """

    gauges: dict[str, float]
    counters: dict[str, float]
    labelled: dict[str, tuple[str, Counter[str]]]
    subscriptions: Counter[tuple[str, str]]


_TEXTS = {
    "rango_hub_clients_count": "WebSocket connections.",
    "rango_hub_subscriptions_count": "Subscriptions by type and topic.",
    "rango_messages_received": "Messages from the broker by scope.",
    "rango_messages_dropped": "Messages from the broker that were dropped, by reason.",
    "rango_frames_sent": "Frames handed to clients.",
    "rango_frames_skipped": "Frames left out for clients that lag, by policy.",
    "rango_bytes_sent": "Bytes of frames handed to clients.",
    "rango_dispatch_rounds": "Fan-out rounds.",
    "rango_requests": "Requests of clients by action.",
    "rango_connections_opened": "WebSocket connections accepted.",
    "rango_connections_closed": "WebSocket connections ended, by reason.",
    "rango_connections_refused": "Handshakes refused, by reason.",
    "rango_broker_connected": "Workers that consume from the broker.",
    "rango_broker_connects": "Connections made to the broker.",
    "rango_broker_failures": "Connections to the broker that failed or broke.",
    "rango_broker_disconnected_seconds": "Time without the broker.",
    "rango_books": "Books held.",
    "rango_book_bytes": "Bytes of all books.",
    "rango_books_dropped": "Books dropped for passing a bound; stale until the next snapshot.",
    "rango_books_stale": "Books that are stale until their next snapshot.",
    "rango_books_stale_seconds": "How long books were stale, summed when they are good again.",
    "rango_outbox_bytes": "Bytes that wait for clients.",
    "rango_loop_lag_seconds": "Lateness of the event loop at its last tick.",
    "rango_greenlet_restarts": "Unexpected ends of long-lived greenlets, by name.",
    "python_greenlets": "Greenlets of the gateway.",
    "python_threads": "Threads of the process.",
    "python_allocated_blocks": "Memory blocks that the interpreter has allocated.",
    "promhttp_metric_handler_requests_in_flight": "Scrapes being served.",
    "promhttp_metric_handler_requests": "Scrapes by HTTP status code.",
}


class GatewayCollector(Collector):
    """Turns readings into metric families at a scrape.

    Args:
        read: gives the numbers of now.
        max_topics: topics with a series of their own; the rest is summed as ``_other``.
    """

    def __init__(self, read: Numbers, max_topics: int) -> None:
        self._read = read
        self._max_topics = max_topics

    def collect(self) -> Iterator[Metric]:
        """Yield all families."""
        reading = self._read()
        for name, value in reading.gauges.items():
            yield GaugeMetricFamily(name, _TEXTS[name], value=value)
        for name, value in reading.counters.items():
            yield CounterMetricFamily(name, _TEXTS[name], value=value)
        for name, (label, counts) in reading.labelled.items():
            family = CounterMetricFamily(name, _TEXTS[name], labels=[label])
            for word, count in sorted(counts.items()):
                family.add_metric([word], count)
            yield family
        yield self._subscriptions(reading.subscriptions)

    def _subscriptions(self, counts: Counter[tuple[str, str]]) -> Metric:
        name = "rango_hub_subscriptions_count"
        family = GaugeMetricFamily(name, _TEXTS[name], labels=["type", "topic"])
        # a client may call a stream `_other`; that series is for the sum
        named = Counter({key: n for key, n in counts.items() if key[1] != OTHER_TOPICS})
        top = named.most_common(self._max_topics)
        others = Counter({kind: 0 for kind, _ in counts})
        for (kind, _), count in counts.items():
            others[kind] += count
        for (kind, topic), count in top:
            others[kind] -= count
            family.add_metric([kind, topic], count)
        for kind, count in others.items():
            if count:
                family.add_metric([kind, OTHER_TOPICS], count)
        return family


class Metrics:
    """All metrics of one process.

    Attributes:
        lag: seconds from publishing (or receiving) a message to its sockets.
        duration: seconds that connections lasted.
        scrapes: answers of the metrics port by status code.
    """

    def __init__(self, read: Numbers, max_topics: int) -> None:
        self.registry = CollectorRegistry()
        self.lag = Histogram(
            "rango_delivery_lag_seconds",
            "From publishing to the socket; from receiving where the publisher gives no time.",
            buckets=_LAG_BUCKETS,
            registry=self.registry,
        )
        self.duration = Histogram(
            "rango_connection_duration_seconds",
            "How long connections lasted.",
            buckets=_DURATION_BUCKETS,
            registry=self.registry,
        )
        self._gc_pauses = Summary(
            "python_gc_duration_seconds", "Pauses by garbage collection.", registry=self.registry
        )
        self._gc_started = 0.0
        self.registry.register(GatewayCollector(read, max_topics))
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)

    def watch_gc(self) -> None:
        """Measure the pauses of the garbage collector from now on."""
        gc.callbacks.append(self._on_gc)

    def forget_gc(self) -> None:
        """Stop what `watch_gc` began."""
        if self._on_gc in gc.callbacks:
            gc.callbacks.remove(self._on_gc)

    def _on_gc(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._gc_started = time.perf_counter()
        else:
            self._gc_pauses.observe(time.perf_counter() - self._gc_started)

    def text(self) -> bytes:
        """Return this process's metrics as exposition text."""
        return generate_latest(self.registry)


def runtime_gauges(greenlets: int) -> dict[str, float]:
    """Return the interpreter's own numbers, the counterparts of Go's runtime."""
    return {
        "python_greenlets": greenlets,
        "python_threads": threading.active_count(),
        "python_allocated_blocks": sys.getallocatedblocks(),
    }


# -- several workers ------------------------------------------------------------------------

_MINIMUM = {"process_start_time_seconds"}
_MAXIMUM = {"rango_loop_lag_seconds", "process_max_fds", "python_info"}


def merge(live: Iterable[str], dead: Iterable[str] = ()) -> bytes:
    """Sum the samples of several workers into one exposition text.

    Counters, histograms and summaries of dead workers count on, so that no total falls;
    their gauges are forgotten. A few gauges are no sums: the oldest start, the worst lag.
    """
    families: dict[str, Metric] = {}
    for text in live:
        for family in text_string_to_metric_families(text):
            _add(families, family)
    for text in dead:
        for family in text_string_to_metric_families(text):
            if family.type != "gauge":
                _add(families, family)
    return generate_latest(_Fixed(families.values()))


class _Fixed:
    """What `generate_latest` needs of a registry."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> Iterator[Metric]:
        """Yield the families."""
        return iter(self._families)


def _add(families: dict[str, Metric], family: Metric) -> None:
    known = families.get(family.name)
    if known is None:
        families[family.name] = family
        return
    places = {(s.name, tuple(sorted(s.labels.items()))): i for i, s in enumerate(known.samples)}
    for sample in family.samples:
        place = places.get((sample.name, tuple(sorted(sample.labels.items()))))
        if place is None:
            known.samples.append(sample)
        else:
            old = known.samples[place]
            known.samples[place] = old._replace(value=_sum(family.name, old.value, sample.value))


def _sum(name: str, one: float, other: float) -> float:
    if name in _MINIMUM or name.endswith("_created"):
        return min(one, other)
    if name in _MAXIMUM:
        return max(one, other)
    return one + other


class Workers:
    """The samples of all workers of one parent process, in a directory that they share.

    Each worker keeps ``<pid>.alive`` locked for as long as it lives and writes its samples
    to ``<pid>.prom``. A lock that can be taken tells that its worker is dead, whatever ended
    it and whoever has its process id now.

    Args:
        own_text: this worker's samples as exposition text.
        parent: what the workers have in common: the parent's process id.
    """

    def __init__(self, own_text: Callable[[], bytes], parent: int) -> None:
        self._own_text = own_text
        self._directory = _private_directory(f"rango-metrics-{os.getuid()}-{parent}")
        self._stem = self._directory / str(os.getpid())
        self._alive = open(self._stem.with_suffix(".alive"), "w")  # noqa: SIM115 - held for life
        fcntl.flock(self._alive, fcntl.LOCK_EX)

    def run(self) -> None:
        """Write samples for ever."""
        while True:
            self.write()
            gevent.sleep(_WRITE_EVERY_S)

    def write(self) -> None:
        """Write this worker's samples, whole or not at all."""
        partial = self._stem.with_suffix(".partial")
        partial.write_bytes(self._own_text())
        partial.replace(self._stem.with_suffix(".prom"))

    def text(self) -> bytes:
        """Return the sum over all workers: this one as it is now, others as last written."""
        live: list[str] = [self._own_text().decode()]
        dead: list[str] = []
        for path in sorted(self._directory.glob("*.prom")):
            if path.stem == self._stem.name:
                continue
            try:
                (dead if self._is_dead(path) else live).append(path.read_text("utf-8"))
            except FileNotFoundError:
                continue  # that worker ended in peace this very moment
        return merge(live, dead)

    def _is_dead(self, path: Path) -> bool:
        try:
            with open(path.with_suffix(".alive")) as alive:
                # shared: two workers that look at a dead one do not see each other's lock
                fcntl.flock(alive, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except FileNotFoundError:
            return True
        return True

    def close(self) -> None:
        """Leave: the last samples stay for the others; the last worker takes all away."""
        self.write()
        others = [p for p in self._directory.glob("*.alive") if p.stem != self._stem.name]
        if all(self._is_dead(path) for path in others):
            for path in self._directory.iterdir():
                path.unlink(missing_ok=True)
            self._directory.rmdir()
        self._alive.close()


def _private_directory(name: str) -> Path:
    """Make or find a directory that only this user can write to."""
    path = Path(tempfile.gettempdir()) / name
    path.mkdir(mode=0o700, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PermissionError(f"{path} is not a private directory of this user: remove it")
    return path


# -- the port -------------------------------------------------------------------------------


class MetricsServer:
    """The metrics port: any path gives the text, as Rango does.

    Args:
        text: the exposition text of now.
        host: address to listen on.
        port: port to listen on.
    """

    def __init__(self, text: Callable[[], bytes], host: str, port: int) -> None:
        self._text = text
        self._address = (host, port)
        self._server: WSGIServer | None = None
        self.in_flight = 0
        self.scrapes: Counter[str] = Counter({"200": 0, "500": 0, "503": 0})

    def start(self) -> None:
        """Listen.

        Raises:
            OSError: the port is taken.
        """
        server = WSGIServer(self._address, self._answer, log=None, error_log=None)
        server.start()
        self._server = server

    def run_when_free(self) -> None:
        """Listen as soon as the port is free: one of several workers holds it."""
        while self._server is None:
            try:
                self.start()
            except OSError:
                gevent.sleep(_WRITE_EVERY_S)

    def stop(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.stop(timeout=1)
            self._server = None

    def _answer(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        self.in_flight += 1
        try:
            body, status = self._text(), "200 OK"
        except Exception:
            log.exception("metrics failed")
            body, status = b"metrics failed, see the log\n", "500 Internal Server Error"
        finally:
            self.in_flight -= 1
        self.scrapes[status[:3]] += 1
        kind = CONTENT_TYPE_LATEST if status == "200 OK" else "text/plain"
        start_response(status, [("Content-Type", kind), ("Content-Length", str(len(body)))])
        return [body]
