"""What a client sends, from bytes to messages: the protocol core and its bounds.

The core is the sans-I/O layer of `websockets`: masks, lengths, opcodes, control frames and
the closing handshake are its. This module adds what it leaves to its user: whole frames
only, lengths checked before memory is taken and minimally encoded (RFC 6455 section 5.2),
fragments joined within a bound, and strict UTF-8 in text.

An `Inbound` lives only while a client has something half received; between messages it
holds no state, and `InboundPool` hands the same few objects to all clients. So an idle
connection does not pay for it.
"""

from __future__ import annotations

import codecs
import logging
from typing import NamedTuple, cast

from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Close, CloseCode, Frame, Opcode
from websockets.protocol import OPEN, SERVER, Protocol

from rango_gevent.errors import FatalClientError
from rango_gevent.protocol import close, frames
from rango_gevent.protocol.close import CloseReason

TEXT = Opcode.TEXT
BINARY = Opcode.BINARY
PONG = Opcode.PONG

_MUTE = logging.getLogger("rango_gevent.wire")
_MUTE.setLevel(logging.CRITICAL)  # one line a connection is logged by Client, with its reason

_FAILURES = {
    CloseCode.PROTOCOL_ERROR: close.PROTOCOL_ERROR,
    CloseCode.INVALID_DATA: close.BAD_UTF8,
    CloseCode.MESSAGE_TOO_BIG: close.TOO_BIG,
    CloseCode.INTERNAL_ERROR: close.INTERNAL,
}

_DATA = (TEXT, BINARY, Opcode.CONT)
_EMPTY_CLOSE = b"\x88\x00"
_FRAMES_AT_ONCE = 50  # of the smallest: 0.7 ms
_LENGTH_BYTES = {126: 2, 127: 8}
_SMALLEST = {126: 126, 127: 65536}


class InboundLimits(NamedTuple):
    """Bounds on what one client may send: bytes and fragments of a message."""

    message_bytes: int
    fragments: int


class Received(NamedTuple):
    """What some bytes amounted to.

    Attributes:
        items: what to answer, in order: a whole message under `TEXT` (UTF-8 is checked) or
            `BINARY`, a frame to send as it is under `PONG`.
        frames: number of frames of any kind.
        closed_by_peer: the peer's close code (1005 for none), None while it sent none.
        echo: the close frame that answers the peer's.
        failure: what the peer did wrong after all that, None for nothing.
        more: whole frames are left for another call: so many take long.
    """

    items: list[tuple[Opcode, bytes]]
    frames: int
    closed_by_peer: int | None = None
    echo: bytes = b""
    failure: CloseReason | None = None
    more: bool = False


_NOTHING = Received([], 0)


