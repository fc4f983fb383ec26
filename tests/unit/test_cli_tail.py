"""What ``rango tail`` shows: a book's ladder, its lines and objects, and rates."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from rango_gevent.client.model import Event
from rango_gevent.client.orderbook import Level
from rango_gevent.commands import ladder, tail
from rango_gevent.commands.ladder import Moment
from rango_gevent.commands.rates import Rates


def levels(*pairs: tuple[str, str]) -> list[Level]:
    """Return levels of texts."""
    return [Level(Decimal(price), Decimal(amount)) for price, amount in pairs]


def moment(**changes: Any) -> Moment:
    """Return a book with two levels a side, and some of it changed."""
    book = Moment(
        "btcusd.ob-inc",
        "update",
        "",
        7,
        levels(("99.5", "2"), ("99", "1E-8")),
        levels(("100.0", "0.5"), ("101", "4")),
        1700000000.5,
    )
    return book._replace(**changes)


def test_the_ladder_has_the_best_in_the_middle() -> None:
    """Asks above, bids below, each with its bar; names, state, sequence and spread are told."""
    assert ladder.as_ladder(moment(), 8, 12.34, "live") == [
        "btcusd.ob-inc  in sequence  sequence 7  12.3 changes/s",
        "best bid 99.5 x 2  best ask 100.0 x 0.5",
        "  ask    101           4  ####################",
        "  ask  100.0         0.5  ##",
        "  ---  spread 0.5",
        "  bid   99.5           2  ##########",
        "  bid     99  0.00000001  ",
        "live",
    ]


@pytest.mark.parametrize("rows", [1, 5, 8, 24, 25])
def test_the_ladder_fits_its_terminal(rows: int) -> None:
    """It never has more lines than there are rows, down to one level a side."""
    assert len(ladder.as_ladder(moment(), rows, 0.0, "")) <= max(rows, 6)
    assert len(ladder.as_ladder(moment(bids=[], asks=[]), rows, 0.0, "")) <= max(rows, 6)


def test_the_middle_stays_where_it_is() -> None:
    """A side that loses levels moves nothing."""
    full, thin = ladder.as_ladder(moment(), 24, 0, ""), ladder.as_ladder(moment(asks=[]), 24, 0, "")
    at = [index for index, line in enumerate(full) if "---" in line]
    assert at == [index for index, line in enumerate(thin) if "---" in line]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"kind": "invalid", "reason": "sequence 9 after 7"}, "INVALID: sequence 9 after 7"),
        ({"kind": "", "sequence": None}, "waits for its snapshot  sequence -"),
        ({"asks": []}, "best ask -"),
        ({"asks": []}, "one side is empty"),
        ({"asks": levels(("99", "1"))}, "crossed by 0.5"),
    ],
)
def test_what_is_wrong_with_a_book_is_seen(changes: dict[str, Any], told: str) -> None:
    """A gap, a missing snapshot, an empty side and a crossed book."""
    assert told in "\n".join(ladder.as_ladder(moment(**changes), 10, 0.0, ""))


def test_a_book_as_a_line() -> None:
    """What happened, the sequence and the best levels; or why it is invalid."""
    told = "btcusd.ob-inc  update  sequence 7  bid 99.5 x 2  ask 100.0 x 0.5"
    assert ladder.as_line(moment()) == told
    broken = moment(kind="invalid", reason="sequence 9 after 7")
    assert ladder.as_line(broken) == "btcusd.ob-inc  invalid  sequence 9 after 7"


def test_a_book_as_json() -> None:
    """Numbers are texts with all their digits; an empty side is null."""
    assert json.loads(ladder.as_json(moment(asks=[]))) == {
        "stream": "btcusd.ob-inc",
        "kind": "update",
        "sequence": 7,
        "bid": ["99.5", "2"],
        "ask": None,
        "received_at": 1700000000.5,
    }
    broken = json.loads(ladder.as_json(moment(kind="invalid", reason="why")))
    assert (broken["kind"], broken["reason"]) == ("invalid", "why")
    assert "bid" not in broken


# -- rates ------------------------------------------------------------------------------


def test_rates_are_those_of_the_last_window() -> None:
    """Each window stands alone, and totals go on; a stream without events is there with 0."""
    rates = Rates(["a.b", "c.d", "*.e"], 10.0)
    rates.add("a.b")
    rates.add("a.b", 3)
    rates.close_window(12.0)
    assert rates.lines(as_json=False) == ["a.b  2.0/s  4", "c.d  0.0/s  0"]
    rates.add("x.e")
    rates.close_window(13.0)
    assert [json.loads(one) for one in rates.lines(as_json=True)] == [
        {"stream": "a.b", "per_s": 0.0, "total": 4},
        {"stream": "c.d", "per_s": 0.0, "total": 0},
        {"stream": "x.e", "per_s": 1.0, "total": 1},
    ]


def test_names_are_bounded() -> None:
    """A pattern that matches without end fills no memory: the rest is counted together."""
    rates = Rates(["*.e"], 0.0)
    for number in range(1500):
        rates.add(f"m{number}.e")
    rates.close_window(1.0)
    lines = rates.lines(as_json=False)
    assert len(lines) == 1001
    assert lines[0] == "(others)  500.0/s  500"


def test_the_page_has_the_busiest_first() -> None:
    """With a sum of all, and what is told of the connection above."""
    rates = Rates(["a.b", "c.d"], 0.0)
    rates.add("c.d", 2)
    rates.close_window(1.0, "live")
    assert [line.split() for line in rates.page()] == [
        ["live"],
        ["stream", "events/s", "events"],
        ["all", "2.0", "2"],
        ["c.d", "2.0", "2"],
        ["a.b", "0.0", "0"],
    ]


# -- events as JSON ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body", ['{"a":\n\t"\u009b2J\u202e\x7f"}', "12345678901234567890", "null", '"\\ud83d"']
)
def test_an_event_as_json_is_one_line_that_holds_the_body(body: str) -> None:
    """It is harmless to a terminal, and the body keeps its value."""
    line = tail.json_line(Event('a."b', body, 1.5))
    assert line.isprintable()
    value = json.loads(line)
    assert (value["stream"], value["received_at"]) == ('a."b', 1.5)
    assert value["body"] == json.loads(body)


@pytest.mark.parametrize("body", ["{'a':1}", '1},"x":{', "[" * 100_000])
def test_a_body_that_is_no_json_breaks_no_line(body: str) -> None:
    """A server that checks nothing cannot make a line that is no JSON, nor add members to it."""
    assert json.loads(tail.json_line(Event("a.b", body, 1.0))) == {
        "stream": "a.b",
        "received_at": 1.0,
        "text": body,
    }
