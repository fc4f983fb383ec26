"""Clients over real sockets: requests and replies, the outbox, and every way to end."""

from __future__ import annotations

import json
import socket
import struct
import time
from typing import Iterator

import gevent
import pytest
from delivery_room import (
    RESPONSE,
    Peer,
    Room,
    as_segments,
    delivery_room,
    limits,
    tcp_pair,
    wait_until,
)
from websockets.frames import Close, Opcode

from rango_gevent.auth.identity import Identity
from rango_gevent.delivery import sender
from rango_gevent.delivery.connection import Connection
from rango_gevent.delivery.inbound import InboundLimits
from rango_gevent.delivery.outbox import SlowPolicy
from rango_gevent.model import SEGMENT_BYTES, Segment
from rango_gevent.protocol import close, messages
from rango_gevent.protocol.messages import NameLimits

SMALL = limits(outbox_bytes=4096)
PAD = "x" * 1000


@pytest.fixture
def room() -> Iterator[Room]:
    """A room with generous limits."""
    with delivery_room() as made:
        yield made


@pytest.fixture
def small() -> Iterator[Room]:
    """A room where a few kilobytes are too much."""
    with delivery_room(SMALL) as made:
        yield made


def subscribed(*names: str) -> str:
    """Return the reply to a subscription."""
    return json.dumps(
        {"success": {"message": "subscribed", "streams": names}}, separators=(",", ":")
    )


def unsubscribed(*names: str) -> str:
    """Return the reply to the opposite."""
    return subscribed(*names).replace('"subscribed"', '"unsubscribed"')


def is_resting(client: Connection) -> bool:
    """Tell whether nothing is going on about a client."""
    return client.ready and client._inbound is None and client._outbox is None


def fill(room: Room, client: Connection, key: str = "public.m.trades") -> int:
    """Publish until a client that reads nothing lags; return how many messages it took."""
    count = 0
    while client.ready:
        room.publish(key, json.dumps([count, PAD]))
        room.round()
        count += 1
    return count


def close_of(peer: Peer) -> tuple[Close, list[bytes]]:
    """Read to the end; return the close frame, which must be the last, and what came before."""
    *before, last = peer.receive_to_the_end()
    assert last.opcode is Opcode.CLOSE, last
    opcodes = opcodes_in(peer.raw[len(RESPONSE) :])
    assert opcodes.count(Opcode.CLOSE) == 1
    assert opcodes[-1] is Opcode.CLOSE, "an independent client ignores what follows: we do not"
    return Close.parse(bytes(last.data)), [bytes(frame.data) for frame in before]


def opcodes_in(data: bytes) -> list[Opcode]:
    """Return the opcodes of the frames in bytes of a server."""
    found = []
    while data:
        found.append(Opcode(data[0] & 0x0F))
        extra = {126: 2, 127: 8}.get(data[1], 0)
        size = int.from_bytes(data[2 : 2 + extra], "big") if extra else data[1]
        data = data[2 + extra + size :]
    return found


# -- requests and replies -------------------------------------------------------------------------


def test_the_first_frame_is_the_list_of_names(room: Room) -> None:
    """Behind the handshake's response, also when the list is empty."""
    _, peer = room.connect()
    _, other = room.connect("m.trades", "order", "n.trades", uid="ID1")
    assert peer.receive() == subscribed()
    assert peer.raw.startswith(b"HTTP/1.1 101 ")
    assert other.receive() == subscribed("m.trades", "n.trades", "order")


def test_requests_are_answered_in_order(room: Room) -> None:
    """Each with its reply, whatever portions they come in."""
    _, peer = room.connect(uid="ID1")
    peer.receive()
    peer.ask("subscribe", "m.trades", "order")
    peer.say("ping")
    peer.say(" ")
    peer.ask("unsubscribe", "m.trades", "unheld")
    peer.say("nonsense{")
    peer.ask("subscribe", "admin.m.sys")
    assert peer.receive() == subscribed("m.trades", "order")
    assert peer.receive() == "pong"
    assert peer.receive() == unsubscribed("order")
    assert json.loads(peer.receive())["error"].startswith("Could not parse message: ")
    assert peer.receive() == '{"success":{"message":"cannot subscribe to admin.m.sys"}}'
    assert peer.receive() == subscribed("order")
    assert +room.registry.requests == {"subscribe": 2, "unsubscribe": 1, "ping": 1, "error": 1}


