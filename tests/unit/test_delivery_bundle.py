"""Bundles by themselves: what is joined, in which order, and what is shared."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rango_gevent.delivery.bundle import Bundle, Tree
from rango_gevent.delivery.encoding import PLAIN, Deflated
from rango_gevent.hub.stream import Batch, Stream
from rango_gevent.model import SEGMENT_BYTES, Event

A, B = Stream("public", "a.t", "a.t"), Stream("public", "b.t", "b.t")


def batch(stream: Stream, *numbers: int, size: int = 1) -> Batch:
    """Return what waits in a stream: events whose frames are their numbers."""
    events = [Event(number, b"%d," % number * size, 0, 0.0) for number in numbers]
    return Batch(stream, events, sum(len(event.frame) for event in events), {})


def bundle_of(tree: Tree, only: Stream | None = None) -> Bundle:
    """Return a bundle of batches."""
    found = Bundle(tree, 0, only)
    found.size = sum(batch.size for batch in found._batches())
    return found


def sent(bundle: Bundle) -> bytes:
    """Return the bytes of all segments."""
    return b"".join(segment.encoded(PLAIN) for segment in bundle.segments or bundle.cut())


def test_events_come_in_the_order_of_publishing() -> None:
    """Across streams, and across what was put together."""
    bundle = bundle_of((batch(A, 1, 4), batch(B, 2, 3))) + bundle_of(batch(A, 5))
    assert sent(bundle) == b"1,2,3,4,5,"
    assert bundle.parts() == [(A, [*bundle.parts()[0][1]]), (B, [*bundle.parts()[1][1]])]
    assert [event.sequence for event in bundle.parts()[0][1]] == [1, 4, 5]


def test_what_is_added_is_seen() -> None:
    """By whoever holds the bundle, though it was cut before."""
    bundle = bundle_of(batch(A, 1), A)
    other = bundle + bundle_of(batch(B, 2), B)
    assert sent(bundle) == b"1,"
    bundle.extend(batch(A, 3))
    assert sent(bundle) == b"1,3,"
    assert sent(other) == b"1,2,", "but not by those who were made of it before"
    assert bundle.only is A
    assert other.only is None


def test_a_large_bundle_is_cut() -> None:
    """Into segments of which each is encoded when its turn comes."""
    bundle = bundle_of(batch(A, *range(1, 100), size=2000))
    segments = bundle.cut()
    assert len(segments) > 3
    assert all(segment.size < SEGMENT_BYTES + 10_000 for segment in segments)
    assert sum(segment.size for segment in segments) == bundle.size == len(sent(bundle))
    packed: list[bytes] = []
    encoding = Deflated(lambda frame: packed.append(frame) or b"z")  # type: ignore[func-returns-value]
    assert segments[0].encoded(encoding) == b"z" * len(segments[0].events)
    assert segments[0].encoded(encoding) is segments[0].encoded(encoding)
    assert len(packed) == len(segments[0].events), "each once, and none of the others"


@given(st.lists(st.integers(1, 6), min_size=1, max_size=30), st.randoms(use_true_random=False))
def test_any_tree_gives_all_in_order(sizes: list[int], random: object) -> None:
    """However batches were put together."""
    number, batches = 0, []
    for index, size in enumerate(sizes):
        batches.append(batch((A, B)[index % 2], *range(number + 1, number + size + 1)))
        number += size
    trees: list[Tree] = list(batches)
    while len(trees) > 1:
        at = random.randrange(len(trees) - 1)  # type: ignore[attr-defined]  # hypothesis' own
        trees[at : at + 2] = [(trees[at], trees[at + 1])]
    assert sent(bundle_of(trees[0])) == b"".join(b"%d," % n for n in range(1, number + 1))


def test_a_deep_tree_is_no_recursion() -> None:
    """A client may be due a thousand streams, or wait for a thousand turns."""
    tree: Tree = batch(A, 1)
    for number in range(2, 50_000):
        tree = (tree, batch(A, number))
    assert sent(bundle_of(tree)).endswith(b"49999,")
