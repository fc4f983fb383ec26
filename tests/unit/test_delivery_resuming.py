"""Sessions that come back by a position, with the real hub and dispatcher and without sockets.

The machine at the end has publishers, clients that die in the middle of what they read and come
back, and histories that break or forget. What a client gets must be what it is owed: all of its
streams, in order, each once; unless it was told that nobody knows.
"""

from __future__ import annotations

import json
import time
from collections import deque
from typing import Any

import gevent
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from rango_gevent.auth.identity import Identity
from rango_gevent.delivery import resuming
from rango_gevent.delivery.arrivals import Arrivals
from rango_gevent.delivery.dispatcher import Dispatcher
from rango_gevent.delivery.encoding import POSITIONED, Deflated
from rango_gevent.delivery.session import Desk, Manner, Session, SessionLimits
from rango_gevent.errors import RequestError
from rango_gevent.hub.history import GAP, History, HistoryLimits
from rango_gevent.hub.hub import Hub, HubLimits
from rango_gevent.hub.patterns import Patterns
from rango_gevent.model import Event, Segment, make_position, position_text, stretches
from rango_gevent.protocol.messages import NameLimits

LIMITS = SessionLimits(1000.0, 1000, 1e9, NameLimits(20, 64), replay_events=50)
ROOMY = HistoryLimits(1 << 20, 1000, 1e9)
RESUMES = Manner(resumes=True)


class Queue(deque):  # type: ignore[type-arg]  # of events; Python 3.9 takes no argument here
    """The least that serves as a queue."""

    put_nowait = deque.append
    get_nowait = deque.popleft
    qsize = deque.__len__


class Outlet:
    """Keeps what goes out, message by message."""

    def __init__(self) -> None:
        self.sent: deque[dict[str, Any]] = deque()
        self.is_slow = False
        self.ready = True

    def push(self, part: bytes | Segment) -> None:
        """Keep a reply or a replay."""
        data = part.encoded(POSITIONED) if isinstance(part, Segment) else part
        self.sent += messages_in(data)

    def offer(self, segments: list[Segment]) -> bool:
        """Keep events."""
        for segment in segments:
            self.push(segment)
        return True

    def lag(self, *_: object) -> None:
        """Nobody who comes back by positions is asked."""
        raise AssertionError("events may be left out")

    def forget(self, addresses: set[str]) -> None:
        """Nothing is left out."""

    def too_slow(self) -> None:
        """Take note."""
        self.is_slow = True


def messages_in(data: bytes) -> list[dict[str, Any]]:
    """Return the messages of some frames."""
    found = []
    while data:
        size, start = data[1], 2
        if size == 126:
            size, start = int.from_bytes(data[2:4], "big"), 4
        found.append(json.loads(data[start : start + size]))
        data = data[start + size :]
    return found


class Scene:
    """A hub with a history, a dispatcher, and sessions."""

    def __init__(
        self,
        limits: HistoryLimits = ROOMY,
        *,
        is_own: bool = True,
        hub_limits: HubLimits | None = None,
        patterns: Patterns | None = None,
    ) -> None:
        check = 0xABCD if is_own else None
        self.history = History(limits, lambda: 0.0, check)
        self.hub = Hub(
            allows=lambda prefix, role: prefix == role,
            make_queue=Queue,
            limits=hub_limits,
            patterns=patterns,
            history=self.history,
        )
        self.dispatcher = Dispatcher(self.hub)
        self.waited: list[int] = []
        self.desk = Desk(
            self.hub,
            LIMITS,
            self.dispatcher.flush,
            now=lambda: 0.0,
            move=lambda old, new: True,
            await_position=self.waited.append,
        )

    def come(
        self,
        *names: str,
        since: str | None = None,
        uid: str | None = None,
        manner: Manner = RESUMES,
    ) -> Session:
        """Connect somebody."""
        session = Session(self.desk, Identity(uid, "", None), manner, now_s=0.0)
        session.outlet = Outlet()  # type: ignore[assignment]  # as much of one as is needed
        send(session, session.subscribe(names, since=since))
        return session

    def ask(self, session: Session, **request: Any) -> None:
        """Send a request."""
        send(session, session.answer(json.dumps(request).encode()))

    def publish(self, key: str, body: object, position: int = 0) -> str:
        """Publish; it waits until the dispatcher serves."""
        return self.hub.publish(key, json.dumps(body).encode(), 0.0, position)

    def leave(self, session: Session) -> None:
        """End a session."""
        session.ended = True
        self.hub.drop(session)


