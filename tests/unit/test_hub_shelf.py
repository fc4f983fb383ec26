"""All books together: which goes first, and that sums which are kept are the true ones."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rango_gevent.hub.shelf import Shelf

AT = 1_700_000_000.0
NO_END = 1 << 40


def shelf_of(*addresses: str, held: str = "") -> Shelf:
    """Return a shelf with books of one snapshot each; some of them are held."""
    shelf = Shelf()
    for address in addresses:
        shelf.put(address, b"snap", address in held)
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
    shelf.put("a", b"snap", False)
    assert order(shelf) == ["b", "c", "a"]


def test_to_use_a_book_makes_it_young() -> None:
    """By an increment or by a replay."""
    shelf = shelf_of("a", "b", "c", "d")
    shelf.append("a", shelf.books["a"], b"inc")
    shelf.replay("b", NO_END, None)
    assert shelf.first_to_go() == "c"
    assert order(shelf) == ["c", "d", "a", "b"]


def test_books_that_are_held_stay_longest() -> None:
    """However little they are used; and stale ones go before good ones."""
    shelf = shelf_of("a", "b", "c", "d", held="ab")
    for _ in range(3):
        shelf.append("c", shelf.books["c"], b"inc")
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


def test_copies_for_newcomers_count_and_give_way() -> None:
    """What is joined or compressed is kept where there is room, and made anew where not."""
    shelf = shelf_of("a")
    book = shelf.books["a"]
    shelf.append("a", book, b"inc")
    assert shelf.bytes == 7
    assert shelf.replay("a", NO_END, None) == b"snapinc"
    assert shelf.bytes == 14
    assert shelf.replay("a", 20, lambda frame: frame[:1]) == b"si"
    assert shelf.bytes == 14 + 2 + 2
    shelf.append("a", book, b"more")
    assert shelf.bytes == 11 + 2
    assert shelf.replay("a", 12, None) == b"snapincmore"
    assert shelf.bytes == 11


addresses = st.sampled_from("abcd")
steps = st.lists(
    st.tuples(st.sampled_from(["put", "append", "drop", "forget", "hold", "leave"]), addresses)
    | st.tuples(st.sampled_from(["replay", "packed", "full"]), addresses),
    max_size=40,
)


@given(steps)
def test_sums_are_those_of_all_books(taken: list[tuple[str, str]]) -> None:
    """After any steps: bytes and stale books are what counting them all would give."""
    shelf = Shelf()
    for step, address in taken:
        book = shelf.books.get(address)
        if step == "put":
            shelf.put(address, b"snap" * len(taken), book is not None and book.is_held)
        elif step in ("hold", "leave"):
            shelf.hold(address, step == "hold")
        elif book is None:
            continue
        elif step == "append" and book.live:
            shelf.append(address, book, b"inc")
        elif step == "drop":
            shelf.drop(address, AT)
        elif step == "forget":
            shelf.forget(address)
        elif step in ("replay", "packed", "full") and book.live:
            shelf.replay(
                address, 10 if step == "full" else NO_END, bytes if step == "packed" else None
            )
        assert shelf.bytes == sum(book.weight for book in shelf.books.values())
        assert shelf.stale == sum(not book.live for book in shelf.books.values())
        assert all(book.bytes == sum(map(len, book.frames)) for book in shelf.books.values())
    assert sorted(shelf.books) == sorted(order(shelf))
