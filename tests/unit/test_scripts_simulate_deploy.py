"""The simulated deploy: everybody comes back, the same seed gives the same, pressure shows."""

from __future__ import annotations

import pytest
from simulate_deploy import Costs, Deploy, Outcome, Simulation, main

SMALL = Deploy(clients=3000, workers=6, at_once=2, drain_s=2.0, window_s=7.0)


def simulated(seed: int = 1, costs: Costs | None = None, **changed: float) -> Outcome:
    """Run a small deploy."""
    return Simulation(SMALL._replace(**changed), costs or Costs(), seed).run()  # type: ignore[arg-type]


def test_everybody_who_left_comes_back() -> None:
    """Each client is told to leave at least once, since each worker is replaced."""
    simulation = Simulation(SMALL, Costs(), 1)
    outcome = simulation.run()
    held = [client for worker in simulation._workers for client in worker.clients]
    assert sorted(held) == list(range(SMALL.clients))
    assert outcome.reconnects >= SMALL.clients
    assert outcome.most_per_client >= 1


def test_the_same_seed_gives_the_same() -> None:
    """And another one nearly the same."""
    assert simulated(1) == simulated(1)
    assert simulated(1) != simulated(2)


def test_nobody_is_away_for_longer_than_the_first_wait_when_there_is_time() -> None:
    """Workers that are mostly idle take everybody as they come."""
    outcome = simulated(first_wait_s=0.5)
    assert 0 < outcome.away_p50_s < outcome.away_p99_s <= outcome.away_max_s < 0.7
    assert outcome.given_up == 0


def test_a_short_drain_makes_a_wave() -> None:
    """Told all at once, clients stand in line."""
    calm, wave = simulated(drain_s=10.0), simulated(drain_s=0.1)
    assert wave.peak_connects_per_s > 2 * calm.peak_connects_per_s
    assert wave.longest_line > calm.longest_line


def test_costly_handshakes_keep_clients_away() -> None:
    """What a worker has no time for waits, and at last gives up and comes again."""
    costly = simulated(costs=Costs(handshake_us=50_000.0), handshake_timeout_s=3.0)
    assert costly.given_up > 0
    assert costly.away_max_s > 3.0


def test_replay_follows_rate_and_absence() -> None:
    """What is replayed is what was due while they were away."""
    outcome = simulated(due_per_s=20.0)
    assert outcome.replayed == pytest.approx(2 * simulated(due_per_s=10.0).replayed, rel=0.05)
    assert outcome.replay_bytes == outcome.replayed * SMALL.frame_bytes


def test_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    """The command prints a line for each figure."""
    assert main(["--clients", "500", "--workers", "5", "--at-once", "1", "--window-s", "1"]) == 0
    out = capsys.readouterr().out
    assert "the ring must reach back" in out
    assert "reconnects in all" in out


@pytest.mark.parametrize(
    "arguments",
    [["--clients", "0"], ["--at-once", "101"], ["--drain-s", "0"], ["--due-per-s", "-1"]],
)
def test_what_cannot_be_simulated(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """One line says why."""
    with pytest.raises(SystemExit) as raised:
        main(arguments)
    assert raised.value.code == 2
    assert "error:" in capsys.readouterr().err
