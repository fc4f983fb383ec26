"""Coming back by positions: a core against a model of gateways that share a history.

The model keeps everything that was published and answers as PROTOCOL.md section 11 says. Messages
of a connection wait until they are delivered, some at a time, so that it may be cut at any point.
The invariant: a stream's events come in order, each once, and those that are missing lie in a gap
that was told. A book that says that it is whole is whole.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from test_client_core import Scene, Sink

from rango_gevent.client.coming_back import is_later
from rango_gevent.client.link import Link
from rango_gevent.client.model import AUTHENTICATING, IDLE, LIVE, Gap
from rango_gevent.client.orderbook import OrderBook
from rango_gevent.client.sinks import BookSink
from rango_gevent.client.wire import End

STREAMS = ("a.x", "b.x", "m.ob-inc", "c.x", "n.ob-inc", "*.x", "d.x")
PUBLISHED = tuple(name for name in STREAMS if "*" not in name)
KEPT = 60  # events of the newest that a gateway can replay


class Published:
    """Everything that was published, by everybody who shares it."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []  # its place is an event's number, from 1
        self.oldest = 0
        self.life = 1
        self.sequences = {name: 0 for name in STREAMS if name.endswith("-inc")}

    @property
    def newest(self) -> int:
        """Return the number of the last event."""
        return len(self.events)

    def position(self, number: int) -> str:
        """Return a number as a position."""
        return f"{number}-{self.life:08x}"

    def publish(self, name: str) -> None:
        """Publish an event, or an increment, each with a number of its own."""
        number = self.newest + 1
        body = f'{{"n":{number}}}'
        if name in self.sequences:
            self.sequences[name] += 1
            sequence = self.sequences[name]
            body = f'{{"sequence":{sequence},"asks":["{sequence}","1"],"n":{number}}}'
        self.events.append((name, body))

    def why_not(self, since: str) -> str:
        """Return why nothing can be recovered from a position."""
        number, _, life = since.partition("-")
        if life != f"{self.life:08x}":
            return "other_history"
        return "too_old" if int(number) < max(self.oldest, self.newest - KEPT) else ""


def matches(name: str, names: Iterable[str]) -> bool:
    """Tell whether an event of a name is for who has these."""
    return name in names or (name.endswith(".x") and "*.x" in names)


class Gateway:
    """One connection's other end."""

    def __init__(self, published: Published) -> None:
        self.published = published
        self.held: dict[str, None] = {}
        self.out: deque[str] = deque()
        self.at = published.newest
        self.say({"success": {"message": "subscribed", "streams": [], "at": self.position}})

    @property
    def position(self) -> str:
        """Return where it stands."""
        return self.published.position(self.published.newest)

    def say(self, value: dict[str, Any]) -> None:
        """Let a message wait."""
        self.out.append(json.dumps(value, separators=(",", ":")))

    def event(self, number: int, name: str, body: str) -> None:
        """Let an event wait."""
        self.out.append(f'{{"{name}":{body},"at":"{self.published.position(number)}"}}')

    def book(self, name: str) -> None:
        """Let a snapshot and what came since wait: the snapshot is of half of the increments."""
        own = [(n, body) for n, (one, body) in enumerate(self.published.events, 1) if one == name]
        if not own:
            return
        middle = (len(own) + 1) // 2
        asks = [[str(sequence), "1"] for sequence in range(1, middle + 1)]
        snapshot = json.dumps({"sequence": middle, "asks": asks, "bids": []})
        self.event(own[middle - 1][0], name.replace("-inc", "-snap"), snapshot)
        for number, body in own[middle:]:
            self.event(number, name, body)

    def live(self) -> None:
        """Let what was published since the last look wait."""
        for number in range(self.at + 1, self.published.newest + 1):
            name, body = self.published.events[number - 1]
            if matches(name, self.held):
                self.event(number, name, body)
        self.at = self.published.newest

    def hear(self, request: dict[str, Any]) -> None:
        """Answer a request."""
        self.live()
        names, since = request.get("streams", []), request.get("since")
        event, more = request["event"], {}
        if event == "subscribe":
            reason = "" if since is None else self.published.why_not(since)
            if since is not None and not reason:
                self.replay(names, int(since.partition("-")[0]))
                more = {"recovered": True, "events": 0}
            else:
                for name in names:
                    if name.endswith("-inc"):
                        self.book(name)
                more = {} if since is None else {"recovered": False, "reason": reason}
            self.held.update(dict.fromkeys(names))
            word = "subscribed"
        elif event == "unsubscribe":
            for name in names:
                self.held.pop(name, None)
            word = "unsubscribed"
        else:
            for name in names:
                if name in self.held:
                    self.book(name)
            word = "snapshot"
        success = {"message": word, "streams": list(self.held), "at": self.position, **more}
        self.say({"success": success, "id": request["id"]})

    def replay(self, names: list[str], after: int) -> None:
        """Let what was missed wait."""
        for number in range(after + 1, self.published.newest + 1):
            name, body = self.published.events[number - 1]
            if matches(name, names):
                self.event(number, name, body)


