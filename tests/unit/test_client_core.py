"""The client without sockets: a core, a clock that is moved by hand, and a gateway's words."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rango_gevent.client.core import Core
from rango_gevent.client.limiter import TokenBucket
from rango_gevent.client.link import TRANSITIONS, Link
from rango_gevent.client.model import (
    AUTHENTICATING,
    CLOSED,
    CONNECTING,
    DRAINING,
    IDLE,
    LIVE,
    ConnectionLost,
    Event,
    Gap,
    Limits,
    NotNow,
    StateChange,
)
from rango_gevent.client.plan import Plan
from rango_gevent.client.wanted import Wanted
from rango_gevent.client.wire import End, Reply
from rango_gevent.errors import Refused
from rango_gevent.protocol import close
from rango_gevent.protocol.refusals import ORIGIN

GREETING = '{"success":{"message":"subscribed","streams":[]}}'
RATED = "Too many requests: the limit is 50/s"
INVALID = "Could not parse Type: Invalid event"


class Sink:
    """Keeps what it is given; has room for so many."""

    def __init__(self, room: int = 10**9) -> None:
        self.events: list[Event] = []
        self.room = room
        self.dropped = 0
        self.losses: list[str] = []

    def offer(self, number: int, event: Event) -> bool:
        """Take an event if there is room."""
        if len(self.events) >= self.room:
            return False
        self.events.append(event)
        return True

    def waiting(self) -> tuple[int, float | None]:
        """Return what waits."""
        return len(self.events), self.events[0].received_at_s if self.events else None

    def lost(self, reason: str) -> None:
        """Keep the reason."""
        self.losses.append(reason)

    def paused(self, reason: str) -> bool:
        """Go on wherever it stands."""
        return True

    def resumed(self, recovered: bool) -> None:
        """Need nothing."""


class Scene:
    """A core and what stands around it.

    Attributes:
        told: what listeners heard.
        sent: requests by connection, parsed.
    """

    def __init__(self, *, echoes: bool = True, **more: Any) -> None:
        self.now_s = 1000.0
        self.echoes = echoes
        self.sent: list[tuple[int, Any]] = []
        self.told: list[Any] = []
        limits = Limits()._replace(**more.pop("limits", {}))
        bucket = more.pop("bucket", None)
        plan = Plan(**{"urls": ["ws://one/public"], **more})
        self.core = Core(plan, limits, random.Random(1), lambda link: None, bucket)
        hooks = self.core.hooks
        for hook in (hooks.state, hooks.gap, hooks.stale):
            hook.append(self.told.append)  # type: ignore[arg-type]

    @property
    def link(self) -> Link:
        """Return the first connection."""
        return self.core.pool.links[0]

    def want(self, name: str, **more: Any) -> tuple[Wanted, Sink]:
        """Want a stream."""
        sink = Sink(more.pop("room", 10**9))
        return self.core.want(name, sink, **more), sink

    def live(self, link: Link | None = None) -> Link:
        """Bring a connection to life."""
        link = link or self.link
        self.core.dialled(link)
        self.core.opened(link, self.now_s, None)
        self.hear(GREETING, link)
        return link

    def hear(self, text: str, link: Link | None = None) -> Any:
        """Let a message arrive."""
        full = self.core.received(link or self.link, text, self.now_s, self.now_s + 1e9)
        self.tell()
        return full

    def tell(self) -> None:
        """Call the listeners."""
        while self.core.news:
            listener, args = self.core.news.popleft()
            listener(*args)

    def send(self, link: Link | None = None) -> list[Any]:
        """Let what is due go out, and return it parsed; a ping as it is."""
        link = link or self.link
        texts = self.core.due(link, self.now_s)
        self.tell()
        sent = [json.loads(text) if text != "ping" else text for text in texts]
        self.sent += [(link.number, request) for request in sent if request != "ping"]
        return sent

    def reply(self, request: Any, *held: str, link: Link | None = None, **more: Any) -> None:
        """Answer a request for names with what is held."""
        word = {"subscribe": "subscribed", "unsubscribe": "unsubscribed"}.get(request["event"])
        success = {"message": word or request["event"], "streams": held, **more}
        self.answer(request, {"success": success}, link)

    def answer(self, request: Any, answer: dict[str, Any], link: Link | None = None) -> None:
        """Answer a request."""
        number = {"id": request["id"]} if self.echoes else {}
        self.hear(json.dumps({**answer, **number}), link)

    def lose(self, end: End = End("cut"), link: Link | None = None) -> None:  # noqa: B008 - a tuple
        """Cut a connection."""
        self.core.lost(link or self.link, end, self.now_s)
        self.tell()

    def states(self, number: int = 0) -> list[str]:
        """Return the states of a connection that were told."""
        return [
            one.state
            for one in self.told
            if isinstance(one, StateChange) and one.connection == number
        ]

    def gaps(self) -> list[Gap]:
        """Return the gaps that were told."""
        return [one for one in self.told if isinstance(one, Gap)]


# -- states -------------------------------------------------------------------------------------


def test_a_life_in_states() -> None:
    """Dialled, greeted, cut, dialled again, closed with a goodbye."""
    scene = Scene()
    scene.live()
    scene.lose()
    assert scene.link.dial_at_s >= scene.now_s
    scene.live()
    scene.core.close()
    assert scene.link.farewell == (1000, "")
    scene.lose(End("closed", 1000, close.NOW))
    assert scene.states() == [
        CONNECTING, AUTHENTICATING, LIVE, IDLE, CONNECTING, AUTHENTICATING, LIVE, DRAINING, CLOSED,
    ]  # fmt: skip
    assert scene.core.has_ended
    assert scene.core.error is None


def test_every_state_has_a_way_out() -> None:
    """The table is whole, and only the last state is for good."""
    assert set(TRANSITIONS) == {IDLE, CONNECTING, AUTHENTICATING, LIVE, DRAINING, CLOSED}
    assert [state for state, ways in TRANSITIONS.items() if not ways] == [CLOSED]


@pytest.mark.parametrize("moment", ["before", "dialling", "greeting"])
def test_closing_at_any_moment(moment: str) -> None:
    """It ends, at once or with the attempt that is under way."""
    scene = Scene()
    if moment != "before":
        scene.core.dialled(scene.link)
    if moment == "greeting":
        scene.core.opened(scene.link, scene.now_s, None)
    scene.core.close()
    if moment != "before":
        scene.lose()
    assert scene.link.state == CLOSED
    assert scene.core.has_ended


def test_a_dial_that_succeeds_after_the_end_is_left() -> None:
    """It was under way when the client was closed."""
    scene = Scene()
    scene.core.dialled(scene.link)
    scene.core.close()
    scene.core.opened(scene.link, scene.now_s, None)
    assert scene.link.state == DRAINING
    assert scene.link.farewell == (1000, "")


def test_the_first_dial_is_tried_again_like_any_other() -> None:
    """With waits that grow to the cap, each one random."""
    scene = Scene(limits={"first_wait_s": 1.0, "max_wait_s": 4.0})
    waits = []
    for _ in range(200):
        scene.core.dialled(scene.link)
        scene.lose()
        waits.append(scene.link.dial_at_s - scene.now_s)
    assert waits[0] <= 1.0
    assert 3.5 < max(waits) <= 4.0
    assert min(waits[2:]) < 0.5  # full jitter: from nothing up


def test_retry_after_is_obeyed() -> None:
    """Never sooner than asked, and not all at that very moment."""
    scene = Scene()
    waits = set()
    for _ in range(20):
        scene.core.dialled(scene.link)
        scene.lose(End("busy", 503, close.LATER, retry_after_s=7.0))
        waits.add(scene.link.dial_at_s - scene.now_s)
    assert min(waits) >= 7.0
    assert len(waits) > 10


def test_waits_begin_anew_after_a_good_connection() -> None:
    """One that lived for long enough was good; one that did not was none."""
    scene = Scene(limits={"steady_s": 10.0, "max_wait_s": 1024.0})
    for _ in range(9):
        scene.live()
        scene.lose()
    assert scene.link._backoff._longest_s == 512.0
    scene.live()
    scene.now_s += 10
    scene.lose()
    assert scene.link._backoff._longest_s == 2.0


def test_failover_goes_through_all_urls() -> None:
    """The next attempt goes to the next gateway; only all of them together can refuse for good."""
    scene = Scene(urls=["ws://one", "ws://two"])
    no = End("no", 403, close.NEVER, None, Refused(ORIGIN))
    assert scene.core.dialled(scene.link) == "ws://one?notices=1&resume=1"
    scene.lose(no)
    assert scene.core.dialled(scene.link) == "ws://two?notices=1&resume=1"
    scene.lose(End("cut"))
    assert scene.core.dialled(scene.link) == "ws://one?notices=1&resume=1"
    scene.lose(no)
    scene.core.dialled(scene.link)
    scene.lose(no)
    assert scene.link.state == CLOSED
    assert isinstance(scene.core.error, Refused)


# -- liveness -----------------------------------------------------------------------------------


def test_silence_is_asked_and_given_up() -> None:
    """Exactly when it is due, and not before; any word in between counts."""
    scene = Scene(limits={"idle_s": 30.0, "pong_s": 10.0})
    scene.live()
    assert scene.core.next_at_s(scene.link) == scene.now_s + 30
    scene.now_s += 29.9
    assert scene.send() == []
    scene.now_s += 0.1
    assert scene.send() == ["ping"]
    assert scene.core.next_at_s(scene.link) == scene.now_s + 10
    scene.now_s += 9.9
    scene.hear('{"a.b":1}')
    assert scene.core.next_at_s(scene.link) == scene.now_s + 30
    scene.now_s += 30
    assert scene.send() == ["ping"]
    scene.now_s += 10
    assert scene.send() == []
    assert scene.link.farewell == (1000, "")
    scene.lose()
    assert scene.told[-1].reason == "the server is silent"


def test_a_pong_is_measured() -> None:
    """The time that it took is told, and kept."""
    scene = Scene()
    latencies: list[tuple[str, float]] = []
    scene.core.hooks.latency.append(lambda what, seconds: latencies.append((what, seconds)))
    scene.live()
    scene.now_s += 30
    scene.send()
    scene.now_s += 0.25
    scene.hear("pong")
    assert latencies == [("ping", 0.25)]
    assert scene.core.stats(0).connections[0].latency_s == 0.25


def test_a_gateway_without_a_word_is_left() -> None:
    """A handshake alone is no gateway."""
    scene = Scene(limits={"open_s": 5.0})
    scene.core.dialled(scene.link)
    scene.core.opened(scene.link, scene.now_s, None)
    scene.now_s += 5
    scene.send()
    assert scene.link.farewell is not None
    scene.lose()
    assert scene.told[-1].reason == "the server says no word"


def test_a_subscription_without_an_answer_is_no_connection() -> None:
    """Data flows, but what was asked for never comes: dial again."""
    scene = Scene(limits={"reply_s": 20.0})
    scene.want("a.b")
    scene.live()
    scene.send()
    for _ in range(4):
        scene.now_s += 5
        scene.hear('{"x.y":1}')
    scene.send()
    scene.lose()
    assert scene.told[-1].reason == "a subscription was not answered"


def test_a_quiet_stream_is_told_and_no_more_than_asked_about() -> None:
    """At its moment, once until it speaks again; the connection is asked for a sign of life."""
    scene = Scene(limits={"idle_s": 1000.0})
    scene.want("a.b", stale_after_s=60.0)
    scene.live()
    (request,) = scene.send()
    scene.reply(request, "a.b")
    assert scene.core.next_at_s(scene.link) == scene.now_s + 60
    scene.now_s += 60
    assert scene.send() == ["ping"]
    scene.hear("pong")
    assert scene.told[-1] == "a.b"
    scene.now_s += 100
    assert scene.send() == []
    scene.hear('{"a.b":1}')
    scene.now_s += 60
    scene.send()
    assert scene.told.count("a.b") == 2
    assert scene.link.state == LIVE


# -- subscriptions ------------------------------------------------------------------------------


def test_wishes_are_joined_and_come_back() -> None:
    """What is wanted before the connection goes in one request, after each connect again."""
    scene = Scene()
    streams = [scene.want(name)[0] for name in ("a.b", "c.d")]
    assert scene.send() == []
    for _ in range(2):
        scene.live()
        (request,) = scene.send()
        assert request["streams"] == ["a.b", "c.d"]
        assert [one.state for one in streams] == ["pending"] * 2
        scene.reply(request, "a.b", "c.d")
        assert [one.state for one in streams] == ["active"] * 2
        assert scene.send() == []
        scene.lose()


def test_events_go_to_who_wants_them() -> None:
    """A prefixed stream's come without its scope, a book's snapshot under its own name."""
    scene = Scene()
    sinks = [scene.want(name)[1] for name in ("a.b", "admin.x.y", "m.ob-inc")]
    scene.live()
    for text in ('{"a.b":1}', '{"x.y":{"n": 2}}', '{"m.ob-snap":3}', '{"m.ob-inc":4}', '{"z.z":5}'):
        assert scene.hear(text) == []
    assert [[(one.stream, one.body) for one in sink.events] for sink in sinks] == [
        [("a.b", "1")],
        [("x.y", '{"n": 2}')],
        [("m.ob-snap", "3"), ("m.ob-inc", "4")],
    ]
    assert scene.core.stats(0).events == 4


def test_patterns_take_what_matches() -> None:
    """By kind and by market; a book's snapshot too, and no private stream."""
    scene = Scene()
    names = ("*.trades", "a.*", "*.ob-inc", "a.trades")
    sinks = [scene.want(name)[1] for name in names]
    scene.live()
    for name in ("a.trades", "b.trades", "a.ob-snap", "b.ob-snap", "trades", "a"):
        scene.hear(f'{{"{name}":1}}')
    assert [[event.stream for event in sink.events] for sink in sinks] == [
        ["a.trades", "b.trades"],
        ["a.trades", "a.ob-snap"],
        ["a.ob-snap", "b.ob-snap"],
        ["a.trades"],
    ]
    for stream, sink in [(scene.link.wanted[name], sink) for name, sink in zip(names, sinks)]:
        scene.core.unwant(stream, sink)
    scene.hear('{"a.trades":1}')
    assert len(sinks[0].events) == 2


