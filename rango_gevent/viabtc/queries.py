"""Queries that the gateway answers itself, from what was published.

None means that it does not hold what is asked for: then a backend is asked, where there is one.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Callable

import msgspec

from rango_gevent.viabtc import depth, methods
from rango_gevent.viabtc.board import Board
from rango_gevent.viabtc.methods import DepthForms

_DAY_S = 86400


class Held:
    """Answers from a board.

    Args:
        board: what was published.
        forms: which views of books there may be.
    """

    def __init__(self, board: Board, forms: DepthForms) -> None:
        self._board = board
        self._names = board.names
        self._forms = forms
        self._answers: dict[str, Callable[[list[Any]], object]] = {
            "kline.query": self._kline,
            "price.query": self._price,
            "state.query": self._state,
            "today.query": self._today,
            "deals.query": self._deals,
            "depth.query": self._depth,
        }

    def answer(self, method: str, params: list[Any]) -> object:
        """Return a result; None: it is not held, or not all of it.

        Raises:
            Wrong: the params are.
        """
        return self._answers[method](params)

    def partial(self, method: str, params: list[Any]) -> object:
        """Return what is held, although it is not all; None when it is nothing."""
        if method == "kline.query":
            return self._candles(methods.kline_query(params, self._names)) or None
        if method == "deals.query":
            stream, limit, after = methods.deals_query(params, self._names)
            feed = self._board.deals(stream)
            return None if feed is None else feed.last(limit, after)
        return None

    def knows(self, stream: str) -> bool:
        """Tell whether anything was published of a market."""
        board = self._board
        topic = f"{stream}.{self._names.type_of('depth')}"
        return bool(board.tickers.of(stream) or board.deals(stream) or board.has_book(topic))

    def _candles(self, query: methods.CandleQuery) -> list[msgspec.Raw]:
        period = self._names.period(query.interval)
        feed = None if period is None else self._board.candles(query.stream, period)
        if feed is None:
            return []
        return feed.between(query.start_s, query.end_s, self._names.market_of(query.stream))

    def _kline(self, params: list[Any]) -> object:
        query = methods.kline_query(params, self._names)
        period = self._names.period(query.interval)
        feed = None if period is None else self._board.candles(query.stream, period)
        return self._candles(query) if feed is not None and feed.covers(query.start_s) else None

    def _price(self, params: list[Any]) -> object:
        ticker = self._board.tickers.of(methods.one_market(params, self._names))
        return None if ticker is None else ticker.last

    def _state(self, params: list[Any]) -> object:
        stream, period = methods.state_query(params, self._names)
        ticker = self._board.tickers.of(stream) if period == _DAY_S else None
        return None if ticker is None else ticker.state()

    def _today(self, params: list[Any]) -> object:
        ticker = self._board.tickers.of(methods.one_market(params, self._names))
        return None if ticker is None else ticker.today()

    def _deals(self, params: list[Any]) -> object:
        stream, limit, after = methods.deals_query(params, self._names)
        feed = self._board.deals(stream)
        return feed.last(limit, after) if feed is not None and feed.covers(limit, after) else None

    def _depth(self, params: list[Any]) -> object:
        stream, limit, merge = methods.depth_query(params, self._names, self._forms)
        feed = self._board.book(stream)
        return None if feed is None else depth.look(feed.book, limit, Decimal(merge)).whole()
