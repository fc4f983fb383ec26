"""How ``rango tail`` shows a book: a ladder for a terminal, a line or a JSON object for a pipe.

Pure: a `Moment` of a book in, text out.
"""

from __future__ import annotations

import json
from typing import NamedTuple, Sequence

from rango_gevent.client.orderbook import INVALID, Level, Number

_HEAD_LINES = 4  # name and state, best levels, the line between the sides, the connection
_LEAST_LEVELS = 1
_BAR = 20  # characters


class Moment(NamedTuple):
    """A book at one moment.

    Attributes:
        stream: of its increments.
        kind: what happened last: ``sync``, ``update``, ``invalid``; empty before anything did.
        reason: why it is invalid.
        sequence: of its last event, None where there are none.
        bids: the best first.
        asks: the best first.
        at_s: when its last event arrived, seconds of the wall clock.
    """

    stream: str
    kind: str
    reason: str
    sequence: int | None
    bids: Sequence[Level]
    asks: Sequence[Level]
    at_s: float


def as_line(book: Moment) -> str:
    """Return a moment as one line: what happened, the sequence, the best levels."""
    if book.kind == INVALID:
        return f"{book.stream}  invalid  {book.reason}"
    best = f"bid {_level(book.bids)}  ask {_level(book.asks)}"
    return f"{book.stream}  {book.kind}  sequence {_sequence(book)}  {best}"


def as_json(book: Moment) -> str:
    """Return a moment as one JSON object; prices and amounts are texts, as no number is exact."""
    value: dict[str, object] = {"stream": book.stream, "kind": book.kind}
    if book.kind == INVALID:
        value["reason"] = book.reason
    else:
        value["sequence"] = book.sequence
        value["bid"], value["ask"] = (
            [_plain(side[0].price), _plain(side[0].amount)] if side else None
            for side in (book.bids, book.asks)
        )
    return json.dumps({**value, "received_at": round(book.at_s, 6)}, separators=(",", ":"))


def levels_for(rows: int) -> int:
    """Return how many levels of each side a terminal of so many rows shows."""
    return max(_LEAST_LEVELS, (rows - _HEAD_LINES) // 2)


def as_ladder(book: Moment, rows: int, changes_per_s: float, connection: str) -> list[str]:
    """Return a book as lines for a terminal: asks above, bids below, the best in the middle.

    Args:
        book: what to show.
        rows: of the terminal.
        changes_per_s: how often it changes.
        connection: how the connection is, in words.
    """
    levels = levels_for(rows)
    asks, bids = list(book.asks[:levels]), list(book.bids[:levels])
    shown = [*asks, *bids]
    price_width = max((len(_plain(one.price)) for one in shown), default=0)
    amount_width = max((len(_plain(one.amount)) for one in shown), default=0)
    most = max((one.amount for one in shown), default=0)

    def row(side: str, level: Level) -> str:
        bar = "#" * round(_BAR * float(level.amount) / float(most)) if most else ""
        price = _plain(level.price).rjust(price_width)
        return f"  {side}  {price}  {_plain(level.amount).rjust(amount_width)}  {bar}"

    lines = [
        f"{book.stream}  {_state(book)}  sequence {_sequence(book)}  {changes_per_s:.1f} changes/s",
        f"best bid {_level(bids)}  best ask {_level(asks)}",
    ]
    lines += [""] * (levels - len(asks))  # so that the middle stays where it is
    lines += [row("ask", level) for level in reversed(asks)]
    lines.append(f"  ---  {_spread(bids, asks)}")
    lines += [row("bid", level) for level in bids] + [""] * (levels - len(bids))
    return [*lines, connection]


def _state(book: Moment) -> str:
    if not book.kind:
        return "waits for its snapshot"
    return f"INVALID: {book.reason}" if book.kind == INVALID else "in sequence"


def _sequence(book: Moment) -> str:
    return "-" if book.sequence is None else str(book.sequence)


def _level(side: Sequence[Level]) -> str:
    return f"{_plain(side[0].price)} x {_plain(side[0].amount)}" if side else "-"


def _spread(bids: Sequence[Level], asks: Sequence[Level]) -> str:
    if not (bids and asks):
        return "one side is empty"
    spread = asks[0].price - bids[0].price  # type: ignore[operator]  # both of one kind
    return f"spread {_plain(spread)}" if spread > 0 else f"crossed by {_plain(-spread)}"


def _plain(number: Number) -> str:
    """Return a number without an exponent."""
    return format(number, "f")
