"""The log and the queue that stands by: every event once and in order, whatever stalls."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rango_gevent.source.amqp.chain import GAP
from rango_gevent.source.amqp.standby import (
    ASLEEP,
    GIVEN_UP_S,
    LISTENS,
    LIVE,
    QUIET_S,
    STALL_S,
    SYNC_S,
    Standby,
)

KEEP_S = 5.0
STEP_S = 0.1
LOOK_S = 0.4


class Stall(NamedTuple):
    """A time in which the log delivers nothing."""

    start_s: float
    end_s: float


class Market:
    """A publisher, a broker with a log and a spare queue, and a reader of both.

    Attributes:
        handed: numbers that were handed on, and whether with a position.
        breaks: time and reason of each.
        states: time and name of each state.
    """

    def __init__(self, most: int = 1000) -> None:
        self.now = 100.0
        self.handed: list[tuple[int, bool]] = []
        self.breaks: list[tuple[float, str]] = []
        self.states: list[tuple[float, str]] = []
        self.number = 0
        self.spare: deque[tuple[float, int]] = deque(maxlen=most)
        self.log: deque[int] = deque()
        self.standby = Standby(self._hand, self._broke, most=most, keep_s=KEEP_S)
        self.standby.begin(self.now, 0.0, again=False)
        self._looked = self.now

    def _hand(self, key: str, body: bytes, at_s: float, position: int) -> None:
        self.handed.append((int(body), bool(position)))

    def _broke(self, why: str) -> None:
        self.breaks.append((self.now, why))

    def publish(self, count: int, *, lost: bool = False) -> None:
        """Publish the next numbers; lost ones the log never gets."""
        for _ in range(count):
            self.spare.append((self.now, self.number))
            if not lost:
                self.log.append(self.number)
            self.number += 1

    def step(self, *, stalls: bool = False, spare_first: bool = True) -> None:
        """Let a tenth of a second go by."""
        self.now += STEP_S
        while self.spare and self.now - self.spare[0][0] > KEEP_S:
            self.spare.popleft()
        if spare_first:
            self._read_spare()
        if not stalls and self.log:
            self.standby.heard(self.now)
            while self.log:
                number = self.log.popleft()
                self.standby.log("k", str(number).encode(), 0.0, number + 1)
        if not spare_first:
            self._read_spare()
        if self.now - self._looked >= LOOK_S:
            self._looked = self.now
            self.standby.look(self.now)
        if not self.states or self.states[-1][1] != self.standby.state:
            self.states.append((self.now, self.standby.state))

    def _read_spare(self) -> None:
        while self.standby.listening and self.spare:
            _, number = self.spare.popleft()
            self.standby.spare("k", str(number).encode(), 0.0)

    def run(self, seconds: float, *, each_s: float = STEP_S, stalls: bool = False) -> None:
        """Publish one event each so often, for a while."""
        due = self.now
        for _ in range(round(seconds / STEP_S)):
            if self.now >= due:
                self.publish(1)
                due += each_s
            self.step(stalls=stalls)

    def numbers(self) -> list[int]:
        """Return what was handed on."""
        return [number for number, _ in self.handed]


def test_a_market_with_pauses_wakes_nobody() -> None:
    """A pause is listened into, and that is all."""
    market = Market()
    for each_s in (0.1, 0.9, 1.7, 3.1, 8.0, 0.1):
        market.run(30, each_s=each_s)
    assert market.numbers() == list(range(market.number))
    assert all(has_position for _, has_position in market.handed)
    assert market.breaks == []
    assert {state for _, state in market.states} == {ASLEEP, LISTENS}
    assert market.standby.state == ASLEEP


def test_a_stall_is_bridged() -> None:
    """Events go on within the time that is promised; afterwards they have positions again."""
    market = Market()
    market.run(10)
    stalled_at = market.now
    market.run(20, stalls=True)
    live_at = next(at for at, state in market.states if state == LIVE)
    assert live_at - stalled_at <= QUIET_S + STALL_S + 3 * LOOK_S
    back_at = market.now
    market.run(20)
    ended_at = next(at for at, state in market.states if state == ASLEEP and at > back_at)
    assert ended_at - back_at <= SYNC_S + GIVEN_UP_S
    assert market.numbers() == list(range(market.number))
    without = [number for number, has_position in market.handed if not has_position]
    assert without == list(range(without[0], without[-1] + 1))
    assert market.handed[-1][1]
    assert [why for _, why in market.breaks] == [GAP, GAP]


@given(
    stalls=st.lists(st.tuples(st.integers(1, 80), st.integers(1, 120)), max_size=4),
    rates=st.lists(st.sampled_from([0, 1, 1, 3, 20]), min_size=1, max_size=8),
    orders=st.lists(st.booleans(), min_size=1, max_size=5),
)
@settings(deadline=None)  # it simulates minutes
def test_nothing_is_lost_or_doubled(
    stalls: list[tuple[int, int]], rates: list[int], orders: list[bool]
) -> None:
    """Whatever stalls for how long, in whichever order the two are read."""
    market, step = Market(most=5000), 0
    for calm, stall in [*stalls, (150, 0)]:
        for is_stalled in [False] * calm + [True] * stall:
            step += 1
            market.publish(rates[step // 10 % len(rates)])
            market.step(stalls=is_stalled, spare_first=orders[step % len(orders)])
    for _ in range(50):
        market.step()
    assert market.numbers() == list(range(market.number))
    assert market.standby.missed == 0


def test_what_the_log_has_lost_is_told() -> None:
    """An event that came on the spare alone, while both were listened to."""
    market = Market()
    market.run(3)
    market.run(5, each_s=2.0)
    market.publish(1, lost=True)
    market.run(GIVEN_UP_S + 5, each_s=0.5)
    assert market.standby.missed == 1
    assert [why for _, why in market.breaks] == [GAP]
    assert market.standby.state != LIVE


def test_a_log_that_goes_on_elsewhere_gives_way_at_once() -> None:
    """What it owes was in the part that is gone."""
    market = Market()
    market.run(3)
    market.standby.detached(market.now)
    market.log.clear()
    for _ in range(5):
        market.publish(1)
        market.step(stalls=True)
    market.log.clear()
    market.standby.broken()
    assert market.standby.state == LIVE
    market.run(GIVEN_UP_S + 10)
    assert market.numbers() == list(range(market.number))
    assert market.standby.state in (ASLEEP, LISTENS)


@pytest.mark.parametrize("again", [False, True])
def test_a_log_that_needs_a_while_is_waited_for(again: bool) -> None:
    """What the spare has meanwhile is not handed on before the time is over."""
    market = Market()
    market.standby.begin(market.now, 4.0, again=again)
    market.run(3.5, stalls=True)
    assert market.handed == []
    market.standby.attached(market.now)
    market.run(5)
    assert market.numbers() == list(range(market.number))
    assert market.breaks == []


def test_what_is_remembered_is_bounded() -> None:
    """However much comes on one of the two only."""
    market = Market(most=50)
    market.run(2)
    market.run(3, stalls=True)
    for number in range(10_000):
        market.standby.spare("k", str(1_000_000 + number).encode(), 0.0)
        market.standby.log("k", str(2_000_000 + number).encode(), 0.0, 1)
    held = market.standby
    for _ in range(10_000):  # alike
        held.spare("k", b"{}", 0.0)
    held.look(market.now)
    assert sum(map(len, held._owed.values())) <= 50
    assert max(map(len, (held._owed, held._ahead, held._handed, held._older))) <= 50
