"""``python -m tests.torment [NAME ...]``: attack the gateway and say what others noticed.

Prints one table: attack, worst latency of a good client, growth of the gateway's memory, how
long the machine itself stood still, verdict. The exit status is 1 when a row is worse than
allowed, twice. It wants a broker of its own: run it under ``scripts/with-rabbitmq --private``.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time
from pathlib import Path

from tests.torment.attacks import ATTACKS, BASELINE, Attack
from tests.torment.scene import COMMANDS, FRONTS, Options, Scene, start_scene
from tests.torment.verdict import Row, judge, table

_SECONDS = 5.0
_SHORT_SECONDS = 1.0
_TRIES = 2  # what a busy machine does once it hardly does twice


def main() -> int:
    """Run the attacks; 0 when no row is worse than allowed."""
    arguments = _parser().parse_args()
    if arguments.list:
        for attack in ATTACKS:
            print(f"{attack.name:<24}{attack.text}")
        return 0
    if "AMQP_URL" not in os.environ:
        print("run it under scripts/with-rabbitmq --private", file=sys.stderr)
        return 2
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    attacks = _chosen(arguments.names, arguments.short)
    rows = _run(attacks, _options(arguments), arguments.tries)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps([row._asdict() for row in rows], indent=1))
    print(table(rows))
    return 1 if any(row.problems for row in rows) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.torment", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="attacks; default: all")
    parser.add_argument("--list", action="store_true", help="list the attacks")
    parser.add_argument("--server", choices=COMMANDS, default="rango")
    parser.add_argument("--front", choices=FRONTS, default="none", help="a proxy before it")
    parser.add_argument("--policy", choices=("close", "drop-oldest", "latest"), default="close")
    parser.add_argument("--compression", action="store_true", help="attackers ask for it")
    parser.add_argument("--outage", action="store_true", help="the broker stops meanwhile")
    parser.add_argument("--seconds", type=float, help=f"of each attack; {_SECONDS:g}")
    parser.add_argument("--short", action="store_true", help="smaller forms, a minute in all")
    parser.add_argument("--tries", type=int, default=_TRIES, help="on a busy machine: %(default)s")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all that was measured")
    return parser


def _options(arguments: argparse.Namespace) -> Options:
    seconds = arguments.seconds or (_SHORT_SECONDS if arguments.short else _SECONDS)
    return Options(
        arguments.server,
        arguments.front,
        arguments.policy,
        arguments.compression,
        arguments.outage,
        seconds,
        arguments.short,
    )


def _chosen(names: list[str], is_short: bool) -> list[Attack]:
    """Return the attacks to make; the baseline comes first, asked for or not."""
    known = {attack.name: attack for attack in ATTACKS}
    unknown = [name for name in names if name not in known]
    if unknown:
        sys.exit(f"no such attack: {', '.join(unknown)}; --list shows all")
    if names:
        return [BASELINE, *(known[name] for name in names if known[name] is not BASELINE)]
    return [attack for attack in ATTACKS if not is_short or attack.short is not None]


def _run(attacks: list[Attack], options: Options, tries: int) -> list[Row]:
    """Make attacks in turn; those of the same settings share a gateway that has done well."""
    rows: list[Row] = []
    left = [(attack, 1) for attack in attacks]
    while left:
        place = _place(left[0][0])
        with start_scene(left[0][0], options) as scene:
            while left and _place(left[0][0]) == place:
                attack, attempt = left.pop(0)
                before_ms = rows[0].measured["latency_ms"] if rows else 0.0
                row = _torment(scene, attack, options, before_ms)
                if row.problems and attempt < tries:
                    left.insert(0, (attack, attempt + 1))
                else:
                    rows.append(row)
                    print(table([row]).splitlines()[1], file=sys.stderr, flush=True)
                if row.problems:
                    break
    return rows


def _place(attack: Attack) -> tuple[object, ...]:
    """Return what attacks that share a gateway have in common."""
    return (sorted(attack.env.items()), attack.files, attack.source)


def _torment(scene: Scene, attack: Attack, options: Options, baseline_ms: float) -> Row:
    began = time.monotonic()
    measured, notes = scene.torment(attack)
    measured.update(took_s=time.monotonic() - began, baseline_ms=baseline_ms)
    bounds = attack.bounds(options.short)
    if options.outage:  # messages do not come meanwhile, but answers must
        measured["latency_ms"] = measured["ping_ms"]
        del bounds["lost"]
    problems = judge(measured, bounds)
    if not measured["attacked"]:
        problems.insert(0, "the attack did not come to its end")
    if not measured["alive"]:
        problems.insert(0, "the gateway ended")
    return Row(attack.name, measured, problems + notes if problems else [])


if __name__ == "__main__":
    sys.exit(main())
