"""``rango marketdata import``: files of trades and candles, once each, whatever interrupts."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit"))
from market_trades import LIMITS, body, oracle
from support import server_env, wait_for

from rango_gevent.marketdata.desk import Desk
from rango_gevent.marketdata.opening import open_store
from rango_gevent.marketdata.periods import HOUR, PERIODS
from rango_gevent.marketdata.trades import Trade

EXCHANGE = "test.import"
HEADER = "market,id,time,price,amount,side\n"
BEGIN_S = 1_600_000_000


def trades_of(count: int, seed: int = 1, begin_s: int = BEGIN_S) -> list[Trade]:
    """Return random trades, a few out of order."""
    rng = random.Random(seed)
    return [
        Trade(
            float(begin_s + number * 7 - rng.randrange(20)),
            number + 1,
            Decimal(rng.randrange(1, 10**6)).scaleb(-2),
            Decimal(rng.randrange(1, 10**6)).scaleb(-8),
            "sell",
        )
        for number in range(count)
    ]


def write(path: Path, trades: list[Trade], market: str = "btcusd", header: str = HEADER) -> Path:
    """Write a file of trades."""
    lines = (f"{market},{t.id},{t.at_s:.0f},{t.price},{t.amount},{t.side}\n" for t in trades)
    path.write_text(header + "".join(lines))
    return path


def command(url: str, *words: str) -> list[str]:
    """Return the command line of an import."""
    return [sys.executable, "-m", "rango_gevent", "marketdata", "import", "--store", url, *words]


def bring_in(url: str, *words: str, code: int = 0) -> str:
    """Bring a file in and return what was said."""
    done = subprocess.run(
        command(url, *words), env=server_env(EXCHANGE), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def rows(url: str, period: int, market: str = "btcusd") -> list[tuple[Any, ...]]:
    """Return the saved candles in the shape of the oracle."""
    store = open_store(url, EXCHANGE)
    found = store.read(market, period, 0, 2**40)
    store.close()
    return [(c.start_s, c.open, c.high, c.low, c.close, c.volume, c.deal) for c in found]


@pytest.fixture(params=["sqlite", "redis", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URL of an empty store of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/marketdata.db"
    found: str = request.getfixturevalue(f"{request.param}_url")
    return found


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """Return the URL of an empty file."""
    return f"sqlite:///{tmp_path}/marketdata.db"


def test_a_file_of_trades_becomes_candles_of_all_periods(url: str, tmp_path: Path) -> None:
    """Brought in twice it adds nothing."""
    trades = trades_of(3000)
    path = write(tmp_path / "trades.csv", trades)
    assert "3000 lines taken" in bring_in(url, str(path))
    for period in PERIODS.values():
        assert rows(url, period) == oracle(trades, period)
    assert "was brought in before: 3000 lines taken" in bring_in(url, str(path))
    assert rows(url, HOUR) == oracle(trades, HOUR)


def test_files_that_overlap_add_nothing_twice(sqlite_url: str, tmp_path: Path) -> None:
    """Of a market that has trades only older ones are taken."""
    trades = trades_of(2000)
    bring_in(sqlite_url, str(write(tmp_path / "new.csv", trades[1000:])))
    said = bring_in(sqlite_url, str(write(tmp_path / "all.csv", trades)))
    taken = sorted(trades[1000:])[0]
    older = [one for one in trades[:1000] if one.key < taken.key]
    assert f"{len(older)} lines taken, {2000 - len(older)} left out" in said
    assert len(older) > 990
    assert rows(sqlite_url, HOUR) == oracle([*older, *trades[1000:]], HOUR)


def test_an_interrupted_import_goes_on(sqlite_url: str, tmp_path: Path) -> None:
    """After Ctrl-C, and after a kill; the candles are those of one that was not."""
    trades = trades_of(150_000)
    path = write(tmp_path / "trades.csv", trades)
    for number, code in ((signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)):
        process = subprocess.Popen(
            command(sqlite_url, str(path)),
            env=server_env(EXCHANGE),
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        begun = len(rows_or_none(sqlite_url))
        wait_for(
            lambda begun=begun, process=process: (
                len(rows_or_none(sqlite_url)) > begun or process.poll() is not None
            ),
            60,
            "a step",
        )
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
        assert process.returncode == code, said
        if code == 130:
            assert "interrupted; the same command goes on" in said
    assert "at work on it" in bring_in(sqlite_url, str(path), code=2)  # it may be there still
    forget_owner(tmp_path)
    said = bring_in(sqlite_url, str(path))
    assert "going on at" in said
    assert "150000 lines taken" in said
    assert rows(sqlite_url, HOUR) == oracle(trades, HOUR)
    assert rows(sqlite_url, 1)[-1000:] == oracle(trades[-5000:], 1)[-1000:]


def rows_or_none(url: str) -> list[Any]:
    """Return the saved hours, without owning the store."""
    import sqlite3

    try:
        with sqlite3.connect(url[len("sqlite:///") :]) as connection:
            return connection.execute(
                "SELECT * FROM marketdata_candles WHERE period=3600"
            ).fetchall()
    except sqlite3.OperationalError:
        return []


def forget_owner(directory: Path) -> None:
    """Let the owner have been seen long ago."""
    import sqlite3

    with sqlite3.connect(directory / "marketdata.db") as connection:
        connection.execute("UPDATE marketdata_state SET at_s=0 WHERE name='owner'")


def test_live_trades_go_on_behind_imported_ones(sqlite_url: str, tmp_path: Path) -> None:
    """What the log brings again of them is known."""
    trades = trades_of(1000)
    bring_in(sqlite_url, str(write(tmp_path / "trades.csv", trades)))
    store = open_store(sqlite_url, EXCHANGE)
    desk = Desk(store.read, LIMITS)
    desk.restore(store.load())
    newer = [one._replace(id=one.id + 1000, at_s=one.at_s + 7000) for one in trades]
    for one in (*trades[-100:], *newer):
        desk.take("public.btcusd.trades", body(one), time.time())
    assert desk.drops == {"late": 100}
    desk.fold()
    found = desk.markets["btcusd"].candles(HOUR, 0, 2**40)
    expected = oracle([*trades, *newer], HOUR)
    assert [(c.start_s, c.open, c.volume, c.deal) for c in found] == [
        (row[0], row[1], row[5], row[6]) for row in expected
    ]
    store.close()


def test_candles_are_taken_as_they_are(url: str, tmp_path: Path) -> None:
    """And those that were made of trades stay, unless they are to be replaced."""
    hour_s = BEGIN_S - BEGIN_S % HOUR
    trades = [Trade(hour_s + 10.0, 1, Decimal(5), Decimal(1), "buy")]
    bring_in(url, str(write(tmp_path / "trades.csv", trades)))
    path = tmp_path / "candles.csv"
    path.write_text(
        "market,period,time,open,high,low,close,volume,deal\n"
        f"btcusd,1h,{hour_s},1,4,1,2,10,20\n"
        f"btcusd,1h,{hour_s - HOUR},2,4,1,3,10,20.5\n"
    )
    assert "1 lines taken, 1 left out" in bring_in(url, str(path))
    older = (hour_s - HOUR, *map(Decimal, ("2", "4", "1", "3", "10", "20.5")))
    assert rows(url, HOUR) == [older, *oracle(trades, HOUR)]
    assert "2 lines taken" in bring_in(url, "--replace", str(path))
    assert rows(url, HOUR)[1] == (hour_s, *map(Decimal, ("1", "4", "1", "2", "10", "20")))


def test_wrong_lines_are_told_and_left_out(sqlite_url: str, tmp_path: Path) -> None:
    """With their reason; the others are taken, and the exit code says so."""
    path = tmp_path / "trades.csv"
    good = f"btcusd,1,{BEGIN_S},5,1,buy\n"
    bad = [
        "btcusd,2\n",
        f"btc usd,2,{BEGIN_S},5,1,buy\n",
        f"btcusd,x,{BEGIN_S},5,1,buy\n",
        f"btcusd,2,{BEGIN_S},NaN,1,buy\n",
        f"btcusd,2,{BEGIN_S},5,0,buy\n",
        f"btcusd,2,{int(time.time()) + 1000},5,1,buy\n",
        "btcusd,2,yesterday,5,1,buy\n",
        "\x1b[2J\n",
    ]
    path.write_text(HEADER + good + "".join(bad))
    said = bring_in(sqlite_url, str(path), code=1)
    assert f"1 lines taken, 0 left out as there is something already, {len(bad)} wrong" in said
    assert "\x1b" not in said
    assert "amount of 0" in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the first line must name columns: market,id,time,price,amount"),
        ("a,b,c\n1,2,3\n", "the first line must name columns"),
        (None, "cannot be read"),
    ],
)
def test_a_file_that_is_something_else_is_refused(
    sqlite_url: str, tmp_path: Path, text: str | None, said: str
) -> None:
    """With the columns that it should have."""
    path = tmp_path / "file.csv"
    if text is not None:
        path.write_text(text)
    assert said in bring_in(sqlite_url, str(path), code=2)


def test_peatios_names_of_columns_are_known(sqlite_url: str, tmp_path: Path) -> None:
    """In any order, with a byte order mark, and quoted."""
    path = tmp_path / "trades.csv"
    path.write_text(
        f'\ufeffdate,tid,"Market",taker_type,amount,price\r\n"{BEGIN_S}",7,btcusd,sell,2,"3.5"\r\n'
    )
    bring_in(sqlite_url, str(path))
    assert rows(sqlite_url, HOUR) == oracle(
        [Trade(float(BEGIN_S), 7, Decimal("3.5"), Decimal(2), "sell")], HOUR
    )


def test_a_bar_shows_how_far_it_is(sqlite_url: str, tmp_path: Path) -> None:
    """On a terminal."""
    path = write(tmp_path / "trades.csv", trades_of(60_000))
    near, far = os.openpty()
    with subprocess.Popen(
        command(sqlite_url, str(path)), env=server_env(EXCHANGE), stderr=far
    ) as process:
        os.close(far)
        shown = b""
        while True:
            try:
                data = os.read(near, 65536)
            except OSError:
                break
            if not data:
                break
            shown += data
        assert process.wait(60) == 0
    os.close(near)
    assert b"%" in shown
    assert b"s left" in shown
    assert b"60000 lines taken" in shown
