"""How many subscriptions there are, by kind and by topic.

A client may ask for any name, so a topic is counted by itself only when a publisher has used
it; all others are in the sum of their kind alone. Nothing here grows with the names that
clients make up, except by the few bytes that each subscription to a private one takes.
"""

from __future__ import annotations

from rango_gevent.hub.stream import Stream
from rango_gevent.protocol import routing
from rango_gevent.protocol.routing import Route

MAX_PUBLISHED = 50_000  # topics that are remembered, and that a scrape looks at


class Topics:
    """Counts of subscriptions.

    Attributes:
        held: subscriptions by kind.
    """

    def __init__(self) -> None:
        self.held = dict.fromkeys(routing.KINDS, 0)
        self._private: dict[str, int] = {}
        self._published: dict[str, set[str]] = {kind: set() for kind in routing.KINDS}
        self._shown: dict[str, dict[str, int]] = {kind: {} for kind in routing.KINDS}

    @property
    def total(self) -> int:
        """Return the number of all subscriptions."""
        return sum(self.held.values())

    def published(self, kind: str) -> frozenset[str]:
        """Return the topics of a kind that publishers have used."""
        return frozenset(self._published[kind])

    def add_kind(self, kind: str) -> None:
        """Count subscriptions of a kind that is no scope of routing keys, in one sum."""
        self.held.setdefault(kind, 0)
        self._published.setdefault(kind, set())
        self._shown.setdefault(kind, {})

    def add(self, stream: Stream) -> None:
        """Count a subscription to a stream; its subscriber is in it already."""
        kind, topic = stream.kind, stream.topic
        self.held[kind] += 1
        if kind == routing.PRIVATE:
            self._private[topic] = self._private.get(topic, 0) + 1
        elif topic in self._published[kind]:
            self._shown[kind][topic] = len(stream.subscribers)

    def remove(self, stream: Stream) -> None:
        """Take a subscription from the counts; its subscriber has left the stream already."""
        kind, topic = stream.kind, stream.topic
        self.held[kind] -= 1
        if kind == routing.PRIVATE:
            left = self._private.pop(topic) - 1
            if left:
                self._private[topic] = left
        elif topic in self._published[kind]:
            if stream.subscribers:
                self._shown[kind][topic] = len(stream.subscribers)
            else:
                del self._shown[kind][topic]

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
            for other in routing.KINDS:
                self._published[other].clear()
                self._shown[other].clear()
        self._published[kind].add(topic)
        if kind != routing.PRIVATE and stream is not None:
            self._shown[kind][topic] = len(stream.subscribers)
        return is_full

    def counts(self) -> dict[str, dict[str, int]]:
        """Return the subscriptions of all topics that are published on and held, by kind."""
        private = self._published[routing.PRIVATE] & self._private.keys()
        return {**self._shown, routing.PRIVATE: {topic: self._private[topic] for topic in private}}
