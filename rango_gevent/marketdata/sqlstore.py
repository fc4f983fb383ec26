"""Market data in SQLite or PostgreSQL, by SQLAlchemy's core.

Decimals are text in SQLite, which knows none, and NUMERIC in PostgreSQL. SQLite writes ahead
(WAL) and does not wait for the disk: a killed process loses nothing; a power cut may lose the last
steps, each as a whole with its place in the log, so that the log brings them again.
"""

from __future__ import annotations

from contextlib import contextmanager, suppress
from decimal import Decimal
from typing import Any, Iterator

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from rango_gevent.marketdata.candles import Candle
from rango_gevent.marketdata.desk import Changes, Place, Saved
from rango_gevent.marketdata.market import Chunk, Head, MarketChanges
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

_BUSY_S = 5
_CONNECT_S = 5

_tables = sa.MetaData()
_DECIMAL = sa.Text().with_variant(sa.Numeric(), "postgresql")
_WHOLE = sa.BigInteger()

_state = sa.Table(
    "marketdata_state",
    _tables,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
    sa.Column("at_s", sa.Double, nullable=False, default=0.0),
)
_markets = sa.Table(
    "marketdata_markets",
    _tables,
    sa.Column("market", sa.Text, primary_key=True),
    sa.Column("newest_s", sa.Double, nullable=False),
    sa.Column("floor_s", sa.Double, nullable=False),
    sa.Column("floor_trade", _WHOLE, nullable=False),
    sa.Column("floor_id", _WHOLE, nullable=False),
    sa.Column("chunk", _WHOLE, nullable=False),
)
_trades = sa.Table(
    "marketdata_trades",
    _tables,
    sa.Column("market", sa.Text, primary_key=True),
    sa.Column("chunk", _WHOLE, primary_key=True, autoincrement=False),
    sa.Column("trades", sa.Text, nullable=False),  # JSON: time, id, price, amount, side of each
)
_candles = sa.Table(
    "marketdata_candles",
    _tables,
    sa.Column("market", sa.Text, primary_key=True),
    sa.Column("period", _WHOLE, primary_key=True, autoincrement=False),
    sa.Column("start_s", _WHOLE, primary_key=True, autoincrement=False),
    sa.Column("first_s", sa.Double, nullable=False),
    sa.Column("first_id", _WHOLE, nullable=False),
    sa.Column("open", _DECIMAL, nullable=False),
    sa.Column("last_s", sa.Double, nullable=False),
    sa.Column("last_id", _WHOLE, nullable=False),
    sa.Column("close", _DECIMAL, nullable=False),
    sa.Column("high", _DECIMAL, nullable=False),
    sa.Column("low", _DECIMAL, nullable=False),
    sa.Column("volume", _DECIMAL, nullable=False),
    sa.Column("deal", _DECIMAL, nullable=False),
    sa.Column("trades", _WHOLE, nullable=False),
    sqlite_with_rowid=False,
)

_decode_trades = msgspec.json.Decoder(list[Trade]).decode
_encode = msgspec.json.Encoder().encode


