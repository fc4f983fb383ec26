"""What the methods of the dialect take: their params checked, all of them before anything changes.

Pure. Where the protocol takes one market and interval, several are taken too: an extension.
"""

from __future__ import annotations

from typing import Any, Callable, Iterable, NamedTuple, TypeVar

from rango_gevent.viabtc import views, words
from rango_gevent.viabtc.names import Names
from rango_gevent.viabtc.views import Spec
from rango_gevent.viabtc.words import Wrong

DEPTH_LIMITS = (1, 5, 10, 20, 30, 50, 100)
DEPTH_MERGES = ("0", *(f"0.{'0' * zeros}1" for zeros in range(7, -1, -1)))
MAX_LIMIT = 101
MAX_DEALS = 10_000
_MAX_SOURCE_BYTES = 32
_MAX_TEXT_BYTES = 8192
_MAX_ID = 1 << 63
_WEEK_S = 7 * 86400

T = TypeVar("T")

PUBLIC_QUERIES = (
    "kline.query", "price.query", "state.query", "today.query", "deals.query", "depth.query",
)  # fmt: skip
USER_QUERIES = ("order.query", "order.history", "asset.query", "asset.history")
SUBSCRIPTIONS = tuple(
    f"{family}.{verb}"
    for family in ("kline", "price", "state", "today", "deals", "depth", "order", "asset")
    for verb in ("subscribe", "unsubscribe")
)
ALL = (
    "server.ping", "server.time", "server.auth", "server.sign", *PUBLIC_QUERIES, *USER_QUERIES,
    *SUBSCRIPTIONS,
)  # fmt: skip
"""The 30 methods."""


class DepthForms(NamedTuple):
    """Which views of books there may be: levels a side, and steps that prices are merged to."""

    limits: tuple[int, ...] = DEPTH_LIMITS
    merges: tuple[str, ...] = DEPTH_MERGES


def _need(value: T | None) -> T:
    if value is None:
        raise Wrong(words.INVALID)
    return value


def _is_whole(value: object, low: int, high: int) -> bool:
    return type(value) is int and low <= value <= high


def _check(*right: bool) -> None:
    if not all(right):
        raise Wrong(words.INVALID)


def market(params: list[Any], names: Names) -> str:
    """Return what the streams of the first param begin with, which is a market."""
    _check(bool(params))
    return _need(names.stream_of(params[0]))


def _several(params: list[Any], size: int) -> Iterable[list[Any]]:
    _check(bool(params), len(params) % size == 0)
    return (params[start : start + size] for start in range(0, len(params), size))


# -- subscriptions ------------------------------------------------------------------------


def markets(family: str) -> Callable[[list[Any], Names, str], list[Spec]]:
    """Return what reads the params of a family that takes a list of markets."""

    def specs(params: list[Any], names: Names, uid: str) -> list[Spec]:
        return [Spec(family, _need(names.stream_of(name)), uid) for name in params]

    return specs


def assets(params: list[Any], names: Names, uid: str) -> list[Spec]:
    """Read the params of ``asset.subscribe``."""
    return [Spec(views.ASSET, _need(names.asset(name)), uid) for name in params]


def klines(params: list[Any], names: Names, uid: str) -> list[Spec]:
    """Read the params of ``kline.subscribe``: a market and an interval, or several such pairs."""
    is_named = len(params) > 2
    found = []
    for name, interval in _several(params, 2):
        _need(names.period(interval))
        stream = _need(names.stream_of(name))
        found.append(Spec(views.KLINE, stream, interval=interval, is_named=is_named))
    return found


def depths(forms: DepthForms) -> Callable[[list[Any], Names, str], list[Spec]]:
    """Return what reads market, limit and merge, or several such, of ``depth.subscribe``."""

    def specs(params: list[Any], names: Names, uid: str) -> list[Spec]:
        is_named = len(params) > 3
        found = []
        for name, limit, merge in _several(params, 3):
            _check(type(limit) is int and limit in forms.limits)
            _check(isinstance(merge, str) and merge in forms.merges)
            stream = _need(names.stream_of(name))
            found.append(Spec(views.DEPTH, stream, limit=limit, merge=merge, is_named=is_named))
        return found

    return specs


# -- queries ------------------------------------------------------------------------------


class CandleQuery(NamedTuple):
    """``kline.query``: candles that begin from one time to another, seconds."""

    stream: str
    start_s: int
    end_s: int
    interval: int


