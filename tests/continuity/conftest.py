"""What `make continuity` runs: minutes long, with clusters, and so not a part of `make test`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "faults"))


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--short``."""
    parser.addoption("--short", action="store_true", help="leave out what takes minutes")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is marked as long, where that is asked for."""
    if config.getoption("--short"):
        long = [item for item in items if item.get_closest_marker("long")]
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]
