"""The board of the dialect: what is kept and read, and what views are made of it."""

from __future__ import annotations

import json
import time
from typing import Any, Callable

import msgspec
import pytest
from gevent.queue import SimpleQueue

from rango_gevent.hub.hub import DELIVERED, NOBODY, STORED, Hub, HubLimits
from rango_gevent.hub.stream import Stream
from rango_gevent.viabtc import shapes, views
from rango_gevent.viabtc.board import Board, BoardLimits
from rango_gevent.viabtc.methods import DepthForms
from rango_gevent.viabtc.names import Names
from rango_gevent.viabtc.queries import Held
from rango_gevent.viabtc.views import Spec

DEALS = Spec(views.DEALS, "btcbch")
DEPTH = Spec(views.DEPTH, "btcbch", limit=5, merge="0")
BOOK = {"asks": [["8000", "1"]], "bids": [["7000", "1"]], "sequence": 1}


class Subscriber:
    """A client as the hub sees it."""

    role = ""
    notices = False

    def __init__(self, uid: str | None = None) -> None:
        self.uid = uid
        self.streams: dict[str, Stream] = {}


class Room:
    """A hub and its board."""

    def __init__(self, hub_limits: HubLimits | None = None, **limits: Any) -> None:
        self.hub = Hub(allows=lambda prefix, role: False, make_queue=SimpleQueue, limits=hub_limits)
        self.fetched: list[tuple[str, str]] = []
        self.needed: dict[tuple[str, str], bool] = {}
        self.board = Board(
            self.hub,
            Names(),
            BoardLimits(**limits),
            lambda uid, asset: self.fetched.append((uid, asset)),
            self._on_held,
        )

    def _on_held(self, kind: str, address: str, is_held: bool) -> None:
        assert self.needed.get((kind, address), False) != is_held or "tickers" in address
        self.needed[kind, address] = is_held

    def publish(self, key: str, body: Any) -> None:
        """Publish as the gateway does."""
        data = json.dumps(body).encode()
        assert self.hub.publish(key, data, 1.0) in (DELIVERED, NOBODY, STORED)
        self.board.take(key, data, 1.0)

    def hold(self, spec: Spec, who: Subscriber | None = None) -> tuple[Subscriber, bytes]:
        """Subscribe; return who did and the first push."""
        who = who or Subscriber()
        view, first = self.board.open(spec)
        self.board.deriver.join(who, view)
        return who, first

    def sent(self) -> list[Any]:
        """Return the params of all that waits for the dispatcher."""
        events = [event for batch in self.hub.take_dirty() for event in batch.waiting]
        return [params(event.frame) for event in events]


def params(frame: bytes) -> Any:
    """Return the params of a push."""
    return msgspec.json.decode(frame[frame.index(b'{"method') :])["params"]


def trade(id: int) -> Any:
    """Return an event with a deal."""
    return {"trades": [{"tid": id, "date": 1, "price": "1", "amount": "2", "taker_type": "sell"}]}


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Return what is decoded from now on."""
    found: list[bytes] = []

    def counted(read: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
        def counting(body: bytes) -> Any:
            found.append(body)
            return read(body)

        return counting

    for name in ("read", "deals_json"):
        monkeypatch.setattr(shapes, name, counted(getattr(shapes, name)))
    return found


def depth_view(market: str, limit: int, merge: str = "0") -> Spec:
    """Return what a client asks of a book."""
    return Spec(views.DEPTH, market, limit=limit, merge=merge)


def test_views_of_books_show_so_many_levels() -> None:
    """In all; one that is held already takes no room, and one that only its holder held leaves it."""
    room = Room(depth_levels=230)
    board = room.board
    first, second = depth_view("a", 100), depth_view("b", 10)
    assert board.has_room([first, second])
    one, _ = room.hold(first)
    other, _ = room.hold(second)
    assert board.depth_levels == 220
    assert board.has_room([first, second, depth_view("b", 5)])
    assert not board.has_room([depth_view("b", 5, "0.1"), depth_view("b", 5)])
    assert board.refused == 2
    assert board.has_room([depth_view("b", 100)], going=[first])
    room.hold(first, other)
    assert not board.has_room([depth_view("b", 100)], going=[first]), "somebody else holds it"
    room.hub.unsubscribe(one, list(one.streams))
    assert board.depth_levels == 220
    room.hub.unsubscribe(other, list(other.streams))
    assert board.depth_levels == 0


def test_what_nobody_holds_is_not_read(reads: list[bytes]) -> None:
    """Nor does it put anything in anybody's queue."""
    room = Room()
    for number in range(100):
        room.publish("public.btcbch.trades", trade(number))
        room.publish("public.global.tickers", {"btcbch": {"last": "1"}})
        room.publish("public.btcbch.ob-snap", BOOK)
        room.publish("private.7.order", {"market": "btcbch"})
    assert reads == []
    assert room.board.pushes == 0
    assert room.sent() == []


