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
from typing import Callable, Iterable, Iterator, Mapping, NamedTuple

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
_GC_DEFAULTS = gc.get_threshold()
_GC_THRESHOLDS = (5000, 10, 1000)  # 0.3 ms each, 5 ms each, and full ones are rare
_DURATION_BUCKETS = (1, 10, 60, 600, 3600, 6 * 3600, 24 * 3600)

Numbers = Callable[[], "Reading"]
Topics = Mapping[str, Mapping[str, int]]


class Row(NamedTuple):
    """A row of the table of metrics.

    Attributes:
        text: what is counted.
        is_gauge: it goes up and down; else its name ends in ``_total`` and it only grows.
        label: name of its label, empty for none.
    """

    text: str
    is_gauge: bool = False
    label: str = ""


# fmt: off - a row of the table is a row
TABLE = {
    "rango_hub_clients_count": Row("WebSocket connections.", is_gauge=True),
    "rango_hub_subscriptions_count": Row("Subscriptions by type and topic.", is_gauge=True),
    "rango_subscriptions": Row("Subscriptions of all clients.", is_gauge=True),
    "rango_subscriptions_refused": Row("Subscriptions refused for the bound on all."),
    "rango_messages_received": Row("Messages from the broker by scope.", label="scope"),
    "rango_messages_dropped": Row(
        "Messages from the broker that were dropped, by reason.", label="reason"
    ),
    "rango_frames_sent": Row("Frames handed to clients."),
    "rango_frames_skipped": Row("Frames left out for clients that lag, by policy.", label="policy"),
    "rango_bytes_sent": Row("Bytes of frames handed to clients."),
    "rango_dispatch_slices": Row(
        "Times that clients in line were served between turns of the loop."
    ),
    "rango_requests": Row("Requests of clients by action.", label="action"),
    "rango_tokens": Row("Tokens of clients that were looked at, by outcome.", label="outcome"),
    "rango_tokens_ended": Row("Tokens that ended while connected, by policy.", label="policy"),
    "rango_token_lookups": Row("Tokens that RANGO_AUTH_URL knows, by outcome.", label="outcome"),
    "rango_token_answers": Row("Answers of RANGO_AUTH_URL that are kept.", is_gauge=True),
    "rango_jwks_fetches": Row("Fetches of JWT_JWKS_URL by outcome.", label="outcome"),
    "rango_control_messages": Row("Control messages by action.", label="action"),
    "rango_revocations": Row("Users whose tokens are revoked.", is_gauge=True),
    "rango_revocations_forgotten": Row("Revocations that were forgotten for the bound on them."),
    "rango_admin_connections": Row("Administrators that are logged in.", is_gauge=True),
    "rango_admin_requests": Row("Requests of administrators, by event.", label="event"),
    "rango_admin_records": Row(
        "Messages of connections that administrators listen to, told or skipped.", label="outcome"
    ),
    "rango_admin_unanswered": Row(
        "Requests of an administrator that another worker did not answer in time."
    ),
    "rango_connections_opened": Row("WebSocket connections accepted."),
    "rango_connections_closed": Row("WebSocket connections ended, by reason.", label="reason"),
    "rango_connections_refused": Row("Handshakes refused, by reason.", label="reason"),
    "rango_ready": Row("Workers that are ready for clients.", is_gauge=True),
    "rango_broker_connected": Row("Workers that consume from the broker.", is_gauge=True),
    "rango_broker_connects": Row("Connections made to the broker."),
    "rango_broker_failures": Row("Connections to the broker that failed or broke."),
    "rango_broker_disconnected_seconds": Row("Time without the broker."),
    "rango_kafka_behind": Row("Messages of Kafka up to the ends, at last sight.", is_gauge=True),
    "rango_kafka_unroutable": Row("Messages of Kafka that RANGO_KAFKA_KEYS makes no key of."),
    "rango_kafka_breaks": Row("Times that history broke in Kafka, by reason.", label="reason"),
    "rango_log_attached": Row("Workers that read the log.", is_gauge=True),
    "rango_log_fallback": Row(
        "Workers with a queue of their own because the log stalls.", is_gauge=True
    ),
    "rango_log_fallback_seconds": Row("Time that this took."),
    "rango_log_behind_events": Row("Events to the end of the log, at last sight.", is_gauge=True),
    "rango_log_behind_seconds": Row("Age of an end that is not reached yet.", is_gauge=True),
    "rango_log_fill_seconds": Row("Time that reading up to the end took.", is_gauge=True),
    "rango_log_missed": Row("Events that the log lost; seen in the queue that stands by."),
    "rango_log_breaks": Row("Times that history broke, by reason.", label="reason"),
    "rango_bindings": Row("Keys that the queue in the broker is bound to.", is_gauge=True),
    "rango_books": Row("Books held.", is_gauge=True),
    "rango_book_bytes": Row("Bytes of all books.", is_gauge=True),
    "rango_books_dropped": Row("Books dropped for passing a bound; stale until the next snapshot."),
    "rango_books_stale": Row("Books that are stale until their next snapshot.", is_gauge=True),
    "rango_books_stale_seconds": Row("How long books were stale, summed when they are good again."),
    "rango_history_events": Row("Recent events held for clients that come back.", is_gauge=True),
    "rango_history_bytes": Row("Bytes that they take.", is_gauge=True),
    "rango_history_seconds": Row("For how long back they reach.", is_gauge=True),
    "rango_resumes": Row(
        "Clients that came back by a position, by outcome: recovered, or why not.", label="outcome"
    ),
    "rango_resumed_events": Row("Missed events that they were sent."),
    "rango_outbox_bytes": Row(
        "Bytes that wait for clients; those that several wait for count for each.", is_gauge=True
    ),
    "rango_loop_lag_seconds": Row("Lateness of the event loop at its last tick.", is_gauge=True),
    "rango_greenlet_restarts": Row(
        "Unexpected ends of long-lived greenlets, by name.", label="name"
    ),
    "rango_viabtc_views": Row("Views that clients of /viabtc hold.", is_gauge=True),
    "rango_viabtc_depth_levels": Row("Levels that views of books may show.", is_gauge=True),
    "rango_viabtc_refused": Row("Views of books refused for RANGO_VIABTC_DEPTH_LEVELS."),
    "rango_viabtc_pushes": Row("Pushes made for /viabtc, each once for all who get it."),
    "rango_viabtc_kept_bytes": Row("Bytes kept for queries of /viabtc.", is_gauge=True),
    "rango_viabtc_forgotten": Row("Topics forgotten for the bounds on what is kept for /viabtc."),
    "rango_rpc_questions": Row("Questions to backends by outcome.", label="outcome"),
    "rango_rpc_cache_bytes": Row("Bytes of answers of backends that are kept.", is_gauge=True),
    "rango_rpc_connected": Row("Workers that can ask backends over AMQP.", is_gauge=True),
    "rango_rpc_connects": Row("Connections made to ask backends over AMQP."),
    "rango_signatures": Row("Signatures that RANGO_SIGN_URL knows, by outcome.", label="outcome"),
    "rango_alert_lines": Row("CRITICAL lines and recoveries handed on for alerts."),
    "rango_alert_messages": Row("Alerts by whether their sink took them.", label="outcome"),
    "python_greenlets": Row("Greenlets of the gateway.", is_gauge=True),
    "python_threads": Row("Threads of the process.", is_gauge=True),
    "python_allocated_blocks": Row(
        "Memory blocks that the interpreter has allocated.", is_gauge=True
    ),
    "promhttp_metric_handler_requests_in_flight": Row("Scrapes being served.", is_gauge=True),
    "promhttp_metric_handler_requests": Row("Scrapes by HTTP status code.", label="code"),
}
# fmt: on


