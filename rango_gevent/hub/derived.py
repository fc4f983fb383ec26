"""Derived streams: what a dialect makes of published events, once for all who hold it.

A derived stream is a stream like any other for clients and dispatcher. Nobody publishes on it: who
made it puts finished frames into it, and is told when its last subscriber has left. As everywhere
in this room, nothing here yields.
"""

from __future__ import annotations

from typing import Callable

from rango_gevent.hub.hub import Hub
from rango_gevent.hub.stream import Stream, Subscriber
from rango_gevent.model import Event
from rango_gevent.protocol import routing


class DerivedStream(Stream):
    """A stream that is made of others.

    Args:
        address: its name, as those hold it who subscribe to it.
        topic: what it is made of, for the policies of slow clients.
        on_empty: told the address when the last subscriber has left.
    """

    __slots__ = ("_on_empty",)

    def __init__(self, address: str, topic: str, on_empty: Callable[[str], None]) -> None:
        super().__init__(routing.DERIVED, address, topic)
        self._on_empty = on_empty

    def discard(self, subscriber: Subscriber) -> None:
        """Unsubscribe."""
        super().discard(subscriber)
        if not self.subscribers:
            self._on_empty(self.address)


class Deriver:
    """The derived streams of a hub.

    Args:
        hub: whose; it learns of this kind of streams.
    """

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._streams = hub.streams.setdefault(routing.DERIVED, {})
        hub.topics.add_kind(routing.DERIVED)

    def has_room(self, more: int) -> bool:
        """Tell whether all clients together may hold so many streams more."""
        hub = self._hub
        if hub.topics.total + more <= hub.limits.subscriptions:
            return True
        hub.refused += more
        return False

    def join(self, subscriber: Subscriber, stream: DerivedStream) -> None:
        """Subscribe, or subscribe anew: what waits in the stream by now is not for the newcomer.

        So who joins is sent by its caller what the stream has shown so far.
        """
        address = stream.address
        self._streams[address] = stream
        stream.add(subscriber, self._hub.sequence)
        if address not in subscriber.streams:
            subscriber.streams[address] = stream
            self._hub.topics.add(stream)

    def publish(self, stream: DerivedStream, frame: bytes, at_s: float) -> str:
        """Queue a finished frame for all who hold a stream.

        Args:
            stream: that somebody holds.
            frame: as it goes out.
            at_s: Unix time at which the event was published that it is made of.

        Returns:
            What became of it, as of `Hub.publish`.
        """
        hub = self._hub
        hub.sequence += 1
        return hub._enqueue(stream, Event(hub.sequence, frame, 0, at_s))
