"""The order book, against the rules of the field and against the simulated market."""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rango_gevent.client.orderbook import Broken, OrderBook
from rango_gevent.demo.exchange import Exchange

SNAPSHOT = {"asks": [["9001.0", "0.4"], ["9002", "1"]], "bids": [["8999.50", "1.2"]], "sequence": 7}


def book(**more: Any) -> OrderBook:
    """Return a book with the snapshot."""
    made = OrderBook(**more)
    made.snapshot(json.dumps(SNAPSHOT))
    return made


def sides(made: OrderBook) -> tuple[dict[str, str], dict[str, str]]:
    """Return asks and bids as plain text."""
    asks, bids = (
        {f"{level.price.normalize():f}": f"{level.amount:f}" for level in side}  # type: ignore[union-attr]
        for side in (made.asks(), made.bids())
    )
    return asks, bids


@pytest.mark.parametrize(
    ("event", "asks", "bids"),
    [
        ({"asks": ["9001.0", "0.1"]}, {"9001": "0.1", "9002": "1"}, {"8999.5": "1.2"}),
        ({"asks": [["9001.0", "0.1"]]}, {"9001": "0.1", "9002": "1"}, {"8999.5": "1.2"}),
        ({"asks": ["9001.00", ""]}, {"9002": "1"}, {"8999.5": "1.2"}),
        ({"asks": [["9001", "0"], ["9002", "0.0"]]}, {}, {"8999.5": "1.2"}),
        ({"asks": [["9003", "2"]], "bids": ["8999.5", 0]}, {"9001": "0.4", "9002": "1", "9003": "2"}, {}),
        ({"asks": [], "bids": None}, {"9001": "0.4", "9002": "1"}, {"8999.5": "1.2"}),
        ({"bids": ["1", None]}, {"9001": "0.4", "9002": "1"}, {"8999.5": "1.2"}),
        ({"bids": [8999.5, 2.5]}, {"9001": "0.4", "9002": "1"}, {"8999.5": "2.5"}),
    ],
)  # fmt: skip
def test_a_level_is_set_or_taken_away(
    event: dict[str, Any], asks: dict[str, str], bids: dict[str, str]
) -> None:
    """Flat pairs and lists of pairs; nothing or zero, in any writing, takes away; so of unknown."""
    made = book()
    assert made.increment(json.dumps({**event, "sequence": 8}))
    assert sides(made) == (asks, bids)


def test_a_gap_breaks_it_and_a_snapshot_heals_it() -> None:
    """What comes before a snapshot is left out, and a gap is told once."""
    made = OrderBook()
    assert not made.increment('{"sequence":3}')
    made.snapshot(json.dumps(SNAPSHOT))
    with pytest.raises(Broken, match="^sequence 9 after 7$"):
        made.increment('{"sequence":9}')
    assert not made.is_synced
    assert not made.increment('{"sequence":10}')
    made.snapshot(json.dumps({**SNAPSHOT, "sequence": 10}))
    assert made.increment('{"asks":["1","1"],"sequence":11}')


@pytest.mark.parametrize("sequence", [1, 7, 6, 9])
def test_any_other_sequence_is_a_gap(sequence: int) -> None:
    """One that began anew as well, and one that comes twice."""
    with pytest.raises(Broken):
        book().increment(json.dumps({"sequence": sequence}))


def test_without_sequences_there_are_no_gaps() -> None:
    """A publisher that numbers nothing is believed."""
    made = OrderBook()
    made.snapshot('{"asks":[["2","1"]]}')
    assert made.increment('{"asks":["3","1"]}')
    assert made.sequence is None


@pytest.mark.parametrize(
    "body",
    ["", "[]", "1", "{", '{"asks":["x","1"],"sequence":8}', '{"asks":[["1"]],"sequence":8}',
     '{"asks":{"1":"2"},"sequence":8}', '{"asks":["NaN","1"],"sequence":8}', '{"asks":1,"sequence":8}',
     '{"bids":[["1","1"],["2"]],"sequence":8}', "[" * 9999],
)  # fmt: skip
@pytest.mark.parametrize("number", [Decimal, float])
def test_garbage_breaks_it(body: str, number: Any) -> None:
    """Whatever comes, the book is right or it says that it is not."""
    made = book(number=number)
    with pytest.raises(Broken):
        made.increment(body)
    assert not made.is_synced


