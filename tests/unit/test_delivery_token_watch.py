"""The ends of tokens: who is warned, closed, made anonymous or left alone, and when."""

from __future__ import annotations

import json
from typing import Any, Iterator

import gevent
import pytest
from delivery_room import Peer, Room, delivery_room, limits, wait_until
from websockets.frames import Close, Opcode

from rango_gevent.auth.identity import Identity
from rango_gevent.delivery.connection import Connection
from rango_gevent.delivery.heartbeat import Heartbeat
from rango_gevent.delivery.session import MANNERS
from rango_gevent.delivery.token_watch import CLOSE, DOWNGRADE, IGNORE, ExpiryRules

AT = 1_700_000_000.0
ROUND_S = 10


class Clocks:
    """A heartbeat whose seconds pass when the test says so, on both clocks."""

    def __init__(self, room: Room, policy: str = CLOSE, grace_s: float = 25.0) -> None:
        self.room = room
        self.now = room.registry.clock.now_s
        self.wall = AT
        heartbeat = Heartbeat(
            ping_interval_s=ROUND_S,
            pong_timeout_s=1e9,
            now=lambda: self.now,
            wall=lambda: self.wall,
        )
        room.set_heartbeat(heartbeat)
        self.watch = heartbeat.tokens
        self.watch.rules = ExpiryRules(policy, grace_s)

    def pass_to(self, second: int) -> None:
        """Let seconds pass until so many after the start."""
        while self.wall < AT + second:
            self.now += 1
            self.wall += 1
            self.room.heartbeat.tick(self.now)
            gevent.sleep(0)
        wait_until(lambda: self.room.registry.greenlets == 0)

    def connect(self, ttl_s: float | None, *names: str, **more: Any) -> tuple[Connection, Peer]:
        """Connect somebody whose token is good for so long."""
        expires_at_s = None if ttl_s is None else AT + ttl_s
        identity = Identity(more.pop("uid", "ID1"), more.pop("role", ""), expires_at_s)
        client, peer = self.room.connect(*names, identity=identity, **more)
        peer.receive()
        return client, peer


@pytest.fixture
def room() -> Iterator[Room]:
    """A room with clocks yet to be made."""
    with delivery_room(limits(close_timeout_s=1e9)) as made:  # by a clock that is not the test's
        yield made


def close_of(peer: Peer) -> Close:
    """Return the close frame that comes next but for pings."""
    frames = [frame for frame in peer.receive_to_the_end() if frame.opcode is Opcode.CLOSE]
    peer.answer_close()
    return Close.parse(frames[0].data)


@pytest.mark.parametrize("ttl_s", [0.5, 3, 29, 100])
def test_closed_when_the_grace_is_over(room: Room, ttl_s: float) -> None:
    """Within a second, however far away the end was."""
    clocks = Clocks(room)
    client, peer = clocks.connect(ttl_s)
    clocks.pass_to(int(ttl_s) + 24)
    assert client.open
    clocks.pass_to(int(ttl_s) + 27)
    assert not client.open
    assert close_of(peer) == Close(4401, "authentication expired")
    wait_until(lambda: room.registry.closed == {"unauthenticated": 1})
    assert clocks.watch.ended == {CLOSE: 1}


def test_a_token_without_an_end_costs_nothing(room: Room) -> None:
    """Nor does one that ends later: nobody waits for it yet."""
    clocks = Clocks(room)
    for ttl_s in (None, 1e6, 1e300):
        clocks.connect(ttl_s)
    clocks.pass_to(3 * ROUND_S)
    assert len(clocks.watch) == 0
    assert len(room.registry) == 3


