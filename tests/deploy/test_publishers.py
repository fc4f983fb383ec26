"""The publishers of docs/publishers.md, taken from that page and run as they are printed."""

from __future__ import annotations

import os
import re
import sys
import uuid
from pathlib import Path
from typing import Iterator

import pytest
from processes import CONF, escaped_amqp_url, run, running
from support import (
    HOST,
    ROOT,
    Client,
    Server,
    broker_channel,
    free_port,
    http_request,
    start_gateway,
    wait_for,
)

PAGE = ROOT / "docs" / "publishers.md"

# What the page leaves to its reader: which queue, and no remote control of the worker.
_SETTINGS = """
from {module} import app

app.conf.task_default_queue = {queue!r}
app.conf.worker_enable_remote_control = False
"""


def snippet(language: str, name: str) -> str:
    """Return the code block of a language whose first line is its file's name."""
    blocks = re.findall(rf"^```{language}\n(# {name}\n.*?)^```$", PAGE.read_text(), re.M | re.S)
    assert len(blocks) == 1, f"{PAGE.name} has {len(blocks)} blocks for {name}"
    return str(blocks[0])


@pytest.fixture
def env(gateway: Server) -> dict[str, str]:
    """Give a publisher's environment: the broker and the exchange of the shared gateway."""
    names = {"AMQP_URL": escaped_amqp_url(), "RANGO_EXCHANGE": gateway.exchange}
    return {**os.environ, **names, "PYTHONDONTWRITEBYTECODE": "1"}


def subscriber(gateway: Server, *names: str) -> Client:
    """Return a client of the user whom the page's events are for."""
    client = gateway.connect("/private", gateway.token(uid="ID1"))
    client.receive()
    assert sorted(client.subscribe(*names)) == sorted(names)
    return client


def test_bunny(gateway: Server, env: dict[str, str], tmp_path: Path) -> None:
    """Ruby's bunny reaches public, private and book subscribers, late ones too."""
    script = tmp_path / "publish.rb"
    script.write_text(snippet("ruby", "publish.rb"))
    with subscriber(gateway, "btcusd.trades", "btcusd.ob-inc", "order") as client:
        done = run(["/usr/bin/ruby", str(script)], tmp_path, env)
        assert (done.returncode, done.stdout) == (0, "")
        events = [client.receive_json() for _ in range(4)]
    assert {name: event for message in events for name, event in message.items()} == {
        "btcusd.ob-snap": {
            "asks": [["9001.0", "0.4"]],
            "bids": [["8999.5", "1.2"]],
            "sequence": 1,
        },
        "btcusd.ob-inc": {"asks": ["9001.0", "0.1"], "sequence": 2},
        "btcusd.trades": {"trades": [{"tid": 7, "price": "9001.0", "amount": "0.3"}]},
        "order": {"id": 42, "market": "btcusd", "state": "done"},
    }
    with gateway.connect("/public?stream=btcusd.ob-inc") as late:
        snapshot = late.receive_json()["btcusd.ob-snap"]
        assert (snapshot["sequence"], snapshot["bids"]) == (1, [["8999.5", "1.2"]])
        assert late.receive_json()["btcusd.ob-inc"]["sequence"] == 2


def test_the_library(gateway: Server, env: dict[str, str], tmp_path: Path) -> None:
    """The page's script reaches public, private and book subscribers."""
    script = tmp_path / "shop.py"
    script.write_text(snippet("python", "shop.py"))
    with subscriber(gateway, "btcusd.trades", "balance", "order") as client:
        done = run([sys.executable, str(script)], tmp_path, env)
        assert (done.returncode, done.stdout) == (0, "")
        events = [client.receive_json() for _ in range(3)]
    assert {name: event for message in events for name, event in message.items()} == {
        "btcusd.trades": {"trades": [{"tid": 8, "price": "9002.50"}]},
        "balance": {"currency": "btc", "balance": "0.7"},
        "order": {"id": 42},
    }
    with gateway.connect("/public?stream=btcusd.ob-inc") as late:
        assert late.receive_json()["btcusd.ob-snap"]["sequence"] == 1
        assert late.receive_json()["btcusd.ob-inc"] == {
            "asks": [["9001.0", "0.4"]], "bids": [], "sequence": 2,
        }  # fmt: skip


def test_kombu(gateway: Server, env: dict[str, str], tmp_path: Path) -> None:
    """Python's kombu reaches public, global and private subscribers."""
    script = tmp_path / "publish.py"
    script.write_text(snippet("python", "publish.py"))
    with subscriber(gateway, "btcusd.trades", "global.tickers", "balance") as client:
        done = run([sys.executable, str(script)], tmp_path, env)
        assert (done.returncode, done.stdout) == (0, "")
        events = [client.receive_json() for _ in range(3)]
    assert {name: event for message in events for name, event in message.items()} == {
        "btcusd.trades": {"trades": [{"tid": 8, "price": "9002.5"}]},
        "global.tickers": {"btcusd": {"last": "9002.5"}},
        "balance": {"currency": "btc", "balance": "0.7"},
    }


