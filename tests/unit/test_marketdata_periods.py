"""Where periods begin and end, against the calendar of the standard library."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rango_gevent.marketdata.periods import DAY, MONTH, PARTS, PERIODS, WEEK, end_of, start_of

MOMENTS = st.integers(min_value=0, max_value=16_000_000_000)


@given(MOMENTS)
def test_a_month_is_the_calendars(at_s: int) -> None:
    """It begins on its first day, and ends where the next one begins."""
    moment = datetime.fromtimestamp(at_s, timezone.utc)
    first = datetime(moment.year, moment.month, 1, tzinfo=timezone.utc)
    after = datetime(
        moment.year + moment.month // 12, moment.month % 12 + 1, 1, tzinfo=timezone.utc
    )
    assert start_of(MONTH, at_s) == first.timestamp()
    assert end_of(MONTH, int(first.timestamp())) == after.timestamp()


@given(MOMENTS)
def test_a_week_begins_on_monday(at_s: int) -> None:
    """As ISO 8601 has it."""
    start = datetime.fromtimestamp(start_of(WEEK, at_s), timezone.utc)
    assert (start.weekday(), start.hour, start.minute, start.second) == (0, 0, 0, 0)
    assert 0 <= at_s - start.timestamp() < WEEK


@pytest.mark.parametrize("period", PERIODS.values())
@given(at_s=MOMENTS)
def test_a_moment_lies_in_its_period(period: int, at_s: int) -> None:
    """And the period's parts begin where it begins, and end where it ends."""
    start_s = start_of(period, at_s)
    end_s = end_of(period, start_s)
    assert start_s <= at_s < end_s
    assert start_of(period, end_s) == end_s
    if period in PARTS:
        part = PARTS[period]
        assert start_of(part, start_s) == start_s
        assert start_of(part, end_s) == end_s


def test_periods_are_ordered_and_end_with_those_of_the_calendar() -> None:
    """Parts come before what is made of them."""
    seconds = list(PERIODS.values())
    assert seconds == sorted(seconds)
    assert all(seconds.index(part) < seconds.index(whole) for whole, part in PARTS.items())
    assert set(PARTS) == set(seconds) - {1}
    assert PERIODS["1d"] == DAY
