"""Alerts, counted: nothing that was said is forgotten, whatever the bound."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rango_gevent.alerts.tally import CRITICAL, RECOVERED, Incidents, Line, Tally

lines = st.builds(
    Line,
    kind=st.sampled_from([CRITICAL, RECOVERED]),
    key=st.sampled_from("abcdef"),
    text=st.text(max_size=5),
    first_s=st.integers(0, 9).map(float),
    last_s=st.integers(9, 20).map(float),
    times=st.integers(1, 1000),
    pids=st.frozensets(st.integers(1, 5), min_size=1),
)


def total(tally: Tally) -> int:
    """Return how many lines were said in all."""
    return tally.others + sum(line.times for line in tally.lines)


@given(st.lists(lines), st.lists(lines), st.integers(1, 6))
def test_every_line_is_counted(first: list[Line], then: list[Line], most: int) -> None:
    """Also those that do not fit, and those that came back because a sink did not take them."""
    tally = Tally(most)
    for line in first:
        tally.add(line)
    taken = tally.take()
    assert not tally
    for line in then:
        tally.add(line)
    tally.give_back(taken.lines, taken.others)
    assert total(tally) == sum(line.times for line in first + then)
    assert len(tally.lines) <= most
    assert bool(tally) == bool(first + then)


def test_the_same_line_is_told_once_with_its_number_and_times() -> None:
    """Its first words stay, with when it began and when it was said last."""
    tally = Tally(10)
    tally.add(Line(CRITICAL, "k", "first", 1.0, 1.0, 1, frozenset([7])))
    tally.add(Line(CRITICAL, "k", "second", 5.0, 5.0, 1, frozenset([8])))
    assert tally.lines == [Line(CRITICAL, "k", "first", 1.0, 5.0, 2, frozenset([7, 8]))]


def test_an_incident_of_several_processes_is_over_when_the_last_has_recovered() -> None:
    """One that died meanwhile is not waited for."""
    incidents = Incidents()
    for pid in (1, 2, 3):
        incidents.opened("not ready", pid)
    assert not incidents.is_over("not ready", 1, frozenset([2, 3]))
    assert incidents.is_over("not ready", 2, frozenset([2]))
    assert not incidents.is_over("not ready", 2, frozenset([2])), "it is told once"


def test_a_recovery_of_nothing_is_not_told() -> None:
    """Nobody heard that it was broken."""
    assert not Incidents().is_over("not ready", 1, frozenset([1]))


def test_who_did_not_open_an_incident_ends_it_for_all() -> None:
    """The parent says that workers die in a loop; a worker that lives says that it is over."""
    incidents = Incidents()
    incidents.opened("worker loop", 1)
    assert incidents.is_over("worker loop", 9, frozenset([1]))
