"""The decoder hands out what py-amqp alone would hand out, for any stream and any portions.

Streams are written by py-amqp's own serialisation; its own frame handler is the reference.
"""

from __future__ import annotations

import math
import struct
from typing import Any, NamedTuple

import amqp
import pytest
from amqp import serialization
from amqp.basic_message import Message
from amqp.exceptions import UnexpectedFrame
from amqp.method_framing import frame_handler, frame_writer
from hypothesis import given
from hypothesis import strategies as st

from rango_gevent.source.amqp.decoder import Decoder, seconds

CHANNEL = 2
TAG = "rango"
EXCHANGE = "peatio.events.ranger"
NOW = 1_700_000_000.5
FRAME_MAX = 4096

DELIVER = (60, 60)
HEARTBEAT = (8, 0, b"")

AmqpFrame = tuple[int, int, bytes]


class Wire:
    """What py-amqp's writer and handler need of a connection and a transport."""

    frame_max = FRAME_MAX

    def __init__(self) -> None:
        self.bytes_recv = self.bytes_sent = 0
        self.written = bytearray()
        self.write_frame = frame_writer(self, self)

    def write(self, data: Any) -> None:
        """Keep what is written."""
        self.written += data


class Delivery(NamedTuple):
    """A message on its way to a consumer."""

    key: str
    body: bytes | str
    properties: dict[str, Any]
    channel: int = CHANNEL
    tag: str = TAG
    exchange: str = EXCHANGE

    def frames(self) -> list[AmqpFrame]:
        """Return its frames: method, header, and bodies of at most the frame size."""
        wire = Wire()
        arguments = serialization.dumps("sLbss", (self.tag, 7, False, self.exchange, self.key))
        content = Message(self.body, **self.properties)
        wire.write_frame(1, self.channel, DELIVER, arguments, content)
        return split(bytes(wire.written))


def split(data: bytes) -> list[AmqpFrame]:
    """Take bytes apart into frames."""
    frames = []
    while data:
        kind, channel, size = struct.unpack_from(">BHI", data)
        assert data[7 + size] == 0xCE
        frames.append((kind, channel, data[7 : 7 + size]))
        data = data[8 + size :]
    return frames


def joined(frames: list[AmqpFrame]) -> bytes:
    """Write frames."""
    return b"".join(
        struct.pack(">BHI", kind, channel, len(payload)) + payload + b"\xce"
        for kind, channel, payload in frames
    )


class Log:
    """What was handed out, in order."""

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []
        self.handle = frame_handler(Wire(), self.on_method)

    def on_method(
        self, channel: int, signature: tuple[int, int], args: bytes, content: Any
    ) -> None:
        """Take what py-amqp hands out; a delivery of ours as the consumer's callback takes it."""
        if signature != DELIVER:
            self.events.append((channel, signature, bytes(args)))
            return
        (tag, _, _, exchange, key), _ = serialization.loads("sLbss", args, 4)
        body = content.body.encode() if isinstance(content.body, str) else bytes(content.body)
        headers = content.properties.get("application_headers") or {}
        at_s = seconds(headers["timestamp_in_ms"], NOW) if "timestamp_in_ms" in headers else NOW
        if (channel, tag, exchange) == (CHANNEL, TAG, EXCHANGE):
            self.sink(key, body, at_s, 0)
        else:
            self.events.append((channel, tag, exchange, key, body))

    def sink(self, key: str, body: bytes, at_s: float, position: int) -> None:
        """Take a delivery of ours."""
        self.events.append((key, body, at_s))


def by_pyamqp(frames: list[AmqpFrame]) -> list[tuple[Any, ...]]:
    """Return what py-amqp hands out by itself."""
    log = Log()
    for frame in frames:
        log.handle(frame)
    return log.events


def by_decoder(portions: list[bytes]) -> list[tuple[Any, ...]]:
    """Return what the decoder hands out, in front of py-amqp."""
    log = Log()
    decoder = Decoder(CHANNEL, TAG, EXCHANGE, log.sink, log.handle)
    for portion in portions:
        decoder.feed(portion, NOW)
    assert decoder.take(1 << 20) == b""
    return log.events


