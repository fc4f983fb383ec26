"""``python -m tests.soak.viabtc --seconds 600``: a client that speaks ViaBTC's protocol alone.

The simulated exchange publishes to a real RabbitMQ, and the client subscribes to everything of it
at once. The invariant: whenever the exchange pauses, each book that the client has built from
``depth.update`` is the exchange's own; every deal came once and in order; each market's price, day
and candles came, and orders of the client's user.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "scripts")]

from support import Server, make_token, start_gateway, wait_for  # noqa: E402 - found just above
from viabtc_client import DepthBook, ViabtcClient, shown  # noqa: E402

from rango_gevent.demo.exchange import Exchange  # noqa: E402

MARKETS = ("btcusd", "ethusd", "ltcbtc")
INTERVALS = (60, 300, 900, 3600)
UID = "77"
TICKS_PER_S = 20
WHOLE = 1000
FORMS = ((WHOLE, "0"), (5, "0"), (20, "0.1"))
PUSHES = ("kline", "price", "state", "today", "deals", "depth", "order")
SETTINGS = {
    "RANGO_VIABTC": "on",
    "RANGO_VIABTC_DEPTH_LIMITS": f"5,20,{WHOLE}",
    "RANGO_VIABTC_DEPTH_LEVELS": "100000",  # one client holds whole books of all markets
    "RANGO_VIABTC_DEPTH_WHOLE_S": "5",
    "LOG_LEVEL": "warn",
}


class Watcher:
    """The client: what it holds by pushes alone.

    Attributes:
        books: by market, limit and merge.
        seen: number of pushes by method.
    """

    def __init__(self, server: Server) -> None:
        self._client = ViabtcClient(server)
        self.books: dict[tuple[str, int, str], DepthBook] = {}
        self.deals: dict[str, list[int]] = {}
        self.seen: Counter[str] = Counter()
        client, names = self._client, [market.upper() for market in MARKETS]
        client.ask("server.auth", make_token({"uid": UID}), "web")
        client.ask("kline.subscribe", *(v for n in names for i in INTERVALS for v in (n, i)))
        client.ask("depth.subscribe", *(v for n in names for f in FORMS for v in (n, *f)))
        for family in ("price", "state", "today", "deals", "order"):
            client.ask(f"{family}.subscribe", *names)
        client.ask("asset.subscribe", "BTC", "USD", "ETH", "LTC")

    def close(self) -> None:
        """End the connection."""
        self._client.client.close()

    def catch_up(self) -> None:
        """Take all that came until now."""
        self._client.ask("server.ping")
        while self._client.pushes:
            said = self._client.pushes.popleft()
            self.seen[said["method"].partition(".")[0]] += 1
            self._take(said["method"], said["params"])

    def _take(self, method: str, params: Any) -> None:
        if method == "depth.update":
            key = (params[2], params[3], params[4])
            self.books.setdefault(key, DepthBook()).take(params)
        elif method == "deals.update":
            market, deals = params
            self.deals.setdefault(market, []).extend(deal["id"] for deal in reversed(deals))


def sides(book: dict[str, Any], limit: int, merge: str) -> tuple[Any, Any]:
    """Return what a view shows of the exchange's book."""
    asks, bids = (
        {Decimal(price): Decimal(amount) for price, amount in book[side]}
        for side in ("asks", "bids")
    )
    return shown(asks, True, limit, merge), shown(bids, False, limit, merge)


def is_right(watcher: Watcher, exchange: Exchange) -> bool:
    """Tell whether all books of the client are the exchange's."""
    watcher.catch_up()
    for market in MARKETS:
        book = exchange.book(market)
        for limit, merge in FORMS:
            mine = watcher.books.get((market.upper(), limit, merge))
            if mine is None or mine.sides() != sides(book, limit, merge):
                return False
    return True


def run(server: Server, seconds: float, pause_every_s: float = 2.0) -> dict[str, Any]:
    """Publish for so long, and look whenever the exchange pauses.

    Returns:
        How often it was looked, and what came.

    Raises:
        AssertionError: the invariant does not hold.
    """
    exchange = Exchange(seed=7, markets=MARKETS, users=(UID,))
    published: dict[str, list[int]] = {market.upper(): [] for market in MARKETS}
    watcher = Watcher(server)
    looks = ticks = 0
    ends_s = time.monotonic() + seconds
    pause_s = time.monotonic() + pause_every_s
    try:
        while time.monotonic() < ends_s:
            for event in exchange.tick(time.time()):
                server.publish(event.routing_key, event.body)
                if event.routing_key.endswith(".trades"):
                    market = event.routing_key.split(".")[1].upper()
                    trades = json.loads(event.body)["trades"]
                    published[market] += [trade["tid"] for trade in trades]
            ticks += 1
            time.sleep(1 / TICKS_PER_S)
            if ticks % TICKS_PER_S == 0:
                watcher.catch_up()
            if time.monotonic() >= pause_s:
                server.catch_up()
                wait_for(lambda: is_right(watcher, exchange), what="the exchange's books")
                looks += 1
                pause_s = time.monotonic() + pause_every_s
        server.catch_up()
        wait_for(lambda: is_right(watcher, exchange), what="the exchange's books")
        assert watcher.deals == published, "deals are missing, doubled or out of order"
        missing = [family for family in PUSHES if not watcher.seen[family]]
        assert not missing, f"nothing came of {missing}"
        books = watcher.books.values()
        wholes, updates = sum(b.wholes for b in books), sum(b.updates for b in books)
    finally:
        watcher.close()
    return {"looks": looks + 1, "wholes": wholes, "updates": updates, **watcher.seen}


def main() -> int:
    """Run until the time is over."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak.viabtc", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    arguments = parser.parse_args()
    if "AMQP_URL" not in os.environ:
        parser.error("AMQP_URL is not set: run it by scripts/with-rabbitmq")
    with start_gateway(env=SETTINGS) as server:
        print(run(server, arguments.seconds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
