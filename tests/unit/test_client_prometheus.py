"""A client's figures as Prometheus reads them."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest
from support import sample_of

from rango_gevent.client import StreamClient
from rango_gevent.client.prometheus import export


def test_figures_are_read_when_they_are_asked_for() -> None:
    """All of them, under one prefix; latencies as they happen."""
    registry = CollectorRegistry()
    client = StreamClient("ws://127.0.0.1:1", ["a.b"])
    export(client, "bot", registry)
    for listener in client.core.hooks.latency:
        listener("ping", 0.02)
    text = generate_latest(registry).decode()
    assert sample_of(text, "bot_connections") == 1
    assert sample_of(text, "bot_connections_live") == 0
    assert sample_of(text, "bot_latency_seconds_count", kind="ping") == 1
    for name in ("events", "dropped", "gaps", "recovered", "resyncs", "reconnects", "garbage"):
        assert f"bot_{name}_total 0.0" in text
    assert "bot_lag_seconds 0.0" in text
    client.close()
