"""A stream: its subscribers, and the events that wait to be sent to them.

Subscribers are the keys of a dict, in order of subscription. The queue is made when a
first event waits and given back when it was drained, since most streams are silent at
most moments.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from rango_gevent.model import Event


class EventQueue(Protocol):
    """What the hub needs of a queue; gevent's `SimpleQueue` is one."""

    def put_nowait(self, item: Event) -> None:
        """Add an item; never waits."""

    def get_nowait(self) -> Event:
        """Take the oldest item; never waits."""

    def qsize(self) -> int:
        """Return the number of items."""


class Subscriber(Protocol):
    """A client as the hub sees it.

    Attributes:
        streams: names held and their streams, in order of subscription; the hub's to change.
    """

    streams: dict[str, Stream]

    @property
    def uid(self) -> str | None:
        """Return the user id of a verified token, None for anonymous."""

    @property
    def role(self) -> str:
        """Return the role of a verified token, empty for none."""

    @property
    def notices(self) -> bool:
        """Tell whether it asked to be told of books that are stale."""


class Stream:
    """A named flow of events to a set of subscribers.

    Attributes:
        is_recovered: somebody holds it who was given only what was missed.
        queue: events waiting, None while there are none.
        joined: subscribers who came while events were waiting, and the sequence after
            which events are theirs; what waited before is in their replay already.
    """

    __slots__ = ("address", "is_recovered", "joined", "kind", "queue", "subscribers", "topic")

    def __init__(self, kind: str, address: str, topic: str) -> None:
        self.kind = kind
        self.address = address
        self.topic = topic
        self.is_recovered = False
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


class Batch(NamedTuple):
    """What waits in one stream.

    Attributes:
        stream: whose it is.
        waiting: the events, in the order of publishing.
        size: bytes of their frames.
        joined: who came while some waited, and the sequence after which they are theirs.
    """

    stream: Stream
    waiting: list[Event]
    size: int
    joined: dict[Subscriber, int]
