"""Ways to run a simulated exchange and to read what it publishes, for its tests."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st

from rango_gevent.demo.exchange import Exchange
from rango_gevent.demo.tape import Event

START_S = 1_700_000_000.0
MARKETS = ("btcusd", "ethusd", "ltcbtc")
SEEDS = st.integers(min_value=0, max_value=2**32)


def ticks(exchange: Exchange, count: int, step_s: float = 0.2) -> Iterator[list[Event]]:
    """Tick ``count`` times, ``step_s`` seconds apart."""
    for number in range(count):
        yield exchange.tick(START_S + number * step_s)


def bodies(events: list[Event], pattern: str) -> Iterator[tuple[str, Any]]:
    """Yield (routing key, decoded body) of the events whose whole key matches ``pattern``."""
    for event in events:
        if re.fullmatch(pattern, event.routing_key):
            yield event.routing_key, json.loads(event.body, parse_float=Decimal)


def run(exchange: Exchange, count: int, step_s: float = 0.2) -> list[Event]:
    """Return all events of ``count`` ticks in one list."""
    return [event for events in ticks(exchange, count, step_s) for event in events]
