"""``rango marketdata`` as operators and clients meet it: real broker, gateway, stores, faults."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any, Iterator

import amqp
import pytest
from databases import redis_at
from marketdata_worker import MarketdataWorker, ask, start_marketdata
from support import (
    Relay,
    amqp_url,
    broker_address,
    broker_channel,
    free_port,
    http_request,
    publish,
    server_env,
    start_gateway,
    wait_for,
)

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))
from rabbitmq_node import PrivateNode

from rango_gevent.publisher import Publisher

KEY = "public.btcusd.trades"
_YOUNG_S = 10  # RabbitMQ 3.10 may forget its first log when it is killed sooner


def trade(number: int, price: str = "10", amount: str = "1", at_s: float = 0) -> dict[str, Any]:
    """Return a trade of now, as Peatio has it."""
    return {
        "tid": number,
        "taker_type": "buy",
        "date": at_s or int(time.time()),
        "price": price,
        "amount": amount,
    }


def send(worker: MarketdataWorker, *trades: dict[str, Any]) -> None:
    """Publish trades, each as a message."""
    for one in trades:
        publish(worker.exchange, KEY, json.dumps({"trades": [one]}))


def ids(worker: MarketdataWorker) -> list[int]:
    """Return the ids of the known trades, in order."""
    answer = ask(worker.queue, {"method": "deals.query", "params": ["btcusd", 10_000, 0]})
    return sorted(deal["id"] for deal in answer["result"] or ())


def wait_for_ids(worker: MarketdataWorker, wanted: list[int]) -> None:
    """Wait until just these trades are known."""
    wait_for(lambda: ids(worker) == wanted, what=f"trades {wanted}")


def volume(worker: MarketdataWorker) -> str:
    """Return the volume of this month."""
    rows = worker.ask("kline.query", "btcusd", int(time.time()), int(time.time()), 2_592_000)
    return str(rows[0][5])


@pytest.fixture
def exchange() -> Iterator[str]:
    """Return the name of an exchange, whose log is deleted at the end."""
    name = f"test.{uuid.uuid4().hex[:12]}"
    yield name
    broker_channel().queue_delete(f"rango.log.{name}")


# -- what goes out --------------------------------------------------------------------------------


def test_klines_and_tickers_reach_clients_of_a_gateway(tmp_path: Path) -> None:
    """Made from trades on the same exchange, in Peatio's shapes."""
    with contextlib.ExitStack() as stack:
        gateway = stack.enter_context(start_gateway())
        worker = stack.enter_context(start_marketdata(tmp_path, exchange=gateway.exchange))
        client = stack.enter_context(
            gateway.connect("/public?stream=btcusd.kline-1d&stream=global.tickers")
        )
        client.receive()
        send(worker, trade(1, "10.10", "0.5"), trade(2, "9.5", "1"))
        klines: list[Any] = []
        tickers: list[Any] = []
        while not (klines and tickers and klines[-1][5] == 1.5):
            for name, body in json.loads(client.receive()).items():
                (tickers if name == "global.tickers" else klines).append(body)
        assert klines[-1][1:] == [10.1, 10.1, 9.5, 9.5, 1.5]
        while tickers[-1]["btcusd"]["amount"] != "1.5":
            tickers += filter(None, [json.loads(client.receive()).get("global.tickers")])
        ticker = tickers[-1]["btcusd"]
        assert (ticker["last"], ticker["amount"], ticker["volume"]) == ("9.5", "1.5", "14.550")


def test_questions_are_answered_over_amqp(tmp_path: Path) -> None:
    """And what is no question is answered too."""
    with start_marketdata(tmp_path) as worker:
        send(worker, trade(1, "10.10", "0.5"), trade(2, "9.5", "1"))
        wait_for_ids(worker, [1, 2])
        now = int(time.time())
        (row,) = worker.ask("kline.query", "btcusd", now, now, 86_400)
        assert row[1:] == ["10.10", "9.5", "10.10", "9.5", "1.5", "14.550", "btcusd"]
        assert worker.ask("price.query", "btcusd") == "9.5"
        assert worker.ask("state.query", "btcusd", 86_400)["high"] == "10.10"
        assert worker.ask("today.query", "btcusd")["deal"] == "14.550"
        before = worker.metric("questions_total", outcome="refused")
        for question, code in (
            (b"", 1),
            (b"\xff\xfe", 1),
            (b"[" * 100_000, 1),
            (b"[" * 10_000, 1),
            ([], 1),
            ({}, 4),
            ({"method": "order.put", "params": []}, 4),
            ({"method": "price.query", "params": ["nothing"]}, 1),
        ):
            answer = ask(worker.queue, question)
            assert (answer["error"]["code"], answer["result"]) == (code, None)
        assert worker.metric("questions_total", outcome="refused") == before + 8
        publish("", worker.queue, "no reply_to")
        assert worker.ask("price.query", "btcusd") == "9.5"
        assert "Traceback" not in worker.log()


