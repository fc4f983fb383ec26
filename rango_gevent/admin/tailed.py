"""A connection that is listened to: it becomes another class while it is.

So nobody else pays for it: an ordinary connection has no branch for listeners. What is recorded
is what is handed to the connection and what it answers, before compression; of events that wait
for a client that lags some may be left out afterwards, by its stream's policy.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Union

from rango_gevent.admin.tape import Tape
from rango_gevent.delivery.connection import Connection
from rango_gevent.model import Event, Segment
from rango_gevent.protocol import close
from rango_gevent.protocol.close import CloseReason

if TYPE_CHECKING:
    from rango_gevent.hub.stream import Stream


class Tailed(Connection):
    """A connection with tapes; `Registry.tapes` has them."""

    __slots__ = ()

    @property
    def _tapes(self) -> list[Tape]:
        return self._keeper.tapes.get(self, [])

    def offer(self, segments: list[Segment]) -> bool:
        """Record and send."""
        if self.open:
            now_s = time.time()
            for tape in self._tapes:
                for segment in segments:
                    tape.sent_events(segment.events, now_s)
        return super().offer(segments)

    def lag(self, stream: Stream, policy: str, events: list[Event]) -> int | None:
        """Record and queue."""
        now_s = time.time()
        for tape in self._tapes:
            tape.sent_events(events, now_s)
        return super().lag(stream, policy, events)

    def push(self, part: Union[bytes, Segment]) -> None:
        """Record and send."""
        if self.open:
            now_s = time.time()
            for tape in self._tapes:
                if isinstance(part, Segment):
                    tape.sent_events(part.events, now_s)
                else:
                    tape.sent_frame(part, now_s)
        super().push(part)

    def handle(self, message: bytes, is_text: bool) -> None:
        """Record and answer."""
        now_s = time.time()
        for tape in self._tapes:
            tape.received(message, is_text, now_s)
        super().handle(message, is_text)

    def _begin_closing(self, close_frame: bytes) -> None:
        was_open = self.open
        super()._begin_closing(close_frame)
        if was_open:
            now_s = time.time()
            for tape in self._tapes:
                tape.sent_frame(close_frame, now_s)

    def lost(self, reason: CloseReason | None = None) -> None:
        """End the connection and its tapes."""
        super().lost(reason)
        ended_by = self.ended_by or close.LOST
        for tape in self._tapes:
            tape.end(f"{ended_by.word} ({ended_by.code})", time.time())


def listen(connection: Connection, tape: Tape) -> bool:
    """Record a connection on a tape from now on; False: it is of a kind that cannot be."""
    if type(connection) not in (Connection, Tailed) or not connection.open:
        return False
    connection._keeper.tapes.setdefault(connection, []).append(tape)
    connection.__class__ = Tailed
    return True


def leave(connection: Connection, tape: Tape) -> None:
    """Record it no more; the last who leaves makes an ordinary connection of it again."""
    tapes = connection._keeper.tapes.get(connection, [])
    if tape in tapes:
        tapes.remove(tape)
    if not tapes:
        connection._keeper.tapes.pop(connection, None)
        connection.__class__ = Connection
