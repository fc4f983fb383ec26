"""The ring of recent events: what it gives to whom, when it says that it cannot, and its bounds."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from rango_gevent.hub.history import (
    AHEAD,
    GAP,
    NO_LOG,
    OTHER_HISTORY,
    TOO_MANY,
    TOO_OLD,
    History,
    HistoryLimits,
    track,
)
from rango_gevent.model import make_position, position_text

ROOMY = HistoryLimits(1 << 20, 1000, 60.0)


class Clock:
    """A time that the test moves."""

    now_s = 0.0

    def __call__(self) -> float:
        """Return it."""
        return self.now_s


def own(limits: HistoryLimits = ROOMY, clock: Clock | None = None) -> History:
    """Return a history of its own that has begun."""
    history = History(limits, clock or Clock(), check=0xABCD)
    history.begin()
    return history


def add(history: History, name: str, body: str = "1", position: int = 0) -> int:
    """Add an event of a public stream."""
    head = b"{" + json.dumps(name).encode() + b":"
    return history.append(track("public", name), head, body.encode(), position)


def given(history: History, position: int, *names: str, **more: int) -> Any:
    """Return the bodies of what is replayed, or why nothing is."""
    most = {"most_events": 1000, "most_bytes": 1 << 20, **more}
    replay = history.since(position, [track("public", name) for name in names], **most)
    assert replay.size == sum(map(len, replay.frames))
    found = []
    for frame in replay.frames:
        message = json.loads(frame[{126: 4, 127: 10}.get(frame[1], 2) :])
        assert list(message)[-1] == "at"
        found.append(next(iter(message.values())))
    return replay.reason or found


def test_events_after_a_position_are_given_in_their_order() -> None:
    """Of the streams that are asked for, and no others."""
    history = own()
    start = history.newest
    at = [add(history, "ab"[i % 2] + ".t", str(i)) for i in range(6)]
    assert given(history, start, "a.t", "b.t") == [0, 1, 2, 3, 4, 5]
    assert given(history, at[1], "a.t") == [2, 4]
    assert given(history, at[5], "a.t", "b.t") == []
    assert given(history, at[0], "never.seen") == []


def test_a_frame_carries_its_position_last() -> None:
    """As its event does that goes out live."""
    history = own()
    start = history.newest
    at = add(history, "a.t", '{"x": 1.0}')
    (frame,) = history.since(start, [track("public", "a.t")], 1, 1000).frames
    assert frame[2:].decode() == '{"a.t":{"x": 1.0},"at":"' + position_text(at) + '"}'
    assert history.since(start, [track("public", "a.t")], 1, 1000).frames[0] is frame, "made once"


@pytest.mark.parametrize("size", [1, 80, 90, 120, 200, 65500, 65530, 70_000])
def test_a_frame_of_any_size_is_well_formed(size: int) -> None:
    """Whichever form its length takes, before and with the position."""
    history = own()
    start = history.newest
    add(history, "a.t", json.dumps("x" * size))
    assert given(history, start, "a.t") == ["x" * size]


def test_kinds_are_apart() -> None:
    """A private address may be the same text as a public one."""
    history = own()
    start = history.newest
    history.append(track("private", "ID1.order"), b'{"order":', b"1", 0)
    history.append(track("public", "ID1.order"), b'{"ID1.order":', b"2", 0)
    assert given(history, start, "ID1.order") == [2]


def test_it_begins_when_somebody_asks() -> None:
    """Until then an instance without a log pays nothing for it."""
    history = History(ROOMY, Clock(), check=7)
    assert add(history, "a.t") == 0
    assert len(history) == 0
    history.begin()
    start = history.newest
    history.begin()
    assert start == history.newest
    assert position_text(start) == "1-00000007"
    assert add(history, "a.t", "2") == make_position(2, 7)
    assert given(history, start, "a.t") == [2]


def test_positions_of_others_are_of_another_history() -> None:
    """An instance without a log knows its own check, whatever the number is."""
    history = own()
    for number in (0, 1, 2, 1000):
        assert given(history, make_position(number, 1), "a.t") == OTHER_HISTORY
    assert not history.is_ahead(make_position(1000, 1))


def logged(*numbers: int, limits: HistoryLimits = ROOMY) -> History:
    """Return a history of a log; an event's check is its number, its body too."""
    history = History(limits, Clock())
    for number in numbers:
        add(history, "a.t", str(number), make_position(number, number))
    return history


