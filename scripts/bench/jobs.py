"""What is to be done: each scenario on each of its servers, one after the other."""

from __future__ import annotations

import argparse
import os
from typing import Callable, NamedTuple

from bench import gateways, peers, publishing, runner, servers
from bench.arguments import Target
from bench.report import Result
from bench.scenarios import FLOOR, PUBLISH, Scenario
from bench.tools import BenchError
from rango_gevent.commands.terminal import say

OURS = "rango"

Start = Callable[[], servers.Server]


class Job(NamedTuple):
    """One measurement to make: a scenario, and how to start the server it is made on."""

    scenario: Scenario
    server: str
    start: Start


def jobs(
    chosen: list[Scenario],
    arguments: argparse.Namespace,
    target: Target | None,
    broker_url: str,
    options: runner.Options,
) -> list[Job]:
    """Return the measurements in order, and say which scenarios are left out."""
    compared = _peers() if arguments.compare else []
    jobs = []
    for scenario in chosen:
        if scenario.kind == PUBLISH:
            jobs += [_library_job(name, scenario, broker_url) for name in publishing.LIBRARIES]
            continue
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
        return Job(scenario, OURS, lambda: gateways.OwnGateway(broker_url, scenario, os.environ))
    return Job(scenario, target.name, lambda: gateways.Gateway(*target, broker_url))


def _library_job(name: str, scenario: Scenario, broker_url: str) -> Job:
    return Job(scenario, name, lambda: publishing.Library(name, broker_url))


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


def run_one(job: Job, options: runner.Options) -> Result:
    """Measure; why a server could not be started is in the result's ``error``."""
    try:
        server = job.start()
    except (BenchError, OSError) as error:
        return Result(job.scenario.name, job.server, error=str(error))
    try:
        return runner.run(job.scenario, server, options)
    finally:
        server.close()