def test_a_request_in_a_binary_message_is_read_like_text(room: Room) -> None:
    """As Rango does; bytes that are no UTF-8 are replaced, not fatal."""
    _, peer = room.connect()
    peer.receive()
    peer.core.send_binary(b"ping")
    peer.core.send_binary(b"\xff")
    peer.flush()
    assert peer.receive() == "pong"
    assert "error" in json.loads(peer.receive())


def test_pings_of_the_protocol_are_answered_in_order(room: Room) -> None:
    """With their own payload, between the replies that they stand between."""
    _, peer = room.connect()
    peer.receive()
    peer.core.send_text(b"ping")
    peer.core.send_ping(b"one")
    peer.core.send_text(b"ping")
    peer.flush()
    found = [peer.receive_frame() for _ in range(3)]
    assert [(frame.opcode, bytes(frame.data)) for frame in found] == [
        (Opcode.TEXT, b"pong"),
        (Opcode.PONG, b"one"),
        (Opcode.TEXT, b"pong"),
    ]


def test_bytes_that_came_with_the_handshake_are_read(room: Room) -> None:
    """A client may send its first request without waiting for the response."""
    source = Peer(socket.socketpair()[0], False)
    source.core.send_text(b"ping")
    _, peer = room.connect(early=b"".join(source.core.data_to_send()))
    assert peer.receive() == subscribed()
    assert peer.receive() == "pong"


def test_names_at_once_are_bounded() -> None:
    """The limit is on what a client would hold, so what it holds already counts once."""
    wanted = limits(names=NameLimits(3, 64))
    with delivery_room(wanted) as room:
        _, peer = room.connect("a.b", "c.d")
        peer.receive()
        peer.ask("subscribe", "e.f", "a.b")
        assert peer.receive() == subscribed("a.b", "c.d", "e.f")
        peer.ask("subscribe", "a.b", "g.h")
        assert json.loads(peer.receive()) == {"error": "Too many streams: the limit is 3"}
        peer.ask("unsubscribe", "a.b")
        assert peer.receive() == unsubscribed("c.d", "e.f")


def test_a_resting_client_holds_nothing(room: Room) -> None:
    """Between messages there is a socket and a watcher: no greenlet, no buffers."""
    client, peer = room.connect("m.trades")
    peer.receive()
    peer.say("ping")
    assert peer.receive() == "pong"
    wait_until(lambda: is_resting(client) and room.registry.greenlets == 0)


def test_half_a_message_is_kept(room: Room) -> None:
    """A client that stops inside a frame keeps its state; nobody else gets it."""
    client, peer = room.connect()
    _, other = room.connect()
    peer.receive()
    other.receive()
    peer.core.send_text(b"ping")
    data = b"".join(peer.core.data_to_send())
    peer.send(data[:-1])
    wait_until(lambda: client._inbound is not None and room.registry.greenlets == 0)
    other.say("ping")
    assert other.receive() == "pong"
    peer.send(data[-1:])
    assert peer.receive() == "pong"


# -- the outbox -----------------------------------------------------------------------------------


def test_what_the_socket_does_not_take_waits_for_the_writer(room: Room) -> None:
    """And all of it arrives, in order, when the client reads again."""
    client, peer = room.connect("m.trades", buffer=4096)
    count = fill(room, client)
    for number in range(count, count + 20):
        room.publish("public.m.trades", json.dumps([number, PAD]))
        room.round()
    assert 0 < client.outbox_bytes == room.registry.outbox_bytes
    peer.receive()
    found = [json.loads(peer.receive())["m.trades"][0] for _ in range(count + 20)]
    assert found == list(range(count + 20))
    wait_until(lambda: is_resting(client))
    assert client.outbox_bytes == 0


