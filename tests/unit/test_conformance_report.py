"""The verdict on a run of Autobahn's testsuite: stricter than the suite's own."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="module")
def report() -> ModuleType:
    """The script's module, which no package holds."""
    spec = importlib.util.spec_from_file_location("report", ROOT / "scripts/conformance/report.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def case(behavior: str = "OK", at_close: str = "OK", code: int | None = 1000) -> dict[str, Any]:
    """Return one case as the suite's index has it."""
    return {
        "behavior": behavior,
        "behaviorClose": at_close,
        "remoteCloseCode": code,
        "duration": 1500,
    }


@pytest.mark.parametrize(
    ("name", "result", "text"),
    [
        ("1.1.1", case(), ""),
        ("6.4.3", case("NON-STRICT", code=1007), ""),
        ("7.13.1", case("INFORMATIONAL", "INFORMATIONAL", 1002), ""),
        ("1.1.1", case("FAILED"), "behavior FAILED"),
        ("1.1.1", case("UNCLEAN"), "behavior UNCLEAN"),
        ("7.1.5", case("OK", "WRONG CODE", 1002), "close WRONG CODE, code 1002"),
        ("1.1.1", case(code=None), "no close code"),
        ("7.3.1", case(code=None), ""),
        ("13.3.7", case("UNIMPLEMENTED"), ""),
        ("13.5.18", case("UNIMPLEMENTED"), ""),
        ("13.1.1", case("UNIMPLEMENTED"), "behavior UNIMPLEMENTED"),
        ("12.1.1", case("UNIMPLEMENTED"), "behavior UNIMPLEMENTED"),
    ],
)
def test_a_case_passes_or_says_why_not(
    report: ModuleType, name: str, result: dict[str, Any], text: str
) -> None:
    """Missing close codes and declined compression fail, but for the cases where they are due."""
    assert report.problem(name, result) == text


def test_the_report_counts_and_names_what_is_wrong(report: ModuleType) -> None:
    """Totals first, then each failed case in the order of the suite."""
    cases = {"10.1": case("FAILED"), "9.2": case(code=None), "9.1": case(), "2.1": case()}
    assert list(report.lines(cases, 6.4)) == [
        "2 of 4 cases passed in 6 s",
        "  3 OK, 1 FAILED",
        "  1 close codes are missing",
        "  seconds by section: 2: 1.5, 9: 3.0, 10: 1.5",
        "  FAILED 9.2: no close code",
        "  FAILED 10.1: behavior FAILED",
    ]


def test_results_are_read_from_the_suites_index(report: ModuleType, tmp_path: Path) -> None:
    """Without an index, which is written last, no case has run."""
    assert report.read_cases(tmp_path, "agent") == {}
    (tmp_path / "index.json").write_text(json.dumps({"agent": {"1.1": case()}}))
    assert report.read_cases(tmp_path, "agent") == {"1.1": case()}
