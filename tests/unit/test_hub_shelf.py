"""All books together: which goes first, and that sums which are kept are the true ones."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rango_gevent.hub.shelf import Shelf
from rango_gevent.model import Event

AT = 1_700_000_000.0


def event(frame: bytes) -> Event:
    """Return an event of which only the frame matters."""
    return Event(1, frame, 0, AT)


def shelf_of(*addresses: str, held: str = "") -> Shelf:
    """Return a shelf with books of one snapshot each; some of them are held."""
    shelf = Shelf()
    for address in addresses:
        shelf.put(address, event(b"snap"), address in held)
    return shelf


def order(shelf: Shelf) -> list[str]:
    """Return in which order the books would go."""
    gone = []
    while shelf.books:
        gone.append(shelf.first_to_go())
        shelf.forget(gone[-1])
    assert shelf.bytes == 0
    return gone


def test_the_oldest_goes_first() -> None:
    """A new snapshot makes a book young again."""
    shelf = shelf_of("a", "b", "c")
    shelf.put("a", event(b"snap"), False)
    assert order(shelf) == ["b", "c", "a"]


def test_to_use_a_book_makes_it_young() -> None:
    """By an increment or by a replay."""
    shelf = shelf_of("a", "b", "c", "d")
    shelf.append("a", shelf.books["a"], event(b"inc"))
    shelf.replay("b")
    assert shelf.first_to_go() == "c"
    assert order(shelf) == ["c", "d", "a", "b"]


def test_books_that_are_held_stay_longest() -> None:
    """However little they are used; and stale ones go before good ones."""
    shelf = shelf_of("a", "b", "c", "d", held="ab")
    for _ in range(3):
        shelf.append("c", shelf.books["c"], event(b"inc"))
    shelf.drop("b", AT)
    shelf.drop("d", AT)
    assert shelf.stale == 2
    assert order(shelf) == ["d", "c", "b", "a"]


def test_to_be_held_changes_with_the_subscribers() -> None:
    """The last one to leave makes a book as idle as any."""
    shelf = shelf_of("a", "b", "c")
    shelf.hold("a", True)
    shelf.hold("b", True)
    shelf.hold("b", False)
    shelf.hold("unknown", True)
    assert order(shelf) == ["c", "b", "a"]


def test_frames_are_dropped_of_good_books_only() -> None:
    """Stale ones hold none; idle ones come first here too."""
    shelf = shelf_of("a", "b", "c", held="c")
    shelf.drop("a", AT)
    assert shelf.first_live_to_go() == "b"
    shelf.drop("b", AT)
    assert shelf.first_live_to_go() == "c"


addresses = st.sampled_from("abcd")
steps = st.lists(
    st.tuples(
        st.sampled_from(["put", "append", "drop", "forget", "hold", "leave", "replay"]), addresses
    ),
    max_size=40,
)


@given(steps)
def test_sums_are_those_of_all_books(taken: list[tuple[str, str]]) -> None:
    """After any steps: bytes and stale books are what counting them all would give."""
    shelf = Shelf()
    for step, address in taken:
        book = shelf.books.get(address)
        if step == "put":
            shelf.put(address, event(b"snap" * len(taken)), book is not None and book.is_held)
        elif step in ("hold", "leave"):
            shelf.hold(address, step == "hold")
        elif book is None:
            continue
        elif step == "append" and book.live:
            shelf.append(address, book, event(b"inc"))
        elif step == "drop":
            shelf.drop(address, AT)
        elif step == "forget":
            shelf.forget(address)
        elif step == "replay" and book.live:
            assert sum(segment.size for segment in shelf.replay(address)) == book.bytes
        assert shelf.bytes == sum(book.bytes for book in shelf.books.values())
        assert shelf.stale == sum(not book.live for book in shelf.books.values())
    assert sorted(shelf.books) == sorted(order(shelf))