def test_what_finds_no_room_comes_back() -> None:
    """The front has to offer it again: nothing is lost."""
    scene = Scene()
    _, sink = scene.want("a.b", room=0)
    scene.live()
    ((full, number, event),) = scene.hear('{"a.b":1}')
    assert full is sink
    sink.room = 1
    assert sink.offer(number, event)


def test_one_refused_stream_fails_alone() -> None:
    """A list that is refused as a whole is asked for in halves, down to the one at fault."""
    scene = Scene()
    names = [f"s{n}.x" for n in range(8)]
    streams = {name: scene.want(name)[0] for name in names}
    scene.live()
    held: list[str] = []
    for _ in range(30):
        for request in scene.send():
            if "s5.x" in request["streams"]:
                scene.answer(request, {"error": "Stream name too long"})
            else:
                held += request["streams"]
                scene.reply(request, *held)
    assert {name for name, one in streams.items() if one.state == "active"} == {*names} - {"s5.x"}
    assert str(streams["s5.x"].error) == "not subscribed to s5.x: Stream name too long"


@pytest.mark.parametrize("echoes", [True, False])
def test_a_missing_name_is_a_refusal(echoes: bool) -> None:
    """Rango leaves out in silence what may not be had."""
    scene = Scene(echoes=echoes)
    public, private = scene.want("a.b")[0], scene.want("order")[0]
    scene.live()
    (request,) = scene.send()
    scene.reply(request, "a.b")
    assert (public.state, private.state) == ("active", "refused")
    assert str(private.error) == "not subscribed to order: that needs a token"


