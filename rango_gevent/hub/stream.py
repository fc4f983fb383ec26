"""A stream: its subscribers, and the frames that wait to be sent to them.

Subscribers are the keys of a dict, in order of subscription. The queue is made when a
first frame waits and given back when it was drained, since most streams are silent at
most moments.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from rango_gevent.hub.hub import FrameQueue, Subscriber


class Waiting(NamedTuple):
    """A frame in a stream's queue.

    Attributes:
        sequence: place in the order of everything published to this hub.
        frame: encoded server frame.
        at_s: Unix time at which it was published, or received where that is unknown.
    """

    sequence: int
    frame: bytes
    at_s: float


class Stream:
    """A named flow of frames to a set of subscribers.

    Attributes:
        queue: frames waiting, None while there are none.
        joined: subscribers who came while frames were waiting, and the sequence after
            which frames are theirs; what waited before is in their replay already.
    """

    __slots__ = ("address", "joined", "kind", "queue", "subscribers", "topic")

    def __init__(self, kind: str, address: str, topic: str) -> None:
        self.kind = kind
        self.address = address
        self.topic = topic
        self.subscribers: dict[Subscriber, None] = {}
        self.queue: FrameQueue | None = None
        self.joined: dict[Subscriber, int] | None = None

    def add(self, subscriber: Subscriber, sequence: int) -> None:
        """Subscribe, or subscribe anew, for frames after ``sequence``."""
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
