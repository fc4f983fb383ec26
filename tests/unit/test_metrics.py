"""Metrics: text that any scraper reads, bounded labels, and the sum over worker processes."""

from __future__ import annotations

import fcntl
import gc
import os
import signal
import stat
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any, Callable, Iterator, Mapping

import gevent
import pytest
from gevent import socket as gsocket
from hypothesis import example, given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from support import free_port

from rango_gevent.metrics import (
    OTHER_TOPICS,
    GatewayCollector,
    Metrics,
    Reading,
    runtime_gauges,
)
from rango_gevent.scrape import MetricsServer, merge

Series = dict[tuple[str, tuple[tuple[str, str], ...]], float]

# Names of streams as the gateway lets them through: printable, surrogates never.
topics = st.text(st.characters(exclude_categories=["C", "Zl", "Zp"]), max_size=12).filter(str.isprintable)
subscriptions = st.dictionaries(
    st.tuples(st.sampled_from(["public", "private", "prefixed"]), topics | st.just(OTHER_TOPICS)),
    st.integers(1, 100),
    max_size=8,
)


def series(text: str | bytes) -> Series:
    """Return the samples of exposition text; one that comes twice fails the test."""
    found: Series = {}
    names: set[str] = set()
    for family in text_string_to_metric_families(text if isinstance(text, str) else text.decode()):
        assert family.name not in names, f"family {family.name} comes twice"
        names.add(family.name)
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in found, f"series {key} comes twice"
            found[key] = sample.value
    return found


def value(text: str | bytes, name: str, **labels: str) -> float | None:
    """Return one sample's value, None when there is none."""
    return series(text).get((name, tuple(sorted(labels.items()))))


def reading(
    subscribed: Mapping[tuple[str, str], int] | None = None, **changes: Any
) -> Reading:
    """Return what a gateway might have counted."""
    made = Reading(
        gauges={"rango_hub_clients_count": 3, **runtime_gauges(5)},
        counters={"rango_frames_sent": 7, "rango_broker_disconnected_seconds": 0.5},
        labelled={
            "rango_requests": ("action", Counter(subscribe=2, ping=1)),
            "promhttp_metric_handler_requests": ("code", Counter({"200": 4})),
        },
        subscriptions=Counter(subscribed or {}),
    )
    return made._replace(**changes)


# -- one process --------------------------------------------------------------------------------


def test_the_text_holds_what_was_counted() -> None:
    """Gauges by their name, counters with _total, labelled ones with their label."""
    text = Metrics(lambda: reading({("public", "eurusd.trades"): 2}), 10).text()
    assert value(text, "rango_hub_clients_count") == 3
    assert value(text, "rango_frames_sent_total") == 7
    assert value(text, "rango_broker_disconnected_seconds_total") == 0.5
    assert value(text, "rango_requests_total", action="subscribe") == 2
    assert value(text, "promhttp_metric_handler_requests_total", code="200") == 4
    name = "rango_hub_subscriptions_count"
    assert value(text, name, type="public", topic="eurusd.trades") == 2


def test_the_names_of_rango_and_of_the_process_are_there() -> None:
    """Dashboards and alerts of Rango find what they ask for, and Go's runtime its counterpart."""
    text = Metrics(reading, 10).text().decode()
    names = {name for name, _ in series(text)}
    assert names >= {
        "process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds",
        "process_start_time_seconds", "python_info", "python_greenlets", "python_threads",
        "python_allocated_blocks", "python_gc_collections_total",
        "rango_delivery_lag_seconds_count", "rango_connection_duration_seconds_count",
    }  # fmt: skip
    assert "# TYPE rango_hub_subscriptions_count gauge" in text
    assert "# TYPE python_gc_duration_seconds summary" in text


def test_histograms_are_observed() -> None:
    """Lag and duration go into buckets."""
    metrics = Metrics(reading, 10)
    metrics.lag.observe(0.02)
    metrics.duration.observe(90)
    text = metrics.text()
    assert value(text, "rango_delivery_lag_seconds_bucket", le="0.01") == 0
    assert value(text, "rango_delivery_lag_seconds_bucket", le="0.025") == 1
    assert value(text, "rango_connection_duration_seconds_bucket", le="600.0") == 1
    assert value(text, "rango_connection_duration_seconds_sum") == 90