def test_too_many_requests_wait() -> None:
    """An answer that the pace was too high is no refusal."""
    scene = Scene()
    stream, _ = scene.want("a.b")
    scene.live()
    (request,) = scene.send()
    scene.answer(request, {"error": RATED})
    assert scene.send() == []
    assert scene.core.next_at_s(scene.link) == scene.now_s + 1
    scene.now_s += 1
    (again,) = scene.send()
    scene.reply(again, "a.b")
    assert stream.state == "active"


def test_requests_are_paced() -> None:
    """A thousand wishes are a few requests, and no more of them than the bucket gives."""
    scene = Scene(limits={"requests_per_s": 2.0, "requests_burst": 3})
    for n in range(200):
        scene.want(f"market{n:03}.trades")
    scene.live()
    first = scene.send()
    assert len(first) == 3
    assert scene.core.next_at_s(scene.link) == pytest.approx(scene.now_s + 0.5)
    scene.now_s += 1
    assert len(scene.send()) == 2
    scene.now_s += 60
    while scene.send():
        scene.now_s += 1
    asked = [name for _, request in scene.sent for name in request["streams"]]
    assert asked == [f"market{n:03}.trades" for n in range(200)]
    assert len(scene.sent) < 20


def test_a_bucket_of_all_connections() -> None:
    """It bounds them together."""
    scene = Scene(per_connection=1, bucket=TokenBucket(1.0, 2))
    for n in range(4):
        scene.want(f"s{n}.x")
    links = [scene.live(link) for link in scene.core.pool.links]
    assert sum(len(scene.send(link)) for link in links) == 2


