"""The states of several workers as one answer. Pure.

Each worker tells its own top of each list, so that a sum over workers is exact for what is in
the top of all of them, and a lower bound for what is not.
"""

from __future__ import annotations

from collections import Counter
from operator import itemgetter
from typing import Any, Mapping, Sequence

Reading = Mapping[str, Any]

SHOWN = 20  # of each list
TOLD = 100  # by each worker
ROWS = 50  # of slow clients and of books


def merge(readings: Sequence[Reading]) -> dict[str, Any]:
    """Return what all workers say together; those without an answer have a row without figures."""
    told = [reading for reading in readings if reading["answers"]]
    return {
        "workers": [reading["worker"] for reading in readings],
        "closed": _sum(told, "closed"),
        "refused": _sum(told, "refused"),
        "dropped": _largest_sum(told, "dropped"),
        "users": _counted(told, "users", "uid"),
        "addresses": _counted(told, "addresses", "address"),
        "streams": _streams(told, "streams", "subscribers"),
        "rates": _streams(told, "rates", "rate"),
        "slow": _top([row for reading in told for row in reading["slow"]], "bytes"),
        "books": _books(told),
    }


def _sum(readings: Sequence[Reading], name: str) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for reading in readings:
        counts.update(reading[name])
    return {word: count for word, count in counts.most_common() if count}


def _largest_sum(readings: Sequence[Reading], name: str) -> dict[str, int]:
    """Return the largest count of each word: every worker receives every message."""
    counts: dict[str, int] = {}
    for reading in readings:
        for word, count in reading[name].items():
            counts[word] = max(count, counts.get(word, 0))
    return {word: count for word, count in sorted(counts.items()) if count}


def _counted(readings: Sequence[Reading], name: str, key: str) -> list[dict[str, Any]]:
    counts: Counter[str] = Counter()
    for reading in readings:
        counts.update(dict(reading[name]))
    return [{key: word, "connections": n} for word, n in counts.most_common(SHOWN)]


def _streams(readings: Sequence[Reading], name: str, order: str) -> list[dict[str, Any]]:
    """Join rows of streams: subscribers add up, and each worker receives all events."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for reading in readings:
        for row in reading[name]:
            known = rows.setdefault((row["kind"], row["name"]), dict(row, subscribers=0))
            known["subscribers"] += row["subscribers"]
            known["rate"] = max(known["rate"], row["rate"])
            known["bytes"] = max(known["bytes"], row["bytes"])
    return _top(list(rows.values()), order, SHOWN)


def _top(rows: list[dict[str, Any]], order: str, most: int = ROWS) -> list[dict[str, Any]]:
    return sorted(rows, key=itemgetter(order), reverse=True)[:most]


def _books(readings: Sequence[Reading]) -> list[dict[str, Any]]:
    """Return a row for each book, the worst state that any worker has of it: each has all."""
    rows: dict[str, dict[str, Any]] = {}
    for reading in readings:
        for row in reading["books"]:
            known = rows.get(row["name"])
            if known is None or _order(row) > _order(known):
                rows[row["name"]] = row
    return sorted(rows.values(), key=_order, reverse=True)[:ROWS]


def _order(row: Mapping[str, Any]) -> tuple[float, float]:
    return book_order(row["stale_s"], row["age_s"])


def book_order(stale_s: float | None, age_s: float | None) -> tuple[float, float]:
    """Return what puts stale books first, those for the longest before, then the silent ones."""
    return (-1.0 if stale_s is None else stale_s, age_s or 0.0)
