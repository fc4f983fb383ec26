"""A stage for clients that follow a book: a market, the real gateway, a way to it that breaks.

The market is the simulated one, advanced by the test itself, so that it knows the right book at
every moment.
"""

from __future__ import annotations

import contextlib
import time
from types import TracebackType
from typing import Any

from faults.relay import HOST, Relay
from support import Server, free_port, publish, start_gateway

from rango_gevent.demo.exchange import Exchange

MARKET = "btcusd"


class Stage:
    """The market's publisher, the gateway, and a relay that clients connect through.

    Args:
        env: settings of the gateway.
    """

    def __init__(self, **env: str) -> None:
        self.exchange = Exchange(seed=3, markets=(MARKET,), users=("ID7",), snapshot_every=60)
        self._env = env
        self._stack = contextlib.ExitStack()
        self._port = free_port()
        self.server = self._start(None)
        self.relay = self._stack.enter_context(Relay(self._port))

    def __enter__(self) -> Stage:
        """Do nothing: it runs already."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End all of it."""
        self._stack.close()

    @property
    def address(self) -> str:
        """Return host and port of the way through the relay."""
        return f"{HOST}:{self.relay.port}"

    def _start(self, exchange: str | None) -> Server:
        env = {**self._env, "RANGER_PORT": str(self._port)}
        return self._stack.enter_context(start_gateway(exchange=exchange, env=env))

    def restart(self, *, kill: bool = False) -> None:
        """End the gateway, in order or not, and start it again at the same port."""
        if kill:
            self.server.process.kill()
        self.server.end()
        self.server = self._start(self.server.exchange)

    def tick(self, *, lost: bool = False) -> Any:
        """Advance the market by a step.

        Args:
            lost: the gateway is not given the increments.

        Returns:
            The right book afterwards.
        """
        for event in self.exchange.tick(time.time()):
            if not (lost and event.routing_key.endswith("ob-inc")):
                publish(self.server.exchange, event.routing_key, event.body)
        return self.exchange.book(MARKET)