def test_unwanted_is_unsubscribed_and_forgotten() -> None:
    """The last one who lets go unsubscribes; a wish that was not sent is not."""
    scene = Scene()
    stream, sink = scene.want("a.b")
    other = scene.core.want("a.b", again := Sink())
    assert other is stream
    scene.live()
    scene.reply(scene.send()[0], "a.b")
    scene.core.unwant(stream, sink)
    assert scene.send() == []
    scene.core.unwant(stream, again)
    (request,) = scene.send()
    assert (request["event"], request["streams"]) == ("unsubscribe", ["a.b"])
    scene.core.unwant(*scene.want("c.d"))
    assert scene.send() == []
    scene.lose()
    scene.live()
    assert scene.send() == []


def test_a_list_after_a_change_of_identity_is_heard() -> None:
    """What the gateway took away is a refusal, without a request having asked."""
    scene = Scene()
    kept, gone = scene.want("a.b")[0], scene.want("order")[0]
    scene.live()
    scene.reply(scene.send()[0], "a.b", "order")
    scene.hear('{"success":{"message":"unsubscribed","streams":["a.b"]}}')
    assert (kept.state, gone.state) == ("active", "refused")


def test_a_private_stream_may_be_called_error() -> None:
    """Its events are events for who wants it."""
    scene = Scene()
    _, sink = scene.want("error")
    scene.live()
    scene.reply(scene.send()[0], "error")
    scene.hear('{"error":"text"}')
    assert [one.body for one in sink.events] == ['"text"']


@pytest.mark.parametrize("text", ["", "x", "[]", "{}", '{"event":"?"}', '{"success":1}', '{"a'])
def test_garbage_is_counted(text: str) -> None:
    """And nothing else comes of it."""
    scene = Scene()
    scene.live()
    scene.hear(text)
    assert scene.core.stats(0).garbage == 1
    assert scene.link.state == LIVE


# -- gaps and resume ----------------------------------------------------------------------------


def test_a_gap_is_told_when_it_ends() -> None:
    """From when to when, of which streams and why; a stream that was never held has none."""
    scene = Scene()
    scene.want("a.b")
    scene.live()
    scene.reply(scene.send()[0], "a.b")
    lost_at_s = scene.now_s  # the last word from it
    scene.now_s += 3
    scene.lose(End("the connection was cut"))
    scene.want("c.d")
    scene.now_s += 5
    scene.live()
    (request,) = scene.send()
    scene.reply(request, "a.b", "c.d")
    assert scene.gaps() == [
        Gap(("a.b",), lost_at_s + 1e9, lost_at_s + 8 + 1e9, "the connection was cut")
    ]
    assert scene.core.stats(0).gaps == 1