def test_positions_of_a_log_have_holes() -> None:
    """What was never told of proves nothing; the events themselves do."""
    history = logged(10, 11, 15, 20)
    assert given(history, make_position(11, 11), "a.t") == [15, 20]
    assert given(history, make_position(10, 10), "a.t") == [11, 15, 20]
    assert given(history, make_position(20, 20), "a.t") == []
    for number in (12, 14, 16, 19):
        assert given(history, make_position(number, number), "a.t") == OTHER_HISTORY
    for number in (10, 15, 20):
        assert given(history, make_position(number, 99), "a.t") == OTHER_HISTORY
    assert given(history, make_position(9, 9), "a.t") == TOO_OLD
    assert given(history, make_position(21, 21), "a.t") == AHEAD
    assert given(history, 0, "a.t") == OTHER_HISTORY


def test_what_is_ahead_may_come() -> None:
    """Others read the same log, and may have been further."""
    history = logged(10)
    later = make_position(12, 12)
    assert history.is_ahead(later)
    add(history, "a.t", "12", later)
    assert not history.is_ahead(later)
    assert given(history, later, "a.t") == []


def test_a_log_that_breaks_is_another_history() -> None:
    """Nobody who stands before the break is given anything, nor kept waiting."""
    history = logged(10, 11)
    history.clear(OTHER_HISTORY)
    for number in (9, 10, 11):
        position = make_position(number, number)
        assert not history.is_ahead(position)
        assert given(history, position, "a.t") == OTHER_HISTORY
    add(history, "a.t", "5", make_position(5, 5))
    assert given(history, make_position(5, 5), "a.t") == []
    for number in (4, 10, 11):
        assert given(history, make_position(number, number), "a.t") == OTHER_HISTORY
    assert given(history, make_position(5, 6), "a.t") == OTHER_HISTORY
    assert given(history, make_position(12, 12), "a.t") == AHEAD


def test_numbers_that_do_not_grow_are_a_break() -> None:
    """Whoever gives them did not say so."""
    history = logged(10, 11)
    add(history, "a.t", "7", make_position(11, 12))
    assert given(history, make_position(10, 10), "a.t") == OTHER_HISTORY
    assert given(history, make_position(11, 11), "a.t") == OTHER_HISTORY
    assert given(history, make_position(11, 12), "a.t") == []


def test_events_without_a_position_are_a_gap() -> None:
    """While a log stalls they go out live; who comes back over it is told."""
    history = logged(10, 11)
    assert add(history, "a.t", "x", 0) == 0
    assert history.newest == 0
    assert given(history, make_position(11, 11), "a.t") == NO_LOG
    assert not history.is_ahead(make_position(12, 12))
    add(history, "a.t", "12", make_position(12, 12))
    assert given(history, make_position(11, 11), "a.t") == GAP
    assert given(history, make_position(10, 10), "a.t") == GAP
    assert given(history, make_position(12, 12), "a.t") == []


def test_a_history_of_its_own_that_breaks_goes_on_elsewhere() -> None:
    """What was lost lies between, so the last position before proves nothing any more."""
    history = own()
    before = add(history, "a.t", "1")
    history.clear(GAP)
    assert history.newest > before, "newcomers stand somewhere"
    middle = history.newest
    add(history, "a.t", "2")
    assert given(history, before, "a.t") == GAP
    assert given(history, middle, "a.t") == [2]


# -- bounds ---------------------------------------------------------------------------------------


def test_events_are_bounded() -> None:
    """The oldest go; the one before those that are left is proof still."""
    history = own(HistoryLimits(1 << 20, 300, 60.0))
    at = [add(history, f"s{i % 7}.t", str(i)) for i in range(5000)]
    assert 250 < len(history) <= 300
    names = [f"s{i}.t" for i in range(7)]
    first = 5000 - len(history)
    assert given(history, at[first - 1], *names) == list(range(first, 5000))
    assert given(history, at[first - 2], *names) == TOO_OLD


