"""The sum over all worker processes of a machine."""

from __future__ import annotations

import fcntl
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from test_metrics import reading, series, subscriptions, value

from rango_gevent.metrics import Metrics
from rango_gevent.scrape import forget_workers, merge

PARENT = os.getpid()  # the workers' parent must live: what dead ones left is swept away

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
# TYPE python_info gauge
python_info{version="3.11"} 1
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
# TYPE python_info gauge
python_info{version="3.11"} 1
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
        "python_info{'version': '3.11'}": 1,
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
    for line in (
        "# TYPE a gauge",
        "# TYPE b_total counter",
        "# TYPE h histogram",
        "# TYPE s summary",
    ):
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
    texts = [
        Metrics(lambda counts=counts: reading(counts), 100).text().decode()
        for counts in (one, other)
    ]  # type: ignore[misc]  # a default binds the loop's value
    merged = series(merge(texts))
    first, second = series(texts[0]), series(texts[1])
    assert set(merged) == set(first) | set(second)
    for key, count in merged.items():
        if key[0] in ("rango_hub_subscriptions_count", "rango_frames_sent_total"):
            assert count == first.get(key, 0) + second.get(key, 0)


def test_many_workers_with_many_topics_are_merged_quickly() -> None:
    """Sixteen with 500 each: no client waits for a scrape longer than for its own samples."""
    topics = {("public", f"market{number}.trades"): number + 1 for number in range(500)}
    metrics = Metrics(lambda: reading(topics), 500)
    started_s = time.process_time()
    texts = [metrics.text().decode() for _ in range(16)]
    written_s = time.process_time()
    merge(texts)
    assert time.process_time() - written_s < 1.5 * (written_s - started_s)


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
            [sys.executable, "-c", WORKER, str(PARENT), str(clients), str(sent)],
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
        raise AssertionError(f"the worker ended with {self.process.wait(60)}")

    def end(self, number: int = signal.SIGKILL) -> None:
        """End the process, in whatever way the signal does that."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        self.process.communicate(timeout=60)


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
    return tmp_path / f"rango-metrics-{os.getuid()}-{PARENT}"


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


def test_a_worker_that_left_counts_on(start: Any) -> None:
    """Its last samples stay for the others."""
    one, other = start(1, 10), start(2, 20)
    other.ask("close")
    other.end()
    assert totals(one) == (1, 30)


def test_the_dead_are_read_once(start: Any, tmp_path: Path) -> None:
    """However many have died: a scrape takes no longer. One with the same number is another."""
    one = start(1, 10)
    for pid in (4_194_301, 4_194_302):  # above any process's
        file = shared(tmp_path) / f"{pid}.prom"
        file.write_text(f"# TYPE rango_frames_sent_total counter\nrango_frames_sent_total {pid}\n")
    both = 10 + 4_194_301 + 4_194_302
    assert totals(one) == totals(one) == (1, both)
    file.unlink()
    assert totals(one) == (1, both)
    file.write_text("# TYPE rango_frames_sent_total counter\nrango_frames_sent_total 5\n")
    assert totals(one) == (1, both + 5)


def test_the_parent_takes_all_away(
    start: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the last worker has gone nothing is left, and doing so twice is harmless."""
    start(1, 10).ask("close")
    assert shared(tmp_path).exists()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    forget_workers(PARENT)
    forget_workers(PARENT)
    assert list(tmp_path.iterdir()) == []


def test_what_a_dead_parent_left_is_swept_away(start: Any, tmp_path: Path) -> None:
    """A parent that was killed could not; directories of others are left alone."""
    gone = subprocess.Popen([sys.executable, "-c", ""])  # noqa: S603 - our own interpreter
    gone.wait(10)
    uid = os.getuid()
    names = [
        f"rango-metrics-{uid}-{gone.pid}",
        f"rango-metrics-{uid}-x",
        f"rango-metrics-{uid}-1",
        "x-0",
    ]
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "7.prom").touch()
    one = start(1, 10)
    assert totals(one) == (1, 10)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [*names[1:], shared(tmp_path).name]
    )


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
        [sys.executable, "-c", WORKER, str(PARENT), "1", "1"],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 1
    assert b"Error" in done.stderr