def test_a_position_is_kept_and_come_back_by() -> None:
    """Recovered is no gap; not recovered is one, with the gateway's reason."""
    scene = Scene(resume=True)
    _, sink = scene.want("a.b")
    assert "resume=1" in scene.core.dialled(scene.link)
    scene.core.opened(scene.link, scene.now_s, None)
    scene.hear('{"success":{"message":"subscribed","streams":[],"at":"1-a"}}')
    scene.reply(scene.send()[0], "a.b", at="1-a")
    scene.hear('{"a.b":{"n":1},"at":"2-b"}')
    scene.lose()
    for number, (since, recovered) in enumerate((("2-b", True), ("5-e", False))):
        scene.core.dialled(scene.link)
        scene.core.opened(scene.link, scene.now_s, None)
        scene.hear('{"success":{"message":"subscribed","streams":[],"at":"9-z"}}')
        (request,) = scene.send()
        assert request["since"] == since
        if recovered:
            scene.hear('{"a.b":{"n":2},"at":"4-d"}')
        scene.reply(request, "a.b", at="5-e", recovered=recovered, reason="too_old")
        assert len(scene.gaps()) == number
        scene.lose()
    assert scene.gaps()[0].reason == "too_old"
    assert [one.body for one in sink.events] == ['{"n":1}', '{"n":2}']
    assert scene.core.stats(0).recovered == 1


def test_a_position_is_not_asked_of_who_knows_none() -> None:
    """Rango ignores the parameter: bodies are left alone, nothing is sent with a request."""
    scene = Scene(resume=True)
    _, sink = scene.want("a.b")
    bodies = ['{"x":1,"at":"2-b"}', '"1,\\"at\\":\\"2-b\\""', '["at","2-b"]']
    for _ in range(2):
        scene.live()
        (request,) = scene.send()
        assert "since" not in request
        scene.reply(request, "a.b")
        for body in bodies:
            scene.hear(f'{{"a.b":{body}}}')
        scene.lose()
    assert [event.body for event in sink.events] == bodies * 2
    scene.live()
    scene.reply(scene.send()[0], "a.b")
    assert [gap.reason for gap in scene.gaps()] == ["cut"] * 2


def test_resume_can_be_switched_off() -> None:
    """Nothing is asked, nothing is taken off a body, and the URL's own streams stay there."""
    scene = Scene(resume=False, urls=["ws://one/public?stream=a.b&x=1"])
    url = scene.core.dialled(scene.link)
    assert url == "ws://one/public?stream=a.b&x=1&notices=1"
    scene = Scene(urls=["ws://one/public?stream=a.b&x=1"])
    assert scene.core.dialled(scene.link) == "ws://one/public?x=1&notices=1&resume=1"


# -- requests -----------------------------------------------------------------------------------


def ask(scene: Scene, request: dict[str, Any], **more: Any) -> list[Any]:
    """Send a request; what comes of it is in the list."""
    outcome: list[Any] = []
    scene.core.asker.request(scene.link, request, outcome.append, scene.now_s, **more)
    return outcome


def test_answers_are_matched_by_id() -> None:
    """In whatever order they come."""
    scene = Scene()
    scene.live()
    outcomes = [ask(scene, {"event": "list"}), ask(scene, {"event": "time", "id": "mine"})]
    first, second = scene.send()
    assert second["id"] == "mine"
    scene.answer(second, {"success": {"message": "time", "time": 1}})
    scene.answer(first, {"success": {"message": "list", "streams": []}})
    assert [outcome[0][0].message for outcome in outcomes] == ["list", "time"]


def test_answers_are_matched_by_order_where_no_id_comes_back() -> None:
    """Rango's errors belong to the oldest request, its successes to the oldest of their kind."""
    scene = Scene(echoes=False)
    stream, _ = scene.want("a.b")
    scene.live()
    outcome = ask(scene, {"event": "list"})
    listing, subscribing = scene.send()
    scene.answer(listing, {"error": INVALID})
    scene.reply(subscribing, "a.b")
    assert outcome[0][0].error == INVALID
    assert stream.state == "active"


def test_several_answers() -> None:
    """So many, or until one is the last; an error is always the last."""
    scene = Scene()
    scene.live()
    two = ask(scene, {"event": "x"}, answers=2)
    until = ask(scene, {"event": "x"}, until=lambda reply: reply["success"].get("last"))
    failing = ask(scene, {"event": "x"}, answers=9)
    requests = scene.send()
    for request in requests[:2]:
        scene.answer(request, {"success": {"message": "x"}})
    assert (two, until) == ([], [])
    for request in requests[:2]:
        scene.answer(request, {"success": {"message": "x", "last": True}})
    scene.answer(requests[2], {"error": "no"})
    assert [len(outcome[0]) for outcome in (two, until, failing)] == [2, 2, 1]


def test_all_that_waits_fails_at_once() -> None:
    """With the connection, whether it was sent or not, and the ids are free again."""
    scene = Scene(limits={"requests_burst": 1})
    scene.live()
    outcomes = [ask(scene, {"event": "list", "id": n}) for n in range(1)]
    scene.send()
    outcomes.append(ask(scene, {"event": "list", "id": 7}))
    scene.lose(End("gone", 1012))
    for (error,) in outcomes:
        assert isinstance(error, ConnectionLost)
        assert error.code == 1012
    scene.live()
    scene.now_s += 60
    ask(scene, {"event": "list", "id": 7})


