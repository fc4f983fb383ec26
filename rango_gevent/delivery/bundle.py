"""A bundle: events of some streams on their way to the clients that share them.

Clients that hold the same streams are due the same bytes. They are put in order and encoded
once for all of them, when the first of them is served. Until then a bundle is a path through
what was taken from the streams: putting two together is one step, however many streams they
hold, and clients whose streams differ share what they have in common.
"""

from __future__ import annotations

from operator import attrgetter
from typing import Mapping, NamedTuple, Tuple, Union

from rango_gevent.hub.stream import Batch, Stream, Subscriber
from rango_gevent.model import SEGMENT_BYTES, Event, Segment, cut

_in_order = attrgetter("sequence")


class Paths:
    """Sets of batches, each a path from its node to the root, which is 0 and empty.

    Numbers and no objects: a hundred clients of a thousand different streams make a hundred
    thousand nodes, and the garbage collector would look at each.

    Args:
        batches: what was taken from the streams at once.

    Attributes:
        sizes: bytes of the frames of each node.
    """

    __slots__ = ("_at", "_batch_bytes", "_parents", "batches", "sizes")

    def __init__(self, batches: list[Batch]) -> None:
        self.batches = batches
        self.sizes = [0]
        self._parents = [0]
        self._at = [0]
        self._batch_bytes = [batch.size for batch in batches]

    def add(self, parent: int, at: int) -> int:
        """Return a new node: what its parent has, and the batch with a number."""
        self._parents.append(parent)
        self._at.append(at)
        self.sizes.append(self.sizes[parent] + self._batch_bytes[at])
        return len(self._at) - 1

    def tree(self, node: int) -> Tree:
        """Return what a bundle of a node is made of."""
        return Path(self, node) if self._parents[node] else self.batches[self._at[node]]

    def of(self, node: int) -> list[Batch]:
        """Return the batches of a node in their order."""
        found: list[Batch] = []
        while node:
            found.append(self.batches[self._at[node]])
            node = self._parents[node]
        found.reverse()
        return found


class Path(NamedTuple):
    """One set of batches."""

    paths: Paths
    node: int


Tree = Union[Batch, Path, Tuple["Tree", "Tree"]]


class Bundle:
    """What some clients are due.

    Args:
        tree: batches, or sets of them, the earlier ones to the left.
        size: bytes of their frames.
        only: the stream of all of it, None for several or when nobody looked.

    Attributes:
        segments: the events in the order of their publishing, once `cut` was called, else empty.
    """

    __slots__ = ("_parts", "only", "segments", "size", "tree")

    def __init__(self, tree: Tree, size: int, only: Stream | None = None) -> None:
        self.tree = tree
        self.size = size
        self.only = only
        self.segments: list[Segment] = []
        self._parts: list[tuple[Stream, list[Event]]] | None = None

    def __add__(self, later: Bundle) -> Bundle:
        only = self.only if self.only is later.only else None
        return Bundle((self.tree, later.tree), self.size + later.size, only)

    def extend(self, batch: Batch) -> None:
        """Add events that were published after those held."""
        self.tree = (self.tree, batch)
        self.size += batch.size
        self.segments = []
        self._parts = None

    def cut(self) -> list[Segment]:
        """Return the segments to send; they are kept."""
        tree = self.tree
        if isinstance(tree, Batch):
            events = tree.waiting
        else:
            batches = self._batches()
            events = [event for batch in batches for event in batch.waiting]
            events.sort(key=_in_order)
        self.segments = [Segment(events, self.size)] if self.size <= SEGMENT_BYTES else cut(events)
        return self.segments

    def parts(self) -> list[tuple[Stream, list[Event]]]:
        """Return the events by stream, each stream's in the order of publishing."""
        if self._parts is None:
            held: dict[Stream, list[Event]] = {}
            for batch in self._batches():
                held.setdefault(batch.stream, []).extend(batch.waiting)
            self._parts = list(held.items())
        return self._parts

    def _batches(self) -> list[Batch]:
        """Return the leaves from left to right; trees are too deep for recursion."""
        found: list[Batch] = []
        below: list[Tree] = [self.tree]
        while below:
            tree = below.pop()
            if isinstance(tree, Batch):
                found.append(tree)
            elif isinstance(tree, Path):
                found += reversed(tree.paths.of(tree.node))
            else:
                below.append(tree[0])
                below.append(tree[1])
        found.reverse()
        return found


def own_of(subscriber: Subscriber, batches: Mapping[Stream, Batch]) -> Bundle | None:
    """Return what one client is due of some batches, without what its replay held already."""
    tree: Tree | None = None
    total = 0
    for stream in subscriber.streams.values():
        batch = batches.get(stream)
        if batch is None:
            continue
        after = batch.joined.get(subscriber, 0)
        waiting = [event for event in batch.waiting if event.sequence > after]
        if waiting:
            size = sum([len(event.frame) for event in waiting])
            leaf = batch._replace(waiting=waiting, size=size)
            tree = leaf if tree is None else (tree, leaf)
            total += size
    return None if tree is None else Bundle(tree, total)
