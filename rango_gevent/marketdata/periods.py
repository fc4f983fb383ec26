"""The periods of candles: where each begins, where it ends, and of which shorter ones it is made.

All begin in UTC. Weeks begin on Monday (ISO 8601), months on their first day, periods of three days
are counted from 1970-01-01. Pure.
"""

from __future__ import annotations

MINUTE, HOUR, DAY, WEEK = 60, 3600, 86_400, 604_800
MONTH = 2_592_000  # a name, as ViaBTC's servers use it: a month has the days of the calendar

# Name in routing keys to seconds, the shorter ones first.
PERIODS: dict[str, int] = {
    "1s": 1,
    "1m": MINUTE,
    "5m": 5 * MINUTE,
    "15m": 15 * MINUTE,
    "30m": 30 * MINUTE,
    "1h": HOUR,
    "2h": 2 * HOUR,
    "4h": 4 * HOUR,
    "6h": 6 * HOUR,
    "12h": 12 * HOUR,
    "1d": DAY,
    "3d": 3 * DAY,
    "1w": WEEK,
    "1M": MONTH,
}
NAMES = {seconds: name for name, seconds in PERIODS.items()}

# Each period to the shorter one that divides it without rest.
PARTS: dict[int, int] = {
    MINUTE: 1,
    5 * MINUTE: MINUTE,
    15 * MINUTE: 5 * MINUTE,
    30 * MINUTE: 15 * MINUTE,
    HOUR: 30 * MINUTE,
    2 * HOUR: HOUR,
    4 * HOUR: 2 * HOUR,
    6 * HOUR: 2 * HOUR,
    12 * HOUR: 6 * HOUR,
    DAY: 12 * HOUR,
    3 * DAY: DAY,
    WEEK: DAY,
    MONTH: DAY,
}

_MONDAY = 4 * DAY  # the first one after 1970-01-01, a Thursday


def start_of(period: int, at_s: float) -> int:
    """Return when the period began that a moment lies in.

    Args:
        period: seconds; `MONTH` is a month of the calendar. Others than those of `PERIODS` are
            counted from 1970.
        at_s: Unix time in seconds.
    """
    second = int(at_s)
    if period == MONTH:
        return _month(second // DAY, 0)
    if period == WEEK:
        return second - (second - _MONDAY) % WEEK
    return second - second % period


def end_of(period: int, start_s: int) -> int:
    """Return when a period ends that begins then, which is when the next one begins."""
    return _month(start_s // DAY, 1) if period == MONTH else start_s + period


def _month(day: int, ahead: int) -> int:
    """Return the first second of a day's month, or of the one so many after it.

    By the calendar of years that begin in March, so that the leap day is a year's last one.
    """
    shifted = day + 719_468  # from 0000-03-01
    era, of_era = divmod(shifted, 146_097)
    year = (of_era - of_era // 1460 + of_era // 36_524 - of_era // 146_096) // 365
    of_year = of_era - (365 * year + year // 4 - year // 100)
    month = (5 * of_year + 2) // 153 + ahead  # 0: March
    year, month = year + 400 * era + month // 12, month % 12
    first = (153 * month + 2) // 5 + 365 * year + year // 4 - year // 100 + year // 400
    return (first - 719_468) * DAY