def test_what_it_shows() -> None:
    """Best first, as deep as wanted."""
    made = book(depth=1)
    made.increment('{"bids":[["8000","1"],["9000","2"]],"sequence":8}')
    assert made.best_bid == (Decimal("9000"), Decimal("2"))
    assert made.best_ask == (Decimal("9001"), Decimal("0.4"))
    assert [level.price for level in made.bids()] == [Decimal("9000")]
    assert [level.price for level in made.bids(2)] == [Decimal("9000"), Decimal("8999.5")]
    assert [level.price for level in made.asks(9)] == [Decimal("9001"), Decimal("9002")]
    empty = OrderBook()
    assert (empty.best_bid, empty.best_ask, list(empty.asks())) == (None, None, [])


def test_numbers_are_exact_or_floats() -> None:
    """By choice, also where the publisher writes numbers and no strings."""
    body = '{"asks":[[0.1,12345678901234567890.123]],"sequence":1}'
    exact, quick = OrderBook(Decimal), OrderBook(float)
    for made in (exact, quick):
        made.snapshot(body)
    assert exact.best_ask == (Decimal("0.1"), Decimal("12345678901234567890.123"))
    assert quick.best_ask == (0.1, 12345678901234567890.123)
    with pytest.raises(ValueError, match="Decimal or float"):
        OrderBook(int)  # type: ignore[arg-type]


def test_a_checksum_may_break_it() -> None:
    """It is asked after every event, with the book as it is then."""

    def holds(made: OrderBook, event: Mapping[str, Any]) -> bool:
        return event.get("best") in (None, str(made.best_ask and made.best_ask.price))

    made = book(checksum=holds)
    assert made.increment('{"asks":["9000","1"],"best":"9000","sequence":8}')
    with pytest.raises(Broken, match="the checksum does not hold"):
        made.increment('{"asks":["8999","1"],"best":"9000","sequence":9}')


@pytest.mark.parametrize("number", [Decimal, float])
def test_a_whole_market_is_followed(number: Any) -> None:
    """After each second of the simulated market the book is the market's own."""
    exchange = Exchange(seed=5, markets=("btcusd",), snapshot_every=50)
    made, merged = OrderBook(number), 0
    for second in range(300):
        for event in exchange.tick(1_700_000_000 + second):
            body = event.body if isinstance(event.body, str) else event.body.decode()
            if event.routing_key == "public.btcusd.ob-inc":
                merged += made.increment(body)
            elif event.routing_key == "public.btcusd.ob-snap" and not merged:
                made.snapshot(body)
        theirs = exchange.book("btcusd")
        for name, ours in (("asks", made.asks()), ("bids", made.bids())):
            levels = {number(price): number(amount) for price, amount in theirs[name]}
            assert dict(ours) == levels
        assert made.sequence == theirs["sequence"]
    assert merged > 300


_side = st.dictionaries(st.integers(1, 30), st.integers(0, 5), max_size=10)


@given(st.lists(st.tuples(_side, _side)))
def test_it_is_a_dictionary_in_order(events: list[tuple[dict[int, int], dict[int, int]]]) -> None:
    """Whatever comes in which order, each side is what a plain dictionary would hold, sorted."""
    made = OrderBook(float)
    made.snapshot('{"sequence":0}')
    model: dict[str, dict[int, int]] = {"asks": {}, "bids": {}}
    for number, event in enumerate(events, 1):
        sent = {}
        for name, levels in zip(("asks", "bids"), event):
            sent[name] = [[str(price), str(amount)] for price, amount in levels.items()]
            model[name].update(levels)
            model[name] = {price: amount for price, amount in model[name].items() if amount}
        made.increment(json.dumps({**sent, "sequence": number}))
    assert list(made.asks()) == sorted(model["asks"].items())
    assert list(made.bids()) == sorted(model["bids"].items(), reverse=True)
