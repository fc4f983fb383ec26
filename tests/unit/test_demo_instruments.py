"""What simulated markets trade: units that stay the same, values that follow from the name."""

from __future__ import annotations

import re

import pytest
from demo_events import bodies, run

from rango_gevent.demo.exchange import Exchange


@pytest.mark.parametrize("market", ["btcusd", "ltcbtc", "zzzyyy", "a", "BTC-USDT"])
def test_prices_and_amounts_have_fixed_precision(market: str) -> None:
    """All prices of a market have the same number of decimals, and so have its amounts."""
    events = run(Exchange(markets=[market]), 150)
    prices, amounts = set(), set()
    for _, body in bodies(events, rf"public\.{market}\.ob-snap"):
        for price, amount in body["asks"] + body["bids"]:
            prices.add(price)
            amounts.add(amount)
    for _, body in bodies(events, rf"public\.{market}\.trades"):
        prices.add(body["trades"][0]["price"])
        amounts.add(body["trades"][0]["amount"])
    for _, body in bodies(events, r"private\.\w+\.order"):
        prices.add(body["avg_price"])
        amounts.add(body["remaining_volume"])
    for texts in (prices, amounts):
        assert len(texts) > 100
        assert all(re.fullmatch(r"\d+\.\d{2,}", text) for text in texts)
        assert len({len(text.partition(".")[2]) for text in texts}) == 1


def test_an_unknown_currency_is_worth_the_same_in_every_market() -> None:
    """The value drawn for a currency comes from the seed and its name alone."""
    exchange = Exchange(markets=["zzzusd", "zzzusdt"])
    other = Exchange(markets=["zzzusd"], seed=2)
    dollars = [float(exchange.book(market)["asks"][0][0]) for market in ("zzzusd", "zzzusdt")]
    assert dollars[0] == pytest.approx(dollars[1], rel=0.01)
    assert dollars[0] != pytest.approx(float(other.book("zzzusd")["asks"][0][0]), rel=0.01)