def test_an_event_is_read_once_for_all_who_hold_it(reads: list[bytes]) -> None:
    """However many there are."""
    room = Room()
    for _ in range(50):
        room.hold(DEALS)
    room.publish("public.btcbch.trades", trade(1))
    assert len(reads) == 1
    assert len(room.sent()) == 1
    _, first = room.hold(DEALS)
    assert params(first)[1][0]["id"] == 1
    assert len(reads) == 1


def test_who_comes_later_gets_nothing_twice() -> None:
    """What waits in the queue is in the first push already."""
    room = Room()
    room.hold(DEALS)
    room.publish("public.btcbch.trades", trade(1))
    late, first = room.hold(DEALS)
    assert [deal["id"] for deal in params(first)[1]] == [1]
    room.publish("public.btcbch.trades", trade(2))
    (batch,) = room.hub.take_dirty()
    after = batch.joined[late]
    assert [params(e.frame)[1][0]["id"] for e in batch.waiting if e.sequence > after] == [2]


def test_a_view_goes_with_its_last_holder() -> None:
    """Whoever left last; nothing is left of it in the hub."""
    room = Room()
    one, _ = room.hold(DEALS)
    other, _ = room.hold(DEALS)
    room.hold(Spec(views.PRICE, "btcbch"), one)
    room.hold(Spec(views.ORDER, "btcbch", uid="7"), one)
    room.hub.drop(one)
    assert len(room.board) == 1
    room.hub.drop(other)
    assert len(room.board) == 0
    assert room.hub.topics.total == 0
    room.publish("public.btcbch.trades", trade(1))
    room.publish("private.7.order", {"market": "btcbch"})
    assert room.sent() == []


def test_it_is_told_what_views_are_made_of() -> None:
    """Once when the first one is held, and once when the last one goes."""
    room = Room()
    specs = [
        DEALS, DEPTH, Spec(views.KLINE, "btcbch", interval=60), Spec(views.PRICE, "btcbch"),
        Spec(views.STATE, "btcbch"), Spec(views.ORDER, "btcbch", uid="7"),
        Spec(views.ORDER, "ethbch", uid="7"), Spec(views.ASSET, "BTC", uid="7"),
    ]  # fmt: skip
    one, other = Subscriber(), Subscriber()
    for spec in specs:
        room.hold(spec, one)
        room.hold(spec, other)
    needed = {
        ("public", "btcbch.trades"), ("public", "btcbch.ob-inc"), ("public", "btcbch.kline-1m"),
        ("public", "global.tickers"), ("public", "btcbch.tickers"),
        ("private", "7.order"), ("private", "7.balance"),
    }  # fmt: skip
    assert room.needed == dict.fromkeys(needed, True)
    room.hub.drop(one)
    assert room.needed == dict.fromkeys(needed, True)
    room.hub.drop(other)
    assert room.needed == dict.fromkeys(needed, False)


def test_only_what_changed_is_pushed_of_tickers() -> None:
    """The price may stand while the day goes on."""
    room = Room()
    for family in (views.PRICE, views.STATE):
        room.hold(Spec(family, "btcbch"))
    room.publish("public.global.tickers", {"btcbch": {"last": "1", "high": "2"}})
    assert len(room.sent()) == 2
    room.publish("public.global.tickers", {"btcbch": {"last": "1", "high": "2"}})
    assert room.sent() == []
    room.publish("public.global.tickers", {"btcbch": {"last": "1", "high": "3"}})
    assert [said[1]["high"] for said in room.sent()] == ["3"]


