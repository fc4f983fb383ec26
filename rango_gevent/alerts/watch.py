"""Alerts of one process: made of the settings, put into the log, and what only time can tell.

The parent of workers calls `share` before it forks: its workers then use the courier that it
started. What only time can tell is that a gateway is not ready for too long, and that what failed
has run well since.
"""

from __future__ import annotations

import importlib.util
import logging
import socket
import time
from typing import Callable, Mapping

import gevent

from rango_gevent import logs
from rango_gevent.alerts.courier import OUTCOMES
from rango_gevent.alerts.deliver import missing
from rango_gevent.alerts.handler import Alerts, AlertSettings
from rango_gevent.errors import ConfigError
from rango_gevent.incidents import end_incident, open_incident
from rango_gevent.settings import Settings

log = logging.getLogger(__name__)

NOT_READY = "not ready"
_LOOK_S = 0.5
_STEADY_S = 10.0
_NO_MESSAGES = dict.fromkeys(OUTCOMES, 0)
_shared: Alerts | None = None


def greenlet_incident(name: str) -> str:
    """Return what the failure of a long-lived greenlet is known by."""
    return f"greenlet {name}"


def alert_settings(settings: Settings, shows_pid: bool = False) -> AlertSettings:
    """Return what the courier is told of the settings.

    Raises:
        ConfigError: a library that a sink needs is not installed.
    """
    for name in sorted(missing(settings.alert_urls)):
        if importlib.util.find_spec(name) is None:
            raise ConfigError(
                f"RANGO_ALERT_URLS: {name} is not installed: pip install 'rango-gevent[alerts]'"
            )
    return AlertSettings(
        settings.alert_urls,
        settings.alert_name or socket.gethostname(),
        settings.alert_interval_s,
        settings.alert_timeout_s,
        settings.alert_lines,
        settings.log_level,
        settings.log_format,
        shows_pid,
    )


def share(settings: Settings, logger: logging.Logger) -> Alerts:
    """Start the alerts of a parent; the processes that it forks use them too.

    Args:
        settings: of all of them.
        logger: the parent's own, and its workers'.

    Raises:
        ConfigError: as `alert_settings`.
    """
    global _shared
    _shared = Alerts(alert_settings(settings, shows_pid=True), logger)
    _shared.start()
    logger.addHandler(_shared)
    return _shared


class Watch:
    """Watches one gateway, and tells alerts of it.

    Args:
        settings: the gateway's.
        problem: says why the gateway is not ready, empty when it is; None when it ends.
        restarts: how often greenlets were started again, by name.
        now: monotonic time in seconds.

    Attributes:
        alerts: where to; without sinks nothing is sent, and the log has the lines all the same.
    """

    def __init__(
        self,
        settings: Settings,
        problem: Callable[[], str | None],
        restarts: Mapping[str, int],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.alerts = _shared or Alerts(alert_settings(settings))
        self.alerts.adopt(_LOOK_S)
        self._patience_s = settings.alert_not_ready_s
        self._problem = problem
        self._restarts = restarts
        self._now = now
        self._since: float | None = None
        self._is_told = False
        self._seen: dict[str, int] = {}
        self._steady_at: dict[str, float] = {}

    def start(self) -> None:
        """Begin to listen to the log."""
        if self.alerts is not _shared:
            self.alerts.start()
        logs.log.addHandler(self.alerts)

    def stop(self) -> None:
        """Hand over what is left, and leave the log alone."""
        logs.log.removeHandler(self.alerts)
        self.alerts.goodbye()

    def reading(self) -> dict[str, float | Mapping[str, int]]:
        """Return what is counted, for a scrape."""
        return {
            "rango_alert_lines": self.alerts.handed,
            "rango_alert_messages": {**_NO_MESSAGES, **self.alerts.delivered},
        }

    def run(self) -> None:
        """Look for ever."""
        while True:
            self.look()
            self.alerts.flush()
            gevent.sleep(_LOOK_S)

    def look(self) -> None:
        """Say what has become CRITICAL, and what is right again."""
        self._look_at_readiness()
        self._look_at_greenlets()

    def _look_at_readiness(self) -> None:
        problem, now = self._problem(), self._now()
        if problem is None:
            return
        if not problem:
            if self._is_told and self._since is not None:
                end_incident(NOT_READY, "ready again after %.0f s", now - self._since)
            self._since, self._is_told = None, False
        elif self._since is None:
            self._since = now
        elif not self._is_told and now - self._since >= self._patience_s:
            self._is_told = True
            open_incident(log, NOT_READY, "not ready for %g s: %s", self._patience_s, problem)

    def _look_at_greenlets(self) -> None:
        now = self._now()
        for name, count in self._restarts.items():
            if count != self._seen.get(name, 0):
                self._seen[name] = count
                self._steady_at[name] = now + _STEADY_S
        for name in [name for name, at in self._steady_at.items() if now >= at]:
            del self._steady_at[name]
            key = greenlet_incident(name)
            end_incident(key, "greenlet %s has run for %g s since", name, _STEADY_S)
