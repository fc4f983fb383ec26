"""A stream: its subscribers, and the events that wait to be sent to them.

Subscribers are the keys of a dict, in order of subscription. The queue is made when a
first event waits and given back when it was drained, since most streams are silent at
most moments.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rango_gevent.hub.hub import EventQueue, Subscriber


class Stream:
    """A named flow of events to a set of subscribers.

    Attributes:
        queue: events waiting, None while there are none.
        joined: subscribers who came while events were waiting, and the sequence after
            which events are theirs; what waited before is in their replay already.
    """

    __slots__ = ("address", "joined", "kind", "queue", "subscribers", "topic")

    def __init__(self, kind: str, address: str, topic: str) -> None:
        self.kind = kind
        self.address = address
        self.topic = topic
        self.subscribers: dict[Subscriber, None] = {}
        self.queue: EventQueue | None = None
        self.joined: dict[Subscriber, int] | None = None

    def add(self, subscriber: Subscriber, sequence: int) -> None:
        """Subscribe, or subscribe anew, for events after ``sequence``."""
        self.subscribers[subscriber] = None
        if self.queue is not None:
            if self.joined is None:
                self.joined = {}
            self.joined[subscriber] = sequence

    def discard(self, subscriber: Subscriber) -> None:
        """Unsubscribe; no error when not subscribed."""
        self.subscribers.pop(subscriber, None)
        if self.joined is not None:
            self.joined.pop(subscriber, None)