def test_a_question_comes_back_where_nobody_answers(tmp_path: Path) -> None:
    """Its queue goes with the worker."""
    with start_marketdata(tmp_path) as worker:
        assert worker.stop() == 0
        returned = []
        broker = broker_address()
        with amqp.Connection(
            host=f"{broker.host}:{broker.port}", userid=broker.user, password=broker.password,
            virtual_host=broker.vhost,
        ) as connection:  # fmt: skip
            channel = connection.channel()
            channel.events["basic_return"].add(lambda *words: returned.append(words))
            channel.basic_publish(amqp.Message("{}"), "", worker.queue, mandatory=True)
            wait_for(lambda: _drain(connection) or returned, what="the question back")


def _drain(connection: amqp.Connection) -> None:
    with contextlib.suppress(TimeoutError):
        connection.drain_events(timeout=0.05)


def test_health_and_metrics(tmp_path: Path) -> None:
    """Garbage is counted by reason and told once; readiness follows the broker."""
    relay = Relay()
    relay.open()
    with start_marketdata(tmp_path, RANGO_AMQP_URL=relay.url) as worker:
        send(worker, trade(1), trade(1), trade(2), trade(2, amount="0"))
        for _ in range(30):
            send(worker, {"tid": 3, "price": "x"})
        wait_for(lambda: worker.metric("drops_total", reason="shape") == 30, what="drops")
        assert worker.metric("trades_total", kind="new") == 2
        assert worker.metric("trades_total", kind="duplicate") == 1
        assert worker.metric("trades_total", kind="cancelled") == 1
        assert worker.metric("markets") == 1
        assert worker.metric("ready") == 1
        assert worker.log().count("dropped (shape)") == 1
        assert http_request(worker.port, "/healthz").status == 200
        relay.cut()
        wait_for(lambda: http_request(worker.port, "/readyz").status == 503, what="not ready")
        assert "broker" in http_request(worker.port, "/readyz").body
        assert http_request(worker.port, "/healthz").status == 200
        relay.open()
        worker.wait_until_ready()
        relay.cut()


# -- faults ---------------------------------------------------------------------------------------


def test_without_a_log_a_gap_is_known(tmp_path: Path) -> None:
    """Its seconds are counted and logged; what comes after it is taken."""
    relay = Relay()
    relay.open()
    with start_marketdata(tmp_path, RANGO_AMQP_URL=relay.url) as worker:
        send(worker, trade(1))
        wait_for_ids(worker, [1])
        assert worker.metric("gaps_total") == 0
        relay.cut()
        wait_for(lambda: worker.metric("connected") == 0, what="the loss")
        send(worker, trade(2))
        time.sleep(1.0)
        relay.open()
        worker.wait_until_ready()
        send(worker, trade(3))
        wait_for_ids(worker, [1, 3])
        assert worker.metric("gaps_total") == 1
        assert 0.9 < worker.metric("gap_seconds_total") < 120
        assert "were not heard" in worker.log()
        wait_for(lambda: worker.metric("unsaved_trades") == 0, what="all saved")
        worker.kill()
        send(worker, trade(4))
        worker.start()
        send(worker, trade(5))
        wait_for_ids(worker, [1, 3, 5])
        assert worker.metric("gaps_total") == 1
        relay.cut()


def test_another_worker_takes_over_without_loss(tmp_path: Path, exchange: str) -> None:
    """The one before ends itself with 3, whose restart a service does not want."""
    with start_marketdata(tmp_path, exchange=exchange, RANGO_LOG="stream") as first:
        send(first, trade(1, "10", "1"), trade(2, "11", "2"))
        wait_for_ids(first, [1, 2])
        second = MarketdataWorker(tmp_path, exchange, {"RANGO_LOG": "stream"})
        second.env["RANGO_MARKETDATA_RPC_QUEUE"] = second.queue = first.queue
        try:
            second.start(until_ready=False)
            assert first.process is not None
            assert first.process.wait(30) == 3
            second.wait_until_ready()
            send(second, trade(3, "12", "4"))
            wait_for_ids(second, [1, 2, 3])
            assert volume(second) == "7"
            assert "another process has taken over" in first.log()
        finally:
            second.end()