class Returning:
    """Connections that are cut at any time, streams that move, and a history that is cut."""

    def __init__(self) -> None:
        self.published = Published()
        self.scene = Scene(
            resume=True,
            per_connection=4,
            limits={"requests_per_s": 1e6, "requests_burst": 10**6, "resync_s": 0.0},
        )
        self.gateways: dict[int, Gateway] = {}
        self.sinks: dict[str, Sink] = {}
        self.from_number: dict[str, int] = {}
        self.books: dict[str, BookSink] = {}
        self.gaps: list[Gap] = []
        self.lost_numbers: dict[str, set[int]] = {name: set() for name in STREAMS}
        self.scene.core.hooks.gap.append(self.miss)
        self.seen: dict[str, int] = {}

    # -- what happens -------------------------------------------------------------------------

    def want(self, pick: int, times: int) -> None:
        """Subscribe, once for each stream; a book both as a book and as events."""
        name = STREAMS[pick % len(STREAMS)]
        if name in self.sinks:
            return
        _, self.sinks[name] = self.scene.want(name)
        if name.endswith("-inc"):
            core = self.scene.core
            self.books[name] = BookSink(core, name, OrderBook(float), lambda: None)

    def publish(self, pick: int, times: int) -> None:
        """Publish some events."""
        for _ in range(times):
            self.published.publish(PUBLISHED[pick % len(PUBLISHED)])

    def connect(self, pick: int, times: int) -> None:
        """Connect one that is away."""
        away = [link for link in self.scene.core.pool if link.state == IDLE]
        if away:
            link = away[pick % len(away)]
            self.scene.core.dialled(link)
            self.scene.core.opened(link, self.scene.now_s, None)
            self.gateways[link.number] = Gateway(self.published)

    def run(self, pick: int, times: int) -> None:
        """Deliver some messages of a connection, and send what it has to send."""
        link = self.one_of(pick)
        if link is None:
            return
        gateway = self.gateways[link.number]
        gateway.live()
        for _ in range(times):
            self.send(link)
            if not gateway.out or link.number not in self.gateways:
                return
            self.scene.hear(gateway.out.popleft(), link)
        self.send(link)

    def cut(self, pick: int, times: int) -> None:
        """Cut a connection; what was on its way is gone."""
        link = self.one_of(pick)
        if link is not None:
            del self.gateways[link.number]
            self.scene.lose(End("cut"), link)

    def tell_position(self, pick: int, times: int) -> None:
        """Say where a connection stands."""
        link = self.one_of(pick)
        if link is not None:
            gateway = self.gateways[link.number]
            gateway.live()
            gateway.say({"event": "position", "at": gateway.position})

    def forget(self, pick: int, times: int) -> None:
        """Keep no old event any more."""
        self.published.oldest = self.published.newest

    def break_history(self, pick: int, times: int) -> None:
        """Begin another history, and tell everybody."""
        for gateway in self.gateways.values():
            gateway.live()
        self.published.life += 1
        self.published.oldest = self.published.newest
        for gateway in self.gateways.values():
            gateway.say({"event": "position", "at": None, "reason": "other_history"})

    def balance(self, pick: int, times: int) -> None:
        """Move streams from full connections to empty ones."""
        self.scene.core._mover.balance()

    def wait(self, pick: int, times: int) -> None:
        """Let time pass."""
        self.scene.now_s += 5 * times
        for link in self.scene.core.pool:
            link.heard_at_s = self.scene.now_s

    # -- how ----------------------------------------------------------------------------------

    def one_of(self, pick: int) -> Link | None:
        """Return a connection that is there."""
        there = [
            link
            for link in self.scene.core.pool
            if link.state in (AUTHENTICATING, LIVE) and link.number in self.gateways
        ]
        return there[pick % len(there)] if there else None

    def send(self, link: Link) -> None:
        """Let its requests arrive."""
        if link.farewell is not None:
            if link.number in self.gateways:
                del self.gateways[link.number]
                self.scene.lose(End("goodbye"), link)
            return
        for request in self.scene.send(link):
            self.gateways[link.number].hear(request)

    def miss(self, gap: Gap) -> None:
        """Forgive what a gap may have taken: everything between the last event and now."""
        self.gaps.append(gap)
        for name in gap.streams:
            first = self.seen.get(name, 0) + 1
            self.lost_numbers[name].update(range(first, self.published.newest + 1))

    def numbers(self, name: str) -> list[int]:
        """Return the numbers of all events of a stream, or of what a pattern stands for."""
        events = enumerate(self.published.events, 1)
        return [number for number, (one, _) in events if matches(one, (name,))]

    def check(self) -> None:
        """See that all holds."""
        self.events_come_once_and_in_order()
        self.bodies_are_as_published()
        self.whole_books_are_whole()

    # -- what must hold -----------------------------------------------------------------------

    def events_come_once_and_in_order(self) -> None:
        """And none is missing but in gaps."""
        for name, sink in self.sinks.items():
            if name.endswith("-inc"):
                continue
            numbers = [json.loads(event.body)["n"] for event in sink.events]
            assert numbers == sorted(set(numbers)), f"{name}: {numbers}"
            if not numbers:
                continue
            self.seen[name] = numbers[-1]
            published = self.numbers(name)
            wanted = [n for n in published if numbers[0] <= n <= numbers[-1]]
            missing = set(wanted) - set(numbers) - self.lost_numbers[name]
            assert not missing, f"{name}: {sorted(missing)} are missing"

    def bodies_are_as_published(self) -> None:
        """No position ever reaches a body."""
        for sink in self.sinks.values():
            assert all('"at"' not in event.body for event in sink.events)

    def whole_books_are_whole(self) -> None:
        """A book in sync has exactly the levels of its sequence."""
        for name, sink in self.books.items():
            book = sink.book
            if book.is_synced:
                prices = [level.price for level in book.asks()]
                assert book.sequence is not None
                assert prices == [float(n) for n in range(1, book.sequence + 1)], name

    def rest(self) -> None:
        """In peace everything arrives: nothing waits for ever."""
        for _ in range(60):
            self.scene.now_s += 40
            for link in list(self.scene.core.pool):
                link.heard_at_s = self.scene.now_s
                if link.state == IDLE:
                    self.scene.core.dialled(link)
                    self.scene.core.opened(link, self.scene.now_s, None)
                    self.gateways[link.number] = Gateway(self.published)
                gateway = self.gateways.get(link.number)
                if gateway is None:
                    continue
                gateway.live()
                self.send(link)
                while gateway.out and link.number in self.gateways:
                    self.scene.hear(gateway.out.popleft(), link)
                    self.send(link)
        self.events_come_once_and_in_order()
        self.whole_books_are_whole()
        for name, sink in self.sinks.items():
            stream = self.scene.core._wanted[name]
            assert stream.state == "active", f"{name} is {stream.state}"
            last = max(self.numbers(name), default=0)
            if not name.endswith("-inc") and self.seen.get(name, 0) != last:
                assert last in self.lost_numbers[name] or not sink.events
        for name, book_sink in self.books.items():
            if self.published.sequences[name]:
                assert book_sink.book.is_synced, f"{name}: {book_sink.reason}"
                assert book_sink.book.sequence == self.published.sequences[name]


