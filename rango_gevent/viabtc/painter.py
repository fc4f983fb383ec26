"""The painter: the one greenlet of the dialect, which draws the views of books.

It draws those whose books changed, in slices of a millisecond and at most so often, and shows them
whole once in a while. It takes a fifth of the time at most: with more to draw than that, views
change less often.
"""

from __future__ import annotations

import time
from typing import Callable, Protocol

import gevent
from gevent.event import Event as Signal

from rango_gevent.turns import give_way
from rango_gevent.viabtc.feeds import Depth
from rango_gevent.viabtc.views import DepthView, View

_SLICE_S = 0.001
_SHARE = 4  # drawing takes one part of the time, and leaves four
_LOOK_S = 1.0


class Books(Protocol):
    """Where the books are."""

    def books(self) -> list[Depth]:
        """Return the feeds of books that are followed."""

    def follow(self, topic: str, feed: Depth, pause: Callable[[], bool]) -> None:
        """Begin with the hub's book, unless the book is followed already."""

    def leave_idle(self, now_s: float) -> None:
        """Follow no more what nobody has held for a while."""

    def push(self, view: View, frame: bytes, at_s: float) -> None:
        """Queue a frame of a view."""


class _Slices:
    """Work in slices, and the processor time that it took: others' load is not our cost."""

    def __init__(self) -> None:
        self._before_s = 0.0
        self._begin()

    def _begin(self) -> None:
        self._began_s, self._cpu_s = time.monotonic(), time.process_time()

    def pause(self) -> bool:
        """Give way when a slice is over; tell whether others had their turn."""
        if time.monotonic() - self._began_s < _SLICE_S:
            return False
        self._before_s = self.taken_s()
        give_way()
        self._begin()
        return True

    def taken_s(self) -> float:
        """Return the seconds of all slices."""
        return self._before_s + time.process_time() - self._cpu_s


def _largest_first(view: View) -> int:
    return -view.spec.limit


class Painter:
    """Draws.

    Args:
        books: where they are.
        interval_s: seconds from one push of a view to the next, at least.
        whole_s: seconds from one whole picture to the next.
    """

    def __init__(self, books: Books, interval_s: float, whole_s: float) -> None:
        self._books = books
        self._interval_s = interval_s
        self._whole_s = whole_s
        self._dirty: dict[Depth, float] = {}
        self._work = Signal()
        self._looked_s = 0.0

    def mark(self, feed: Depth, at_s: float) -> None:
        """Note that views of a book may have to change, by an event of a Unix time."""
        if feed not in self._dirty:
            self._dirty[feed] = at_s
            if len(self._dirty) == 1:
                self._work.set()

    def run(self) -> None:
        """Draw for ever."""
        while True:
            self._work.wait(_LOOK_S)
            self._work.clear()
            worked_s = self.draw(time.monotonic())
            gevent.sleep(max(self._interval_s, _SHARE * worked_s))

    def draw(self, now_s: float) -> float:
        """Push what changed since the last time, and whole pictures where that is due.

        Returns:
            Seconds of processor time that it took, without those in which others had their turn.
        """
        dirty, self._dirty = self._dirty, {}
        feeds = list(dirty)
        if now_s - self._looked_s >= _LOOK_S:
            self._looked_s = now_s
            feeds = self._books.books()
            self._books.leave_idle(now_s)
        work = _Slices()
        for feed in feeds:
            # the largest first: what it shows the others show a part of, and is looked up once
            views = sorted(feed.views.values(), key=_largest_first)
            if views:
                self._books.follow(views[0].topic, feed, work.pause)
            for view in views:
                if isinstance(view, DepthView) and feed.is_known:
                    self._show(view, feed, dirty.get(feed), now_s)
                work.pause()
        return work.taken_s()

    def _show(self, view: DepthView, feed: Depth, at_s: float | None, now_s: float) -> None:
        """Push the changes of a view; where it is time, all of it instead."""
        if not view.subscribers:
            return  # they have left while others had their turn
        if view.whole_at_s and now_s - view.whole_at_s >= self._whole_s:
            view.look(feed.book)
            frame = view.whole()
            view.whole_at_s = now_s
        else:
            view.whole_at_s = view.whole_at_s or now_s
            frame = view.update(feed.book) if at_s is not None or not view.is_whole else b""
        if frame:
            self._books.push(view, frame, at_s or time.time())
