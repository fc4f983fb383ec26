"""``rango demo``: the gateway on an embedded broker with a simulated market.

Everything is the real thing but the broker, which is kombu's in-memory transport: the feed
is published to an exchange, consumed from it and fanned out to whoever connects.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import deque
from typing import Any, Mapping, Sequence
from urllib.parse import parse_qs

import gevent

from rango_gevent import logs
from rango_gevent.auth.keys import SigningKey, generate, load_private_key, load_public_key
from rango_gevent.auth.tokens import forge
from rango_gevent.commands.arguments import decimal, whole
from rango_gevent.commands.serve import serve_here
from rango_gevent.demo.exchange import Exchange
from rango_gevent.demo.tape import Event
from rango_gevent.errors import ConfigError
from rango_gevent.gateway import Gateway
from rango_gevent.server.http import App
from rango_gevent.settings import Settings, load
from rango_gevent.source.embedded import EmbeddedPublisher

_BROKER = "memory://"
_ORIGINS = "localhost:*,127.0.0.1:*,[::1]:*"
_UID = "IDDEMO01"
_ADMIN_UID = "IDADMIN01"
_ADMIN_ROLE = "admin"
_TOKEN_TTL_S = 24 * 3600.0
_PUBLISH = "/console/publish"
_MAX_WAITING = 1000  # events from the form

_WELCOME = """
Look at it: http://{address}/console

rango_gevent demo: {markets} on an embedded broker, seed {seed}

  public streams    ws://{address}/public
  private streams   ws://{address}/private    (user {uid})
  administrators    http://{address}/admin
  health            http://{address}/healthz
  metrics           {metrics}

  a token for {uid}, good for a day:
  {token}

See events arrive (another terminal):
  {rango} tail --url ws://{address} {first}.trades {first}.kline-1m global.tickers
  {rango} tail --url ws://{address} --token {token} order trade {first}.ob-inc

