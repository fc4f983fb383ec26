"""The token bucket: its pace, its burst, and what it lets pass in a rolling window."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rango_gevent.client.limiter import TokenBucket, wait_for_all


def passed(bucket: TokenBucket, moments: list[float]) -> list[float]:
    """Return the moments at which one is let pass."""
    return [at_s for at_s in moments if wait_for_all([bucket], at_s) == 0]


def test_a_burst_and_then_the_pace() -> None:
    """A full bucket goes at once, then one comes with each part of a second."""
    bucket = TokenBucket(2.0, 3)
    assert passed(bucket, [0.0] * 5) == [0.0] * 3
    assert bucket.wait_s(0.0) == pytest.approx(0.5)
    assert passed(bucket, [0.25, 0.5, 0.5, 1.0]) == [0.5, 1.0]


def test_weights() -> None:
    """A heavy request takes more, and one heavier than the bucket is refused."""
    bucket = TokenBucket(1.0, 5)
    assert wait_for_all([bucket], 0.0, 4) == 0
    assert wait_for_all([bucket], 0.0, 4) == pytest.approx(3.0)
    with pytest.raises(ValueError, match="more than the burst"):
        bucket.wait_s(0.0, 6)


def test_all_buckets_or_none() -> None:
    """What waits for one takes nothing from the others."""
    wide, narrow = TokenBucket(1.0, 2), TokenBucket(1.0, 1)
    assert wait_for_all([wide, narrow], 0.0) == 0
    assert wait_for_all([wide, narrow], 0.0) == pytest.approx(1.0)
    assert wide.wait_s(0.0) == 0


@given(
    st.integers(2, 8),
    st.lists(st.floats(0, 0.6), max_size=80),
    st.data(),
)
def test_a_rolling_window_is_kept(count: int, steps: list[float], data: st.DataObject) -> None:
    """However requests come, no window of two seconds lets more than its count pass."""
    burst = data.draw(st.integers(1, count - 1))
    bucket = TokenBucket.for_window(count, 2.0, burst)
    moments = [sum(steps[:n]) for n in range(len(steps))]
    went = passed(bucket, moments)
    for first in went:
        assert sum(first <= at_s < first + 2.0 for at_s in went) <= count


def test_a_window_needs_room_beside_its_burst() -> None:
    """A burst of the whole count would let twice as much pass in some window."""
    with pytest.raises(ValueError, match="1 to 4"):
        TokenBucket.for_window(5, 1.0, burst=5)
    with pytest.raises(ValueError, match="above 0"):
        TokenBucket(0, 1)
