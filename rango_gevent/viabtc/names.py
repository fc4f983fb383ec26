"""What the dialect calls things, and what the streams are called that they come from. Pure.

A client names a market ``BTCBCH`` and an interval 60; the events come with the routing keys
``public.btcbch.trades`` and ``public.btcbch.kline-1m``. The table between the two is a setting.
"""

from __future__ import annotations

import re
from typing import Mapping, NamedTuple

# market and asset: under 16 bytes as with ViaBTC, and fit for a part of a routing key
_NAME = re.compile(r"[A-Za-z0-9_$@!+/-]{1,15}")

PERIODS: dict[int, str] = {
    1: "1s",
    60: "1m",
    300: "5m",
    900: "15m",
    1800: "30m",
    3600: "1h",
    7200: "2h",
    14400: "4h",
    21600: "6h",
    43200: "12h",
    86400: "1d",
    259200: "3d",
    604800: "1w",
    2592000: "1M",
}
STREAMS: dict[str, str] = {
    "deals": "trades",
    "kline": "kline",
    "depth": "ob",
    "ticker": "tickers",
    "order": "order",
    "asset": "balance",
}


class NameRules(NamedTuple):
    """The table, as the settings have it.

    Attributes:
        is_lower: markets that are not in the table are those of streams in lower case.
        markets: name of a market to that of its streams.
        periods: seconds of an interval to its name in streams.
        streams: family to type of its streams: `STREAMS` has all that there are.
    """

    is_lower: bool = True
    markets: Mapping[str, str] = {}
    periods: Mapping[int, str] = PERIODS
    streams: Mapping[str, str] = STREAMS


class Names:
    """The table, to look things up in both directions.

    Attributes:
        rules: as the settings have it.
    """

    def __init__(self, rules: NameRules | None = None) -> None:
        self.rules = rules or NameRules()
        self._names = {stream: name for name, stream in self.rules.markets.items()}
        self._seconds = {name: seconds for seconds, name in self.rules.periods.items()}

    def stream_of(self, market: object) -> str | None:
        """Return what the streams of a market begin with; None for what can be no market."""
        if not isinstance(market, str) or not _NAME.fullmatch(market):
            return None
        known = self.rules.markets.get(market)
        return known or (market.lower() if self.rules.is_lower else market)

    def market_of(self, stream: str) -> str:
        """Return what a market is called whose streams begin with this."""
        known = self._names.get(stream)
        return known or (stream.upper() if self.rules.is_lower else stream)

    def asset(self, asset: object) -> str | None:
        """Return an asset's name; None for what can be none."""
        if not isinstance(asset, str) or not _NAME.fullmatch(asset):
            return None
        return asset.upper() if self.rules.is_lower else asset

    def period(self, seconds: object) -> str | None:
        """Return the name of an interval; None for one that no stream has."""
        return self.rules.periods.get(seconds) if type(seconds) is int else None

    def type_of(self, family: str, period: str = "") -> str:
        """Return the last part of a family's routing keys."""
        word = self.rules.streams[family]
        if family == "kline":
            return f"{word}-{period}"
        return f"{word}-inc" if family == "depth" else word