@pytest.mark.parametrize(
    ("language", "name", "program", "milliseconds"),
    [
        ("ruby", "publish.rb", "/usr/bin/ruby", "Time.now.to_f * 1000"),
        ("python", "publish.py", sys.executable, "time.time() * 1000"),
    ],
)
def test_lag_is_measured_from_the_publisher(
    language: str, name: str, program: str, milliseconds: str, env: dict[str, str], tmp_path: Path
) -> None:
    """The header that the page's publishers send is the start of the measured lag."""
    text = snippet(language, name)
    assert milliseconds in text
    (tmp_path / name).write_text(text.replace(milliseconds, f"{milliseconds} - 5000"))
    own = start_gateway(exchange=env["RANGO_EXCHANGE"])
    with own as gateway, subscriber(gateway, "btcusd.trades") as client:
        assert run([program, name], tmp_path, env).returncode == 0
        client.receive()
        wait_for(lambda: gateway.metric("rango_delivery_lag_seconds_count") > 0, 60, "a lag")
        assert gateway.metric("rango_delivery_lag_seconds_sum") > 4.9


@pytest.fixture
def queue() -> Iterator[str]:
    """Give the name of a task queue and remove it from the broker afterwards."""
    name = f"test.tasks.{uuid.uuid4().hex[:12]}"
    yield name
    broker_channel().queue_delete(name)
    broker_channel().exchange_delete(name)


_POOLS = {"solo": [], "prefork": ["--concurrency=2"], "gevent": ["--concurrency=20"]}


def celery_worker(module: str, pool: str) -> list[str]:
    """Return the command of a worker."""
    command = [sys.executable, "-m", "celery", "-A", module, "worker", f"--pool={pool}"]
    command += ["--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel=INFO"]
    return command + _POOLS[pool]


def test_celery(gateway: Server, env: dict[str, str], queue: str, tmp_path: Path) -> None:
    """A Celery worker that runs the page's task reaches the user of the page's call."""
    (tmp_path / "tasks.py").write_text(snippet("python", "tasks.py"))
    (tmp_path / "shop.py").write_text(_SETTINGS.format(queue=queue, module="tasks"))
    (call,) = re.findall(r"^Anywhere else: `(tell_user\.delay\(.*\))`\.$", PAGE.read_text(), re.M)
    (tmp_path / "call.py").write_text(f"import shop\nfrom tasks import tell_user\n\n{call}\n")
    worker = running(celery_worker("shop", "solo"), tmp_path, env)
    with subscriber(gateway, "deposit_address") as client, worker as process:
        done = run([sys.executable, "call.py"], tmp_path, env)
        assert (done.returncode, done.stdout) == (0, "")
        wait_for(lambda: "succeeded" in process.log(), 120, "the end of the task")
        event = {"currency": "btc", "address": "bc1q..."}
        assert client.receive_json() == {"deposit_address": event}


_CALLS = """
import shop
from celery_app import tell_market, tell_user

for number in range(50):
    tell_user.delay("ID1", "order", {{"id": number}})
    tell_market.delay({market!r}, [{{"tid": number}}])
"""


@pytest.mark.parametrize("pool", ["prefork", "gevent"])
def test_the_celery_example(
    pool: str, gateway: Server, env: dict[str, str], queue: str, market: str, tmp_path: Path
) -> None:
    """Its tasks reach clients from forked processes and from greenlets, each event once."""
    (tmp_path / "celery_app.py").write_text((CONF / "examples" / "celery_app.py").read_text())
    (tmp_path / "shop.py").write_text(_SETTINGS.format(queue=queue, module="celery_app"))
    (tmp_path / "call.py").write_text(_CALLS.format(market=market))
    worker = running(celery_worker("shop", pool), tmp_path, env)
    with subscriber(gateway, "order", f"{market}.trades") as client, worker as process:
        wait_for(lambda: "ready." in process.log(), 120, "a worker")
        done = run([sys.executable, "call.py"], tmp_path, env)
        assert (done.returncode, done.stdout) == (0, "")
        events = [client.receive_json(30) for _ in range(100)]
    assert sorted(event["order"]["id"] for event in events if "order" in event) == list(range(50))
    trades = [event[f"{market}.trades"] for event in events if "order" not in event]
    assert sorted(trade["trades"][0]["tid"] for trade in trades) == list(range(50))


@pytest.mark.parametrize("more", [[], ["--preload"]])
def test_the_django_example(
    more: list[str], gateway: Server, env: dict[str, str], tmp_path: Path
) -> None:
    """Under sync workers a view's event comes when it is committed, and not if it is not."""
    (tmp_path / "django_app.py").write_text((CONF / "examples" / "django_app.py").read_text())
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", "-b", f"{HOST}:{port}", "--workers=2", *more]
    server = running([*command, "--no-control-socket", "django_app:application"], tmp_path, env)
    with subscriber(gateway, "order") as client, server as process:
        process.wait_for_port(port, 120)
        for number in range(20):
            failing = "?fail=1" if number % 2 else ""
            answer = http_request(port, f"/cancel/ID1/{number}{failing}")
            assert answer.status == (500 if failing else 200), process.log()
        for number in range(0, 20, 2):
            assert client.receive_json() == {"order": {"id": number, "state": "cancel"}}
