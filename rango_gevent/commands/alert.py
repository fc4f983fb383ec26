"""``rango alert --test``: send a test to every alert sink, each with one line of what became of it.

`try_sinks` is what `rango doctor --alert` shows too.
"""

from __future__ import annotations

import argparse
from typing import Iterator

from rango_gevent.alerts.deliver import Delivery, Job
from rango_gevent.alerts.letter import trial_letter
from rango_gevent.alerts.watch import alert_settings
from rango_gevent.commands.findings import FAIL, OK, Finding
from rango_gevent.commands.terminal import print_findings
from rango_gevent.environment import load_settings
from rango_gevent.errors import ConfigError
from rango_gevent.settings import Settings
from rango_gevent.urls import mask_sink

_GRACE_S = 2.0


DESCRIPTION = """\
Send a test to every sink of RANGO_ALERT_URLS; exit code 1 when one does not take it."""
EXAMPLE = "  RANGO_ALERT_URLS=udp://127.0.0.1:4444 rango alert --test"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    parser.add_argument("--test", action="store_true", required=True, help="send a test")


def run(arguments: argparse.Namespace) -> int:
    """Send a test; return 0, or 1 when a sink does not take it."""
    return print_findings(try_sinks(load_settings().settings))


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
