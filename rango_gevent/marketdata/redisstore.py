"""Market data in Redis: a hash of candles for each market and period, written in transactions.

How much outlives Redis itself is Redis's business: with ``appendfsync everysec`` a power cut may
cost it a second, which the log brings again, as place and candles are written together.
"""

from __future__ import annotations

from contextlib import contextmanager, suppress
from decimal import Decimal
from typing import Any, Iterator

import msgspec
import redis

from rango_gevent.marketdata.candles import Candle
from rango_gevent.marketdata.desk import Changes, Place, Saved
from rango_gevent.marketdata.market import Chunk, Head, MarketChanges
from rango_gevent.marketdata.periods import end_of, start_of
from rango_gevent.marketdata.store import (
    FORMAT,
    Owner,
    StoreError,
    StoreRefused,
    TakenOver,
    check,
    check_alone,
)
from rango_gevent.marketdata.trades import Trade

_TIMEOUT_S = 5.0
_MOST_FIELDS = 20_000  # of a range asked for one by one

_decode_trades = msgspec.json.Decoder(list[Trade]).decode
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.decode


class RedisStore:
    """A database of Redis. Arguments and errors are those of `opening.open_store`."""

    def __init__(self, url: str, exchange: str, *, takes_over: bool = True) -> None:
        self._owner = Owner()
        self._prefix = f"rango:marketdata:{exchange}:"
        try:
            self._redis: Any = redis.Redis.from_url(
                url,
                socket_timeout=_TIMEOUT_S,
                socket_connect_timeout=_TIMEOUT_S,
                decode_responses=True,
            )
        except ValueError as error:
            raise StoreRefused(str(error)) from None
        with _in_our_words():
            form = str(self._redis.get(self._key("format")) or FORMAT)
            check(exchange, exchange, form)
            check_alone(self._owner, float(self._redis.get(self._key("seen")) or 0), takes_over)
            with self._redis.pipeline() as pipe:
                pipe.set(self._key("format"), FORMAT)
                pipe.set(self._key("owner"), self._owner.name)
                pipe.set(self._key("seen"), self._owner.now_s())
                pipe.execute()

    def _key(self, *parts: object) -> str:
        return self._prefix + ":".join(map(str, parts))

    def load(self) -> Saved:
        """Return where to go on from."""
        with _in_our_words():
            heads = [
                _head(_decode(text)) for text in self._redis.hgetall(self._key("markets")).values()
            ]
            found = []
            for head in heads:
                chunks = self._redis.hgetall(self._key("trades", head.name))
                found.append(
                    (
                        head,
                        [
                            Chunk(number, _decode_trades(chunks[str(number)]))
                            for number in sorted(map(int, chunks))
                        ],
                    )
                )
        place = self.note("place").split()
        return Saved(Place(int(place[0]), int(place[1])) if place else None, found)

    def read(self, market: str, period: int, start_s: int, end_s: int) -> list[Candle]:
        """Return the candles that begin from one time to before another, in their order."""
        key = self._key("candles", market, period)
        with _in_our_words():
            fields = _fields(period, start_s, end_s)
            if fields is None:
                found = self._redis.hgetall(key)
                texts = [found[at] for at in sorted(found, key=int) if start_s <= int(at) < end_s]
            else:
                texts = [text for text in self._redis.hmget(key, fields) if text] if fields else []
        return [_candle(_decode(text)) for text in texts]

    def oldest(self, market: str, period: int) -> Candle | None:
        """Return the oldest candle of a period."""
        key = self._key("candles", market, period)
        with _in_our_words():
            starts = self._redis.hkeys(key)
            text = self._redis.hget(key, min(starts, key=int)) if starts else None
        return None if text is None else _candle(_decode(text))

    def note(self, name: str) -> str:
        """Return what was saved under a name, or nothing."""
        with _in_our_words():
            return str(self._redis.hget(self._key("notes"), name) or "")

    def save(self, changes: Changes) -> None:
        """Save all of it, or nothing."""
        with _in_our_words(), self._redis.pipeline() as pipe:
            try:
                pipe.watch(self._key("owner"))
                if pipe.get(self._key("owner")) != self._owner.name:
                    raise TakenOver
                pipe.multi()
                pipe.set(self._key("seen"), self._owner.now_s())
                notes = dict(changes.notes)
                if changes.place is not None:
                    notes["place"] = f"{changes.place.offset} {changes.place.check}"
                if notes:
                    pipe.hset(self._key("notes"), mapping=notes)
                for one in changes.markets:
                    self._save(pipe, one)
                pipe.execute()
            except redis.WatchError:
                raise TakenOver from None

    def _save(self, pipe: Any, one: MarketChanges) -> None:
        name = one.head.name
        pipe.hset(self._key("markets"), name, _encode(one.head))
        by_period: dict[int, dict[str, bytes]] = {}
        for period, row in one.candles:
            by_period.setdefault(period, {})[str(row[0])] = _encode(row)
        for period, rows in by_period.items():
            pipe.hset(self._key("candles", name, period), mapping=rows)
        for period, start_s in one.removed:
            pipe.hdel(self._key("candles", name, period), str(start_s))
        if one.trades:
            pipe.hset(self._key("trades", name), str(one.head.chunk), _encode(one.trades))
        if one.gone:
            pipe.hdel(self._key("trades", name), *map(str, one.gone))

    def prune(self, market: str, oldest: dict[int, int]) -> None:
        """Remove candles of each period that begin before a time."""
        with _in_our_words():
            for period, before_s in oldest.items():
                key = self._key("candles", market, period)
                old = [at for at in self._redis.hkeys(key) if int(at) < before_s]
                if old:
                    self._redis.hdel(key, *old)

    def close(self) -> None:
        """Let go of it, and say that nobody is at work on it."""
        with suppress(redis.RedisError):
            if self._redis.get(self._key("owner")) == self._owner.name:
                self._redis.set(self._key("seen"), 0)
        self._redis.close()


@contextmanager
def _in_our_words() -> Iterator[None]:
    try:
        yield
    except redis.RedisError as error:
        raise StoreError(str(error) or type(error).__name__) from error


def _fields(period: int, start_s: int, end_s: int) -> list[str] | None:
    """Return the names of all candles of a range; None for too many."""
    at_s = start_of(period, start_s)
    if at_s < start_s:
        at_s = end_of(period, at_s)
    if (end_s - at_s) / period > _MOST_FIELDS:
        return None
    fields = []
    while at_s < end_s:
        fields.append(str(at_s))
        at_s = end_of(period, at_s)
    return fields


def _head(values: list[Any]) -> Head:
    name, newest_s, floor, floor_id, chunk = values
    return Head(name, newest_s, (floor[0], floor[1]), floor_id, chunk)


def _candle(values: list[Any]) -> Candle:
    start_s, first, open_, last, close, high, low, volume, deal, count = values
    return Candle(
        start_s,
        (first[0], first[1]),
        Decimal(open_),
        (last[0], last[1]),
        Decimal(close),
        Decimal(high),
        Decimal(low),
        Decimal(volume),
        Decimal(deal),
        count,
    )