# What happens, the usual things more often.
STEPS = (
    *("publish",) * 12, *("run",) * 24, *("connect",) * 8, *("cut",) * 4, "want", "want",
    "tell_position", "tell_position", "balance", "balance", "balance", "balance", "wait", "forget", "break_history",
)  # fmt: skip
steps = st.tuples(st.sampled_from(STEPS), st.integers(0, 9), st.integers(1, 8))


@settings(
    max_examples=120,
    deadline=None,
    phases=[Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow],
)
@given(st.lists(steps, min_size=30, max_size=120))
def test_each_event_comes_once_whatever_happens(done: list[tuple[str, int, int]]) -> None:
    """Through cuts at any message, moves, and histories that forget or break."""
    world = Returning()
    for pick in range(len(STREAMS) - 1):
        world.want(pick, 1)
    for step, pick, times in done:
        getattr(world, step)(pick, times)
        world.check()
    world.rest()


def test_positions_only_go_forward() -> None:
    """Numbers sort; what has another form is taken as it comes."""
    assert is_later("10-aa", "9-ff")
    assert not is_later("9-aa", "9-ff")
    assert not is_later("9-aa", "10-aa")
    assert is_later("x", "10-aa")
    assert is_later("1-a", None)


# -- one by one ---------------------------------------------------------------------------------