def test_a_price_that_a_newcomer_was_shown_is_not_pushed_again() -> None:
    """It is what later ones are compared with."""
    room = Room()
    room.publish("public.global.tickers", {"btcbch": {"last": "1"}})
    _, first = room.hold(Spec(views.PRICE, "btcbch"))
    assert params(first) == ["BTCBCH", "1"]
    room.publish("public.global.tickers", {"btcbch": {"last": "1"}})
    assert room.sent() == []


def test_a_user_sees_only_what_is_theirs() -> None:
    """A view of orders belongs to a user and a market."""
    room = Room()
    room.hold(Spec(views.ORDER, "btcbch", uid="7"))
    room.publish("private.8.order", {"market": "btcbch", "id": 1})
    room.publish("private.7.order", {"market": "ethbch", "id": 2})
    room.publish("private.7.order", {"market": "btcbch", "id": 3})
    assert [said[1]["id"] for said in room.sent()] == [3]


def test_balances_without_an_amount_are_asked_for() -> None:
    """If somebody holds the asset."""
    room = Room()
    room.hold(Spec(views.ASSET, "BTC", uid="7"))
    room.publish("private.7.balance", [1.5, 7, "BTC", "trade", "1"])
    room.publish("private.7.balance", [1.5, 7, "ETH", "trade", "1"])
    assert room.fetched == [("7", "BTC")]
    room.board.show_balance("7", "BTC", {"available": "1", "freeze": "0"})
    assert room.sent() == [[{"BTC": {"available": "1", "freeze": "0"}}]]
    room.board.show_balance("7", "ETH", {"available": "1", "freeze": "0"})
    room.board.show_balance("8", "BTC", {"available": "1", "freeze": "0"})
    assert room.sent() == []


# -- books --------------------------------------------------------------------------------


def test_a_book_begins_with_what_the_hub_holds() -> None:
    """Snapshot and increments before the first view; drawn once, and then shown to newcomers."""
    room = Room()
    room.publish("public.btcbch.ob-snap", BOOK)
    room.publish("public.btcbch.ob-inc", {"asks": ["8001", "2"], "sequence": 2})
    _, first = room.hold(DEPTH)
    assert first == b""
    room.board.painter.draw(time.monotonic())
    ((is_whole, sides, market),) = room.sent()
    assert (is_whole, market) == (True, "BTCBCH")
    assert sides["asks"] == [["8000", "1"], ["8001", "2"]]
    _, first = room.hold(DEPTH)
    assert params(first) == [True, sides, "BTCBCH"]


def test_changes_between_two_drawings_are_one_push() -> None:
    """However many there were."""
    room = Room()
    room.publish("public.btcbch.ob-snap", BOOK)
    room.hold(DEPTH)
    room.board.painter.draw(time.monotonic())
    room.sent()
    for number in range(2, 100):
        room.publish("public.btcbch.ob-inc", {"asks": ["8000", str(number)], "sequence": number})
    room.board.painter.draw(time.monotonic())
    assert room.sent() == [[False, {"asks": [["8000", "99"]]}, "BTCBCH"]]
    room.board.painter.draw(time.monotonic())
    assert room.sent() == []


def test_a_lost_book_is_shown_whole_again() -> None:
    """After the next snapshot; meanwhile nothing is shown."""
    room = Room()
    room.publish("public.btcbch.ob-snap", BOOK)
    room.hold(DEPTH)
    room.board.painter.draw(time.monotonic())
    room.sent()
    room.hub.drop_books(1.0, "a test")
    room.board.lost()
    room.publish("public.btcbch.ob-inc", {"asks": ["8000", "7"], "sequence": 2})
    room.board.painter.draw(time.monotonic())
    assert room.sent() == []
    room.publish("public.btcbch.ob-snap", {**BOOK, "sequence": 9})
    room.board.painter.draw(time.monotonic())
    assert [said[0] for said in room.sent()] == [True]


