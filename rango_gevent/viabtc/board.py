"""The board: all feeds by routing key, all views by address.

Events come in through `Board.take`, after the hub took them; views are opened by sessions. Nothing
of that yields. Views of books are drawn by the `Painter`.
"""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import Callable, Collection, NamedTuple

from rango_gevent.hub.derived import Deriver
from rango_gevent.hub.hub import DELIVERED, Hub
from rango_gevent.model import Event
from rango_gevent.protocol import routing
from rango_gevent.throttle import ThrottledLog
from rango_gevent.viabtc import views
from rango_gevent.viabtc.feeds import Candles, Deals, Depth, Feed, Tickers
from rango_gevent.viabtc.names import Names
from rango_gevent.viabtc.painter import Painter
from rango_gevent.viabtc.userfeeds import Balances, Orders
from rango_gevent.viabtc.views import DepthView, Spec, View

log = logging.getLogger(__name__)

Take = Callable[[bytes, float], None]

_PRIVATE = f"{routing.PRIVATE}."
_MAX_KEYS = 50_000  # routing keys that are known to mean nothing here
_MARKETS_AT_LEAST = 16  # one market's deals take no more of what is kept than a part of this
_CLEAR_S = 1.0  # from one search for room to the next
_SAY_AGAIN_S = 10.0
_LINGER_S = 60.0  # a book that nobody holds is followed for so long


class BoardLimits(NamedTuple):
    """Bounds of a board.

    Attributes:
        topics: topics of which something is kept.
        kept_bytes: of all that is kept.
        deals: events with deals, of one market.
        candles: of one market and interval.
        levels: of one side of a book.
        depth_levels: that all views of books together may show, of both sides.
        depth_interval_s: seconds from one push of a view of a book to the next, at least.
        depth_whole_s: seconds from one whole picture of a book to the next.
    """

    topics: int = 10_000
    kept_bytes: int = 64 << 20
    deals: int = 200
    candles: int = 500
    levels: int = 20_000
    depth_levels: int = 50_000
    depth_interval_s: float = 0.1
    depth_whole_s: float = 60.0