GREETING = '{"success":{"message":"subscribed","streams":[],"at":"50-a"}}'


def back(scene: Scene, link: Link | None = None) -> None:
    """Bring a connection to life at a gateway that tells positions."""
    scene.core.dialled(link or scene.link)
    scene.core.opened(link or scene.link, scene.now_s, None)
    scene.hear(GREETING, link)


def bodies(sink: Sink) -> list[str]:
    """Return what arrived."""
    return [event.body for event in sink.events]


def test_a_cut_replay_goes_on_where_it_was_cut() -> None:
    """Who was given a part asks for the rest, who was given nothing for all."""
    scene = Scene()
    _, a = scene.want("a.x")
    scene.want("b.x")
    back(scene)
    scene.reply(scene.send()[0], "a.x", "b.x", at="50-a")
    scene.lose()
    back(scene)
    (request,) = scene.send()
    assert (request["streams"], request["since"]) == (["a.x", "b.x"], "50-a")
    scene.hear('{"a.x":1,"at":"51-a"}')
    scene.lose()
    back(scene)
    assert [scene.send()[0]["since"]] == ["51-a"]
    assert scene.send() == []  # one after another
    scene.reply({"event": "subscribe", "id": 3}, "a.x", at="52-a", recovered=True, events=0)
    assert [(one["streams"], one["since"]) for one in scene.send()] == [(["b.x"], "50-a")]
    assert bodies(a) == ["1"]


def test_a_book_in_the_middle_of_a_snapshot_wants_another() -> None:
    """Its levels are older than where the connection stands: it may not go on from there."""
    scene = Scene(limits={"resync_s": 0.0})
    book = BookSink(scene.core, "m.ob-inc", OrderBook(), lambda: None)
    back(scene)
    (request,) = scene.send()
    scene.hear('{"m.ob-snap":{"sequence":1,"asks":[],"bids":[]},"at":"50-a"}')
    scene.reply(request, "m.ob-inc", at="50-a")
    scene.hear('{"m.ob-inc":{"sequence":3},"at":"60-a"}')
    (request,) = scene.send()
    assert request["event"] == "snapshot"
    scene.hear('{"m.ob-snap":{"sequence":1,"asks":[],"bids":[]},"at":"50-a"}')
    assert scene.link.position == "60-a"  # and not back to the snapshot's
    scene.lose()
    back(scene)
    assert "since" not in scene.send()[0]
    assert not book.book.is_synced