def test_a_gap_in_the_increments_is_healed_by_the_next_snapshot() -> None:
    """A view never shows what may be wrong."""
    room = Room()
    room.publish("public.btcbch.ob-snap", BOOK)
    room.hold(DEPTH)
    room.board.painter.draw(time.monotonic())
    room.sent()
    room.publish("public.btcbch.ob-inc", {"asks": ["8000", "7"], "sequence": 3})
    room.board.painter.draw(time.monotonic())
    assert room.sent() == []
    room.publish("public.btcbch.ob-snap", {**BOOK, "bids": [["7000", "5"]], "sequence": 3})
    room.board.painter.draw(time.monotonic())
    assert room.sent() == [[False, {"bids": [["7000", "5"]]}, "BTCBCH"]]


def test_a_book_of_the_hub_with_a_gap_is_read_once(reads: list[bytes]) -> None:
    """And not each time that it is looked at."""
    room = Room()
    room.publish("public.btcbch.ob-snap", BOOK)
    room.publish("public.btcbch.ob-inc", {"asks": ["8000", "7"], "sequence": 3})
    room.hold(DEPTH)
    room.board.painter.draw(time.monotonic())
    before = len(reads)
    room.board.painter.draw(time.monotonic() + 2)
    assert len(reads) == before
    assert room.sent() == []


def test_a_snapshot_that_says_nothing_new_is_not_read(reads: list[bytes]) -> None:
    """Publishers send one every few seconds, and it takes a millisecond."""
    room = Room()
    room.publish("public.btcbch.ob-snap", BOOK)
    room.hold(DEPTH)
    room.board.painter.draw(time.monotonic())
    before = len(reads)
    room.publish("public.btcbch.ob-snap", BOOK)
    assert len(reads) == before


def test_a_full_queue_is_healed_by_the_whole_book() -> None:
    """A push that found no room would be missing for ever."""
    room = Room(HubLimits(queue_frames=2))
    room.publish("public.btcbch.ob-snap", BOOK)
    room.hold(DEPTH)
    for number in range(2, 8):
        room.publish("public.btcbch.ob-inc", {"asks": ["8000", str(number)], "sequence": number})
        room.board.painter.draw(time.monotonic())
    assert len(room.sent()) == 2
    room.publish("public.btcbch.ob-inc", {"asks": ["8000", "9"], "sequence": 8})
    room.board.painter.draw(time.monotonic())
    ((is_whole, sides, _),) = room.sent()
    assert is_whole
    assert sides["asks"] == [["8000", "9"]]


def test_a_book_is_followed_no_longer_than_a_while(reads: list[bytes]) -> None:
    """After the last holder has left; it is begun anew when one comes."""
    room = Room()
    room.publish("public.btcbch.ob-snap", BOOK)
    who, _ = room.hold(DEPTH)
    room.board.painter.draw(time.monotonic())
    room.hub.drop(who)
    room.board.painter.draw(time.monotonic() + 30)
    before = len(reads)
    room.publish("public.btcbch.ob-inc", {"asks": ["8000", "7"], "sequence": 2})
    assert len(reads) == before + 1
    room.board.painter.draw(time.monotonic() + 90)
    room.publish("public.btcbch.ob-inc", {"asks": ["8000", "8"], "sequence": 3})
    assert len(reads) == before + 1
    room.hold(DEPTH)
    room.board.painter.draw(time.monotonic() + 91)
    assert room.sent()[-1][1]["asks"] == [["8000", "8"]]


def test_a_long_book_is_read_in_portions_while_it_changes() -> None:
    """What comes meanwhile is in it, once and in order; a new snapshot begins it anew."""
    room = Room()
    room.publish("public.btcbch.ob-snap", BOOK)
    room.hold(DEPTH)
    numbers = iter(range(2, 10_000))

    def increment() -> None:
        number = next(numbers)
        room.publish("public.btcbch.ob-inc", {"asks": ["8000", str(number)], "sequence": number})

    room.board.painter.draw(time.monotonic())
    (feed,) = room.board.books()
    feed.lost()
    feed._tried = None
    for _ in range(200):
        increment()
    pauses = []

    def pause() -> bool:
        pauses.append(1)
        if len(pauses) < 10:
            increment()
            assert not feed.is_known, "it is no book yet"
        return True

    room.board.follow("btcbch.ob-inc", feed, pause)
    assert feed.is_known
    assert len(pauses) >= 4
    assert feed.book.sequence == next(numbers) - 1
    feed.lost()
    feed._tried = None

    def begin_anew() -> bool:
        room.publish("public.btcbch.ob-snap", {**BOOK, "sequence": 77})
        return True

    room.board.follow("btcbch.ob-inc", feed, begin_anew)
    assert not feed.is_known
    room.board.follow("btcbch.ob-inc", feed, begin_anew)
    assert feed.is_known
    assert feed.book.sequence == 77