def portions_of(data: bytes, cuts: list[int]) -> list[bytes]:
    """Cut bytes at these places."""
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in zip(places, places[1:])]


# -- strategies ---------------------------------------------------------------------------------

sizes = st.sampled_from([0, 1, 2, 200, FRAME_MAX - 9, FRAME_MAX - 8, FRAME_MAX - 7, 3 * FRAME_MAX])
bodies = st.binary(max_size=40) | sizes.map(b"\xce".__mul__) | sizes.map(b"7".__mul__)
names = st.text(st.characters(codec="utf-8"), max_size=20)
milliseconds = st.integers(0, int(NOW * 1000) + 99) | st.floats(NOW * 1000 - 9e7, NOW * 1000)
headers = st.dictionaries(
    names.filter(lambda name: "timestamp" not in name),
    st.none()
    | st.booleans()
    | st.integers(-(1 << 62), 1 << 62)
    | st.text(max_size=9)
    | st.just({"a": 1}),
    max_size=3,
).flatmap(
    lambda table: st.just(table) | milliseconds.map(lambda at: {**table, "timestamp_in_ms": at})
)
properties = st.fixed_dictionaries(
    {},
    optional={
        "content_type": st.just("application/json"),
        "application_headers": headers,
        "delivery_mode": st.sampled_from([1, 2]),
        "priority": st.integers(0, 9),
        "correlation_id": names,
        "expiration": st.just("60000"),
        "message_id": names,
        "timestamp": st.integers(0, 1 << 40),
        "app_id": st.just("peatio"),
    },
)
ours = st.builds(lambda key, body, props: Delivery(key, body, props), names, bodies, properties)
with_encoding = st.builds(
    lambda key, text, props: Delivery(key, text, {**props, "content_encoding": "utf-8"}),
    names, st.text(max_size=30), properties,
)  # fmt: skip
others = st.builds(
    Delivery, names, bodies, properties,
    st.sampled_from([1, CHANNEL, 3]),
    st.sampled_from([TAG, "rang", "rango2", "other"]),
    st.sampled_from([EXCHANGE, "", "peatio.events", EXCHANGE + "2"]),
)  # fmt: skip
methods = st.sampled_from(
    [
        HEARTBEAT,
        (1, 0, struct.pack(">HH", 10, 60) + b"\x00"),  # connection.blocked, an empty reason
        (1, CHANNEL, struct.pack(">HH", 60, 21) + b"\x05rango"),  # basic.consume-ok
        (1, 3, struct.pack(">HH", 20, 11) + b"\x00\x00\x00\x00"),  # channel.open-ok
    ]
)


def methods_of_others(channel: int) -> st.SearchStrategy[AmqpFrame]:
    """Return frames of other channels than this one."""
    return methods.filter(lambda frame: frame[1] != channel)


@st.composite
def streams(draw: st.DrawFn) -> list[AmqpFrame]:
    """Return the frames of some messages, with frames of other channels between and inside."""
    frames: list[AmqpFrame] = []
    for _ in range(draw(st.integers(0, 5))):
        if draw(st.integers(0, 3)) == 0:
            frames.append(draw(methods))
            continue
        delivery = draw(ours | with_encoding | others)
        for number, frame in enumerate(delivery.frames()):
            if number and draw(st.integers(0, 5)) == 0:
                # AMQP 0-9-1 section 4.2.3: inside content only frames of other channels
                frames.append(draw(methods_of_others(delivery.channel)))
            frames.append(frame)
    return frames


# -- the same as py-amqp ------------------------------------------------------------------------


@given(streams(), st.lists(st.integers(0, 1 << 16), max_size=6))
def test_any_stream_is_handed_out_as_by_pyamqp(frames: list[AmqpFrame], cuts: list[int]) -> None:
    """Same deliveries, same other methods, same order; the portions make no difference."""
    assert by_decoder(portions_of(joined(frames), cuts)) == by_pyamqp(frames)


