"""Builds the source that RANGO_SOURCE names, topics of Kafka, as the settings say."""

from __future__ import annotations

import importlib.util
from typing import Callable

from rango_gevent.bounds import broker_limits
from rango_gevent.errors import ConfigError
from rango_gevent.settings import Settings
from rango_gevent.source.base import (
    KafkaWishes,
    Sink,
    Source,
)
from rango_gevent.source.kinds import open_source


def open_kafka(
    settings: Settings,
    sink: Sink,
    pace: Callable[[bool], None],
    on_break: Callable[[str], object],
) -> Source:
    """Return the source; nothing is connected yet.

    Args:
        settings: what to run with.
        sink: where messages go.
        pace: called after each read, and told if more is there; waits until reading pays again.
        on_break: told why what comes does not follow what came.

    Raises:
        ConfigError: a library that it needs is not installed.
    """
    if importlib.util.find_spec("confluent_kafka") is None:
        raise ConfigError(
            "RANGO_SOURCE: confluent_kafka is not installed: pip install 'rango-gevent[kafka]'"
        )
    wishes = KafkaWishes(
        dict(settings.kafka_keys), settings.kafka_window_s, settings.kafka_buffer_bytes, on_break
    )
    return open_source([settings.source], "", sink, broker_limits(settings), pace, wishes=wishes)
