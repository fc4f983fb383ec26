"""What a run of Autobahn's testsuite amounts to.

The suite is lenient where this project is not: it passes a connection that ends without a
close code, and a server that takes no compression at all. So both are counted here, and the
few cases where they are right are named.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any, Iterator, Mapping

# A close frame without a code is answered by one without a code (RFC 6455 section 5.5.1).
NO_CODE = ("7.3.1",)

# These offer nothing but a window of 512 bytes for the server's frames, which are compressed
# once for all clients, with the full window; declining is allowed (RFC 7692 section 7.1.2.1).
DECLINED = ("13.3.", "13.5.")

_GOOD = ("OK", "NON-STRICT", "INFORMATIONAL")

Cases = Mapping[str, Mapping[str, Any]]


def read_cases(directory: Path, agent: str) -> Cases:
    """Return the results of one agent by case; nothing when the suite wrote no report."""
    index = directory / "index.json"
    if not index.exists():
        return {}
    cases: Cases = json.loads(index.read_text())[agent]
    return cases


def problem(name: str, case: Mapping[str, Any]) -> str:
    """Say what is wrong with a case, empty for nothing."""
    behavior, at_close = case["behavior"], case["behaviorClose"]
    declined = behavior == "UNIMPLEMENTED" and name.startswith(DECLINED)
    if behavior not in _GOOD and not declined:
        return f"behavior {behavior}"
    if at_close not in _GOOD:
        return f"close {at_close}, code {case.get('remoteCloseCode')}"
    if lacks_code(name, case):
        return "no close code"
    return ""


def lacks_code(name: str, case: Mapping[str, Any]) -> bool:
    """Tell whether the server ended without a close code where it must give one."""
    return case.get("remoteCloseCode") is None and name not in NO_CODE


def lines(cases: Cases, seconds: float) -> Iterator[str]:
    """Yield the report: totals, then every case that is not as it should be."""
    behaviors = Counter(case["behavior"] for case in cases.values())
    missing = sum(lacks_code(name, case) for name, case in cases.items())
    failed = {name: text for name, case in cases.items() if (text := problem(name, case))}
    yield f"{len(cases) - len(failed)} of {len(cases)} cases passed in {seconds:.0f} s"
    yield "  " + ", ".join(f"{count} {word}" for word, count in behaviors.most_common())
    yield f"  {missing} close codes are missing"
    yield "  seconds by section: " + ", ".join(_by_section(cases))
    for name in sorted(failed, key=_order):
        yield f"  FAILED {name}: {failed[name]}"
    for name in sorted(cases, key=_order):
        if cases[name]["behavior"] == "NON-STRICT":
            yield f"  not strict {name}"


def _by_section(cases: Cases) -> Iterator[str]:
    spent: defaultdict[int, float] = defaultdict(float)
    for name, case in cases.items():
        spent[_order(name)[0]] += case["duration"] / 1000
    return (f"{section}: {spent[section]:.1f}" for section in sorted(spent))


def _order(name: str) -> list[int]:
    return [int(number) for number in name.split(".")]
