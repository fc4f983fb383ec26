"""A client of the gateway, for Python programs and for ``rango tail``.

Knows the wire contract and nothing of the server's insides.
"""

from rango_gevent.client.stream import Notice, StreamClient
from rango_gevent.client.wire import ConnectionLost, Event

__all__ = ["ConnectionLost", "Event", "Notice", "StreamClient"]
