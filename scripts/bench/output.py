"""What the benchmark says: how it goes, and what came out on which machine."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any, Mapping

from bench import chart, gateways, machine, peers, report, scenarios
from bench.jobs import OURS
from bench.report import Result
from bench.scenarios import Scenario
from bench.tools import BenchError
from rango_gevent import __version__
from rango_gevent.commands.terminal import say
from rango_gevent.errors import ConfigError


def listing() -> str:
    """Return the list of scenarios and groups."""
    rows = [[scenario.name, scenario.text] for scenario in scenarios.every()]
    groups = [[name, ", ".join(members)] for name, members in scenarios.GROUPS.items()]
    return "\n".join(
        [
            *report.align(rows, left=2),
            "",
            f"groups (without names: {' and '.join(scenarios.DEFAULT_GROUPS)}):",
            *report.align(groups, left=2),
        ]
    )


class Progress:
    """A live line on a terminal; one line for each result elsewhere."""

    def __init__(self) -> None:
        self._title = ""
        self._live = sys.stderr.isatty()

    def begin(self, title: str) -> None:
        """Start on something."""
        self._title = title
        self.show("starting")

    def show(self, text: str) -> None:
        """Show how it goes."""
        if self._live:
            sys.stderr.write(f"\r{self._title}: {text}\x1b[K")
            sys.stderr.flush()

    def end(self, text: str) -> None:
        """Say how it went."""
        if self._live:
            sys.stderr.write("\r\x1b[K")
        say(f"{self._title}: {text}")


def short(result: Result) -> str:
    """Return a result as a few words: its first figures."""
    if result.error:
        return f"failed: {result.error}"
    figures = (
        ("us_per_delivery", "us/delivery"),
        ("us_per_message", "us/message"),
        ("p50_ms", "ms p50"),
        ("p99_ms", "ms p99"),
        ("max_ms", "ms at most"),
        ("kernel_kb_per_deaf", "KB of the kernel for one that reads nothing"),
        ("kb_per_connection", "KB/connection"),
        ("connects_per_s", "connects/s"),
        ("handshake_ms", "ms handshake"),
        ("ping_ms", "ms ping"),
    )
    return ", ".join(
        f"{getattr(result, name):.4g} {unit}"
        for name, unit in figures
        if getattr(result, name) is not None
    )


def about(broker_url: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return what the results depend on: machine, versions, settings, load.

    Raises:
        ConfigError: the broker is not there.
    """
    try:
        broker = gateways.broker_version(broker_url)
    except BenchError as error:
        raise ConfigError(f"{error}; `make bench` finds or starts a broker") from None
    versions = {
        "rango_gevent": __version__,
        "python": platform.python_version(),
        "broker": broker,
        **{name: _version(name) for name in ("gevent", "kombu", "websockets", "msgspec")},
    }
    if arguments.compare:
        versions.update({p.name: p.version() for p in peers.PEERS if not p.missing()})
    return {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": machine.describe(),
        "versions": versions,
        "settings": _tuning(os.environ) if not arguments.url else {},
        "seconds": arguments.seconds,
        "load_before": machine.load(),
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _tuning(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the inherited settings that change how the gateway works; no address, no secret."""
    return {
        name: value
        for name, value in sorted(environ.items())
        if name.startswith("RANGO_") and value.replace(".", "").isalnum()
    }


def tell(
    about: dict[str, Any],
    chosen: list[Scenario],
    results: list[Result],
    arguments: argparse.Namespace,
) -> None:
    """Print the figures, and write the files that were asked for."""
    whole_ones = [scenario for scenario in chosen if scenario in scenarios.every()]
    found = report.verdicts(whole_ones, results, arguments.name if arguments.url else OURS)
    print(_heading(about))
    print()
    print(report.table(results))
    if found:
        print()
        print(report.goals_table(found))
    if arguments.json:
        whole = {
            **about,
            "results": [result.as_json() for result in results],
            "goals": [verdict.as_json() for verdict in found],
        }
        Path(arguments.json).write_text(json.dumps(whole, indent=1) + "\n")
    if arguments.chart:
        chart.draw(arguments.chart, results, _machine_line(about["machine"]))


def _machine_line(described: Mapping[str, Any]) -> str:
    return (
        f"{described['cpu']}, {described['cores']} cores, {described['memory_mb']} MB, "
        f"{described['system']} {described['kernel']}"
    )


def _heading(about: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    settings = " ".join(f"{name}={value}" for name, value in about["settings"].items())
    before, after = (" ".join(f"{x:g}" for x in about[f"load_{n}"]) for n in ("before", "after"))
    lines = [
        f"{about['at']}  {_machine_line(about['machine'])}",
        versions,
        f"load average {before} before, {after} after; gateway, broker, publisher and clients "
        "share the cores",
        "client %: the load client, of one core; others %: of all cores, processes without a part "
        "in this",
    ]
    return "\n".join(lines + ([f"with {settings}"] if settings else []))
