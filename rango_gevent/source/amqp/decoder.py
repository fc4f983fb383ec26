"""Decode deliveries straight from the bytes of an AMQP 0-9-1 connection.

py-amqp asks the kernel three times per frame and a message has three frames; reading ahead
and decoding ``basic.deliver`` with its header and body here is several times cheaper. Every
other frame, and a delivery whose frames are parted by others, goes to py-amqp as it is.

A body that is announced as larger than what is taken is not collected: its frames are thrown
away one by one, or, of a log, counted into its chain.

Pure: bytes in, calls out. Frames are AMQP 0-9-1 section 4.2, content is section 4.2.6:
a method frame, a header frame with the body's size, then as many body frames as it takes.
"""

from __future__ import annotations

from struct import Struct
from typing import Callable

from amqp.exceptions import UnexpectedFrame

from rango_gevent.source.amqp.chain import Chain
from rango_gevent.source.base import Accepts, Sink

_METHOD, _HEADER, _BODY = 1, 2, 3
_FRAME_END = 0xCE
_OVERHEAD = 8  # type, channel, size and the frame-end octet
_INCOMPLETE = 0  # no delivery ends at these places
_PARTED = -1
_LARGEST = 1 << 30  # RabbitMQ takes no message over 512 MiB: more is a length out of place
_DELIVER = b"\x00\x3c\x00\x3c"  # class 60, method 60
_HAS_HEADERS = 0x2000  # property flag of the header table

_frame = Struct(">BHI").unpack_from
_content = Struct(">BHIHHQH").unpack_from  # frame, class, weight, body size, property flags
_CONTENT_SIZE = 21
_TIMESTAMP = b"\x0ftimestamp_in_ms"  # a short string; a type octet and 8 bytes follow
_int64, _double = Struct(">q").unpack_from, Struct(">d").unpack_from
_NUMBERS = {ord("l"): _int64, ord("L"): _int64, ord("d"): _double}  # RabbitMQ's, py-amqp's, floats
# the same with its type, which RabbitMQ always gives; where in the table depends on its version
_OFFSET = b"\x0fx-stream-offsetl"
_OFFSET_SIZE = len(_OFFSET)
_OLDEST_MS = 24 * 60 * 60 * 1000  # nothing waits for a day on its way