class SqlStore:
    """A database. Arguments and errors are those of `opening.open_store`."""

    def __init__(self, url: str, exchange: str, *, takes_over: bool = True) -> None:
        self._owner = Owner()
        self._engine = _engine(url)
        try:
            with _in_our_words():
                _tables.create_all(self._engine)
                with self._engine.begin() as connection:
                    self._claim(connection, exchange, takes_over)
        except StoreError as error:
            if self._engine.dialect.name == "sqlite" and not isinstance(error, StoreRefused):
                raise StoreRefused(f"{error}: check its path and its rights") from error
            raise

    def _claim(self, connection: sa.Connection, exchange: str, takes_over: bool) -> None:
        rows = connection.execute(sa.select(_state).where(_state.c.name.in_(("is", "owner"))))
        found = {row.name: row for row in rows}
        if "is" in found:
            form, _, of = found["is"].value.partition(" ")
            check(of, exchange, form)
        if "owner" in found:
            check_alone(self._owner, found["owner"].at_s, takes_over)
        self._put_state(connection, "is", f"{FORMAT} {exchange}")
        self._put_state(connection, "owner", self._owner.name, self._owner.now_s())

    def _put(self, connection: sa.Connection, table: sa.Table, rows: list[dict[str, Any]]) -> None:
        """Insert rows, or put them in the place of those that are there."""
        if not rows:
            return
        dialect = sqlite if self._engine.dialect.name == "sqlite" else postgresql
        insert = dialect.insert(table)
        keys = [column.name for column in table.primary_key]
        others = {c.name: insert.excluded[c.name] for c in table.c if c.name not in keys}
        connection.execute(insert.on_conflict_do_update(index_elements=keys, set_=others), rows)

    def _put_state(
        self, connection: sa.Connection, name: str, value: str, at_s: float = 0.0
    ) -> None:
        self._put(connection, _state, [{"name": name, "value": value, "at_s": at_s}])

    def load(self) -> Saved:
        """Return where to go on from."""
        with _in_our_words(), self._engine.connect() as connection:
            chunks: dict[str, list[Chunk]] = {}
            for row in connection.execute(
                sa.select(_trades).order_by(_trades.c.market, _trades.c.chunk)
            ):
                chunk = Chunk(row.chunk, _decode_trades(row.trades))
                chunks.setdefault(row.market, []).append(chunk)
            heads = [
                Head(
                    row.market,
                    row.newest_s,
                    (row.floor_s, row.floor_trade),
                    row.floor_id,
                    row.chunk,
                )
                for row in connection.execute(sa.select(_markets))
            ]
        place = self.note("place").split()
        return Saved(
            Place(int(place[0]), int(place[1])) if place else None,
            [(head, chunks.get(head.name, [])) for head in heads],
        )

    def read(self, market: str, period: int, start_s: int, end_s: int) -> list[Candle]:
        """Return the candles that begin from one time to before another, in their order."""
        which = {"market": market, "period": period, "start_s": start_s, "end_s": end_s}
        with _in_our_words(), self._engine.connect() as connection:
            return [_candle(row) for row in connection.execute(_READ, which)]

    def oldest(self, market: str, period: int) -> Candle | None:
        """Return the oldest candle of a period."""
        which = {"market": market, "period": period, "start_s": 0, "end_s": 1 << 60}
        with _in_our_words(), self._engine.connect() as connection:
            row = connection.execute(_READ.limit(1), which).first()
        return None if row is None else _candle(row)

    def note(self, name: str) -> str:
        """Return what was saved under a name, or nothing."""
        with _in_our_words(), self._engine.connect() as connection:
            query = sa.select(_state.c.value).where(_state.c.name == name)
            return connection.execute(query).scalar() or ""

    def save(self, changes: Changes) -> None:
        """Save all of it, or nothing."""
        with _in_our_words(), self._engine.begin() as connection:
            owned = connection.execute(_STILL_OWNED, {"me": self._owner.name, "now": self._now()})
            if not owned.rowcount:
                raise TakenOver
            if changes.place is not None:
                place = f"{changes.place.offset} {changes.place.check}"
                self._put_state(connection, "place", place)
            for name, value in changes.notes.items():
                self._put_state(connection, name, value)
            self._put(connection, _markets, [_head_row(one.head) for one in changes.markets])
            self._put(connection, _candles, list(_candle_rows(changes.markets)))
            self._put(connection, _trades, list(_chunk_rows(changes.markets)))
            _remove(connection, _REMOVE_CANDLE, _removed(changes.markets))
            _remove(connection, _REMOVE_CHUNK, _gone(changes.markets))

    def _now(self) -> float:
        return self._owner.now_s()

    def prune(self, market: str, oldest: dict[int, int]) -> None:
        """Remove candles of each period that begin before a time."""
        rows = [
            {"of_market": market, "of_period": period, "before_s": before_s}
            for period, before_s in oldest.items()
        ]
        with _in_our_words(), self._engine.begin() as connection:
            _remove(connection, _PRUNE, rows)

    def close(self) -> None:
        """Let go of it, and say that nobody is at work on it."""
        with suppress(SQLAlchemyError), self._engine.begin() as connection:
            connection.execute(_STILL_OWNED, {"me": self._owner.name, "now": 0.0})
        self._engine.dispose()