@pytest.mark.parametrize("size", [10, 200, 5000, 150_000])
def test_bytes_are_bounded(size: int) -> None:
    """Whatever the size of the events; those that a client is given count as they grow."""
    bound = 400_000
    history = own(HistoryLimits(bound, 1_000_000, 60.0))
    body = json.dumps("x" * size)
    start = history.newest
    for _ in range(3_000_000 // (size + 100)):
        start = add(history, "a.t", body)
        assert history.size <= bound
    assert history.size > bound // 3, "it is used"
    frames = history.since(history._before, [track("public", "a.t")], 1 << 20, 1 << 30).frames
    assert len(frames) == len(history)
    add(history, "a.t", body)
    assert history.size <= bound + 200
    assert given(history, start, "a.t") == [json.loads(body)]


def test_an_event_larger_than_the_bound_goes_at_once() -> None:
    """With the next one that comes."""
    history = own(HistoryLimits(100_000, 1000, 60.0))
    add(history, "a.t", json.dumps("x" * 200_000))
    at = add(history, "a.t", "2")
    assert len(history) == 1
    assert given(history, at, "a.t") == []


def test_seconds_are_bounded() -> None:
    """Also when nothing is published any more; who has seen the last one has missed nothing."""
    clock = Clock()
    history = own(HistoryLimits(1 << 20, 1000, 60.0), clock)
    start = history.newest
    at = add(history, "a.t", "1")
    clock.now_s = 1.0
    history.expire()  # as at each second
    clock.now_s = 30.0
    assert history.reach_s() == 30.0
    add(history, "b.t", "2")
    clock.now_s = 61.5
    assert given(history, start, "a.t", "b.t") == TOO_OLD
    assert given(history, at, "a.t", "b.t") == [2]
    history.expire()
    clock.now_s = 200.0
    assert history.reach_s() == 0.0
    assert len(history) == 0
    assert given(history, at, "b.t") == TOO_OLD
    assert given(history, history.newest, "b.t") == []


def test_marks_of_time_are_bounded() -> None:
    """However long events are kept, and whether there are any."""
    clock = Clock()
    history = own(HistoryLimits(1 << 20, 1000, 100_000.0), clock)
    add(history, "a.t", "1")
    for second in range(0, 90_000, 10):
        clock.now_s = float(second)
        history.expire()
    assert len(history._marks) < 1100
    assert len(history) == 1
    clock.now_s = 100_200.0
    history.expire()
    assert len(history) == 0


def test_a_replay_is_bounded() -> None:
    """In events and in bytes."""
    history = own()
    start = history.newest
    for i in range(10):
        add(history, f"s{i % 2}.t", str(i))
    names = ("s0.t", "s1.t")
    assert given(history, start, *names, most_events=9) == TOO_MANY
    assert len(given(history, start, *names, most_events=10)) == 10
    assert given(history, start, *names, most_bytes=100) == TOO_MANY


def test_addresses_count() -> None:
    """Each of many users may have an event or two: what is kept for their names is bounded too."""
    bound = 1_000_000
    history = own(HistoryLimits(bound, 1_000_000, 60.0))
    for i in range(20_000):
        add(history, f"user{i}.t", "1")
        assert history.size <= bound + 400
    assert 1000 < len(history) < 3000
    history.clear(GAP)
    assert history.size < 50_000


def test_nothing_is_left_of_what_went() -> None:
    """Neither bodies nor addresses."""
    history = own(HistoryLimits(1 << 20, 256, 60.0))
    for i in range(2000):
        add(history, f"s{i}.t", str(i))
    assert len(history._trails) == len(history)
    assert sum(1 for body in history._bodies if body) == len(history)
    history.clear(GAP)
    assert not history._trails
    assert len(history) == 0


# -- against a model ------------------------------------------------------------------------------

NAMES = ["a.t", "b.t", "c.t"]


class HistoryMachine(RuleBasedStateMachine):
    """Publishers of a log and people that come with any position, against a plain list."""

    @initialize(is_own=st.booleans())
    def start(self, is_own: bool) -> None:
        """Begin with nothing."""
        self.clock = Clock()
        self.history = History(
            HistoryLimits(60_000, 90, 50.0), self.clock, check=0xC0DE if is_own else None
        )
        self.history.begin()
        self.is_own = is_own
        self.number = 0
        self.epoch = 1
        # all that was ever published: position (0: none), name, body; None is a break
        self.truth: list[tuple[int, str, int] | None] = []
        self.places: list[int] = [self.history.newest] if is_own else []
        self.began: dict[int, int] = {self.history.newest: 0} if is_own else {}

    @rule(
        name=st.sampled_from(NAMES),
        count=st.integers(1, 40),
        hole=st.integers(1, 4),
        size=st.sampled_from([1, 1, 1, 500, 5000]),
    )
    def publish(self, name: str, count: int, hole: int, size: int) -> None:
        """Publish, now and then with a hole before it."""
        self.number += hole - 1
        for i in range(count):
            self.number += 1
            body = self.number * 10
            text = str(body) + " " * size  # JSON all the same
            wanted = make_position(self.number, self.epoch * 1000 + self.number % 7)
            position = add(self.history, NAMES[(NAMES.index(name) + i % 2) % 3], text, wanted)
            assert self.is_own or position == wanted
            self.truth.append((position, NAMES[(NAMES.index(name) + i % 2) % 3], body))
            self.places.append(position)

    @rule(count=st.integers(1, 3), is_time=st.integers(0, 5).map(lambda n: n == 0))
    def stall(self, count: int, is_time: bool) -> None:
        """Publish without positions; a history of its own gives them all the same."""
        if not is_time or self.is_own:
            return
        for _ in range(count):
            self.number += 1
            assert add(self.history, "a.t", str(self.number * 10), 0) == 0
            self.truth.append((0, "a.t", self.number * 10))

    @rule(back=st.integers(0, 50), is_time=st.integers(0, 5).map(lambda n: n == 0))
    def break_off(self, back: int, is_time: bool) -> None:
        """Lose some; a log uses numbers again, for other events."""
        if not is_time:
            return
        self.truth.append(None)
        self.history.clear(OTHER_HISTORY)
        if self.is_own:
            self.places.append(self.history.newest)
            self.began[self.history.newest] = len(self.truth)
        else:
            self.number = max(0, self.number - back)
            self.epoch += 1

    @rule(seconds=st.sampled_from([0.3, 2.0, 20.0]))
    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.clock.now_s += seconds

    @rule(
        which=st.integers(0, 10_000),
        names=st.lists(st.sampled_from(NAMES), unique=True, min_size=1),
        is_recent=st.booleans(),
    )
    def come_back(self, which: int, names: list[str], is_recent: bool) -> None:
        """Come with a position of any time: all that was missed, or a reason, never less."""
        if not self.places:
            return
        which %= min(len(self.places), 30) if is_recent else len(self.places)
        self.check(self.places[-1 - which], names)

    @rule(number=st.integers(0, 300), check=st.integers(0, 3000))
    def come_with_nonsense(self, number: int, check: int) -> None:
        """Come with a position that nobody gave."""
        position = make_position(number, check)
        if position not in self.places:
            reason = self.history.since(position, [track("public", "a.t")], 1000, 1 << 20).reason
            assert reason

    def check(self, position: int, names: list[str]) -> None:
        """Compare what somebody is given with the truth."""
        found = given(self.history, position, *names)
        if position in self.began:
            at = self.began[position] - 1
        else:
            at = max(i for i, e in enumerate(self.truth) if e is not None and e[0] == position)
        after = self.truth[at + 1 :]
        is_whole = all(event is not None and event[0] for event in after)
        missed = [event[2] for event in after if event is not None and event[1] in names]
        if isinstance(found, list):
            assert is_whole
            assert found == missed
        elif is_whole:
            # where numbers came again nobody knows of one that is gone which it was
            assert found == TOO_OLD or (found == OTHER_HISTORY and None in self.truth)
            held = len(self.history)
            assert len(after) > held, "it goes only when something is gone"

    @invariant()
    def bounds_hold(self) -> None:
        """In bytes and events."""
        if hasattr(self, "history"):
            assert len(self.history) <= 90
            grown = 40 * len(self.history)  # by replays, until the next event
            assert self.history.size <= 60_000 + grown


TestHistory = HistoryMachine.TestCase
TestHistory.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
