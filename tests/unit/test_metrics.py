"""Metrics of one process: text that any scraper reads, with labels that are bounded."""

from __future__ import annotations

import gc
import threading
from collections import Counter
from typing import Any, Mapping

from hypothesis import example, given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from rango_gevent.metrics import (
    OTHER_TOPICS,
    GatewayCollector,
    Metrics,
    Reading,
    runtime_gauges,
)

Series = dict[tuple[str, tuple[tuple[str, str], ...]], float]

# Names of streams as the gateway lets them through: printable, surrogates never.
topics = st.text(st.characters(exclude_categories=["C", "Zl", "Zp"]), max_size=12).filter(
    str.isprintable
)
subscriptions = st.dictionaries(
    st.tuples(st.sampled_from(["public", "private", "prefixed"]), topics | st.just(OTHER_TOPICS)),
    st.integers(1, 100),
    max_size=8,
)


def series(text: str | bytes) -> Series:
    """Return the samples of exposition text; one that comes twice fails the test."""
    found: Series = {}
    names: set[str] = set()
    for family in text_string_to_metric_families(text if isinstance(text, str) else text.decode()):
        assert family.name not in names, f"family {family.name} comes twice"
        names.add(family.name)
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in found, f"series {key} comes twice"
            found[key] = sample.value
    return found


def value(text: str | bytes, name: str, **labels: str) -> float | None:
    """Return one sample's value, None when there is none."""
    return series(text).get((name, tuple(sorted(labels.items()))))


def reading(subscribed: Mapping[tuple[str, str], int] | None = None, **changes: Any) -> Reading:
    """Return what a gateway might have counted."""
    counted = subscribed or {}
    held = Counter[str]()
    topics: dict[str, dict[str, int]] = {}
    for (kind, topic), count in counted.items():
        held[kind] += count
        topics.setdefault(kind, {})[topic] = count
    made = Reading(
        values={
            "rango_hub_clients_count": 3,
            "rango_frames_sent": 7,
            "rango_broker_disconnected_seconds": 0.5,
            "rango_requests": Counter(subscribe=2, ping=1),
            "promhttp_metric_handler_requests": Counter({"200": 4}),
            **runtime_gauges(5),
        },
        subscriptions=held,
        topics=topics,
    )
    return made._replace(**changes)


# -- one process --------------------------------------------------------------------------------


def test_the_text_holds_what_was_counted() -> None:
    """Gauges by their name, counters with _total, labelled ones with their label."""
    text = Metrics(lambda: reading({("public", "eurusd.trades"): 2}), 10).text()
    assert value(text, "rango_hub_clients_count") == 3
    assert value(text, "rango_frames_sent_total") == 7
    assert value(text, "rango_broker_disconnected_seconds_total") == 0.5
    assert value(text, "rango_requests_total", action="subscribe") == 2
    assert value(text, "promhttp_metric_handler_requests_total", code="200") == 4
    name = "rango_hub_subscriptions_count"
    assert value(text, name, type="public", topic="eurusd.trades") == 2


def test_the_names_of_rango_and_of_the_process_are_there() -> None:
    """Dashboards and alerts of Rango find what they ask for, and Go's runtime its counterpart."""
    text = Metrics(reading, 10).text().decode()
    names = {name for name, _ in series(text)}
    assert names >= {
        "process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds",
        "process_start_time_seconds", "python_info", "python_greenlets", "python_threads",
        "python_allocated_blocks", "python_gc_collections_total",
        "rango_delivery_lag_seconds_count", "rango_connection_duration_seconds_count",
    }  # fmt: skip
    assert "# TYPE rango_hub_subscriptions_count gauge" in text
    assert "# TYPE python_gc_duration_seconds summary" in text


def test_histograms_are_observed() -> None:
    """Lag and duration go into buckets."""
    metrics = Metrics(reading, 10)
    metrics.lag.observe(0.02)
    metrics.duration.observe(90)
    text = metrics.text()
    assert value(text, "rango_delivery_lag_seconds_bucket", le="0.01") == 0
    assert value(text, "rango_delivery_lag_seconds_bucket", le="0.025") == 1
    assert value(text, "rango_connection_duration_seconds_bucket", le="600.0") == 1
    assert value(text, "rango_connection_duration_seconds_sum") == 90


