"""A publisher and a client at once, each as its user would write it, with a real gateway between."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support import ROOT, Server, amqp_url, start_gateway, wait_for

from rango_gevent.client import StreamClient, SubscriptionRefused

SHOP = """
import sys
from decimal import Decimal

import django
from django.conf import settings

settings.configure(DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}})
django.setup()
from rango_gevent.publisher import Market, Publisher, PublishError

url, market = sys.argv[1:]
order = {"id": 1, "price": Decimal("0.10")}
rows = [(f"public.{market}.trades", {"tid": number}) for number in range(2, 5)]

pub = Publisher(url, confirm=True, deadline_s=20.0, on_down="buffer", buffer=10_000)
pub.publish(f"public.{market}.trades", {"trades": [{"tid": 1}]})
pub.publish_on_commit("private.ID1.order", order)
with pub.batch() as batch:
    [batch.publish(k, b) for k, b in rows]
pub.publish("private.ID1.order", b'{"id":2}', require_gateway=True)
try:
    nobody = Publisher(url, exchange=f"{market}.nobody", deadline_s=20.0)
    nobody.publish(f"public.{market}.trades", "{}", require_gateway=True)
except PublishError as error:
    print(error.maybe_sent)
book = Market(pub, market)
book.snapshot([("9001.0", "0.4")], [("8999.5", "1.2")])
book.increment(asks=[("9001.0", Decimal("0.50"))])
book.trade({"tid": 5})
book.kline("1m", [1700000000, "1", "2", "0.5", "1.5", "10"])
print(pub.stats().dropped, pub.stats().waiting)
pub.close()
"""


def publish_all(gateway: Server, market: str, directory: Path) -> str:
    """Run the shop to its end; return what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", SHOP, amqp_url(), market],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(ROOT), "RANGO_EXCHANGE": gateway.exchange},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("in_band", [False, True])
def test_all_of_both(market: str, tmp_path: Path, in_band: bool) -> None:
    """What the shop publishes reaches the bot; a refusal is raised; the figures add up."""
    log = logging.getLogger("test")
    tokens: list[str] = []
    with start_gateway() as a, start_gateway(exchange=a.exchange) as b:

        def fetch_token() -> str:
            tokens.append(a.token(uid="ID1"))
            return tokens[-1]

        with StreamClient(
            [a.url, b.url], token=fetch_token, per_connection=2, in_band=in_band
        ) as client:
            client.on_state(lambda e: log.info("%s %s %s", e.state, e.code, e.reason))
            trades = client.subscribe(f"{market}.trades", policy="drop-oldest", size=1000)
            trades.wait(30)
            for name in ("order", f"{market}.kline-1m"):
                client.subscribe(name).wait(30)
            with pytest.raises(SubscriptionRefused):
                client.subscribe("admin.btcusd.sys").wait(30)
            with client.book(market) as book:
                wait_for(lambda: len(client.stats().connections) >= 2, what="two connections")
                assert publish_all(a, market, tmp_path) == "False\n0 0\n"
                book.wait_synced(30)
                for change in book:
                    if change.sequence is not None and change.kind == "update":
                        break
                assert book.best_bid is not None
                assert book.best_ask is not None
                assert [*map(str, book.best_bid)] == ["8999.5", "1.2"]
                assert [*map(str, book.best_ask)] == ["9001.0", "0.50"]
                assert [*book.bids] == [book.best_bid]
                assert [*book.asks] == [book.best_ask]
            streams = client.request({"event": "list"}, timeout=60)["streams"]
            assert isinstance(streams, list)
            seen: dict[str, list[str]] = {}
            for event in client:
                seen.setdefault(event.stream, []).append(event.body)
                if sum(map(len, seen.values())) == 8:
                    break
            stats = client.stats()
    assert seen[f"{market}.trades"] == [
        '{"trades":[{"tid":1}]}', '{"tid":2}', '{"tid":3}', '{"tid":4}', '{"trades":[{"tid":5}]}',
    ]  # fmt: skip
    assert seen["order"] == ['{"id":1,"price":"0.10"}', '{"id":2}']
    assert len(seen[f"{market}.kline-1m"]) == 1
    assert (stats.dropped, stats.gaps, stats.reconnects) == (0, 0, 0)
    assert len(tokens) >= 2
