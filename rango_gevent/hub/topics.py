"""How many subscriptions there are, by kind and by topic.

A client may ask for any name, so a topic is counted by itself only when a publisher has used
it; all others are in the sum of their kind alone. Nothing here grows with the names that
clients make up, except by the few bytes that each subscription to a private one takes.
"""

from __future__ import annotations

from typing import Iterator

from rango_gevent.hub.stream import Stream
from rango_gevent.protocol import routing
from rango_gevent.protocol.routing import Route

MAX_PUBLISHED = 50_000  # topics that are remembered
MAX_SHOWN = 10_000  # streams that are counted by themselves: a scrape looks at each, for 0.8 us


class Topics:
    """Counts of subscriptions.

    Attributes:
        held: subscriptions by kind.
    """

    def __init__(self) -> None:
        self.held = dict.fromkeys(routing.KINDS, 0)
        self._private: dict[str, int] = {}
        self._published: dict[str, set[str]] = {kind: set() for kind in routing.KINDS}
        self._shown: dict[tuple[str, str], Stream] = {}

    @property
    def total(self) -> int:
        """Return the number of all subscriptions."""
        return sum(self.held.values())

    def add(self, stream: Stream) -> None:
        """Count a subscription to a stream; its subscriber is in it already."""
        kind = stream.kind
        self.held[kind] += 1
        if kind == routing.PRIVATE:
            self._private[stream.topic] = self._private.get(stream.topic, 0) + 1
        elif len(stream.subscribers) == 1 and stream.topic in self._published[kind]:
            self._show(stream)

    def remove(self, stream: Stream) -> None:
        """Take a subscription from the counts; its subscriber has left the stream already."""
        kind = stream.kind
        self.held[kind] -= 1
        if kind == routing.PRIVATE:
            left = self._private.pop(stream.topic) - 1
            if left:
                self._private[stream.topic] = left
        elif not stream.subscribers and stream.topic in self._published[kind]:
            self._shown.pop((kind, stream.topic), None)

    def _show(self, stream: Stream) -> None:
        if len(self._shown) < MAX_SHOWN:
            self._shown[stream.kind, stream.topic] = stream

    def publish(self, route: Route, stream: Stream | None) -> bool:
        """Note that a topic is published on.

        Args:
            route: what is published.
            stream: the stream of its address, None when nobody holds it.

        Returns:
            True when there were too many topics: all others are forgotten until they are
            published on again.
        """
        kind = route.kind
        topic = route.name if kind == routing.PRIVATE else route.address
        if topic in self._published[kind]:
            return False
        is_full = sum(map(len, self._published.values())) >= MAX_PUBLISHED
        if is_full:
            self._shown.clear()
            for topics in self._published.values():
                topics.clear()
        self._published[kind].add(topic)
        if kind != routing.PRIVATE and stream is not None:
            self._show(stream)
        return is_full

    def counts(self) -> Iterator[tuple[int, str, str]]:
        """Yield number of subscriptions, kind and topic, for all that are published on and held."""
        for (kind, topic), stream in self._shown.items():
            yield len(stream.subscribers), kind, topic
        for topic in self._published[routing.PRIVATE]:
            if topic in self._private:
                yield self._private[topic], routing.PRIVATE, topic