def send(session: Session, parts: Any) -> None:
    """Send what a session is answered."""
    for part in parts:
        session.outlet.push(part)


def heard(session: Session) -> list[dict[str, Any]]:
    """Return what was sent since somebody looked."""
    sent = session.outlet.sent  # type: ignore[attr-defined]  # as above
    found = list(sent)
    sent.clear()
    return found


def bodies(found: list[dict[str, Any]]) -> list[Any]:
    """Return the bodies of events, and of replies where they stand by what they say."""
    return [
        message["success"].get("recovered", "anew")
        if "success" in message
        else next(iter(message.values()))
        for message in found
    ]


# -- what waits while somebody subscribes -----------------------------------------------------


def test_a_reply_says_where_everything_stands() -> None:
    """What waited in the hub goes out before it: its position is never behind one that comes."""
    scene = Scene()
    session, other = scene.come("a.t"), scene.come("a.t")
    scene.publish("public.a.t", 1)
    scene.ask(session, event="subscribe", streams=["b.t"])
    scene.publish("public.b.t", 2)
    scene.dispatcher.serve_all()
    found = heard(session)
    assert bodies(found) == ["anew", 1, "anew", 2]
    places = [m["success"]["at"] if "success" in m else m["at"] for m in found]
    assert places == sorted(places, key=lambda text: int(text.split("-")[0]))
    assert places[1] == places[2]
    assert bodies(heard(other)) == ["anew", 1], "others are served as ever"


def test_a_snapshot_says_where_everything_stands_too() -> None:
    """Its own events are older than what the client has seen."""
    scene = Scene()
    scene.come()
    scene.publish("public.m.ob-snap", 1)
    session = scene.come("m.ob-inc", "a.t")
    scene.publish("public.a.t", 2)
    scene.publish("public.m.ob-inc", 3)
    scene.ask(session, event="snapshot", streams=["m.ob-inc"])
    scene.dispatcher.serve_all()
    found = heard(session)
    assert bodies(found) == [1, "anew", 2, 1, 3, "anew"]
    assert found[-1]["success"]["at"] == position_text(scene.history.newest)


def test_who_is_told_where_it_stands_has_all_before() -> None:
    """Also when the notice comes while events wait."""
    scene = Scene()
    session = scene.come("a.t")
    heard(session)
    scene.publish("public.a.t", 1)
    send(session, resuming.notice(session))
    first, notice = heard(session)
    assert first["a.t"] == 1
    assert notice == {"event": "position", "at": first["at"]}
    scene.dispatcher.serve_all()
    assert heard(session) == []


def test_nobody_is_told_of_a_place_that_it_does_not_stand_at_yet() -> None:
    """While it waits for the position that it brought, it has not what it missed."""
    scene = Scene(is_own=False)
    scene.publish("public.a.t", 1, make_position(5, 5))
    told: list[Any] = []

    def meanwhile(position: int) -> None:
        told.append(resuming.notice(session))
        told.append(resuming.broken(session, GAP))

    scene.desk.await_position = meanwhile
    session = Session(scene.desk, Identity(None, "", None), RESUMES, now_s=0.0)
    session.outlet = Outlet()  # type: ignore[assignment]  # as above
    send(session, session.subscribe(("a.t",), since=position_text(make_position(9, 9))))
    assert told == [[], []]
    (reply,) = heard(session)
    assert reply["success"]["reason"] == "ahead"
    assert resuming.notice(session) != []


def test_one_that_left_while_it_waited_is_given_nothing() -> None:
    """And is subscribed to nothing, which nobody would end."""
    scene = Scene()
    session = scene.come("a.t")
    session.ended = True
    assert session.subscribe(("b.t",), since=position_text(scene.history.newest)) == []
    assert list(session.streams) == ["a.t"]


def test_a_refusal_of_all_loses_nothing_that_waited() -> None:
    """The bound on all subscriptions is an error; what the client was due comes as ever."""
    scene = Scene(hub_limits=HubLimits(subscriptions=1))
    session = scene.come("a.t")
    scene.publish("public.a.t", 1)
    with pytest.raises(RequestError, match="server"):
        session.subscribe(("b.t",), since=position_text(scene.history.newest))
    scene.dispatcher.serve_all()
    assert bodies(heard(session)) == ["anew", 1]


