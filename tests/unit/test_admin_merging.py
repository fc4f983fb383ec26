"""Several workers' states as one: what adds up, what does not, and bounds."""

from __future__ import annotations

from typing import Any

from rango_gevent.admin.merging import ROWS, SHOWN, merge
from rango_gevent.admin.reading import silent


def state(pid: int, **more: Any) -> dict[str, Any]:
    """Return a worker's state."""
    empty: dict[str, Any] = {
        "answers": True,
        "worker": {"pid": pid, "answers": True},
        "closed": {},
        "refused": {},
        "dropped": {},
        "users": [],
        "addresses": [],
        "streams": [],
        "rates": [],
        "slow": [],
        "books": [],
    }
    return {**empty, **more}


def stream(name: str, subscribers: int, rate: float = 0.0, size: int = 0) -> dict[str, Any]:
    """Return a row of a stream."""
    more = {"subscribers": subscribers, "rate": rate, "bytes": size}
    return {"kind": "public", "name": name, **more}


def book(name: str, stale_s: float | None, age_s: float | None = 1.0) -> dict[str, Any]:
    """Return a row of a book."""
    return {"name": name, "stale_s": stale_s, "age_s": age_s, "events": 1, "bytes": 1, "held": True}


def test_counts_of_clients_add_up_and_those_of_messages_do_not() -> None:
    """Each client is at one worker, and each message at all of them."""
    found = merge(
        [
            state(1, closed={"slow_client": 2}, refused={"origin": 1}, dropped={"bad_json": 7}),
            state(2, closed={"slow_client": 3, "restart": 0}, dropped={"bad_json": 6}),
        ]
    )
    assert found["closed"] == {"slow_client": 5}
    assert found["refused"] == {"origin": 1}
    assert found["dropped"] == {"bad_json": 7}


def test_a_worker_without_an_answer_is_shown_without_figures() -> None:
    """It has a row, and nothing else counts it."""
    found = merge([state(1, closed={"restart": 1}), silent(2)])
    assert found["workers"] == [{"pid": 1, "answers": True}, {"pid": 2, "answers": False}]
    assert found["closed"] == {"restart": 1}


def test_subscribers_add_up_and_rates_do_not() -> None:
    """In two orders; what is not in a worker's top counts for what the others say."""
    rows = [stream("a.x", 3, 10.0, 100), stream("b.x", 5)]
    found = merge([state(1, streams=rows, rates=rows), state(2, streams=[stream("a.x", 4, 11.0)])])
    told = [(row["name"], row["subscribers"], row["rate"]) for row in found["streams"]]
    assert told == [("a.x", 7, 11.0), ("b.x", 5, 0.0)]
    assert [row["name"] for row in found["rates"]] == ["a.x", "b.x"]
    assert rows[0]["subscribers"] == 3, "what a worker keeps is left alone"


def test_users_are_summed() -> None:
    """A user's connections may be at any worker."""
    found = merge([state(1, users=[("a", 3), ("b", 4)]), state(2, users=[["a", 3]])])
    assert found["users"] == [{"uid": "a", "connections": 6}, {"uid": "b", "connections": 4}]


def test_the_worst_of_a_book_is_told_and_stale_ones_come_first() -> None:
    """Then those that were silent for the longest."""
    found = merge(
        [
            state(1, books=[book("a", None, 5.0), book("b", None, 9.0), book("c", 3.0, None)]),
            state(2, books=[book("a", 1.0, None)]),
        ]
    )
    told = [(row["name"], row["stale_s"], row["age_s"]) for row in found["books"]]
    assert told == [("c", 3.0, None), ("a", 1.0, None), ("b", None, 9.0)]


def test_lists_are_bounded() -> None:
    """However many workers tell of however much."""
    many = [stream(f"s{n}.x", n) for n in range(100)]
    slow = [{"bytes": n} for n in range(50)]
    states = [
        state(pid, streams=many, rates=many, slow=slow, users=[(f"u{n}", 1) for n in range(100)])
        for pid in range(9)
    ]
    found = merge(states)
    assert [len(found[name]) for name in ("streams", "rates", "users")] == [SHOWN] * 3
    assert len(found["slow"]) == ROWS
    assert found["slow"][0]["bytes"] == 49
