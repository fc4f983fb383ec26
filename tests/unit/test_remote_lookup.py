"""Asking about opaque tokens: once at a time, within bounds, and not who does not answer."""

from __future__ import annotations

import json
from typing import Any, Callable, Iterator

import gevent
import pytest
from gevent.event import Event
from hypothesis import given
from hypothesis import strategies as st

from rango_gevent.auth.identity import Identity
from rango_gevent.errors import TokenError
from rango_gevent.remote.breaker import Breaker
from rango_gevent.remote.fetch import Answer, Unreachable
from rango_gevent.remote.lookup import Lookup, LookupLimits, Refused, read_answer

AT = 1_700_000_000.0
LIMITS = LookupLimits(timeout_s=0.05, at_once=2, waiting=3, good_s=30, bad_s=5, kept=10)


class Service:
    """Answers when it may, and takes note of what it is asked."""

    def __init__(self, limits: LookupLimits = LIMITS) -> None:
        self.now = 100.0
        self.asked: list[str] = []
        self.may_answer = Event()
        self.may_answer.set()
        self.is_broken = False
        self.most_at_once = 0
        self._at_once = 0
        self.lookup = Lookup(self.ask, limits, lambda: self.now, lambda: AT)

    def ask(self, token: str) -> Answer:
        """Answer by the token."""
        self.asked.append(token)
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            self.may_answer.wait()
            if self.is_broken:
                raise Unreachable("timeout")
            if token.startswith("bad"):
                return said({"code": 7, "message": f"no such token: {token}"})
            return said({"uid": token})
        finally:
            self._at_once -= 1

    def identify(self, token: str) -> str:
        """Return the uid, or the reason of the refusal."""
        try:
            return self.lookup.identify(token).uid or ""
        except TokenError as error:
            assert token not in f"{error}{error.told}"
            return error.reason


def said(body: Any, status: int = 200) -> Answer:
    """Return an answer."""
    return Answer(status, json.dumps(body).encode())


@pytest.fixture(autouse=True)
def _in_time() -> Iterator[None]:
    with gevent.Timeout(60):
        yield


def all_of(calls: list[Callable[[], str]]) -> list[str]:
    """Run calls at the same time and return what each gives."""
    greenlets = [gevent.spawn(call) for call in calls]
    return [greenlet.get() for greenlet in greenlets]


def test_answers_are_kept() -> None:
    """Refusals for a shorter while."""
    service = Service()
    for _ in range(3):
        assert service.identify("one") == "one"
        assert service.identify("bad") == "signature"
    assert service.asked == ["one", "bad"]
    service.now += 6
    service.identify("one")
    service.identify("bad")
    assert service.asked == ["one", "bad", "bad"]
    service.now += 30
    service.identify("one")
    assert service.asked == ["one", "bad", "bad", "one"]
    assert service.lookup.outcomes == {"good": 2, "refused": 2, "cached": 5}


def test_what_is_kept_is_bounded_and_no_token() -> None:
    """Under a digest; the oldest goes."""
    service = Service()
    for index in range(12):
        service.identify(f"t{index}")
    assert len(service.lookup) == 10
    assert all(len(digest) == 32 for digest in service.lookup._kept)
    service.identify("t0")
    assert service.asked.count("t0") == 2


def test_a_token_is_asked_about_once_at_a_time() -> None:
    """Whoever brings it has the same answer."""
    service = Service()
    service.may_answer.clear()
    gevent.spawn_later(0.01, service.may_answer.set)
    assert all_of([lambda: service.identify("one")] * 50) == ["one"] * 50
    assert service.asked == ["one"]


def test_requests_and_those_who_wait_are_bounded() -> None:
    """Past that a token cannot be checked now, at once."""
    service = Service(LIMITS._replace(timeout_s=10))
    service.may_answer.clear()
    calls = [lambda index=index: service.identify(f"t{index}") for index in range(8)]
    gevent.spawn_later(0.01, service.may_answer.set)
    found = all_of(calls)  # type: ignore[arg-type]  # lambdas with a default
    assert found == ["t0", "t1", "t2", "t3", "t4", *["unavailable"] * 3]
    assert service.most_at_once == 2
    assert service.lookup.outcomes["shed"] == 3


def test_nobody_waits_long_for_a_turn() -> None:
    """When those before do not come to an end."""
    service = Service()
    service.may_answer.clear()
    first = [gevent.spawn(service.identify, f"t{index}") for index in range(2)]
    gevent.sleep(0)
    assert service.identify("late") == "unavailable"
    service.may_answer.set()
    assert [greenlet.get() for greenlet in first] == ["t0", "t1"]