def test_two_gateways_of_one_process_do_not_meet() -> None:
    """Each has a registry of its own: a second one neither fails nor counts into the first."""
    one, other = Metrics(reading, 10), Metrics(reading, 10)
    one.lag.observe(1)
    assert value(other.text(), "rango_delivery_lag_seconds_count") == 0


def test_pauses_of_the_collector_are_measured() -> None:
    """From `watch_gc` to `forget_gc` each collection is one observation."""
    metrics = Metrics(reading, 10)
    metrics.watch_gc()
    gc.collect()
    metrics.forget_gc()
    metrics.forget_gc()
    counted = value(metrics.text(), "python_gc_duration_seconds_count")
    assert counted is not None
    assert counted >= 1
    gc.collect()
    assert value(metrics.text(), "python_gc_duration_seconds_count") == counted


def test_runtime_gauges() -> None:
    """The interpreter's numbers are those of this process."""
    found = runtime_gauges(12)
    assert found["python_greenlets"] == 12
    assert found["python_threads"] == threading.active_count()
    assert found["python_allocated_blocks"] > 1000


# -- labels -------------------------------------------------------------------------------------


def subscription_series(subscribed: Mapping[tuple[str, str], int], max_topics: int) -> Series:
    """Return the series of the subscriptions' gauge."""
    text = Metrics(lambda: reading(subscribed), max_topics).text()
    found = series(text)
    return {key: count for key, count in found.items() if key[0] == "rango_hub_subscriptions_count"}


def test_topics_past_the_bound_are_summed() -> None:
    """The topics with most subscriptions keep their series, the rest is one for each type."""
    counted = {
        ("public", "a.b"): 9, ("public", "c.d"): 8, ("public", "e.f"): 1, ("public", "g.h"): 2,
        ("private", "order"): 3,
    }  # fmt: skip
    found = subscription_series(counted, 2)
    labels = {(dict(key[1])["type"], dict(key[1])["topic"]): count for key, count in found.items()}
    assert labels == {
        ("public", "a.b"): 9,
        ("public", "c.d"): 8,
        ("public", OTHER_TOPICS): 3,
        ("private", OTHER_TOPICS): 3,
    }


@given(subscriptions, st.integers(0, 6))
@example({("private", OTHER_TOPICS): 5, ("private", "a"): 4}, 1)
@example({("public", 'a"b\\.{c}=,# d'): 1}, 3)
@example({("public", " a.b "): 1, ("public", "a.b"): 1}, 3)
def test_any_topics_give_bounded_series_and_the_right_sums(
    counted: dict[tuple[str, str], int], max_topics: int
) -> None:
    """Whatever clients call their streams: no series twice, none too many, nothing lost."""
    found = subscription_series(counted, max_topics)
    labels = {(dict(key[1])["type"], dict(key[1])["topic"]): count for key, count in found.items()}
    own = {key: count for key, count in labels.items() if key[1] != OTHER_TOPICS}
    assert len(own) <= max_topics
    assert all(counted[key] == count for key, count in own.items())
    for kind in ("public", "private", "prefixed"):
        wanted = sum(count for (type_, _), count in counted.items() if type_ == kind)
        assert sum(count for (type_, _), count in labels.items() if type_ == kind) == wanted


def test_a_collector_asks_once_a_scrape() -> None:
    """All numbers of a scrape are of one moment."""
    calls: list[int] = []

    def read() -> Reading:
        calls.append(1)
        return reading()

    list(GatewayCollector(read, 10).collect())
    assert len(calls) == 1


# -- merging ------------------------------------------------------------------------------------

