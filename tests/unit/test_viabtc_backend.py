"""What backends answer, in the dialect's words."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from rango_gevent.rpc.desk import Desk, Row
from rango_gevent.viabtc.backend import RpcBackend
from rango_gevent.viabtc.names import Names


def asked(result: bytes) -> Any:
    """Return what a client is told for candles of BTCBCH."""
    desk = Desk([Row("kline.query", lambda question: b'{"error":null,"result":%b}' % result)])
    return RpcBackend(desk, Names()).ask("kline.query", ["btcbch", 0, 9, 60], None)


@pytest.mark.parametrize(
    ("result", "told"),
    [
        (b"[]", []),
        (b'[[1,"1","2","3","0","9","8","btcbch"]]', [[1, "1", "2", "3", "0", "9", "8", "BTCBCH"]]),
        (b'[[1,"1","2","3","0","9","8","B-1"],[2,"1","2","3","0","9","8","B-1"]]',
         [[n, "1", "2", "3", "0", "9", "8", "BTCBCH"] for n in (1, 2)]),
        (b'[\n  [1, "1", "2", "3", "0", "9", "8",\n  "b"]]', [[1, "1", "2", "3", "0", "9", "8", "BTCBCH"]]),
        (b'[[1,"1","2","3","0","9","8"]]', [[1, "1", "2", "3", "0", "9", "8", "BTCBCH"]]),
        (b'[[1,"1","2","3","0","9","8",7]]', [[1, "1", "2", "3", "0", "9", "8", "BTCBCH"]]),
        (b'[[1,"1","2","3","0","9","8","1"]]', [[1, "1", "2", "3", "0", "9", "8", "BTCBCH"]]),
        (b'[[1,"1","2","3","0","9","8","1INCH"]]', [[1, "1", "2", "3", "0", "9", "8", "BTCBCH"]]),
        (b'[[1,"1","2","3","0","9","8","\\u0042"]]', [[1, "1", "2", "3", "0", "9", "8", "BTCBCH"]]),
        (b'{"odd":1}', {"odd": 1}),
        (b"[7,null]", [7, None]),
    ],
)  # fmt: skip
def test_candles_name_the_market_as_clients_do(result: bytes, told: Any) -> None:
    """Whatever the engine calls it; what is no candle comes as it is."""
    assert msgspec.json.decode(asked(result)) == told


def test_many_candles_are_not_taken_apart() -> None:
    """Only the name is changed, and the rest stays to the letter."""
    row = b'[1492358400, "1.50", "2", "3", "0", "9e0", "8", "%b"]'
    result = b"[" + b", ".join([row] * 1000) + b"]"
    assert asked(result % ((b"btcbch",) * 1000)) == result % ((b"BTCBCH",) * 1000)