# -- books --------------------------------------------------------------------------------------


def test_increments_reach_who_came_back_to_a_book_that_began_elsewhere() -> None:
    """Its snapshot is at the client, not here: newcomers wait for the next one as ever."""
    scene = Scene(is_own=False)
    scene.publish("public.a.t", 0, make_position(1, 1))
    assert scene.publish("public.m.ob-inc", 1, make_position(2, 2)) != "delivered"
    session = scene.come("m.ob-inc", since=position_text(make_position(1, 1)))
    assert bodies(heard(session)) == [1, True]
    scene.publish("public.m.ob-inc", 2, make_position(3, 3))
    scene.dispatcher.serve_all()
    newcomer = scene.come("m.ob-inc", manner=Manner(notices=True))
    assert bodies(heard(session)) == [2]
    assert heard(newcomer)[0] == {"event": "resync", "streams": ["m.ob-inc"]}
    scene.publish("public.m.ob-snap", 3, make_position(4, 4))
    scene.dispatcher.serve_all()
    assert bodies(heard(session)) == bodies(heard(newcomer)) == [3]
    assert scene.hub.shelf.stale == 0


def test_a_book_that_nobody_came_back_to_wants_its_snapshot_first() -> None:
    """As on Rango."""
    scene = Scene()
    scene.come("m.ob-inc")
    assert scene.publish("public.m.ob-inc", 1) == "increment_before_snapshot"


# -- laggards and breaks ------------------------------------------------------------------------


def test_streams_of_a_book_and_private_ones_are_not_mixed_up() -> None:
    """Names choose what is kept: not another user's, and not snapshots by their own name."""
    scene = Scene()
    at = heard(scene.come())[0]["success"]["at"]
    scene.publish("public.m.ob-snap", 1)
    scene.publish("private.ID1.order", 2)
    scene.publish("private.ID2.order", 3)
    scene.publish("public.ID1.order", 4)
    assert bodies(heard(scene.come("m.ob-snap", since=at))) == [True]
    assert bodies(heard(scene.come("order", since=at))) == [True]
    assert bodies(heard(scene.come("order", since=at, uid="ID1"))) == [2, True]
    assert bodies(heard(scene.come("ID1.order", since=at))) == [4, True]
    assert bodies(heard(scene.come("m.ob-inc", "order", since=at, uid="ID2"))) == [1, 3, True]


def test_what_does_not_fit_into_a_queue_is_told() -> None:
    """The hub says which stream's subscribers miss an event, before anything follows."""
    scene = Scene(hub_limits=HubLimits(queue_frames=2))
    missed: list[str] = []
    scene.hub.on_overflow = lambda stream: missed.append(stream.address)
    scene.come("a.t")
    for number in range(3):
        scene.publish("public.a.t", number)
    assert missed == ["a.t"]


