"""``rango alert --test``: send a test to every alert sink, each with one line of what became of it.

`try_sinks` is what `rango doctor --alert` shows too.
"""

from __future__ import annotations

from typing import Iterator

from rango_gevent.alerts.deliver import Delivery, Job
from rango_gevent.alerts.letter import trial_letter
from rango_gevent.alerts.watch import alert_settings
from rango_gevent.commands.findings import FAIL, OK, Finding
from rango_gevent.errors import ConfigError
from rango_gevent.settings import Settings
from rango_gevent.urls import mask_sink

_GRACE_S = 2.0


def try_sinks(settings: Settings) -> Iterator[Finding]:
    """Send a test to each sink of RANGO_ALERT_URLS, one after the other, in bounded time."""
    try:
        given = alert_settings(settings)
    except ConfigError as error:
        yield Finding(FAIL, str(error))
        return
    if not given.urls:
        yield Finding(
            FAIL, "RANGO_ALERT_URLS is not set", "nobody is alerted; docs/ALERTS.md has examples"
        )
    letter = trial_letter(given.host)
    for number, url in enumerate(given.urls, 1):
        name = f"alert sink {number} ({mask_sink(url)})"
        job = Job(url, given.host, given.timeout_s, letter)
        problem = Delivery(job).wait(given.timeout_s + _GRACE_S)
        if problem:
            yield Finding(FAIL, f"{name}: {problem}", "correct RANGO_ALERT_URLS")
        else:
            yield Finding(OK, f"{name} took a test")