def test_two_who_lag_share_one_buffer(room: Room) -> None:
    """What waits for many clients is in memory once."""
    first, second = (room.connect("m.trades", buffer=4096)[0] for _ in range(2))
    for client in (first, second):
        fill(room, client)
    room.publish("public.m.trades", json.dumps(PAD))
    room.round()
    assert first._outbox is not None
    assert second._outbox is not None
    (last, _), (other, _) = first._outbox._pieces[-1], second._outbox._pieces[-1]
    assert isinstance(last, Segment)
    assert last is other


def test_a_slow_client_is_closed_with_a_reason(small: Room) -> None:
    """Past the bound what waits is forgotten, the frame under way completed, 4008 sent."""
    client, peer = small.connect("m.trades", buffer=4096)
    quick, reader = small.connect("m.trades")
    reader.receive()
    count = 0
    while client.open:
        small.publish("public.m.trades", json.dumps([count, PAD]))
        small.round()
        assert json.loads(reader.receive())["m.trades"][0] == count
        count += 1
    assert client.outbox_bytes < 4096
    reason, before = close_of(peer)
    assert (reason.code, reason.reason) == (4008, "slow client")
    assert [json.loads(data)["m.trades"][0] for data in before[1:]] == list(range(len(before) - 1))
    assert len(before) - 1 < count
    peer.close()
    wait_until(lambda: client not in list(small.registry))
    assert small.registry.closed["slow_client"] == 1
    assert quick.open


def test_a_client_that_takes_nothing_is_given_up() -> None:
    """The writer waits for some progress, not for ever."""
    with delivery_room(limits(write_timeout_s=0.05)) as room:
        client, _ = room.connect("m.trades", buffer=4096)
        fill(room, client)
        wait_until(lambda: len(room.registry) == 0)
        assert room.registry.closed["slow_client"] == 1


def test_requests_wait_while_the_answers_do(small: Room) -> None:
    """Who does not read the answers is not read either: a flood is bounded by the outbox."""
    client, peer = small.connect("a" * 60 + ".b", buffer=4096)
    peer.sock.settimeout(0.2)
    source = Peer(socket.socketpair()[0], False)
    for _ in range(200):
        source.core.send_text(json.dumps({"event": "subscribe", "streams": []}).encode())
    requests = b"".join(source.core.data_to_send())
    with pytest.raises(OSError, match="timed out"):
        for _ in range(100):
            peer.send(requests)
    reply = len(messages.subscribed(["a" * 60 + ".b"]))
    assert client.outbox_bytes <= 4096 + reply
    assert client.open


def test_many_requests_in_one_write_are_answered_one_by_one() -> None:
    """Each looks at the outbox first: a few bytes cannot ask for a thousand times as many."""
    names = tuple('"' * 60 + f"{number}.b" for number in range(100))
    wide = limits(outbox_bytes=4096, names=NameLimits(100, 100))
    with delivery_room(wide) as room:
        client, peer = room.connect(*names, buffer=4096)
        reply = len(messages.subscribed(list(names)))
        peer.core.send_text(json.dumps({"event": "subscribe", "streams": []}).encode())
        one = b"".join(peer.core.data_to_send())
        peer.send(one * 90)
        for _ in range(200):
            gevent.sleep(0)
        assert client.outbox_bytes <= 4096 + 2 * reply
        assert room.registry.requests["subscribe"] < 5
        assert [len(peer.receive()) for _ in range(91)] == [reply - 4] * 91
        assert room.registry.requests["subscribe"] == 90


def test_who_was_answered_much_waits() -> None:
    """For the next answer, in proportion; events go on meanwhile."""
    with delivery_room(limits(reply_bytes_per_s=400.0)) as room:
        _, peer = room.connect("m.trades")
        peer.receive()
        started = time.monotonic()
        for _ in range(10):
            peer.ask("subscribe")
        room.publish("public.m.trades", "1")
        room.round()
        found = [peer.receive() for _ in range(11)]
        assert time.monotonic() - started > 0.4
        assert found.index('{"m.trades":1}') < 10