@given(streams())
def test_byte_by_byte_is_the_same(frames: list[AmqpFrame]) -> None:
    """The smallest portions there are."""
    data = joined(frames)[:3000]
    frames = split_whole(data)
    data = joined(frames)
    log = Log()
    decoder = Decoder(CHANNEL, TAG, EXCHANGE, log.sink, log.handle)
    for place in range(len(data)):
        decoder.feed(data[place : place + 1], NOW)
    # the reference may have begun a message whose end was cut off: it hands out nothing of it
    assert log.events == by_pyamqp(frames)


def split_whole(data: bytes) -> list[AmqpFrame]:
    """Return the frames that are whole in data that may be cut off."""
    frames = []
    while len(data) >= 8:
        kind, channel, size = struct.unpack_from(">BHI", data)
        if len(data) < 8 + size:
            break
        frames.append((kind, channel, data[7 : 7 + size]))
        data = data[8 + size :]
    return frames


def test_a_delivery_does_not_go_through_pyamqp() -> None:
    """The usual message is decoded here: nothing of it reaches the slow way."""
    slow: list[AmqpFrame] = []
    fast: list[tuple[str, bytes, float, int]] = []
    decoder = Decoder(CHANNEL, TAG, EXCHANGE, lambda *event: fast.append(event), slow.append)
    for body in (b"{}", b"", b"7" * 20_000):
        decoder.feed(joined(Delivery("public.a.b", body, {}).frames()), NOW)
    assert slow == []
    assert fast == [("public.a.b", body, NOW, 0) for body in (b"{}", b"", b"7" * 20_000)]


def test_a_delivery_is_handed_out_with_its_last_byte() -> None:
    """Nothing is held back for a later portion."""
    for body in (b"", b"{}", b"7" * 10_000):
        log = Log()
        decoder = Decoder(CHANNEL, TAG, EXCHANGE, log.sink, log.handle)
        data = joined(Delivery("a.b.c", body, {}).frames())
        decoder.feed(data[:-1], NOW)
        assert log.events == []
        decoder.feed(data[-1:], NOW)
        assert log.events == [("a.b.c", body, NOW)]


def test_a_heartbeat_behind_an_unfinished_method_frame_is_seen() -> None:
    """A broker that stops inside a message is still alive: its heartbeat gets through."""
    log: list[AmqpFrame] = []
    decoder = Decoder(CHANNEL, TAG, EXCHANGE, lambda *event: None, log.append)
    method, *_ = Delivery("a.b.c", b"{}", {}).frames()
    decoder.feed(joined([method, HEARTBEAT]), NOW)
    assert log == [method, HEARTBEAT]


def test_a_large_body_is_not_scanned_for_each_portion() -> None:
    """The work for a body that comes in small portions grows with its size, not its square."""
    log = Log()
    decoder = Decoder(CHANNEL, TAG, EXCHANGE, log.sink, log.handle)
    body = b"7" * (2 << 20)
    data = joined(Delivery("a.b.c", body, {}).frames())
    for start in range(0, len(data), 1000):
        decoder.feed(data[start : start + 1000], NOW)
    assert log.events == [("a.b.c", body, NOW)]


def test_a_key_that_is_not_utf8_is_handed_out() -> None:
    """AMQP allows any bytes in a routing key; the hub drops it, the connection lives on."""
    method, *content = Delivery("a.bb.c", b"{}", {}).frames()
    broken = (*method[:2], method[2].replace(b"a.bb.c", b"a.\xff\xfe.c"))
    assert by_decoder([joined([broken, *content])]) == [("a.\udcff\udcfe.c", b"{}", NOW)]


# -- what is not collected ------------------------------------------------------------------------