class Reading(NamedTuple):
    """What the gateway's rooms have counted, read at a scrape.

    Attributes:
        values: metric of the table to its value, or to its counts by the label's value.
        subscriptions: type to number of subscriptions.
        topics: type to topic to number of subscriptions; not all topics need be there.
    """

    values: Mapping[str, float | Mapping[str, int]]
    subscriptions: Mapping[str, int]
    topics: Topics


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
        for name, value in reading.values.items():
            yield _family(name, value)
        yield self._subscriptions(reading.subscriptions, reading.topics)

    def _subscriptions(self, held: Mapping[str, int], topics: Topics) -> Metric:
        name = "rango_hub_subscriptions_count"
        family = GaugeMetricFamily(name, TABLE[name].text, labels=["type", "topic"])
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


def _family(name: str, value: float | Mapping[str, int]) -> Metric:
    """Return a metric with its samples."""
    row = TABLE[name]
    kind = GaugeMetricFamily if row.is_gauge else CounterMetricFamily
    if not isinstance(value, Mapping):
        return kind(name, row.text, value=value)
    family = kind(name, row.text, labels=[row.label])
    for word, count in sorted(value.items()):
        family.add_metric([word], count)
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
        """Measure the pauses of the garbage collector from now on, and keep them short.

        What makes circles here undoes them itself, so there is little to collect, and much to
        look at: at a million subscriptions each full collection stood still for 150 to 370 ms.
        """
        gc.callbacks.append(self._on_gc)
        gc.collect()
        gc.freeze()  # what is there by now stays
        gc.set_threshold(*_GC_THRESHOLDS)

    def forget_gc(self) -> None:
        """Stop what `watch_gc` began."""
        if self._on_gc in gc.callbacks:
            gc.callbacks.remove(self._on_gc)
            gc.unfreeze()
            gc.set_threshold(*_GC_DEFAULTS)

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


def from_zero(words: Iterable[str], counts: Counter[str]) -> Counter[str]:
    """Return counts with every word in them: a rate misses what a series begins with."""
    return Counter({**dict.fromkeys(words, 0), **counts})