def test_a_log_that_was_deleted_is_told_and_nothing_counts_twice(
    tmp_path: Path, exchange: str
) -> None:
    """While it was away, and while it was there."""
    with start_marketdata(tmp_path, exchange=exchange, RANGO_LOG="stream") as worker:
        send(worker, *(trade(number) for number in range(1, 40)))
        wait_for_ids(worker, list(range(1, 40)))
        wait_for(lambda: worker.metric("unsaved_trades") == 0, what="all saved")
        worker.kill()
        broker_channel().queue_delete(f"rango.log.{exchange}")
        worker.start()
        send(worker, *(trade(number) for number in range(30, 50)))
        wait_for_ids(worker, list(range(1, 50)))
        assert volume(worker) == "49"
        assert worker.metric("gaps_total") == 1
        assert "the log was cut off, or is another one" in worker.log()
        broker_channel().queue_delete(f"rango.log.{exchange}")
        wait_for(lambda: worker.metric("reconnects_total") >= 1, what="the loss")
        worker.wait_until_ready()
        send(worker, *(trade(number) for number in range(45, 60)))
        wait_for_ids(worker, list(range(1, 60)))
        assert volume(worker) == "59"
        assert worker.metric("gaps_total") == 2


def test_a_log_that_does_not_reach_back_is_told(tmp_path: Path, exchange: str) -> None:
    """It was trimmed while we were away: what is left is read, what was known stays known."""
    env = {
        "RANGO_LOG": "stream",
        "RANGO_LOG_BYTES": "1000000",
        "RANGO_LOG_SEGMENT_BYTES": "200000",
    }
    with start_marketdata(tmp_path, exchange=exchange, **env) as worker:
        send(worker, *(trade(number) for number in range(1, 11)))
        wait_for_ids(worker, list(range(1, 11)))
        wait_for(lambda: worker.metric("unsaved_trades") == 0, what="all saved")
        worker.kill()
        with Publisher(amqp_url(), exchange=exchange, deadline_s=60) as publisher:
            for _ in range(40):
                with publisher.batch() as batch:
                    for _ in range(100):
                        batch.publish("public.btcusd.filler", {"text": "x" * 1000})
        send(worker, *(trade(number) for number in range(8, 21)))
        worker.start()
        wait_for_ids(worker, list(range(1, 21)))
        assert volume(worker) == "20"
        assert worker.metric("gaps_total") == 1
        assert "does not reach back to where we stood" in worker.log()


def test_a_log_with_other_events_at_our_place_is_found_out(tmp_path: Path, exchange: str) -> None:
    """Its offsets say nothing: the check does. All of it is read, and what is known is known."""
    with start_marketdata(tmp_path, exchange=exchange, RANGO_LOG="stream") as worker:
        send(worker, *(trade(number) for number in range(1, 11)))
        wait_for_ids(worker, list(range(1, 11)))
        wait_for(lambda: worker.metric("unsaved_trades") == 0, what="all saved")
        worker.kill()
        channel = broker_channel()
        name = f"rango.log.{exchange}"
        channel.queue_delete(name)
        channel.queue_declare(
            name, durable=True, auto_delete=False, arguments={"x-queue-type": "stream"}
        )
        channel.queue_bind(name, exchange, "#")
        send(worker, *(trade(number) for number in range(6, 31)))
        worker.start()
        wait_for_ids(worker, list(range(1, 31)))
        assert volume(worker) == "30"
        assert worker.metric("gaps_total") == 1


def test_a_broker_that_restarts_loses_nothing_of_the_log(tmp_path: Path) -> None:
    """Killed and started again, under a publisher that has its events confirmed."""
    node = PrivateNode()
    node.start()
    exchange = "test.restart"
    try:
        env = {"RANGO_AMQP_URL": node.amqp_url, "RANGO_LOG": "stream"}
        with start_marketdata(tmp_path, exchange=exchange, **env) as worker:
            with Publisher(
                node.amqp_url, exchange=exchange, on_down="raise", deadline_s=60
            ) as publisher:
                for number in range(1, 300):
                    publisher.publish(KEY, {"trades": [trade(number)]})
            wait_for(lambda: worker.metric("trades_total", kind="new") == 299, what="all")
            time.sleep(_YOUNG_S)
            node.kill()
            wait_for(lambda: worker.metric("connected") == 0, what="the loss")
            node.start()
            worker.wait_until_ready(60)
            with Publisher(node.amqp_url, exchange=exchange, deadline_s=30) as publisher:
                for number in range(300, 600):
                    publisher.publish(KEY, {"trades": [trade(number)]})
            wait_for(lambda: worker.metric("trades_total", kind="new") == 599, what="all")
            assert worker.metric("gaps_total") == 0
            assert worker.metric("trades_total", kind="duplicate") == 0
    finally:
        node.stop()


