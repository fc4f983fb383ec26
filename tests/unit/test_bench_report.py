"""The benchmark's figures: percentiles, the table, the goals."""

from __future__ import annotations

import pytest
from bench.report import (
    COLUMNS,
    Result,
    Verdict,
    align,
    fill_ages,
    goals_table,
    per,
    percentile,
    table,
    verdicts,
    warnings,
)
from bench.scenarios import FLOOR, Goal, Scenario
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("share", "expected"), [(0.0, 10), (0.5, 10), (0.51, 20), (0.75, 20), (0.76, 30), (1.0, 30)]
)
def test_percentile_is_the_first_value_that_covers_the_share(share: float, expected: int) -> None:
    """A percentile is the smallest value that at least the share of all does not exceed."""
    assert percentile([(10, 2), (20, 1), (30, 1)], share) == expected


def test_percentile_of_nothing_is_none() -> None:
    """Without values there is no percentile."""
    assert percentile([], 0.5) is None


@given(
    st.dictionaries(st.integers(0, 10**6), st.integers(1, 50), min_size=1, max_size=30),
    st.floats(0.01, 1),
)
def test_percentile_equals_that_of_the_plain_list(counts: dict[int, int], share: float) -> None:
    """The histogram gives what a sorted list of all values gives."""
    values = sorted(value for value, count in counts.items() for _ in range(count))
    covered = percentile(sorted(counts.items()), share)
    assert covered is not None
    assert sum(value <= covered for value in values) >= share * len(values)
    assert sum(value < covered for value in values) < share * len(values)


def test_ages_never_exceed_the_largest_one() -> None:
    """A bucket's middle past the largest age is shown as the largest age."""
    result = Result("fan", "rango")
    fill_ages(result, [(1_000_000, 99), (9_000_000, 1)], 8_500_000)
    assert (result.p50_ms, result.p99_ms, result.max_ms) == (1.0, 1.0, 8.5)
    fill_ages(result, [(9_000_000, 1)], 8_500_000)
    assert (result.p50_ms, result.p99_ms, result.max_ms) == (8.5, 8.5, 8.5)


def test_nothing_arrived_gives_no_ages() -> None:
    """Without deliveries the ages stay unmeasured instead of 0."""
    result = Result("fan", "rango")
    fill_ages(result, [], 0)
    assert (result.p50_ms, result.p99_ms, result.max_ms) == (None, None, None)


@pytest.mark.parametrize(
    ("amount", "count", "expected"), [(3, 2, 1.5), (3, 0, None), (3, None, None)]
)
def test_per_of_none_is_none(amount: float, count: float | None, expected: float | None) -> None:
    """An amount for each of none is unmeasured, not an error."""
    assert per(amount, count) == expected


def test_table_has_a_row_for_each_result_and_dashes_for_what_was_not_measured() -> None:
    """The table shows figures with their digits, a dash where there is none, notes below."""
    measured = Result("fan-50", "rango", clients=1000, us_per_delivery=1.234, deliveries_per_s=5e4)
    failed = Result("idle", "nats", error="it ended")
    lines = table([measured, failed]).split("\n")
    assert lines[0].split()[:3] == ["scenario", "server", "clients"]
    assert lines[1].split()[:4] == ["fan-50", "rango", "1,000", "1.23"]
    assert "50,000" in lines[1].split()
    assert lines[2].split() == ["idle", "nats", "0", *["-"] * (len(COLUMNS) - 1)]
    assert lines[3] == "idle, nats: failed: it ended"


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    """Names stand to the left, figures to the right."""
    assert align([["a", "figure"], ["long", "1"]], left=1) == ["a     figure", "long       1"]


@pytest.mark.parametrize(
    ("result", "text"),
    [
        (Result("s", "r", client_busy=0.95), "bottleneck"),
        (Result("s", "r", client_busy=0.3, client_waiting=0.65), "wait for a core"),
        (Result("s", "r", refused=3), "3 clients were refused"),
        (Result("s", "r", gone=2), "2 clients were cut"),
        (Result("s", "r", notes=["said"]), "said"),
    ],
)
def test_what_makes_a_result_doubtful_is_said(result: Result, text: str) -> None:
    """A load client that was the bottleneck, and clients that were not there, are named."""
    (warning,) = warnings(result)
    assert text in warning


def test_an_idle_load_client_is_not_mentioned() -> None:
    """A result of which nothing is doubtful has no warning."""
    assert warnings(Result("s", "r", client_busy=0.3, client_waiting=0.1)) == []


def test_goals_are_compared_with_a_bound_the_floor_and_another_scenario() -> None:
    """A goal's bound is a number, or a factor of the floor's or another scenario's figure."""
    scenarios = [
        Scenario("plain", "", goals=(Goal("us_per_delivery", 2.0),)),
        Scenario("quick", "", goals=(Goal("connects_per_s", 100, at_least=True),)),
        Scenario("near", "", goals=(Goal("us_per_delivery", 1.3, of=FLOOR),)),
        Scenario("packed", "", goals=(Goal("us_per_delivery", 0.5, of="plain"),)),
    ]
    results = [
        Result("plain", "rango", us_per_delivery=3.0),
        Result("plain", "nats", us_per_delivery=99.0),
        Result("quick", "rango", connects_per_s=120),
        Result("near", "rango", us_per_delivery=5.0),
        Result("near", FLOOR, us_per_delivery=4.0),
        Result("packed", "rango", us_per_delivery=1.0),
    ]
    found = {verdict.scenario: verdict for verdict in verdicts(scenarios, results, "rango")}
    assert {name: (verdict.bound, verdict.met) for name, verdict in found.items()} == {
        "plain": (2.0, False),
        "quick": (100, True),
        "near": (5.2, True),
        "packed": (1.5, True),
    }


def test_goals_without_a_figure_are_left_out() -> None:
    """What was not measured is neither met nor missed."""
    scenarios = [
        Scenario("a", "", goals=(Goal("p99_ms", 5), Goal("us_per_delivery", 1.3, of=FLOOR))),
        Scenario("b", "", goals=(Goal("p99_ms", 5),)),
    ]
    assert verdicts(scenarios, [Result("a", "rango", us_per_delivery=3.0)], "rango") == []


def test_goals_table_says_met_and_missed() -> None:
    """Each verdict is a line that ends in one of two words."""
    text = goals_table(
        [
            Verdict("a", "lost", 0, 0, False),
            Verdict("b", "p99_ms", 30, 25, False),
            Verdict("c", "connects_per_s", 9000, 8000, True),
        ]
    )
    lines = [line.split() for line in text.split("\n")[1:]]
    assert lines == [
        ["a", "lost", "0", "<=", "0", "-", "met"],
        ["b", "p99_ms", "30", "<=", "25", "1.20", "MISSED"],
        ["c", "connects_per_s", "9,000", ">=", "8,000", "1.12", "met"],
    ]


def test_results_are_plain_values_of_sensible_length() -> None:
    """A result as JSON has every field, its figures shortened."""
    found = Result("a", "rango", us_per_delivery=1.23456789, lost=0).as_json()
    assert found["us_per_delivery"] == 1.2346
    assert found["lost"] == 0
    assert found["p99_ms"] is None
