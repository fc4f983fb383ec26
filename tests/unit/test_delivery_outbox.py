"""The outbox: whole frames in order, within bounds, whatever is left out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rango_gevent.delivery.encoding import PLAIN
from rango_gevent.delivery.outbox import Outbox, SlowPolicy
from rango_gevent.hub.stream import Stream
from rango_gevent.model import SEGMENT_BYTES, Event, Segment
from rango_gevent.parsers import patterns
from rango_gevent.protocol import routing


def _event(frame: bytes) -> Event:
    return Event(0, frame, 0, 0.0)


def _segment(*frames: bytes) -> Segment:
    return Segment([_event(frame) for frame in frames], sum(map(len, frames)))


def _drain(outbox: Outbox, step: int = 7) -> bytes:
    """Take everything out, a few bytes at a time."""
    out = b""
    while True:
        data = outbox.take(PLAIN)
        if not data:
            return out
        out += bytes(data[:step])
        if data[step:]:
            outbox.put_back(data, step)


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=150), st.integers(1, 100))
def test_pieces_come_out_as_they_went_in(pieces: list[bytes], step: int) -> None:
    """Any pieces, sent in portions of any size, come out in order and leave nothing."""
    outbox = Outbox()
    for number, piece in enumerate(pieces):
        if number % 3 == 0:
            outbox.append_free(piece)
        elif number % 3 == 1:
            outbox.append([_segment(piece[:5], piece[5:])])
        else:
            outbox.append_event(_event(piece))
    assert outbox.size == sum(map(len, pieces))
    assert _drain(outbox, step) == b"".join(pieces)
    assert (outbox.size, outbox.live_bytes, outbox.free_bytes) == (0, 0, 0)


def test_a_write_takes_a_portion() -> None:
    """However much waits: the rest is encoded when its turn comes."""
    outbox = Outbox()
    for _ in range(100):
        outbox.append([_segment(b"x" * 10_000)])
    assert SEGMENT_BYTES - 10_000 <= len(outbox.take(PLAIN)) <= SEGMENT_BYTES
    large = _segment(b"x" * SEGMENT_BYTES)
    outbox = Outbox()
    outbox.append([large, large])
    assert outbox.take(PLAIN) is large.encoded(PLAIN), "what is large is not copied"


def test_a_large_frame_is_sent_in_portions_of_itself() -> None:
    """Neither the clients who wait for it nor the portions that are sent copy it."""
    frame = b"x" * (SEGMENT_BYTES * 3)
    outbox = Outbox()
    outbox.append([_segment(frame)])
    outbox.append([_segment(b"y")])
    data = outbox.take(PLAIN)
    for _ in range(2):
        outbox.put_back(data, SEGMENT_BYTES)
        data = outbox.take(PLAIN)
        assert isinstance(data, memoryview)
        assert data.obj is frame
        outbox.put_back(data, 0)
        data = outbox.take(PLAIN)
    outbox.put_back(data, len(data) - 10)
    assert outbox.take(PLAIN) == b"x" * 10 + b"y"
    assert outbox.take(PLAIN) == b""


def test_what_was_asked_for_does_not_count() -> None:
    """A replay larger than the bound does not make a client slow; events on top of it do."""
    outbox = Outbox()
    outbox.append_free(b"x" * 1000)
    assert not outbox.over(100)
    outbox.append([_segment(b"y" * 101)])
    assert outbox.over(100)


def test_a_burst_may_wait_for_a_while() -> None:
    """Past its bound a client is slow after a time, far past it at once."""
    outbox = Outbox()
    assert not outbox.is_slow(100, 1.0, 10.0)
    outbox.append([_segment(b"y" * 101)])
    assert not outbox.is_slow(100, 1.0, 10.0)
    assert not outbox.is_slow(100, 1.0, 10.9)
    assert outbox.is_slow(100, 1.0, 11.0)
    outbox.take(PLAIN)
    assert not outbox.is_slow(100, 1.0, 11.1)
    outbox.append([_segment(b"y" * 101)])
    assert not outbox.is_slow(100, 1.0, 11.9), "the time counts anew"
    outbox.append([_segment(b"y" * 1600)])
    assert outbox.is_slow(100, 1.0, 11.9)


def test_the_oldest_are_dropped_and_counted() -> None:
    """Past the bound the oldest droppable events go, committed ones stay."""
    outbox = Outbox()
    outbox.append_free(b"committed ")
    dropped = sum(outbox.append_droppable("a", _event(b"%03d " % n), 40) for n in range(100))
    assert dropped == 90
    assert _drain(outbox) == b"committed " + b"".join(b"%03d " % n for n in range(90, 100))


def test_a_single_frame_over_the_bound_is_kept() -> None:
    """The newest event is never dropped, however large."""
    outbox = Outbox()
    assert outbox.append_droppable("a", _event(b"x" * 500), 100) == 0
    assert _drain(outbox) == b"x" * 500


def test_latest_keeps_one_frame_of_each_stream() -> None:
    """The newest event of a stream takes the place of the one before."""
    outbox = Outbox()
    assert outbox.put_latest("a", _event(b"a1")) == 0
    assert outbox.put_latest("b", _event(b"b1")) == 0
    assert outbox.put_latest("a", _event(b"a2")) == 1
    assert outbox.size == 4
    assert _drain(outbox) == b"b1a2"
    assert outbox.size == 0


def test_latest_of_too_many_streams_is_over() -> None:
    """Newest events of many streams are bounded together."""
    outbox = Outbox()
    for index in range(20):
        outbox.put_latest(str(index), _event(b"x" * 10))
    assert outbox.holds_over(199)
    assert not outbox.holds_over(200)


def test_streams_that_are_given_up_are_left_out() -> None:
    """Their events would come behind the reply that says that they are gone."""
    outbox = Outbox()
    for number in range(3):
        for address in "ab":
            outbox.append_droppable(address, _event(f"{address}{number}".encode()), 100)
            outbox.put_latest(address, _event(f"{address}!".encode()))
    outbox.forget({"a", "never held"})
    assert outbox.size == 8
    assert _drain(outbox) == b"b0b1b2b!"
    assert outbox.size == 0


def test_forgetting_keeps_the_rest_of_a_frame() -> None:
    """What is sent in part is finished, so that a close frame can follow it."""
    outbox = Outbox()
    outbox.append([_segment(b"first frame")])
    outbox.put_latest("a", _event(b"third"))
    outbox.put_back(outbox.take(PLAIN), 5)
    outbox.append([_segment(b"second frame")])
    outbox.forget_whole()
    outbox.append_free(b"|close")
    assert outbox.size == len(b" frame|close")
    assert _drain(outbox) == b" frame|close"


@pytest.mark.parametrize(
    ("kind", "name", "expected"),
    [
        (routing.PUBLIC, "global.tickers", "latest"),
        (routing.PUBLIC, "btcusd.kline-1m", "drop-oldest"),
        (routing.PUBLIC, "btcusd.trades", "close"),
        (routing.PUBLIC, "btcusd.ob-inc", "resync"),
        (routing.PRIVATE, "order", "close"),
        (routing.PREFIXED, "admin.x.ob-inc", "latest"),
    ],
)
def test_a_policy_is_found_by_pattern(kind: str, name: str, expected: str) -> None:
    """The first pattern that matches counts; books are given afresh instead."""
    text = "*.tickers=latest, *.kline-*=drop-oldest,*-inc=latest"
    policy = SlowPolicy("close", patterns(text))
    assert policy.of(Stream(kind, name, name)) == expected


def test_close_for_all_is_known_as_such() -> None:
    """Without another policy the dispatcher need not look at streams one by one."""
    assert SlowPolicy("close", patterns("*.trades=close")).only_close
    assert not SlowPolicy("latest").only_close
    assert not SlowPolicy("close", patterns("*.tickers=latest")).only_close
    twice = SlowPolicy("close", patterns("*.tickers=latest,*.tickers=close"))
    assert not twice.only_close, "the first match counts, here too"
