"""The dispatcher: rounds over real clients, in order, without gaps, and never for too long."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from string import ascii_letters, digits
from typing import Any, Iterator

import gevent
import pytest
from delivery_room import Peer, Room, as_segments, delivery_room, limits, wait_until
from hypothesis import example, given, settings
from hypothesis import strategies as st
from prometheus_client import Histogram

from rango_gevent.delivery import dispatcher as dispatcher_module
from rango_gevent.delivery.bundle import Path
from rango_gevent.delivery.connection import Connection
from rango_gevent.delivery.dispatcher import Dispatcher
from rango_gevent.delivery.outbox import SlowPolicy
from rango_gevent.delivery.session import Mark
from rango_gevent.hub.hub import HubLimits
from rango_gevent.protocol.messages import NameLimits

SMALL = limits(outbox_bytes=4096)
PAD = "x" * 1000
CROWD = 400  # so many that a round gives way a dozen times


@pytest.fixture
def room() -> Iterator[Room]:
    """A room whose rounds give way as often as they can."""
    with delivery_room(slice_s=0.0) as made:
        made.dispatcher.set_policies(SlowPolicy("close"))
        yield made


def crowd(room: Room, name: str, count: int = CROWD) -> list[tuple[Connection, Peer]]:
    """Connect many clients to one stream."""
    return [room.connect(name) for _ in range(count)]


def values(texts: list[str]) -> list[tuple[str, Any]]:
    """Return name and body of events."""
    return [next(iter(json.loads(text).items())) for text in texts]


# -- order ----------------------------------------------------------------------------------------


def test_frames_of_several_streams_come_as_they_were_published(room: Room) -> None:
    """Whatever streams a client holds, it sees one order: that of publishing."""
    held = [("a.t",), ("a.t", "b.t"), ("b.t", "c.t", "a.t"), ("order", "a.t"), ("c.t",)]
    peers = [(names, room.connect(*names, uid="ID1")[1]) for names in held]
    keys = ["public.a.t", "public.b.t", "private.ID1.order", "public.c.t"] * 5
    for number, key in enumerate(keys):
        room.publish(key, str(number))
    room.round()
    for names, peer in peers:
        peer.receive()
        wanted = [
            (key.split(".", 1)[1].replace("ID1.", ""), number)
            for number, key in enumerate(keys)
            if key.split(".", 1)[1].replace("ID1.", "") in names
        ]
        assert values(peer.receive_all(len(wanted))) == wanted


def test_a_round_is_one_send_for_each_client(room: Room) -> None:
    """All that waits for a client arrives in one portion."""
    _, peer = room.connect("a.t", "b.t")
    peer.receive()
    for number in range(10):
        room.publish("public.a.t", str(number))
        room.publish("public.b.t", str(number))
    room.round()
    peer.raw = b""
    assert peer.read()
    assert len(peer.frames) == 20


def test_clients_with_the_same_streams_share_one_buffer(room: Room) -> None:
    """A set of streams is joined once, however many clients hold it."""
    lagging = []
    for names in (("a.t", "b.t"), ("b.t", "a.t"), ("a.t", "b.t", "c.t")):
        client, _ = room.connect(*names, buffer=4096)
        while client.ready:
            client.offer(as_segments(b"\x81\x00" * 500))
        lagging.append(client)
    for key in ("public.a.t", "public.b.t"):
        room.publish(key, json.dumps(PAD))
    room.dispatcher.set_policies(SlowPolicy("close"))
    room.round()
    last = [client._outbox._pieces[-1][0] for client in lagging if client._outbox is not None]
    assert len(last) == 3
    assert last[0] is last[1] is last[2]


def test_a_newcomer_among_waiting_frames_gets_each_once(room: Room) -> None:
    """What its replay holds is not sent again, and what comes after is not missed."""
    _, old = room.connect("m.ob-inc", "m.t")
    room.publish("public.m.ob-snap", "0")
    room.publish("public.m.ob-inc", "1")
    room.publish("public.m.t", "1")
    _, new = room.connect("m.ob-inc", "m.t")
    room.publish("public.m.ob-inc", "2")
    room.publish("public.m.t", "2")
    room.round()
    old.receive()
    assert values([old.receive()]) == [("m.ob-snap", 0)]
    assert values(old.receive_all(4)) == [("m.ob-inc", 1), ("m.t", 1), ("m.ob-inc", 2), ("m.t", 2)]
    assert values(new.receive_all(2)) == [("m.ob-snap", 0), ("m.ob-inc", 1)]
    new.receive()
    assert values(new.receive_all(2)) == [("m.ob-inc", 2), ("m.t", 2)]


def test_one_who_joined_and_has_nothing_to_get_gets_nothing(room: Room) -> None:
    """Not even an empty send, whether it could take one or lags."""
    _, old = room.connect("m.t")
    room.publish("public.m.t", "1")
    new, peer = room.connect("m.t")
    lagging, reader = room.connect("m.t", buffer=4096)
    count = 0
    while lagging.ready:
        lagging.offer(as_segments(b"\x81\x00" * 500))
        count += 500
    room.round()
    old.receive()
    assert old.receive() == '{"m.t":1}'
    peer.receive()
    reader.receive()
    assert reader.receive_all(count) == [""] * count
    wait_until(lambda: lagging.ready)
    room.publish("public.m.t", "2")
    room.round()
    assert new.ready
    for one in (peer, reader):
        assert one.receive() == '{"m.t":2}'


def test_what_a_round_holds_comes_before_a_replay(room: Room) -> None:
    """A client that subscribes again in the middle of a round sees no increment twice."""
    subscriber, peer = room.connect("m.ob-inc")  # first to come, last to be served
    room.publish("public.m.ob-snap", "0")
    crowd(room, "m.ob-inc")
    peer.receive()
    for number in (1, 2):
        room.publish("public.m.ob-inc", str(number))
    peer.ask("subscribe", "m.ob-inc")
    rounds = gevent.spawn(room.round)
    wait_until(lambda: room.registry.requests["subscribe"] == 1)
    assert not rounds.ready(), "the request came in the middle of the round"
    rounds.join()
    room.publish("public.m.ob-inc", "3")
    room.round()
    assert values(peer.receive_all(6)) == [
        ("m.ob-snap", 0), ("m.ob-inc", 1), ("m.ob-inc", 2),
        ("m.ob-snap", 0), ("m.ob-inc", 1), ("m.ob-inc", 2),
    ]  # fmt: skip
    peer.receive()
    assert values([peer.receive()]) == [("m.ob-inc", 3)]
    assert subscriber.ready


def test_what_a_round_holds_comes_before_an_unsubscription(room: Room) -> None:
    """Events that were on their way come first, and none after the reply."""
    _, peer = room.connect("m.t")
    crowd(room, "m.t")
    peer.receive()
    room.publish("public.m.t", "1")
    peer.ask("unsubscribe", "m.t")
    rounds = gevent.spawn(room.round)
    wait_until(lambda: room.registry.requests["unsubscribe"] == 1)
    assert not rounds.ready()
    rounds.join()
    room.publish("public.m.t", "2")
    room.round()
    assert peer.receive() == '{"m.t":1}'
    assert peer.receive() == '{"success":{"message":"unsubscribed","streams":[]}}'
    peer.say("ping")
    assert peer.receive() == "pong"


# -- slow clients ---------------------------------------------------------------------------------


def test_slow_clients_are_dropped_after_the_round() -> None:
    """One that takes nothing costs the others nothing, and is closed when all are served."""
    with delivery_room(SMALL, slice_s=0.0) as room:
        slow, _ = room.connect("m.t", buffer=4096)
        others = crowd(room, "m.t", 5)
        for _, peer in others:
            peer.receive()
        closed_in_round = 0
        for number in range(30):
            room.publish("public.m.t", json.dumps([number, PAD]))
            was_open = slow.open
            room.round()
            closed_in_round += was_open and not slow.open
            for _, peer in others:
                assert values([peer.receive()]) == [("m.t", [number, PAD])]
        assert closed_in_round == 1
        assert room.registry.closed["slow_client"] == 0, "it has its time to read the reason"
        assert [client.open for client, _ in others] == [True] * 5


def lagging_room(policy: str) -> Any:
    """Return a room where streams have a policy and an outbox holds little."""
    made = delivery_room(SMALL, slice_s=0.0)
    patterns = [("*.ob-inc", "latest"), ("*.t", policy)]
    return made, SlowPolicy("close", patterns)


@pytest.mark.parametrize("policy", ["close", "drop-oldest", "latest"])
@pytest.mark.parametrize("deflate", [False, True])
def test_who_catches_up_has_the_newest(policy: str, deflate: bool) -> None:
    """Whatever is left out, the order holds and the last one arrives; the count says the rest."""
    made, policies = lagging_room(policy)
    with made as room:
        room.dispatcher.set_policies(policies)
        client, peer = room.connect("m.t", buffer=4096, deflate=deflate)
        # text that hardly compresses, so that both kinds fill the socket
        letters = random.Random(7)
        noise = ["".join(letters.choices(ascii_letters + digits, k=1000)) for _ in range(60)]
        last, more = -1, 2 if policy == "close" else 40
        while more:
            more -= not client.ready
            last += 1
            room.publish("public.m.t", json.dumps([last, noise[last]]))
            room.round()
        peer.receive()
        found = [-1]
        while found[-1] != last:
            ((name, (number, text)),) = values([peer.receive()])
            assert (name, text) == ("m.t", noise[number])
            found.append(number)
        assert found == sorted(set(found))
        assert last + 1 - (len(found) - 1) == sum(room.dispatcher.skipped.values())
        assert (sum(room.dispatcher.skipped.values()) > 0) is (policy != "close")
        wait_until(lambda: client.ready)


def test_a_newcomer_that_lags_at_once_gets_each_once() -> None:
    """A replay larger than the socket takes: what waited for others is in it already."""
    made, policies = lagging_room("close")
    with made as room:
        room.dispatcher.set_policies(policies)
        _, old = room.connect("m.ob-inc")
        room.publish("public.m.ob-snap", json.dumps(["0", PAD * 20]))
        room.publish("public.m.ob-inc", "1")
        client, peer = room.connect("m.ob-inc", buffer=4096)
        assert not client.ready
        room.publish("public.m.ob-inc", "2")
        room.round()
        assert values(peer.receive_all(2))[1] == ("m.ob-inc", 1)
        peer.receive()
        assert values([peer.receive()]) == [("m.ob-inc", 2)]
        assert old.receive()


def test_a_book_caught_up_in_the_middle_of_a_round_has_no_gap() -> None:
    """What the round still holds of a book is left out when the book comes afresh."""
    made, policies = lagging_room("close")
    with made as room:
        room.dispatcher.set_policies(policies)
        client, peer = room.connect("m.ob-inc", buffer=4096)  # first to come, last to be served
        room.publish("public.m.ob-snap", json.dumps([0]))
        last = 0
        while not room.dispatcher.skipped["resync"]:
            last += 1
            room.publish("public.m.ob-inc", json.dumps([last, PAD]))
            room.round()
        others = crowd(room, "m.ob-inc")
        peer.receive()
        for _ in range(3):
            last += 1
            room.publish("public.m.ob-inc", json.dumps([last]))
        rounds = gevent.spawn(room.round)
        at = 0
        while at != last:
            ((name, value),) = values([peer.receive()])
            assert name.endswith("-snap") or value[0] == at + 1, "a gap, or a duplicate"
            at = value[0]
        rounds.join()
        wait_until(lambda: client.ready)
        assert len(others) == CROWD


# -- giving way -----------------------------------------------------------------------------------


def test_a_round_gives_way_to_others(room: Room) -> None:
    """While many clients are served, another greenlet gets its turns."""
    crowd(room, "m.t", 200)
    room.publish("public.m.t", "1")
    assert turns_during_round(room) >= 3


def wide(room: Room, people: int = 30, streams: int = 300) -> list[tuple[Connection, Peer]]:
    """Connect clients of whom no two hold the same streams, and publish to all of those."""
    names = [f"m{number}.t" for number in range(streams)]
    found = [
        room.connect(*(n for i, n in enumerate(names) if i % people != p)) for p in range(people)
    ]
    for _, peer in found:
        peer.receive()
    for number, name in enumerate(names):
        room.publish(f"public.{name}", str(number))
    return found


@pytest.fixture
def wide_room(monkeypatch: pytest.MonkeyPatch) -> Iterator[Room]:
    """A room where a client may hold many streams, and that gathers in small steps."""
    monkeypatch.setattr(dispatcher_module, "_VISITS_AT_ONCE", 1000)
    with delivery_room(limits(names=NameLimits(1000, 64)), slice_s=0.0) as made:
        yield made


def test_different_sets_of_streams_share_what_they_have_in_common(wide_room: Room) -> None:
    """What a client is due is a path through one tree: putting it there is no copy."""
    found = wide(wide_room)
    dispatcher = wide_room.dispatcher
    bundles = dispatcher._bundle(wide_room.hub.take_dirty())
    assert len({id(bundle) for bundle in bundles.values()}) == len(found)
    trees = [bundle.tree for bundle in bundles.values()]
    assert all(isinstance(tree, Path) for tree in trees)
    (paths,) = {tree.paths for tree in trees if isinstance(tree, Path)}
    assert len(paths._at) <= len(found) * 300 + 1
    assert all(not bundle.segments for bundle in bundles.values()), "nothing is joined yet"


def test_gathering_gives_way(wide_room: Room) -> None:
    """Thousands of subscribers of hundreds of streams are put their events in steps."""
    found = wide(wide_room)
    turns = []
    other = gevent.spawn(lambda: [(turns.append(1), gevent.sleep(0)) for _ in range(10_000)])
    gevent.sleep(0)
    before = len(turns)
    wide_room.dispatcher._gather()
    assert len(turns) - before >= 3
    other.kill()
    wide_room.round()
    for person, (_, peer) in enumerate(found):
        numbers = [value for _, value in values(peer.receive_all(290))]
        assert numbers == [n for n in range(300) if n % 30 != person]


def test_subscriptions_may_change_while_it_gathers(wide_room: Room) -> None:
    """Who changes them then is handed its own before, and nobody gets a thing twice."""
    found = wide(wide_room)
    hub, dispatcher = wide_room.hub, wide_room.dispatcher
    gathering = gevent.spawn(wide_room.round)
    wait_until(lambda: dispatcher._gathering != {})
    (leaver, left), (joiner, joined), (gone, _) = found[0], found[1], found[2]
    leaver.handle(b'{"event":"unsubscribe","streams":["m1.t"]}', True)
    joiner.handle(b'{"event":"subscribe","streams":["m1.t"]}', True)
    gone.lost()
    newcomer, new = wide_room.connect("m5.t")
    assert dispatcher._gathering, "all that happened in between"
    gathering.get()
    hub.publish("public.m1.t", b"1000", 0.0)
    wide_room.round()
    got = values(left.receive_all(291))
    assert [value for _, value in got[:290]] == [n for n in range(300) if n % 30 != 0]
    assert got[290][0] == "success"
    got = values(joined.receive_all(292))
    assert [value for _, value in got[:290]] == [n for n in range(300) if n % 30 != 1]
    assert got[290][0] == "success"
    assert got[291] == ("m1.t", 1000)
    assert values([new.receive()])[0][0] == "success"
    newcomer.push(b"\x81\x01!")
    assert new.receive() == "!", "what was published before it came is not for it"


def test_a_round_over_clients_that_lag_gives_way_too() -> None:
    """Also when all that is done for each is to keep or to skip frames."""
    made, policies = lagging_room("latest")
    with made as room:
        room.dispatcher.set_policies(policies)
        for client, _ in [room.connect("m.t", buffer=4096) for _ in range(200)]:
            while client.ready:
                client.offer(as_segments(b"\x81\x00" * 500))
        room.publish("public.m.t", "1")
        assert turns_during_round(room) >= 3


def turns_during_round(room: Room) -> int:
    """Return how often another greenlet ran while a round did."""
    turns = 0

    def work() -> None:
        nonlocal turns
        while True:
            turns += 1
            gevent.sleep(0)

    other = gevent.spawn(work)
    gevent.sleep(0)
    before = turns
    room.round()
    found = turns - before
    other.kill()
    return found


def test_a_short_round_does_not_give_way() -> None:
    """A slice is long enough for a hundred clients: no switch for nothing."""
    with delivery_room(slice_s=10.0) as room:
        crowd(room, "m.t")
        room.publish("public.m.t", "1")
        assert turns_during_round(room) == 0


def test_a_client_that_is_lost_in_the_middle_of_a_round(room: Room) -> None:
    """It is passed over, and nobody else misses anything."""
    lost, _ = room.connect("m.t", deflate=True)
    gone, gone_peer = room.connect("m.t")
    others = crowd(room, "m.t")
    room.publish("public.m.t", "1")
    rounds = gevent.spawn(room.round)
    gevent.sleep(0)
    assert not rounds.ready()
    lost.lost()
    gone_peer.reset()
    rounds.get()
    assert not gone.open
    for _, peer in others:
        peer.receive()
        assert peer.receive() == '{"m.t":1}'


def test_clients_may_come_in_the_middle_of_a_round(room: Room) -> None:
    """They get what is published after they came."""
    crowd(room, "m.t")
    room.publish("public.m.t", "1")
    rounds = gevent.spawn(room.round)
    gevent.sleep(0)
    assert not rounds.ready()
    _, peer = room.connect("m.t")
    _, packed = room.connect("m.t", deflate=True)
    room.publish("public.m.t", "2")
    rounds.get()
    room.round()
    for reader in (peer, packed):
        reader.receive()
        assert reader.receive() == '{"m.t":2}'


# -- running --------------------------------------------------------------------------------------


def test_the_greenlet_serves_what_comes(room: Room) -> None:
    """It sleeps while there is nothing, and the first frame wakes it."""
    _, peer = room.connect("m.t")
    peer.receive()
    running = gevent.spawn(room.dispatcher.run)
    gevent.sleep(0)
    try:
        for number in range(5):
            room.publish("public.m.t", str(number))
            assert peer.receive() == f'{{"m.t":{number}}}'
        wait_until(lambda: room.dispatcher.idle)
        assert room.dispatcher.slices == 5
    finally:
        running.kill()


def test_it_is_idle_when_nothing_is_under_way(room: Room) -> None:
    """Neither in the hub nor in a round."""
    assert room.dispatcher.idle
    crowd(room, "m.t")
    room.publish("public.m.t", "1")
    assert not room.dispatcher.idle
    rounds = gevent.spawn(room.round)
    gevent.sleep(0)
    assert not rounds.ready()
    assert not room.dispatcher.idle
    rounds.join()
    assert room.dispatcher.idle


def test_it_goes_on_after_a_failure(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that fails costs nobody else a message, whoever starts the greenlet again."""
    others = crowd(room, "m.t", 100)
    broken, _ = room.connect("m.t")
    room.publish("public.m.t", "1")
    with monkeypatch.context() as patch:
        patch.setattr(Connection, "offer", _failing_for(broken))
        with pytest.raises(ZeroDivisionError):
            room.dispatcher.run()
    running = gevent.spawn(room.dispatcher.run)
    for _, peer in others:
        peer.receive()
        assert peer.receive() == '{"m.t":1}'
    running.kill()