def test_arrivals_wake_whom_an_event_reaches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others wait on, and no more of them than may."""
    monkeypatch.setattr("rango_gevent.delivery.arrivals._WAIT_S", 60.0)
    scene = Scene(is_own=False)
    scene.publish("public.a.t", 0, make_position(1, 1))
    arrivals = Arrivals(scene.history, most=2)
    one, two = (gevent.spawn(arrivals.wait, make_position(number, 0)) for number in (3, 9))
    gevent.sleep(0.05)
    assert len(arrivals) == 2
    with gevent.Timeout(20):
        arrivals.wait(make_position(50, 0))  # one too many: at once
        arrivals.wait(make_position(1, 0))  # here already
        scene.publish("public.a.t", 1, make_position(5, 5))
        one.join()
        assert not two.dead
        scene.publish("public.a.t", 2, make_position(9, 9))
        two.join()


def test_arrivals_wait_for_a_while_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """And nobody looks for them any more when the last has given up."""
    monkeypatch.setattr("rango_gevent.delivery.arrivals._WAIT_S", 0.1)
    scene = Scene(is_own=False)
    scene.publish("public.a.t", 0, make_position(1, 1))
    arrivals = Arrivals(scene.history)
    began_s = time.monotonic()
    with gevent.Timeout(20):
        arrivals.wait(make_position(9, 0))
        assert time.monotonic() - began_s >= 0.1
        while len(arrivals) or arrivals._looks:
            gevent.sleep(0.01)


# -- encodings ------------------------------------------------------------------------------------


def test_an_event_without_a_position_is_sent_without() -> None:
    """While there is no log to read."""
    assert POSITIONED.frame(Event(1, b'\x81\x07{"a":1}', 6, 0.0)) == b'\x81\x07{"a":1}'


def test_what_is_replayed_is_compressed_once() -> None:
    """As long as there is room to keep it."""
    packed: list[bytes] = []

    def pack(frame: bytes) -> bytes:
        packed.append(frame)
        return frame[:2]

    encoding = Deflated(pack, POSITIONED, kept_bytes=1000)
    frames = [bytes([number]) * 50 for number in range(3)]
    for _ in range(3):
        assert b"".join(s.encoded(encoding) for s in stretches(frames)) == b"\0\0\1\1\2\2"
    assert packed == frames
    encoding.rejoined([bytes([number]) * 50 for number in range(3, 9)])
    encoding.rejoined(frames[:1])
    assert packed[-1] == frames[0], "it was forgotten for want of room"
    event = Event(1, b'\x81\x07{"a":1}', 6, 0.0, make_position(1, 1))
    assert encoding.frame(event) == encoding.frame(event)
    assert packed.count(POSITIONED.frame(event)) == 1


# -- against a model ------------------------------------------------------------------------------

KEYS = ["public.a.t", "public.b.t", "public.c.u", "private.ID1.order", "private.ID2.order"]
NAMES = ["a.t", "b.t", "c.u", "order"]


def name_of(key: str) -> str:
    """Return the name under which a key's events are held."""
    return "order" if key.startswith("private") else key.partition(".")[2]


class Person:
    """A client, and what the model knows of it."""

    def __init__(self, uid: str) -> None:
        self.uid = uid
        self.session: Session | None = None
        self.names: set[str] = set()
        self.owed: deque[int] = deque()  # numbers of events, in order
        self.position: str | None = None

    def wants(self, key: str) -> bool:
        """Tell whether an event is one of its own."""
        if key.startswith("private"):
            return "order" in self.names and f".{self.uid}." in key
        return name_of(key) in self.names


