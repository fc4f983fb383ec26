"""Books as this dialect shows them: the first levels of both sides, merged to steps. Pure.

`Book` follows a market's snapshot and increments. A `Picture` is what a client sees of it: so many
levels a side, prices merged to multiples of a step (asks upwards, bids downwards). Two pictures of
the same form have a difference: the levels that changed, with amount "0" those that are gone.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from decimal import Context, Decimal
from functools import reduce
from itertools import islice
from typing import Any, Callable

import msgspec

from rango_gevent.viabtc.shapes import number

_EXACT = Context(prec=120)
_add = _EXACT.add
_ZERO = Decimal(0)

_LEVELS_AT_ONCE = 100  # 0.3 ms

Pause = Callable[[], bool]
Levels = dict[Decimal, "tuple[str, str]"]


class Side:
    """One side of a book: prices in order, and what stands there.

    Args:
        is_ask: the lowest price is the best one.
        max_levels: how many there may be.
    """

    __slots__ = ("_amounts", "_is_ask", "_levels", "_max_levels", "_merged_at", "_prices", "_shown")

    def __init__(self, is_ask: bool, max_levels: int) -> None:
        self._is_ask = is_ask
        self._max_levels = max_levels
        self._prices: list[Decimal] = []
        self._amounts: list[Decimal] = []  # of the prices, in their order
        self._levels: Levels = {}
        self._merged_at: dict[Decimal, dict[Decimal, Decimal]] = {}  # by step, price to multiple
        self._shown: dict[Decimal, tuple[int, Levels]] = {}  # by step, until something changes

    def __len__(self) -> int:
        return len(self._prices)

    def put(self, price: object, amount: object) -> bool:
        """Change a level; False when it is none, or one too many."""
        at = number(price)
        if at is None:
            return False
        much = number(amount) if amount not in ("", None) else _ZERO
        if much is None:
            return False
        self._shown.clear()
        place = bisect_left(self._prices, at)
        known = at in self._levels
        if not much:
            if known:
                self._remove(at, place)
            return True
        if known:
            self._levels[at] = (self._levels[at][0], _text(amount, much))
            self._amounts[place] = much
            return True
        if len(self._prices) >= self._max_levels:
            return False
        self._prices.insert(place, at)
        self._amounts.insert(place, much)
        self._levels[at] = (_text(price, at), _text(amount, much))
        return True

    def _remove(self, at: Decimal, place: int) -> None:
        del self._levels[at], self._prices[place], self._amounts[place]
        for places in self._merged_at.values():
            places.pop(at, None)

    def first(self, limit: int, step: Decimal) -> Levels:
        """Return the first levels, merged to multiples of a step; 0: as they are."""
        known, levels = self._shown.get(step, (0, {}))
        if known < limit:
            levels = self._merged(limit, step) if step else self._plain(limit)
            self._shown[step] = limit, levels
        return levels if len(levels) <= limit else dict(islice(levels.items(), limit))

    def _plain(self, limit: int) -> Levels:
        best = self._prices[:limit] if self._is_ask else self._prices[: -limit - 1 : -1]
        return {price: self._levels[price] for price in best}

    def _merged(self, limit: int, step: Decimal) -> Levels:
        # hot path: where a price is merged to is worked out once, and of prices that go to the same
        # multiple only for the best: a coarse step may make one of 20,000 (20 ms each by itself)
        places = self._merged_at.setdefault(step, {})
        prices = self._prices
        start, end = 0, len(prices)
        found: Levels = {}
        while start < end and len(found) < limit:
            best = prices[start] if self._is_ask else prices[end - 1]
            at = places.get(best)
            if at is None:
                at = places[best] = self._merge(best, step)
            if self._is_ask:
                low, high = start, bisect_right(prices, at, start, end)
                start = high
            else:
                low, high = bisect_left(prices, at, 0, end), end
                end = low
            found[at] = (format(at, "f"), format(reduce(_add, self._amounts[low:high]), "f"))
        return found

    def _merge(self, price: Decimal, step: Decimal) -> Decimal:
        """Return the multiple of a step that a price goes to: an ask upwards, a bid downwards."""
        rest = _EXACT.remainder(price, step)  # with the sign of the price
        at = _EXACT.subtract(price, rest)
        if self._is_ask and rest > 0:
            at = _EXACT.add(at, step)
        elif rest < 0 and not self._is_ask:
            at = _EXACT.subtract(at, step)
        return _EXACT.quantize(at, step)


def _text(value: object, parsed: Decimal) -> str:
    plain = isinstance(value, str) and "e" not in value and "E" not in value
    return value if plain and isinstance(value, str) else format(parsed, "f")


class Book:
    """A market's book by its snapshot and increments.

    Args:
        max_levels: of one side.

    Attributes:
        synced: it holds what the publisher's holds.
        sequence: of the last change, None where the publisher gives none.
    """

    def __init__(self, max_levels: int = 20_000) -> None:
        self._max_levels = max_levels
        self.drop()

    def drop(self) -> None:
        """Know nothing until the next snapshot."""
        self.synced = False
        self.sequence: int | None = None
        self.asks = Side(True, self._max_levels)
        self.bids = Side(False, self._max_levels)

    def replace(self, said: Any, pause: Pause | None = None) -> None:
        """Begin anew from a snapshot.

        Args:
            said: it, as it was published.
            pause: called between levels, for what may take long.
        """
        self.drop()
        if isinstance(said, dict):
            self.sequence = _sequence(said)
            asks = self.asks
            is_whole = self._put_all(said, pause)
            self.synced = is_whole and self.asks is asks  # else it was dropped meanwhile

    def change(self, said: Any) -> None:
        """Take an increment; one that does not follow the last makes the book unknown."""
        if not self.synced:
            return
        sequence = _sequence(said) if isinstance(said, dict) else None
        follows = sequence is None or self.sequence is None or sequence == self.sequence + 1
        if not isinstance(said, dict) or not follows or not self._put_all(said):
            self.drop()
            return
        self.sequence = sequence

    def _put_all(self, said: dict[str, Any], pause: Pause | None = None) -> bool:
        for side, levels in ((self.asks, said.get("asks")), (self.bids, said.get("bids"))):
            if levels is None:
                continue
            if not isinstance(levels, list):
                return False
            pairs = [levels] if levels and not isinstance(levels[0], list) else levels
            for count, pair in enumerate(pairs, 1):
                if not isinstance(pair, list) or len(pair) < 2 or not side.put(*pair[:2]):
                    return False
                if pause is not None and count % _LEVELS_AT_ONCE == 0:
                    pause()
        return True


def _sequence(said: dict[str, Any]) -> int | None:
    found = said.get("sequence")
    return found if type(found) is int else None


class Picture:
    """What a view of a book shows at one moment."""

    __slots__ = ("asks", "bids")

    def __init__(self, asks: Levels, bids: Levels) -> None:
        self.asks = asks
        self.bids = bids

    def whole(self) -> dict[str, Any]:
        """Return both sides."""
        return {
            "asks": [list(level) for level in self.asks.values()],
            "bids": [list(level) for level in self.bids.values()],
        }

    def since(self, before: Picture) -> dict[str, Any]:
        """Return the levels that differ from those of another picture; empty for none."""
        sides = {
            "asks": _changed(before.asks, self.asks),
            "bids": _changed(before.bids, self.bids),
        }
        return {name: levels for name, levels in sides.items() if levels}


def _changed(before: Levels, now: Levels) -> list[list[str]]:
    found = [[text, "0"] for price, (text, _) in before.items() if price not in now]
    for price, level in now.items():
        old = before.get(price)
        if old is None:
            found.append(list(level))
        elif old != level:
            if old[0] != level[0]:  # the same price in other words would be another level
                found.append([old[0], "0"])
            found.append(list(level))
    return found


EMPTY = Picture({}, {})


def look(book: Book, limit: int, step: Decimal) -> Picture:
    """Return what a view shows of a book."""
    return Picture(book.asks.first(limit, step), book.bids.first(limit, step))


def encode(is_whole: bool, sides: dict[str, Any], market: str, form: list[Any]) -> bytes:
    """Return the params of a push.

    Args:
        is_whole: it is the whole picture, else what differs.
        sides: of the book.
        market: as the dialect calls it.
        form: limit and merge, for those who hold several views; else empty.
    """
    return msgspec.json.encode([is_whole, sides, market, *form])