def _failing_for(broken: Connection) -> Any:
    offer = Connection.offer

    def failing(client: Connection, data: bytes) -> bool:
        if client is broken:
            raise ZeroDivisionError
        return offer(client, data)

    return failing


def test_the_consumer_is_held_while_much_waits(room: Room) -> None:
    """Whether it could read on or not, until what was read is under way."""
    _, peer = room.connect("m.t")
    for number in range(300):
        room.publish("public.m.t", str(number))
    pacing = [gevent.spawn(room.dispatcher.pace, more) for more in (True, False)]
    gevent.sleep(0.05)
    assert not any(greenlet.ready() for greenlet in pacing)
    room.round()
    gevent.joinall(pacing, 5)
    assert all(greenlet.ready() for greenlet in pacing)
    peer.receive()
    assert len(peer.receive_all(300)) == 300


def test_the_consumer_is_held_while_many_bytes_wait(room: Room) -> None:
    """A few large messages are as much work as many small ones."""
    room.connect("m.t")
    for number in range(3):
        room.publish("public.m.t", json.dumps([number, "x" * 500_000]))
    pacing = gevent.spawn(room.dispatcher.pace, True)
    gevent.sleep(0.05)
    assert not pacing.ready()
    room.round()
    pacing.join(5)
    assert pacing.ready()


