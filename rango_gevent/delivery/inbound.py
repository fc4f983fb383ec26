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

import logging
from typing import NamedTuple, cast

from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import OPEN, SERVER, Protocol

from rango_gevent.errors import FatalClientError
from rango_gevent.protocol import close

_MUTE = logging.getLogger("rango_gevent.wire")
_MUTE.setLevel(logging.CRITICAL)  # one line a connection is logged by Client, with its reason

_FAILURES = {
    CloseCode.PROTOCOL_ERROR: close.PROTOCOL_ERROR,
    CloseCode.INVALID_DATA: close.BAD_UTF8,
    CloseCode.MESSAGE_TOO_BIG: close.TOO_BIG,
    CloseCode.INTERNAL_ERROR: close.INTERNAL,
}


_LENGTH_BYTES = {126: 2, 127: 8}
_SMALLEST = {126: 126, 127: 65536}


class InboundLimits(NamedTuple):
    """Bounds on what one client may send: bytes and fragments of a message."""

    message_bytes: int
    fragments: int


class Received(NamedTuple):
    """What some bytes amounted to.

    Attributes:
        messages: whole text or binary messages; bytes are UTF-8 already checked for text.
        reply: pongs and the echo of a close frame, to be sent as they are.
        frames: number of frames of any kind.
        closed_by_peer: the peer's close code (1005 for none), None while it sent none.
    """

    messages: list[tuple[bool, bytes]]
    reply: bytes
    frames: int
    closed_by_peer: int | None


class Inbound:
    """The receiving side of one connection."""

    __slots__ = ("_core", "_fragments", "_limits", "_rest", "_text")

    def __init__(self, limits: InboundLimits, deflate: bool = False) -> None:
        self._limits = limits
        self._core = Protocol(SERVER, state=OPEN, max_size=limits.message_bytes, logger=_MUTE)
        if deflate:
            # without context takeover each message stands alone, so the pool may lend it on
            self._core.extensions = [PerMessageDeflate(True, True, 15, 15)]
        self._rest = bytearray()
        self._fragments: list[bytes] = []
        self._text = False

    @property
    def clean(self) -> bool:
        """Tell whether nothing is half received, so that any client could go on with it."""
        core = self._core
        return core.state is OPEN and not self._rest and core.current_size is None

    def receive(self, data: bytes) -> Received:
        """Take bytes from the socket.

        Raises:
            FatalClientError: the client broke the protocol or a bound.
        """
        core = self._core
        core.receive_data(self._whole_frames(data))
        messages: list[tuple[bool, bytes]] = []
        closed_by_peer = None
        events = cast("list[Frame]", core.events_received())
        for event in events:
            if event.opcode is Opcode.CLOSE:
                closed_by_peer = core.close_rcvd.code if core.close_rcvd else 1005
            elif event.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
                self._take(event, messages)
        if core.parser_exc is not None:
            code = core.close_sent.code if core.close_sent else CloseCode.PROTOCOL_ERROR
            raise FatalClientError(_FAILURES.get(CloseCode(code), close.PROTOCOL_ERROR))
        return Received(messages, b"".join(core.data_to_send()), len(events), closed_by_peer)

    def _whole_frames(self, data: bytes) -> bytes:
        """Return the frames that are complete by now; keep the rest.

        So the core always stands at the start of a frame between two calls.
        """
        rest = self._rest
        rest += data
        end = 0
        while True:
            size = self._frame_size(rest, end)
            if size is None or end + size > len(rest):
                break
            end += size
        whole = bytes(rest[:end])
        del rest[:end]
        return whole

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
        if length > self._limits.message_bytes:
            raise FatalClientError(close.TOO_BIG)
        return 2 + extra + (4 if data[start + 1] & 0x80 else 0) + length

    def _take(self, frame: Frame, messages: list[tuple[bool, bytes]]) -> None:
        if frame.opcode is not Opcode.CONT:
            self._text = frame.opcode is Opcode.TEXT
        if frame.fin and not self._fragments:
            messages.append((self._text, self._checked(bytes(frame.data))))
            return
        if len(self._fragments) >= self._limits.fragments:
            raise FatalClientError(close.TOO_MANY_FRAGMENTS)
        self._fragments.append(bytes(frame.data))
        if frame.fin:
            data, self._fragments = b"".join(self._fragments), []
            messages.append((self._text, self._checked(data)))

    def _checked(self, data: bytes) -> bytes:
        """Refuse text that is not UTF-8 (RFC 6455 section 8.1)."""
        if self._text and not data.isascii():
            try:
                data.decode()
            except UnicodeDecodeError:
                raise FatalClientError(close.BAD_UTF8) from None
        return data


class InboundPool:
    """Lends `Inbound` objects and takes the clean ones back."""

    def __init__(self, limits: InboundLimits, *, deflate: bool = False, keep: int = 64) -> None:
        self._limits = limits
        self._deflate = deflate
        self._keep = keep
        self._free: list[Inbound] = []

    def lend(self) -> Inbound:
        """Return an object with no state of any client."""
        return self._free.pop() if self._free else Inbound(self._limits, self._deflate)

    def give_back(self, inbound: Inbound) -> bool:
        """Take an object back when it is clean; False: its client has to keep it."""
        if not inbound.clean:
            return False
        if len(self._free) < self._keep:
            self._free.append(inbound)
        return True