ONE = """
# TYPE a gauge
a 1
# TYPE b_total counter
b_total{x="1"} 10
b_total{x="2"} 20
# TYPE h histogram
h_bucket{le="1.0"} 1
h_bucket{le="+Inf"} 2
h_count 2
h_sum 5.5
# TYPE h_created gauge
h_created 1000
# TYPE process_start_time_seconds gauge
process_start_time_seconds 1000
# TYPE rango_loop_lag_seconds gauge
rango_loop_lag_seconds 0.25
# TYPE process_max_fds gauge
process_max_fds 1024
# TYPE s summary
s_count 1
s_sum 2
"""
OTHER = """
# TYPE a gauge
a 2
# TYPE b_total counter
b_total{x="2"} 5
b_total{x="3"} 7
# TYPE h histogram
h_bucket{le="1.0"} 3
h_bucket{le="+Inf"} 4
h_count 4
h_sum 1
# TYPE h_created gauge
h_created 900
# TYPE process_start_time_seconds gauge
process_start_time_seconds 900
# TYPE rango_loop_lag_seconds gauge
rango_loop_lag_seconds 0.5
# TYPE process_max_fds gauge
process_max_fds 1024
# TYPE s summary
s_count 3
s_sum 4
# TYPE c gauge
c{y="z"} 1
"""


def plain(text: str | bytes) -> dict[str, float]:
    """Return samples by a short text for each."""
    found = series(text)
    return {f"{name}{dict(labels) or ''}": count for (name, labels), count in found.items()}


def test_the_sum_of_live_workers() -> None:
    """All is added up, but for a few gauges that are no sums: the first start, the worst lag."""
    assert plain(merge([ONE, OTHER])) == {
        "a": 3,
        "b_total{'x': '1'}": 10,
        "b_total{'x': '2'}": 25,
        "b_total{'x': '3'}": 7,
        "h_bucket{'le': '1.0'}": 4,
        "h_bucket{'le': '+Inf'}": 6,
        "h_count": 6,
        "h_sum": 6.5,
        "h_created": 900,
        "process_start_time_seconds": 900,
        "rango_loop_lag_seconds": 0.5,
        "process_max_fds": 1024,
        "s_count": 4,
        "s_sum": 6,
        "c{'y': 'z'}": 1,
    }


def test_a_dead_workers_counters_count_on() -> None:
    """So no total falls; what a dead process had at the moment is nothing any more."""
    merged = plain(merge([ONE], [OTHER]))
    assert merged["a"] == 1
    assert merged["b_total{'x': '2'}"] == 25
    assert merged["b_total{'x': '3'}"] == 7
    assert merged["h_count"] == 6
    assert merged["s_sum"] == 6
    assert merged["process_start_time_seconds"] == 1000
    assert "c{'y': 'z'}" not in merged


def test_types_survive_merging() -> None:
    """A merged text says of each family what the workers said."""
    text = merge([ONE, OTHER]).decode()
    for line in ("# TYPE a gauge", "# TYPE b_total counter", "# TYPE h histogram", "# TYPE s summary"):
        assert f"{line}\n" in text


@given(st.lists(st.integers(0, 5), min_size=3, max_size=3), st.permutations([0, 1, 2]))
def test_the_order_of_workers_does_not_matter(counts: list[int], order: list[int]) -> None:
    """Every worker that is asked gives the same sum."""
    texts = [ONE.replace("a 1", f"a {count}") for count in counts]
    assert plain(merge(texts)) == plain(merge([texts[index] for index in order]))


@given(subscriptions, subscriptions)
@example({("public", "a\\nb"): 1}, {("public", 'a"} 7'): 1})
def test_real_texts_merge_to_their_sum(
    one: dict[tuple[str, str], int], other: dict[tuple[str, str], int]
) -> None:
    """What this package writes it reads back, whatever the streams are called."""
    texts = [Metrics(lambda counts=counts: reading(counts), 100).text().decode() for counts in (one, other)]  # type: ignore[misc]  # a default binds the loop's value
    merged = series(merge(texts))
    first, second = series(texts[0]), series(texts[1])
    assert set(merged) == set(first) | set(second)
    for key, count in merged.items():
        if key[0] in ("rango_hub_subscriptions_count", "rango_frames_sent_total"):
            assert count == first.get(key, 0) + second.get(key, 0)


def test_a_merge_of_one_is_the_same() -> None:
    """A single worker's numbers are not changed by the detour."""
    text = Metrics(lambda: reading({("public", "a.b"): 2}), 10).text()
    assert series(merge([text.decode()])) == series(text)