def test_an_id_is_not_used_twice_at_once() -> None:
    """It would be anybody's answer."""
    scene = Scene()
    scene.live()
    ask(scene, {"event": "list", "id": 7})
    scene.send()
    with pytest.raises(ValueError, match="the id 7 is in use"):
        ask(scene, {"event": "list", "id": 7})
    ask(scene, {"event": "list", "id": 8})
    with pytest.raises(ValueError, match="the id 8 is in use"):
        ask(scene, {"event": "list", "id": 8})
    for _ in range(100):
        scene.now_s += 1
        ask(scene, {"event": "list"})
        scene.send()
    ids = [request["id"] for _, request in scene.sent]
    assert len(ids) == len(set(ids)) == 102


def test_requests_know_their_deadline() -> None:
    """One whose turn comes too late fails at once, and so does one that may not wait."""
    scene = Scene(limits={"requests_per_s": 1.0, "requests_burst": 2})
    scene.live()
    ask(scene, {"event": "list"}, weight=2.0)
    scene.send()
    with pytest.raises(TimeoutError, match="later than its time"):
        ask(scene, {"event": "list"}, timeout_s=0.5)
    with pytest.raises(NotNow, match="allows it in 1.000 s"):
        ask(scene, {"event": "list"}, wait=False)
    ask(scene, {"event": "list"}, timeout_s=1.5)
    assert scene.send() == []
    scene.now_s += 1
    assert len(scene.send()) == 1


# -- tokens -------------------------------------------------------------------------------------


def renewing(expires_in_s: float | None, **more: Any) -> Scene:
    """Return a scene whose token has so many seconds."""
    scene = Scene(has_token=True, renews=True, **more)
    scene.core.dialled(scene.link)
    scene.core.opened(scene.link, scene.now_s, expires_in_s)
    scene.hear(GREETING)
    scene.want("order")
    scene.reply(scene.send()[0], "order")
    return scene


def test_a_token_is_renewed_before_it_expires() -> None:
    """With a tenth of its time to spare and some jitter; the reply says how long the next lasts."""
    scene = renewing(1000.0)
    due_s = scene.core.next_at_s(scene.link)
    scene.now_s = scene.link.renew_at_s
    assert 850 <= scene.now_s - 1000 <= 900
    assert due_s <= scene.now_s
    assert scene.core.renewal.is_due(scene.link, scene.now_s)
    assert not scene.core.renewal.is_due(scene.link, scene.now_s)
    scene.core.renewal.send(scene.link, "new", scene.now_s)
    scene.send()
    request = scene.sent[-1][1]
    assert (request["event"], request["token"]) == ("auth", "new")
    scene.answer(request, {"success": {"message": "authenticated", "uid": "ID1", "ttl": 100}})
    assert 85 <= scene.link.renew_at_s - scene.now_s <= 90


def test_a_gateway_without_renewal_is_left_alone() -> None:
    """Rango takes tokens with the handshake only, and closes for good on a message so long."""
    scene = renewing(100.0, echoes=False)
    scene.now_s += 95
    assert not scene.core.renewal.is_due(scene.link, scene.now_s)
    assert scene.link.renew_at_s == float("inf")


def test_a_gateway_that_knows_ids_and_no_tokens_is_left_alone() -> None:
    """It is asked once."""
    scene = renewing(100.0)
    scene.core.renewal.send(scene.link, "new", scene.now_s)
    scene.answer(scene.send()[-1], {"error": INVALID})
    assert scene.link.renew_at_s == float("inf")
    assert scene.link.state == LIVE


def test_a_notice_that_the_token_expires_is_heard() -> None:
    """The gateway's clock is the one that counts."""
    scene = renewing(None)
    scene.hear('{"event":"auth_expiring","in":30}')
    assert scene.core.renewal.is_due(scene.link, scene.now_s)


def test_a_token_in_band_comes_before_everything() -> None:
    """The connection is live when the token was taken, and private streams are asked for then."""
    scene = Scene(has_token=True, in_band=True)
    scene.want("order")
    scene.core.dialled(scene.link)
    scene.core.opened(scene.link, scene.now_s, None, "jwt")
    assert scene.send() == []
    scene.hear(GREETING)
    (request,) = scene.send()
    assert scene.link.state == AUTHENTICATING
    assert (request["event"], request["token"]) == ("auth", "jwt")
    scene.answer(request, {"success": {"message": "authenticated", "uid": "ID1", "ttl": None}})
    assert scene.link.state == LIVE
    assert scene.send()[0]["streams"] == ["order"]