class Inbound:
    """The receiving side of one connection.

    Attributes:
        limits: bounds that it was made with.
    """

    __slots__ = ("_core", "_fragments", "_is_broken", "_rest", "_tail", "_text", "limits")

    def __init__(self, limits: InboundLimits, deflate: bool = False) -> None:
        self.limits = limits
        self._core = Protocol(SERVER, state=OPEN, max_size=limits.message_bytes, logger=_MUTE)
        if deflate:
            # without context takeover each message stands alone, so the pool may lend it on
            self._core.extensions = [PerMessageDeflate(True, True, 15, 15)]
        self._rest = bytearray()
        self._fragments: list[bytes] = []
        self._tail = b""  # a character of text that is cut by the end of a fragment
        self._text = False
        self._is_broken = False

    @property
    def clean(self) -> bool:
        """Tell whether nothing is half received, so that any client could go on with it."""
        is_open = self._core.state is OPEN and not self._is_broken
        return is_open and not self._rest and not self._fragments

    def receive(self, data: bytes) -> Received:
        """Take bytes from the socket; what came before a violation still counts.

        At most `_FRAMES_AT_ONCE` frames are looked at: call again without bytes for more.
        """
        if self._core.state is not OPEN or self._is_broken:
            return _NOTHING  # after a close frame input is discarded (RFC 6455 section 1.4)
        received = self._receive(data)
        self._is_broken = received.failure is not None
        return received

    def _receive(self, data: bytes) -> Received:
        core = self._core
        whole, failure, more = self._whole_frames(data)
        core.receive_data(whole)
        events = cast("list[Frame]", core.events_received())
        pongs = iter(core.data_to_send())  # and a close frame behind them: it is not the core's say
        items: list[tuple[Opcode, bytes]] = []
        try:
            for frame in events:
                if frame.opcode is Opcode.PING:
                    items.append((PONG, next(pongs)))
                elif frame.opcode in _DATA:
                    self._take(frame, items)
        except FatalClientError as error:
            return Received(items, len(events), failure=error.reason)
        if core.close_rcvd is not None:
            # inside a fragmented message too (RFC 6455 section 5.4), where the core objects
            return Received(items, len(events), core.close_rcvd.code, _echo(core.close_rcvd))
        if core.parser_exc is not None:
            failure = _failure(core.close_sent)
        return Received(items, len(events), failure=failure, more=more)

    def _whole_frames(self, data: bytes) -> tuple[bytearray, CloseReason | None, bool]:
        """Return frames that are complete by now, what is wrong with the next, and if more are.

        So the core always stands at the start of a frame between two calls.
        """
        rest = self._rest
        rest += data
        end = 0
        failure = None
        count = 0
        try:
            while count < _FRAMES_AT_ONCE:
                size = self._frame_size(rest, end)
                if size is None or end + size > len(rest):
                    break
                end += size
                count += 1
        except FatalClientError as error:
            failure = error.reason
        whole = rest[:end]
        del rest[:end]
        return whole, failure, count == _FRAMES_AT_ONCE

    def _frame_size(self, data: bytearray, start: int) -> int | None:
        """Return the size of the frame at ``start``; None while its header is incomplete."""
        if len(data) - start < 2:
            return None
        short = data[start + 1] & 0x7F
        extra = _LENGTH_BYTES.get(short, 0)
        if len(data) - start < 2 + extra:
            return None
        length = short
        if extra:
            length = int.from_bytes(data[start + 2 : start + 2 + extra], "big")
            if length < _SMALLEST[short] or length >> 63:
                raise FatalClientError(close.PROTOCOL_ERROR)
        if length > self.limits.message_bytes:
            raise FatalClientError(close.TOO_BIG)
        return 2 + extra + (4 if data[start + 1] & 0x80 else 0) + length

    def _take(self, frame: Frame, items: list[tuple[Opcode, bytes]]) -> None:
        if frame.opcode is not Opcode.CONT:
            self._text = frame.opcode is TEXT
        data = bytes(frame.data)
        if self._text:
            self._check_text(data, frame.fin)
        if self._fragments or not frame.fin:
            if len(self._fragments) >= self.limits.fragments:
                raise FatalClientError(close.TOO_MANY_FRAGMENTS)
            self._fragments.append(data)
        if not frame.fin:
            return
        if self._fragments:
            data, self._fragments = b"".join(self._fragments), []
        items.append((TEXT if self._text else BINARY, data))

    def _check_text(self, data: bytes, is_last: bool) -> None:
        """Refuse text as soon as it cannot become UTF-8 any more (RFC 6455 section 8.1)."""
        if data.isascii() and not self._tail:
            return
        data = self._tail + data
        try:
            _, used = codecs.utf_8_decode(data, "strict", is_last)
        except UnicodeDecodeError:
            raise FatalClientError(close.BAD_UTF8) from None
        self._tail = data[used:]


def _echo(received: Close) -> bytes:
    """Return the close frame that says what the peer's said (RFC 6455 section 5.5.1)."""
    if received.code == CloseCode.NO_STATUS_RCVD:
        return _EMPTY_CLOSE
    return frames.close(received.code, received.reason)


def _failure(sent: Close | None) -> CloseReason:
    """Return our reason for a close frame that the core would have sent."""
    code = sent.code if sent else CloseCode.PROTOCOL_ERROR
    return _FAILURES.get(CloseCode(code), close.PROTOCOL_ERROR)


class InboundPool:
    """Lends `Inbound` objects and takes the clean ones back."""

    def __init__(self, limits: InboundLimits, *, deflate: bool = False, keep: int = 64) -> None:
        self.limits = limits
        self._deflate = deflate
        self._keep = keep
        self._free: list[Inbound] = []

    def set_limits(self, limits: InboundLimits) -> None:
        """Lend objects with other limits from now on."""
        self.limits = limits
        self._free.clear()

    def lend(self) -> Inbound:
        """Return an object with no state of any client."""
        return self._free.pop() if self._free else Inbound(self.limits, self._deflate)

    def give_back(self, inbound: Inbound) -> bool:
        """Take an object back when it is clean; False: its client has to keep it.

        One that was lent under other limits is let go.
        """
        if not inbound.clean:
            return False
        if len(self._free) < self._keep and inbound.limits == self.limits:
            self._free.append(inbound)
        return True
