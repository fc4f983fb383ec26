"""Views: the derived streams that clients of the dialect hold. Pure.

A view is what one kind of push is about: the deals of a market, its depth in one form, a user's
orders in a market. It is made when the first client asks for it, shared by all who do, and gone
with the last. Its address names it in the hub, and in the subscriptions of a client.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Callable, NamedTuple

import msgspec

from rango_gevent.hub.derived import DerivedStream
from rango_gevent.viabtc import depth, words

PRICE = "price"
STATE = "state"
TODAY = "today"
DEALS = "deals"
KLINE = "kline"
DEPTH = "depth"
ORDER = "order"
ASSET = "asset"
PRIVATE = (ORDER, ASSET)


class Spec(NamedTuple):
    """What a view shows.

    Attributes:
        family: one of the words above.
        of: what the market's streams begin with; of `ASSET` the asset.
        uid: whose it is, for the families that are somebody's; else empty.
        interval: of candles, seconds.
        limit: levels a side of a book.
        merge: step of its prices, as the client gave it.
        is_named: pushes name what the protocol leaves out, for clients who hold several.
    """

    family: str
    of: str
    uid: str = ""
    interval: int = 0
    limit: int = 0
    merge: str = ""
    is_named: bool = False

    @property
    def levels(self) -> int:
        """Return how many levels of a book it may have to show, of both sides; 0 for no book."""
        return 2 * self.limit

    @property
    def address(self) -> str:
        """Return its name; the family comes first and no part of a name holds a colon."""
        parts = [self.family, self.of]
        if self.family == KLINE:
            parts.append(str(self.interval))
        elif self.family == DEPTH:
            parts += [str(self.limit), self.merge]
        if self.is_named:
            parts.append("named")
        if self.uid:
            parts.append(self.uid)  # the last one: it may hold anything
        return ":".join(parts)


class View(DerivedStream):
    """A view that somebody holds.

    Attributes:
        spec: what it shows.
        market: what its market is called.
        market_json: the same as JSON.
        shown: params of the last push of those that are only sent when they changed.
    """

    __slots__ = ("market", "market_json", "shown", "spec")

    def __init__(
        self, spec: Spec, topic: str, market: str, on_empty: Callable[[str], None]
    ) -> None:
        super().__init__(spec.address, topic, on_empty)
        self.spec = spec
        self.market = market
        self.market_json = msgspec.json.encode(market)
        self.shown = b""


class DepthView(View):
    """A view of a book.

    Attributes:
        picture: what its holders have.
        is_whole: they have been sent a book at all.
        whole_at_s: monotonic time of the last whole picture.
    """

    __slots__ = ("_form", "_frame", "_step", "is_whole", "picture", "whole_at_s")

    def __init__(
        self, spec: Spec, topic: str, market: str, on_empty: Callable[[str], None]
    ) -> None:
        super().__init__(spec, topic, market, on_empty)
        self._step = Decimal(spec.merge)
        self._form: list[object] = [spec.limit, spec.merge] if spec.is_named else []
        self._frame = b""
        self.picture = depth.EMPTY
        self.is_whole = False
        self.whole_at_s = 0.0

    def whole(self) -> bytes:
        """Return the push of the whole picture; made once until the picture changes."""
        if not self._frame:
            self._frame = self._push(True, self.picture.whole())
        return self._frame

    def look(self, book: depth.Book) -> None:
        """Take the picture of now without telling anybody."""
        self._take(depth.look(book, self.spec.limit, self._step))
        self.is_whole = True

    def update(self, book: depth.Book) -> bytes:
        """Take the picture of now; return the push of what changed, empty when nothing did."""
        if not self.is_whole:
            self.look(book)
            return self.whole()
        before = self.picture
        now = depth.look(book, self.spec.limit, self._step)
        changes = now.since(before)
        if not changes:
            return b""
        self._take(now)
        return self._push(False, changes)

    def _take(self, picture: depth.Picture) -> None:
        self.picture = picture
        self._frame = b""

    def _push(self, is_whole: bool, sides: dict[str, object]) -> bytes:
        params = depth.encode(is_whole, sides, self.market, self._form)
        return words.raw_push("depth.update", params)
