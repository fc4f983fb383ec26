"""A book by itself: what it holds, what it weighs and what it replays."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rango_gevent.delivery.encoding import PLAIN
from rango_gevent.hub.book import Book
from rango_gevent.model import SEGMENT_BYTES, Event

AT = 1_700_000_000.0


def event(frame: bytes) -> Event:
    """Return an event with a frame."""
    return Event(0, frame, 0, AT)


def replay(book: Book) -> bytes:
    """Return what a newcomer gets."""
    return b"".join(segment.encoded(PLAIN) for segment in book.replay())


def book_of(*frames: bytes) -> Book:
    """Return a book of a snapshot and increments."""
    book = Book()
    book.replace(event(frames[0]))
    for frame in frames[1:]:
        book.append(event(frame))
    return book


def test_a_new_book_is_empty_and_not_stale() -> None:
    """Before its first snapshot there is nothing to replay, and nobody misses anything."""
    book = Book()
    assert not book.live
    assert book.stale_since is None
    assert (len(book), book.bytes, replay(book)) == (0, 0, b"")


def test_a_replay_is_the_snapshot_and_all_increments() -> None:
    """In the order in which they came; the snapshot is no increment."""
    book = book_of(b"snap", b"a", b"bc")
    assert book.live
    assert (len(book), book.bytes, replay(book)) == (2, 7, b"snapabc")


def test_a_snapshot_replaces_all() -> None:
    """What came before it is in it."""
    book = book_of(b"snap", b"a", b"b")
    assert replay(book) == b"snapab"
    book.replace(event(b"new"))
    assert (len(book), book.bytes, replay(book)) == (0, 3, b"new")
    book.append(event(b"c"))
    assert replay(book) == b"newc"


def test_newcomers_share_one_replay() -> None:
    """A thousand newcomers cost one join, until the book changes; then only of its last part."""
    book = book_of(b"snap", b"a")
    (first,) = book.replay()
    (again,) = book.replay()
    assert again is first
    book.append(event(b"b"))
    assert replay(book) == b"snapab"
    assert first.encoded(PLAIN) == b"snapa", "who still waits for it gets what was promised"
    for _ in range(3):
        book.append(event(b"x" * SEGMENT_BYTES))
    before = book.replay()
    book.append(event(b"c"))
    after = book.replay()
    assert [one is other for one, other in zip(before, after)] == [True] * 3
    assert len(after) == 4


def test_a_dropped_book_holds_nothing() -> None:
    """It is stale since it was dropped first, until the next snapshot."""
    book = book_of(b"snap", b"a")
    book.drop(AT)
    book.drop(AT + 5)
    assert not book.live
    assert book.stale_since == AT
    assert (len(book), book.bytes, replay(book)) == (0, 0, b"")
    book.replace(event(b"new"))
    assert book.live
    assert book.stale_since is None


operations = st.lists(
    st.binary(min_size=1, max_size=4).map(lambda frame: ("append", frame))
    | st.binary(min_size=1, max_size=4).map(lambda frame: ("replace", frame))
    | st.just(("append", b"x" * SEGMENT_BYTES))
    | st.sampled_from([("drop", b""), ("replay", b"")]),
    max_size=20,
)


@given(operations)
def test_any_order_of_operations(steps: list[tuple[str, bytes]]) -> None:
    """What is replayed is always all frames since the last snapshot."""
    book, held = Book(), list[bytes]()
    for step, frame in steps:
        if step == "append" and book.live:
            book.append(event(frame))
            held.append(frame)
        elif step == "replace":
            book.replace(event(frame))
            held = [frame]
        elif step == "drop":
            book.drop(AT)
            held = []
        assert replay(book) == b"".join(held)
        assert sum(segment.size for segment in book.replay()) == book.bytes
        assert book.bytes == sum(map(len, held))
        assert len(book) == max(0, len(held) - 1)
        assert book.live is bool(held)
