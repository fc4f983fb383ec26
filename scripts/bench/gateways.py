"""Gateways that are measured: one that is started for it, or one that runs already.

They are fed through the broker, whose processor time is not counted.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import signal
import sys
import time
import uuid
from pathlib import Path
from typing import Any, Iterator, Mapping, Sequence
from urllib.parse import urlsplit

from kombu.connection import Connection
from rabbitmq_node import free_port

from bench import machine, messages
from bench.scenarios import (
    PRIVATE,
    Scenario,
)
from bench.servers import HOST, Dial, Server, Started, Work, pump_on
from bench.tools import BenchError, Tool
from rango_gevent.auth.keys import SigningKey, generate, load_private_key
from rango_gevent.auth.tokens import forge
from rango_gevent.settings import ENV_FILE
from rango_gevent.urls import mask_url

_BROKER_TIMEOUT_S = 10.0
_PACKAGE_PARENT = str(Path(__file__).resolve().parents[2])


class Gateway(Server):
    """A gateway that runs already, ours or another with the same protocol.

    Args:
        name: what to call it.
        port: of its WebSocket listener.
        base: path in front of ``/public`` and ``/private``.
        pids: its processes.
        exchange: its exchange.
        key: signs tokens that it accepts; None: scenarios with tokens cannot run.
        broker_url: its broker.
    """

    uses_broker = True

    def __init__(
        self,
        name: str,
        port: int,
        base: str,
        pids: Sequence[int],
        exchange: str,
        key: SigningKey | None,
        broker_url: str,
    ) -> None:
        self.name = name
        self._port = port
        self._base = base
        self._pids = list(pids)
        self._broker_url = broker_url
        self._exchange = exchange
        self._key = key

    @property
    def pids(self) -> list[int]:
        """Return the processes that were named."""
        return self._pids

    def dial(self, scenario: Scenario) -> Dial:
        """Return the path with its streams."""
        topics = scenario.topics()
        if scenario.viabtc:
            markets = [name.partition(".")[0].upper() for name in topics.held]
            request = {"id": 1, "method": "deals.subscribe", "params": markets}
            return Dial(self._port, f"{self._base}/viabtc", json.dumps(request))
        held = ",".join(topics.held)
        by_message = scenario.login_by == "message"
        path = "/private" if scenario.tokens and not by_message else "/public"
        return Dial(self._port, f"{self._base}{path}" + (f"?stream={held}" if held else ""))

    def tokens(self, scenario: Scenario) -> list[str]:
        """Sign a token for each client; client i is the user IDi."""
        if not scenario.tokens:
            return []
        if self._key is None:
            raise BenchError("name the private key whose tokens the gateway accepts by --token-key")
        now = time.time()
        return [forge(self._key, {"uid": f"ID{i}"}, now, 86_400) for i in range(scenario.clients)]

    @contextlib.contextmanager
    def flow(self, work: Work) -> Iterator[Tool]:
        """Publish to the exchange."""
        scope = "private" if work.scenario.audience == PRIVATE else "public"
        with broker(self._broker_url) as connection:
            channel = connection.channel()
            encode = messages.amqp_publish(self._exchange, channel.channel_id)
            sock = connection.connection.sock
            with pump_on(work, sock, encode, lambda name: f"{scope}.{name}") as tool:
                yield tool
            channel.close()  # the broker has taken everything, or says what was wrong


class OwnGateway(Gateway):
    """A gateway started for one scenario, with ports, exchange and keys of its own.

    Args:
        broker_url: the broker.
        scenario: sets the workers and what else it asks for.
        environ: what it inherits; its ``RANGO_*`` settings hold unless they are set here.
    """

    def __init__(self, broker_url: str, scenario: Scenario, environ: Mapping[str, str]) -> None:
        private_pem, public_pem = generate()
        exchange = f"rango.bench.{uuid.uuid4().hex[:12]}"
        key = load_private_key(private_pem)
        super().__init__("rango", free_port(), "", [], exchange, key, broker_url)
        env = {
            **environ,
            "PYTHONPATH": os.pathsep.join(
                filter(None, (_PACKAGE_PARENT, environ.get("PYTHONPATH", "")))
            ),
            "RANGER_HOST": HOST,
            "RANGER_PORT": str(self._port),
            "RANGO_METRICS_HOST": HOST,
            "RANGO_METRICS_PORT": str(free_port()),
            "RANGO_AMQP_URL": broker_url,
            "RANGO_EXCHANGE": exchange,
            "RANGO_WORKERS": str(scenario.workers),
            "RANGO_MAX_CONNECTIONS": str(scenario.clients + 1000),
            "RANGO_MAX_CONNECTIONS_PER_ADDRESS": "0",
            "RANGO_MAX_AGE_S": "0",
            "RANGO_DRAIN_S": "0.2",
            "RANGO_CLOSE_TIMEOUT_S": "1",
            "JWT_PUBLIC_KEY": base64.b64encode(public_pem.encode()).decode(),
            **scenario.settings,
        }
        env.pop(ENV_FILE, None)  # what it sets would win over all of this
        self._own = Started([sys.executable, "-m", "rango_gevent"], env)
        try:
            self._own.wait_until(self._is_ready)
        except BaseException:
            self.close()
            raise

    def _is_ready(self) -> bool:
        connection = http.client.HTTPConnection(HOST, self._port, timeout=2)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    @property
    def pids(self) -> list[int]:
        """Return the gateway's process and its workers."""
        return machine.family(self._own.process.pid)

    def hold(self) -> None:
        """Stop its processes."""
        for pid in self.pids:
            os.kill(pid, signal.SIGSTOP)

    def release(self) -> None:
        """Let its processes go on."""
        for pid in self.pids:
            os.kill(pid, signal.SIGCONT)

    def close(self) -> None:
        """End the gateway and delete its exchange, and its log, which would stay."""
        self._own.end()
        with contextlib.suppress(BenchError), broker(self._broker_url) as connection:
            connection.channel().exchange_delete(self._exchange)
            connection.channel().queue_delete(f"rango.log.{self._exchange}")


@contextlib.contextmanager
def broker(url: str) -> Iterator[Any]:
    """Connect to the broker.

    Raises:
        BenchError: it is not there, refuses, or ends the connection.
    """
    connection = Connection(url, connect_timeout=_BROKER_TIMEOUT_S, heartbeat=0)
    try:
        connection.connect()
        connection.connection.sock.settimeout(_BROKER_TIMEOUT_S)
        yield connection
    except (*connection.connection_errors, *connection.channel_errors) as error:
        text = str(error) or type(error).__name__
        raise BenchError(f"the broker at {mask_url(url)}: {text}") from None
    finally:
        with contextlib.suppress(Exception):  # a broker that is gone cannot be left any better
            connection.close()


def broker_version(url: str) -> str:
    """Return the broker's product and version.

    Raises:
        BenchError: it is not there.
    """
    with broker(url) as connection:
        properties = connection.connection.server_properties
        return f"{properties.get('product', 'AMQP broker')} {properties.get('version', '')}".strip()


def broker_pids(url: str) -> list[int]:
    """Return the broker's process, empty when it cannot be found."""
    return machine.listener(urlsplit(url).port or 5672)


def needs_own(scenario: Scenario) -> bool:
    """Tell whether a scenario needs a gateway that is started for it."""
    return scenario.workers != 1 or scenario.backlog or bool(scenario.settings)
