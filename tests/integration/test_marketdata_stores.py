"""What every store of market data does alike: SQLite, Redis and PostgreSQL, real ones."""

from __future__ import annotations

import sqlite3
import sys
from decimal import Decimal
from pathlib import Path
from typing import Callable, Iterator

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit"))
from market_trades import LIMITS, NOW_S, body, oracle, trade

from rango_gevent.errors import ConfigError
from rango_gevent.marketdata.desk import Changes, Desk, Limits, Place
from rango_gevent.marketdata.opening import open_store
from rango_gevent.marketdata.periods import HOUR, MINUTE, PERIODS
from rango_gevent.marketdata.store import Store, StoreError, TakenOver

KEY = "public.btcusd.trades"
EXCHANGE = "events"


@pytest.fixture(params=["sqlite", "redis", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URL of an empty store of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/marketdata.db"
    found: str = request.getfixturevalue(f"{request.param}_url")
    return found


@pytest.fixture
def opened() -> Iterator[Callable[..., Store]]:
    """Open stores, and close them at the end."""
    stores = []

    def opening(url: str, exchange: str = EXCHANGE, **more: bool) -> Store:
        stores.append(open_store(url, exchange, **more))
        return stores[-1]

    yield opening
    for store in stores:
        store.close()


def desk(store: Store, limits: Limits = LIMITS) -> Desk:
    """Return a desk that goes on from a store."""
    made = Desk(store.read, limits)
    made.restore(store.load())
    return made


def save(made: Desk, store: Store, **notes: str) -> None:
    """Save what changed."""
    changes = made.collect()._replace(notes=notes)
    store.save(changes)
    made.saved(changes)


def test_what_was_saved_is_there_again(url: str, opened: Callable[..., Store]) -> None:
    """Candles to the last digit, known trades, and the place in the log."""
    trades = [
        trade(1, NOW_S, "0.00000000000000000001", "100000000000000000000"),
        trade(2, NOW_S + 0.25, "12345678901234567890.12345678", "0.1234567890123456789"),
        trade(3, NOW_S + 5000, "1e5", "3.10"),
        trade(2**62, NOW_S + 90_000, "7", "7"),
    ]
    store = opened(url)
    made = desk(store)
    for number, one in enumerate(trades):
        made.take(KEY, body(one), NOW_S + 1e6, Place(2**40 + number, 2**32 - 1))
        save(made, store)
    store.close()
    again = desk(opened(url))
    assert again.place == Place(2**40 + 3, 2**32 - 1)
    market = again.markets["btcusd"]
    assert market.trades() == trades
    for period in PERIODS.values():
        found = market.candles(period, 0, 2**40)
        rows = [(c.start_s, c.open, c.high, c.low, c.close, c.volume, c.deal) for c in found]
        assert rows == oracle(trades, period)
    again.take(KEY, body(*trades), NOW_S + 1e6)
    assert again.counts == {"duplicate": 4}


def test_corrections_reach_the_store(url: str, opened: Callable[..., Store]) -> None:
    """A candle that is empty now is gone there too."""
    store = opened(url)
    made = desk(store)
    made.take(KEY, body(trade(1, NOW_S), trade(2, NOW_S + 3600)), NOW_S + 1e6)
    save(made, store)
    made.take(KEY, body(trade(2, NOW_S + 3600, amount="0")), NOW_S + 1e6)
    save(made, store)
    again = desk(opened(url))
    assert [one.id for one in again.markets["btcusd"].trades()] == [1]
    assert len(store.read("btcusd", HOUR, 0, 2**40)) == 1


def test_trades_that_are_forgotten_leave_the_store(url: str, opened: Callable[..., Store]) -> None:
    """It holds about as many as memory does, and what is forgotten stays forgotten."""
    store = opened(url)
    limits = Limits(trades=8, late_s=1e9)
    made = desk(store, limits)
    for number in range(60):
        made.take(KEY, body(trade(number, NOW_S + number)), NOW_S + 1e6)
        save(made, store)
    ((head, chunks),) = store.load().markets
    assert 8 <= sum(len(chunk.trades) for chunk in chunks) <= 10
    again = desk(opened(url), limits)
    again.take(KEY, body(*(trade(number, NOW_S + number) for number in range(60))), NOW_S + 1e6)
    assert again.counts["duplicate"] + again.drops["late"] == 60


def test_notes_are_saved_with_the_rest(url: str, opened: Callable[..., Store]) -> None:
    """And replaced by later ones."""
    store = opened(url)
    made = desk(store)
    assert store.note("import") == ""
    save(made, store, **{"import": "1"})
    save(made, store, **{"import": "2"})
    assert opened(url).note("import") == "2"


def test_old_candles_are_pruned_by_period(url: str, opened: Callable[..., Store]) -> None:
    """Only those of that market and period that begin before a time."""
    store = opened(url)
    made = desk(store)
    for market in ("btcusd", "ethusd"):
        for number in range(4):
            one = trade(number, NOW_S + 60 * number)
            made.take(f"public.{market}.trades", body(one), NOW_S + 1e6)
    save(made, store)
    starts = [one.start_s for one in store.read("btcusd", MINUTE, 0, 2**40)]
    store.prune("btcusd", {MINUTE: starts[2]})
    assert [one.start_s for one in store.read("btcusd", MINUTE, 0, 2**40)] == starts[2:]
    assert len(store.read("ethusd", MINUTE, 0, 2**40)) == 4
    assert len(store.read("btcusd", 1, 0, 2**40)) == 4


def test_who_opened_last_owns_it(url: str, opened: Callable[..., Store]) -> None:
    """The one before saves nothing any more, and finds out."""
    first, second = opened(url), opened(url)
    made = desk(first)
    made.take(KEY, body(trade(1, NOW_S)), NOW_S)
    with pytest.raises(TakenOver):
        save(made, first)
    assert second.load().markets == []
    save(made, second)
    with pytest.raises(ConfigError, match="at work on it: stop that first"):
        opened(url, takes_over=False)


def test_a_range_of_any_length_is_read(url: str, opened: Callable[..., Store]) -> None:
    """Short or long, in order, its end not included."""
    store = opened(url)
    made = desk(store)
    made.take(KEY, body(*(trade(n, NOW_S + 60 * n) for n in range(5))), NOW_S + 1e6)
    save(made, store)
    starts = [one.start_s for one in store.read("btcusd", MINUTE, 0, 2**40)]
    assert len(starts) == 5
    found = store.read("btcusd", MINUTE, starts[1] - 30, starts[3])
    assert [one.start_s for one in found] == starts[1:3]
    assert store.read("btcusd", MINUTE, starts[1] + 1, starts[2]) == []
    assert store.read("nothing", MINUTE, starts[0], starts[4]) == []


@pytest.mark.parametrize(
    ("bad", "cure"),
    [
        ("mysql://localhost/x", "give sqlite:///path"),
        ("/tmp/x.db", "give sqlite:///path"),
        ("sqlite:////no/such/directory/x.db", "unable to open database file"),
        ("redis://127.0.0.1:x/0", "RANGO_MARKETDATA_STORE"),
        ("postgresql+nothing://user:hidden@127.0.0.1:1/x", "nothing"),
    ],
)
def test_a_store_that_cannot_be_opened_says_why(bad: str, cure: str) -> None:
    """In one line, that shows no password."""
    with pytest.raises(ConfigError, match=cure) as caught:
        open_store(bad, EXCHANGE)
    assert "hidden" not in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("scheme", ["redis", "postgresql"])
def test_a_server_that_is_away_may_come_back(scheme: str) -> None:
    """That is no wrong setting."""
    with pytest.raises(StoreError, match="refused"):
        open_store(f"{scheme}://user:hidden@127.0.0.1:1/0", EXCHANGE)


def test_a_store_is_of_one_exchange(tmp_path: Path, opened: Callable[..., Store]) -> None:
    """Trades of two would be mixed up."""
    url = f"sqlite:///{tmp_path}/x.db"
    opened(url, "one")
    with pytest.raises(ConfigError, match="it is of exchange 'one', not 'two'"):
        opened(url, "two")


def test_a_later_format_is_not_touched(tmp_path: Path, opened: Callable[..., Store]) -> None:
    """Nor is it guessed at."""
    url = f"sqlite:///{tmp_path}/x.db"
    opened(url).close()
    with sqlite3.connect(tmp_path / "x.db") as connection:
        connection.execute("UPDATE marketdata_state SET value='9 events' WHERE name='is'")
    with pytest.raises(ConfigError, match="its format is 9, and this version reads 1"):
        opened(url)


def test_a_step_that_fails_changes_nothing(tmp_path: Path, opened: Callable[..., Store]) -> None:
    """Neither candles nor place; the next one saves all of it."""
    store = opened(f"sqlite:///{tmp_path}/x.db")
    made = desk(store)
    made.take(KEY, body(trade(1, NOW_S)), NOW_S, Place(5, 5))
    changes = made.collect()
    broken = Changes(changes.place, [changes.markets[0]._replace(gone=["x" * 3, object()])])  # type: ignore[list-item]
    with pytest.raises(StoreError):
        store.save(broken)
    made.not_saved(changes)
    assert store.load() == (None, [])
    made.take(KEY, body(trade(2, NOW_S, "3")), NOW_S, Place(6, 6))
    save(made, store)
    again = desk(opened(f"sqlite:///{tmp_path}/x.db"))
    assert again.place == Place(6, 6)
    (candle,) = again.markets["btcusd"].candles(1, 0, 2**40)
    assert (candle.volume, candle.close) == (Decimal(2), Decimal(3))
