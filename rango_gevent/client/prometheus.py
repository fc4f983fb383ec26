"""A client's figures for Prometheus; needs ``prometheus-client``.

from prometheus_client import start_http_server
from rango_gevent.client.prometheus import export

export(client)
start_http_server(9100)
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from prometheus_client import REGISTRY, CollectorRegistry, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from rango_gevent.client.core import Core
from rango_gevent.client.model import LIVE, Stats

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_COUNTERS = {
    "events": "Events that arrived for somebody",
    "dropped": "Events that found a full queue",
    "gaps": "Streams that were lost for a while, each time",
    "recovered": "Streams that came back with all that they had missed",
    "resyncs": "Snapshots that books asked for",
    "reconnects": "Connections made again",
    "garbage": "Messages that were no event and no reply",
}


class Client(Protocol):
    """A client of either kind."""

    core: Core

    def stats(self) -> Stats:
        """Return the figures."""


class _Figures(Collector):
    """Reads a client's figures whenever they are asked for."""

    def __init__(self, client: Client, prefix: str) -> None:
        self._client = client
        self._prefix = prefix

    def collect(self) -> Iterable[Metric]:
        """Yield the figures of now."""
        stats = self._client.stats()
        for name, text in _COUNTERS.items():
            yield CounterMetricFamily(f"{self._prefix}_{name}", text, value=getattr(stats, name))
        live = sum(one.state == LIVE for one in stats.connections)
        for name, text, value in (
            ("waiting", "Events that wait to be taken", stats.waiting),
            ("lag_seconds", "How long the oldest of them has waited", stats.lag_s),
            ("connections", "Connections", len(stats.connections)),
            ("connections_live", "Connections that are live", live),
        ):
            yield GaugeMetricFamily(f"{self._prefix}_{name}", text, value=value)


def export(
    client: Client, prefix: str = "rango_client", registry: CollectorRegistry = REGISTRY
) -> None:
    """Export a client's figures, and how long its requests and pings take.

    Args:
        client: a client, of threads or of asyncio.
        prefix: of the metrics' names; each client of a process needs its own.
        registry: where they go.
    """
    registry.register(_Figures(client, prefix))
    latency = Histogram(
        f"{prefix}_latency_seconds",
        "From a request or a ping to its answer",
        ["kind"],
        buckets=_BUCKETS,
        registry=registry,
    )
    children = {kind: latency.labels(kind) for kind in ("request", "ping")}
    client.core.hooks.latency.append(lambda kind, seconds: children[kind].observe(seconds))
