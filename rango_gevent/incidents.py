"""What an operator must hear of: a CRITICAL line opens an incident, a line of recovery ends it.

Any room may say so; the log has both lines, and `rango_gevent.alerts` sends them to people where
RANGO_ALERT_URLS is set. An incident is known by a key: what is told of one again is counted.
"""

from __future__ import annotations

import logging

# with a level of its own: LOG_LEVEL=error must not hide that an incident is over
_recoveries = logging.getLogger("rango_gevent.recovered")
_recoveries.setLevel(logging.INFO)


def open_incident(
    log: logging.Logger, key: str, text: str, *args: object, exc_info: bool = False
) -> None:
    """Say at CRITICAL what is wrong.

    Args:
        log: of the module that says it.
        key: what the incident is known by, such as ``not ready``.
        text: with ``%s`` for each of ``args``.
        args: what goes into it.
        exc_info: log the traceback of the exception that is being handled.
    """
    log.critical(text, *args, exc_info=exc_info, extra={"incident": key})


def end_incident(key: str, text: str, *args: object) -> None:
    """Say that what was wrong is right again; nobody is alerted who was not told of it."""
    _recoveries.info(text, *args, extra={"recovered": key})
