"""History brought in: files of trades or candles, line by line, in steps that can be gone on from.

Each step's candles are saved together with how far the file was read: so a file that is brought
in again, or after an interruption, adds nothing twice. Of a market that has trades already only
what is older than all of them is taken: so files may overlap with what is there.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
from decimal import Decimal, InvalidOperation
from typing import Any, BinaryIO, Callable, Iterator, NamedTuple

from rango_gevent.marketdata.candles import EXACT, Candle, Key, of_trade
from rango_gevent.marketdata.desk import Changes
from rango_gevent.marketdata.market import Head, MarketChanges
from rango_gevent.marketdata.periods import PERIODS, end_of, start_of
from rango_gevent.marketdata.store import Store
from rango_gevent.marketdata.trades import BadTrade, Entry, Trade, checked, market_of

TRADES = ("market", "id", "time", "price", "amount")
CANDLES = ("market", "period", "time", "open", "high", "low", "close", "volume")
_OTHER_NAMES = {"tid": "id", "date": "time", "taker_type": "side"}
_STEP_LINES = 20_000
_MAX_LINE = 64 * 1024
_SAMPLE = 1 << 20
_MAX_TOLD = 20
_FAR = 20  # one look for each candle pays where so few of a range are wanted
_ANY_ID = (1 << 63) - 1


class BadFile(Exception):
    """The file is not what can be brought in; the text says why."""


class BadLine(ValueError):
    """One line is not; the text says why."""


class Progress(NamedTuple):
    """How far a file was read.

    Attributes:
        offset: bytes of the file.
        taken: lines whose trade or candle was taken.
        known: lines left out because what they say is there already, or is newer than the oldest.
        bad: lines left out because they are wrong.
        oldest: of each market that had trades at the beginning, the oldest one's key.
    """

    offset: int = 0
    taken: int = 0
    known: int = 0
    bad: int = 0
    oldest: dict[str, Any] | None = None


class History:
    """One file on its way into a store.

    Args:
        store: that no worker is at work on.
        file: opened for bytes.
        now_s: Unix time.
        replace: let candles of the file replace those that are there.
        tell: told of lines that are wrong.
    """

    def __init__(
        self,
        store: Store,
        file: BinaryIO,
        now_s: float,
        *,
        replace: bool = False,
        tell: Callable[[str], object] = lambda text: None,
    ) -> None:
        self._store = store
        self._file = file
        self._now_s = now_s
        self._replace = replace
        self._tell = tell
        self.size = os.fstat(file.fileno()).st_size
        self._columns = self._header()
        self._note = f"import {'replace ' if replace else ''}{_fingerprint(file, self.size)}"
        saved = store.note(self._note)
        self._heads = {head.name: head for head, _ in store.load().markets}
        self.progress = Progress(*json.loads(saved)) if saved else Progress(oldest=self._oldest())
        self.begun_at = self.progress.offset

    def _header(self) -> list[str]:
        """Read the first line."""
        line = self._file.readline(_MAX_LINE).decode("utf-8-sig", "replace")
        names = [name.strip().lower() for name in next(csv.reader([line]), [])]
        names = [_OTHER_NAMES.get(name, name) for name in names]
        if not (set(TRADES) <= set(names) or set(CANDLES) <= set(names)):
            raise BadFile(
                "the first line must name columns: "
                f"{','.join(TRADES)} and perhaps side, or {','.join(CANDLES)} and perhaps deal"
            )
        self._begin = self._file.tell()
        return names

    @property
    def is_of_trades(self) -> bool:
        """Tell what the file holds."""
        return "period" not in self._columns

    def _oldest(self) -> dict[str, Key]:
        """Return the key of the oldest trade of each market that has some."""
        found = {}
        for name in self._heads:
            firsts = (self._store.oldest(name, period) for period in PERIODS.values())
            keys = [candle.first for candle in firsts if candle is not None]
            if keys:
                found[name] = min(keys)
        return found

    def steps(self) -> Iterator[Progress]:
        """Bring the file in; yields after each step that is saved.

        Raises:
            StoreError: the store takes nothing; what was yielded is saved.
        """
        self._file.seek(max(self._begin, self.progress.offset))
        while True:
            lines = self._some_lines()
            if not lines:
                return
            step = _Step(self)
            for line in lines:
                try:
                    step.take(self._fields(line))
                except (BadLine, BadTrade) as error:
                    if self.progress.bad + step.bad < _MAX_TOLD:
                        self._tell(f"{error}: {line[:200].decode('utf-8', 'replace').strip()}")
                    step.bad += 1
            before = self.progress
            self.progress = Progress(
                self._file.tell(),
                before.taken + step.taken,
                before.known + step.known,
                before.bad + step.bad,
                before.oldest,
            )
            step.add_trades()
            self._store.save(step.changes({self._note: json.dumps(self.progress)}))
            yield self.progress

    def _some_lines(self) -> list[bytes]:
        lines = []
        for _ in range(_STEP_LINES):
            line = self._file.readline(_MAX_LINE)
            if not line:
                break
            lines.append(line)
        return lines

    def _fields(self, line: bytes) -> dict[str, str]:
        try:
            values = next(csv.reader([line.decode()]), [])
        except (UnicodeDecodeError, csv.Error):
            raise BadLine("not a line of CSV in UTF-8") from None
        if len(values) != len(self._columns):
            raise BadLine(f"{len(values)} columns, not {len(self._columns)}")
        return dict(zip(self._columns, map(str.strip, values)))


class _Step:
    """The lines that are saved together."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._candles: dict[tuple[str, int, int], Candle] = {}
        self._trades: dict[str, list[Trade]] = {}
        self._newest: dict[str, tuple[float, Key, int]] = {}
        self.taken = self.known = self.bad = 0

    def take(self, fields: dict[str, str]) -> None:
        """Take a line.

        Raises:
            BadLine: it is wrong.
        """
        if market_of(f"public.{fields['market']}.trades") is None:
            raise BadLine("no market")
        if self._history.is_of_trades:
            self._trade(fields["market"], _trade(fields))
        else:
            self._candle(fields["market"], *_candle(fields))

    def _trade(self, market: str, trade: Trade) -> None:
        oldest = (self._history.progress.oldest or {}).get(market)
        if trade.at_s > self._history._now_s:
            raise BadLine("in the future")
        if oldest is not None and trade.key >= tuple(oldest):
            self.known += 1
            return
        self._trades.setdefault(market, []).append(trade)
        self._note(market, trade.at_s, trade.key, trade.id)
        self.taken += 1

    def add_trades(self) -> None:
        """Put the trades into candles, those that are there among them."""
        for market, trades in self._trades.items():
            for period in PERIODS.values():
                candles = self._saved_around(market, period, trades)
                for trade in trades:
                    start_s = start_of(period, trade.at_s)
                    candle = candles.get(start_s)
                    if candle is None:
                        candle = of_trade(start_s, trade.key, trade.price, trade.amount)
                        candles[start_s] = candle
                    else:
                        candle.add(trade.key, trade.price, trade.amount)
                    self._candles[market, period, start_s] = candle

    def _saved_around(self, market: str, period: int, trades: list[Trade]) -> dict[int, Candle]:
        """Return the saved candles that trades may belong to; files are mostly in order."""
        starts = {start_of(period, trade.at_s) for trade in trades}
        read = self._history._store.read
        if (max(starts) - min(starts)) / period > _FAR * len(starts):
            return {
                candle.start_s: candle
                for start_s in starts
                for candle in read(market, period, start_s, start_s + 1)
            }
        return {c.start_s: c for c in read(market, period, min(starts), max(starts) + 1)}

    def _saved(self, market: str, period: int, start_s: int) -> Candle | None:
        return next(iter(self._history._store.read(market, period, start_s, start_s + 1)), None)

    def _candle(self, market: str, period: int, candle: Candle) -> None:
        end_s = end_of(period, candle.start_s)
        if end_s > self._history._now_s:
            raise BadLine("not over yet")
        if not self._history._replace:
            saved = self._saved(market, period, candle.start_s)
            if saved is not None and saved.count:
                self.known += 1
                return
        self._candles[market, period, candle.start_s] = candle
        self._note(market, float(candle.start_s), (float(end_s), 0), _ANY_ID)
        self.taken += 1

    def _note(self, market: str, at_s: float, key: Key, number: int) -> None:
        """Remember what must be known of a market that had no trades before."""
        newest_s, floor, highest = self._newest.get(market, (0.0, key, -1))
        self._newest[market] = max(newest_s, at_s), max(floor, key), max(highest, number)

    def changes(self, notes: dict[str, str]) -> Changes:
        """Return what is to be saved."""
        heads = self._history._heads
        by_market: dict[str, list[tuple[int, tuple[Any, ...]]]] = {}
        for (market, period, _), candle in self._candles.items():
            by_market.setdefault(market, []).append((period, candle.row()))
        changed = []
        for market, candles in by_market.items():
            heads[market] = self._head(market)
            changed.append(MarketChanges(heads[market], candles, [], [], []))
        return Changes(None, changed, notes)

    def _head(self, market: str) -> Head:
        newest_s, floor, highest = self._newest[market]
        head = self._history._heads.get(market)
        if head is None:
            head = Head(market, 0.0, floor, -1, 0)
        elif market in (self._history.progress.oldest or {}):
            return head  # it goes on from what it has
        return head._replace(
            newest_s=max(newest_s, head.newest_s),
            floor=max(floor, head.floor),
            floor_id=max(highest, head.floor_id),
        )


