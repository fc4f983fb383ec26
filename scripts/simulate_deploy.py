#!/usr/bin/env python3
"""simulate_deploy [OPTION ...]: a rolling deploy of many workers, simulated client by client.

Every client is told to leave once its worker drains, waits as the clients do (full jitter), goes
through the balancer to some worker that is ready, waits there until its handshake and its replay
have been paid for, and may be told to leave again. What comes out: how many come back at once, how
long anybody is away, what is replayed, and how far back the ring must reach.

The cost of everything is what was measured on one worker (docs/PERFORMANCE.md, docs/CONTINUITY.md);
what is between workers (balancer, network) is taken to cost no time. A simulation: figures of it
are no measurements. The same seed gives the same figures.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from array import array
from collections import defaultdict, deque
from typing import Iterable, NamedTuple, Sequence

STEP_S = 0.05
_PROGRESS_EVERY_S = 2.0
_LONGEST_WAIT_S = 30.0  # of a client that failed again and again
_LONGEST_S = 24 * 3600.0


class Costs(NamedTuple):
    """What was measured on one worker.

    Attributes:
        handshake_us: processor time of a handshake with an EdDSA token.
        replay_us: of one replayed event.
        serve_us: of serving one client in one turn.
        ingest_us: of one message taken in, ring and check included.
        turn_rest: rest after a long turn, in parts of its length.
        ring_overhead: bytes of an event in the ring beside its frame.
        refill_per_s: events a second that a new instance reads from a log written live.
        start_s: seconds from the start of a process to its readiness with an empty log.
    """

    handshake_us: float = 208.0
    replay_us: float = 0.3
    serve_us: float = 7.0
    ingest_us: float = 5.0
    turn_rest: float = 0.7
    ring_overhead: int = 118
    refill_per_s: float = 7000.0
    start_s: float = 0.5


class Deploy(NamedTuple):
    """What is deployed, and how.

    Attributes:
        clients: connections in all.
        workers: processes that serve them.
        at_once: workers that are replaced together.
        drain_s: RANGO_DRAIN_S.
        window_s: seconds of events that a new worker reads before it is ready.
        events_per_s: of all streams together, as they are published.
        due_per_s: events a second that one client is due.
        frame_bytes: size of an event on the wire.
        first_wait_s: longest first wait of a client that was told of a restart.
        handshake_timeout_s: a client gives up so long after it connected.
        ping_s: RANGO_PING_INTERVAL_S: how old the position of a quiet client may be.
    """

    clients: int = 1_000_000
    workers: int = 100
    at_once: int = 5
    drain_s: float = 10.0
    window_s: float = 60.0
    events_per_s: float = 1000.0
    due_per_s: float = 10.0
    frame_bytes: int = 250
    first_wait_s: float = 1.0
    handshake_timeout_s: float = 10.0
    ping_s: float = 54.0


class Outcome(NamedTuple):
    """What a deploy came to. Times in seconds, sizes in bytes."""

    seconds: float
    reconnects: int
    given_up: int
    most_per_client: int
    peak_connects_per_s: float
    peak_of_one_worker: int
    longest_line: int
    away_p50_s: float
    away_p99_s: float
    away_max_s: float
    replayed: float
    replay_bytes: float
    peak_bytes_per_s: float
    live_bytes_per_s: float
    reach_s: float
    ring_bytes: float


class Worker:
    """One process: who is on it, who stands in line for it, what of a core fan-out takes."""

    def __init__(self) -> None:
        self.clients: list[int] = []
        self.line: deque[tuple[int, float, float, float]] = deque()
        self.ready = True
        self.leaving: list[int] = []
        self.ahead_s = 0.0

    def fan_out_share(self, deploy: Deploy, costs: Costs) -> float:
        """Return the part of a core that serving its clients takes.

        A client is served once for each event it is due, or once a turn when turns are longer
        than that.
        """
        count = len(self.clients) + len(self.leaving)
        turn_s = count * costs.serve_us * 1e-6 * (1 + costs.turn_rest)
        per_s = min(deploy.due_per_s, 1 / turn_s if turn_s else deploy.due_per_s)
        taking_in = deploy.events_per_s * costs.ingest_us * 1e-6
        return count * per_s * costs.serve_us * 1e-6 + taking_in


class Simulation:
    """One rolling deploy.

    Args:
        deploy: what is deployed.
        costs: what was measured.
        seed: of all randomness.
    """

    def __init__(self, deploy: Deploy, costs: Costs, seed: int) -> None:
        self._deploy = deploy
        self._costs = costs
        self._random = random.Random(seed)
        self._workers = [Worker() for _ in range(deploy.workers)]
        for client in range(deploy.clients):
            self._workers[client % deploy.workers].clients.append(client)
        self._coming: dict[int, list[tuple[int, float, float]]] = defaultdict(list)
        self._away = array("d")
        self._moves = bytearray(deploy.clients)
        self._step = 0
        self._waiting = 0
        self._given_up = self._longest_line = 0
        self._peak = self._peak_of_one = 0
        self._replayed = self._peak_replayed = 0.0

    def run(self, progress: bool = False) -> Outcome:
        """Replace all workers, a group at a time, and wait until everybody is back."""
        order = list(range(len(self._workers)))
        said_s = time.monotonic()
        for start in range(0, len(order), self._deploy.at_once):
            self._replace(order[start : start + self._deploy.at_once])
            if progress and time.monotonic() - said_s > _PROGRESS_EVERY_S:
                said_s = time.monotonic()
                done = min(len(order), start + self._deploy.at_once)
                print(f"\r{done} of {len(order)} workers", end="", file=sys.stderr, flush=True)
        while self._waiting:
            self._tick()
        if progress:
            print("\r" + " " * 40 + "\r", end="", file=sys.stderr)
        return self._outcome()

    @property
    def _now_s(self) -> float:
        return self._step * STEP_S

    def _replace(self, numbers: Sequence[int]) -> None:
        """Start new workers, and once they are ready drain those whose places they take."""
        deploy, costs = self._deploy, self._costs
        fill_s = costs.start_s + deploy.window_s * deploy.events_per_s / costs.refill_per_s
        self._run_until(self._now_s + fill_s)
        for number in numbers:
            old = self._workers[number]
            new = self._workers[number] = Worker()
            # whoever stands in its line was not accepted yet, and goes to the new one
            new.line = old.line
            new.leaving = old.clients
            self._random.shuffle(new.leaving)
        began_s = self._now_s
        totals = [len(self._workers[number].leaving) for number in numbers]
        while self._now_s < began_s + deploy.drain_s:
            left = max(0.0, 1 - (self._now_s + STEP_S - began_s) / deploy.drain_s)
            for number, total in zip(numbers, totals):
                leaving = self._workers[number].leaving
                while len(leaving) > total * left:
                    self._leave(leaving.pop())
            self._tick()
        for number in numbers:
            while self._workers[number].leaving:
                self._leave(self._workers[number].leaving.pop())

    def _leave(self, client: int) -> None:
        self._moves[client] = min(255, self._moves[client] + 1)
        self._waiting += 1
        self._come(client, self._now_s, self._deploy.first_wait_s)

    def _come(self, client: int, left_s: float, longest_s: float) -> None:
        at_s = self._now_s + self._random.uniform(0, longest_s)
        step = max(self._step + 1, round(at_s / STEP_S))
        self._coming[step].append((client, left_s, longest_s))

    def _run_until(self, until_s: float) -> None:
        while self._now_s < until_s:
            self._tick()

    def _tick(self) -> None:
        """Let those who are due arrive, and each worker accept as many as it has time for."""
        self._step += 1
        for client, left_s, longest_s in self._coming.pop(self._step, ()):
            # as a balancer with `random 2`: the shorter of two
            first, second = self._random.choice(self._workers), self._random.choice(self._workers)
            shorter = len(first.clients) + len(first.line) <= len(second.clients) + len(second.line)
            worker = first if shorter else second
            worker.line.append((client, left_s, longest_s, self._now_s))
        accepted, replayed = 0, self._replayed
        for worker in self._workers:
            count = self._accept(worker) if worker.line else 0
            accepted += count
            self._peak_of_one = max(self._peak_of_one, count)
        self._peak = max(self._peak, accepted)
        self._peak_replayed = max(self._peak_replayed, self._replayed - replayed)

    def _accept(self, worker: Worker) -> int:
        deploy, costs = self._deploy, self._costs
        self._longest_line = max(self._longest_line, len(worker.line))
        share = max(0.05, 1 - worker.fan_out_share(deploy, costs))
        budget_us = STEP_S * share * 1e6 - worker.ahead_s * 1e6
        count = 0
        while worker.line and budget_us > 0:
            client, left_s, longest_s, came_s = worker.line.popleft()
            away_s = self._now_s - left_s
            if self._now_s - came_s > deploy.handshake_timeout_s:
                self._given_up += 1
                self._come(client, left_s, min(_LONGEST_WAIT_S, 2 * longest_s))
                continue
            missed = away_s * deploy.due_per_s
            budget_us -= costs.handshake_us + missed * costs.replay_us
            self._replayed += missed
            self._away.append(away_s)
            worker.clients.append(client)
            self._waiting -= 1
            count += 1
        worker.ahead_s = max(0.0, -budget_us * 1e-6)
        return count

    def _outcome(self) -> Outcome:
        deploy = self._deploy
        away = sorted(self._away)
        reach_s = deploy.ping_s + (away[-1] if away else 0.0)
        per_event = deploy.frame_bytes + self._costs.ring_overhead
        return Outcome(
            seconds=self._now_s,
            reconnects=len(away),
            given_up=self._given_up,
            most_per_client=max(self._moves, default=0),
            peak_connects_per_s=self._peak / STEP_S,
            peak_of_one_worker=round(self._peak_of_one / STEP_S),
            longest_line=self._longest_line,
            away_p50_s=_quantile(away, 0.5),
            away_p99_s=_quantile(away, 0.99),
            away_max_s=_quantile(away, 1.0),
            replayed=self._replayed,
            replay_bytes=self._replayed * deploy.frame_bytes,
            peak_bytes_per_s=self._peak_replayed / STEP_S * deploy.frame_bytes,
            live_bytes_per_s=deploy.clients * deploy.due_per_s * deploy.frame_bytes,
            reach_s=reach_s,
            ring_bytes=reach_s * deploy.events_per_s * per_event,
        )


def _quantile(values: Sequence[float], share: float) -> float:
    return values[min(len(values) - 1, int(share * len(values)))] if values else 0.0


def rows(outcome: Outcome) -> Iterable[tuple[str, str]]:
    """Return what came out in words and figures."""
    yield "the deploy takes", f"{outcome.seconds:.0f} s"
    yield (
        "reconnects in all, at most for one client",
        (f"{outcome.reconnects:,}, {outcome.most_per_client}"),
    )
    yield "tries given up", f"{outcome.given_up:,}"
    yield (
        "connects/s at most, of one worker",
        (f"{outcome.peak_connects_per_s:,.0f}, {outcome.peak_of_one_worker:,}"),
    )
    yield "longest line before a worker", f"{outcome.longest_line:,}"
    yield (
        "away, p50 / p99 / at most",
        (f"{outcome.away_p50_s:.2f} / {outcome.away_p99_s:.2f} / {outcome.away_max_s:.2f} s"),
    )
    yield "events replayed", f"{outcome.replayed:,.0f}, {outcome.replay_bytes / 1e9:.2f} GB"
    yield (
        "network: replay at most, beside live",
        (f"{outcome.peak_bytes_per_s / 1e6:,.1f} MB/s, {outcome.live_bytes_per_s / 1e9:.2f} GB/s"),
    )
    yield "the ring must reach back", f"{outcome.reach_s:.0f} s, {outcome.ring_bytes / 1e6:.0f} MB"


def main(arguments: Sequence[str] | None = None) -> int:
    """Simulate one deploy and print a table."""
    parser = argparse.ArgumentParser(
        prog="simulate_deploy", description="A rolling deploy of many workers, client by client."
    )
    for kind in (Deploy, Costs):
        for name, default in kind._field_defaults.items():
            parser.add_argument(
                f"--{name.replace('_', '-')}", type=type(default), default=default, metavar="N"
            )
    parser.add_argument("--seed", type=int, default=1, metavar="N")
    given = vars(parser.parse_args(arguments))
    deploy = Deploy(**{name: given[name] for name in Deploy._fields})
    costs = Costs(**{name: given[name] for name in Costs._fields})
    problem = _problem(deploy)
    if problem:
        parser.error(problem)
    outcome = Simulation(deploy, costs, given["seed"]).run(progress=sys.stderr.isatty())
    width = max(len(name) for name, _ in rows(outcome))
    for name, text in rows(outcome):
        print(f"{name:{width}}  {text}")
    return 0


def _problem(deploy: Deploy) -> str:
    """Say why there is nothing to simulate; empty when there is."""
    if deploy.clients < 1 or not 1 <= deploy.at_once <= deploy.workers:
        return "give at least one client, and as many workers as are replaced at once"
    if not 0 < deploy.drain_s <= _LONGEST_S or deploy.window_s < 0 or deploy.window_s > _LONGEST_S:
        return "give times within a day"
    if min(deploy.events_per_s, deploy.due_per_s, deploy.frame_bytes, deploy.first_wait_s) < 0:
        return "rates, sizes and times are not negative"
    return ""


if __name__ == "__main__":
    sys.exit(main())
