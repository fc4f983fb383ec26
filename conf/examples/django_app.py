"""A Django view that publishes when its transaction is committed, in one file for a try.

Run it by `gunicorn django_app:application`. AMQP_URL is the broker, RANGO_EXCHANGE the exchange
of the gateway.
"""

from __future__ import annotations

import os

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.db import transaction
from django.http import JsonResponse
from django.urls import path

from rango_gevent.publisher import Publisher

settings.configure(
    ROOT_URLCONF=__name__,
    ALLOWED_HOSTS=["*"],
    SECRET_KEY=os.environ.get("SECRET_KEY", "for a try"),
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
)

# made before workers are forked, with --preload too: each connects on its own
publisher = Publisher(
    os.environ.get("AMQP_URL", "amqp://guest:guest@localhost:5672/%2F"), on_down="buffer"
)


@transaction.atomic
def cancel(request, uid, order):
    """Cancel an order; its owner hears of it when that is certain."""
    publisher.publish_on_commit(f"private.{uid}.order", {"id": order, "state": "cancel"})
    if request.GET.get("fail"):
        raise ValueError("too late: the transaction is rolled back, and nobody hears a thing")
    return JsonResponse({"id": order})


urlpatterns = [path("cancel/<str:uid>/<int:order>", cancel)]
application = get_wsgi_application()
