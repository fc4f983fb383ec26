"""The figures of ``rango load``: percentiles, losses by number, what is said of them."""

from __future__ import annotations

import json
import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rango_gevent.commands.load_figures import Histogram, Sequence, Tally


def histogram(*values: int) -> Histogram:
    """Return a histogram of values."""
    made = Histogram()
    for value in values:
        made.add(value)
    return made


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=50), st.floats(0.01, 1))
def test_percentiles_are_right_to_two_percent(values: list[int], share: float) -> None:
    """A histogram gives what the sorted list gives, a little rounded down."""
    exact = sorted(values)[math.ceil(len(values) * share) - 1]
    found = histogram(*values).percentile(share)
    assert found <= exact
    assert exact - found <= 0.016 * exact + 1


@given(st.lists(st.integers(0, 2**40), max_size=300))
def test_a_histogram_is_bounded(values: list[int]) -> None:
    """However many values come, there are at most 64 steps for each power of two."""
    assert len(histogram(*values)._counts) <= 128 + 34 * 64


def test_nothing_has_no_percentiles() -> None:
    """What was not measured is left out, and 0 is a value like any other."""
    assert histogram().as_ms() is None
    assert histogram(0).as_ms() == {"p50": 0, "p90": 0, "p99": 0, "max": 0}
    assert histogram(-5).largest == 0, "a clock's grain never gives a time below 0"


@pytest.mark.parametrize(
    ("numbers", "got", "repeated"),
    [
        ([0, 1, 2, 3], 4, 0),
        ([1, 3], 2, 0),
        ([], 0, 0),
        ([0, 0, 1, 2, 3], 4, 1),
        ([0, 2, 1, 3], 3, 1),
    ],
)
def test_numbers_tell_what_is_missing(numbers: list[int], got: int, repeated: int) -> None:
    """A gap, a missing end and a missing beginning all show; what came late counts as such."""
    sequence = Sequence()
    for number in numbers:
        sequence.take(number)
    assert (sequence.got, sequence.repeated) == (got, repeated)
    assert sequence.is_done(4) == (3 in numbers)


def test_a_run_without_any_loss_is_whole() -> None:
    """Nothing lost, nobody refused, failed, closed or unsubscribed."""
    assert Tally(wanted=2, up=2, published=5).is_whole


@pytest.mark.parametrize(
    "tally",
    [
        Tally(lost=1),
        Tally(refused=Counter({429: 1})),
        Tally(failed=Counter({"Connection refused": 1})),
        Tally(closed=Counter({4008: 1})),
        Tally(not_held={"order"}),
        Tally(notes=["the broker is lost"]),
    ],
)
def test_any_loss_makes_it_not_whole(tally: Tally) -> None:
    """Each of them is a reason for exit code 1."""
    assert not tally.is_whole


def test_the_table_names_what_there_is_and_leaves_out_what_there_is_not() -> None:
    """Refusals by status, failures by reason and closes by code have lines of their own."""
    tally = Tally(wanted=1000, up=997, connect_s=10, seconds=10, messages=50_000)
    tally.received_bytes = 20_000_000
    quiet = tally.table()
    assert "997 of 1,000 connected (99.7/s)" in quiet
    assert "50,000 in 10.0 s (5,000/s, 2 MB/s)" in quiet
    assert not any(word in quiet for word in ("refused", "failed", "closed", "lost", "limit"))
    tally.refused[429] = 2
    tally.failed["Connection refused"] = 1
    tally.closed[4008] = 1500
    tally.not_held.add("order")
    tally.published, tally.lost, tally.repeated, tally.rate, tally.publish_s = 500, 3, 1, 50, 10
    tally.latency = histogram(1024, 2048)
    lines = dict(line.split(None, 1) for line in tally.table().split("\n"))
    assert lines["refused"] == "2 x HTTP 429"
    assert lines["failed"] == "1 x Connection refused"
    assert lines["closed"] == "1,500 x code 4008"
    assert lines["not"] == "subscribed  order"
    assert lines["published"] == "500 (50/s)"
    assert lines["latency"].startswith("p50 1.02 ms, p90 2.05 ms")
    assert lines["latency"].endswith("max 2.05 ms")
    assert (lines["lost"], lines["repeated"]) == ("3", "1")


@pytest.mark.parametrize(
    ("tally", "said"),
    [
        (Tally(cpu=0.85), "it used 85 % of a core"),
        (Tally(late=histogram(*[25_000] * 10)), "it woke up 25 ms late"),
        (Tally(published=100, rate=50, publish_s=4), "it published 25/s of 50/s"),
        (
            Tally(
                up=100, cpu=0.2, seconds=10, messages=50_000, published=0, latency=histogram(5000)
            ),
            "it takes 4.0 ms to read one event at all clients",
        ),
    ],
)
def test_its_own_limit_is_told(tally: Tally, said: str) -> None:
    """A busy, late or slow process says that the figures may be its own."""
    assert f"may be this tool's limit, not the gateway's: {said}" in tally.table()
    assert tally.as_json()["tool"]["is_the_limit"]


def test_an_idle_tool_says_nothing_of_limits() -> None:
    """Figures that are the gateway's have no warning."""
    tally = Tally(cpu=0.5, late=histogram(500), published=100, rate=50, publish_s=2)
    tally.up, tally.messages, tally.seconds, tally.latency = 10, 1000, 2, histogram(25_000)
    assert tally.limits() == []


def test_json_holds_plain_values() -> None:
    """All figures can be written as JSON, those that were not measured as null."""
    tally = Tally(wanted=1, up=1)
    tally.refused[503] += 1
    found = json.loads(json.dumps(tally.as_json()))
    assert found["clients"]["refused"] == {"503": 1}
    assert found["messages"]["latency_ms"] is None
    assert found["messages"]["lost"] is None
    assert found["whole"] is False
