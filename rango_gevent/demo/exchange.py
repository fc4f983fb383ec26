"""A simulated exchange: the events that a Peatio publishes, without the Peatio.

What lives here: ``Exchange``, whose ``tick(now_s)`` advances every market by one step and returns
the events of that step, each a routing key and the bytes of its JSON body, ready to be published.

Pure: no clock, no I/O, no randomness but ``random.Random(seed)``. The same arguments and the same
sequence of ``now_s`` give the same bytes. Memory is bounded whatever the number of ticks.

Shapes: docs/api/websocket_api.md of Peatio, its Order#for_notify, Trade#for_notify and
Trade#for_global, and Matching::Engine. Every value of money is a decimal string, except in klines.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from typing import Any

from rango_gevent.demo.charts import Charts, Hour, past_hours
from rango_gevent.demo.crowd import Crowd
from rango_gevent.demo.instruments import instrument_of
from rango_gevent.demo.market import Market
from rango_gevent.demo.tape import Event, Tape
from rango_gevent.demo.users import User

_NAME = re.compile(r"[A-Za-z0-9_-]+")  # one word of a routing key, harmless in JSON


class Exchange:
    """Several markets and a few users who trade on them, one step at a time.

    Args:
        seed: the whole course of events follows from it.
        markets: ids such as ``btcusd``; an unknown currency gets a value drawn from the seed.
        users: uids whose private orders and trades are published.
        snapshot_every: increments of a book from one of its snapshots to the next. The default is
            about ten seconds at 5 ticks a second, Peatio's pace for a busy market.

    Raises:
        ValueError: no market, a market or uid that cannot be one word of a routing key or is named
            twice, or a ``snapshot_every`` below 1.
    """

    def __init__(
        self,
        *,
        seed: int = 1,
        markets: Sequence[str] = ("btcusd", "ethusd", "ltcbtc"),
        users: Sequence[str] = ("IDDEMO01",),
        snapshot_every: int = 200,
    ) -> None:
        if not markets:
            raise ValueError("an exchange needs at least one market")
        _check_names("market", markets)
        _check_names("user", users)
        if snapshot_every < 1:
            raise ValueError(f"snapshot_every must be 1 or more, not {snapshot_every}")
        self._tape = Tape()
        self._markets: dict[str, Market] = {}
        self._crowds: list[Crowd] = []
        past: dict[str, list[Hour]] = {}
        for name in markets:
            past[name] = self._open(name, seed, snapshot_every)
        self._charts = Charts([market.instrument for market in self._markets.values()], past)
        self._users = [
            User(uid, list(self._markets.values()), random.Random(f"{seed}/user/{uid}"))
            for uid in users
        ]
        self._summary_s: int | None = None

    def _open(self, name: str, seed: int, snapshot_every: int) -> list[Hour]:
        rng = random.Random(f"{seed}/market/{name}")
        instrument = instrument_of(name, seed)
        past = past_hours(instrument, rng)
        market = Market(instrument, self._tape, snapshot_every)
        self._markets[name] = market
        self._crowds.append(Crowd(market, rng))
        return past

    def tick(self, now_s: float) -> list[Event]:
        """Advance the simulation by one step and return what it published, in order.

        Args:
            now_s: unix time in seconds. A time before the last one counts as the last one.
        """
        self._tape.now_s = max(self._tape.now_s, now_s)
        for crowd in self._crowds:
            crowd.step()
        for user in self._users:
            user.step(self._tape)
        events = self._tape.take()
        self._charts.take(events, self._tape.now_s)
        if self._tape.date_s != self._summary_s:  # once a second
            self._summary_s = self._tape.date_s
            events += self._charts.summaries(self._tape.now_s)
        return events

    def book(self, market: str) -> dict[str, Any]:
        """Return a market's book in the shape of a snapshot: ``asks``, ``bids``, ``sequence``.

        Raises:
            KeyError: there is no such market.
        """
        return self._markets[market].book()


def _check_names(what: str, names: Sequence[str]) -> None:
    """Raise ValueError unless every name is one word of a routing key and there is no double."""
    for name in names:
        if not _NAME.fullmatch(name):
            raise ValueError(f"{what} {name!r} must be letters, digits, '_' or '-'")
    if len(set(names)) != len(names):
        raise ValueError(f"{what} named twice: {', '.join(names)}")