class Board:
    """What was published, and the views of it.

    Args:
        hub: whose events they are.
        names: what things are called.
        limits: bounds.
        fetch: asks what a user has of an asset, and calls `show_balance`; must not wait.
        on_held: told kind and address of a stream that views are made of now, or no more.

    Attributes:
        names: the same.
        tickers: of all markets.
        pushes: frames that were put into views.
        painter: draws the views of books.
        pause: lets others have their turn in the middle of a query; tells whether they had.
        evicted: topics that were forgotten for the bounds.
        depth_levels: that all views of books together may have to show.
        refused: views of books that found no room.
        size: bytes kept.
    """

    def __init__(
        self,
        hub: Hub,
        names: Names,
        limits: BoardLimits | None = None,
        fetch: Callable[[str, str], None] = lambda uid, asset: None,
        on_held: Callable[[str, str, bool], None] = lambda kind, address, is_held: None,
    ) -> None:
        self.names = names
        self.limits = limits or BoardLimits()
        self.deriver = Deriver(hub)
        self._hub = hub
        self._fetch = fetch
        self._on_held = on_held
        self._takers: dict[str, Take | None] = {}
        self._feeds: dict[str, Feed] = {}
        self._views: dict[str, View] = {}
        self._held: dict[str, dict[str, View]] = {}  # by what they are made of
        self._said = ThrottledLog(log, _SAY_AGAIN_S)
        self._cleared_s = 0.0
        self.pause: Callable[[], bool] = lambda: False
        self.pushes = self.evicted = self.size = 0
        self.depth_levels = self.refused = 0
        self.painter = Painter(self, self.limits.depth_interval_s, self.limits.depth_whole_s)
        self.tickers = Tickers(self.push, self.limits.topics)
        self._ticker_key = f"global.{names.type_of('ticker')}"
        self._learn_topic(self._ticker_key, self.tickers)

    # -- events -------------------------------------------------------------------------

    def take(self, key: str, body: bytes, at_s: float) -> None:
        """Take an event that the hub has taken."""
        # hot path: for most keys one look-up
        try:
            taker = self._takers[key]
        except KeyError:
            if key.startswith(_PRIVATE):
                return  # users' own are known as long as somebody holds them
            taker = self._learn(key)
        if taker is not None:
            try:
                taker(body, at_s)
            except Exception:  # an odd event must not stop all others
                text = "an event could not be read: routing key %r"
                self._said.error("", text, key[:255], exc_info=True)

    def _learn(self, key: str) -> Take | None:
        """Find out what a key means, and remember it within bounds."""
        route = routing.parse_key(key)
        if route is None or route.kind != routing.PUBLIC:
            return None
        names, topic = self.names, route.address
        stream, _, type_ = topic.partition(".")
        if type_ == names.type_of("ticker"):
            return self._remember(key, partial(self._keep_ticker, stream))
        is_kept = type_ == names.type_of("deals") or type_.startswith(names.type_of("kline"))
        is_book = type_ == names.type_of("depth") and topic in self._held
        if not is_kept and not is_book:
            return self._remember(key, None)
        self._feed(topic)
        return self._takers.get(key)

    def _remember(self, key: str, taker: Take | None) -> Take | None:
        if len(self._takers) > _MAX_KEYS + 2 * len(self._feeds):
            self._takers = {k: taker for k, taker in self._takers.items() if taker is not None}
        self._takers[key] = taker
        return taker

    def _feed(self, topic: str) -> Feed:
        """Return the feed of a public topic; it is made when there is none."""
        feed = self._feeds.get(topic)
        if feed is None:
            feed = self._make(topic)
            self._make_room()
            self._feeds[topic] = feed
            feed.views = self._held.setdefault(topic, feed.views)
            self._learn_topic(topic, feed)
        return feed

    def _make(self, topic: str) -> Feed:
        type_ = topic.partition(".")[2]
        if type_ == self.names.type_of("deals"):
            limits = self.limits
            return Deals(self.push, limits.deals, limits.kept_bytes // _MARKETS_AT_LEAST)
        if type_ == self.names.type_of("depth"):
            return Depth(self.push, self.limits.levels, self.painter.mark)
        return Candles(self.push, self.limits.candles)

    def _learn_topic(self, topic: str, feed: Feed) -> None:
        for key in _keys_of(topic):
            if isinstance(feed, Depth):
                self._takers[key] = feed.take
                self._takers[_snapshot_key(key)] = feed.take_snapshot
            else:
                self._takers[key] = partial(self._keep, feed)

    def _keep(self, feed: Feed, body: bytes, at_s: float) -> None:
        before = feed.size
        feed.take(body, at_s)
        self._grew(feed.size - before)

    def _keep_ticker(self, stream: str, body: bytes, at_s: float) -> None:
        before = self.tickers.size
        self.tickers.take_one(stream, body, at_s)
        self._grew(self.tickers.size - before)

    def _grew(self, size: int) -> None:
        self.size += size
        if self.size > self.limits.kept_bytes:
            self._make_room()

    def _make_room(self) -> None:
        """Forget topics that nobody holds, the oldest first, until all is within the bounds."""
        limits, now_s = self.limits, time.monotonic()
        if len(self._feeds) < limits.topics and self.size <= limits.kept_bytes:
            return
        if now_s - self._cleared_s < _CLEAR_S:
            return  # what is held stays, and need not be looked at for each event
        self._cleared_s = now_s
        for topic, feed in list(self._feeds.items()):
            if len(self._feeds) < limits.topics and self.size <= limits.kept_bytes * 0.9:
                break
            if not feed.views:
                self._forget(topic)
                self.evicted += 1

    def _forget(self, topic: str) -> None:
        feed = self._feeds.pop(topic, None)
        if feed is None:
            return
        self.size -= feed.size
        if not feed.views:
            self._held.pop(topic, None)
        for key in _keys_of(topic):
            self._takers.pop(key, None)
            self._takers.pop(_snapshot_key(key), None)

    def lost(self) -> None:
        """Know no book any more: events were missed."""
        for feed in self._feeds.values():
            if isinstance(feed, Depth):
                feed.lost()

    def push(self, view: View, frame: bytes, at_s: float) -> None:
        """Queue a frame of a view."""
        self.pushes += 1
        if self.deriver.publish(view, frame, at_s) != DELIVERED and isinstance(view, DepthView):
            view.is_whole = False  # its holders missed something, and get all of it next

    # -- views --------------------------------------------------------------------------

    def __len__(self) -> int:
        """Return how many views are held."""
        return len(self._views)

    def open(self, spec: Spec) -> tuple[View, bytes]:
        """Return a view, and the push that a newcomer gets first; empty for none.

        The caller subscribes somebody to it at once.
        """
        view = self._views.get(spec.address) or self._open(spec)
        feed = self._feed_of(view)
        return view, b"" if feed is None else feed.first(view)

    def has_room(self, specs: Collection[Spec], going: Collection[Spec] = ()) -> bool:
        """Tell whether views of books may show so many levels more.

        Args:
            specs: views of books that somebody wants to hold.
            going: those that the same gives up for them.
        """
        new = [spec for spec in specs if spec.address not in self._views]
        free = self.limits.depth_levels - self.depth_levels
        for spec in going:
            if len(self._views[spec.address].subscribers) == 1:
                free += spec.levels
        if sum(spec.levels for spec in new) <= free:
            return True
        self.refused += len(new)
        return False

    def _open(self, spec: Spec) -> View:
        kind = DepthView if spec.family == views.DEPTH else View
        market = spec.of if spec.family == views.ASSET else self.names.market_of(spec.of)
        topic = self._topic(spec)
        self.depth_levels += spec.levels
        view = self._views[spec.address] = kind(spec, topic, market, self._close)
        if topic == self._ticker_key:
            if self.tickers.hold(view):
                self._tell_tickers(spec.of, True)
            return view
        held = self._held.setdefault(topic, {})
        if not held:
            self._on_held(*_source_of(view), True)
        held[spec.address] = view
        return view

    def _tell_tickers(self, stream: str, is_held: bool) -> None:
        """Tell that a market's ticker is needed, which may come with all others or by itself."""
        for topic in (self._ticker_key, f"{stream}.{self.names.type_of('ticker')}"):
            self._on_held(routing.PUBLIC, topic, is_held)

    def _close(self, address: str) -> None:
        view = self._views.pop(address)
        topic = view.topic
        self.depth_levels -= view.spec.levels
        if topic == self._ticker_key:
            if self.tickers.release(view):
                self._tell_tickers(view.spec.of, False)
            return
        held = self._held[topic]
        del held[address]
        if held:
            return
        self._on_held(*_source_of(view), False)
        feed = self._feeds.get(topic)
        if isinstance(feed, Depth):
            feed.idle_since_s = time.monotonic()
        elif feed is None:
            del self._held[topic]
        elif view.spec.uid:
            del self._feeds[topic], self._held[topic], self._takers[topic]

    def _topic(self, spec: Spec) -> str:
        """Return what a view is made of: a public topic, or the routing key of a user's events."""
        names = self.names
        if spec.uid:
            return f"private.{spec.uid}.{names.type_of(spec.family)}"
        if spec.family == views.KLINE:
            return f"{spec.of}.{names.type_of('kline', names.rules.periods[spec.interval])}"
        if spec.family in (views.DEALS, views.DEPTH):
            return f"{spec.of}.{names.type_of(spec.family)}"
        return self._ticker_key

    def _feed_of(self, view: View) -> Feed | None:
        """Return what a view is made by; None as long as nothing was published."""
        spec, topic = view.spec, view.topic
        if topic == self._ticker_key:
            return self.tickers
        if spec.uid:
            return self._feeds.get(topic) or self._user_feed(spec, topic)
        if spec.family == views.DEPTH:
            return self._found(topic)
        return self._feeds.get(topic)

    def _user_feed(self, spec: Spec, key: str) -> Feed:
        feed: Feed
        if spec.family == views.ORDER:
            feed = Orders(self.push, self.names, spec.uid)
        else:
            feed = Balances(self.push, self.names, spec.uid, self._fetch)
        feed.views = self._held[key]
        self._feeds[key] = feed
        self._takers[key] = partial(self._keep, feed)
        return feed

    def _found(self, topic: str) -> Depth | None:
        """Return the feed of a book, None while nobody publishes it."""
        feed = self._feeds.get(topic)
        if feed is None:
            if topic not in self._hub.books:
                for key in _keys_of(topic):  # look anew when they come
                    self._takers.pop(key, None)
                    self._takers.pop(_snapshot_key(key), None)
                return None
            feed = self._feed(topic)
        assert isinstance(feed, Depth), "no other is made of such a topic"
        feed.idle_since_s = None if feed.views else time.monotonic()
        return feed

    def follow(self, topic: str, feed: Depth, pause: Callable[[], bool]) -> None:
        """Begin with the hub's book, unless the book is followed already."""
        if not feed.is_known:
            feed.load(partial(self._events_of, topic), pause)

    def _events_of(self, topic: str) -> list[Event]:
        """Return a book's snapshot and increments, empty while it is not live."""
        book = self._hub.books.get(topic)
        if book is None or not book.live:
            return []
        return [event for part in self._hub.shelf.replay(topic) for event in part.events]

    def show_balance(self, uid: str, asset: str, balance: object) -> None:
        """Push what a user has of an asset, after `fetch` asked for it."""
        feed = self._feeds.get(f"private.{uid}.{self.names.type_of('asset')}")
        if isinstance(feed, Balances):
            feed.show(asset, balance, time.time())

    # -- queries ------------------------------------------------------------------------

    def deals(self, stream: str) -> Deals | None:
        """Return the last deals of a market."""
        feed = self._feeds.get(f"{stream}.{self.names.type_of('deals')}")
        return feed if isinstance(feed, Deals) and feed.size else None

    def candles(self, stream: str, period: str) -> Candles | None:
        """Return the candles of a market."""
        feed = self._feeds.get(f"{stream}.{self.names.type_of('kline', period)}")
        return feed if isinstance(feed, Candles) and feed.size else None

    def book(self, stream: str) -> Depth | None:
        """Return the book of a market, None while it is not known."""
        topic = f"{stream}.{self.names.type_of('depth')}"
        feed = self._found(topic)
        if feed is None:
            return None
        while feed.is_loading:
            self.pause()
        self.follow(topic, feed, self.pause)
        return feed if feed.is_known else None

    def books(self) -> list[Depth]:
        """Return the feeds of books that are followed."""
        return [feed for feed in self._feeds.values() if isinstance(feed, Depth)]

    def leave_idle(self, now_s: float) -> None:
        """Follow no more what nobody has held for a while."""
        for topic, feed in list(self._feeds.items()):
            since_s = feed.idle_since_s if isinstance(feed, Depth) else None
            if since_s is not None and not feed.views and now_s - since_s > _LINGER_S:
                self._forget(topic)

    def has_book(self, topic: str) -> bool:
        """Tell whether there is a book of a topic."""
        return topic in self._hub.books


def _source_of(view: View) -> tuple[str, str]:
    """Return kind and address of the stream that a view is made of."""
    if view.spec.uid:
        return routing.PRIVATE, view.topic.partition(".")[2]
    return routing.PUBLIC, view.topic


def _keys_of(topic: str) -> tuple[str, ...]:
    """Return the routing keys that a public topic is published with."""
    first, _, rest = topic.partition(".")
    keys = (f"public.{topic}", f"global.{topic}")
    return (*keys, f"{first}.{rest}") if first in ("public", "global") else keys


def _snapshot_key(key: str) -> str:
    """Return the routing key of a book's snapshots by that of its increments."""
    return f"{key[: -len('-inc')]}-snap" if key.endswith("-inc") else key
