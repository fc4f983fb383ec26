"""A book by itself: what it holds, what it weighs and what it replays."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rango_gevent.hub.book import Book

AT = 1_700_000_000.0


def book_of(*frames: bytes) -> Book:
    """Return a book of a snapshot and increments."""
    book = Book()
    book.replace(frames[0])
    for frame in frames[1:]:
        book.append(frame)
    return book


def test_a_new_book_is_empty_and_not_stale() -> None:
    """Before its first snapshot there is nothing to replay, and nobody misses anything."""
    book = Book()
    assert not book.live
    assert book.stale_since is None
    assert (len(book), book.bytes, book.replay()) == (0, 0, b"")
    assert book.packed_replay(lambda frame: frame) == b""


def test_a_replay_is_the_snapshot_and_all_increments() -> None:
    """In the order in which they came; the snapshot is no increment."""
    book = book_of(b"snap", b"a", b"bc")
    assert book.live
    assert (len(book), book.bytes, book.replay()) == (2, 7, b"snapabc")


def test_a_snapshot_replaces_all() -> None:
    """What came before it is in it."""
    book = book_of(b"snap", b"a", b"b")
    assert book.replay() == b"snapab"
    book.replace(b"new")
    assert (len(book), book.bytes, book.replay()) == (0, 3, b"new")
    book.append(b"c")
    assert book.replay() == b"newc"


def test_newcomers_share_one_replay() -> None:
    """A thousand newcomers cost one join, until the book changes."""
    book = book_of(b"snap", b"a")
    first = book.replay()
    assert book.replay() is first
    book.append(b"b")
    assert book.replay() == b"snapab"


def test_a_dropped_book_holds_nothing() -> None:
    """It is stale since it was dropped first, until the next snapshot."""
    book = book_of(b"snap", b"a")
    book.drop(AT)
    book.drop(AT + 5)
    assert not book.live
    assert book.stale_since == AT
    assert (len(book), book.bytes, book.replay()) == (0, 0, b"")
    assert book.packed_replay(lambda frame: frame) == b""
    book.replace(b"new")
    assert book.live
    assert book.stale_since is None


operations = st.lists(
    st.binary(min_size=1, max_size=4).map(lambda frame: ("append", frame))
    | st.binary(min_size=1, max_size=4).map(lambda frame: ("replace", frame))
    | st.sampled_from([("drop", b""), ("replay", b""), ("packed", b"")]),
    max_size=20,
)


@given(operations)
def test_any_order_of_operations(steps: list[tuple[str, bytes]]) -> None:
    """What is replayed is always all frames since the last snapshot, each packed once."""
    book, held, packed = Book(), list[bytes](), list[bytes]()

    def pack(frame: bytes) -> bytes:
        packed.append(frame)
        return b"<" + frame + b">"

    for step, frame in steps:
        if step == "append" and book.live:
            book.append(frame)
            held.append(frame)
        elif step == "replace":
            book.replace(frame)
            held, packed = [frame], []
        elif step == "drop":
            book.drop(AT)
            held, packed = [], []
        elif step == "packed":
            assert book.packed_replay(pack) == b"".join(b"<" + f + b">" for f in held)
            assert packed == held
        assert book.replay() == b"".join(held)
        assert book.bytes == sum(map(len, held))
        assert len(book) == max(0, len(held) - 1)
        assert book.live is bool(held)