def test_early_bytes_are_read_in_portions() -> None:
    """However many frames came along with the handshake, others have their turn."""
    source = Peer(socket.socketpair()[0], False)
    for _ in range(5000):
        source.core.send_text(b"ping")
    with delivery_room(limits(requests_burst=10_000)) as room:
        _, other = room.connect()
        other.receive()
        other.say("ping")
        _, peer = room.connect(early=b"".join(source.core.data_to_send()))
        other.receive()
        assert room.registry.requests["ping"] < 5000
        peer.receive()
        assert peer.receive_all(5000) == ["pong"] * 5000


def test_the_kernel_s_buffer_is_bounded() -> None:
    """As the setting says; with 0 it is the system's."""
    sizes = []
    for wanted in (100_000, 0):
        with delivery_room(limits(send_buffer_bytes=wanted)) as room:
            client, peer = room.connect(tcp=True)
            peer.receive()
            sizes.append(client._sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF))
    assert sizes[0] == 100_000
    assert sizes[1] > 100_000


def test_a_large_replay_waits_by_reference(small: Room) -> None:
    """Clients that read nothing hold the book's own segments, and what they pin is little."""
    small.publish("public.m.ob-snap", "0")
    for number in range(1000):
        small.publish("public.m.ob-inc", json.dumps([number, PAD]))
    book = small.hub.books["m.ob-inc"]
    people = [small.connect("m.ob-inc", buffer=4096) for _ in range(3)]
    for client, _ in people:
        assert client._outbox is not None
        pieces = {id(piece) for piece, _ in client._outbox._pieces if isinstance(piece, Segment)}
        assert pieces <= {id(segment) for segment in book.replay()}
        assert len(client._outbox._rest) <= SEGMENT_BYTES + len(PAD) + 100
        assert client.open, "what it asked for never makes it slow"
    for _, peer in people:
        assert "m.ob-snap" in peer.receive()
        assert len(peer.receive_all(1000)) == 1000


def test_a_burst_is_no_reason_to_close() -> None:
    """More than the bound may wait for a moment, if it was read by then."""
    with delivery_room(limits(outbox_bytes=4096, slow_after_s=5.0)) as room:
        client, peer = room.connect("m.trades", buffer=4096)
        for number in range(30):
            room.publish("public.m.trades", json.dumps([number, PAD]))
            room.round()
        assert client.outbox_bytes > 4096
        peer.receive()
        assert len(peer.receive_all(30)) == 30
        wait_until(lambda: is_resting(client))
        assert client.open


def test_who_leaves_with_many_streams_leaves_in_slices() -> None:
    """Their end does not hold the loop, and nothing of them is left."""
    names = tuple(f"m{number}.trades" for number in range(500))
    with delivery_room(limits(names=NameLimits(500, 64))) as room:
        people = [room.connect(*names)[0] for _ in range(3)]
        for client in people:
            client.lost()
        assert len(room.registry) == 0
        assert room.hub.topics.total
        room.publish("public.m1.trades", "1")
        room.round()
        wait_until(lambda: room.hub.topics.total == 0)


def test_every_state_leads_to_the_end() -> None:
    """Only what is closed stays so, and nothing leads back from the way out."""
    states = {sender.READY, sender.WAITING, sender.CLOSING, sender.ENDING, sender.CLOSED}
    for (state, _), after in sender._NEXT.items():
        assert {state, after} <= states
        assert state != sender.CLOSED
        assert state < sender.CLOSING or after > state
    for state in states - {sender.CLOSED}:
        assert sender._NEXT[state, sender.LOST] == sender.CLOSED