class Clocks:
    """Both clocks of the dispatcher, moved by the test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.cpu_s = self.now_s = 100.0
        monkeypatch.setattr(dispatcher_module, "time", self)

    def process_time(self) -> float:
        """Return the processor's time."""
        return self.cpu_s

    def monotonic(self) -> float:
        """Return everybody's."""
        return self.now_s

    def pass_by(self, worked_s: float, waited_s: float) -> None:
        """Let both go on."""
        self.cpu_s += worked_s
        self.now_s += worked_s + waited_s


def rests(room: Room, clocks: Clocks, worked_s: float, waited_s: float, count: int) -> list[float]:
    """Return the rests of a reader that works and waits for so long between two reads."""
    found: list[float] = []
    room.dispatcher._read.wait = found.append  # type: ignore[assignment, method-assign]  # a signal's
    for _ in range(count):
        clocks.pass_by(worked_s, waited_s)
        room.dispatcher.pace(False)
    return found


@pytest.mark.parametrize(
    ("worked_s", "waited_s", "expected"),
    [
        (0.0005, 0.0, [0.0025] * 4),
        (0.0001, 0.0, [0.001, 0.001]),  # what is owed is added up to a millisecond
        (0.1, 0.0, [0.004] * 4),  # never longer than that
        (0.0002, 0.0008, []),  # light load: it waited longer than it owes
        (0.0005, 0.001, [0.0015] * 4),
    ],
)
def test_the_consumer_rests_in_proportion_to_work(
    monkeypatch: pytest.MonkeyPatch, worked_s: float, waited_s: float, expected: list[float]
) -> None:
    """Less what it waited for messages; without a factor never."""
    for factor in (2.0, 0.0):
        with delivery_room(rest_factor=factor) as room, monkeypatch.context() as patch:
            room.dispatcher._read = Reader()  # type: ignore[assignment]  # as much as is needed
            clocks = Clocks(patch)
            room.dispatcher.pace(False)
            room.dispatcher._owed_s = 0.0
            found = rests(room, clocks, worked_s, waited_s, 4)
            assert found == pytest.approx(expected if factor else [])


