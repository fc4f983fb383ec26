"""``rango bench``: measure the gateway, and its peers beside it.

Runs unpatched: it watches processes, and no greenlets of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import os
import platform
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any, Callable, Iterator, Mapping, NamedTuple
from urllib.parse import urlsplit

from rango_gevent import __version__
from rango_gevent.auth.keys import SigningKey
from rango_gevent.bench import (
    chart,
    gateways,
    machine,
    native,
    peers,
    report,
    runner,
    scenarios,
    servers,
)
from rango_gevent.bench.report import Result
from rango_gevent.bench.scenarios import FLOOR, Scenario
from rango_gevent.bench.tools import BenchError
from rango_gevent.commands.terminal import say
from rango_gevent.commands.token import signing_key
from rango_gevent.errors import ConfigError
from rango_gevent.settings import Settings

_LOOPBACK = ("127.0.0.1", "localhost")
_OURS = "rango"
_FAILED = 1

Start = Callable[[], servers.Server]


class Job(NamedTuple):
    """One measurement to make: a scenario, and how to start the server it is made on."""

    scenario: Scenario
    server: str
    start: Start


def run(arguments: argparse.Namespace, settings: Settings) -> int:
    """Measure and report.

    Args:
        arguments: those that ``rango bench --help`` lists.
        settings: where the broker is, unless AMQP_URL says it, and the exchange of --url.

    Returns:
        0, or 1 when a scenario could not be measured.

    Raises:
        ConfigError: something is missing, or an argument is wrong.
        KeyboardInterrupt: after the report of what was measured.
    """
    if arguments.list:
        print(listing())
        return 0
    chosen = _chosen(arguments)
    _check_outputs(arguments)
    target = _target(arguments, settings.exchange)
    broker_url = _broker_url(arguments, settings)
    options = runner.Options(
        native.build(),
        arguments.seconds,
        arguments.client_threads,
        gateways.broker_pids(broker_url),
        _show,
    )
    about = _about(broker_url, arguments)
    results: list[Result] = []
    try:
        with _ended_by_sigterm():
            jobs = _jobs(chosen, arguments, target, broker_url, options)
            _run_all(jobs, options, target, results)
    finally:  # what was measured until Ctrl-C counts too
        if results:
            about["load_after"] = machine.load()
            _report(about, chosen, results, arguments)
    return _FAILED if any(result.error for result in results) else 0


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


# -- arguments ----------------------------------------------------------------------------


def _chosen(arguments: argparse.Namespace) -> list[Scenario]:
    """Return the scenarios to run, cut down to what was asked for."""
    if arguments.seconds <= 0 or arguments.client_threads < 1:
        raise ConfigError("--seconds and --client-threads: give more than 0")
    return [
        scenarios.capped(scenario, arguments.max_clients, arguments.max_messages, arguments.seconds)
        for scenario in scenarios.select(arguments.scenario)
    ]


def _check_outputs(arguments: argparse.Namespace) -> None:
    """Find out before a long run, not after it, that its results cannot be written."""
    if arguments.chart:
        chart.check()
    for path in filter(None, (arguments.json, arguments.chart)):
        try:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"{path}: cannot be written ({error.strerror})") from None
        if Path(path).is_dir() or not os.access(Path(path).parent, os.W_OK):
            raise ConfigError(f"{path}: cannot be written")


def _broker_url(arguments: argparse.Namespace, settings: Settings) -> str:
    given = getattr(arguments, "amqp-addr") or os.environ.get("AMQP_URL", "")
    url = given.split(";")[0] or settings.broker_urls[0]
    if urlsplit(url).scheme not in ("amqp", "pyamqp"):
        raise ConfigError("the benchmark publishes over plain AMQP: give --amqp-addr amqp://...")
    if (urlsplit(url).hostname or "localhost") not in (*_LOOPBACK, "::1"):
        raise ConfigError(
            "the benchmark stays on this machine, and the broker is elsewhere: "
            "give --amqp-addr, or use `make bench`, which finds or starts one"
        )
    return url


class Target(NamedTuple):
    """A gateway that runs already: name, port, path in front, processes, exchange, key."""

    name: str
    port: int
    base: str
    pids: list[int]
    exchange: str
    key: SigningKey | None


def _target(arguments: argparse.Namespace, exchange: str) -> Target | None:
    """Return the gateway of --url; None: start our own."""
    if not arguments.url:
        if arguments.pid or arguments.token_key:
            raise ConfigError("--pid and --token-key belong to --url")
        return None
    parts = urlsplit(arguments.url)
    if parts.scheme != "ws" or parts.hostname not in _LOOPBACK:
        raise ConfigError(f"--url={arguments.url!r}: give ws://127.0.0.1:PORT")
    try:
        pids = [int(pid) for pid in (arguments.pid or "").split(",")]
        port = parts.port or 80
    except ValueError:
        raise ConfigError("give --url ws://127.0.0.1:PORT and --pid PID[,PID]") from None
    try:
        machine.cpu_s(pids)
    except ProcessLookupError as error:
        raise ConfigError(f"--pid={arguments.pid}: {error}") from None
    key = signing_key(Path(arguments.token_key)) if arguments.token_key else None
    return Target(arguments.name, port, parts.path.rstrip("/"), pids, exchange, key)


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end this block like Ctrl-C, so that started processes are ended too."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


# -- the run ------------------------------------------------------------------------------


def _jobs(
    chosen: list[Scenario],
    arguments: argparse.Namespace,
    target: Target | None,
    broker_url: str,
    options: runner.Options,
) -> list[Job]:
    """Return the measurements in order: each scenario on all its servers, one after the other."""
    compared = _peers() if arguments.compare else []
    jobs = []
    for scenario in chosen:
        left_out = target and _left_out(scenario, target)
        if left_out:
            say(f"{scenario.name} is left out: {left_out}")
            continue
        jobs.append(_gateway_job(scenario, target, broker_url))
        if _wants_floor(scenario, arguments):
            jobs.append(_floor_job(scenario, options))
        jobs += [_peer_job(peer, scenario) for peer in compared if peers.peer_can(scenario)]
    return jobs


def _left_out(scenario: Scenario, target: Target) -> str:
    """Tell why a scenario cannot be run on a gateway that runs already; empty: it can."""
    if gateways.needs_own(scenario):
        return "it needs a gateway that is started for it, without --url"
    if scenario.tokens and target.key is None:
        return "name the private key of tokens that the gateway accepts by --token-key"
    return ""


def _gateway_job(scenario: Scenario, target: Target | None, broker_url: str) -> Job:
    if target is None:
        return Job(scenario, _OURS, lambda: gateways.OwnGateway(broker_url, scenario, os.environ))
    return Job(scenario, target.name, lambda: gateways.Gateway(*target, broker_url))


def _wants_floor(scenario: Scenario, arguments: argparse.Namespace) -> bool:
    has_goal = any(goal.of == FLOOR for goal in scenario.goals)
    return peers.floor_can(scenario) and (arguments.compare or has_goal)


def _floor_job(scenario: Scenario, options: runner.Options) -> Job:
    count, limit_s = scenario.count(options.seconds), runner.time_limit_s(scenario, options)
    # it stays until all its clients have been counted, whatever that takes
    return Job(
        scenario,
        FLOOR,
        lambda: peers.Floor(options.tools["floor"], scenario, count, 2 * limit_s + 180),
    )


def _peers() -> list[type[peers.Nats] | type[peers.Nchan]]:
    """Return the peers that are installed, and say which are not."""
    for peer in peers.PEERS:
        if peer.missing():
            say(peer.needs)
    return [peer for peer in peers.PEERS if not peer.missing()]


def _peer_job(peer: type[peers.Nats] | type[peers.Nchan], scenario: Scenario) -> Job:
    if peer is peers.Nats:
        return Job(scenario, peer.name, lambda: peers.Nats(os.environ))
    connections = 2 * scenario.clients + 1000
    return Job(scenario, peer.name, lambda: peers.Nchan(os.environ, connections))


def _run_all(
    jobs: list[Job], options: runner.Options, target: Target | None, results: list[Result]
) -> None:
    """Run the jobs one after the other; each result is there as soon as it is known."""
    for number, job in enumerate(jobs, 1):
        _progress.begin(f"[{number}/{len(jobs)}] {job.scenario.name} on {job.server}")
        result = _run_one(job, options)
        result.workers = job.scenario.workers if target is None else None
        results.append(result)
        _progress.end(_short(result))


def _run_one(job: Job, options: runner.Options) -> Result:
    try:
        server = job.start()
    except (BenchError, OSError) as error:
        return Result(job.scenario.name, job.server, error=str(error))
    try:
        return runner.run(job.scenario, server, options)
    finally:
        server.close()


# -- what is said -------------------------------------------------------------------------


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


_progress = Progress()


def _show(text: str) -> None:
    _progress.show(text)


def _short(result: Result) -> str:
    """Return a result as a few words: its first figures."""
    if result.error:
        return f"failed: {result.error}"
    figures = (
        ("us_per_delivery", "us/delivery"),
        ("us_per_message", "us/message"),
        ("p99_ms", "ms p99"),
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


def _about(broker_url: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return what the results depend on: machine, versions, settings, load."""
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


def _report(
    about: dict[str, Any],
    chosen: list[Scenario],
    results: list[Result],
    arguments: argparse.Namespace,
) -> None:
    whole_ones = [scenario for scenario in chosen if scenario in scenarios.every()]
    found = report.verdicts(whole_ones, results, arguments.name if arguments.url else _OURS)
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