def test_a_flood_leaves_a_turn_to_others(room: Room) -> None:
    """A client that never stops sending is read a portion at a time."""
    _, peer = room.connect()
    _, other = room.connect()
    peer.receive()
    other.receive()
    source = Peer(socket.socketpair()[0], False)
    source.core.send_text(b" " * 1000)
    blank = b"".join(source.core.data_to_send())
    flooding = gevent.spawn(lambda: [peer.send(blank * 10) for _ in range(90)])
    other.say("ping")
    assert other.receive() == "pong"
    flooding.kill()


def test_compressed_frames_reach_who_asked_for_them(room: Room) -> None:
    """The same event, in two forms, each made once."""
    _, plain = room.connect("m.trades")
    _, one = room.connect("m.trades", deflate=True)
    _, other = room.connect("m.trades", deflate=True)
    body = json.dumps({"a": PAD})
    room.publish("public.m.trades", body)
    room.round()
    for peer in (plain, one, other):
        assert peer.receive() == subscribed("m.trades")
        assert peer.receive() == f'{{"m.trades":{body}}}'
    assert len(room.packed) == 1
    assert len(one.raw) == len(other.raw) < len(plain.raw) - 900


def test_compressed_requests_are_read(room: Room) -> None:
    """And the object that inflates is never lent to a client without compression."""
    client, peer = room.connect(deflate=True)
    _, plain = room.connect()
    for reader in (peer, plain):
        reader.receive()
    long = json.dumps({"event": "subscribe", "streams": ["m.trades"], "pad": PAD})
    for _ in range(3):
        peer.say(long)
        assert peer.receive() == subscribed("m.trades")
        wait_until(lambda: is_resting(client))
        plain.say("ping")
        assert plain.receive() == "pong"


# -- what lags by policy ----------------------------------------------------------------------------


def policies(room: Room) -> None:
    """Let increments be given afresh, tickers be the latest, klines lose their oldest."""
    patterns = [("*-inc", "latest"), ("*.tickers", "latest"), ("*.kline", "drop-oldest")]
    room.dispatcher.set_policies(SlowPolicy("close", patterns))


def test_nothing_is_sent_behind_a_close_frame(small: Room) -> None:
    """Whatever waits for a client that lags goes out before the close frame or not at all."""
    policies(small)
    client, peer = small.connect("m.trades", "m.tickers", "m.kline", buffer=4096)
    fill(small, client, "public.m.tickers")
    for number in range(3):
        for key in ("public.m.tickers", "public.m.kline"):
            small.publish(key, json.dumps([number, PAD]))
    small.round()
    client.close(close.RESTART)
    small.publish("public.m.kline", "9")
    small.round()
    client.push(messages.PONG_FRAME)
    reason, _ = close_of(peer)
    assert reason.code == 1012
    assert peer.core.close_rcvd is not None


def test_a_book_that_was_left_is_not_subscribed_again(small: Room) -> None:
    """Being given afresh is for books that the client still holds."""
    policies(small)
    client, peer = small.connect("m.ob-inc", "m.trades", buffer=4096)
    small.publish("public.m.ob-snap", "0")
    fill(small, client, "public.m.ob-inc")
    for number in range(20):
        small.publish("public.m.ob-inc", json.dumps([number, PAD]))
        small.round()
    assert small.dispatcher.skipped["resync"] > 0
    peer.ask("unsubscribe", "m.ob-inc")
    wait_until(lambda: "m.ob-inc" not in client.session.streams)
    while peer.receive() != unsubscribed("m.trades"):
        pass
    wait_until(lambda: is_resting(client))
    assert list(client.session.streams) == ["m.trades"]
    small.publish("public.m.ob-inc", "1")
    small.publish("public.m.trades", "2")
    small.round()
    assert peer.receive() == '{"m.trades":2}'