def test_a_better_token_opens_what_was_refused() -> None:
    """The first one was not taken; when another is, refused streams are asked for again."""
    scene = Scene(has_token=True, renews=True, in_band=True)
    stream, _ = scene.want("order")
    scene.core.dialled(scene.link)
    scene.core.opened(scene.link, scene.now_s, None, "old")
    scene.hear(GREETING)
    scene.answer(scene.send()[0], {"error": "authentication failed: expired"})
    scene.reply(scene.send()[0])
    assert stream.state == "refused"
    scene.now_s += 5
    assert scene.core.renewal.is_due(scene.link, scene.now_s)
    scene.core.renewal.send(scene.link, "new", scene.now_s)
    scene.answer(scene.send()[0], {"success": {"message": "authenticated", "uid": "ID1"}})
    scene.reply(scene.send()[0], "order")
    assert stream.state == "active"


# -- several connections ------------------------------------------------------------------------


def test_streams_are_spread_over_connections() -> None:
    """At most so many on each, as many connections as that takes, at gateways in turn."""
    scene = Scene(per_connection=2, urls=["ws://one", "ws://two"])
    for n in range(5):
        scene.want(f"s{n}.x")
    assert [len(link.wanted) for link in scene.core.pool] == [2, 2, 1]
    assert [link.url for link in scene.core.pool] == ["ws://one", "ws://two", "ws://one"]


def test_the_streams_of_a_dead_connection_move() -> None:
    """To live ones with room; what finds none waits for its own."""
    scene = Scene(per_connection=3)
    streams = [scene.want(f"s{n}.x")[0] for n in range(5)]
    first, second = [scene.live(link) for link in list(scene.core.pool)]
    for link in (first, second):
        (request,) = scene.send(link)
        scene.reply(request, *request["streams"], link=link)
    assert [len(link.wanted) for link in scene.core.pool] == [3, 2]
    scene.lose(link=first)
    assert [len(link.wanted) for link in scene.core.pool] == [2, 3]
    (request,) = scene.send(second)
    scene.reply(request, "s3.x", "s4.x", *request["streams"], link=second)
    assert scene.gaps()[0].streams == ("s0.x",)
    assert [one.state for one in streams].count("active") == 3
    assert first.state == IDLE


def test_an_event_comes_once() -> None:
    """Only from the connection that a stream is with."""
    scene = Scene(per_connection=1)
    _, sink = scene.want("a.b")
    scene.want("c.d")
    first, second = [scene.live(link) for link in list(scene.core.pool)]
    scene.hear('{"a.b":1}', first)
    scene.hear('{"a.b":1}', second)
    assert len(sink.events) == 1


def test_a_connection_without_streams_is_closed() -> None:
    """Unless it is the only one."""
    scene = Scene(per_connection=1)
    first, second = scene.want("a.b"), scene.want("c.d")
    for link in list(scene.core.pool):
        scene.live(link)
    scene.core.unwant(*second)
    assert scene.core.pool.links[1].state == DRAINING
    scene.core.unwant(*first)
    assert scene.core.pool.links[0].state == LIVE


def test_connections_that_are_closed_are_forgotten() -> None:
    """Streams that come and go leave nothing behind, and reconnects still count."""
    scene = Scene(per_connection=1)
    scene.want("a.b")
    scene.live()
    for _ in range(5):
        wanted = scene.want("c.d")
        link = scene.live(scene.core.pool.links[1])
        scene.lose(link=link)
        scene.live(link)
        scene.core.unwant(*wanted)
        assert link.state == DRAINING
        scene.lose(link=link)
    assert len(scene.core.pool.links) == 1
    assert scene.core.stats(0).reconnects == 5


def test_one_fault_is_not_everybodys() -> None:
    """A connection that is refused for good leaves the others, who take its streams."""
    scene = Scene(per_connection=2)
    spare = scene.want("spare")
    streams = [scene.want(f"s{n}.x")[0] for n in range(3)]
    first = scene.live()
    second = scene.core.pool.links[1]
    scene.core.unwant(*spare)
    scene.core.dialled(second)
    scene.lose(End("bad", 1002, close.NEVER, None, ConnectionLost("bad", 1002)), second)
    assert second.state == CLOSED
    assert scene.core.pool.links == [first]
    assert not scene.core.has_ended
    assert first.state == LIVE
    assert [one.state for one in streams] == ["pending", "pending", "refused"]


def moving(names: int = 4) -> tuple[Scene, Link, Link, dict[str, Sink]]:
    """Return a scene with a full connection and one that has just come back, almost empty."""
    scene = Scene(per_connection=names, limits={"steady_s": 10.0, "idle_s": 1000.0})
    sinks = {f"s{n}.x": scene.want(f"s{n}.x")[1] for n in range(names)}
    first = scene.live()
    scene.reply(scene.send()[0], *sinks)
    extra, sink = scene.want("extra.x")
    second = scene.live(scene.core.pool.links[1])
    scene.reply(scene.send(second)[0], "extra.x", link=second)
    scene.lose(link=second)
    assert extra.link is second
    scene.live(second)
    (request,) = scene.send(second)
    scene.reply(request, "extra.x", link=second)
    return scene, first, second, {**sinks, "extra.x": sink}


def begun(names: int = 4) -> tuple[Scene, Link, Link, dict[str, Sink], Any]:
    """Return the same with streams on their way."""
    scene, first, second, sinks = moving(names)
    assert scene.send(second) == []
    scene.now_s += 10
    (request,) = scene.send(second)
    return scene, first, second, sinks, request


