"""The publishers of docs/publishers.md, taken from that page and run as they are printed."""

from __future__ import annotations

import os
import re
import sys
import uuid
from pathlib import Path
from typing import Iterator

import pytest
from processes import escaped_amqp_url, run, running
from support import ROOT, Client, Server, broker_channel, start_gateway, wait_for

PAGE = ROOT / "docs" / "publishers.md"

# What the page leaves to its reader: which queue, and no remote control of the worker.
_SETTINGS = """
from tasks import app

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
        events = [client.receive_json() for _ in range(3)]
    assert {name: event for message in events for name, event in message.items()} == {
        "btcusd.ob-inc": {"asks": ["9001.0", "0.1"], "sequence": 2},
        "btcusd.trades": {"trades": [{"tid": 7, "price": "9001.0", "amount": "0.3"}]},
        "order": {"id": 42, "market": "btcusd", "state": "done"},
    }
    with gateway.connect("/public?stream=btcusd.ob-inc") as late:
        snapshot = late.receive_json()["btcusd.ob-snap"]
        assert (snapshot["sequence"], snapshot["bids"]) == (1, [["8999.5", "1.2"]])
        assert late.receive_json()["btcusd.ob-inc"]["sequence"] == 2


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
        wait_for(lambda: gateway.metric("rango_delivery_lag_seconds_count") > 0, what="a lag")
        assert gateway.metric("rango_delivery_lag_seconds_sum") > 4.9


@pytest.fixture
def queue() -> Iterator[str]:
    """Give the name of a task queue and remove it from the broker afterwards."""
    name = f"test.tasks.{uuid.uuid4().hex[:12]}"
    yield name
    broker_channel().queue_delete(name)
    broker_channel().exchange_delete(name)


def test_celery(gateway: Server, env: dict[str, str], queue: str, tmp_path: Path) -> None:
    """A Celery worker that runs the page's task reaches the user of the page's call."""
    (tmp_path / "tasks.py").write_text(snippet("python", "tasks.py"))
    (tmp_path / "shop.py").write_text(_SETTINGS.format(queue=queue))
    (call,) = re.findall(r"^Anywhere else: `(tell_user\.delay\(.*\))`\.$", PAGE.read_text(), re.M)
    (tmp_path / "call.py").write_text(f"import shop\nfrom tasks import tell_user\n\n{call}\n")
    command = [sys.executable, "-m", "celery", "-A", "shop", "worker", "--pool=solo"]
    command += ["--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel=INFO"]
    worker = running(command, tmp_path, env)
    with subscriber(gateway, "deposit_address") as client, worker as process:
        done = run([sys.executable, "call.py"], tmp_path, env)
        assert (done.returncode, done.stdout) == (0, "")
        wait_for(lambda: "succeeded" in process.log(), 30, "the end of the task")
        event = {"currency": "btc", "address": "bc1q..."}
        assert client.receive_json() == {"deposit_address": event}