def test_a_book_that_was_left_out_comes_afresh(small: Room) -> None:
    """The client sees increments up to where it fell behind, then the whole book, with no gap."""
    policies(small)
    client, peer = small.connect("m.ob-inc", buffer=4096)
    small.publish("public.m.ob-snap", json.dumps([0]))
    last = 0
    for last in range(1, 200):
        small.publish("public.m.ob-inc", json.dumps([last, PAD]))
        small.round()
    assert small.dispatcher.skipped["resync"] > 0
    assert client.open
    assert peer.receive() == subscribed("m.ob-inc")
    check_book(peer, last)


def check_book(peer: Peer, last: int) -> None:
    """Follow a book up to an increment: each is the next one, and a snapshot starts anew."""
    at = 0
    while at != last:
        ((name, value),) = json.loads(peer.receive()).items()
        if name.endswith("-snap"):
            at = value[0]
        else:
            assert value[0] == at + 1, "a gap, or a duplicate"
            at = value[0]


# -- the end --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (struct.pack("!H", 1000) + b"bye", 1000),
        (struct.pack("!H", 1001), 1001),
        (struct.pack("!H", 4321) + "é".encode(), 4321),
        (b"", 1005),
    ],
)
@pytest.mark.parametrize("tcp", [False, True])
def test_a_client_that_closes_is_answered(room: Room, sent: bytes, code: int, tcp: bool) -> None:
    """Its code comes back, then the end of the stream; the reason is counted as its own."""
    client, peer = room.connect("m.trades", tcp=tcp)
    peer.receive()
    peer.send(b"\x88" + bytes((0x80 | len(sent),)) + bytes(4) + sent)
    reason, before = close_of(peer)
    assert before == []
    assert reason.code == code
    assert not client.open
    peer.close()
    wait_until(lambda: len(room.registry) == 0)
    assert room.registry.closed["client_closed"] == 1


@pytest.mark.parametrize("reason", close.SENT, ids=lambda reason: reason.word)
@pytest.mark.parametrize("tcp", [False, True])
def test_a_close_is_a_handshake(room: Room, reason: close.CloseReason, tcp: bool) -> None:
    """The client gets code and text, answers, and only then the socket is closed.

    Nor is the output ended before: a proxy would end both ways, and what the client has sent
    meanwhile would cost it the close frame.
    """
    client, peer = room.connect("m.trades", tcp=tcp)
    peer.receive()
    client.close(reason)
    client.close(close.INTERNAL)
    assert not client.open
    peer.core.send_pong(b"")
    peer.flush()
    frame = peer.receive_frame()
    found = Close.parse(bytes(frame.data))
    assert (frame.opcode, found.code, found.reason) == (Opcode.CLOSE, reason.code, reason.text)
    with pytest.raises(TimeoutError), gevent.Timeout(0.05, TimeoutError):
        peer.read()
    assert client in list(room.registry)
    assert peer.receive_to_the_end() == []
    wait_until(lambda: len(room.registry) == 0)
    assert room.registry.closed[reason.word] == 1


def test_a_close_frame_stands_behind_all_that_waits(room: Room) -> None:
    """A client that is told to go elsewhere loses nothing of what was sent before."""
    client, peer = room.connect("m.trades", buffer=4096)
    count = fill(room, client)
    client.close(close.RESTART)
    reason, before = close_of(peer)
    assert reason.code == 1012
    assert [json.loads(data)["m.trades"][0] for data in before[1:]] == list(range(count))


def test_a_closing_client_gets_no_events(room: Room) -> None:
    """It is out of all streams at once."""
    client, peer = room.connect("m.trades")
    peer.receive()
    client.close(close.RESTART)
    assert room.hub.topics.total == 0
    assert client.offer(as_segments(b"x"))
    client.push(b"y")
    client.ping(1.0)
    assert close_of(peer)[1] == []