def numbers(sink: Sink) -> list[int]:
    """Return what came."""
    return [int(event.body) for event in sink.events]


def test_streams_move_to_a_connection_that_came_back() -> None:
    """When it has lived for a while; the old one goes on until both have the same."""
    scene, first, second, sinks, request = begun()
    assert request["streams"] == ["s0.x"]
    scene.hear('{"s0.x":1}', first)
    scene.reply(request, "extra.x", "s0.x", link=second)
    scene.hear('{"s0.x":2}', first)
    assert scene.send(first) == []
    scene.hear('{"s0.x":2}', second)
    (leaving,) = scene.send(first)
    assert (leaving["event"], leaving["streams"]) == ("unsubscribe", ["s0.x"])
    scene.hear('{"s0.x":3}', first)
    scene.hear('{"s0.x":3}', second)
    assert numbers(sinks["s0.x"]) == [1, 2, 3]
    assert [len(link.wanted) for link in (first, second)] == [3, 2]
    assert [gap.streams for gap in scene.gaps()] == [("extra.x",)]


@given(st.integers(0, 6), st.integers(0, 6), st.lists(st.booleans(), min_size=40, max_size=40))
def test_a_move_loses_nothing_and_brings_nothing_twice(
    ahead: int, asked_at: int, order: list[bool]
) -> None:
    """However the two connections lag behind each other."""
    scene, first, second, sinks, request = begun()
    old = [f'{{"s0.x":{n}}}' for n in range(20)]
    new = [f'{{"s0.x":{n}}}' for n in range(asked_at, 20)]
    for _ in range(min(ahead, asked_at + 1)):
        scene.hear(old.pop(0), first)
    scene.reply(request, "extra.x", "s0.x", link=second)
    for is_old in order:
        (link, texts) = (first, old) if (is_old and old) or not new else (second, new)
        if texts:
            scene.hear(texts.pop(0), link)
    assert numbers(sinks["s0.x"]) == list(range(20))


def test_a_move_from_a_dead_connection_is_finished() -> None:
    """What the new one has got already is delivered: there is no gap."""
    scene, first, second, sinks, request = begun()
    scene.hear('{"s0.x":1}', first)
    scene.reply(request, "extra.x", "s0.x", link=second)
    scene.hear('{"s0.x":2}', second)
    scene.lose(link=first)
    scene.hear('{"s0.x":3}', second)
    assert numbers(sinks["s0.x"]) == [1, 2, 3]
    assert "s0.x" in second.wanted


@pytest.mark.parametrize("end", ["cut", "refused", "unwanted", "stranger"])
def test_a_move_that_fails_leaves_the_stream(end: str) -> None:
    """Where it is, with everything that it had."""
    scene, first, second, sinks, request = begun()
    if end == "cut":
        scene.lose(link=second)
        scene.live(second)
    elif end == "refused":
        scene.answer(request, {"error": "Too many streams: the limit is 1"}, second)
    else:
        scene.reply(request, "extra.x", "s0.x", link=second)
    if end == "stranger":
        for number in range(5000, 7000):
            scene.hear(f'{{"s0.x":{number}}}', second)
    if end == "unwanted":
        scene.core.unwant(first.wanted["s0.x"], sinks["s0.x"])
        assert scene.send(first)[0]["streams"] == ["s0.x"]
        assert scene.send(second)[0]["streams"] == ["s0.x"]
        return
    scene.hear('{"s0.x":1}', first)
    assert numbers(sinks["s0.x"]) == [1]
    assert "s0.x" in first.wanted
    assert "s0.x" not in second.wanted


def test_a_book_moves_with_its_snapshot() -> None:
    """It begins anew on the new connection, and nothing has to be compared."""
    scene = Scene(per_connection=4, limits={"steady_s": 10.0})
    names = [f"m{n}.ob-inc" for n in range(4)]
    sink = [scene.want(name)[1] for name in names][0]
    first = scene.live()
    scene.reply(scene.send()[0], *names)
    scene.want("extra.x")
    second = scene.core.pool.links[1]
    for _ in range(2):
        scene.live(second)
        scene.reply(scene.send(second)[0], "extra.x", link=second)
        if second.connects == 1:
            scene.lose(link=second)
    scene.now_s += 10
    (request,) = scene.send(second)
    scene.hear('{"m0.ob-snap":1}', second)
    scene.hear('{"m0.ob-inc":2}', first)
    scene.reply(request, "extra.x", "m0.ob-inc", link=second)
    scene.hear('{"m0.ob-inc":3}', first)
    scene.hear('{"m0.ob-inc":3}', second)
    assert numbers(sink) == [2, 1, 3]


def test_replies_are_plain() -> None:
    """A reply's members are there for whoever wants more."""
    reply = Reply("list", None, None, 1, {"success": {"message": "list", "streams": ["a"]}})
    assert reply.streams() == ["a"]
    assert reply.get("message") == "list"
    assert Reply(None, "x", None, None, {"error": "x"}).streams() is None
