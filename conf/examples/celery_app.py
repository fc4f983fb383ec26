"""A Celery application whose tasks tell users and markets what happened.

Run it by `celery -A celery_app worker`, with --pool=prefork, gevent, threads or solo.

AMQP_URL is the broker of tasks and events alike, RANGO_EXCHANGE the exchange of the gateway.
"""

from __future__ import annotations

import os

from celery import Celery
from celery.signals import worker_process_shutdown

from rango_gevent.publisher import Publisher

URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost:5672/%2F")

app = Celery("shop", broker=URL)
# one for each process: workers that are forked, and greenlets, connect on their own
publisher = Publisher(URL, on_down="buffer")


@worker_process_shutdown.connect
def leave(**more):
    """Send what waits: a forked worker's process ends without the interpreter's usual end."""
    publisher.close()


@app.task(ignore_result=True)
def tell_user(uid, topic, event):
    """Publish an event to a user's private stream."""
    publisher.publish(f"private.{uid}.{topic}", event)


@app.task(ignore_result=True)
def tell_market(market, trades):
    """Publish trades to everybody."""
    publisher.publish(f"public.{market}.trades", {"trades": trades})