class Reader:
    """A signal that only notes for how long it is waited for."""

    def clear(self) -> None:
        """Do nothing."""

    def wait(self, timeout_s: float) -> None:
        """Do nothing."""


# -- turns ----------------------------------------------------------------------------------------


class CountingSocket:
    """A connection's socket that counts what is sent by it."""

    def __init__(self, client: Connection, found: Counter[Connection]) -> None:
        self._sock = client._sock
        self._client = client
        self._found = found

    def send(self, data: bytes) -> int:
        """Count and send."""
        self._found[self._client] += 1
        return self._sock.send(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


def sends(room: Room) -> Counter[Connection]:
    """Count the sends to each client from now on."""
    found: Counter[Connection] = Counter()
    for client in room.clients:
        client._sock = CountingSocket(client, found)  # type: ignore[assignment]  # it acts as one
    return found


@pytest.mark.parametrize("deflate", [False, True])
def test_what_comes_while_others_are_served_is_joined(
    room: Room, deflate: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those still in line get it with what they are due anyway, the others in their next turn."""
    # whatever the machine makes of the first gathering, the second does not wait
    monkeypatch.setattr("rango_gevent.delivery.dispatcher._GATHER_SHARE", float("inf"))
    people = [room.connect("m.t", deflate=deflate) for _ in range(CROWD)]
    found = sends(room)
    room.publish("public.m.t", "1")
    rounds = gevent.spawn(room.round)
    gevent.sleep(0)
    room.publish("public.m.t", "2")
    room.publish("public.m.t", "3")
    rounds.get()
    for _, peer in people:
        peer.receive()
        assert values(peer.receive_all(3)) == [("m.t", 1), ("m.t", 2), ("m.t", 3)]
    assert set(found.values()) == {1, 2}
    assert found[people[0][0]] == 2, "it was first in line"
    assert found[people[-1][0]] == 1, "it was last"


def test_streams_that_come_while_others_are_served_keep_their_order(room: Room) -> None:
    """Clients of one stream, of the other and of both; each sees the order of publishing."""
    held = [("a.t",), ("b.t",), ("a.t", "b.t")]
    people = [(names, room.connect(*names)[1]) for _ in range(80) for names in held]
    found = sends(room)
    room.publish("public.a.t", "0")
    rounds = gevent.spawn(room.round)
    for number in range(1, 9):
        gevent.sleep(0)
        for name in ("b.t", "a.t")[: 1 + number % 2]:
            room.publish(f"public.{name}", str(number))
    rounds.get()
    room.round()
    order = [("a.t", 0)]
    order += [(n, k) for k in range(1, 9) for n in ("b.t", "a.t")[: 1 + k % 2]]
    for names, peer in people:
        peer.receive()
        wanted = [item for item in order if item[0] in names]
        assert values(peer.receive_all(len(wanted))) == wanted
    assert sum(found.values()) < len(people) * 6, "frames were joined"


def test_a_client_rests_between_two_sends() -> None:
    """The first frame goes out at once; what follows soon after it is joined."""
    with delivery_room(rest_factor=1000.0) as room:
        _, peer = room.connect("m.t")
        peer.receive()
        found = sends(room)
        running = gevent.spawn(room.dispatcher.run)
        for number in range(60):
            room.publish("public.m.t", str(number))
            for _ in range(10):
                gevent.sleep(0)  # in turns, not in time: the dispatcher could send it now
        assert values(peer.receive_all(60)) == [("m.t", number) for number in range(60)]
        assert 2 <= sum(found.values()) < 50
        running.kill()


def test_who_was_silent_for_long_makes_nobody_rest(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others' work counts while a client is in line, not for the seconds in which it was not."""
    now_s = time.monotonic()
    monkeypatch.setattr("rango_gevent.delivery.dispatcher.time.monotonic", lambda: now_s)
    client, _ = room.connect("m.t")
    room.publish("public.m.t", "1")
    dispatcher = room.dispatcher
    dispatcher._busy_s = 100.0
    assert dispatcher._rest_s() <= 0, "it was never served"
    client.session.served = Mark(now_s - 10.0, 90.5)
    assert dispatcher._rest_s() <= 0
    client.session.served = Mark(now_s - 0.007, 99.995)
    assert 0 < dispatcher._rest_s() < 0.02, "it is served in turn"


def test_without_a_rest_nothing_waits() -> None:
    """Each frame goes out before the next one comes."""
    with delivery_room(rest_factor=0.0) as room:
        _, peer = room.connect("m.t")
        peer.receive()
        found = sends(room)
        running = gevent.spawn(room.dispatcher.run)
        for number in range(20):
            room.publish("public.m.t", str(number))
            peer.receive()
        assert sum(found.values()) == 20
        running.kill()


def test_nobody_is_kept_after_their_end(room: Room) -> None:
    """The line holds no client that was handed its frames before its turn and has gone."""
    people = crowd(room, "m.t")
    room.publish("public.m.t", "1")
    rounds = gevent.spawn(room.round)
    gevent.sleep(0)
    for client, _ in people:
        client.lost()
    rounds.get()
    assert not room.dispatcher._line
    assert not room.dispatcher._due


def test_rounds_frames_and_bytes_are_counted(room: Room) -> None:
    """Frames and bytes as often as there are clients that hold their stream."""
    peers = [room.connect("a.t", "b.t")[1], room.connect("a.t")[1]]
    for key in ("public.a.t", "public.a.t", "public.b.t", "public.c.t"):
        room.publish(key, "1")
    room.round()
    room.publish("public.a.t", "1")
    room.round()
    assert room.dispatcher.slices == 2
    assert room.dispatcher.frames == 2 * 2 + 1 + 2
    for peer in peers:
        peer.receive()
    peers[0].receive_all(4)
    peers[1].receive_all(3)
    replies = len('{"success":{"message":"subscribed","streams":["a.t","b.t"]}}') + 2
    replies += len('{"success":{"message":"subscribed","streams":["a.t"]}}') + 2
    sent = sum(len(peer.raw) - len(b"HTTP/1.1 101 Switching Protocols\r\n\r\n") for peer in peers)
    assert room.dispatcher.bytes == sent - replies


def test_the_lag_is_observed_for_each_message() -> None:
    """From publishing to the socket; a publisher whose clock is ahead gives no negative time."""
    lag = Histogram("lag_seconds", "Test.", buckets=(1, 10), registry=None)
    with delivery_room(lag=lag, now=lambda: 1000.0) as room:
        room.connect("a.t", "b.t")
        room.publish("public.a.t", "1", at_s=999.5)
        room.publish("public.b.t", "1", at_s=995.0)
        room.publish("public.b.t", "1", at_s=1003.0)
        room.publish("public.nobody.t", "1", at_s=1.0)
        room.round()
        found = {
            sample.name + str(sample.labels.get("le", "")): sample.value
            for sample in lag.collect()[0].samples
        }
    assert found["lag_seconds_count"] == 3
    assert found["lag_seconds_sum"] == 5.5
    assert found["lag_seconds_bucket1.0"] == 2


def test_a_hub_has_one_dispatcher(room: Room) -> None:
    """The last one made is the one that is woken."""
    other = Dispatcher(room.hub)
    assert room.hub.wake.__self__ is other._work  # type: ignore[attr-defined]  # a bound method


# -- any order of operations ------------------------------------------------------------------------

KEYS = {
    "m.ob-inc": "public.m.ob-inc",
    "m.ob-snap": "public.m.ob-snap",
    "a.t": "public.a.t",
    "order": "private.ID1.order",
}
steps = st.lists(
    st.tuples(st.just("publish"), st.sampled_from(list(KEYS)), st.integers(1, 3))
    | st.tuples(
        st.sampled_from(["subscribe", "subscribe", "unsubscribe"]),
        st.sampled_from(list(KEYS)),
        st.integers(0, 2),
    )
    | st.tuples(st.just("round"), st.just(""), st.just(0)),
    max_size=25,
)


@settings(max_examples=60, deadline=None)
@given(steps)
@example(
    [
        ("subscribe", "m.ob-inc", 0),
        ("publish", "m.ob-snap", 1),
        ("publish", "m.ob-inc", 2),
        ("subscribe", "m.ob-inc", 0),
    ]
)
def test_any_order_of_operations_arrives_as_in_a_plain_model(
    operations: list[tuple[str, str, int]],
) -> None:
    """Over real sockets, compressed or not: what each client reads is what it was owed."""
    with delivery_room(hub_limits=HubLimits(), slice_s=0.0) as room:
        people = [Person(room, deflate) for deflate in (False, True, False)]
        book: list[tuple[str, int]] = []
        number = 0
        for step, name, argument in operations:
            if step == "round":
                room.round()
                for person in people:
                    person.settle()
            elif step == "publish":
                for _ in range(argument):
                    number += 1
                    publish(room, people, book, name, number)
            else:
                people[argument].change(step, name, book)
        room.round()
        for person in people:
            person.settle()
            assert person.read() == person.wanted


def publish(
    room: Room, people: list[Person], book: list[tuple[str, int]], name: str, number: int
) -> None:
    """Publish a message, and owe it to those who hold its stream."""
    room.publish(KEYS[name], str(number))
    stream = name
    if name == "m.ob-snap":
        was_there = bool(book)
        book[:] = [(name, number)]
        if was_there:
            return
        stream = "m.ob-inc"
    elif name == "m.ob-inc":
        if not book:
            return
        book.append((name, number))
    for person in people:
        if stream in person.held:
            person.owed.append((name, number))


class Person:
    """A connection, and what it is owed."""

    def __init__(self, room: Room, deflate: bool) -> None:
        self.client, self.peer = room.connect(uid="ID1", deflate=deflate)
        self.held: list[str] = []
        self.owed: list[tuple[str, int]] = []
        self.wanted: list[tuple[str, Any]] = [("success", [])]

    def change(self, event: str, name: str, book: list[tuple[str, int]]) -> None:
        """Subscribe or unsubscribe, and wait until that is done."""
        registry = self.client._keeper
        before = Counter(registry.requests)
        self.peer.ask(event, name)
        wait_until(lambda: registry.requests[event] > before[event])
        sent_by = {"m.ob-inc": ("m.ob-snap", "m.ob-inc"), "m.ob-snap": ()}.get(name, (name,))
        left = [item for item in self.owed if item[0] not in sent_by]
        if event == "unsubscribe":
            self.owed = left
            if name in self.held:
                self.held.remove(name)
        else:
            if name == "m.ob-inc" and book:
                self.owed = left
                self.wanted += book
            if name not in self.held:
                self.held.append(name)
        listed = [n for n in self.held if "." in n] + [n for n in self.held if "." not in n]
        self.wanted.append(("success", listed))

    def settle(self) -> None:
        """Note that a round has sent what was owed."""
        self.wanted += self.owed
        self.owed = []

    def read(self) -> list[tuple[str, Any]]:
        """Return all that arrived."""
        found = values(self.peer.receive_all(len(self.wanted)))
        return [(name, v["streams"] if name == "success" else v) for name, v in found]
