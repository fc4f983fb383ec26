"""All markets at once: messages in, changes to save and events to publish out.

Where a message stood in its log is saved together with what it changed, in one step: so nothing is
counted twice and nothing is left out, whenever the process ends. Pure.
"""

from __future__ import annotations

from collections import Counter
from types import MappingProxyType
from typing import Callable, Mapping, NamedTuple

from rango_gevent.marketdata import market as markets
from rango_gevent.marketdata import trades
from rango_gevent.marketdata.market import Chunk, Head, Market, MarketChanges, Read
from rango_gevent.marketdata.trades import BadTrade


class Place(NamedTuple):
    """Where in the log the last message stood that is counted, and a check of that message."""

    offset: int
    check: int


class Limits(NamedTuple):
    """Bounds.

    Attributes:
        trades: that are known, for each market.
        late_s: how far a trade may lie behind the newest one of its market.
        ahead_s: how far a trade may lie ahead of the clock.
        markets: how many there may be; trades of more are dropped.
    """

    trades: int = 2000
    late_s: float = 3600.0
    ahead_s: float = 60.0
    markets: int = 1000


class Changes(NamedTuple):
    """What is to be saved in one step.

    Attributes:
        place: where in the log it stands.
        markets: what changed of each.
        notes: whatever else must be saved with it, by name.
    """

    place: Place | None
    markets: list[MarketChanges]
    notes: Mapping[str, str] = MappingProxyType({})


class Saved(NamedTuple):
    """What was saved: where it stood in the log, and of each market its head and its trades."""

    place: Place | None
    markets: list[tuple[Head, list[Chunk]]]


def _nobody(reason: str, key: str, text: str) -> None:
    """Stand in for who is told."""


class Desk:
    """The market data of an exchange.

    Args:
        read: reads saved candles.
        limits: bounds.
        on_drop: told of each trade or message that is dropped: a word, the routing key, and why.

    Attributes:
        place: where the last message stood that was taken.
        counts: trades by what they were: ``new``, ``duplicate``, ``corrected``, ``cancelled``.
        drops: trades and messages dropped, by reason.
        waiting: trades taken since the last save.
        last_at_s, taken_at_s: times of the trade that was taken last: its own, and the clock's.
    """

    def __init__(
        self,
        read: Read,
        limits: Limits,
        on_drop: Callable[[str, str, str], object] = _nobody,
    ) -> None:
        self._read = read
        self._limits = limits
        self._on_drop = on_drop
        self.markets: dict[str, Market] = {}
        self.place: Place | None = None
        self.counts: Counter[str] = Counter()
        self.drops: Counter[str] = Counter()
        self.waiting = 0
        self.last_at_s = self.taken_at_s = 0.0

    def restore(self, saved: Saved) -> None:
        """Go on from what was saved."""
        self.place = saved.place
        for head, chunks in saved.markets:
            market = self.markets[head.name] = self._market(head.name)
            market.restore(head, chunks)

    def _market(self, name: str) -> Market:
        limits = self._limits
        return Market(name, self._read, max_trades=limits.trades, late_s=limits.late_s)

    def take(self, key: str, body: bytes, now_s: float, place: Place | None = None) -> None:
        """Take a message in.

        Args:
            key: routing key; those that are not of trades are left out.
            body: as published.
            now_s: Unix time.
            place: where it stood in the log.
        """
        # hot path: once a message, which holds one trade as a rule
        if place is not None:
            self.place = place
        try:
            name = trades.market_of(key)
            if name is None:
                return
            entries = trades.entries(body)
        except BadTrade as error:
            self._drop(error.reason, key, str(error))
            return
        for entry in entries:
            try:
                trade = trades.checked(entry)
                if trade.at_s > now_s + self._limits.ahead_s:
                    raise BadTrade("ahead", f"trade {trade.id} lies ahead of the clock")
                market = self.markets.get(name)
                if market is None:
                    market = self._new(name)
                word = market.take(trade)
                if word is markets.LATE:
                    raise BadTrade("late", f"trade {trade.id} came too late")
                self.markets[name] = market
            except BadTrade as error:
                self._drop(error.reason, key, str(error))
            else:
                self.counts[word] += 1
                self.waiting += 1
                self.last_at_s, self.taken_at_s = trade.at_s, now_s

    def _new(self, name: str) -> Market:
        """Return a market that is not there yet; it is once it has a trade."""
        if len(self.markets) >= self._limits.markets:
            raise BadTrade("markets", "there are too many markets")
        return self._market(name)

    def _drop(self, reason: str, key: str, text: str) -> None:
        self.drops[reason] += 1
        self._on_drop(reason, key, text)

    def fold(self) -> None:
        """Bring the candles of all periods up to date."""
        for market in self.markets.values():
            market.fold()

    # -- saving -----------------------------------------------------------------------------------

    def collect(self) -> Changes:
        """Return what is to be saved; `saved` or `not_saved` comes next."""
        self.fold()
        self.waiting = 0
        found = (market.collect() for market in self.markets.values())
        return Changes(self.place, [changes for changes in found if changes is not None])

    def saved(self, changes: Changes) -> None:
        """Note that it is saved."""
        for one in changes.markets:
            self.markets[one.head.name].saved(one)

    def not_saved(self, changes: Changes) -> None:
        """Note that it is not saved, and is to be collected again."""
        for one in changes.markets:
            self.markets[one.head.name].not_saved()
            self.waiting += len(one.trades)

    @property
    def inexact(self) -> int:
        """Return how many candles corrections could not compute anew."""
        return sum(market.inexact for market in self.markets.values())
