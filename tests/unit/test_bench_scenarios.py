"""The benchmark's table of scenarios."""

from __future__ import annotations

import pytest
from bench import scenarios
from bench.arguments import capped
from bench.report import Result

from rango_gevent.errors import ConfigError


def test_groups_name_scenarios_that_exist() -> None:
    """Every member of a group is a scenario, and the default groups are groups."""
    names = {scenario.name for scenario in scenarios.every()}
    for members in scenarios.GROUPS.values():
        assert set(members) <= names
    assert set(scenarios.DEFAULT_GROUPS) <= set(scenarios.GROUPS)
    assert not names & set(scenarios.GROUPS)


def test_goals_name_figures_and_scenarios_that_exist() -> None:
    """Every goal is of a figure that results have, and relative ones of a known scenario."""
    names = {scenario.name for scenario in scenarios.every()}
    for scenario in scenarios.every():
        for goal in scenario.goals:
            assert hasattr(Result("", ""), goal.metric)
            assert not goal.of or goal.of in {*names, scenarios.FLOOR, scenarios.KOMBU}


def test_select_takes_names_and_groups_each_once() -> None:
    """A scenario that is named twice runs once, in the order of the first mention."""
    found = scenarios.select(["idle", "clients", "fan-50"])
    assert [scenario.name for scenario in found] == ["idle", *scenarios.GROUPS["clients"]]


def test_select_of_nothing_is_the_default() -> None:
    """Without names the default groups are meant."""
    assert scenarios.select([]) == scenarios.select(scenarios.DEFAULT_GROUPS)


def test_unknown_names_are_told_all_at_once() -> None:
    """Each wrong name is a problem of its own."""
    with pytest.raises(ConfigError) as caught:
        scenarios.select(["fan-50", "nope", "nada"])
    assert len(caught.value.problems) == 2
    assert "'nope'" in caught.value.problems[0]
    assert "--list" in caught.value.problems[0]


@pytest.mark.parametrize(
    ("name", "messages", "expected"),
    [
        ("fan-50", 250, 250_000),
        ("ten-streams", 2000, 2_000_000),
        ("own-5000", 25_000, 25_000),
        ("private-5000", 25_000, 25_000),
        ("ingest", 60_000, 0),
        ("replay", 1000, 1_001_000),
        ("resume-1000", 1000, 1_000_000),
        ("resume-10000", 100, 1_000_000),
        ("publish-batch", 40_000, 0),
    ],
)
def test_expected_deliveries(name: str, messages: int, expected: int) -> None:
    """Who holds the streams decides how many deliveries the messages of five seconds make."""
    (scenario,) = scenarios.select([name])
    assert scenario.count(5) == messages
    assert scenario.expected(messages) == expected


def test_caps_lower_and_never_raise() -> None:
    """A cap below the scenario's figure holds, one above changes nothing, 0 is none."""
    (scenario,) = scenarios.select(["fan-50"])
    small = capped(scenario, 20, 100, 5)
    assert (small.clients, small.count(5)) == (20, 100)
    assert capped(scenario, 10**6, 10**6, 5) is scenario
    assert capped(scenario, 0, 0, 5) is scenario


@pytest.mark.parametrize("scenario", scenarios.every(), ids=lambda scenario: scenario.name)
def test_every_client_hears_the_end(scenario: scenarios.Scenario) -> None:
    """Whoever holds streams gets a last message on one of them, unless nothing is published."""
    topics = scenario.topics()
    if scenario.kind in (scenarios.CONNECT, scenarios.REPLAY, scenarios.PUBLISH):
        assert topics.stops == []
    elif scenario.audience in (scenarios.OWN, scenarios.PRIVATE):
        assert len(topics.stops) == scenario.clients
    else:
        assert set(topics.stops) <= set(topics.held)
        assert topics.stops


def test_a_book_is_a_snapshot_and_then_increments() -> None:
    """The replay's messages begin with the snapshot, as many increments follow as asked for."""
    (scenario,) = scenarios.select(["replay"])
    turns = capped(scenario, 0, 7, 5).topics().turns
    assert turns == ["m0.ob-snap", *["m0.ob-inc"] * 7]
