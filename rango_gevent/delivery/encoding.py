"""Encodings: how an event's bytes look on a connection. One object for each way.

Pure. To add a way, write an object with `frame` and let the handshake choose it.
"""

from __future__ import annotations

from typing import Callable, Sequence

from rango_gevent.model import Encoding, Event, position_text
from rango_gevent.protocol import frames

_ENTRY_BYTES = 200  # of what is kept, beside its bytes


class Plain:
    """Rango's protocol as it is."""

    def frame(self, event: Event) -> bytes:
        """Return the frame that was made when the event was published."""
        return event.frame


PLAIN = Plain()


class Positioned:
    """The same with each event's position as its last member, for who comes back by it."""

    def frame(self, event: Event) -> bytes:
        """Return the frame with the position; without where the event has none."""
        if not event.position:
            return event.frame
        encoded = event.encoded
        if encoded is None:
            encoded = event.encoded = {}
        placed = encoded.get(self)
        if placed is None:
            placed = encoded[self] = frames.placed(event.frame, position_text(event.position))
        return placed

    def rejoined(self, frames: Sequence[bytes]) -> bytes:
        """Return the bytes of frames that carry their positions already."""
        return b"".join(frames)


POSITIONED = Positioned()


class Deflated:
    """Another encoding with each message compressed by itself, once for all (RFC 7692).

    Args:
        pack: compresses one frame.
        of: what is compressed.
        kept_bytes: of the compressed frames of events that were replayed, to be used again.
    """

    def __init__(
        self, pack: Callable[[bytes], bytes], of: Encoding = PLAIN, *, kept_bytes: int = 4 << 20
    ) -> None:
        self._pack = pack
        self._of = of
        self._kept_bytes = kept_bytes
        self._room = kept_bytes
        self._kept: dict[bytes, bytes] = {}

    def frame(self, event: Event) -> bytes:
        """Return the compressed frame."""
        encoded = event.encoded
        if encoded is None:
            encoded = event.encoded = {}
        packed = encoded.get(self)
        if packed is None:
            packed = encoded[self] = self._pack(self._of.frame(event))
        return packed

    def rejoined(self, frames: Sequence[bytes]) -> bytes:
        """Return the bytes of frames that carry their positions already."""
        return b"".join([self._kept.get(frame) or self._repack(frame) for frame in frames])

    def _repack(self, frame: bytes) -> bytes:
        """Compress a frame, and keep it for the next who comes back."""
        packed = self._pack(frame)
        self._room -= len(frame) + len(packed) + _ENTRY_BYTES
        if self._room < 0:
            self._kept.clear()
            self._room = self._kept_bytes
        else:
            self._kept[frame] = packed
        return packed