def test_a_book_that_is_recovered_goes_on_without_a_snapshot() -> None:
    """Meanwhile it is invalid, and its levels change unseen; then there is one sync."""
    scene = Scene()
    book = BookSink(scene.core, "m.ob-inc", OrderBook(float), lambda: None)
    back(scene)
    (request,) = scene.send()
    scene.hear('{"m.ob-snap":{"sequence":1,"asks":[["9","1"]],"bids":[]},"at":"50-a"}')
    scene.reply(request, "m.ob-inc", at="50-a")
    scene.lose()
    back(scene)
    (request,) = scene.send()
    assert request["since"] == "50-a"
    scene.hear('{"m.ob-inc":{"sequence":2,"asks":["8","1"]},"at":"51-a"}')
    assert not book.book.is_synced
    scene.reply(request, "m.ob-inc", at="51-a", recovered=True, events=1)
    changes = []
    while (change := book.changes.take()) is not None:
        changes.append((change.kind, change.sequence))
    assert changes == [("sync", 1), ("invalid", 1), ("sync", 2)]
    assert book.book.best_ask == (8.0, 1.0)
    assert scene.core.stats(0).recovered == 1


def test_a_book_that_is_not_recovered_is_invalid_until_its_snapshot() -> None:
    """A gateway that has none yet sends none: what is there is not to be trusted."""
    scene = Scene()
    book = BookSink(scene.core, "m.ob-inc", OrderBook(), lambda: None)
    back(scene)
    (request,) = scene.send()
    scene.hear('{"m.ob-snap":{"sequence":1,"asks":[],"bids":[]},"at":"50-a"}')
    scene.reply(request, "m.ob-inc", at="50-a")
    scene.lose()
    back(scene)
    scene.reply(scene.send()[0], "m.ob-inc", at="60-a", recovered=False, reason="too_old")
    scene.hear('{"m.ob-inc":{"sequence":2},"at":"61-a"}')
    assert not book.book.is_synced
    scene.hear('{"m.ob-snap":{"sequence":9,"asks":[],"bids":[]},"at":"62-a"}')
    assert (book.book.is_synced, book.book.sequence) == (True, 9)


def test_history_that_breaks_is_a_gap() -> None:
    """What was published before is not known; a cut after it cannot be recovered from before."""
    scene = Scene()
    scene.want("a.x")
    back(scene)
    scene.reply(scene.send()[0], "a.x", at="50-a")
    scene.hear('{"event":"position","at":"55-a"}')
    assert scene.link.position == "55-a"
    scene.now_s += 3
    scene.hear('{"event":"position","at":null,"reason":"other_history"}')
    assert [(one.streams, one.reason) for one in scene.gaps()] == [(("a.x",), "other_history")]
    assert scene.gaps()[0].to_s - scene.gaps()[0].from_s == 3
    scene.lose()
    back(scene)
    assert "since" not in scene.send()[0]


def two_connections() -> tuple[Scene, Sink, Link, Link]:
    """Return two live connections with room for two, the first with three streams wanted before."""
    scene = Scene(per_connection=2)
    _, sink = scene.want("a.x")
    for name in ("b.x", "c.x"):
        scene.want(name)
    first, second = scene.core.pool.links
    for link in (first, second):
        back(scene, link)
        for request in scene.send(link):
            scene.reply(request, *request["streams"], link=link, at="50-a")
    return scene, sink, first, second


def test_a_stream_goes_to_another_connection_with_its_own_position() -> None:
    """That one stands elsewhere, and what is replayed does not move it."""
    scene, sink, first, second = two_connections()
    scene.hear('{"a.x":1,"at":"51-a"}', first)
    scene.hear('{"c.x":1,"at":"70-a"}', second)
    scene.lose(link=first)
    (request,) = scene.send(second)
    assert (request["streams"], request["since"]) == (["a.x"], "51-a")
    scene.hear('{"a.x":2,"at":"52-a"}', second)
    assert second.position == "70-a"
    scene.reply(request, "c.x", "a.x", link=second, at="71-a", recovered=True, events=1)
    assert second.position == "71-a"
    assert bodies(sink) == ["1", "2"]
    assert scene.gaps() == []


