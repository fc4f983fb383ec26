"""A client of ViaBTC's protocol on the simulated exchange: everything at once, and right."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from typing import Any

from support import HOST, connect, free_port, server_env, start_gateway, wait_for
from viabtc_client import DepthBook
from websockets.exceptions import ConnectionClosed

from tests.soak.viabtc import FORMS, MARKETS, PUSHES, SETTINGS, run


def test_everything_at_once() -> None:
    """The short form of the soak: books are the publisher's, deals complete."""
    with start_gateway(env=SETTINGS) as server:
        counts = run(server, 6, pause_every_s=1)
    assert counts["looks"] >= 3
    assert counts["updates"] > 50
    assert counts["wholes"] > len(MARKETS) * len(FORMS)


def test_the_demo_itself(tmp_path: Any) -> None:
    """`rango demo` with the setting: all families come, to the user of its token too."""
    port = free_port()
    command = [sys.executable, "-m", "rango_gevent", "demo", "--ws-addr", f"{HOST}:{port}"]
    env = {**server_env("unused"), "RANGO_VIABTC": "on"}
    log = tmp_path / "log"
    with open(log, "wb") as out:
        demo = subprocess.Popen(
            [*command, "--metrics-port", "0"], env=env, stdout=out, stderr=subprocess.STDOUT
        )
    try:
        found = wait_for(lambda: re.search(r"eyJ\S+", log.read_text()), what="the token")
        wait_for(lambda: _answers(f"ws://{HOST}:{port}"), what="the port")
        families = _families(f"ws://{HOST}:{port}", found[0])
    finally:
        demo.terminate()
        demo.wait(60)
    assert families >= {f"{family}.update" for family in PUSHES}


def _answers(url: str) -> bool:
    try:
        connect(url, "/viabtc").close()
    except (OSError, ConnectionClosed):
        return False
    return True


def _families(url: str, token: str) -> set[str]:
    seen: set[str] = set()
    book = DepthBook()
    with connect(url, "/viabtc") as client:
        requests = [
            ("server.auth", [token, "web"]),
            ("kline.subscribe", ["BTCUSD", 60]),
            ("depth.subscribe", ["BTCUSD", 20, "0"]),
            *((f"{f}.subscribe", ["BTCUSD"]) for f in ("price", "state", "today", "deals")),
            ("order.subscribe", [market.upper() for market in MARKETS]),
        ]
        for id, (method, params) in enumerate(requests):
            client.send({"id": id, "method": method, "params": params})
        deadline = time.monotonic() + 60
        while len(seen) < len(PUSHES) and time.monotonic() < deadline:
            said = json.loads(client.receive(30))
            if "method" in said:
                seen.add(said["method"])
                if said["method"] == "depth.update":
                    book.take(said["params"])
            else:
                assert said["error"] is None, said
    asks, bids = book.sides()
    assert len(asks) == len(bids) == 20
    assert asks[0][0] > bids[0][0]
    return seen