class Decoder:
    """Takes the bytes of a connection and hands out deliveries of one consumer.

    Args:
        channel: channel number of the consumer.
        consumer_tag: its tag.
        exchange: exchange whose messages it gets: all have it in their method frame.
        sink: called with routing key, body, Unix time of publishing, and the offset in the log,
            0 where there is none.
        other: called with every frame that is not part of such a delivery.
        accepts: asked with routing key and size whether to collect a body of several frames.
        chain: of the log, where that is what is consumed; the sink gets offsets then.
    """

    def __init__(
        self,
        channel: int,
        consumer_tag: str,
        exchange: str,
        sink: Sink,
        other: Callable[[tuple[int, int, bytes]], object],
        accepts: Accepts = lambda key, size: True,
        chain: Chain | None = None,
    ) -> None:
        self._chain = chain
        self._sink = sink
        self._channel = channel
        self._other = other
        self._accepts = accepts
        tag, name = consumer_tag.encode(), exchange.encode()
        self._start = _DELIVER + bytes((len(tag),)) + tag
        # behind the tag: delivery tag (8), redelivered (1), exchange as a short string
        self._exchange = bytes((len(name),)) + name
        self._exchange_at = 7 + len(self._start) + 9
        self._key_at = self._exchange_at + len(self._exchange)
        self._parts: list[bytes] = []
        self._have = 0
        self._need = 0
        self._skip = 0  # bytes still to come of a body that is thrown away

    def feed(self, data: bytes, now_s: float) -> None:
        """Decode what is complete; keep the rest for the next call.

        Args:
            data: bytes from the connection, in any portions.
            now_s: Unix time, for messages that do not say when they were published.

        Raises:
            UnexpectedFrame: the bytes are not AMQP.
        """
        self._parts.append(data)
        self._have += len(data)
        if self._have < self._need:
            return  # in the middle of a large body: do not scan it again for each portion
        buffer = b"".join(self._parts) if len(self._parts) > 1 else data
        done = self._decode(buffer, now_s)
        self._parts = [buffer[done:]] if done < len(buffer) else []
        self._have = len(buffer) - done

    def take(self, size: int) -> bytes:
        """Give back bytes that were read ahead, at most ``size`` of them."""
        buffer = b"".join(self._parts)
        self._parts, self._have, self._need = [buffer[size:]], max(0, len(buffer) - size), 0
        return buffer[:size]

    def _decode(self, buffer: bytes, now_s: float) -> int:
        """Hand out all complete frames; return where the first incomplete one starts."""
        # hot path: 1.5 us for a message of 200 bytes, a third of it for the three headers
        position, end = 0, len(buffer)
        self._need = 0
        while end - position >= _OVERHEAD:
            kind, channel, size = _frame(buffer, position)
            after = position + _OVERHEAD + size
            if (
                kind == _METHOD
                and channel == self._channel
                and after <= end
                and buffer.startswith(self._start, position + 7)
                and buffer.startswith(self._exchange, position + self._exchange_at)
            ):
                found = self._delivery(buffer, position, after, now_s)
                if found == _INCOMPLETE:
                    return position
                if found != _PARTED:
                    position = found
                    continue
            if after > end:
                self._wait_for(after - position)
                return position
            if buffer[after - 1] != _FRAME_END:
                raise UnexpectedFrame("a frame does not end where it says")
            if self._skip and kind == _BODY and channel == self._channel:
                self._throw_away(buffer, position + 7, size)
            else:
                self._other((kind, channel, buffer[position + 7 : after - 1]))
            position = after
        return position

    def _begin_to_throw_away(self, buffer: bytes, body: int, size: int, place: int) -> int:
        """Expect a body that is not collected; return where it starts."""
        if buffer[body - 1] != _FRAME_END:
            raise UnexpectedFrame("a frame does not end where it says")
        self._skip = size
        if self._chain is not None:
            self._chain.skip(place, size)
        return body

    def _throw_away(self, buffer: bytes, start: int, size: int) -> None:
        """Count what has come of a body that is not collected."""
        if size > self._skip:
            raise UnexpectedFrame("a body does not end where it says")
        self._skip -= size
        if self._chain is not None:
            self._chain.skip_part(buffer[start : start + size])

    def _delivery(self, buffer: bytes, position: int, header: int, now_s: float) -> int:
        """Decode the delivery whose method frame ends at ``header``.

        Returns:
            Where the next frame starts, `_INCOMPLETE`, or `_PARTED` when other frames stand
            between its own.
        """
        end = len(buffer)
        if end < header + _CONTENT_SIZE:
            # the frame behind may be a short one of another kind: look at its type already
            return _PARTED if end > header and buffer[header] != _HEADER else _INCOMPLETE
        content_header: tuple[int, ...] = _content(buffer, header)
        kind, channel, size, _, _, body_size, flags = content_header
        if kind != _HEADER or channel != self._channel:
            return _PARTED
        key_at = position + self._key_at
        if buffer[header - 1] != _FRAME_END or not 0 <= header - key_at - 2 == buffer[key_at]:
            raise UnexpectedFrame("a routing key does not end where its frame does")
        key = buffer[key_at + 1 : header - 1].decode("utf-8", "surrogateescape")
        body = header + _OVERHEAD + size
        place = 0
        if self._chain is not None:
            if end < body:
                return self._wait_for(body - position)
            at = buffer.find(_OFFSET, header, body - 9)
            # publishers may send headers with anything in them: twice, and one is not the broker's
            if at < 0 or buffer.find(_OFFSET, at + 1, body) >= 0:
                return _PARTED
            place = _int64(buffer, at + _OFFSET_SIZE)[0]
        if body_size == 0:
            if end < body:
                return self._wait_for(body - position)
            content, after = b"", body
        else:
            if end < body + 7:
                return self._wait_for(body + 7 - position)
            kind, channel, size = _frame(buffer, body)
            if kind != _BODY or channel != self._channel:
                return _PARTED
            after = body + _OVERHEAD + size
            if size == body_size:
                if end < after:
                    return self._wait_for(after - position)
                content = buffer[body + 7 : after - 1]
            else:
                _check_size(body_size)
                if not self._accepts(key, body_size):
                    return self._begin_to_throw_away(buffer, body, body_size, place)
                content, after = self._long_body(buffer, position, body, body_size)
                if after in (_INCOMPLETE, _PARTED):
                    return after
        if not buffer[body - 1] == buffer[after - 1] == _FRAME_END:
            raise UnexpectedFrame("a frame does not end where it says")
        if flags & _HAS_HEADERS:
            now_s = _published_at(buffer, header, body, now_s)
        self._sink(key, content, now_s, place)
        return after

    def _long_body(
        self, buffer: bytes, position: int, body: int, body_size: int
    ) -> tuple[bytes, int]:
        """Join a body that is split over several frames; the second value is as `_delivery`'s."""
        parts: list[bytes] = []
        got = 0
        while got < body_size:
            if len(buffer) < body + 7:
                return b"", self._wait_for(body - position + body_size - got + _OVERHEAD)
            kind, channel, size = _frame(buffer, body)
            if kind != _BODY or channel != self._channel:
                return b"", _PARTED
            after = body + _OVERHEAD + size
            if len(buffer) < after:
                return b"", self._wait_for(body - position + body_size - got + _OVERHEAD)
            if buffer[after - 1] != _FRAME_END or got + size > body_size:
                raise UnexpectedFrame("a body does not end where it says")
            parts.append(buffer[body + 7 : after - 1])
            got += size
            body = after
        return b"".join(parts), body

    def _wait_for(self, size: int) -> int:
        """Note how many bytes must be there before it pays to look again; return 0."""
        _check_size(size)
        self._need = size
        return 0


def _check_size(size: int) -> None:
    """Raise UnexpectedFrame for what no message has: it would be collected for ever."""
    if size > _LARGEST:
        raise UnexpectedFrame("more is announced than any message has")


def _published_at(buffer: bytes, start: int, end: int, now_s: float) -> float:
    """Find the header ``timestamp_in_ms`` of a message without decoding the whole table."""
    found = buffer.find(_TIMESTAMP, start, end - 10)
    if found < 0:
        return now_s
    value_at = found + len(_TIMESTAMP)
    number = _NUMBERS.get(buffer[value_at])
    return seconds(number(buffer, value_at + 1)[0], now_s) if number else now_s


def seconds(at_ms: float, now_s: float) -> float:
    """Return the time of publishing in Unix seconds; now for a number that can be none.

    What lies ahead of now or a day behind it is another unit, or a clock that is wrong: a single
    one among the observations of a histogram would spoil its sum for ever, as a NaN would.
    """
    now_ms = now_s * 1000
    return at_ms / 1000 if now_ms - _OLDEST_MS <= at_ms <= now_ms else now_s