def test_a_stream_that_moves_is_counted_not_compared() -> None:
    """Events with the same bytes come as often as they were published."""
    scene = Scene(per_connection=3)
    _, sink = scene.want("a.x")
    for name in ("b.x", "c.x", "d.x"):
        scene.want(name)
    first, second = scene.core.pool.links
    for link in (first, second):
        back(scene, link)
        for request in scene.send(link):
            scene.reply(request, *request["streams"], link=link, at="50-a")
    scene.core._mover.balance()
    (request,) = scene.send(second)
    assert (request["streams"], request["since"]) == (["a.x"], "50-a")
    for number in (51, 52, 53):
        scene.hear(f'{{"a.x":"same","at":"{number}-a"}}', first)
    for number in (51, 52, 53, 54):
        scene.hear(f'{{"a.x":"same","at":"{number}-a"}}', second)
    scene.reply(request, "d.x", "a.x", link=second, at="54-a", recovered=True, events=4)
    scene.hear('{"a.x":"last","at":"55-a"}', second)
    assert bodies(sink) == ['"same"'] * 4 + ['"last"']
    assert scene.send(first)[0]["event"] == "unsubscribe"


def test_what_a_connection_still_holds_is_let_go_before_it_comes_back_there() -> None:
    """Else it would be given twice: by what is on its way, and by the replay."""
    scene = Scene(per_connection=3)
    _, sink = scene.want("a.x")
    for name in ("b.x", "c.x", "d.x"):
        scene.want(name)
    first, second = scene.core.pool.links
    for link in (first, second):
        back(scene, link)
        for request in scene.send(link):
            scene.reply(request, *request["streams"], link=link, at="50-a")
    scene.core._mover.balance()
    (request,) = scene.send(second)  # a.x moves to the second
    scene.lose(link=first)  # and is cut on its way
    (unsubscribe,) = [one for one in scene.send(second) if one["event"] == "unsubscribe"]
    assert unsubscribe["streams"] == ["a.x"]
    scene.hear('{"a.x":1,"at":"51-a"}', second)  # of what it was asked for at first
    scene.reply(request, "d.x", "a.x", link=second, at="51-a", recovered=True, events=1)
    scene.reply(unsubscribe, "d.x", link=second)
    again = next(one for one in scene.send(second) if "a.x" in one.get("streams", ()))
    assert (again["event"], again["since"]) == ("subscribe", "50-a")
    scene.hear('{"a.x":1,"at":"51-a"}', second)
    scene.reply(again, "d.x", "a.x", link=second, at="51-a", recovered=True, events=1)
    assert bodies(sink) == ["1"]


def test_a_name_and_a_pattern_have_each_event_once() -> None:
    """What is replayed for one that comes back is old to the other, which has had it."""
    scene = Scene(per_connection=0)
    _, all_of_them = scene.want("*.x")
    back(scene)
    scene.reply(scene.send()[0], "*.x", at="50-a")
    _, one = scene.want("a.x")
    (request,) = scene.send()
    scene.hear('{"a.x":1,"at":"51-a"}')  # it is not held yet
    scene.reply(request, "*.x", "a.x", at="51-a")
    scene.hear('{"a.x":2,"at":"52-a"}')
    scene.lose()
    back(scene)
    (first,) = scene.send()
    assert (first["streams"], first["since"]) == (["*.x", "a.x"], "52-a")
    scene.hear('{"a.x":3,"at":"53-a"}')
    scene.lose()
    back(scene)
    assert scene.send()[0]["since"] == "53-a"
    assert bodies(all_of_them) == ["1", "2", "3"]
    assert bodies(one) == ["2", "3"]
