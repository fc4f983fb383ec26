"""Patterns of public names by the real server."""

from __future__ import annotations

import json

from support import start_gateway


def test_a_pattern_is_followed() -> None:
    """What flows already, and what begins to flow while the client is connected."""
    with start_gateway(env={"RANGO_PATTERNS": "on"}) as server:
        server.publish("public.btcusd.trades", "0")
        server.catch_up()
        with server.connect("/public?stream=*.trades") as client:
            assert client.receive_json()["success"]["streams"] == ["*.trades", "btcusd.trades"]
            for market in ("btcusd", "ethusd", "xrpusd"):
                server.publish(f"public.{market}.trades", "1")
                assert client.receive() == json.dumps(
                    {f"{market}.trades": 1}, separators=(",", ":")
                )
            assert client.unsubscribe("*.trades") == []
