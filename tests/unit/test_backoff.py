"""Waits between attempts: they grow, are spread, and begin anew only after something good."""

from __future__ import annotations

import random

import pytest

from rango_gevent.backoff import Backoff


def backoff(seed: int = 7, least: float = 0.1) -> Backoff:
    """Return waits of 1 to 8 s."""
    return Backoff(1.0, 8.0, steady_s=5.0, least=least, jitter=random.Random(seed))


def test_waits_grow_and_are_spread() -> None:
    """Waits double up to the bound, each drawn from a range, and begin again after a reset."""
    waits = backoff()
    for longest in (1, 2, 4, 8, 8, 8):
        assert longest / 10 <= waits.next() <= longest
    waits.reset()
    assert waits.next() <= 1
    firsts = {round(backoff(seed).next(), 1) for seed in range(200)}
    assert firsts == {n / 10 for n in range(1, 11)}


def test_a_bound_of_one_wait_does_not_hold_the_next_ones() -> None:
    """Behind a lower bound the waits grow on."""
    waits = backoff(least=1.0)
    assert [waits.next(0.5) for _ in range(4)] == [0.5] * 4
    assert waits.next() == 8.0


@pytest.mark.parametrize(("lived_s", "wait_s"), [(0.0, 4.0), (4.9, 4.0), (5.0, 1.0), (60.0, 1.0)])
def test_only_what_lived_makes_waits_short_again(lived_s: float, wait_s: float) -> None:
    """A connection that was made and lost at once is no better than none."""
    waits = backoff(least=1.0)
    waits.next(), waits.next()
    waits.lived(lived_s)
    assert waits.next() == wait_s
