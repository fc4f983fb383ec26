"""The tape of a simulated exchange: what the running tick published, its time, the counters.

Markets and users write to it, the exchange takes the events off at the end of every tick. Pure,
and empty between two ticks, so it holds no more than one tick makes.
"""

from __future__ import annotations

import json
from typing import NamedTuple

_encode = json.JSONEncoder(separators=(",", ":")).encode


class Event(NamedTuple):
    """One message for the broker: ``body`` is compact JSON in UTF-8."""

    routing_key: str
    body: bytes


class Tape:
    """The time of the running tick, its events so far, and the exchange-wide counters."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._events: list[Event] = []
        self._trade_id = 0
        self._order_id = 0

    @property
    def date_s(self) -> int:
        """Whole seconds of the running tick, as Peatio stamps its events."""
        return int(self.now_s)

    def publish(self, routing_key: str, payload: object) -> None:
        """Add an event with the payload as its JSON body."""
        self._events.append(Event(routing_key, _encode(payload).encode()))

    def take(self) -> list[Event]:
        """Return the events in order, and start anew."""
        events, self._events = self._events, []
        return events

    def next_trade_id(self) -> int:
        """Count a trade."""
        self._trade_id += 1
        return self._trade_id

    def next_order_id(self) -> int:
        """Count an order."""
        self._order_id += 1
        return self._order_id
