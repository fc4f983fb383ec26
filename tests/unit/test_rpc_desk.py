"""Questions and answers without a network: the table, the cache, one question for all."""

from __future__ import annotations

import json
from typing import Any

import gevent
import pytest

from rango_gevent.rpc.desk import CacheLimits, Desk, Row, read_answer
from rango_gevent.rpc.errors import Answered, Away, Busy, Late, RpcError


class Other:
    """Answers what it was asked, after others had their turn."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.error: Exception | None = None

    def ask(self, question: bytes) -> bytes:
        """Answer."""
        self.asked.append(json.loads(question))
        gevent.sleep(0)
        if self.error is not None:
            raise self.error
        return b'{"error":null,"result":%d}' % len(self.asked)


class Clock:
    """A clock that stands still."""

    now_s = 100.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now_s


def desk(other: Other, clock: Clock | None = None, **limits: Any) -> Desk:
    """Return a desk that asks one other."""
    return Desk([Row("*.query", other.ask)], CacheLimits(**limits), clock or Clock())


def test_the_first_row_counts() -> None:
    """Patterns are those of the shell."""
    one, two = Other(), Other()
    table = Desk([Row("order.query", one.ask), Row("*.query", two.ask)])
    table.ask("order.query", [], "1")
    table.ask("asset.query", [], "1")
    assert len(one.asked) == len(two.asked) == 1
    assert not table.knows("order.history")
    with pytest.raises(Away):
        table.ask("order.history", [], "1")


def test_answers_are_kept_for_a_while() -> None:
    """But never about somebody's own."""
    other, clock = Other(), Clock()
    table = desk(other, clock, keep_s=2.0)
    assert [table.ask("a.query", [1]) for _ in range(3)] == [b"1", b"1", b"1"]
    assert table.ask("a.query", [2]) == b"2"
    clock.now_s += 2.0
    assert table.ask("a.query", [1]) == b"3"
    assert [table.ask("a.query", [1], "7") for _ in range(2)] == [b"4", b"5"]
    assert other.asked[-1] == {"method": "a.query", "params": [1], "uid": "7"}
    assert table.outcomes == {"good": 5, "cached": 2}


def test_one_question_for_all_who_ask_the_same() -> None:
    """Errors too are everybody's, and are not kept."""
    other = Other()
    table = desk(other, keep_s=0)
    jobs = [gevent.spawn(table.ask, "a.query", []) for _ in range(5)]
    gevent.joinall(jobs, timeout=30)
    assert [job.value for job in jobs] == [b"1"] * 5
    other.error = Late("late")

    def late() -> bool:
        with pytest.raises(Late):
            table.ask("a.query", [])
        return True

    jobs = [gevent.spawn(late) for _ in range(5)]
    gevent.joinall(jobs, timeout=30)
    assert [job.value for job in jobs] == [True] * 5
    assert len(other.asked) == 2
    assert table.outcomes["late"] == 5


def test_what_is_kept_is_bounded() -> None:
    """In answers and in bytes."""
    table = desk(Other(), answers=10, size=1 << 20)
    for number in range(50):
        table.ask("a.query", [number])
    assert table.size <= 10 * 2

    class Large(Other):
        def ask(self, question: bytes) -> bytes:
            return b'{"result":"%b"}' % (b"x" * 400)

    table = desk(Large(), size=1000)
    for number in range(50):
        table.ask("a.query", [number])
    assert table.size <= 1000


def test_questions_at_once_are_bounded() -> None:
    """One more is refused, and the others are answered."""
    table = desk(Other(), waiting=2)
    jobs = [gevent.spawn(table.ask, "a.query", [n], "1") for n in range(2)]
    gevent.sleep(0)
    with pytest.raises(Busy):
        table.ask("a.query", [], "1")
    gevent.joinall(jobs, timeout=30)
    assert all(job.value for job in jobs)
    assert table.ask("a.query", [], "1")


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"7", b'{"error":7}', b'{"error":{"code":"1"}}', b'{"result":"\xff"}', b"[" * 5000]
)  # fmt: skip
def test_what_is_no_answer(body: bytes) -> None:
    """Is as if nobody were there."""
    with pytest.raises(Away):
        read_answer(body)


def test_an_answer_that_is_an_error() -> None:
    """Has its own number and words."""
    with pytest.raises(Answered) as raised:
        read_answer(b'{"error":{"code":10,"message":"balance not enough"},"result":null}')
    assert (raised.value.code, raised.value.message) == (10, "balance not enough")
    assert isinstance(raised.value, RpcError)


def test_a_result_keeps_its_bytes() -> None:
    """Whatever numbers it holds."""
    raw = b'{"price": 0.10000000000000000001, "n":12345678901234567890123}'
    assert read_answer(b'{"error": null, "result": ' + raw + b', "id": 5}') == raw


def test_an_answer_is_shaped_once_for_all_who_ask() -> None:
    """Those who ask at the same time, and those who come while it is kept."""
    table = desk(Other())
    shaped: list[bytes] = []

    def shape(result: bytes) -> bytes:
        shaped.append(result)
        return b"[%b]" % result

    asked = [gevent.spawn(table.ask, "kline.query", [], shape=shape) for _ in range(5)]
    gevent.joinall(asked, timeout=5)
    assert [one.value for one in asked] == [b"[1]"] * 5
    assert table.ask("kline.query", [], shape=shape) == b"[1]"
    assert shaped == [b"1"]
