"""Sessions without sockets: requests and what they are answered, the rate, the account of bytes."""

from __future__ import annotations

import json
from collections import deque
from typing import Any

import pytest

from rango_gevent.delivery.session import Desk, Part, Session, SessionLimits
from rango_gevent.errors import FatalClientError, RequestError
from rango_gevent.hub.hub import Hub
from rango_gevent.model import Segment
from rango_gevent.protocol import close
from rango_gevent.protocol.messages import NameLimits

AT = 1_700_000_000.0
LIMITS = SessionLimits(
    requests_per_s=10.0, requests_burst=5, reply_bytes_per_s=1000.0, names=NameLimits(5, 32)
)


class Queue(deque):  # type: ignore[type-arg]  # of events; Python 3.9 takes no argument here
    """The least that serves as a queue."""

    put_nowait = deque.append
    get_nowait = deque.popleft
    qsize = deque.__len__


class Outlet:
    """Takes note of what a session asks of its connection."""

    def __init__(self) -> None:
        self.forgotten: list[set[str]] = []

    def forget(self, addresses: set[str]) -> None:
        """Note it."""
        self.forgotten.append(addresses)


def make_desk(**more: Any) -> tuple[Desk, list[Session]]:
    """Return a desk, and those who were handed what they are due."""
    flushed: list[Session] = []
    hub = Hub(allows=lambda prefix, role: prefix == role, make_queue=Queue)
    return Desk(hub, LIMITS._replace(**more), flushed.append), flushed


def make_session(desk: Desk, uid: str | None = None, role: str = "") -> Session:
    """Return a session that has come just now."""
    session = Session(desk, uid=uid, role=role, notices=False, now_s=0.0)
    session.outlet = Outlet()  # type: ignore[assignment]  # as much of one as is needed
    return session


def request(event: str, *names: str) -> bytes:
    """Return a request."""
    return json.dumps({"event": event, "streams": names}).encode()


def told(parts: Any) -> list[Any]:
    """Return what the parts say, segments as the list of their bodies."""
    found: list[Any] = []
    for part in parts:
        if isinstance(part, Segment):
            found.append([json.loads(event.body) for event in part.events])
        else:
            text = part[2 if part[1] < 126 else 4 :].decode()
            found.append(text if text == "pong" else json.loads(text))
    return found


def held(message: str, *names: str) -> dict[str, Any]:
    """Return a reply."""
    return {"success": {"message": message, "streams": list(names)}}


def test_requests_are_answered() -> None:
    """As they are on the wire, without one."""
    desk, flushed = make_desk()
    session = make_session(desk, "ID1", "admin")
    assert told(session.answer(b"ping")) == ["pong"]
    assert told(session.answer(b"  ")) == []
    assert told(session.answer(request("subscribe", "a.b", "order"))) == [
        held("subscribed", "a.b", "order")
    ]
    assert told(session.answer(request("subscribe", "desk.a.b", "admin.a.b"))) == [
        {"success": {"message": "cannot subscribe to desk.a.b"}},
        held("subscribed", "a.b", "admin.a.b", "order"),
    ]
    assert told(session.answer(request("unsubscribe", "a.b", "never.held"))) == [
        held("unsubscribed", "admin.a.b", "order")
    ]
    (error,) = told(session.answer(b"{"))
    assert error["error"].startswith("Could not parse message")
    assert flushed == [session] * 3, "before each change it was handed what it was due"
    assert desk.requests == {"ping": 1, "subscribe": 2, "unsubscribe": 1, "error": 1}


def test_a_book_comes_before_the_reply() -> None:
    """As segments that all newcomers share."""
    desk, _ = make_desk()
    desk.hub.publish("public.m.ob-snap", b"1", AT)
    desk.hub.publish("public.m.ob-inc", b"2", AT)
    parts = list(make_session(desk).answer(request("subscribe", "m.ob-inc", "m.ob-inc")))
    assert told(parts) == [[1, 2], held("subscribed", "m.ob-inc")]
    again = list(make_session(desk).answer(request("subscribe", "m.ob-inc")))
    assert parts[0] is again[0]


def test_a_reply_is_made_once() -> None:
    """For as long as the same names are held; at rest it is not kept."""
    desk, _ = make_desk()
    session = make_session(desk)
    session.answer(request("subscribe", "a.b"))
    (first,) = session.answer(request("subscribe"))
    assert all(next(iter(session.answer(request("subscribe")))) is first for _ in range(3))
    (reply,) = session.answer(request("subscribe", "c.d"))
    assert told([reply]) == [held("subscribed", "a.b", "c.d")]
    session.answer(request("unsubscribe", "a.b"))
    (reply,) = session.answer(request("subscribe"))
    assert told([reply]) == [held("subscribed", "c.d")]
    session.rest()
    assert session._held == b""


def test_names_are_bounded() -> None:
    """All that are held count, each once; a refused request changes nothing."""
    desk, _ = make_desk()
    session = make_session(desk)
    session.subscribe(("a.b", "c.d", "e.f"))
    with pytest.raises(RequestError):
        session.subscribe(("1.x", "2.x", "3.x"))
    assert list(session.streams) == ["a.b", "c.d", "e.f"]
    session.subscribe(("a.b", "1.x", "2.x"))
    assert len(session.streams) == 5


def test_one_who_ends_is_not_subscribed() -> None:
    """Nobody would unsubscribe it again: its connection may be lost while it is flushed."""
    desk, _ = make_desk()
    session = make_session(desk)

    def lose(one: Session) -> None:
        one.ended = True

    desk.flush = lose
    assert session.subscribe(("a.b",)) == []
    assert session.replay(("a.b",)) is None
    assert desk.hub.streams["public"] == {}


def test_what_is_given_up_is_forgotten() -> None:
    """Events that may be left out do not come behind the reply."""
    desk, _ = make_desk()
    session = make_session(desk, "ID1")
    session.answer(request("subscribe", "a.b", "order"))
    session.answer(request("unsubscribe", "order", "x.y"))
    assert session.outlet.forgotten == [{"ID1.order"}]  # type: ignore[attr-defined]  # the test's


# -- the rate -------------------------------------------------------------------------------------


def test_the_rate_is_a_bucket() -> None:
    """A burst passes, then one error, then silence, then the end; time refills it."""
    desk, _ = make_desk()
    session = make_session(desk)
    assert session.admit(5, 0.0) is None
    refused = session.admit(1, 0.0)
    assert refused == "Too many requests: the limit is 10/s"
    assert session.admit(1, 0.0) == ""
    assert session.admit(1, 0.5) is None
    assert session.admit(2, 100.0) is None
    assert session.tokens == 3, "never more than the burst"
    assert session.admit(8, 100.0) is not None
    with pytest.raises(FatalClientError) as caught:
        session.admit(1, 100.0)
    assert caught.value.reason is close.TOO_MANY_REQUESTS


def test_replies_are_charged() -> None:
    """A second's worth at once; after that the next request waits until the rate is kept."""
    desk, _ = make_desk()
    session = make_session(desk)
    part: Part = b"x" * 600
    session.charge(part, 50.0)
    assert session.owed_s(50.0) == 0.0
    session.charge(Segment([], 900), 50.0)
    assert session.owed_s(50.0) == pytest.approx(0.5)
    assert session.owed_s(50.5) == pytest.approx(0.0)
    session.charge(part, 100.0)
    assert session.owed_s(100.0) == 0.0, "what was not asked for long ago is not saved up for ever"
