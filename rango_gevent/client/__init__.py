"""A client of the gateway, for Python programs and for ``rango tail``.

Knows the wire contract and nothing of the server's insides.
"""

from rango_gevent.client.stream import ConnectionLost, Event, Notice, StreamClient

__all__ = ["ConnectionLost", "Event", "Notice", "StreamClient"]
