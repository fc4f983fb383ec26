"""What a market trades: its currencies, its units, and its numbers as text.

Prices are integers in ticks and amounts integers in lots from end to end; only the text on the
wire has a decimal point, so no float noise can show. Units follow from the market's id, and for a
currency that nobody knows from the seed too.
"""

from __future__ import annotations

import math
import random
from typing import NamedTuple

_TICKS_PER_GAP = 20_000  # a book's levels lie 1/20000 of the price apart: 300 levels span 1.5 %
_TYPICAL_USD = 1500.0  # value of a typical level
_MONEY_PLACES = 16  # Peatio's database keeps no more
_USD_VALUES = {
    "bch": 400.0,
    "btc": 60_000.0,
    "dash": 30.0,
    "eth": 3_000.0,
    "eur": 1.1,
    "gbp": 1.3,
    "ltc": 80.0,
    "usd": 1.0,
    "usdc": 1.0,
    "usdt": 1.0,
    "xrp": 0.6,
}


class Instrument(NamedTuple):
    """A market's currencies and units: a tick is 10^-price_places, a lot 10^-amount_places."""

    market: str
    base: str
    quote: str
    price_places: int
    amount_places: int
    home_ticks: int  # the price that a walk starts from and is pulled back to
    typical_lots: int

    @property
    def gap_ticks(self) -> int:
        """The typical distance between two levels of a book."""
        return max(2, self.home_ticks // _TICKS_PER_GAP)

    def price(self, ticks: int) -> str:
        """Format a price."""
        return _decimal(ticks, self.price_places)

    def amount(self, lots: int) -> str:
        """Format an amount."""
        return _decimal(lots, self.amount_places)

    def total(self, funds: int) -> str:
        """Format quote money, counted in ticks x lots."""
        return _decimal(funds, self.price_places + self.amount_places)


def _decimal(units: int, places: int) -> str:
    """Format ``units`` x 10^-places with exactly that many decimals."""
    whole, rest = divmod(units, 10**places)
    return f"{whole}.{rest:0{places}d}"


def instrument_of(market: str, seed: int) -> Instrument:
    """Choose units fit for the market's price: about six digits of it, a lot worth some cents."""
    base, quote = _split(market.lower())
    base_usd, quote_usd = _usd_value(base, seed), _usd_value(quote, seed)
    price = base_usd / quote_usd
    price_places = max(2, 5 - math.floor(math.log10(price)))
    amount_places = min(max(2, math.ceil(math.log10(base_usd)) + 1), _MONEY_PLACES - price_places)
    return Instrument(
        market=market,
        base=base,
        quote=quote,
        price_places=price_places,
        amount_places=amount_places,
        home_ticks=round(price * 10**price_places),
        typical_lots=max(10, round(_TYPICAL_USD / base_usd * 10**amount_places)),
    )


def _split(market: str) -> tuple[str, str]:
    """Cut a market id into base and quote currency; an unknown quote is its last three letters."""
    known = (quote for quote in sorted(_USD_VALUES, key=len, reverse=True))
    quote = next((q for q in known if market.endswith(q)), market[-3:])
    base = market[: -len(quote)].strip("_-")
    return (base, quote) if base else (market, "usd")


def _usd_value(currency: str, seed: int) -> float:
    """Return what one unit is worth in dollars; drawn from the seed when the table has none."""
    known = _USD_VALUES.get(currency)
    if known is not None:
        return known
    drawn: float = 10 ** random.Random(f"{seed}/currency/{currency}").uniform(-2, 3)
    return drawn