def test_who_does_not_answer_is_left_alone() -> None:
    """For a while, then tried once; what was kept stays good."""
    service = Service()
    assert service.identify("known") == "known"
    service.is_broken = True
    for index in range(10):
        assert service.identify(f"t{index}") == "unavailable"
    assert len(service.asked) == 6
    assert service.identify("known") == "known"
    service.now += 5.1
    service.identify("again")
    service.identify("and-again")
    assert len(service.asked) == 7
    service.is_broken = False
    service.now += 5.1
    assert service.identify("back") == "back"
    assert service.identify("for-good") == "for-good"


def test_a_user_is_asked_about_anew() -> None:
    """When its tokens were taken back."""
    service = Service()
    service.identify("one")
    service.identify("two")
    service.lookup.forget("one")
    service.identify("one")
    service.identify("two")
    assert service.asked == ["one", "two", "one"]


@pytest.mark.parametrize("token", ["", " ", "a\nb", "a\r\nX: y", "é", "\ud800", "x" * 8193, " a", "a\x00"])  # fmt: skip
def test_what_cannot_be_a_header_is_not_asked_about(token: str) -> None:
    """It goes into one as it is."""
    service = Service()
    with pytest.raises(TokenError) as caught:
        service.lookup.identify(token)
    assert caught.value.reason == "malformed"
    assert service.asked == []


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (said({"code": 0, "message": None, "data": {"user_id": 1}}), Identity("1", "", None, AT)),
        (said({"code": 0, "data": {"user_id": "u", "role": "r"}}), Identity("u", "r", None, AT)),
        (said({"uid": "ID1", "role": "admin"}), Identity("ID1", "admin", None, AT)),
        (said({"uid": 5}), Identity("5", "", None, AT)),
        (said({"code": 11, "message": "user does not exist"}), Refused("user does not exist")),
        (said({"code": 11, "message": "a\n" + "b" * 200}), Refused("a" + "b" * 98)),
        (said({"code": 11, "message": 5}), Refused("")),
        (said({"code": False, "data": {"user_id": 1}}), Identity("1", "", None, AT)),
        (said({}, 401), Refused("")),
        (Answer(403, b"no"), Refused("")),
        (Answer(404, b"no"), Refused("")),
        (Answer(422, b"no"), Refused("")),
    ],
)
def test_answers(answer: Answer, expected: object) -> None:
    """In both forms, and refusals."""
    assert read_answer(answer, AT) == expected


@pytest.mark.parametrize(
    "answer",
    [
        said({"uid": "ID1"}, 500),
        said({"uid": "ID1"}, 302),
        said({"uid": "ID1"}, 204),
        said({"uid": "ID1"}, 408),
        said({"uid": "ID1"}, 429),
        Answer(200, b""),
        Answer(200, b"[" * 100_000),
        said([]),
        said({}),
        said({"uid": ""}),
        said({"uid": True}),
        said({"uid": "x" * 256}),
        said({"uid": "a", "role": 5}),
        said({"code": 0}),
        said({"code": 0, "data": {}}),
        said({"code": 0, "data": {"user_id": None}}),
        said({"code": 0, "data": {"user_id": 1.5}}),
    ],
)
def test_what_is_no_answer(answer: Answer) -> None:
    """Then nobody knows; nobody is let in by it."""
    with pytest.raises(ValueError, match="."):
        read_answer(answer, AT)


@given(st.integers(100, 599), st.binary())
def test_any_answer_is_judged(status: int, body: bytes) -> None:
    """Nothing else is raised."""
    try:
        verdict = read_answer(Answer(status, body), AT)
    except ValueError:
        return
    assert isinstance(verdict, (Identity, Refused))


def test_a_breaker_lets_one_try() -> None:
    """After each rest, until one succeeds."""
    now = [0.0]
    breaker = Breaker(2, 5.0, lambda: now[0])
    breaker.failed()
    assert breaker.allows
    breaker.failed()
    assert not breaker.allows
    now[0] = 5.0
    assert [breaker.allows, breaker.allows] == [True, False]
    breaker.failed()
    now[0] = 9.9
    assert not breaker.allows
    now[0] = 10.0
    assert breaker.allows
    breaker.succeeded()
    assert [breaker.allows, breaker.allows] == [True, True]