def test_one_close_frame_is_sent_though_flushing_was_too_much(small: Room) -> None:
    """It is due more than it may have: it is slow, and only that."""
    client, peer = small.connect("m.trades", buffer=4096)
    fill(small, client)
    while client.offer(as_segments(b"\x81\x7e\x03\xe8" + b"y" * 1000)):
        pass
    small.dispatcher._slice_s = 0.0
    for _ in range(100):
        small.connect("m.trades")
    subscribers = client.session.streams["m.trades"].subscribers
    del subscribers[client.session]
    subscribers[client.session] = None  # the last in line
    small.publish("public.m.trades", json.dumps("z" * 1000))
    rounds = gevent.spawn(small.round)
    gevent.sleep(0)
    assert not rounds.ready()
    client.close(close.RESTART)
    assert close_of(peer)[0].code == 4008


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x81\x04ping", 1002),  # not masked
        (b"\x83\x80\0\0\0\0", 1002),  # reserved opcode
        (b"\xc1\x80\0\0\0\0", 1002),  # RSV1 without the extension
        (b"\x81\xfe\x00\x01\0\0\0\0", 1002),  # a length that is too long a form
        (b"\x81\x81\0\0\0\0\xff", 1007),
        (b"\x81\xfe\x10\x01", 1009),
        (b"\x81\xff\x7f\xff\xff\xff\xff\xff\xff\xff", 1009),
        (b"\x01\x80\0\0\0\0" + b"\x00\x80\0\0\0\0" * 8, 4010),
    ],
)
def test_a_broken_client_is_closed_with_the_reason(room: Room, data: bytes, code: int) -> None:
    """What it asked for before is answered first."""
    client, peer = room.connect()
    peer.receive()
    peer.core.send_text(b"ping")
    peer.send(b"".join(peer.core.data_to_send()) + data)
    reason, before = close_of(peer)
    assert before == [b"pong"]
    assert reason.code == code
    assert client in list(room.registry), "it may still read its close frame"
    peer.send(b"more of the same")
    peer.close()
    wait_until(lambda: len(room.registry) == 0)
    assert room.registry.closed[close.BY_CODE[code].word] == 1


def test_an_error_of_ours_is_told_as_such(room: Room) -> None:
    """A failing request ends with 1011 and a traceback in the log, not in silence."""

    def fail(prefix: str, role: str) -> bool:
        raise ZeroDivisionError

    room.hub.allows = fail
    _, peer = room.connect()
    peer.receive()
    peer.ask("subscribe", "admin.m.sys")
    assert close_of(peer)[0].code == 1011
    peer.close()
    wait_until(lambda: room.registry.closed["internal_error"] == 1)


@pytest.mark.parametrize("tcp", [False, True])
def test_a_client_that_vanishes_is_forgotten(room: Room, tcp: bool) -> None:
    """By its end of the stream, or by a reset."""
    for end in (Peer.close, Peer.reset):
        client, peer = room.connect("m.trades", tcp=tcp)
        peer.receive()
        end(peer)
        wait_until(lambda: len(room.registry) == 0)
        assert not client.session.streams
    assert room.registry.closed["connection_lost"] == 2


def test_a_client_that_vanishes_is_noticed_by_sending(room: Room) -> None:
    """Nobody waits for the loop to say so."""
    client, peer = room.connect("m.trades", tcp=True)
    peer.receive()
    peer.reset()
    room.publish("public.m.trades", "1")
    room.round()
    room.publish("public.m.trades", "2")
    room.round()
    assert not client.open
    assert room.hub.topics.total == 0


@pytest.mark.parametrize("names", [(), ("m.trades", "order")])
@pytest.mark.parametrize("deflate", [False, True])
def test_a_client_that_is_gone_before_its_response(
    room: Room, names: tuple[str, ...], deflate: bool
) -> None:
    """It is never subscribed, and the next round does not stumble over it."""
    outside, inside = socket.socketpair()
    outside.close()
    client = room.adopt(
        inside,
        identity=Identity("ID1", "", None),
        names=names,
        deflate=deflate,
        early=b"\x81\x80\0\0\0\0",
    )
    assert not client.open
    assert len(room.registry) == 0
    assert room.hub.topics.total == 0
    room.publish("public.m.trades", "1")
    room.round()


