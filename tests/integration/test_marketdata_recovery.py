"""No trade lost, none doubled: a worker that is killed three times, against a database's sums."""

from __future__ import annotations

import random
import sqlite3
import threading
import time
import uuid
from decimal import Decimal
from pathlib import Path
from typing import Any, Iterator

import amqp
import pytest
from marketdata_worker import MarketdataWorker, start_marketdata
from support import amqp_url, broker_address, wait_for

from rango_gevent.marketdata.opening import open_store
from rango_gevent.marketdata.periods import PERIODS, start_of
from rango_gevent.publisher import Publisher

MARKETS = [f"m{number}usd" for number in range(8)]
PRICE_PLACES, AMOUNT_PLACES = 2, 8


@pytest.fixture
def exchange() -> Iterator[str]:
    """Return the name of an exchange, whose log is deleted at the end."""
    name = f"test.{uuid.uuid4().hex[:12]}"
    yield name
    broker = broker_address()
    with amqp.Connection(
        host=f"{broker.host}:{broker.port}", userid=broker.user, password=broker.password,
        virtual_host=broker.vhost, connect_timeout=30,
    ) as connection:  # fmt: skip
        connection.channel().queue_delete(f"rango.log.{name}")


class Tape:
    """Publishes random trades, each confirmed, and keeps them in a database of its own.

    Among them are late ones, duplicates and garbage. Numbers are kept as whole ones, so that the
    database's sums are exact.
    """

    def __init__(self, exchange: str, seed: int) -> None:
        self.rng = random.Random(seed)
        self.db = sqlite3.connect(":memory:", check_same_thread=False)
        self.db.execute(
            "CREATE TABLE trades (market, id INTEGER, at INTEGER, price INTEGER, amount INTEGER)"
        )
        self.publisher = Publisher(amqp_url(), exchange=exchange, confirm=True, deadline_s=60)
        self.count = 0
        self.stopping = threading.Event()
        self.error: Exception | None = None
        self._recent: list[tuple[str, dict[str, Any]]] = []

    def run(self) -> None:
        """Publish until stopped."""
        try:
            while not self.stopping.is_set():
                self.some(40)
                time.sleep(0.01)
        except Exception as error:
            self.error = error

    def some(self, count: int) -> None:
        """Publish some trades."""
        rows = []
        with self.publisher.batch() as batch:
            for _ in range(count):
                market, trade, row = self._trade()
                rows.append(row)
                key = f"public.{market}.trades"
                batch.publish(key, {"trades": [trade]})
                self._recent.append((key, {"trades": [trade]}))
                if self.rng.random() < 0.05:
                    batch.publish(*self.rng.choice(self._recent[-200:]))
                if self.rng.random() < 0.02:
                    batch.publish(key, {"trades": [{"tid": 1, "price": "x"}]})
                batch.publish(f"public.{market}.ob-inc", {"asks": [], "sequence": 1})
        self.db.executemany("INSERT INTO trades VALUES (?, ?, ?, ?, ?)", rows)

    def _trade(self) -> tuple[str, dict[str, Any], tuple[Any, ...]]:
        market = self.rng.choice(MARKETS)
        self.count += 1
        at_s = int(time.time()) - (self.rng.randrange(90) if self.rng.random() < 0.1 else 0)
        price, amount = self.rng.randrange(1, 10**7), self.rng.randrange(1, 10**10)
        trade = {
            "tid": self.count,
            "taker_type": self.rng.choice(("buy", "sell")),
            "date": at_s,
            "price": str(Decimal(price).scaleb(-PRICE_PLACES)),
            "amount": str(Decimal(amount).scaleb(-AMOUNT_PLACES)),
        }
        return market, trade, (market, self.count, at_s, price, amount)

    def candles(self, market: str, period: int) -> list[tuple[Any, ...]]:
        """Compute candles by SQL: start, open, close, high, low, volume, deal."""
        self.db.create_function("start_of", 1, lambda at: start_of(period, at), deterministic=True)
        rows = self.db.execute(
            """
            WITH placed AS (
                SELECT *, start_of(at) AS start,
                    row_number() OVER (PARTITION BY start_of(at) ORDER BY at, id) AS first,
                    row_number() OVER (PARTITION BY start_of(at) ORDER BY at DESC, id DESC) AS last
                FROM trades WHERE market = ?
            )
            SELECT start, max(CASE WHEN first = 1 THEN price END),
                max(CASE WHEN last = 1 THEN price END), max(price), min(price), sum(amount),
                sum(price * (amount / 10000)), sum(price * (amount % 10000))
            FROM placed GROUP BY start ORDER BY start
            """,
            (market,),
        )
        return [
            (
                start,
                *(Decimal(price).scaleb(-PRICE_PLACES) for price in prices),
                Decimal(volume).scaleb(-AMOUNT_PLACES),
                Decimal(high * 10000 + low).scaleb(-PRICE_PLACES - AMOUNT_PLACES),
            )
            for start, *prices, volume, high, low in rows
        ]


