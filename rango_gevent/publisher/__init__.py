"""A publisher for shops: one call from Celery tasks, Django views, threads and greenlets.

Knows AMQP and the names of streams, and nothing of the server; it runs without gevent.
"""

from rango_gevent.errors import PublishError
from rango_gevent.publisher.market import Market
from rango_gevent.publisher.publisher import Batch, Publisher, Stats

__all__ = ["Batch", "Market", "PublishError", "Publisher", "Stats"]