class ResumeMachine(RuleBasedStateMachine):
    """Operations on the hub and on sessions, each followed in the model."""

    @initialize(is_own=st.booleans())
    def start(self, is_own: bool) -> None:
        """Begin with some people who hold nothing."""
        self.is_own = is_own
        self.scene = Scene(HistoryLimits(1 << 20, 20, 1e9), is_own=is_own)
        self.people = [Person("ID1"), Person("ID2"), Person("ID1")]
        self.number = self.place = 0
        self.counts: dict[str, int] = {"recovered": 0, "lost": 0}

    def person(self, who: int) -> Person:
        """Return somebody, who is connected from now on."""
        person = self.people[who]
        if person.session is None:
            self.come_back(who, 1000)
        return person

    @rule(keys=st.lists(st.sampled_from(KEYS), min_size=1, max_size=8), hole=st.integers(0, 2))
    def publish(self, keys: list[str], hole: int) -> None:
        """Publish; a log has holes."""
        self.place += hole
        for key in keys:
            self.number += 1
            self.place += 1
            position = 0 if self.is_own else make_position(self.place, self.place * 7 % 1000)
            self.scene.publish(key, self.number, position)
            self.owe(key)

    def owe(self, key: str) -> None:
        """Owe an event to all who want it, be they connected or not."""
        for person in self.people:
            if person.wants(key):
                person.owed.append(self.number)

    @rule(is_time=st.integers(0, 9).map(lambda n: n == 0))
    def stall(self, is_time: bool) -> None:
        """Publish without a position, where a log gives them."""
        if is_time and not self.is_own:
            self.number += 1
            self.scene.publish("public.a.t", self.number, 0)
            self.owe("public.a.t")

    @rule(is_time=st.integers(0, 9).map(lambda n: n == 0))
    def break_off(self, is_time: bool) -> None:
        """Lose the history, as when the broker was lost; who is connected is told."""
        if not is_time:
            return
        self.scene.history.clear(GAP)
        for person in self.people:
            if person.session is not None:
                send(person.session, resuming.broken(person.session, GAP))

    @rule()
    def serve(self) -> None:
        """Let the dispatcher hand out what waits."""
        self.scene.dispatcher.serve_all()

    @rule(who=st.integers(0, 2), names=st.lists(st.sampled_from(NAMES), min_size=1, unique=True))
    def subscribe(self, who: int, names: list[str]) -> None:
        """Hold more, from now on."""
        person = self.person(who)
        self.read(person)
        assert person.session is not None
        self.scene.ask(person.session, event="subscribe", streams=names)
        self.read(person)
        person.names.update(names)

    @rule(who=st.integers(0, 2), name=st.sampled_from(NAMES))
    def unsubscribe(self, who: int, name: str) -> None:
        """Hold less; what had not come by then does not come."""
        person = self.person(who)
        assert person.session is not None
        self.scene.ask(person.session, event="unsubscribe", streams=[name])
        before = person.names
        person.names = before - {name}
        self.serve()
        self.read(person, given_up=name)

    @rule(who=st.integers(0, 2))
    def ask_where(self, who: int) -> None:
        """Be told where one stands, as with a ping."""
        person = self.person(who)
        assert person.session is not None
        send(person.session, resuming.notice(person.session))

    @rule(who=st.integers(0, 2), count=st.integers(0, 30))
    def die(self, who: int, count: int) -> None:
        """Read some of what was sent, and lose the rest with the connection."""
        person = self.people[who]
        if person.session is not None:
            self.read(person, count)
            self.scene.leave(person.session)
            person.session = None

    @rule(who=st.integers(0, 2), count=st.sampled_from([1000, 1000, 0, 1, 5]))
    def come_back(self, who: int, count: int) -> None:
        """Connect again by the last position; perhaps die again while it is answered."""
        person = self.people[who]
        if person.session is not None:
            self.die(who, count)
        names = sorted(person.names)
        self.is_fresh = person.position is None
        person.session = self.scene.come(*names, since=person.position, uid=person.uid)
        self.at_reply = self.number
        if count < 1000:
            self.die(who, count)
        else:
            self.read(person)

    def read(self, person: Person, count: int = 1000, given_up: str = "") -> None:
        """Read messages and compare each event with what is owed first."""
        assert person.session is not None
        sent = person.session.outlet.sent  # type: ignore[attr-defined]  # as above
        while sent and count:
            count -= 1
            message = sent.popleft()
            if "success" in message:
                self.read_reply(person, message["success"])
            elif "event" in message:
                person.position = message["at"]
            else:
                self.read_event(person, message, given_up)
        if given_up:
            person.owed.clear()  # all that was due of the others has been read

    def read_event(self, person: Person, message: dict[str, Any], given_up: str) -> None:
        """Take one event: the first of those owed, but for a stream that is given up."""
        number = next(iter(message.values()))
        assert person.owed, f"{number} is not owed"
        if given_up:
            while person.owed[0] < number:
                person.owed.popleft()
        assert person.owed.popleft() == number
        person.position = message.get("at", person.position)

    def read_reply(self, person: Person, told: dict[str, Any]) -> None:
        """Take a reply: where nobody knows what was missed, nothing before it is owed."""
        if told["message"] != "subscribed":
            return
        recovered = told.get("recovered")
        if recovered is False or (recovered is None and self.is_fresh):
            assert recovered is None or told["reason"]
            self.counts["lost"] += 1
            person.owed = deque(n for n in person.owed if n > self.at_reply)
        elif recovered:
            self.counts["recovered"] += 1
            assert not [n for n in person.owed if n <= self.at_reply], "all that was missed came"
        self.is_fresh = False
        person.position = told["at"]

    @invariant()
    def whoever_is_served_has_all(self) -> None:
        """Once everything was handed out, those who are connected are owed nothing."""
        if not hasattr(self, "scene") or not self.scene.dispatcher.idle:
            return
        for person in self.people:
            if person.session is not None:
                owed = [
                    next(iter(message.values()))
                    for message in person.session.outlet.sent  # type: ignore[attr-defined]
                    if "success" not in message and "event" not in message
                ]
                assert list(person.owed) == owed


TestResume = ResumeMachine.TestCase
TestResume.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