def kline_query(params: list[Any], names: Names) -> CandleQuery:
    """Read market, start, end, interval; the interval need not be that of a stream."""
    _check(len(params) == 4)
    name, start_s, end_s, interval = params
    _check(*(_is_whole(value, 0, _MAX_ID) for value in (start_s, end_s)), _is_interval(interval))
    _check(start_s <= end_s)
    return CandleQuery(_need(names.stream_of(name)), start_s, end_s, interval)


def _is_interval(seconds: object) -> bool:
    """Tell whether marketprice has candles of an interval."""
    if type(seconds) is not int or seconds <= 0:
        return False
    if seconds < 60:
        return 60 % seconds == 0
    if seconds < 3600:
        return seconds % 60 == 0 and 3600 % seconds == 0
    if seconds < 86400:
        return seconds % 3600 == 0 and 86400 % seconds == 0
    return seconds in (604800, 2592000) or (seconds < _WEEK_S and seconds % 86400 == 0)


def one_market(params: list[Any], names: Names) -> str:
    """Read a market and nothing else."""
    _check(len(params) == 1)
    return market(params, names)


def state_query(params: list[Any], names: Names) -> tuple[str, int]:
    """Read market and period in seconds, at most seven days."""
    _check(len(params) == 2 and _is_whole(params[1], 1, _WEEK_S))
    return market(params, names), params[1]


def deals_query(params: list[Any], names: Names) -> tuple[str, int, int]:
    """Read market, limit and the id after which deals are wanted."""
    _check(len(params) == 3)
    _check(_is_whole(params[1], 1, MAX_DEALS), _is_whole(params[2], 0, _MAX_ID))
    return market(params, names), params[1], params[2]


def depth_query(params: list[Any], names: Names, forms: DepthForms) -> tuple[str, int, str]:
    """Read market, limit and merge."""
    _check(len(params) == 3 and _is_whole(params[1], 1, MAX_LIMIT))
    _check(isinstance(params[2], str) and params[2] in forms.merges)
    return market(params, names), params[1], params[2]


def user_query(method: str, params: list[Any], names: Names) -> list[Any]:
    """Check the params of a query about a user's own; return them as the backend gets them."""
    if method == "asset.query":
        for name in params:
            _need(names.asset(name))
        return params
    if method == "order.query":
        _check(len(params) == 3)
        _page(params[1:])
        return [market(params, names), *params[1:]]
    if method == "order.history":
        _check(len(params) == 6)
        _times(params[1:3])
        _page(params[3:5])
        _check(_is_whole(params[5], 0, 2))
        return [market(params, names), *params[1:]]
    _check(len(params) == 6)
    _need(names.asset(params[0]))
    _check(isinstance(params[1], str) and len(params[1].encode()) < _MAX_SOURCE_BYTES)
    _times(params[2:4])
    _page(params[4:])
    return params


def _times(params: list[Any]) -> None:
    """Check start and end; 0: without."""
    _check(*(_is_whole(value, 0, _MAX_ID) for value in params))


def _page(params: list[Any]) -> None:
    """Check offset and limit."""
    _check(_is_whole(params[0], 0, _MAX_ID), _is_whole(params[1], 1, MAX_LIMIT))


# -- who it is ----------------------------------------------------------------------------


def auth(params: list[Any]) -> str:
    """Read token and source; return the token."""
    _check(len(params) == 2 and isinstance(params[0], str) and isinstance(params[1], str))
    _check(0 < len(params[0].encode()) <= _MAX_TEXT_BYTES)
    _check(len(params[1].encode()) < _MAX_SOURCE_BYTES)
    return str(params[0])


class Signed(NamedTuple):
    """``server.sign``: a key's name, what is signed with it, and when, by the client's clock."""

    access_id: str
    signature: str
    tonce: int


def sign(params: list[Any]) -> Signed:
    """Read access id, authorisation and tonce."""
    _check(len(params) == 3)
    access_id, signature, tonce = params
    for text in (access_id, signature):
        _check(isinstance(text, str) and 0 < len(text) <= _MAX_TEXT_BYTES and text.isprintable())
        _check(text.isascii(), text == text.strip())
    _check(" " not in access_id)
    _check(type(tonce) is int and tonce != 0 and abs(tonce) < _MAX_ID)
    return Signed(access_id, signature, tonce)
