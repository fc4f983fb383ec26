"""A client of the gateway, for Python programs and for ``rango tail``.

Knows the wire contract and nothing of the server's insides; needs ``websockets``, ``ujson``
and ``sortedcontainers``. `core` decides, over `pool`, `link` and `wanted`; `stream` and `aio` are
the fronts, for threads and for asyncio; `testing` is a gateway for tests.
"""

from rango_gevent.client.limiter import TokenBucket
from rango_gevent.client.model import (
    ConnectionLost,
    Event,
    Gap,
    Limits,
    Notice,
    NotNow,
    Overflow,
    RequestFailed,
    StateChange,
    Stats,
    SubscriptionRefused,
)
from rango_gevent.client.orderbook import OrderBook
from rango_gevent.client.stream import StreamClient

__all__ = [
    "ConnectionLost",
    "Event",
    "Gap",
    "Limits",
    "NotNow",
    "Notice",
    "OrderBook",
    "Overflow",
    "RequestFailed",
    "StateChange",
    "Stats",
    "StreamClient",
    "SubscriptionRefused",
    "TokenBucket",
]
