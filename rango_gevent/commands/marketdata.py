"""``rango marketdata``: candles and tickers from trades, in a process of its own."""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import time
from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Any, Callable
from zoneinfo import ZoneInfo

import gevent

from rango_gevent import __version__, logs
from rango_gevent.commands import marketdata_options
from rango_gevent.commands.arguments import add_setting_flags, setting_flags
from rango_gevent.commands.marketdata_import import bring_in
from rango_gevent.commands.marketdata_options import Options
from rango_gevent.environment import load_settings, with_file
from rango_gevent.errors import ConfigError
from rango_gevent.marketdata.desk import Limits
from rango_gevent.marketdata.metrics import text_of
from rango_gevent.marketdata.opening import open_store
from rango_gevent.marketdata.store import StoreError, TakenOver
from rango_gevent.marketdata.worker import Plan, Worker
from rango_gevent.server.exchange import status_line
from rango_gevent.server.metrics_port import MetricsServer
from rango_gevent.settings import Settings
from rango_gevent.source.base import BrokerLimits, LogLimits, QueueLimits
from rango_gevent.urls import mask_url

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse

_FAILED = 1
_TAKEN_OVER = 3
_HEALTH = ("/healthz", "/readyz")
_METRICS_TIMEOUT_S = 10.0


DESCRIPTION = """\
Consume trades, keep candles, last prices, the last 24 hours and today, publish klines
and tickers to the same exchange, and answer questions over AMQP. Until SIGTERM.
With `import FILE`: bring in history, CSV of trades or of candles. docs/MARKETDATA.md
tells more. Needs pip install 'rango-gevent[marketdata]'."""
EXAMPLE = """\
  rango marketdata --store postgresql://rango@db/marketdata
  rango marketdata import trades.csv"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    for part in marketdata_options.add_arguments(parser):
        add_setting_flags(part, "amqp-addr", "exchange")


def run(arguments: argparse.Namespace) -> int:
    """Run until a signal.

    Args:
        arguments: with the flags of `marketdata_options`, and those of the gateway's settings,
            of which broker, exchange, log level and metrics address count.

    Returns:
        0 after a signal, 1 when a part of it failed, 3 when another process has taken over.

    Raises:
        ConfigError: a setting is wrong, or the store cannot be opened.
    """
    settings = load_settings(setting_flags(arguments)).settings
    options = marketdata_options.load(arguments, with_file(os.environ))
    if arguments.action == "import":
        return bring_in(arguments.file, options.store, settings.exchange, arguments.replace)
    if any(url.startswith("memory:") for url in settings.broker_urls):
        raise ConfigError("memory:// is no broker that another process could hear")
    logs.configure(settings.log_level, settings.log_format)
    try:
        worker = Worker(_plan(options, settings), open_store(options.store, settings.exchange))
    except StoreError as error:
        logs.log.error("no store at %s: %s", mask_url(options.store), error)
        return _FAILED
    logs.log.info(
        "rango_gevent %s: market data of exchange %s, %s, state in %s, %d markets there",
        __version__,
        settings.exchange,
        "from the log" if worker.plan.log_limits else "live",
        mask_url(options.store),
        len(worker.desk.markets),
    )
    port = _Port(worker, settings.metrics_host, options.metrics_port)
    if options.metrics_port:
        try:
            port.start()
        except OSError as error:
            raise ConfigError(
                f"RANGO_MARKETDATA_METRICS_PORT={options.metrics_port}: "
                f"{os.strerror(error.errno or 0)}; give another port, or 0 for none"
            ) from None
    worker.start()
    _end_on_signals(worker)
    worker.wait()
    worker.stop()
    port.stop()
    return _outcome(worker)


def _outcome(worker: Worker) -> int:
    if worker.failure is None:
        return 0
    if isinstance(worker.failure, TakenOver):
        logs.log.error("another process has taken over the store: this one ends")
        return _TAKEN_OVER
    logs.log.error("ended: %s", worker.failure)
    return _FAILED


def _end_on_signals(worker: Worker) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        gevent.signal_handler(number, worker.end)


def _plan(options: Options, settings: Settings) -> Plan:
    source = options.source
    if source == "auto":
        source = "stream" if settings.log == "stream" else "live"
    return Plan(
        urls=list(settings.broker_urls),
        exchange=settings.exchange,
        broker=BrokerLimits(
            timeout_s=settings.broker_timeout_s,
            heartbeat_s=settings.broker_heartbeat_s,
            queue=QueueLimits(settings.broker_queue_length, settings.broker_queue_ttl_s),
        ),
        log_limits=_log_limits(settings) if source == "stream" else None,
        from_end=options.begin == "next",
        limits=Limits(options.trades, options.late_s, options.ahead_s, options.markets),
        max_unsaved=options.unsaved,
        flush_s=options.flush_s,
        publish_s=options.publish_s,
        tickers_s=options.tickers_s,
        periods=options.periods,
        quotes=options.quotes,
        is_flat=options.silent == "flat",
        midnight=midnight_in(options.timezone),
        keep_s=dict(options.keep),
        prune_s=options.prune_s,
        max_points=options.points,
        rpc_queue=options.rpc_queue,
        rpc_limits=QueueLimits(options.rpc_waiting, options.rpc_wait_s),
    )


def _log_limits(settings: Settings) -> LogLimits:
    """Return what a log is declared with that is not there; reading it may last."""
    return LogLimits(
        bytes=settings.log_bytes,
        segment_bytes=settings.log_segment_bytes,
        window_s=0.0,
        fill_s=math.inf,
        spare=0,
    )


def midnight_in(timezone: str) -> Callable[[float], int]:
    """Return what tells when the day of a time began in a time zone, in Unix time."""
    zone = ZoneInfo(timezone)

    def midnight(at_s: float) -> int:
        day = datetime.fromtimestamp(at_s, zone)
        return int(day.replace(hour=0, minute=0, second=0, microsecond=0, fold=0).timestamp())

    return midnight


class _Port(MetricsServer):
    """The metrics port; it answers for the worker's health too."""

    def __init__(self, worker: Worker, host: str, port: int) -> None:
        super().__init__(
            lambda: text_of(worker), host, port, connections=20, timeout_s=_METRICS_TIMEOUT_S
        )
        self._worker = worker

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Answer a scrape, or a question for health."""
        if environ.get("PATH_INFO") not in _HEALTH:
            return super().__call__(environ, start_response)
        problem = self._worker.problem
        status = 503 if problem and environ["PATH_INFO"] == "/readyz" else 200
        body = json.dumps(
            {
                "ready": not problem,
                "problem": problem,
                "saved_ago_s": round(time.monotonic() - self._worker.saved_at, 1),
                "lag_s": round(self._worker.lag_s, 3),
            }
        ).encode()
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        start_response(status_line(status), headers)
        return [body]
