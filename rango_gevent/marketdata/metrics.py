"""What is counted of a worker, as Prometheus text. Read when a scrape comes."""

from __future__ import annotations

import time
from typing import Iterator

from prometheus_client import (
    CollectorRegistry,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from rango_gevent.marketdata.worker import Worker

_PREFIX = "rango_marketdata_"

# Name without the prefix: text, and the label if there is one.
GAUGES = {
    "connected": "Trades can arrive: 1, else 0.",
    "ready": "Trades can arrive, state is saved and questions are answered: 1, else 0.",
    "markets": "Markets.",
    "lag_seconds": "Age of the newest trade when it was taken.",
    "newest_trade_timestamp_seconds": "Unix time of the newest trade of all markets.",
    "behind_messages": "Messages of the log still to be read.",
    "unsaved_trades": "Trades taken and not saved yet.",
    "save_seconds": "How long saving took the last time.",
    "saved_ago_seconds": "Seconds since something was saved.",
}
COUNTERS = {
    "trades": ("Trades taken by what they were: new, duplicate, corrected, cancelled.", "kind"),
    "drops": ("Trades and messages dropped by reason.", "reason"),
    "inexact_corrections": ("Candles that a correction could not compute anew.", ""),
    "gaps": ("Times when trades may have been missed.", ""),
    "gap_seconds": ("Seconds in which trades may have been missed.", ""),
    "save_failures": ("Times when the store took nothing.", ""),
    "published": ("Candles and tickers published.", ""),
    "publish_failures": ("Times when they could not be published.", ""),
    "questions": ("Questions answered by outcome: answered, refused.", "outcome"),
    "clock_jumps": ("Times when the clock jumped by more than two seconds.", ""),
    "reconnects": ("Connections to the broker lost or not made.", ""),
}
_KINDS = ("new", "duplicate", "corrected", "cancelled")


class WorkerCollector(Collector):
    """Reads a worker."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def collect(self) -> Iterator[Metric]:
        """Yield all of it."""
        gauges, counters = self._gauges(), self._counters()
        for name, text in GAUGES.items():
            yield GaugeMetricFamily(_PREFIX + name, text, gauges[name])
        for name, (text, label) in COUNTERS.items():
            family = CounterMetricFamily(_PREFIX + name, text, labels=[label] if label else [])
            for value, number in counters[name].items():
                family.add_metric([value] if label else [], number)
            yield family

    def _gauges(self) -> dict[str, float]:
        worker, desk = self._worker, self._worker.desk
        newest_s = max((market.newest_s for market in desk.markets.values()), default=0.0)
        return {
            "connected": worker.trades.connected,
            "ready": not worker.problem,
            "markets": len(desk.markets),
            "lag_seconds": worker.lag_s,
            "newest_trade_timestamp_seconds": newest_s,
            "behind_messages": worker.behind,
            "unsaved_trades": desk.waiting,
            "save_seconds": worker.save_s,
            "saved_ago_seconds": time.monotonic() - worker.saved_at,
        }

    def _counters(self) -> dict[str, dict[str, float]]:
        worker, desk = self._worker, self._worker.desk
        questions: dict[str, float] = {
            "answered": worker.rpc_server.answered,
            "refused": worker.rpc_server.refused,
        }
        plain = {
            "inexact_corrections": desk.inexact,
            "gaps": worker.gaps,
            "gap_seconds": worker.gap_s,
            "save_failures": worker.save_failures,
            "published": worker.published,
            "publish_failures": worker.publish_failures,
            "clock_jumps": worker.clock.jumps,
            "reconnects": worker.trades.failures,
        }
        return {
            "trades": {kind: desk.counts[kind] for kind in _KINDS},
            "drops": {reason: desk.drops[reason] for reason in DROPS},
            "questions": questions,
            **{name: {"": value} for name, value in plain.items()},
        }


DROPS = ("shape", "market", "markets", "price", "amount", "date", "id", "ahead", "late")


def table() -> str:
    """Return what is counted as Markdown, for docs/MARKETDATA.md."""
    lines = ["| metric | meaning |", "|---|---|"]
    lines += [f"| `{_PREFIX}{name}` | {text} |" for name, text in GAUGES.items()]
    for name, (text, label) in COUNTERS.items():
        labels = f"{{{label}}}" if label else ""
        lines.append(f"| `{_PREFIX}{name}_total{labels}` | {text} |")
    return "\n".join(lines)


def text_of(worker: Worker) -> bytes:
    """Return the exposition text of a worker and its process."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(WorkerCollector(worker))
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    return generate_latest(registry)
