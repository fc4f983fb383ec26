"""What is counted, and how it reads in Prometheus text.

Hot rooms count in plain integers; `GatewayCollector` reads them when a scrape comes, so
counting costs an addition. The names of Rango are kept (its protocol's metrics), with each
go_* group's Python counterpart. Serving the text, for all workers, is `rango_gevent.scrape`'s.
"""

from __future__ import annotations

import gc
import sys
import threading
import time
from collections import Counter
from operator import itemgetter
from typing import Callable, Iterator, Mapping, NamedTuple

from prometheus_client import (
    CollectorRegistry,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    Summary,
    generate_latest,
)
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

OTHER_TOPICS = "_other"
_LAG_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
_DURATION_BUCKETS = (1, 10, 60, 600, 3600, 6 * 3600, 24 * 3600)

Numbers = Callable[[], "Reading"]
Topics = Mapping[str, Mapping[str, int]]


class Reading(NamedTuple):
    """What the gateway's rooms have counted, read at a scrape.

    Attributes:
        gauges: name to value.
        counters: name to value, without ``_total``.
        labelled: counter name to its label's name and its counts.
        subscriptions: type to number of subscriptions.
        topics: type to topic to number of subscriptions; not all topics need be there.
    """

    gauges: dict[str, float]
    counters: dict[str, float]
    labelled: dict[str, tuple[str, Counter[str]]]
    subscriptions: Mapping[str, int]
    topics: Topics


_TEXTS = {
    "rango_hub_clients_count": "WebSocket connections.",
    "rango_hub_subscriptions_count": "Subscriptions by type and topic.",
    "rango_subscriptions": "Subscriptions of all clients.",
    "rango_subscriptions_refused": "Subscriptions refused for the bound on all.",
    "rango_messages_received": "Messages from the broker by scope.",
    "rango_messages_dropped": "Messages from the broker that were dropped, by reason.",
    "rango_frames_sent": "Frames handed to clients.",
    "rango_frames_skipped": "Frames left out for clients that lag, by policy.",
    "rango_bytes_sent": "Bytes of frames handed to clients.",
    "rango_dispatch_slices": "Times that clients in line were served between turns of the loop.",
    "rango_requests": "Requests of clients by action.",
    "rango_connections_opened": "WebSocket connections accepted.",
    "rango_connections_closed": "WebSocket connections ended, by reason.",
    "rango_connections_refused": "Handshakes refused, by reason.",
    "rango_ready": "Workers that are ready for clients.",
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
        max_topics: topics with a series of their own, those with most subscriptions; the rest
            is summed as ``_other``.
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
        yield self._subscriptions(reading.subscriptions, reading.topics)

    def _subscriptions(self, held: Mapping[str, int], topics: Topics) -> Metric:
        name = "rango_hub_subscriptions_count"
        family = GaugeMetricFamily(name, _TEXTS[name], labels=["type", "topic"])
        others = Counter(held)
        for count, kind, topic in self._most_held(topics):
            others[kind] -= count
            family.add_metric([kind, topic], count)
        for kind, count in others.items():
            if count:
                family.add_metric([kind, OTHER_TOPICS], count)
        return family

    def _most_held(self, topics: Topics) -> list[tuple[int, str, str]]:
        most: list[tuple[int, str, str]] = []
        for kind, counts in topics.items():
            of_kind = sorted(counts.items(), key=itemgetter(1), reverse=True)
            # a stream may be called `_other`; that series is for the sum
            named = [pair for pair in of_kind[: self._max_topics + 1] if pair[0] != OTHER_TOPICS]
            most += [(count, kind, topic) for topic, count in named]
        most.sort(key=itemgetter(0), reverse=True)
        return most[: self._max_topics]


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