# -- bounds -------------------------------------------------------------------------------


def test_what_is_kept_is_bounded_in_topics() -> None:
    """The oldest that nobody holds are forgotten; those held stay."""
    room = Room(topics=10)
    room.hold(DEALS)
    room.publish("public.btcbch.trades", trade(1))
    for number in range(10):
        room.publish(f"public.m{number}.trades", trade(1))
    room.board._cleared_s = 0
    room.publish("public.last.trades", trade(1))
    assert room.board.evicted > 0
    assert room.board.deals("m0") is None
    assert room.board.deals("btcbch")
    assert room.board.deals("last")


def test_what_is_kept_is_bounded_in_bytes() -> None:
    """And its size is known exactly when all of it is gone."""
    room = Room(kept_bytes=10_000, deals=50)
    for number in range(200):
        room.publish(f"public.m{number % 20}.trades", trade(number))
        room.board._cleared_s = 0
    assert room.board.size <= 10_000
    sizes = [feed.size for feed in room.board._feeds.values()]
    assert room.board.size == sum(sizes)


def test_candles_and_deals_are_bounded_each() -> None:
    """The oldest go."""
    room = Room(deals=5, candles=5)
    for number in range(20):
        room.publish("public.btcbch.trades", trade(number))
        room.publish("public.btcbch.kline-1m", [60 * number, 1, 1, 1, 1, 1])
    deals, candles = room.board.deals("btcbch"), room.board.candles("btcbch", "1m")
    assert deals is not None
    assert candles is not None
    assert len(deals.last(100)) == 5
    times = [msgspec.json.decode(c)[0] for c in candles.between(0, 10**9, "M")]
    assert times == [60 * n for n in range(15, 20)]


def test_keys_without_a_meaning_are_bounded() -> None:
    """A publisher of ever new keys fills no memory."""
    room = Room()
    for number in range(60_000):
        room.board.take(f"public.m.{number}", b"1", 1.0)
        room.board.take(f"private.{number}.order", b"1", 1.0)
    assert len(room.board._takers) <= 50_100


def test_a_name_that_is_learnt_as_nothing_can_be_held_later() -> None:
    """A book's key means nothing until somebody holds a view of it."""
    room = Room()
    room.board.take("public.btcbch.ob-inc", b"{}", 1.0)
    room.board.take("public.btcbch.ob-snap", b"{}", 1.0)
    room.hold(DEPTH)
    room.publish("public.btcbch.ob-snap", BOOK)
    room.board.painter.draw(time.monotonic())
    assert room.sent()


def test_a_candle_is_read_once_for_all_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    """However often all candles are asked for; one that changes is read anew."""
    read: list[bytes] = []
    candle = shapes.candle

    def counted(body: bytes, market: str) -> Any:
        read.append(body)
        return candle(body, market)

    monkeypatch.setattr(shapes, "candle", counted)
    room = Room()
    for at in range(20):
        room.publish("public.btcbch.kline-1m", [60 * at, 1, 4, 0, 2, 9])
    held = Held(room.board, DepthForms())
    query = ["BTCBCH", 0, 1 << 40, 60]
    first = msgspec.json.encode(held.answer("kline.query", query))
    assert msgspec.json.encode(held.answer("kline.query", query)) == first
    assert len(read) == 20
    room.publish("public.btcbch.kline-1m", [60 * 19, 1, 4, 0, 3, 9])
    last = msgspec.json.decode(msgspec.json.encode(held.answer("kline.query", query)))[-1]
    assert last == [1140, "1", "3", "4", "0", "9", "0", "BTCBCH"]
    assert len(read) == 21
