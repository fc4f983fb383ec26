"""Streams that move from one live connection to another, with no event lost and none twice. Pure.

The new connection subscribes while the old one goes on. Events of both are laid side by side:
where the end of what the old one has delivered is the beginning of what the new one has got, the
new one takes over, and the old one unsubscribes. Where gateways tell positions the new one begins
at that of the old one, and events are counted; else they are told apart by their bodies, and a
book needs none of this: it begins with its snapshot.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Callable

from rango_gevent.client.asking import ask_for, leave_out
from rango_gevent.client.link import Link
from rango_gevent.client.model import LIVE, Event
from rango_gevent.client.pool import Pool
from rango_gevent.client.wanted import ACTIVE, Routes, Wanted

_MOST_EVENTS = 1000  # that are laid side by side; more have nothing in common


class Handover:
    """A stream on its way.

    Args:
        stream: the stream, with the connection that holds it.
        changed: called when it may be over.

    Attributes:
        guest: the same stream, as the new connection has it.
        is_counted: both began at the same position.
    """

    def __init__(self, stream: Wanted, changed: Callable[[Handover], object]) -> None:
        self.stream = stream
        self.guest = Wanted(stream.name)
        self.guest.is_guest = True
        self.guest.sinks.append(self)
        self.is_counted = False
        self._changed = changed
        self._delivered: list[str] = []
        self._got: list[Event] = []

    @property
    def dropped(self) -> int:
        """Return 0: what it keeps is delivered by one of the connections."""
        return 0

    def waiting(self) -> tuple[int, float | None]:
        """Return nothing: nobody is behind."""
        return 0, None

    def offer(self, number: int, event: Event) -> bool:
        """Take an event of the new connection."""
        self._got.append(event)
        self._changed(self)
        return True

    def lost(self, reason: str) -> None:
        """Do nothing: it is given up with its connection."""

    def paused(self, reason: str) -> bool:
        """Return True, for the same reason."""
        return True

    def resumed(self, recovered: bool) -> None:
        """Note that the new connection holds it, from where the old one stood or not."""
        self.is_counted = recovered

    def delivered(self, event: Event) -> None:
        """Note an event of the old connection."""
        self._delivered.append(event.body)
        self._changed(self)

    def is_hopeless(self) -> bool:
        """Tell whether the two have nothing in common."""
        return len(self._got) > _MOST_EVENTS or len(self._delivered) > _MOST_EVENTS

    def rest(self) -> list[Event] | None:
        """Return what only the new connection has got; None while that cannot be told."""
        if self.is_counted:
            ahead = len(self._got) - len(self._delivered)
            return self._got[len(self._delivered) :] if ahead >= 0 else None
        if self.stream.is_book:
            return self._got if self.guest.state == ACTIVE else None
        bodies = [event.body for event in self._got]
        for length in range(min(len(bodies), len(self._delivered)), 0, -1):
            if self._delivered[-length:] == bodies[:length]:
                return self._got[length:]
        return None

    def all(self) -> list[Event]:
        """Return what the new connection has got and the old one can deliver no more."""
        rest = self.rest()
        return self._got if rest is None else rest


class Mover:
    """Moves streams.

    Args:
        pool: connections.
        routes: where events go.
        deliver: gives a stream's sinks an event.
        wake: called with a connection that has something to do.
    """

    def __init__(
        self,
        pool: Pool,
        routes: Routes,
        deliver: Callable[[Wanted, Event], object],
        wake: Callable[[Link], object],
    ) -> None:
        self._pool = pool
        self._routes = routes
        self._deliver = deliver
        self._wake = wake
        self._moves: dict[str, Handover] = {}

    def balance(self) -> None:
        """Begin to move streams from the fullest live connection to the emptiest."""
        live = [link for link in self._pool if link.state == LIVE]
        if len(live) < 2:
            return
        full = max(live, key=lambda link: len(link.wanted))
        empty = min(live, key=lambda link: len(link.wanted))
        movable = [
            stream
            for name, stream in full.wanted.items()
            if stream.state == ACTIVE and name not in self._moves and name not in empty.wanted
        ]
        for stream in movable[: (len(full.wanted) - len(empty.wanted)) // 2]:
            move = self._moves[stream.name] = Handover(stream, self._look)
            if stream.name not in full.resyncs and stream.name not in full.replaying:
                move.guest.since = full.position
            self._routes.add(move.guest)
            ask_for(empty, move.guest)
        self._wake(empty)

    def delivered(self, stream: Wanted, event: Event) -> None:
        """Note what a stream's own connection has delivered."""
        move = self._moves.get(stream.name)
        if move is not None and move.stream is stream:
            move.delivered(event)

    def activated(self, streams: Sequence[Wanted]) -> None:
        """Note that connections hold streams from now on."""
        for stream in streams:
            move = self._moves.get(stream.name)
            if move is not None and move.guest is stream:
                self._look(move)

    def refused(self, streams: Sequence[Wanted]) -> list[Wanted]:
        """Give up moves to where a stream may not be; return the streams that do not move."""
        own = []
        for stream in streams:
            move = self._moves.get(stream.name)
            if move is not None and move.guest is stream:
                self.forget(move.stream)
            else:
                own.append(stream)
        return own

    def _look(self, move: Handover) -> None:
        rest = move.rest()
        if rest is not None and move.guest.state == ACTIVE:
            self._finish(move, rest)
        elif move.is_hopeless():
            self.forget(move.stream)

    def _finish(self, move: Handover, rest: list[Event]) -> None:
        """Let the new connection take over."""
        stream, guest, old = move.stream, move.guest, move.stream.link
        self._take_back(move)
        leave_out(old, stream)
        guest.link.wanted[stream.name] = stream
        stream.link = guest.link
        for event in rest:
            self._deliver(stream, event)
        self._wake(old)

    def _take_back(self, move: Handover) -> None:
        del self._moves[move.stream.name]
        self._routes.remove(move.guest)

    def forget(self, stream: Wanted) -> None:
        """Leave a stream where it is."""
        move = self._moves.get(stream.name)
        if move is not None:
            self._take_back(move)
            leave_out(move.guest.link, move.guest)
            self._wake(move.guest.link)

    def lost(self, link: Link) -> None:
        """End all moves to a lost connection, and those from it: by taking over where that goes.

        With a position that is not needed: the stream comes back from there, wherever it is.
        """
        for move in list(self._moves.values()):
            if move.guest.link is link:
                self.forget(move.stream)
            elif move.stream.link is link:
                if move.guest.state == ACTIVE and link.position is None:
                    self._finish(move, move.all())
                else:
                    self.forget(move.stream)