def _trade(fields: dict[str, str]) -> Trade:
    trade = checked(
        Entry(
            date=float(_number(fields["time"], "time")),
            price=_number(fields["price"], "price"),
            amount=_number(fields["amount"], "amount"),
            tid=fields["id"],
            taker_type=fields.get("side"),
        )
    )
    if not trade.amount:
        raise BadLine("an amount of 0")
    return trade


def _candle(fields: dict[str, str]) -> tuple[int, Candle]:
    period = PERIODS.get(fields["period"])
    if period is None:
        raise BadLine(f"a period is one of {', '.join(PERIODS)}")
    start_s = int(_number(fields["time"], "time"))
    if start_s < 0 or start_of(period, start_s) != start_s:
        raise BadLine(f"no {fields['period']} begins then")
    names = ("open", "high", "low", "close")
    opened, high, low, close = prices = [_number(fields[name], name) for name in names]
    volume = _number(fields["volume"], "volume")
    if not (0 < low <= min(opened, close) and max(opened, close) <= high and volume >= 0):
        raise BadLine("low, open, close and high are out of order, or below 0")
    if fields.get("deal"):
        deal = _number(fields["deal"], "deal")
    else:  # nobody knows: about
        deal = EXACT.multiply(EXACT.divide(sum(prices, Decimal(0)), Decimal(4)), volume)
    key = (float(start_s), 0)
    return period, Candle(start_s, key, opened, key, close, high, low, volume, deal, 0)


def _number(text: str, what: str) -> Decimal:
    try:
        value = Decimal(text)
    except InvalidOperation:
        value = Decimal("NaN")
    if not value.is_finite() or not -30 <= value.adjusted() <= 30 or len(text) > 40:
        raise BadLine(f"{what} is no number")
    return value


def _fingerprint(file: BinaryIO, size: int) -> str:
    """Tell files apart: by size, beginning and end."""
    digest = hashlib.sha256(str(size).encode())
    at = file.tell()
    for offset in (0, max(0, size - _SAMPLE)):
        file.seek(offset)
        digest.update(file.read(_SAMPLE))
    file.seek(at)
    return digest.hexdigest()
