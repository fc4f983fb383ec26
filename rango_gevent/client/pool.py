"""Which connection holds which stream. Pure.

A connection holds at most so many streams; more streams open more connections, all at once. The
streams of one that dies go to live ones that have room; one that is left without any is closed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Callable

from rango_gevent.client.asking import ask_for
from rango_gevent.client.link import Link
from rango_gevent.client.model import CLOSED, LIVE
from rango_gevent.client.wanted import Wanted


class Pool:
    """The connections of a client.

    Args:
        make: makes a connection of a number.
        wake: called with one that has something to do.
        per_connection: streams that one holds at most; 0: all.

    Attributes:
        links: those that are not closed for good.
        reconnects_before: of those that were.
    """

    def __init__(
        self, make: Callable[[int], Link], wake: Callable[[Link], object], per_connection: int
    ) -> None:
        self._make = make
        self._wake = wake
        self._most = per_connection
        self.links: list[Link] = []
        self.reconnects_before = 0
        self._made = 0
        self.add()

    def __iter__(self) -> Iterator[Link]:
        """Yield all."""
        return iter(self.links)

    def add(self) -> Link:
        """Make another."""
        link = self._make(self._made)
        self._made += 1
        self.links.append(link)
        self._wake(link)
        return link

    def live(self) -> Link | None:
        """Return one that takes requests, None when there is none."""
        return next((link for link in self.links if link.state == LIVE), None)

    def place(self, stream: Wanted) -> None:
        """Give a stream to the connection with the most room, or to a new one."""
        room = [link for link in self.links if not link.is_leaving and self._has_room(link)]
        link = min(room, key=_burden) if room else self.add()
        ask_for(link, stream)
        self._wake(link)

    def _has_room(self, link: Link) -> bool:
        return not self._most or len(link.wanted) < self._most

    def evacuate(self, link: Link) -> list[Wanted]:
        """Give the streams of a lost connection to others that have room.

        One that is dialled again keeps what finds no room on a live one; of one that is closed
        for good, streams go to any other.

        Returns:
            The streams that a closed one leaves without a connection.
        """
        for stream in list(link.wanted.values()):
            room = [
                one
                for one in self.links
                if self._has_room(one)
                and (one.state == LIVE or (link.state == CLOSED and not one.is_leaving))
            ]
            if not room:
                break
            del link.wanted[stream.name]
            link.unasked.pop(stream.name, None)
            self.place(stream)
        if link.state == CLOSED:
            return self._retire(link)
        self.leave_empty(link)
        return []

    def _retire(self, link: Link) -> list[Wanted]:
        """Forget a closed connection, unless it is the last."""
        if len(self.links) > 1:
            self.links.remove(link)
            self.reconnects_before += max(0, link.connects - 1)
        return list(link.wanted.values())

    def leave_empty(self, link: Link) -> None:
        """Close a connection that holds nothing, unless it is the only one."""
        others: Sequence[Link] = [
            one for one in self.links if one is not link and not one.is_leaving
        ]
        if not link.wanted and others:
            link.drain("no streams are left for it")
            self._wake(link)

    def is_over(self) -> bool:
        """Tell whether none will come back."""
        return all(link.state == CLOSED for link in self.links)


def _burden(link: Link) -> tuple[bool, int]:
    return link.state != LIVE, len(link.wanted)
