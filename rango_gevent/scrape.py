"""One metrics text for all workers of a machine.

Each worker writes its samples to a file of a directory that they share, once a second, and
whichever holds the metrics port answers with the sum: `merge`. A dead worker's gauges are forgotten
and its counters kept, so that no total ever falls. A single process serves its own text.
"""

from __future__ import annotations

import fcntl
import operator
import os
import shutil
import stat
import tempfile
from pathlib import Path
from typing import Callable, Iterable, NamedTuple

import gevent

_WRITE_EVERY_S = 1.0
_MINIMUM = {"process_start_time_seconds"}
_MAXIMUM = {"rango_loop_lag_seconds", "python_info"}


class _Family(NamedTuple):
    """A family of exposition text: its lines of HELP and TYPE, its values by series as written."""

    name: str
    head: str
    type: str
    samples: dict[str, float]


def merge(live: Iterable[str], dead: Iterable[str] = ()) -> bytes:
    """Sum the samples of several workers into one exposition text.

    Counters, histograms and summaries of dead workers count on, so that no total falls;
    their gauges are forgotten. A few gauges are no sums: the oldest start, the worst lag.

    Labels are never taken apart: all workers write a series alike, since `generate_latest` sorts
    them. So it takes 0.5 ms for a worker with 500 topics; parsing would take 9.
    """
    families: dict[str, _Family] = {}
    for text in live:
        _add(families, _families(text))
    for text in dead:
        _add(families, [family for family in _families(text) if family.type != "gauge"])
    lines: list[str] = []
    for family in families.values():
        lines.append(family.head)
        lines += [f"{key} {count!r}\n" for key, count in family.samples.items()]
    return "".join(lines).encode()


def _families(text: str) -> list[_Family]:
    """Read exposition text as `generate_latest` writes it."""
    families: list[_Family] = []
    head = ""
    for line in text.split("\n"):
        if line.startswith("# TYPE "):
            name, type_ = line.split(" ")[2:]
            families.append(_Family(name, f"{head}{line}\n", type_, {}))
            head = ""
        elif line.startswith("#"):
            head = f"{line}\n"
        elif line:
            series, _, count = line.rpartition(" ")
            families[-1].samples[series] = float(count)
    return families


def _add(families: dict[str, _Family], more: list[_Family]) -> None:
    for family in more:
        samples = families.setdefault(family.name, family).samples
        if samples is family.samples:
            continue
        both = _joining(family.name)
        for series, count in family.samples.items():
            samples[series] = both(samples[series], count) if series in samples else count


def _joining(name: str) -> Callable[[float, float], float]:
    """Return how two workers' values of a family become one."""
    if name in _MINIMUM or name.endswith("_created"):
        return min
    return max if name in _MAXIMUM else operator.add


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
        self._of_dead = ""
        self._buried: set[tuple[str, int, int]] = set()

    @property
    def directory(self) -> Path:
        """Return what the workers share; nobody but this user can reach into it."""
        return self._directory

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
            if path.stem == self._stem.name or _version(path) in self._buried:
                continue
            try:
                (dead if self._bury(path) else live).append(path.read_text("utf-8"))
            except FileNotFoundError:
                continue  # that worker ended in peace this very moment
        if dead:
            self._of_dead = merge((), [self._of_dead, *dead]).decode()
        return merge(live, [self._of_dead])

    def _bury(self, path: Path) -> bool:
        """Tell whether a worker is dead; its samples, which are its last, are read once."""
        if not self._is_dead(path):
            return False
        self._buried.add(_version(path))
        return True

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


def _version(path: Path) -> tuple[str, int, int]:
    """Tell a file from one of the same name that was there before, or will be."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return path.name, 0, 0
    return path.name, found.st_ino, found.st_mtime_ns


def _path(parent: int) -> Path:
    return Path(tempfile.gettempdir()) / f"rango-metrics-{os.getuid()}-{parent}"


def _private_directory(path: Path) -> Path:
    """Make or find a directory that only this user can write to."""
    path.mkdir(mode=0o700, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PermissionError(f"{path} is not a private directory of this user: remove it")
    return path
