"""A log that cannot be flooded: what is said, and what is only counted."""

from __future__ import annotations

import logging
from typing import Iterator

import pytest

from rango_gevent.throttle import ThrottledLog

log = logging.getLogger("rango_gevent.test_throttle")


class Lines(logging.Handler):
    """Keeps what is logged, with its level."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line."""
        self.said.append(f"{record.levelname} {record.getMessage()}")


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """What the log says in this test."""
    handler = Lines()
    log.addHandler(handler)
    yield handler.said
    log.removeHandler(handler)


class Clock:
    """Time that passes when it is told to."""

    now_s = 100.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now_s


def test_a_line_of_each_key_in_an_interval(lines: list[str]) -> None:
    """The others are counted, and told with the next line of their key."""
    clock = Clock()
    throttled = ThrottledLog(log, 60.0, clock)
    for number in range(5):
        throttled.warning("a", "a happened: %d", number)
    throttled.error("b", "b happened")
    assert lines == ["WARNING a happened: 0", "ERROR b happened"]
    clock.now_s += 59.9
    throttled.warning("a", "a happened: %d", 5)
    clock.now_s += 0.1
    throttled.warning("a", "a happened: %d", 6)
    assert lines[2:] == ["WARNING a happened: 6 (5 more since the last such line)"]
    clock.now_s += 60
    throttled.warning("a", "a happened: %d", 7)
    assert lines[3:] == ["WARNING a happened: 7"]


def test_what_was_cleared_is_said_again(lines: list[str]) -> None:
    """After things were good the same failure is news."""
    throttled = ThrottledLog(log, 60.0, Clock())
    for _ in range(2):
        throttled.warning("a", "a happened")
        throttled.warning("a", "a happened")
        throttled.clear()
    assert lines == ["WARNING a happened"] * 2


def test_keys_from_outside_are_bounded(lines: list[str]) -> None:
    """Any number of keys costs a bounded memory."""
    throttled = ThrottledLog(log, 60.0, Clock())
    for number in range(5000):
        throttled.warning(f"key {number}", "it happened")
    assert len(throttled._said_at) <= 1000