def test_who_asked_is_warned_once(room: Room) -> None:
    """Half a minute before the end, not before and not again; others are not."""
    clocks = Clocks(room)
    asked, told = clocks.connect(100, manner=MANNERS[True, False, False])
    _, silent = clocks.connect(100)
    clocks.pass_to(94)
    assert not room.registry.closed
    clocks.pass_to(97)
    text = next(frame for frame in read_now(told) if frame.opcode is Opcode.TEXT)
    notice = json.loads(text.data)
    assert notice["event"] == "auth_expiring"
    assert 28 <= notice["in"] <= 30
    clocks.pass_to(123)
    assert not [frame for frame in read_now(told) if frame.opcode is Opcode.TEXT]
    assert not [frame for frame in read_now(silent) if frame.opcode is Opcode.TEXT]
    assert asked.open


def read_now(peer: Peer) -> list[Any]:
    """Return the frames that are there already."""
    peer.sock.setblocking(False)
    try:
        while peer.read():
            pass
    except BlockingIOError:
        pass
    found, peer.frames = peer.frames, []
    return found


def test_a_renewal_moves_the_end(room: Room) -> None:
    """Later or earlier, and to none at all."""
    clocks = Clocks(room)
    later, _ = clocks.connect(10)
    never, _ = clocks.connect(10)
    sooner, peer = clocks.connect(1000)
    clocks.pass_to(12)
    later.session.become(Identity("ID1", "", AT + 500))
    never.session.become(Identity("ID1", "", None))
    sooner.session.become(Identity("ID1", "", AT + 13))
    clocks.pass_to(60)
    assert later.open
    assert never.open
    assert not sooner.open
    peer.answer_close()
    later.session.become(Identity("ID1", "", AT + 70))
    assert later.open
    clocks.pass_to(97)
    assert not later.open


def test_downgraded_to_anonymous(room: Room) -> None:
    """What it may not have any more is gone and told; the connection goes on."""
    clocks = Clocks(room, DOWNGRADE, grace_s=0)
    client, peer = clocks.connect(5, "a.b", "order", "admin.a.b", role="admin")
    clocks.pass_to(7)
    assert client.session.uid is None
    texts = [frame for frame in read_now(peer) if frame.opcode is Opcode.TEXT]
    assert [json.loads(frame.data) for frame in texts] == [
        {"success": {"message": "unsubscribed", "streams": ["a.b"]}}
    ]
    clocks.pass_to(200)
    assert client.open
    assert clocks.watch.ended == {DOWNGRADE: 1}


def test_ignored(room: Room) -> None:
    """As Rango does."""
    clocks = Clocks(room, IGNORE)
    client, _ = clocks.connect(5, "order")
    clocks.pass_to(100)
    assert client.open
    assert list(client.session.streams) == ["order"]
    assert len(clocks.watch) == 0


@pytest.mark.parametrize("policy", [CLOSE, DOWNGRADE, IGNORE])
def test_a_stranger_has_a_while(room: Room, policy: str) -> None:
    """To bring a token: else it is closed, whatever becomes of tokens that end."""
    clocks = Clocks(room, policy)
    client, peer = clocks.connect(10, uid=None)
    known, _ = clocks.connect(10, uid=None)
    clocks.pass_to(9)
    assert client.open
    known.session.become(Identity("ID1", "", None))
    clocks.pass_to(12)
    assert not client.open
    assert close_of(peer) == Close(4401, "authentication missing")
    assert known.open


def test_many_ends_in_one_second(room: Room) -> None:
    """A common end is a herd: between some of them everything else has its turn."""
    clocks = Clocks(room, grace_s=0)
    pairs = [clocks.connect(5) for _ in range(100)]
    turns: list[int] = []

    def count() -> None:
        while True:
            turns.append(len([client for client, _ in pairs if client.open]))
            gevent.sleep(0)

    other = gevent.spawn(count)
    clocks.pass_to(7)
    other.kill()
    assert [left for left in turns if 0 < left < 100], "nobody had a turn while they were closed"
    for _, peer in pairs:
        peer.answer_close()


def test_who_leaves_is_waited_for_no_more(room: Room) -> None:
    """So nothing is held of connections that come and go."""
    clocks = Clocks(room)
    for _ in range(10):
        client, peer = clocks.connect(3)
        client.lost()
        peer.close()
    assert len(clocks.watch) == 0
