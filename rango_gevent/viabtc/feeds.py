"""Feeds: what is kept of published events, and the views that are made of them. Pure.

A feed belongs to one topic. It keeps what queries and newcomers want, as it was published and
within bounds, and reads an event only when somebody holds a view of it: then once, for all.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Callable

import msgspec

from rango_gevent.hub.body import sequence_of
from rango_gevent.model import Event
from rango_gevent.viabtc import shapes, views, words
from rango_gevent.viabtc.depth import Book
from rango_gevent.viabtc.shapes import DealJson, Ticker
from rango_gevent.viabtc.views import DepthView, View

Publish = Callable[[View, bytes, float], None]

FIRST_DEALS = 100  # in the first push
_ENTRY_BYTES = 200  # what an entry takes beside its body
_MAX_CANDLE_BYTES = 1000
_MAX_TICKER_BYTES = 16 * 1024
_EVENTS_AT_ONCE = 50  # of a book's, before others may have their turn


class Feed:
    """What all feeds have in common.

    Args:
        publish: queues a frame of a view.

    Attributes:
        views: those that are held, by address.
        size: bytes that are kept.
    """

    def __init__(self, publish: Publish) -> None:
        self._publish = publish
        self.views: dict[str, View] = {}  # the board's
        self.size = 0

    def take(self, body: bytes, at_s: float) -> None:
        """Take an event."""
        raise NotImplementedError

    def first(self, view: View) -> bytes:
        """Return the push that a newcomer to a view gets; empty for none."""
        return b""


class _Kept:
    """An event with deals, read when somebody wants them, and then once for all."""

    __slots__ = ("_body", "_deals", "size")

    def __init__(self, body: bytes) -> None:
        self.size = len(body) + _ENTRY_BYTES
        self._body = body
        self._deals: list[DealJson] | None = None

    def deals(self) -> list[DealJson]:
        """Return ids and JSON of the deals, the newest first."""
        if self._deals is None:
            self._deals = shapes.deals_json(self._body)
            self._body = b""
        return self._deals


class Deals(Feed):
    """The last deals of a market.

    Args:
        publish: as `Feed`.
        most: events that are kept.
        max_bytes: of all of them.
    """

    def __init__(self, publish: Publish, most: int, max_bytes: int) -> None:
        super().__init__(publish)
        self._most = most
        self._max_bytes = max_bytes
        self._ring: deque[_Kept] = deque()
        self._first = b""  # until the next deal

    def take(self, body: bytes, at_s: float) -> None:
        """Keep deals, and push them, the newest first."""
        kept = _Kept(body)
        self._ring.append(kept)
        self._first = b""
        self.size += kept.size
        while len(self._ring) > self._most or (self.size > self._max_bytes and len(self._ring) > 1):
            self.size -= self._ring.popleft().size
        if self.views:
            found = kept.deals()
            for view in self.views.values() if found else ():
                self._publish(view, _deals_push(view, found), at_s)

    def last(self, limit: int, after: int = 0) -> list[msgspec.Raw]:
        """Return the newest deals whose id is higher than another, the newest first."""
        return [msgspec.Raw(deal) for _, deal in self._last(limit, after)]

    def _last(self, limit: int, after: int = -1) -> list[DealJson]:
        found: list[DealJson] = []
        for kept in reversed(self._ring):
            if len(found) >= limit:
                break
            found += [deal for deal in kept.deals() if deal[0] > after]
        return found[:limit]

    def covers(self, limit: int, after: int) -> bool:
        """Tell whether what is kept is all that a query wants."""
        found = self._last(limit)
        return len(found) >= limit or bool(found and found[-1][0] <= after)

    def first(self, view: View) -> bytes:
        """Return the last deals."""
        if not self._first:
            found = self._last(FIRST_DEALS)
            if found:
                self._first = _deals_push(view, found)
        return self._first


def _deals_push(view: View, found: list[DealJson]) -> bytes:
    # hot path: joined, and not encoded again
    deals = b",".join([deal for _, deal in found])
    return words.raw_push("deals.update", b"[%b,[%b]]" % (view.market_json, deals))


class _Candle:
    """A candle, read when somebody wants it, and then once for all."""

    __slots__ = ("_body", "_json", "size")

    def __init__(self, body: bytes) -> None:
        self.size = len(body) + _ENTRY_BYTES
        self._body = body
        self._json: bytes | None = None

    def json(self, market: str) -> bytes:
        """Return it as JSON; empty for what is none."""
        if self._json is None:
            found = shapes.candle(self._body, market)
            self._json = b"" if found is None else msgspec.json.encode(found)
            self._body = b""
        return self._json


class Candles(Feed):
    """The candles of a market in one interval.

    Args:
        publish: as `Feed`.
        most: candles that are kept.
    """

    def __init__(self, publish: Publish, most: int) -> None:
        super().__init__(publish)
        self._most = most
        self._kept: dict[int, _Candle] = {}
        self._last: _Candle | None = None

    def take(self, body: bytes, at_s: float) -> None:
        """Keep a candle, and push it."""
        start_s = shapes.begins_at(body)
        if start_s is None or len(body) > _MAX_CANDLE_BYTES:
            return
        before = self._kept.get(start_s)
        self._kept[start_s] = self._last = candle = _Candle(body)
        self.size += candle.size - (before.size if before is not None else 0)
        while len(self._kept) > self._most:
            self.size -= self._kept.pop(next(iter(self._kept))).size
        for view in self.views.values():
            frame = self.first(view)
            if frame:
                self._publish(view, frame, at_s)

    def between(self, start_s: int, end_s: int, market: str) -> list[msgspec.Raw]:
        """Return the candles that begin within a time, in their order."""
        times = sorted(at for at in self._kept if start_s <= at <= end_s)
        found = (self._kept[at].json(market) for at in times)
        return [msgspec.Raw(candle) for candle in found if candle]

    def covers(self, start_s: int) -> bool:
        """Tell whether candles are kept from a time on."""
        return bool(self._kept) and min(self._kept) <= start_s

    def first(self, view: View) -> bytes:
        """Return the last candle."""
        candle = b"" if self._last is None else self._last.json(view.market)
        if not candle:
            return b""
        if not view.spec.is_named:
            return words.raw_push("kline.update", b"[%b]" % candle)
        form = (candle, view.market_json, view.spec.interval)
        return words.raw_push("kline.update", b"[[%b],%b,%d]" % form)


_MADE_OF_TICKERS: dict[str, Callable[[Ticker], object]] = {
    views.PRICE: lambda ticker: ticker.last,
    views.STATE: Ticker.state,
    views.TODAY: Ticker.today,
}


class Tickers(Feed):
    """The tickers of all markets: those that come together, and those that come each by itself.

    Args:
        publish: as `Feed`.
        most: markets whose own tickers are kept.
    """

    def __init__(self, publish: Publish, most: int) -> None:
        super().__init__(publish)
        self._most = most
        self._all = b""
        self._read: dict[str, Any] | None = None
        self._single: dict[str, bytes] = {}
        self._of_market: dict[str, dict[str, View]] = {}

    def take(self, body: bytes, at_s: float) -> None:
        """Take the tickers of all markets; push those that changed and that somebody holds."""
        self.size += len(body) - len(self._all)
        self._all, self._read = body, None
        if self._of_market:
            said = self._everything()
            for market in self._of_market.keys() & said.keys():
                self._update(market, said[market], at_s)

    def take_one(self, market: str, body: bytes, at_s: float) -> None:
        """Take the ticker of one market."""
        if len(body) > _MAX_TICKER_BYTES:
            return
        before = self._single.pop(market, None)
        self.size += len(body) + _ENTRY_BYTES
        if before is not None:
            self.size -= len(before) + _ENTRY_BYTES
        self._single[market] = body
        if len(self._single) > self._most:
            self.size -= len(self._single.pop(next(iter(self._single)))) + _ENTRY_BYTES
        if market in self._of_market:
            self._update(market, shapes.read(body), at_s)

    def _update(self, market: str, said: object, at_s: float) -> None:
        if not isinstance(said, dict):
            return
        ticker = Ticker(said)
        for view in self._of_market[market].values():
            params = self._params(view, ticker)
            if params != view.shown:
                view.shown = params
                self._publish(view, words.raw_push(f"{view.spec.family}.update", params), at_s)

    @staticmethod
    def _params(view: View, ticker: Ticker) -> bytes:
        return msgspec.json.encode([view.market, _MADE_OF_TICKERS[view.spec.family](ticker)])

    def _everything(self) -> dict[str, Any]:
        if self._read is None:
            said = shapes.read(self._all) if self._all else None
            self._read = said if isinstance(said, dict) else {}
        return self._read

    def of(self, market: str) -> Ticker | None:
        """Return the last ticker of a market."""
        single = self._single.get(market)
        said = shapes.read(single) if single is not None else self._everything().get(market)
        return Ticker(said) if isinstance(said, dict) else None

    def hold(self, view: View) -> bool:
        """Make a view of a market from now on; True: it is the first one of it."""
        self.views[view.address] = view
        held = self._of_market.setdefault(view.spec.of, {})
        held[view.address] = view
        return len(held) == 1

    def release(self, view: View) -> bool:
        """Make it no more; True: it was the last one of its market."""
        del self.views[view.address]
        held = self._of_market[view.spec.of]
        del held[view.address]
        if not held:
            del self._of_market[view.spec.of]
        return not held

    def first(self, view: View) -> bytes:
        """Return the last value; it is what later ones are compared with."""
        if not view.shown:
            ticker = self.of(view.spec.of)
            if ticker is None:
                return b""
            view.shown = self._params(view, ticker)
        return words.raw_push(f"{view.spec.family}.update", view.shown)


class Depth(Feed):
    """A market's book and the views of it.

    Args:
        publish: as `Feed`.
        max_levels: of one side.
        mark: called when views may have to change, with the Unix time of the event.

    Attributes:
        book: followed from the first view on.
        idle_since_s: monotonic time since which nobody holds a view, None while somebody does.
    """

    def __init__(
        self, publish: Publish, max_levels: int, mark: Callable[[Depth, float], None]
    ) -> None:
        super().__init__(publish)
        self._mark = mark
        self.book = Book(max_levels)
        self._tried: Event | None = None  # the snapshot that was begun with last
        self._is_loading = False
        self.idle_since_s: float | None = None

    @property
    def is_loading(self) -> bool:
        """Tell whether somebody is about to `load` it."""
        return self._is_loading

    @property
    def is_known(self) -> bool:
        """Tell whether the book is what the publisher's is."""
        return self.book.synced and not self._is_loading

    def load(self, fetch: Callable[[], list[Event]], pause: Callable[[], bool]) -> None:
        """Begin with what the hub holds: a snapshot and its increments.

        Args:
            fetch: returns them as they are now.
            pause: called once in a while; True: others had their turn meanwhile.
        """
        events = fetch()
        if self._is_loading or not events or events[0] is self._tried:
            return  # there was a gap behind it, and will be until the next snapshot
        self._tried = snapshot = events[0]
        self._is_loading = True
        try:
            self.book.replace(shapes.read(snapshot.body), pause)
            events, at = fetch(), 1  # others may have had their turn
            if events[:1] != [snapshot]:
                self.book.drop()
                events = []
            while at < len(events):
                self.book.change(shapes.read(events[at].body))
                at += 1
                if at % _EVENTS_AT_ONCE == 0 and pause():
                    events = fetch()
                    if events[:1] != [snapshot]:
                        self.book.drop()
                        break
        finally:
            self._is_loading = False

    def take(self, body: bytes, at_s: float) -> None:
        """Take an increment."""
        if self.is_known:
            self.book.change(shapes.read(body))
            self._changed(at_s)

    def take_snapshot(self, body: bytes, at_s: float) -> None:
        """Take a snapshot; one that says what is known costs little."""
        book = self.book
        if self._is_loading:
            return  # who loads will see it
        if not book.synced or book.sequence is None or sequence_of(body) != book.sequence:
            book.replace(shapes.read(body))
            self._changed(at_s)

    def _changed(self, at_s: float) -> None:
        if self.views and self.book.synced:
            self._mark(self, at_s)

    def lost(self) -> None:
        """Know nothing until the next snapshot; its holders then get the whole book."""
        self.book.drop()
        for view in self.views.values():
            if isinstance(view, DepthView):
                view.is_whole = False

    def first(self, view: View) -> bytes:
        """Return the whole picture that the holders of a view have.

        Where there are none yet it is drawn soon, and sent to all who hold it by then: a client may
        ask for hundreds at once, and a book takes a millisecond.
        """
        assert isinstance(view, DepthView), "views of a book are such"
        if view.is_whole:
            return view.whole()
        self._mark(self, 0.0)
        return b""
