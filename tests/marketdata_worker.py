"""``rango marketdata`` as a process of its own, and the questions that it is asked."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any, Iterator, Mapping

import amqp
from support import (
    PATIENCE_S,
    broker_address,
    free_port,
    http_request,
    sample_of,
    server_env,
    wait_for,
)


class MarketdataWorker:
    """A worker that can be killed and started again on the same state.

    Args:
        directory: for its log and its state.
        exchange: whose trades it takes.
        env: settings over the defaults.
    """

    def __init__(self, directory: Path, exchange: str, env: Mapping[str, str]) -> None:
        self.exchange = exchange
        self.log_path = directory / "marketdata.log"
        self.queue = f"test.{uuid.uuid4().hex[:12]}.rpc"
        self.port = free_port()
        self.env = server_env(
            exchange,
            {
                "RANGO_MARKETDATA_STORE": f"sqlite:///{directory}/marketdata.db",
                "RANGO_MARKETDATA_RPC_QUEUE": self.queue,
                "RANGO_MARKETDATA_METRICS_PORT": str(self.port),
                **env,
            },
        )
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *, until_ready: bool = True) -> None:
        """Start it, and wait until it is ready."""
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "rango_gevent", "marketdata"],
                env=self.env,
                cwd=self.log_path.parent,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        if until_ready:
            self.wait_until_ready()

    def wait_until_ready(self, timeout_s: float = 2 * PATIENCE_S) -> None:
        """Wait until trades arrive and questions are answered."""
        try:
            wait_for(self._is_ready, timeout_s, "a worker that is ready")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log()}") from None

    def _is_ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"it ended: {self.process.returncode}\n{self.log()}"
        with contextlib.suppress(OSError):
            return http_request(self.port, "/readyz").status == 200
        return False

    def log(self) -> str:
        """Return what it has logged."""
        return self.log_path.read_text("utf-8", "replace")

    def metric(self, name: str, **labels: str) -> float:
        """Return the value of a sample."""
        text = http_request(self.port, "/metrics").body
        return sample_of(text, f"rango_marketdata_{name}", **labels)

    def kill(self) -> None:
        """Kill it at once."""
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(PATIENCE_S)

    def stop(self, timeout_s: float = PATIENCE_S) -> int:
        """Ask it to end, and return its exit code."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(timeout_s)

    def end(self) -> None:
        """End it whatever state it is in."""
        if self.process is not None and self.process.poll() is None:
            self.kill()

    def ask(self, method: str, *params: Any, timeout_s: float = PATIENCE_S) -> Any:
        """Ask a question and return its answer's result."""
        answer = ask(self.queue, {"method": method, "params": list(params)}, timeout_s)
        assert answer["error"] is None, answer
        return answer["result"]


@contextlib.contextmanager
def start_marketdata(
    directory: Path, *, exchange: str | None = None, **env: str
) -> Iterator[MarketdataWorker]:
    """Run a worker for the length of a ``with`` block."""
    worker = MarketdataWorker(directory, exchange or f"test.{uuid.uuid4().hex[:12]}", env)
    worker.start()
    try:
        yield worker
    finally:
        worker.end()


def ask(queue: str, question: object, timeout_s: float = PATIENCE_S) -> Any:
    """Put a question to a queue, and return the answer decoded.

    Raises:
        AssertionError: there was none in time.
    """
    body = question if isinstance(question, bytes) else json.dumps(question).encode()
    broker = broker_address()
    answers: list[Any] = []
    identity = uuid.uuid4().hex
    with amqp.Connection(
        host=f"{broker.host}:{broker.port}", userid=broker.user, password=broker.password,
        virtual_host=broker.vhost, connect_timeout=PATIENCE_S,
    ) as connection:  # fmt: skip
        channel = connection.channel()
        channel.basic_consume("amq.rabbitmq.reply-to", no_ack=True, callback=answers.append)
        message = amqp.Message(body, reply_to="amq.rabbitmq.reply-to", correlation_id=identity)
        channel.basic_publish(message, "", queue)
        deadline = time.monotonic() + timeout_s
        while not answers:
            left_s = deadline - time.monotonic()
            assert left_s > 0, f"no answer within {timeout_s:g} s"
            with contextlib.suppress(TimeoutError):
                connection.drain_events(timeout=left_s)
        (answer,) = answers
        assert answer.properties["correlation_id"] == identity
        text = answer.body
    return json.loads(text)
