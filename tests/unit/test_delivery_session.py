"""Sessions without sockets: requests and what they are answered, the rate, the account of bytes."""

from __future__ import annotations

import json
from collections import deque
from typing import Any

import pytest

from rango_gevent.auth.identity import Identity
from rango_gevent.delivery.outlet import Part
from rango_gevent.delivery.session import PLAIN_MANNER, Desk, Manner, Session, SessionLimits
from rango_gevent.errors import FatalClientError, RequestError, TokenError
from rango_gevent.hub.hub import Hub
from rango_gevent.hub.patterns import Patterns
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
        self.pushed: list[Part] = []

    def push(self, part: Part) -> None:
        """Note it."""
        self.pushed.append(part)

    def renewed(self) -> None:
        """Take no note."""

    def forget(self, addresses: set[str]) -> None:
        """Note it."""
        self.forgotten.append(addresses)


def make_desk(**more: Any) -> tuple[Desk, list[Session]]:
    """Return a desk, and those who were handed what they are due."""
    flushed: list[Session] = []
    hub = Hub(allows=lambda prefix, role: prefix == role, make_queue=Queue)
    limits = LIMITS._replace(**more)
    desk = Desk(hub, limits, flushed.append, now=lambda: AT, move=lambda old, new: True)
    return desk, flushed


def make_session(
    desk: Desk, uid: str | None = None, role: str = "", manner: Manner = PLAIN_MANNER
) -> Session:
    """Return a session that has come just now."""
    session = Session(desk, Identity(uid, role, None), manner, now_s=0.0)
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
    assert told([refused]) == [{"error": "Too many requests: the limit is 10/s"}]
    assert session.admit(1, 0.0) == b""
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


# -- requests of our own --------------------------------------------------------------------------


class Someone:
    """Knows a few tokens, by name."""

    def __init__(self) -> None:
        self.known = {
            "one": Identity("ID1", "admin", AT + 900),
            "one-more": Identity("ID1", "member", None),
            "two": Identity("ID2", "", None),
            "nobody": Identity(None, "admin", None),
        }
        self.asked: list[str] = []

    def identify(self, token: str) -> Identity:
        """Return whose it is."""
        self.asked.append(token)
        if token == "away":
            raise TokenError("nobody answers", "unavailable")
        if token not in self.known:
            raise TokenError("it has expired", "expired")
        return self.known[token]


def make_open_desk(*ways: str) -> Desk:
    """Return a desk at which one can authenticate."""
    desk, _ = make_desk()
    desk.set_ways(Someone(), ways or ("message", "ranger"))  # type: ignore[arg-type]  # the test's
    return desk


def ask(session: Session, **request: Any) -> list[Any]:
    """Send a request and return what is answered."""
    return told(session.answer(json.dumps(request).encode()))


def ask_auth(session: Session, token: object, **more: Any) -> list[Any]:
    """Send a token and return what is answered."""
    return ask(session, event="auth", token=token, **more)


NUMBERED = Manner(numbered=True)


def test_an_id_comes_back() -> None:
    """With replies and with errors, whoever makes them; without one all is as in Rango."""
    desk, _ = make_desk()
    session = make_session(desk)
    assert ask(session, event="subscribe", streams=["a.b"], id=1) == [
        {**held("subscribed", "a.b"), "id": 1}
    ]
    assert ask(session, event="subscribe", streams=[]) == [held("subscribed", "a.b")]
    assert ask(session, event="subscribe", streams=[], id="x") == [
        {**held("subscribed", "a.b"), "id": "x"}
    ]
    (error,) = ask(session, event="subscribe", streams=[*"cdefg"], id=2)
    assert error == {"error": "Too many streams: the limit is 5", "id": 2}
    assert ask(session, event="unsubscribe", streams=["a.b"], id=3) == [
        {**held("unsubscribed"), "id": 3}
    ]
    assert ask(session, event="what", id=4) == [
        {"error": "Could not parse Type: Invalid event", "id": 4}
    ]


