"""A cluster of several brokers for tests: librdkafka's own mock, which speaks over real sockets.

It can do what one broker cannot: let another one lead a partition, and take one of several down.
``python kafka_mock.py TOPIC`` runs one in a process of its own, where a fault of it harms no test:
it prints where it is, and reads commands: ``leader N``, ``down N``, ``up N``.
"""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path
from types import TracebackType

import confluent_kafka

_BROKERS = 3
_PRODUCER = 0


class MockCluster:
    """Three brokers and a topic of one partition, which is on all of them.

    Args:
        topic: its name.

    Attributes:
        addresses: ``host:port`` with commas.
    """

    def __init__(self, topic: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, topic],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._process.stdout is not None
        self.addresses = self._process.stdout.readline().strip()

    def __enter__(self) -> MockCluster:
        """Do nothing: it runs."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()

    def do(self, command: str) -> None:
        """Give a command, and wait until it is done."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{command}\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "0\n", command


def _serve(topic: bytes) -> None:
    folder = Path(confluent_kafka.__file__).parent.parent / "confluent_kafka.libs"
    (path,) = folder.glob("librdkafka*")
    library = ctypes.CDLL(str(path))
    for name in ("conf_new", "new", "mock_cluster_new"):
        getattr(library, f"rd_kafka_{name}").restype = ctypes.c_void_p
    library.rd_kafka_mock_cluster_bootstraps.restype = ctypes.c_char_p
    said = ctypes.create_string_buffer(512)
    config = ctypes.c_void_p(library.rd_kafka_conf_new())
    handle = ctypes.c_void_p(library.rd_kafka_new(_PRODUCER, config, said, len(said)))
    cluster = ctypes.c_void_p(library.rd_kafka_mock_cluster_new(handle, _BROKERS))
    library.rd_kafka_mock_topic_create(cluster, topic, 1, _BROKERS)
    print(library.rd_kafka_mock_cluster_bootstraps(cluster).decode(), flush=True)
    for line in sys.stdin:
        word, number = line.split()
        if word == "leader":
            done = library.rd_kafka_mock_partition_set_leader(cluster, topic, 0, int(number))
        else:
            done = getattr(library, f"rd_kafka_mock_broker_set_{word}")(cluster, int(number))
        print(done, flush=True)


if __name__ == "__main__":
    _serve(sys.argv[1].encode())
