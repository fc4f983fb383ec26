"""``python -m tests.fuzz --seconds 60 [TARGET ...]``: search with each target in turn.

Each one runs in a process of its own, which libFuzzer ends in time. What it found worth keeping
stays in ``.fuzz/TARGET/corpus`` for the next run, and an input that broke the invariant is printed
and stays in ``.fuzz/TARGET``: try it again with ``--input PATH`` and a target. The exit code is 1
when there was such an input.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from tests.fuzz import TARGETS

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / ".fuzz"

_INPUT_S = 10  # one input that takes longer is a finding, and so is one that takes more memory
_MEMORY_MB = 1024
_INPUT_BYTES = 2048
_GRACE_S = 120  # for the start, the corpus and the last input
_LOG_LINES = 40
_COUNT = re.compile(r"stat::number_of_executed_units:\s*(\d+)")
_WRITTEN = re.compile(r"Test unit written to (\S+)")
_BRANCHES = re.compile(r"^#\d+\s.* cov: (\d+)", re.MULTILINE)


class Outcome(NamedTuple):
    """What one search amounted to.

    Attributes:
        executed: number of inputs.
        branches: number of branches that some input took.
        broken_by: files with an input that broke the invariant.
        failed: it did not end as it should.
        log: what libFuzzer and atheris wrote.
    """

    executed: int
    branches: int
    broken_by: list[Path]
    failed: bool
    log: str


def main() -> int:
    """Run the chosen targets; return the exit code."""
    arguments = _parser().parse_args()
    if arguments.input is not None:
        (name,) = arguments.targets
        _target(name).check(arguments.input.read_bytes())
        print(f"{name}: the invariant holds")
        return 0
    if importlib.util.find_spec("atheris") is None:
        print("fuzz: atheris is not installed; `make fuzz` does that", file=sys.stderr)
        return 3
    outcomes = [_search_and_tell(name, arguments.seconds) for name in arguments.targets or TARGETS]
    return int(any(outcome.failed for outcome in outcomes))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--seconds", type=int, default=60, help="time for each target")
    parser.add_argument("--input", type=Path, help="run one target on the bytes of a file only")
    return parser


def _target(name: str) -> ModuleType:
    return importlib.import_module(f"tests.fuzz.{name}")


def _search_and_tell(name: str, seconds: int) -> Outcome:
    print(f"{name}: {(_target(name).__doc__ or '').splitlines()[0]}", flush=True)
    outcome = search(name, seconds)
    print(
        f"  {outcome.executed:,} inputs in {seconds} s, {outcome.branches:,} branches", flush=True
    )
    if outcome.failed:
        print("\n".join(outcome.log.splitlines()[-_LOG_LINES:]))
    for path in outcome.broken_by:
        print(f"  broken by {path.read_bytes()!r}\n  kept in {path.relative_to(ROOT)}", flush=True)
    return outcome


def search(name: str, seconds: int) -> Outcome:
    """Search with one target.

    Args:
        name: one of `TARGETS`.
        seconds: for how long.

    Raises:
        subprocess.TimeoutExpired: it did not end by itself.
    """
    kept = KEPT / name
    corpus, words = kept / "corpus", kept / "words"
    corpus.mkdir(parents=True, exist_ok=True)
    _write(_target(name), corpus, words)
    command = [sys.executable, "-m", "tests.fuzz.guided", name, str(corpus), f"-dict={words}"]
    command += [f"-max_total_time={seconds}", f"-timeout={_INPUT_S}", f"-max_len={_INPUT_BYTES}"]
    command += [f"-rss_limit_mb={_MEMORY_MB}", f"-artifact_prefix={kept}/", "-print_final_stats=1"]
    ended = subprocess.run(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=seconds + _GRACE_S,
        check=False,
    )
    log = ended.stdout.decode(errors="replace")
    found = [Path(path) for path in _WRITTEN.findall(log)]
    return Outcome(_last(_COUNT, log), _last(_BRANCHES, log), found, ended.returncode != 0, log)


def _write(target: ModuleType, corpus: Path, words: Path) -> None:
    """Write what the search starts from where libFuzzer looks for it."""
    for number, seed in enumerate(target.SEEDS):
        (corpus / f"seed-{number:02}").write_bytes(seed)
    lines = ("".join(f"\\x{byte:02x}" for byte in word) for word in target.WORDS)
    words.write_text("".join(f'"{line}"\n' for line in lines))


def _last(pattern: re.Pattern[str], log: str) -> int:
    return int((pattern.findall(log) or ["0"])[-1])


if __name__ == "__main__":
    sys.exit(main())