def test_list_and_time() -> None:
    """What is held, and when it is."""
    desk, _ = make_desk()
    session = make_session(desk, "ID1")
    session.subscribe(("order", "a.b"))
    assert ask(session, event="list", id=7) == [{**held("list", "a.b", "order"), "id": 7}]
    assert ask(session, event="time") == [{"success": {"message": "time", "time": AT}}]


def test_a_snapshot_is_a_replay_of_what_is_held() -> None:
    """Books that are not held, not there or no books are passed over, and none is subscribed."""
    desk, flushed = make_desk()
    session = make_session(desk)
    session.subscribe(("m.ob-inc", "n.ob-inc", "m.trades"))
    for key in ("public.m.ob-snap", "public.m.ob-inc", "public.x.ob-snap"):
        desk.hub.publish(key, b"1", AT)
    flushed.clear()
    names = ["m.trades", "x.ob-inc", "n.ob-inc", "m.ob-inc"]
    assert ask(session, event="snapshot", streams=names) == [[1, 1], held("snapshot", "m.ob-inc")]
    assert flushed == [session]
    assert list(session.streams) == ["m.ob-inc", "n.ob-inc", "m.trades"]


def test_errors_have_numbers_for_who_knows_them() -> None:
    """And what may not be had is an error instead of a notice or silence; the rest is had."""
    desk, _ = make_desk()
    session = make_session(desk, None, "", NUMBERED)
    assert ask(session, event="subscribe", streams=["a.b", "order", "desk.a.b"], id=1) == [
        {"error": "cannot subscribe to order", "code": 1302, "id": 1},
        {"error": "cannot subscribe to desk.a.b", "code": 1301, "id": 1},
        {**held("subscribed", "a.b"), "id": 1},
    ]
    assert ask(session, event="what") == [
        {"error": "Could not parse Type: Invalid event", "code": 1002}
    ]
    refused = session.admit(6, 0.0)
    assert told([refused]) == [{"error": "Too many requests: the limit is 10/s", "code": 1101}]


def test_one_authenticates_in_band() -> None:
    """Then private and prefixed streams can be had on the same connection."""
    session = make_session(make_open_desk())
    assert ask_auth(session, "one", id=1) == [
        {"success": {"message": "authenticated", "uid": "ID1", "ttl": 900}, "id": 1}
    ]
    assert session.in_band
    assert ask(session, event="subscribe", streams=["order", "admin.a.b"]) == [
        held("subscribed", "admin.a.b", "order")
    ]


def test_a_renewal_is_silent() -> None:
    """The same user keeps all; a role that allows less is told what it keeps."""
    session = make_session(make_open_desk(), "ID1", "admin")
    session.subscribe(("order", "admin.a.b", "a.b"))
    assert len(ask_auth(session, "one")) == 1
    assert list(session.streams) == ["order", "admin.a.b", "a.b"]
    assert ask_auth(session, "one-more", id=2) == [
        {"success": {"message": "authenticated", "uid": "ID1", "ttl": None}, "id": 2},
        held("unsubscribed", "a.b", "order"),
    ]
    assert session.outlet.forgotten == [{"admin.a.b"}]  # type: ignore[attr-defined]  # the test's


def test_another_user_does_not_see_what_the_one_before_held() -> None:
    """Private streams are dropped, told, and what waits of them is left out."""
    desk = make_open_desk()
    moved: list[Any] = []
    desk.move = lambda old, new: not moved.append((old, new))  # type: ignore[func-returns-value]
    session = make_session(desk, "ID1", "admin")
    session.subscribe(("order", "a.b"))
    authenticated, unsubscribed = ask_auth(session, "two")
    assert authenticated["success"]["uid"] == "ID2"
    assert unsubscribed == held("unsubscribed", "a.b")
    assert desk.hub.streams["private"] == {}
    session.subscribe(("order",))
    assert list(desk.hub.streams["private"]) == ["ID2.order"]
    assert moved == [("ID1", "ID2")]


def test_a_user_who_has_all_connections_is_told() -> None:
    """And who it was it stays."""
    desk = make_open_desk()
    desk.move = lambda old, new: False
    session = make_session(desk, "ID1")
    session.subscribe(("order",))
    assert ask_auth(session, "two") == [{"error": "Too many connections of this user"}]
    assert (session.uid, list(session.streams)) == ("ID1", ["order"])