def _engine(url: str) -> sa.Engine:
    for plain in ("postgresql://", "postgres://"):
        if url.startswith(plain):
            url = "postgresql+psycopg://" + url[len(plain) :]
    try:
        parsed = sa.engine.make_url(url)
        if parsed.get_backend_name() == "sqlite":
            engine = sa.create_engine(parsed, connect_args={"timeout": _BUSY_S})
            sa.event.listen(engine, "connect", _prepare)
            sa.event.listen(engine, "begin", _begin)
            return engine
        return sa.create_engine(
            parsed, pool_pre_ping=True, connect_args={"connect_timeout": _CONNECT_S}
        )
    except (ArgumentError, NoSuchModuleError) as error:
        raise StoreRefused(str(error).splitlines()[0]) from None


def _prepare(connection: Any, record: object) -> None:
    """Set up a new connection to SQLite, and begin transactions ourselves."""
    connection.isolation_level = None
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL"):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin(connection: sa.Connection) -> None:
    connection.exec_driver_sql("BEGIN")


@contextmanager
def _in_our_words() -> Iterator[None]:
    try:
        yield
    except SQLAlchemyError as error:
        cause = getattr(error, "orig", None) or error
        raise StoreError(str(cause).strip().splitlines()[0]) from error


# -- rows -----------------------------------------------------------------------------------------

_READ = (
    sa.select(_candles)
    .where(
        _candles.c.market == sa.bindparam("market"),
        _candles.c.period == sa.bindparam("period"),
        _candles.c.start_s >= sa.bindparam("start_s"),
        _candles.c.start_s < sa.bindparam("end_s"),
    )
    .order_by(_candles.c.start_s)
)
_STILL_OWNED = (
    sa.update(_state)
    .where(_state.c.name == "owner", _state.c.value == sa.bindparam("me"))
    .values(at_s=sa.bindparam("now"))
)
_REMOVE_CANDLE = sa.delete(_candles).where(
    _candles.c.market == sa.bindparam("of_market"),
    _candles.c.period == sa.bindparam("of_period"),
    _candles.c.start_s == sa.bindparam("at_s"),
)
_PRUNE = sa.delete(_candles).where(
    _candles.c.market == sa.bindparam("of_market"),
    _candles.c.period == sa.bindparam("of_period"),
    _candles.c.start_s < sa.bindparam("before_s"),
)
_REMOVE_CHUNK = sa.delete(_trades).where(
    _trades.c.market == sa.bindparam("of_market"), _trades.c.chunk == sa.bindparam("number")
)


def _remove(connection: sa.Connection, statement: sa.Delete, rows: list[dict[str, Any]]) -> None:
    if rows:
        connection.execute(statement, rows)


def _head_row(head: Head) -> dict[str, Any]:
    return {
        "market": head.name,
        "newest_s": head.newest_s,
        "floor_s": head.floor[0],
        "floor_trade": head.floor[1],
        "floor_id": head.floor_id,
        "chunk": head.chunk,
    }


def _candle_rows(changes: list[MarketChanges]) -> Iterator[dict[str, Any]]:
    for one in changes:
        name = one.head.name
        for period, row in one.candles:
            start_s, first, open_, last, close, high, low, volume, deal, count = row
            yield {
                "market": name,
                "period": period,
                "start_s": start_s,
                "first_s": first[0],
                "first_id": first[1],
                "open": format(open_, "f"),
                "last_s": last[0],
                "last_id": last[1],
                "close": format(close, "f"),
                "high": format(high, "f"),
                "low": format(low, "f"),
                "volume": format(volume, "f"),
                "deal": format(deal, "f"),
                "trades": count,
            }


def _candle(row: Any) -> Candle:
    return Candle(
        row.start_s,
        (row.first_s, row.first_id),
        Decimal(row.open),
        (row.last_s, row.last_id),
        Decimal(row.close),
        Decimal(row.high),
        Decimal(row.low),
        Decimal(row.volume),
        Decimal(row.deal),
        row.trades,
    )


def _chunk_rows(changes: list[MarketChanges]) -> Iterator[dict[str, Any]]:
    for one in changes:
        if one.trades:
            text = _encode(one.trades).decode()
            yield {"market": one.head.name, "chunk": one.head.chunk, "trades": text}


def _removed(changes: list[MarketChanges]) -> list[dict[str, Any]]:
    return [
        {"of_market": one.head.name, "of_period": period, "at_s": start_s}
        for one in changes
        for period, start_s in one.removed
    ]


def _gone(changes: list[MarketChanges]) -> list[dict[str, Any]]:
    return [
        {"of_market": one.head.name, "number": number} for one in changes for number in one.gone
    ]
