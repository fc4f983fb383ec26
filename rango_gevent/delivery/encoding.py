"""Encodings: how an event's bytes look on a connection. One object for each way.

Pure. To add a way, write an object with `frame` and let the handshake choose it.
"""

from __future__ import annotations

from typing import Callable

from rango_gevent.model import Event


class Plain:
    """Rango's protocol as it is."""

    def frame(self, event: Event) -> bytes:
        """Return the frame that was made when the event was published."""
        return event.frame


PLAIN = Plain()


class Deflated:
    """The same with each message compressed by itself, once for all who take it (RFC 7692).

    Args:
        pack: compresses one frame.
    """

    def __init__(self, pack: Callable[[bytes], bytes]) -> None:
        self._pack = pack

    def frame(self, event: Event) -> bytes:
        """Return the compressed frame."""
        encoded = event.encoded
        if encoded is None:
            encoded = event.encoded = {}
        packed = encoded.get(self)
        if packed is None:
            packed = encoded[self] = self._pack(event.frame)
        return packed
