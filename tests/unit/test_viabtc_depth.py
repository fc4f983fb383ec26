"""Books of the dialect: what a client builds of a view is what the publisher's book shows."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from viabtc_client import DepthBook, shown

from rango_gevent.viabtc.depth import Book, Side, encode, look
from rango_gevent.viabtc.views import DEPTH, DepthView, Spec

PRICES = st.integers(1, 60).map(lambda ticks: format(Decimal(ticks) / 4, "f"))
AMOUNTS = st.sampled_from(["", "0", "0.0", "1", "2.5", "10.25", "3"])
SIDES = st.sampled_from(["asks", "bids"])
CHANGES = st.lists(st.tuples(SIDES, PRICES, AMOUNTS), max_size=60)
LIMITS = st.sampled_from([1, 2, 5, 100])
MERGES = st.sampled_from(["0", "0.25", "0.5", "1", "3"])


def view(limit: int, merge: str) -> DepthView:
    """Return a view."""
    spec = Spec(DEPTH, "btcbch", limit=limit, merge=merge)
    return DepthView(spec, "btcbch.ob-inc", "BTCBCH", lambda address: None)


def params(frame: bytes) -> list[Any]:
    """Return the params of a push."""
    said = msgspec.json.decode(frame[frame.index(b'{"method') :])
    assert said["method"] == "depth.update"
    found: list[Any] = said["params"]
    return found


@given(CHANGES, CHANGES, LIMITS, MERGES, st.sets(st.integers(0, 60)))
def test_whole_and_differences_make_the_publishers_book(
    first: list[tuple[str, str, str]],
    changes: list[tuple[str, str, str]],
    limit: int,
    merge: str,
    looks: set[int],
) -> None:
    """For any changes, limit and merge, wherever the client came and whenever views are drawn."""
    book = Book()
    truth: dict[str, dict[Decimal, Decimal]] = {"asks": {}, "bids": {}}

    def put(side: str, price: str, amount: str) -> None:
        if amount and Decimal(amount):
            truth[side][Decimal(price)] = Decimal(amount)
        else:
            truth[side].pop(Decimal(price), None)

    for change in first:
        put(*change)
    snapshot: dict[str, Any] = {
        side: [[format(p, "f"), format(a, "f")] for p, a in levels.items()]
        for side, levels in truth.items()
    }
    book.replace({**snapshot, "sequence": 1})
    a_view = view(limit, merge)
    client = DepthBook()
    client.take(params(a_view.update(book)))
    for number, (side, price, amount) in enumerate(changes):
        put(side, price, amount)
        book.change({side: [price, amount], "sequence": 2 + number})
        if number in looks:
            frame = a_view.update(book)
            if frame:
                client.take(params(frame))
    frame = a_view.update(book)
    if frame:
        client.take(params(frame))
    asks, bids = client.sides()
    assert asks == shown(truth["asks"], True, limit, merge)
    assert bids == shown(truth["bids"], False, limit, merge)
    late = DepthBook()
    late.take(params(a_view.whole()))
    assert late.sides() == client.sides()


def test_nothing_is_pushed_where_nothing_changed() -> None:
    """Levels behind those that are shown do not count."""
    book = Book()
    book.replace({"asks": [["1", "1"], ["2", "1"]], "bids": [], "sequence": 1})
    a_view = view(1, "0")
    assert a_view.update(book)
    book.change({"asks": ["2", "5"], "sequence": 2})
    assert a_view.update(book) == b""


def test_a_gap_makes_a_book_unknown() -> None:
    """Until the next snapshot."""
    book = Book()
    book.replace({"asks": [["1", "1"]], "bids": [], "sequence": 1})
    book.change({"asks": ["2", "5"], "sequence": 3})
    assert not book.synced
    book.change({"asks": ["2", "5"], "sequence": 4})
    assert not book.synced
    book.replace({"asks": [["1", "1"]], "bids": [], "sequence": 9})
    assert book.synced


@pytest.mark.parametrize(
    "said",
    [
        None, 7, [], {"asks": 7}, {"asks": ["x", "1"]}, {"asks": [["1"]]}, {"asks": [["1", "x"]]},
        {"asks": [["NaN", "1"]]}, {"asks": [["1e999999", "1"]]}, {"asks": [["1" * 100, "1"]]},
        {"asks": [[None, "1"]]}, {"asks": [[True, "1"]]}, {"asks": [["Infinity", "1"]]},
    ],
)  # fmt: skip
def test_what_is_no_book_is_unknown(said: Any) -> None:
    """And no error."""
    book = Book()
    book.replace(said)
    assert not book.synced
    book.replace({"asks": [], "bids": []})
    book.change(said)
    assert not book.synced


def test_a_side_has_so_many_levels() -> None:
    """With more the book is unknown, rather than wrong."""
    book = Book(max_levels=3)
    book.replace({"asks": [[str(n), "1"] for n in range(1, 4)]})
    assert book.synced
    book.change({"asks": ["4", "1"]})
    assert not book.synced


def test_numbers_in_place_of_texts() -> None:
    """Are shown as decimal strings without an exponent."""
    book = Book()
    book.replace({"asks": [[1e-7, 3]], "bids": []})
    assert look(book, 5, Decimal(0)).whole()["asks"] == [["0.0000001", "3"]]


def test_large_numbers_and_small_steps_are_exact() -> None:
    """Nothing is rounded."""
    book = Book()
    book.replace({"asks": [["123456789012345678901234.123456789", "1"]], "bids": []})
    asks = look(book, 5, Decimal("0.00000001")).whole()["asks"]
    assert asks == [["123456789012345678901234.12345679", "1"]]


def test_levels_that_become_one_cost_one_merge(monkeypatch: pytest.MonkeyPatch) -> None:
    """A coarse step over many levels is worked out once for each level that it shows."""
    calls: list[Decimal] = []
    merge = Side._merge

    def counted(side: Side, price: Decimal, step: Decimal) -> Decimal:
        calls.append(price)
        return merge(side, price, step)

    monkeypatch.setattr(Side, "_merge", counted)
    book = Book()
    sides = {
        "asks": [[f"1.{number:05}", "2"] for number in range(5000)],
        "bids": [[f"0.{number:05}", "2"] for number in range(5000)],
    }
    book.replace({**sides, "sequence": 1})
    assert look(book, 100, Decimal("0.1")).whole() == {
        "asks": [["1.0", "2"], ["1.1", "9998"]],
        "bids": [["0.0", "10000"]],
    }
    assert len(calls) == 3


def test_smaller_views_show_a_part_of_what_larger_ones_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """So they cost nothing more, as long as nothing changes."""
    calls: list[int] = []
    merged = Side._merged

    def counted(side: Side, limit: int, step: Decimal) -> Any:
        calls.append(limit)
        return merged(side, limit, step)

    monkeypatch.setattr(Side, "_merged", counted)
    book = Book()
    book.replace({"asks": [["1", "1"], ["2", "1"], ["3", "1"]], "bids": [], "sequence": 1})
    step = Decimal("0.1")
    whole = look(book, 3, step).whole()["asks"]
    assert look(book, 2, step).whole()["asks"] == whole[:2]
    assert look(book, 1, step).whole()["asks"] == whole[:1]
    assert calls == [3, 3], "asks and bids"
    book.change({"asks": ["1", "2"], "sequence": 2})
    assert look(book, 1, step).whole()["asks"] == [["1.0", "2"]]
    assert look(book, 3, step).whole()["asks"] == [["1.0", "2"], *whole[1:]]
    assert calls == [3, 3, 1, 3], "bids did not change"


def test_a_book_that_is_dropped_while_it_is_read_stays_unknown() -> None:
    """Others have their turn meanwhile, and may find that events were missed."""
    book = Book()
    said = {"asks": [[str(number), "1"] for number in range(1, 1000)], "sequence": 1}
    turns: list[bool] = []

    def pause() -> bool:
        turns.append(book.synced)
        return True

    book.replace(said, pause)
    assert book.synced
    assert turns == [False] * 9

    def lose() -> bool:
        book.drop()
        return True

    book.replace(said, lose)
    assert not book.synced


@given(st.lists(st.integers(-30, 30), unique=True), MERGES)
def test_prices_below_zero(prices: list[int], merge: str) -> None:
    """Are merged as others: asks upwards, bids downwards."""
    levels = {Decimal(price) / 10: Decimal(1) for price in prices}
    said = [[str(price), "1"] for price in levels]
    book = Book()
    book.replace({"asks": said, "bids": said, "sequence": 1})
    found = look(book, 5, Decimal(merge))
    for side, is_ask in ((found.asks, True), (found.bids, False)):
        pairs = [(Decimal(price), Decimal(much)) for price, much in side.values()]
        assert pairs == shown(levels, is_ask, 5, merge)


def test_the_form_is_named_for_who_holds_several() -> None:
    """Behind what the protocol has."""
    assert encode(True, {}, "BTCBCH", [5, "0"]) == b'[true,{},"BTCBCH",5,"0"]'