def test_a_store_that_is_away_is_waited_for(tmp_path: Path, exchange: str) -> None:
    """Trades wait in memory; when it is back all of them are saved."""
    port = free_port()
    with redis_at(port, tmp_path) as redis:
        env = {
            "RANGO_MARKETDATA_STORE": f"redis://127.0.0.1:{port}/0",
            "RANGO_LOG": "stream",
            "RANGO_MARKETDATA_FLUSH_S": "0.2",
        }
        with start_marketdata(tmp_path, exchange=exchange, **env) as worker:
            send(worker, trade(1))
            wait_for(lambda: worker.metric("trades_total", kind="new") == 1, what="the first")
            wait_for(lambda: worker.metric("unsaved_trades") == 0, what="it saved")
            redis.stop()
            send(worker, *(trade(number) for number in range(2, 50)))
            wait_for(lambda: worker.metric("save_failures_total") > 1, what="failures")
            assert worker.metric("unsaved_trades") == 48
            redis.start()
            wait_for(lambda: worker.metric("unsaved_trades") == 0, what="all saved")
            worker.kill()
            worker.start()
            assert ids(worker) == list(range(1, 50))
            assert volume(worker) == "49"


def test_a_store_that_is_away_for_long_is_a_reason_to_leave_the_broker(
    tmp_path: Path, exchange: str
) -> None:
    """Memory is bounded; what was not taken is in the log."""
    port = free_port()
    with redis_at(port, tmp_path) as redis:
        env = {
            "RANGO_MARKETDATA_STORE": f"redis://127.0.0.1:{port}/0",
            "RANGO_LOG": "stream",
            "RANGO_MARKETDATA_UNSAVED": "1000",
            "RANGO_MARKETDATA_TRADES": "50000",
        }
        with start_marketdata(tmp_path, exchange=exchange, **env) as worker:
            redis.stop()
            with Publisher(amqp_url(), exchange=exchange, deadline_s=60) as publisher:
                for start in range(0, 30_000, 1000):
                    with publisher.batch() as batch:
                        for number in range(start, start + 1000):
                            batch.publish(KEY, {"trades": [trade(number + 1)]})
                    time.sleep(0.05)
            wait_for(lambda: "no more trades can wait" in worker.log(), what="the bound")
            assert worker.metric("unsaved_trades") < 20_000
            redis.start()
            wait_for(lambda: volume(worker) == "30000", 120, "all trades")
            assert worker.metric("trades_total", kind="duplicate") == 0


def test_old_candles_are_removed(tmp_path: Path) -> None:
    """Each period's after its time."""
    env = {
        "RANGO_MARKETDATA_KEEP": "1s=4m",
        "RANGO_MARKETDATA_LATE_S": "1",
        "RANGO_MARKETDATA_PRUNE_S": "1",
    }
    with start_marketdata(tmp_path, **env) as worker:
        now = int(time.time())
        send(worker, *(trade(number, at_s=now - 600 + number) for number in range(1, 11)))
        send(worker, *(trade(number, at_s=now - 20 + number) for number in range(11, 21)))
        wait_for_ids(worker, list(range(1, 21)))

        def starts(period: int) -> list[int]:
            rows = worker.ask("kline.query", "btcusd", now - 700, now + 5, period)
            return [row[0] for row in rows if row[5] != "0"]

        wait_for(lambda: min(starts(1)) > now - 100, what="old seconds gone")
        assert len(starts(1)) == 10
        assert min(starts(60)) < now - 500


# -- settings -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({"RANGO_MARKETDATA_STORE": "mysql://x"}, "give sqlite:///path"),
        ({"RANGO_MARKETDATA_STORE": "sqlite:////no/where/x.db"}, "check its path and its rights"),
        ({"RANGO_MARKETDATA_FLUSH_S": "x"}, "RANGO_MARKETDATA_FLUSH_S='x': give seconds"),
        ({"RANGO_AMQP_URL": "memory://"}, "no broker that another process could hear"),
        ({"RANGO_MARKETDATA_METRICS_PORT": "1"}, None),
    ],
)
def test_wrong_settings_end_it_with_2(
    tmp_path: Path, env: dict[str, str], said: str | None
) -> None:
    """In one line with the cure."""
    if said is None:
        env, said = {"RANGO_MARKETDATA_METRICS_PORT": str(broker_address().port)}, "another port"
    done = subprocess.run(
        [sys.executable, "-m", "rango_gevent", "marketdata"],
        env={**server_env("test.wrong", env), "RANGO_METRICS_HOST": "127.0.0.1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_nobody_else_imports_any_of_it() -> None:
    """Serving, and every other command but the demo, which uses the pure part."""
    code = (
        "import sys; import rango_gevent.gateway, rango_gevent.commands.serve, rango_gevent.cli;"
        "rango_gevent.cli.parse(['serve']);"
        "print([m for m in sys.modules if 'marketdata' in m or m in ('sqlalchemy', 'redis')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr
