"""One market: its newest trades, its candles, and what of both is not saved or published yet.

A trade goes into the candle of its second; `Market.fold` puts those seconds into the longer
periods, so that what a trade costs does not depend on how many of them there are.

Known are the newest trades, some thousands. What stands above all that was forgotten, by time or
by id, is known or new, for certain; whatever stands below by both may have been known, and is late.
A known id that comes again is a duplicate, with another price or amount a correction, with amount 0
a cancellation. A correction computes candles anew, each from its parts.

Pure: what is not in memory is read through a function that comes in.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Callable, Iterable, NamedTuple, Tuple

from rango_gevent.marketdata.candles import EXACT, NO_KEY, Candle, Key, flat, of_trade, together
from rango_gevent.marketdata.periods import HOUR, MINUTE, PARTS, PERIODS, end_of, start_of
from rango_gevent.marketdata.trades import Trade

Read = Callable[[str, int, int, int], "list[Candle]"]
"""Returns a market's saved candles of a period that begin from one time to before another."""

Place = Tuple[int, int]
"""The period and the beginning of a candle, in seconds."""

NEW, DUPLICATE, CORRECTED, CANCELLED, LATE = "new", "duplicate", "corrected", "cancelled", "late"

_ALL = tuple(PERIODS.values())
_HELD = {HOUR: 26}  # candles held of a period, by far the most are never read again; else 3
_HOURS_KEPT = 4  # of minutes: where the last 24 hours and today begin


class Head(NamedTuple):
    """What is saved of a market beside candles and trades.

    Attributes:
        newest_s: Unix time of the newest trade.
        floor: key of the newest trade that was forgotten.
        floor_id: highest id that was forgotten.
        chunk: number of the newest chunk of trades.
    """

    name: str
    newest_s: float
    floor: Key
    floor_id: int
    chunk: int


class Chunk(NamedTuple):
    """Trades that were saved together, numbered within their market."""

    number: int
    trades: list[Trade]


class MarketChanges(NamedTuple):
    """What is to be saved of a market.

    Attributes:
        candles: period and `Candle.row`.
        removed: candles in which nothing is left.
        trades: of the chunk that the head names.
        gone: numbers of chunks that are not needed any more.
    """

    head: Head
    candles: list[tuple[int, tuple[Any, ...]]]
    removed: list[Place]
    trades: list[Trade]
    gone: list[int]


