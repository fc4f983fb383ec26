"""The simulated exchange as a whole: form of its events, determinism, bounds, arguments."""

from __future__ import annotations

import json
import pickle
import re
from typing import Any

import pytest
from demo_events import SEEDS, START_S, bodies, run
from hypothesis import given, settings

from rango_gevent.demo.exchange import Exchange

KEYS = re.compile(
    r"public\.(btcusd|ethusd|ltcbtc)\.(trades|ob-snap|ob-inc|kline-[0-9]+[smhdwM])"
    r"|public\.global\.tickers|private\.(A1|B2)\.(order|trade)"
)


def test_every_body_is_compact_json_under_a_known_key() -> None:
    """Keys are three words, bodies strict JSON in UTF-8 without a needless space."""

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    seen = set()
    for event in run(Exchange(users=["A1", "B2"]), 1500):
        assert KEYS.fullmatch(event.routing_key)
        body = json.loads(event.body.decode("utf-8"), parse_constant=refuse)
        if "kline" in event.routing_key:  # its numbers have all their digits
            assert b" " not in event.body
        else:
            assert json.dumps(body, separators=(",", ":")).encode() == event.body
        seen.add(event.routing_key)
    assert len(seen) == 3 * 17 + 1 + 4


@settings(max_examples=5, deadline=None)
@given(seed=SEEDS)
def test_the_same_seed_and_times_give_the_same_bytes(seed: int) -> None:
    """Two exchanges with one seed agree to the byte; another seed tells another story."""
    first, again = Exchange(seed=seed), Exchange(seed=seed)
    other = Exchange(seed=seed + 1)
    events = run(first, 60)
    assert events == run(again, 60)
    assert events != run(other, 60)


def test_a_clock_that_steps_back_holds_time_still() -> None:
    """Dates never run backwards, whatever the caller's clock does."""
    exchange = Exchange()
    dates = []
    for now_s in (START_S + 100, START_S + 40, START_S + 99, START_S + 101):
        for _ in range(20):
            found = bodies(exchange.tick(now_s), r"public\.\w+\.trades")
            dates += [body["trades"][0]["date"] for _, body in found]
    assert dates == sorted(dates)
    assert set(dates) == {int(START_S) + 100, int(START_S) + 101}


def test_memory_is_bounded() -> None:
    """The whole state weighs after 40 hours what it weighed after 27: it keeps a day."""
    exchange = Exchange(users=["A1", "B2"])
    for number in range(27 * 60):
        exchange.tick(START_S + number * 60)
    before = len(pickle.dumps(exchange))
    for number in range(27 * 60, 40 * 60):
        exchange.tick(START_S + number * 60)
    assert len(pickle.dumps(exchange)) < before * 1.1


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"markets": []}, "at least one market"),
        ({"markets": ["btc.usd"]}, "'btc.usd'"),
        ({"markets": ["#"]}, "'#'"),
        ({"markets": ["btcusd", "btcusd"]}, "twice"),
        ({"users": [""]}, "''"),
        ({"users": ['a"b']}, 'a"b'),
        ({"snapshot_every": 0}, "snapshot_every must be 1 or more, not 0"),
    ],
)
def test_arguments_that_cannot_work_are_refused(arguments: dict[str, Any], text: str) -> None:
    """What could not become a routing key is named in the error."""
    with pytest.raises(ValueError, match=re.escape(text)):
        Exchange(**arguments)
