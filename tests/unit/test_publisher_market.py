"""Sequences of a market's book, and when its snapshots are due."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, cast

import pytest

from rango_gevent.errors import PublishError
from rango_gevent.publisher import Market, Publisher

ASKS, BIDS = [("9001.0", "0.4")], [("8999.5", Decimal("1.20"))]


class Notes:
    """Stands for a publisher: notes what it is given, and fails when it is told to."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Any]] = []
        self.fails = False

    def publish(self, key: str, body: Any) -> None:
        """Note an event, or fail."""
        if self.fails:
            raise PublishError("the broker is away", maybe_sent=False)
        self.events.append((key.rpartition(".")[2], body))

    def sequences(self) -> list[tuple[str, int]]:
        """Return type and sequence of all, and forget them."""
        events, self.events = self.events, []
        return [(kind, body["sequence"]) for kind, body in events]


class Clock:
    """A clock that stands still."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now_s


@pytest.fixture
def notes() -> Notes:
    """Give a publisher."""
    return Notes()


@pytest.fixture
def clock() -> Clock:
    """Give a clock."""
    return Clock()


def market(notes: Notes, clock: Clock, with_book: bool = False) -> Market:
    """Return a market."""
    book = (lambda: (ASKS, BIDS)) if with_book else None
    return Market(cast(Publisher, notes), "btcusd", book, clock)


def test_sequences_go_on_over_snapshots(notes: Notes, clock: Clock) -> None:
    """A snapshot has the sequence of the increment before it."""
    one = market(notes, clock)
    one.snapshot(ASKS, BIDS)
    one.increment(asks=[("9001.0", "0.1")])
    one.increment(bids=[("8999.5", 0)])
    one.snapshot(ASKS, BIDS)
    one.increment()
    assert notes.sequences() == [
        ("ob-snap", 1), ("ob-inc", 2), ("ob-inc", 3), ("ob-snap", 3), ("ob-inc", 4),
    ]  # fmt: skip


def test_shapes(notes: Notes, clock: Clock) -> None:
    """Books as lists of pairs, trades in their list, a candle as its values."""
    one = market(notes, clock)
    one.snapshot(ASKS, BIDS)
    one.trade({"tid": 7, "price": "9001.0"}, {"tid": 8, "price": "9001.5"})
    one.kline("1m", (1700000000, 1, 2, 0.5, 1.5, 10))
    assert notes.events == [
        ("ob-snap", {"asks": [["9001.0", "0.4"]], "bids": [["8999.5", Decimal("1.20")]], "sequence": 1}),
        ("trades", {"trades": [{"tid": 7, "price": "9001.0"}, {"tid": 8, "price": "9001.5"}]}),
        ("kline-1m", [1700000000, 1, 2, 0.5, 1.5, 10]),
    ]  # fmt: skip


def test_an_increment_needs_a_snapshot(notes: Notes, clock: Clock) -> None:
    """The gateway drops one before the first snapshot; with a book one is published."""
    with pytest.raises(ValueError, match="snapshot first"):
        market(notes, clock).increment(asks=ASKS)
    assert notes.events == []
    market(notes, clock, with_book=True).increment(asks=ASKS)
    assert notes.sequences() == [("ob-snap", 1), ("ob-inc", 2)]


@pytest.mark.parametrize(
    ("increments", "seconds", "due"),
    [(1, 59.9, False), (1, 60, True), (19, 59.9, False), (20, 9.9, False), (20, 10, True)],
)
def test_when_a_snapshot_is_due(
    notes: Notes, clock: Clock, increments: int, seconds: float, due: bool
) -> None:
    """As Peatio's engine has it: each minute, or ten seconds where there was much."""
    one = market(notes, clock, with_book=True)
    for _ in range(increments):
        one.increment(asks=ASKS)
    clock.now_s += seconds
    assert one.snapshot_due == due
    notes.events.clear()
    one.increment(asks=ASKS)
    assert [kind for kind, _ in notes.sequences()] == ["ob-snap"] * due + ["ob-inc"]


def test_a_lost_increment_makes_a_snapshot_due(notes: Notes, clock: Clock) -> None:
    """The sequence goes on, so clients see the gap, and the snapshot closes it."""
    one = market(notes, clock, with_book=True)
    one.increment(asks=ASKS)
    notes.fails = True
    with pytest.raises(PublishError):
        one.increment(asks=ASKS)
    notes.fails = False
    notes.events.clear()
    assert one.snapshot_due
    one.increment(asks=ASKS)
    assert notes.sequences() == [("ob-snap", 3), ("ob-inc", 4)]