# -- worker processes -----------------------------------------------------------------------------

WORKER = """
import sys
from rango_gevent.scrape import Workers
clients, sent = sys.argv[2:]
text = f'''# TYPE rango_hub_clients_count gauge
rango_hub_clients_count {clients}
# TYPE rango_hub_subscriptions_count gauge
rango_hub_subscriptions_count{{topic="\\N{EURO SIGN}.t",type="public"}} {clients}
# TYPE rango_frames_sent_total counter
rango_frames_sent_total {sent}
'''
workers = Workers(text.encode, int(sys.argv[1]))
for line in sys.stdin:
    if line == "text\\n":
        sys.stdout.buffer.write(workers.text())
        print("# EOF")
    else:
        getattr(workers, line.strip())()
        print("done")
    sys.stdout.flush()
"""


class Worker:
    """A process that does what it is told with its part of the shared directory."""

    def __init__(self, directory: Path, clients: int, sent: int, **env: str) -> None:
        self.process = subprocess.Popen(  # our own interpreter
            [sys.executable, "-c", WORKER, "4711", str(clients), str(sent)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
            env={**os.environ, "TMPDIR": str(directory), **env},
        )

    def ask(self, command: str) -> str:
        """Give a command and return what it says."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        lines = []
        for line in self.process.stdout:
            if line in ("done\n", "# EOF\n"):
                return "".join(lines)
            lines.append(line)
        raise AssertionError(f"the worker ended with {self.process.wait(5)}")

    def end(self, number: int = signal.SIGKILL) -> None:
        """End the process, in whatever way the signal does that."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        self.process.communicate(timeout=5)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Any]:
    """Start workers that share a directory, and end them in any case."""
    running: list[Worker] = []

    def start_one(clients: int, sent: int, **env: str) -> Worker:
        running.append(Worker(tmp_path, clients, sent, **env))
        running[-1].ask("write")
        return running[-1]

    yield start_one
    for worker in running:
        worker.end()


def totals(worker: Worker) -> tuple[float | None, float | None]:
    """Return clients and frames sent as a worker sees them over all."""
    text = worker.ask("text")
    return value(text, "rango_hub_clients_count"), value(text, "rango_frames_sent_total")


def shared(tmp_path: Path) -> Path:
    """Return the directory of the workers."""
    return tmp_path / f"rango-metrics-{os.getuid()}-4711"


def test_every_worker_knows_the_sum(start: Any) -> None:
    """Whichever holds the port answers for all."""
    one, other = start(1, 10), start(2, 20)
    assert totals(one) == totals(other) == (3, 30)


def test_a_killed_worker_is_noticed(start: Any) -> None:
    """The lock of its file goes with the process: its counters stay, its gauges go."""
    one, other = start(1, 10), start(2, 20)
    other.end(signal.SIGKILL)
    assert totals(one) == (1, 30)


def test_a_killed_worker_is_dead_for_two_scrapes_at_once(start: Any, tmp_path: Path) -> None:
    """One who looks at a dead worker's lock does not make it look alive to another."""
    one, other = start(1, 10), start(2, 20)
    pid = other.process.pid
    other.end(signal.SIGKILL)
    with open(shared(tmp_path) / f"{pid}.alive") as alive:
        fcntl.flock(alive, fcntl.LOCK_SH)
        assert totals(one) == (1, 30)


def test_a_stopped_worker_is_alive(start: Any) -> None:
    """A worker that does not run at the moment still holds its clients."""
    one, other = start(1, 10), start(2, 20)
    other.process.send_signal(signal.SIGSTOP)
    assert totals(one) == (3, 30)


def test_a_worker_that_left_counts_on(start: Any, tmp_path: Path) -> None:
    """Its last samples stay for the others, and nothing stays when the last one has left."""
    one, other = start(1, 10), start(2, 20)
    other.ask("close")
    other.end()
    assert totals(one) == (1, 30)
    one.ask("close")
    assert not shared(tmp_path).exists()


def test_a_newcomer_without_samples_is_not_swept_away(start: Any, tmp_path: Path) -> None:
    """The last worker that leaves spares the directory of one that has just started."""
    one, other = start(1, 10), start(2, 20)
    (shared(tmp_path) / f"{other.process.pid}.prom").unlink()  # as before its first write
    one.ask("close")
    one.end()
    other.ask("write")
    assert totals(other) == (2, 30)


def test_samples_are_utf8_whatever_the_locale(start: Any) -> None:
    """Names of streams beyond ASCII survive a worker whose locale knows none."""
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    start(1, 10, **ascii_only)
    text = start(2, 20, **ascii_only).ask("text")
    assert value(text, "rango_hub_subscriptions_count", topic="€.t", type="public") == 3


def test_the_directory_is_private(start: Any, tmp_path: Path) -> None:
    """Nobody else can plant samples in it, nor read the names of streams."""
    start(1, 10)
    assert stat.S_IMODE(shared(tmp_path).stat().st_mode) == 0o700


@pytest.mark.parametrize("kind", ["open to all", "a link", "a file"])
def test_a_foreign_directory_is_refused(tmp_path: Path, kind: str) -> None:
    """What somebody else may have put there is not used."""
    directory = shared(tmp_path)
    if kind == "open to all":
        directory.mkdir()
        directory.chmod(0o777)
    elif kind == "a link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        directory.symlink_to(tmp_path / "elsewhere")
    else:
        directory.touch(mode=0o600)
    done = subprocess.run(  # our own interpreter
        [sys.executable, "-c", WORKER, "4711", "1", "1"],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == 1
    assert b"Error" in done.stderr


# -- the port -------------------------------------------------------------------------------------


class Port:
    """A metrics server for the length of a ``with`` block, and its client."""

    def __init__(self, text: Callable[[], bytes]) -> None:
        self.number = free_port()
        self.server = MetricsServer(text, "127.0.0.1", self.number)

    def __enter__(self) -> Port:
        self.server.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.server.stop()

    def ask(self, path: str = "/") -> tuple[str, str]:
        """Return the head and the body of an answer."""
        with gevent.Timeout(5), gsocket.create_connection(("127.0.0.1", self.number)) as sock:
            sock.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            data = b""
            while chunk := sock.recv(65536):
                data += chunk
        head, _, body = data.decode().partition("\r\n\r\n")
        return head, body


@pytest.mark.parametrize("path", ["/metrics", "/", "/any/path?x"])
def test_any_path_gives_the_text(path: str) -> None:
    """Rango answers every path of its metrics port."""
    with Port("€ 1\n".encode) as port:
        head, body = port.ask(path)
    assert head.startswith("HTTP/1.1 200 OK")
    assert "Content-Type: text/plain" in head
    assert body == "€ 1\n"
    assert port.server.scrapes == {"200": 1, "500": 0, "503": 0}


def test_a_scrape_counts_itself() -> None:
    """The one under way is in flight, and counted when it is over."""
    seen: list[int] = []

    def text() -> bytes:
        seen.append(port.server.in_flight)
        return b""

    with Port(text) as port:
        port.ask()
    assert seen == [1]
    assert port.server.in_flight == 0


def test_a_failing_collector_is_an_answer() -> None:
    """A scrape that fails is told and counted, without the error's text."""
    answers = [b"a 1\n"]
    with Port(lambda: answers.pop()) as port:
        assert port.ask()[0].startswith("HTTP/1.1 200 ")
        head, body = port.ask()
    assert head.startswith("HTTP/1.1 500 ")
    assert "pop from" not in body
    assert port.server.scrapes == {"200": 1, "500": 1, "503": 0}
    assert port.server.in_flight == 0


def test_a_taken_port_is_told_and_waited_for() -> None:
    """One of several workers holds the port; another takes over when it is free."""
    with Port(lambda: b"first 1\n") as port:
        heir = MetricsServer(lambda: b"second 1\n", "127.0.0.1", port.number)
        with pytest.raises(OSError, match="in use"):
            heir.start()
        waiting = gevent.spawn(heir.run_when_free)
        try:
            assert port.ask()[1] == "first 1\n"
            port.server.stop()
            waiting.get(timeout=5)
            assert port.ask()[1] == "second 1\n"
        finally:
            waiting.kill()
            heir.stop()
