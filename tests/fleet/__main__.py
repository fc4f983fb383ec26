"""``python -m tests.fleet``: three gateways behind HAProxy with one shared log, and what befalls them.

Every client that resumes must see each message of its streams once and in order, whatever is done
to the gateways; clients of the plain protocol must see no hole within a connection and nothing
that Rango would not send. Results are lines of JSON; the exit status is 1 when anything was missed.
"""

# ruff: noqa: E402 - the standard library must be patched before anything else imports it
from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import argparse
import json
import os
import resource
import sys
import time
from pathlib import Path

import gevent

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "deploy")]

from tests.fleet.scene import CASES, fleet

_MUST_NOT = ("doubled", "missed", "disorder", "miscounted", "changed", "unexpected")


def run(case: str, arguments: argparse.Namespace) -> dict[str, object]:
    """Run one case and return what came of it."""
    extra = {"RANGO_LOG": "stream", "RANGO_MAX_CONNECTIONS": "4000"}
    with fleet(3, arguments.drain_s, extra, lambda text: print(text, file=sys.stderr)) as (
        scene,
        exchange,
    ):
        scene.connect(arguments.resuming, arguments.plain, exchange, arguments.rate)
        gevent.sleep(2)
        began_s = time.monotonic()
        scene.still.mark()
        found = CASES[case](scene)
        scene.settle()
        missing = scene.behind()
        seen = scene.tally.seen
        unrecovered = {word: count for word, count in seen.items() if word.startswith("not rec")}
        away = sorted(seconds for _, seconds in scene.tally.back)
        result: dict[str, object] = {
            "case": case,
            "seconds": round(time.monotonic() - began_s, 1),
            "published": sum(scene.published.values()),
            "events": seen["events"],
            "reconnects": len(away),
            "recovered": seen["recovered"],
            "replayed": seen["replayed"],
            **{word: seen[word] for word in _MUST_NOT if seen[word]},
            **unrecovered,
            "lost": missing,
            "away_p50_s": round(away[len(away) // 2], 2) if away else None,
            "away_max_s": round(away[-1], 2) if away else None,
            **found,
        }
        in_time = "bound_s" not in found or float(str(found["back_s"])) <= float(
            str(found["bound_s"])
        )
        # a client of the plain protocol may miss what was published while it was away
        result["ok"] = not (missing or unrecovered or scene.tally.errors) and in_time
        if case != "cut" and not result["reconnects"] and case != "stalled":
            result["ok"] = False  # nothing was tried
        if case == "cut" and found["disconnected"]:
            result["ok"] = False
        for error in scene.tally.errors:
            print(error, file=sys.stderr)
        if not result["ok"]:
            for instance in scene.instances:
                print(instance.server.log()[-3000:], file=sys.stderr)
        return result


def main() -> int:
    """Run the cases; 0 when each held."""
    parser = argparse.ArgumentParser(prog="python -m tests.fleet")
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--resuming", type=int, default=1000, help="clients that resume")
    parser.add_argument("--plain", type=int, default=50, help="clients of the plain protocol")
    parser.add_argument("--rate", type=float, default=500, help="messages a second")
    parser.add_argument("--drain-s", type=float, default=10)
    arguments = parser.parse_args()
    unknown = set(arguments.cases) - set(CASES)
    if unknown:
        parser.error(f"no such case: {', '.join(sorted(unknown))}; there are {', '.join(CASES)}")
    if "AMQP_URL" not in os.environ:
        parser.error("run it under scripts/with-rabbitmq")
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    results = [run(case, arguments) for case in arguments.cases or CASES]
    for result in results:
        print(json.dumps(result))
    return 0 if all(result["ok"] for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