def wait_until_all_are_counted(worker: MarketdataWorker, tape: Tape) -> None:
    """Wait until the volume of each market is at least that of all its trades."""
    month = PERIODS["1M"]
    for market in MARKETS:
        months = tape.candles(market, month)
        wanted = sum(candle[5] for candle in months)

        def counted(market: str = market, start_s: int = months[0][0]) -> Decimal:
            rows = worker.ask("kline.query", market, start_s, int(time.time()), month)
            return sum((Decimal(row[5]) for row in rows), Decimal(0))

        wait_for(lambda counted=counted, wanted=wanted: counted() >= wanted, 120, "all trades")


@pytest.mark.parametrize("store", ["sqlite", "redis", "postgresql"])
def test_three_kills_lose_and_double_no_trade(
    tmp_path: Path, exchange: str, store: str, request: pytest.FixtureRequest
) -> None:
    """Read from the log: every candle of every period is what SQL makes of all trades."""
    env = {"RANGO_LOG": "stream", "RANGO_MARKETDATA_FLUSH_S": "0.3"}
    if store != "sqlite":
        env["RANGO_MARKETDATA_STORE"] = request.getfixturevalue(f"{store}_url")
    tape = Tape(exchange, seed=7)
    with start_marketdata(tmp_path, exchange=exchange, **env) as worker:
        publishing = threading.Thread(target=tape.run)
        publishing.start()
        try:
            for _ in range(3):
                time.sleep(1.5 + tape.rng.random())
                worker.kill()
                time.sleep(tape.rng.random())
                worker.start()
        finally:
            tape.stopping.set()
            publishing.join(120)
        assert tape.error is None
        assert tape.count > 1000
        wait_until_all_are_counted(worker, tape)
        now_s = int(time.time())
        for market in MARKETS:
            for name, period in PERIODS.items():
                expected = tape.candles(market, period)
                start_s = expected[0][0]
                rows = worker.ask("kline.query", market, start_s, now_s, period)
                found = [(row[0], *map(Decimal, row[1:7])) for row in rows if Decimal(row[5])]
                assert found == expected, f"{market} {name}"
        assert "Traceback" not in worker.log()
        assert worker.stop() == 0
    saved = open_store(worker.env["RANGO_MARKETDATA_STORE"], exchange)
    for market in MARKETS:
        days = saved.read(market, PERIODS["1d"], 0, 2**40)
        expected = tape.candles(market, PERIODS["1d"])
        assert [
            (c.start_s, c.open, c.close, c.high, c.low, c.volume, c.deal) for c in days
        ] == expected
        (count,) = tape.db.execute(
            "SELECT count(*) FROM trades WHERE market=?", (market,)
        ).fetchone()
        assert sum(day.count for day in days) == count
    saved.close()
