"""scripts/measure_readers.py measures both ways with the real broker, and loses nothing."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "measure_readers.py"


def measured(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run it."""
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


def test_both_ways_get_everything() -> None:
    """A line for each way, with what it cost, and nothing lost."""
    done = measured("--rate", "300", "--seconds", "1", "--turns", "1")
    assert done.returncode == 0, done.stderr
    found = re.findall(
        r"^(queue each|one reader) +workers ([\d.]+) us, .* p50 ([\d.]+) .*lost (\d+)$",
        done.stdout,
        re.MULTILINE,
    )
    assert [way for way, *_ in found] == ["queue each", "one reader"]
    for _, us, p50_ms, lost in found:
        assert float(us) > 0
        assert float(p50_ms) > 0
        assert lost == "0"


def test_one_worker_is_none_to_compare() -> None:
    """One line says what is wanted."""
    done = measured("--workers", "1")
    assert done.returncode == 2
    assert "at least two workers" in done.stderr
