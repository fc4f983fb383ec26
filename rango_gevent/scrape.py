"""One metrics text for all workers of a machine.

Each worker writes its samples to a file of a directory that they share, once a second, and
whichever holds the metrics port answers with the sum: `merge`. A dead worker's gauges are forgotten
and its counters kept, so that no total ever falls. A single process serves its own text.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
from pathlib import Path
from typing import Callable, Iterable, Iterator

import gevent
from prometheus_client import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

_WRITE_EVERY_S = 1.0
_MINIMUM = {"process_start_time_seconds"}
_MAXIMUM = {"rango_loop_lag_seconds", "python_info"}


def merge(live: Iterable[str], dead: Iterable[str] = ()) -> bytes:
    """Sum the samples of several workers into one exposition text.

    Counters, histograms and summaries of dead workers count on, so that no total falls;
    their gauges are forgotten. A few gauges are no sums: the oldest start, the worst lag.
    """
    families: dict[str, Metric] = {}
    for text in live:
        for family in text_string_to_metric_families(text):
            _add(families, family)
    for text in dead:
        for family in text_string_to_metric_families(text):
            if family.type != "gauge":
                _add(families, family)
    return generate_latest(_Fixed(families.values()))


class _Fixed:
    """What `generate_latest` needs of a registry."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> Iterator[Metric]:
        """Yield the families."""
        return iter(self._families)


def _add(families: dict[str, Metric], family: Metric) -> None:
    known = families.get(family.name)
    if known is None:
        families[family.name] = family
        return
    places = {(s.name, tuple(sorted(s.labels.items()))): i for i, s in enumerate(known.samples)}
    for sample in family.samples:
        place = places.get((sample.name, tuple(sorted(sample.labels.items()))))
        if place is None:
            known.samples.append(sample)
        else:
            old = known.samples[place]
            known.samples[place] = old._replace(value=_sum(family.name, old.value, sample.value))


def _sum(name: str, one: float, other: float) -> float:
    if name in _MINIMUM or name.endswith("_created"):
        return min(one, other)
    if name in _MAXIMUM:
        return max(one, other)
    return one + other


class Workers:
    """The samples of all workers of one parent process, in a directory that they share.

    Each worker keeps ``<pid>.alive`` locked for as long as it lives and writes its samples
    to ``<pid>.prom``. A lock that can be taken tells that its worker is dead, whatever ended
    it and whoever has its process id now.

    Args:
        own_text: this worker's samples as exposition text.
        parent: what the workers have in common: the parent's process id.
    """

    def __init__(self, own_text: Callable[[], bytes], parent: int) -> None:
        self._own_text = own_text
        _sweep()
        self._directory = _private_directory(_path(parent))
        self._stem = self._directory / str(os.getpid())
        self._alive = open(self._stem.with_suffix(".alive"), "w")  # noqa: SIM115 - held for life
        fcntl.flock(self._alive, fcntl.LOCK_EX)

    def run(self) -> None:
        """Write samples for ever."""
        while True:
            self.write()
            gevent.sleep(_WRITE_EVERY_S)

    def write(self) -> None:
        """Write this worker's samples, whole or not at all."""
        partial = self._stem.with_suffix(".partial")
        partial.write_bytes(self._own_text())
        partial.replace(self._stem.with_suffix(".prom"))

    def text(self) -> bytes:
        """Return the sum over all workers: this one as it is now, others as last written."""
        live: list[str] = [self._own_text().decode()]
        dead: list[str] = []
        for path in sorted(self._directory.glob("*.prom")):
            if path.stem == self._stem.name:
                continue
            try:
                (dead if self._is_dead(path) else live).append(path.read_text("utf-8"))
            except FileNotFoundError:
                continue  # that worker ended in peace this very moment
        return merge(live, dead)

    def _is_dead(self, path: Path) -> bool:
        try:
            with open(path.with_suffix(".alive")) as alive:
                # shared: two workers that look at a dead one do not see each other's lock
                fcntl.flock(alive, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except FileNotFoundError:
            return True
        return True

    def close(self) -> None:
        """Leave; the last samples stay for the others."""
        self.write()
        self._alive.close()


def forget_workers(parent: int) -> None:
    """Remove the directory of a parent process that ends."""
    shutil.rmtree(_path(parent), ignore_errors=True)


def _sweep() -> None:
    """Remove directories of parents that ended without a word."""
    for path in _path(0).parent.glob(_path(0).name[:-1] + "*"):
        parent = path.name.rpartition("-")[2]
        if parent.isdigit() and not Path(f"/proc/{parent}").exists():
            shutil.rmtree(path, ignore_errors=True)


def _path(parent: int) -> Path:
    return Path(tempfile.gettempdir()) / f"rango-metrics-{os.getuid()}-{parent}"


def _private_directory(path: Path) -> Path:
    """Make or find a directory that only this user can write to."""
    path.mkdir(mode=0o700, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PermissionError(f"{path} is not a private directory of this user: remove it")
    return path