def test_a_client_is_lost_while_it_lags(room: Room) -> None:
    """Its writer ends with it, whether it had begun or not."""
    begun, _ = room.connect("m.trades", buffer=4096)
    fill(room, begun)
    gevent.sleep(0)
    assert begun._write_watcher is not None
    begun.lost()
    fresh, _ = room.connect("m.trades", buffer=4096)
    fill(room, fresh)
    fresh.lost()
    wait_until(lambda: room.registry.greenlets == 0)
    assert room.registry.outbox_bytes == 0


def test_a_number_of_a_closed_socket_may_be_anothers(room: Room) -> None:
    """After the end nothing touches the descriptor: it belongs to somebody else by then."""
    client, peer = room.connect("m.trades", buffer=4096)
    fill(room, client)
    gevent.sleep(0)
    client.lost()
    peer.close()
    others = [tcp_pair() for _ in range(3)]
    gevent.sleep(0.01)
    for one, other in others:
        one.setblocking(False)
        with pytest.raises(BlockingIOError):
            one.recv(1)
        one.close()
        other.close()


def test_a_client_that_does_not_answer_a_close_keeps_its_place_in_time() -> None:
    """It waits among those who leave, with the time at which it is given up."""
    with delivery_room(limits(close_timeout_s=3.0)) as room:
        client, peer = room.connect()
        peer.receive()
        client.close(close.RESTART)
        ((until, leaving),) = room.heartbeat._leaving
        assert leaving is client
        assert until > room.registry.clock.now_s


def test_limits_that_change_are_for_newcomers_and_old_ones() -> None:
    """An object that was lent under the old limits does not bring them back."""
    with delivery_room() as room:
        client, peer = room.connect()
        _, other = room.connect()
        peer.receive()
        other.receive()
        peer.core.send_text(b"ping")
        data = b"".join(peer.core.data_to_send())
        peer.send(data[:-1])
        wait_until(lambda: client._inbound is not None and room.registry.greenlets == 0)
        room.registry.set_limits(limits(inbound=InboundLimits(125, 8)), [], bytes)
        peer.send(data[-1:])
        assert peer.receive() == "pong"
        wait_until(lambda: is_resting(client))
        other.say(b" " * 200)
        assert close_of(other)[0].code == 1009


# -- the rate ---------------------------------------------------------------------------------------


def test_a_burst_is_allowed_and_then_told() -> None:
    """One error for what is too much, a close for much too much."""
    with delivery_room(limits(requests_per_s=1.0, requests_burst=5)) as room:
        _, peer = room.connect()
        peer.receive()
        for _ in range(5):
            peer.say("ping")
            assert peer.receive() == "pong"
        peer.say("ping")
        assert json.loads(peer.receive()) == {"error": "Too many requests: the limit is 1/s"}
        for _ in range(4):
            peer.say("ping")
        peer.say("ping")
        assert close_of(peer)[0].code == 4029


@pytest.mark.parametrize("per_s", [0.1, 0.5, 0.9, 1.0, 1.5, 3.0])
def test_who_keeps_the_rate_is_never_told(per_s: float) -> None:
    """For as long as it likes, at the rate that is allowed, however low."""
    with delivery_room(limits(requests_per_s=per_s, requests_burst=3)) as room:
        _, peer = room.connect()
        peer.receive()
        owed = 0.0
        for _ in range(100):
            room.registry.clock.now_s += 1  # the coarse clock ticks once a second
            owed += per_s
            while owed >= 1:
                owed -= 1
                peer.say("ping")
                assert peer.receive() == "pong"


def test_tokens_come_back_with_time() -> None:
    """Up to the burst, not beyond it."""
    with delivery_room(limits(requests_per_s=1.0, requests_burst=3)) as room:
        _, peer = room.connect()
        peer.receive()
        room.registry.clock.now_s += 1000
        for _ in range(3):
            peer.say("ping")
            assert peer.receive() == "pong"
        peer.say("ping")
        assert "error" in json.loads(peer.receive())
        room.registry.clock.now_s += 2
        peer.say("ping")
        assert peer.receive() == "pong"
