"""What keeps market data: what every store does alike.

All that changed is saved in one step, together with where in the log it stood. One process at a
time writes: who opens a store last owns it, and who owned it before is refused from then on. So a
new process can take over before the old one has ended.
"""

from __future__ import annotations

import time
import uuid
from typing import Protocol

from rango_gevent.marketdata.candles import Candle
from rango_gevent.marketdata.desk import Changes, Saved

FORMAT = "1"
_ALIVE_S = 15.0


class StoreError(Exception):
    """The store cannot be reached or refuses; trying again may help."""


class StoreRefused(StoreError):
    """What is asked for cannot be had; nothing helps but other settings."""


class TakenOver(Exception):
    """Another process owns the store now."""


class Store(Protocol):
    """Keeps candles, trades and where they stood. `StoreError` may come from every method."""

    def load(self) -> Saved:
        """Return where to go on from."""

    def read(self, market: str, period: int, start_s: int, end_s: int) -> list[Candle]:
        """Return the candles that begin from one time to before another, in their order."""

    def oldest(self, market: str, period: int) -> Candle | None:
        """Return the oldest candle of a period."""

    def save(self, changes: Changes) -> None:
        """Save all of it, or nothing.

        Raises:
            TakenOver: another process owns the store.
        """

    def note(self, name: str) -> str:
        """Return what was saved under a name, or nothing."""

    def prune(self, market: str, oldest: dict[int, int]) -> None:
        """Remove candles of each period that begin before a time."""

    def close(self) -> None:
        """Let go of it, and say that nobody is at work on it."""


class Owner:
    """Who writes: a name of this process, and whether another one seems to be at work."""

    def __init__(self) -> None:
        self.name = uuid.uuid4().hex
        self.now_s = time.time

    def is_alive(self, seen_s: float) -> bool:
        """Tell whether whoever was seen then is likely to be there still."""
        return 0 <= self.now_s() - seen_s < _ALIVE_S


def check(found: str, exchange: str, form: str) -> None:
    """Raise `StoreRefused` when what is there is not ours."""
    if form != FORMAT:
        raise StoreRefused(f"its format is {form}, and this version reads {FORMAT}")
    if found != exchange:
        raise StoreRefused(
            f"it is of exchange {found!r}, not {exchange!r}: give each exchange its own"
        )


def check_alone(owner: Owner, seen_s: float, takes_over: bool) -> None:
    """Raise `StoreRefused` when another process is at work and must not be disturbed."""
    if not takes_over and owner.is_alive(seen_s):
        raise StoreRefused(
            "`rango marketdata` is at work on it: stop that first; one that was killed is taken "
            f"for gone after {_ALIVE_S:g} s"
        )