def test_two_gateways_of_one_process_do_not_meet() -> None:
    """Each has a registry of its own: a second one neither fails nor counts into the first."""
    one, other = Metrics(reading, 10), Metrics(reading, 10)
    one.lag.observe(1)
    assert value(other.text(), "rango_delivery_lag_seconds_count") == 0


def test_pauses_of_the_collector_are_measured() -> None:
    """From `watch_gc` to `forget_gc` each collection is one observation."""
    metrics = Metrics(reading, 10)
    metrics.watch_gc()
    gc.collect()
    metrics.forget_gc()
    metrics.forget_gc()
    counted = value(metrics.text(), "python_gc_duration_seconds_count")
    assert counted is not None
    assert counted >= 1
    gc.collect()
    assert value(metrics.text(), "python_gc_duration_seconds_count") == counted


def test_runtime_gauges() -> None:
    """The interpreter's numbers are those of this process."""
    found = runtime_gauges(12)
    assert found["python_greenlets"] == 12
    assert found["python_threads"] == threading.active_count()
    assert found["python_allocated_blocks"] > 1000


# -- labels -------------------------------------------------------------------------------------


def subscription_series(subscribed: Mapping[tuple[str, str], int], max_topics: int) -> Series:
    """Return the series of the subscriptions' gauge."""
    text = Metrics(lambda: reading(subscribed), max_topics).text()
    found = series(text)
    return {key: count for key, count in found.items() if key[0] == "rango_hub_subscriptions_count"}


def test_topics_past_the_bound_are_summed() -> None:
    """The topics with most subscriptions keep their series, the rest is one for each type."""
    counted = {
        ("public", "a.b"): 9, ("public", "c.d"): 8, ("public", "e.f"): 1, ("public", "g.h"): 2,
        ("private", "order"): 3,
    }  # fmt: skip
    found = subscription_series(counted, 2)
    labels = {(dict(key[1])["type"], dict(key[1])["topic"]): count for key, count in found.items()}
    assert labels == {
        ("public", "a.b"): 9,
        ("public", "c.d"): 8,
        ("public", OTHER_TOPICS): 3,
        ("private", OTHER_TOPICS): 3,
    }


@given(subscriptions, st.integers(0, 6))
@example({("private", OTHER_TOPICS): 5, ("private", "a"): 4}, 1)
@example({("public", 'a"b\\.{c}=,# d'): 1}, 3)
@example({("public", " a.b "): 1, ("public", "a.b"): 1}, 3)
def test_any_topics_give_bounded_series_and_the_right_sums(
    counted: dict[tuple[str, str], int], max_topics: int
) -> None:
    """Whatever clients call their streams: no series twice, none too many, nothing lost."""
    found = subscription_series(counted, max_topics)
    labels = {(dict(key[1])["type"], dict(key[1])["topic"]): count for key, count in found.items()}
    own = {key: count for key, count in labels.items() if key[1] != OTHER_TOPICS}
    assert len(own) <= max_topics
    assert all(counted[key] == count for key, count in own.items())
    for kind in ("public", "private", "prefixed"):
        wanted = sum(count for (type_, _), count in counted.items() if type_ == kind)
        assert sum(count for (type_, _), count in labels.items() if type_ == kind) == wanted


def test_topics_that_are_not_told_are_in_the_sum() -> None:
    """The number of all subscriptions is true, whatever is known of their topics."""
    told = reading({("public", "a.b"): 2, ("private", "order"): 1})
    text = Metrics(lambda: told._replace(topics={"public": {"a.b": 2}}), 10).text()
    name = "rango_hub_subscriptions_count"
    assert value(text, name, type="public", topic="a.b") == 2
    assert value(text, name, type="private", topic=OTHER_TOPICS) == 1
    assert value(text, name, type="private", topic="order") is None


def test_a_collector_asks_once_a_scrape() -> None:
    """All numbers of a scrape are of one moment."""
    calls: list[int] = []

    def read() -> Reading:
        calls.append(1)
        return reading()

    list(GatewayCollector(read, 10).collect())
    assert len(calls) == 1
