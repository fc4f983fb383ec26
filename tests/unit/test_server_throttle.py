"""The throttle: a few lines of each kind, however often strangers repeat what they do."""

from __future__ import annotations

from rango_gevent.server.throttle import Throttle


def test_a_burst_passes_and_then_one_a_second() -> None:
    """The next line that passes says how many did not."""
    clock = [100.0]
    throttle = Throttle(lambda: clock[0])
    assert [throttle.held_back("a") for _ in range(12)] == [0] * 10 + [None] * 2
    clock[0] += 1
    assert throttle.held_back("a") == 2
    assert throttle.held_back("a") is None
    clock[0] += 60
    assert [throttle.held_back("a") for _ in range(11)] == [1] + [0] * 9 + [None]


def test_kinds_do_not_share() -> None:
    """A flood of one kind hides no line of another."""
    throttle = Throttle(lambda: 1.0)
    for _ in range(100):
        throttle.held_back("a")
    assert throttle.held_back("b") == 0
