"""An order book from a snapshot and increments. Pure.

A snapshot replaces the book, an increment changes levels of it; ``sequence`` is that of the one
before plus 1. One side's change comes as a flat pair, ``["9001.0","0.4"]``, or as a list of pairs,
and an amount of nothing or 0 takes the level away. Levels deeper than the snapshot's are known
only from when an increment touched them, so one that is not known may be taken away too.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from decimal import Decimal
from itertools import islice
from typing import Any, Callable, NamedTuple, Union

import ujson
from sortedcontainers import SortedDict

Number = Union[Decimal, float]
Checksum = Callable[["OrderBook", Mapping[str, Any]], bool]

SYNC = "sync"
UPDATE = "update"
INVALID = "invalid"

_exact = json.JSONDecoder(parse_float=Decimal).decode


class Level(NamedTuple):
    """A level of a book."""

    price: Number
    amount: Number


class Broken(Exception):
    """A book cannot be trusted from here on; the text says why."""


class OrderBook:
    """A book.

    Args:
        number: `Decimal`, exact, or `float`, faster.
        depth: levels of each side that are shown; 0: all that are known.
        checksum: takes the book and the event that changed it, tells whether it is right.

    Attributes:
        sequence: of the last event, None where there are none.
        is_synced: it has a snapshot and all increments since.
        is_suspended: it had them, and may be given what came since.
    """

    def __init__(
        self,
        number: type[Decimal] | type[float] = Decimal,
        depth: int = 0,
        checksum: Checksum | None = None,
    ) -> None:
        if number not in (Decimal, float):
            raise ValueError(f"number {number!r}: Decimal or float")
        self.sequence: int | None = None
        self.is_synced = self.is_suspended = False
        self._number: Callable[[Any], Number] = number
        self._decode: Callable[[str], Any] = _exact if number is Decimal else ujson.loads
        self._depth = depth or None
        self._checksum = checksum
        self._asks: Any = SortedDict()
        self._bids: Any = SortedDict()

    # -- what it is -----------------------------------------------------------------------

    @property
    def best_bid(self) -> Level | None:
        """Return the highest bid; None without any."""
        return Level(*self._bids.peekitem(-1)) if self._bids else None

    @property
    def best_ask(self) -> Level | None:
        """Return the lowest ask; None without any."""
        return Level(*self._asks.peekitem(0)) if self._asks else None

    def bids(self, depth: int | None = None) -> Iterator[Level]:
        """Yield bids, the best first."""
        levels = ((price, self._bids[price]) for price in reversed(self._bids))
        return (Level(*one) for one in islice(levels, depth or self._depth))

    def asks(self, depth: int | None = None) -> Iterator[Level]:
        """Yield asks, the best first."""
        return (Level(*one) for one in islice(self._asks.items(), depth or self._depth))

    # -- what changes it ------------------------------------------------------------------

    def snapshot(self, body: str) -> None:
        """Begin anew with a snapshot's JSON text.

        Raises:
            Broken: it is none.
        """
        self.invalidate()
        event = self._parsed(body)
        self._asks.clear()
        self._bids.clear()
        self._merge(event)
        self.sequence = _sequence_of(event)
        self.is_synced, self.is_suspended = True, False
        self._check(event)

    def increment(self, body: str) -> bool:
        """Merge an increment's JSON text; False while there is no snapshot to merge it into.

        Raises:
            Broken: one is missing in between, or it is none.
        """
        if not (self.is_synced or self.is_suspended):
            return False
        event = self._parsed(body)
        sequence, last = _sequence_of(event), self.sequence
        if sequence is not None and last is not None and sequence != last + 1:
            self.invalidate()
            raise Broken(f"sequence {sequence} after {last}")
        self._merge(event)
        self.sequence = sequence
        self._check(event)
        return True

    def invalidate(self) -> None:
        """Trust it no more until the next snapshot; its levels stay to be looked at."""
        self.is_synced = self.is_suspended = False

    def suspend(self) -> bool:
        """Trust it no more until `restore`, before which what it missed is merged.

        Returns:
            Whether there is anything to restore.
        """
        if self.is_synced:
            self.is_synced, self.is_suspended = False, True
        return self.is_suspended

    def restore(self) -> bool:
        """Trust it again: it was given all that it missed; False: it was lost meanwhile."""
        if self.is_suspended:
            self.is_synced, self.is_suspended = True, False
        return self.is_synced

    def _parsed(self, body: str) -> dict[str, Any]:
        try:
            event = self._decode(body)
        except (ValueError, RecursionError):
            event = None
        if not isinstance(event, dict):
            self.invalidate()
            raise Broken("an event that is no JSON object")
        return event

    def _merge(self, event: Mapping[str, Any]) -> None:
        try:
            for name, side in (("asks", self._asks), ("bids", self._bids)):
                levels = event.get(name)
                if levels:
                    self._merge_side(side, levels)
        except (ValueError, TypeError, LookupError, ArithmeticError) as error:
            self.invalidate()
            raise Broken(f"a level that is none: {error}") from None

    def _merge_side(self, side: Any, levels: list[Any]) -> None:
        # hot path: 100,000 increments a second go through here, one level each
        number = self._number
        if not isinstance(levels[0], list):
            levels = [levels]
        for written_price, written_amount in levels:
            price = number(written_price)
            if price != price:  # NaN has no place in an order
                raise ValueError(written_price)
            amount = number(written_amount or 0)
            if amount:
                side[price] = amount
            else:
                side.pop(price, None)

    def _check(self, event: Mapping[str, Any]) -> None:
        if self._checksum is not None and not self._checksum(self, event):
            self.invalidate()
            raise Broken("the checksum does not hold")


def _sequence_of(event: Mapping[str, Any]) -> int | None:
    sequence = event.get("sequence")
    return sequence if isinstance(sequence, int) else None
