"""A client that speaks ViaBTC's protocol and nothing else, written from its description."""

from __future__ import annotations

import json
import time
from collections import deque
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Any, Callable

from support import PATIENCE_S, Client, Server

TIME_LIMIT_S = PATIENCE_S


class ViabtcClient:
    """Asks, and keeps the pushes that come meanwhile.

    Attributes:
        pushes: what came and nobody took yet.
        raw: every message as it came.
    """

    def __init__(self, server: Server, path: str = "/viabtc", token: str | None = None) -> None:
        self._client: Client = server.connect(path, token)
        self._id = 0
        self.pushes: deque[dict[str, Any]] = deque()
        self.raw: list[str] = []

    def __enter__(self) -> ViabtcClient:
        return self

    def __exit__(self, *error: object) -> None:
        self._client.close()

    @property
    def client(self) -> Client:
        """Return the WebSocket client under it."""
        return self._client

    def send(self, method: str, *params: Any) -> int:
        """Send a request; return its id."""
        self._id += 1
        self._client.send({"id": self._id, "method": method, "params": list(params)})
        return self._id

    def read(self, timeout_s: float = TIME_LIMIT_S) -> dict[str, Any]:
        """Return the next message."""
        text = self._client.receive(timeout_s)
        self.raw.append(text)
        said: dict[str, Any] = json.loads(text)
        return said

    def reply(self, id: int | None) -> dict[str, Any]:
        """Return the reply to a request; pushes that come before it are kept."""
        while True:
            said = self.read()
            if "method" in said:
                assert set(said) == {"id", "method", "params"}, said
                assert said["id"] is None, said
                self.pushes.append(said)
                continue
            assert set(said) == {"error", "result", "id"}, said
            assert said["id"] == id, said
            return said

    def ask(self, method: str, *params: Any) -> Any:
        """Return the result of a request."""
        said = self.reply(self.send(method, *params))
        assert said["error"] is None, said
        return said["result"]

    def fail(self, method: str, *params: Any) -> tuple[int, str]:
        """Return code and message of a request that fails."""
        said = self.reply(self.send(method, *params))
        assert said["result"] is None, said
        return said["error"]["code"], said["error"]["message"]

    def push(self, method: str) -> Any:
        """Return the params of the next push, which must be of a method."""
        while not self.pushes:
            said = self.read()
            assert "method" in said, said
            self.pushes.append(said)
        said = self.pushes.popleft()
        assert said["method"] == method, said
        return said["params"]

    def push_where(self, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Return the first push that something holds of; those before it are thrown away."""
        deadline = time.monotonic() + TIME_LIMIT_S
        while time.monotonic() < deadline:
            said = self.pushes.popleft() if self.pushes else self.read()
            if "method" in said and holds(said):
                return said
        raise AssertionError("no such push came in time")

    def is_silent(self) -> bool:
        """Tell whether nothing came before the reply to a request that is sent now."""
        assert self.ask("server.ping") == "pong"
        return not self.pushes


def shown(
    levels: dict[Decimal, Decimal], is_ask: bool, limit: int, merge: str
) -> list[tuple[Decimal, Decimal]]:
    """Return what a view shows of one side of a book, worked out without the code under test."""
    merged: dict[Decimal, Decimal] = {}
    step = Decimal(merge)
    for price, amount in levels.items():
        rounding = ROUND_CEILING if is_ask else ROUND_FLOOR
        at = (price / step).to_integral_value(rounding) * step if step else price
        merged[at] = merged.get(at, Decimal(0)) + amount
    return sorted(merged.items(), reverse=not is_ask)[:limit]


class DepthBook:
    """A book by ``depth.update`` alone."""

    def __init__(self) -> None:
        self.asks: dict[Decimal, Decimal] = {}
        self.bids: dict[Decimal, Decimal] = {}
        self.wholes = self.updates = 0

    def take(self, params: list[Any]) -> None:
        """Take the params of a push."""
        is_whole, sides = params[:2]
        if is_whole:
            self.asks, self.bids = {}, {}
            self.wholes += 1
        else:
            assert self.wholes, "a difference without a book"
            self.updates += 1
        for name, levels in sides.items():
            mine = self.asks if name == "asks" else self.bids
            for price, amount in levels:
                if Decimal(amount):
                    mine[Decimal(price)] = Decimal(amount)
                else:
                    del mine[Decimal(price)]

    def sides(self) -> tuple[list[tuple[Decimal, Decimal]], list[tuple[Decimal, Decimal]]]:
        """Return asks and bids, the best first."""
        return sorted(self.asks.items()), sorted(self.bids.items(), reverse=True)