class Market:
    """The candles and newest trades of one market.

    Args:
        name: of the market.
        read: reads its saved candles.
        max_trades: how many trades are known at least, once there were so many; an eighth more at
            most between two folds.
        late_s: how far behind the newest one a trade may lie.

    Attributes:
        newest_s: Unix time of the newest trade.
        inexact: candles that a correction could not compute anew.
        unpublished: period and beginning of candles that changed.
        fresh: trades since the last save.
    """

    def __init__(self, name: str, read: Read, *, max_trades: int, late_s: float) -> None:
        self.name = name
        self.newest_s = 0.0
        self.inexact = 0
        self.unpublished: set[Place] = set()
        self.fresh: list[Trade] = []
        self._read = read
        self._max_trades = max_trades
        self._late_s = late_s
        self._known: dict[int, Trade] = {}
        self._floor: Key = NO_KEY
        self._floor_id = -1
        self._seconds: dict[int, Candle] = {}  # not folded yet
        self._held: dict[int, dict[int, Candle]] = {period: {} for period in _ALL}
        self._complete_from = dict.fromkeys(_ALL, 0)  # all candles from then on are held
        self._hours_minutes: dict[int, list[Candle]] = {}
        self._unsaved: set[Place] = set()
        self._saving: set[Place] = set()
        self._chunk = 0
        self._chunks: deque[tuple[int, Key, int]] = deque()  # number, newest trade, highest id

    def restore(self, head: Head, chunks: Iterable[Chunk]) -> None:
        """Go on from what was saved."""
        _, self.newest_s, self._floor, self._floor_id, self._chunk = head
        for chunk in chunks:
            self._chunks.append(_bounds(chunk))
            self._known.update((trade.id, trade) for trade in chunk.trades)
        self._forget_late_ones()
        for period in _ALL:
            newest = start_of(period, self.newest_s)
            begin = newest - 25 * HOUR if period == HOUR else newest
            for candle in self._read(self.name, period, begin, newest + 1):
                self._held[period][candle.start_s] = candle
            self._complete_from[period] = begin

    # -- trades -----------------------------------------------------------------------------------

    def take(self, trade: Trade) -> str:
        """Take a trade in and return what it was: `NEW`, `DUPLICATE`, `CORRECTED` and so on."""
        # hot path: once a trade
        at_s, number, price, amount, _ = trade
        known = self._known.get(number)
        if known is not None:
            return self._again(known, trade)
        key = (at_s, number)
        if key <= self._floor and number <= self._floor_id:
            return LATE
        if at_s < self.newest_s - self._late_s or not amount:
            return LATE
        self._known[number] = trade
        self.fresh.append(trade)
        if at_s > self.newest_s:
            self.newest_s = at_s
        second = int(at_s)
        candle = self._seconds.get(second)
        if candle is None:
            self._seconds[second] = of_trade(second, key, price, amount)
        else:
            candle.add(key, price, amount)
        return NEW

    def _forget(self) -> None:
        """Forget the oldest trades when there are too many."""
        excess = len(self._known) - self._max_trades
        if excess > self._max_trades // 8:
            for trade in sorted(self._known.values())[:excess]:
                del self._known[trade.id]
                self._floor_id = max(self._floor_id, trade.id)
            self._floor = max(self._floor, trade.key)

    def _forget_late_ones(self) -> None:
        """Forget what was forgotten before: chunks are saved as a whole."""
        for trade in list(self._known.values()):
            if trade.key <= self._floor and trade.id <= self._floor_id:
                del self._known[trade.id]

    def trades(self) -> list[Trade]:
        """Return the known trades in their order, without those that were cancelled."""
        return sorted(trade for trade in self._known.values() if trade.amount)

    # -- candles ----------------------------------------------------------------------------------

    def fold(self) -> None:
        """Put what came since the last time into the candles of all periods."""
        for second in sorted(self._seconds):
            delta = self._seconds[second]
            for period in _ALL:
                start_s = start_of(period, second)
                candle = self.candle(period, start_s)
                if candle is None:
                    self._held[period][start_s] = delta.copy(start_s)
                else:
                    candle.merge(delta)
                self._touch(period, start_s)
        self._seconds.clear()
        self._forget()

    def _touch(self, period: int, start_s: int) -> None:
        self._unsaved.add((period, start_s))
        self.unpublished.add((period, start_s))
        if period == MINUTE and self._hours_minutes:
            self._hours_minutes.pop(start_of(HOUR, start_s), None)

    def _is_changed(self, period: int, start_s: int) -> bool:
        return (period, start_s) in self._unsaved or (period, start_s) in self._saving

    def candle(self, period: int, start_s: int) -> Candle | None:
        """Return one candle, which belongs to this market; None when nothing traded."""
        held = self._held[period]
        candle = held.get(start_s)
        if candle is not None or start_s >= self._complete_from[period]:
            return candle
        if self._is_changed(period, start_s):
            return None  # removed
        for candle in self._read(self.name, period, start_s, start_s + 1):
            held[start_s] = candle
        return candle

    def candles(self, period: int, start_s: int, end_s: int) -> list[Candle]:
        """Return the candles that begin from one time to before another, in their order."""
        found: dict[int, Candle] = {}
        if start_s < self._complete_from[period]:
            for candle in self._read(self.name, period, start_s, end_s):
                if not self._is_changed(period, candle.start_s):
                    found[candle.start_s] = candle
        for start, candle in self._held[period].items():
            if start_s <= start < end_s:
                found[start] = candle
        return [found[start] for start in sorted(found)]

    def newest(self, period: int) -> Candle | None:
        """Return the newest candle of a period."""
        held = self._held[period]
        return held[max(held)] if held else None

    @property
    def last(self) -> Candle | None:
        """Return a candle whose ``close`` is the last price; None when nothing traded yet."""
        newest = [candle for candle in map(self.newest, _ALL) if candle is not None]
        return max(newest, key=lambda candle: candle.last, default=None)

    def between(self, start_s: int, end_s: int) -> Candle | None:
        """Sum up from the minute of one time to before another."""
        begin_s = start_of(MINUTE, start_s)
        hour_s = -(-begin_s // HOUR) * HOUR
        parts = self.candles(HOUR, hour_s, end_s)
        if begin_s < hour_s:
            minutes = self._minutes_of(hour_s - HOUR)
            parts[:0] = [one for one in minutes if begin_s <= one.start_s < end_s]
        return together(begin_s, parts)

    def _minutes_of(self, hour_s: int) -> list[Candle]:
        """Return the minutes of an hour; those of the last few asked for are kept."""
        minutes = self._hours_minutes.get(hour_s)
        if minutes is None:
            while len(self._hours_minutes) >= _HOURS_KEPT:
                del self._hours_minutes[next(iter(self._hours_minutes))]
            minutes = self._hours_minutes[hour_s] = self.candles(MINUTE, hour_s, hour_s + HOUR)
        return minutes

    # -- corrections ------------------------------------------------------------------------------

    def _again(self, known: Trade, trade: Trade) -> str:
        """Take a trade whose id is known; its time is that of the first one."""
        if not known.amount or (known.price == trade.price and known.amount == trade.amount):
            return DUPLICATE
        if known.at_s < self.newest_s - self._late_s:
            return LATE
        self.fold()
        new = known._replace(price=trade.price, amount=trade.amount)
        self._known[known.id] = new
        self.fresh.append(new)
        self._recompute(known, new)
        return CORRECTED if new.amount else CANCELLED

    def _recompute(self, old: Trade, new: Trade) -> None:
        """Compute anew what a corrected trade is part of, the shortest period first."""
        for period in _ALL:
            start_s = start_of(period, old.at_s)
            candle = self.candle(period, start_s)
            if candle is None:
                continue
            whole = together(start_s, self._parts(period, start_s))
            volume = EXACT.subtract(EXACT.add(candle.volume, new.amount), old.amount)
            if whole is None and not volume:
                del self._held[period][start_s]
            elif whole is not None and whole.volume == volume:
                self._held[period][start_s] = whole
            else:
                self.inexact += 1
                _adjust(candle, old, new)
            self._touch(period, start_s)

    def _parts(self, period: int, start_s: int) -> list[Candle]:
        """Return what a candle is made of: trades, where all of its second are known."""
        if period in PARTS:
            return self.candles(PARTS[period], start_s, end_of(period, start_s))
        return [
            of_trade(start_s, trade.key, trade.price, trade.amount)
            for trade in self._known.values()
            if trade.amount and int(trade.at_s) == start_s
        ]

    # -- saving -----------------------------------------------------------------------------------

    def collect(self) -> MarketChanges | None:
        """Return what is to be saved; None for nothing. `saved` or `not_saved` comes next."""
        if not self._unsaved and not self.fresh:
            return None
        self._saving, self._unsaved = self._unsaved, set()
        candles, removed = [], []
        for period, start_s in self._saving:
            candle = self._held[period].get(start_s)
            if candle is None:
                removed.append((period, start_s))
            else:
                candles.append((period, candle.row()))
        gone = [
            number
            for number, newest, highest in self._chunks
            if newest <= self._floor and highest <= self._floor_id
        ]
        return MarketChanges(
            Head(self.name, self.newest_s, self._floor, self._floor_id, self._chunk + 1),
            candles,
            removed,
            list(self.fresh),
            gone,
        )

    def saved(self, changes: MarketChanges) -> None:
        """Note that it is saved, and keep of it only the newest candles of each period."""
        self._saving = set()
        self._chunk = changes.head.chunk
        if changes.trades:
            self._chunks.append(_bounds(Chunk(self._chunk, changes.trades)))
            del self.fresh[: len(changes.trades)]
        gone = set(changes.gone)
        self._chunks = deque(entry for entry in self._chunks if entry[0] not in gone)
        self._let_go()

    def not_saved(self) -> None:
        """Note that it is not saved."""
        self._unsaved |= self._saving
        self._saving = set()

    def _let_go(self) -> None:
        for period, held in self._held.items():
            keep = _HELD.get(period, 3)
            if len(held) > keep + 2:
                starts = sorted(held)
                self._complete_from[period] = max(self._complete_from[period], starts[-keep])
                for start_s in starts[:-keep]:
                    if not self._is_changed(period, start_s):
                        del held[start_s]


def _bounds(chunk: Chunk) -> tuple[int, Key, int]:
    """Return a chunk's number, its newest trade and its highest id."""
    newest = max(trade.key for trade in chunk.trades)
    return chunk.number, newest, max(trade.id for trade in chunk.trades)


def _adjust(candle: Candle, old: Trade, new: Trade) -> None:
    """Correct sums where the parts are not there any more; prices stay as they were."""
    candle.volume = EXACT.subtract(EXACT.add(candle.volume, new.amount), old.amount)
    candle.deal = EXACT.fma(new.price, new.amount, candle.deal)
    candle.deal = EXACT.subtract(candle.deal, EXACT.multiply(old.price, old.amount))
    candle.count -= not new.amount
    if new.amount:
        candle.high, candle.low = max(candle.high, new.price), min(candle.low, new.price)


def filled(
    candles: list[Candle], period: int, start_s: int, end_s: int, before: Candle | None
) -> list[Candle]:
    """Put flat candles where nothing traded, once there was a price.

    Args:
        candles: those from one time to before another, in order.
        period: seconds of each.
        start_s: when the first of them begins.
        end_s: no candle begins then or later.
        before: the newest one before them.
    """
    whole: list[Candle] = []
    rest = deque(candles)
    at_s = start_s
    while at_s < end_s:
        if rest and rest[0].start_s <= at_s:
            before = rest.popleft()
            whole.append(before)
        elif before is not None:
            whole.append(flat(at_s, before.close))
        at_s = end_of(period, at_s)
    return whole