Pages of this machine may connect, whatever their port ({origins}).
Ctrl-C ends it.
"""


DESCRIPTION = """\
Serve a simulated exchange on an embedded broker: order books, trades, candles and
the orders of one user, with a token for it. Nothing needs to be set up."""
EXAMPLE = "  rango demo --markets btcusd,ethusd --rate 20"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    parser.add_argument(
        "--seed",
        type=whole(0),
        default=1,
        metavar="N",
        help="the whole market follows from it (default: %(default)s)",
    )
    parser.add_argument(
        "--markets",
        default="btcusd,ethusd,ltcbtc",
        metavar="A,B,C",
        help="markets, comma separated (default: %(default)s)",
    )
    parser.add_argument(
        "--rate",
        type=decimal(0.01, 1000),
        default=5.0,
        metavar="N",
        help="ticks a second; each moves every market (default: %(default)g)",
    )
    parser.add_argument(
        "-ws-addr",
        "--ws-addr",
        default="127.0.0.1:8080",
        metavar="HOST:PORT",
        help="address of the WebSocket listener (default: %(default)s)",
    )
    parser.add_argument(
        "--metrics-port",
        type=whole(0, 65535),
        metavar="N",
        help=f"port of the metrics listener, 0: none (default: {Settings.metrics_port})",
    )


def run(arguments: argparse.Namespace) -> int:
    """Serve the demo until a signal.

    Args:
        arguments: ``seed``, ``markets``, ``rate``, ``ws_addr``, ``metrics_port``.
    """
    private_pem, public_pem = generate()
    settings = load(_environ(arguments), _flags(arguments)).settings
    markets = tuple(name for name in arguments.markets.split(",") if name)
    exchange = _exchange(arguments, markets)
    key = load_private_key(private_pem)
    token = _forge(key, _UID, "member")
    logs.configure(settings.log_level, settings.log_format)

    def started(app: App) -> None:
        desk = Desk(token)
        desk.open(app, markets)
        if settings.admin_roles:
            admin_token = _forge(key, _ADMIN_UID, settings.admin_roles[0])
            app.admin_about["demo"] = {"token": admin_token, "uid": _ADMIN_UID}
        gateway = app.gateway
        gateway.spawn("demo-feed", lambda: _feed(gateway, exchange, desk, arguments.rate))
        host = (
            "127.0.0.1" if settings.ws_host in ("0.0.0.0", "::") else settings.ws_host
        )  # compared, not bound
        port = settings.metrics_port
        print(
            _WELCOME.format(
                markets=", ".join(markets),
                seed=arguments.seed,
                address=f"{host}:{settings.ws_port}",
                metrics=f"http://{host}:{port}/metrics" if port else "off",
                uid=_UID,
                token=token,
                rango=sys.argv[0] if os.sep in sys.argv[0] else "rango",
                first=markets[0],
                origins=f"API_CORS_ORIGINS={settings.origins}",
            ),
            flush=True,
        )

    serve_here(settings, [load_public_key(public_pem, "demo")], started)
    return 0


def _forge(key: SigningKey, uid: str, role: str) -> str:
    return forge(key, {"uid": uid, "role": role, "level": 3}, time.time(), _TOKEN_TTL_S)


def _environ(arguments: argparse.Namespace) -> dict[str, str]:
    """Return the environment for the demo: the broker and the key are its own."""
    defaults = {
        "LOG_LEVEL": "warn",
        "RANGER_HOST": "127.0.0.1",
        "API_CORS_ORIGINS": _ORIGINS,
        "RANGO_ADMIN_ROLES": _ADMIN_ROLE,
    }
    environ = {**defaults, **os.environ, "RANGO_AMQP_URL": _BROKER, "RANGO_WORKERS": "1"}
    environ["RANGO_CONSOLE"] = "on"
    if arguments.metrics_port is not None:
        environ["RANGO_METRICS_PORT"] = str(arguments.metrics_port)
    return environ


def _flags(arguments: argparse.Namespace) -> dict[str, str]:
    return {"ws-addr": arguments.ws_addr} if arguments.ws_addr else {}


def _exchange(arguments: argparse.Namespace, markets: tuple[str, ...]) -> Exchange:
    try:
        return Exchange(seed=arguments.seed, markets=markets, users=(_UID,))
    except ValueError as error:
        raise ConfigError(f"--markets={arguments.markets!r}: {error}") from None


class Desk:
    """What the demo's page has beside the console: a login by one click, and a form to publish.

    Args:
        token: of the demo's user, who alone may publish.
    """

    def __init__(self, token: str) -> None:
        self._token = token
        self._waiting: deque[Event] = deque(maxlen=_MAX_WAITING)

    def open(self, app: App, markets: Sequence[str]) -> None:
        """Put it beside the console."""
        app.about["demo"] = {"token": self._token, "uid": _UID, "market": markets[0]}
        app.actions[_PUBLISH] = self.publish

    def publish(self, environ: Mapping[str, Any]) -> tuple[int, str]:
        """Take an event from the form; the token in a header keeps other sites' pages out."""
        if environ.get("HTTP_AUTHORIZATION") != f"Bearer {self._token}":
            return 401, "Log in first."
        fields = parse_qs(environ.get("QUERY_STRING", ""), keep_blank_values=True)
        (key,), (body,) = fields.get("key", [""]), fields.get("body", [""])
        try:
            json.loads(body)
        except ValueError as error:
            return 400, f"The body is not JSON: {error}."
        if not key.isascii() or len(key.split(".")) not in (2, 3) or not all(key.split(".")):
            return 400, "A routing key has two or three parts, such as public.btcusd.trades."
        self._waiting.append(Event(key, body.encode()))
        return 202, f"Published to {key}."

    def take(self) -> list[Event]:
        """Return what is to be published now."""
        events = list(self._waiting)
        self._waiting.clear()
        return events


def _feed(gateway: Gateway, exchange: Exchange, desk: Desk, ticks_per_s: float) -> None:
    """Publish the simulated market for ever, at a steady pace."""
    with EmbeddedPublisher(_BROKER, gateway.settings.exchange) as publisher:
        due = time.monotonic()
        while True:
            if gateway.source.connected:  # an exchange without a queue drops the snapshots
                for event in [*desk.take(), *exchange.tick(time.time())]:
                    publisher.publish(event.routing_key, event.body)
            due = max(due + 1 / ticks_per_s, time.monotonic())
            gevent.sleep(due - time.monotonic())
