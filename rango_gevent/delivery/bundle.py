"""A bundle: frames of some streams on their way to the clients that share them.

Clients that hold the same streams are due the same bytes. They are joined, and compressed,
once for all of them, when the first of them is served.
"""

from __future__ import annotations

from itertools import chain
from typing import Callable

from rango_gevent.hub.stream import Stream, Waiting


class Bundle:
    """What some clients are due.

    Attributes:
        parts: frames by stream.
        plain: the bytes to send once `join` was called, else empty.
        packed: the same with each frame compressed, once `pack` was called, else empty.
    """

    __slots__ = ("packed", "parts", "plain")

    def __init__(self, parts: dict[Stream, list[Waiting]]) -> None:
        self.parts = parts
        self.plain = b""
        self.packed = b""

    def __add__(self, later: Bundle) -> Bundle:
        both = Bundle(dict(self.parts))
        for stream, waiting in later.parts.items():
            both.extend(stream, waiting)
        return both

    def extend(self, stream: Stream, waiting: list[Waiting]) -> None:
        """Add frames that were published after those held."""
        held = self.parts.get(stream)
        self.parts[stream] = held + waiting if held else waiting  # lists are shared: no change
        self.plain = self.packed = b""

    def join(self) -> bytes:
        """Return the bytes to send."""
        self.plain = b"".join([item.frame for item in self._in_order()])
        return self.plain

    def pack(self, pack_frame: Callable[[Waiting], bytes]) -> bytes:
        """Return the bytes to send to clients that take compressed frames."""
        self.packed = b"".join([pack_frame(item) for item in self._in_order()])
        return self.packed

    def _in_order(self) -> list[Waiting]:
        """Return the frames in the order of their publishing, across streams."""
        parts = list(self.parts.values())
        return parts[0] if len(parts) == 1 else sorted(chain.from_iterable(parts))