class Picky(Log):
    """Takes bodies of up to one frame, and notes what it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[str, int]] = []
        self.decoder = Decoder(CHANNEL, TAG, EXCHANGE, self.sink, self.handle, self.accepts)

    def accepts(self, key: str, size: int) -> bool:
        """Refuse what is too big."""
        self.asked.append((key, size))
        return size <= 2 * FRAME_MAX


def test_a_body_that_is_refused_is_thrown_away_as_it_comes() -> None:
    """No more of it is kept than its last frame; what comes among and behind it is handed on."""
    log = Picky()
    method, header, *bodies = Delivery("a.big.c", b"7" * (4 << 20), {}).frames()
    data = joined([method, header, *bodies[:9], HEARTBEAT, *bodies[9:]])
    for start in range(0, len(data), 1000):
        log.decoder.feed(data[start : start + 1000], NOW)
        assert log.decoder._have <= FRAME_MAX + 1000
    log.decoder.feed(joined(Delivery("a.b.c", b"7" * (FRAME_MAX + 1), {}).frames()), NOW)
    assert log.asked[0] == ("a.big.c", 4 << 20)
    assert [key for key, _ in log.asked[1:]] == ["a.b.c"]
    assert log.events == [("a.b.c", b"7" * (FRAME_MAX + 1), NOW)]


@given(st.lists(ours, max_size=5), st.lists(st.integers(0, 1 << 16), max_size=6))
def test_refused_bodies_are_all_that_is_missing(sent: list[Delivery], cuts: list[int]) -> None:
    """Whatever stands around them and however it is cut; nothing is left behind."""
    log = Picky()
    frames = [frame for delivery in sent for frame in delivery.frames()]
    for portion in portions_of(joined(frames), cuts):
        log.decoder.feed(portion, NOW)
    small = [delivery for delivery in sent if len(delivery.body) <= 2 * FRAME_MAX]
    assert log.events == by_pyamqp([frame for delivery in small for frame in delivery.frames()])
    assert log.decoder.take(1 << 20) == b""


@pytest.mark.parametrize("extra", [1, 5000])
def test_a_refused_body_longer_than_announced_is_noticed(extra: int) -> None:
    """Nothing is thrown away that belongs to no body."""
    method, header, *_ = Delivery("a.b.c", b"7" * 9000, {}).frames()
    bodies = [(3, CHANNEL, b"7" * 4000), (3, CHANNEL, b"7" * (5000 + extra))]
    with pytest.raises(UnexpectedFrame):
        Picky().decoder.feed(joined([method, header, *bodies]), NOW)


# -- what was read ahead --------------------------------------------------------------------------


@given(st.integers(0, 200), st.integers(0, 200))
def test_bytes_read_ahead_are_given_back(size: int, cut: int) -> None:
    """The closing handshake reads on where the decoder stopped."""
    data = joined(Delivery("a.b.c", b"x" * 100, {}).frames())[:-1]
    decoder = Decoder(CHANNEL, TAG, EXCHANGE, lambda *event: None, lambda frame: None)
    for portion in portions_of(data, [cut]):
        decoder.feed(portion, NOW)
    first = decoder.take(size)
    assert first == data[:size]
    assert decoder.take(1 << 20) == data[size:]
    assert decoder.take(1) == b""


# -- damage -------------------------------------------------------------------------------------


@given(streams().filter(len), st.data())
def test_a_wrong_frame_end_is_noticed(frames: list[AmqpFrame], data: st.DataObject) -> None:
    """The octet 0xCE ends each frame; anything else means that the framing is lost."""
    number = data.draw(st.integers(0, len(frames) - 1))
    damaged = bytearray(joined(frames))
    damaged[len(joined(frames[: number + 1])) - 1] = data.draw(st.integers(0, 0xCD))
    # the rest must be there for the frame to be looked at: content is decoded as a whole
    with pytest.raises(UnexpectedFrame):
        by_decoder([bytes(damaged)])


@pytest.mark.parametrize("extra", [1, 10, 5000])
def test_bodies_longer_than_announced_are_noticed(extra: int) -> None:
    """The header tells the size of the content; more than that is not AMQP."""
    method, header, *_ = Delivery("a.b.c", b"7" * 9000, {}).frames()
    bodies = [(3, CHANNEL, b"7" * 4000), (3, CHANNEL, b"7" * (5000 + extra))]
    with pytest.raises(UnexpectedFrame):
        by_decoder([joined([method, header, *bodies])])


@pytest.mark.parametrize("size", [0, 4, 6, 200])
def test_a_key_that_does_not_fill_its_frame_is_noticed(size: int) -> None:
    """It is the last field of its frame: one of another length would run into the next frames."""
    method, *content = Delivery("a.b.c", b"{}", {}).frames()
    broken = (*method[:2], method[2].replace(b"\x05a.b.c", bytes([size]) + b"a.b.c"))
    with pytest.raises(UnexpectedFrame):
        by_decoder([joined([broken, *content])])


@pytest.mark.parametrize(
    "frames",
    [
        b"\x01\x00\x02\xff\xff\xff\xff\x00",
        joined(Delivery("a.b.c", b"7", {}).frames()[:1])
        + b"\x02\x00\x02\xff\xff\xff\xff\x00\x3c\x00\x00"
        + (1).to_bytes(8, "big")
        + bytes(2),
        joined(Delivery("a.b.c", b"7", {}).frames()[:1])
        + b"\x02\x00\x02\x00\x00\x00\x0e\x00\x3c\x00\x00"
        + (1 << 62).to_bytes(8, "big")
        + b"\x00\x00\xce",
    ],
    ids=["frame", "header", "body"],
)
def test_a_length_that_no_message_has_is_noticed(frames: bytes) -> None:
    """A broker out of step is left, instead of collecting what never becomes a message."""
    body = joined([(3, CHANNEL, b"7")])
    with pytest.raises(UnexpectedFrame):
        by_decoder([frames, body])


# -- when it was published --------------------------------------------------------------------------


def decoded_at(table: dict[str, Any]) -> float:
    """Return the time that the decoder gives to a message with these headers."""
    frames = Delivery("a.b.c", b"{}", {"application_headers": table}).frames()
    ((_, _, at_s),) = by_decoder([joined(frames)])
    return float(at_s)


@pytest.mark.parametrize(
    ("table", "at_s"),
    [
        ({"timestamp_in_ms": 1_700_000_000_123}, 1_700_000_000.123),
        ({"timestamp_in_ms": 1_700_000_000_123.5}, 1_700_000_000.1235),
        ({"a": "x" * 300, "timestamp_in_ms": 1_700_000_000_123, "z": {}}, 1_700_000_000.123),
        ({}, NOW),
        ({"timestamp": 1_700_000_000_123}, NOW),
        ({"xtimestamp_in_ms": 1_600_000_000_123}, NOW),
        ({"timestamp_in_ms": "1700000000123"}, NOW),
        ({"timestamp_in_ms": None}, NOW),
        ({"timestamp_in_ms": -1_700_000_000_123}, NOW),
        ({"timestamp_in_ms": 1 << 62}, NOW),
        ({"timestamp_in_ms": 1.5}, NOW),
        ({"timestamp_in_ms": 1_700_000_000}, NOW),
        ({"timestamp_in_ms": 1_700_000_000_501}, NOW),
        ({"timestamp_in_ms": 1_699_913_600_500}, NOW - 86_400),
        ({"timestamp_in_ms": 1_699_913_600_499}, NOW),
        ({"timestamp_in_ms": math.nan}, NOW),
        ({"timestamp_in_ms": math.inf}, NOW),
    ],
)
def test_the_time_of_publishing(table: dict[str, Any], at_s: float) -> None:
    """Read from the header by py-amqp's numbers; now for whatever can be no time."""
    assert decoded_at(table) == pytest.approx(at_s, abs=1e-6)


def test_the_time_as_the_brokers_plugin_writes_it() -> None:
    """RabbitMQ's own encoder marks a 64-bit number by a small l."""
    method, header, body = Delivery(
        "a.b.c", b"{}", {"application_headers": {"timestamp_in_ms": 1_700_000_000_123}}
    ).frames()
    plugins = (*header[:2], header[2].replace(b"timestamp_in_msL", b"timestamp_in_msl"))
    assert plugins != header
    assert by_decoder([joined([method, plugins, body])]) == [("a.b.c", b"{}", 1_700_000_000.123)]


def test_the_reference_is_pyamqp() -> None:
    """The classes above are those that a connection of py-amqp is made of."""
    connection = amqp.Connection("127.0.0.1:1")
    assert connection.frame_handler_cls is frame_handler
    assert connection.frame_writer_cls is frame_writer