def test_bad_tokens_are_counted() -> None:
    """Each is told why and changes nothing; too many in a row end the connection."""
    session = make_session(make_open_desk(), "ID1", manner=NUMBERED)
    expired = {"error": "authentication failed: expired", "code": 1203}
    malformed = {"error": "authentication failed: malformed", "code": 1201}
    nobody = {"error": "authentication failed: no uid", "code": 1207}
    away = {"error": "authentication failed: unavailable", "code": 1209}
    assert ask_auth(session, "stale") == [expired]
    assert ask_auth(session, 7) == [malformed]
    assert ask_auth(session, "nobody") == [nobody]
    assert ask_auth(session, "stale") == [expired]
    for _ in range(5):
        assert ask_auth(session, "away") == [away], "that is not the client's fault"
    assert session.uid == "ID1"
    with pytest.raises(FatalClientError) as caught:
        ask_auth(session, "stale")
    assert caught.value.reason.code == 4401
    assert told(session.outlet.pushed) == [expired]  # type: ignore[attr-defined]  # the test's


def test_a_good_token_is_a_new_start() -> None:
    """A long life with a few hitches does not add up."""
    session = make_session(make_open_desk())
    for _ in range(3):
        for _ in range(4):
            ask_auth(session, "stale")
        ask_auth(session, "one")


def test_ranger_s_way() -> None:
    """Old bots are answered in their own words."""
    session = make_session(make_open_desk())
    failed = {"error": {"message": "Authentication failed."}}
    assert ask(session, jwt="Bearer stale") == [failed]
    assert ask(session, jwt="one", id=1) == [{**failed, "id": 1}], "the type is missing"
    assert ask(session, jwt=5) == [failed]
    assert ask(session, jwt="Bearer one") == [{"success": {"message": "Authenticated."}}]
    session.subscribe(("order",))
    assert ask(session, jwt="Bearer two") == [
        {"success": {"message": "Authenticated."}},
        held("unsubscribed"),
    ]


@pytest.mark.parametrize("way", ["message", "ranger"])
def test_a_way_that_is_switched_off_is_unknown(way: str) -> None:
    """As it is to Rango."""
    session = make_session(make_open_desk(way))
    unknown = [{"error": "Could not parse Type: Invalid event"}]
    assert (ask_auth(session, "one") == unknown) is (way == "ranger")
    assert (ask(session, jwt="Bearer one") == unknown) is (way == "message")


def test_one_who_left_while_its_token_was_asked_about() -> None:
    """It is counted for nobody else, and answered nothing."""
    desk = make_open_desk()
    session = make_session(desk, "ID1")
    someone = desk.authenticator
    assert isinstance(someone, Someone)

    def lose(token: str) -> Identity:
        session.ended = True
        return Identity("ID2", "", None)

    someone.identify = lose  # type: ignore[method-assign]
    assert ask_auth(session, "two") == []
    assert session.uid == "ID1"


def test_patterns_stand_for_what_matches() -> None:
    """The reply lists what they bring; within the bound on names, and given up together."""
    desk, _ = make_desk()
    desk.hub.patterns = Patterns()
    for index in range(3):
        desk.hub.publish(f"public.{index}.t", b"0", AT)
    session = make_session(desk)
    everything = ["*.t", "0.t", "1.t", "2.t"]
    assert ask(session, event="subscribe", streams=["*.t"]) == [held("subscribed", *everything)]
    desk.hub.publish("public.3.t", b"0", AT)
    reply = held("subscribed", *everything, "3.t")
    assert ask(session, event="subscribe", streams=[]) == [reply]
    assert ask(session, event="unsubscribe", streams=["*.t"]) == [held("unsubscribed")]
    desk.hub.publish("public.4.t", b"0", AT)
    assert ask(session, event="subscribe", streams=["*.t"]) == [
        {"error": "Too many streams: the limit is 5"}
    ]
