"""Transcripts recorded from Go Rango, replayed: what it sent to its clients, we send."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path
from typing import Any, Iterator

import pytest
from support import PATIENCE_S, Client, Server, start_gateway
from websockets.exceptions import InvalidStatus

VECTORS = json.loads((Path(__file__).parent.parent / "vectors" / "rango.json").read_text())
FENCE = "fence.fence"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """One server with the settings of all scenarios; only one of them keeps a book."""
    settings: dict[str, str] = {}
    for scenario in VECTORS:
        settings.update(scenario.get("env", {}))
    with start_gateway(env=settings) as running:
        yield running


class Replay:
    """The clients of one scenario and what each has received.

    The recording knows the order in which a client received and no times. So a step is over
    when a later message has come all the way from the broker, and every client has got the
    answer to a later ping: events and pongs share one way, so none overtakes the other.
    """

    def __init__(self, server: Server) -> None:
        self.server = server
        self.clients: dict[str, Client] = {}
        self.received: dict[str, list[str]] = {}
        self.status: dict[str, int] = {}
        self.fence = server.connect(f"/public?stream={FENCE}")

    def close(self) -> None:
        """Close all connections."""
        for client in [self.fence, *self.clients.values()]:
            client.close()

    def run(self, step: dict[str, Any]) -> None:
        """Do one step and wait until all that follows from it has arrived."""
        if "connect" in step:
            self.connect(step["connect"], step)
        elif "send" in step:
            self.clients[step["send"]].send(step["text"])
        elif "publish" in step:
            self.server.publish(step["publish"], step["body"])
        else:
            raise AssertionError(f"unknown step {step}")
        self.settle()

    def connect(self, name: str, step: dict[str, Any]) -> None:
        """Open a connection and note the status of its handshake."""
        self.received[name] = []
        headers = {"Authorization": step["token"]} if "token" in step else None
        token = self.server.token(**step["claims"]) if "claims" in step else None
        try:
            self.clients[name] = self.server.connect(step["path"], token, headers)
            self.status[name] = 101
        except InvalidStatus as error:
            self.status[name] = error.response.status_code

    def settle(self) -> None:
        """Wait until all that was published is handed out, and note what clients received."""
        stamp = json.dumps(time.monotonic())
        self.server.publish(f"public.{FENCE}", stamp)
        self.fence.receive_until(lambda message: stamp in message)
        for name, client in self.clients.items():
            assert client.connection.ping().wait(PATIENCE_S), f"{name} got no pong"
            with contextlib.suppress(TimeoutError):
                while True:
                    self.received[name].append(client.receive(timeout_s=0))


def canonical(message: str) -> str:
    """Normalise JSON, since Go sorts keys and drops blanks and we change nothing."""
    try:
        return json.dumps(json.loads(message), sort_keys=True)
    except ValueError:
        return message


@pytest.mark.parametrize("scenario", VECTORS, ids=lambda scenario: scenario["name"])
def test_clients_receive_what_rango_sent_them(server: Server, scenario: dict[str, Any]) -> None:
    """Every client gets Rango's handshake status and Rango's messages, in Rango's order."""
    replay = Replay(server)
    try:
        for step in scenario["steps"]:
            replay.run(step)
        expect = {name: e for name, e in scenario["expect"].items() if not name.startswith("__")}
        assert replay.status == {name: e["status"] for name, e in expect.items()}
        for name, expected in expect.items():
            received = [canonical(message) for message in replay.received[name]]
            assert received == [canonical(message) for message in expected["received"]], name
    finally:
        replay.close()
    assert server.process.poll() is None
