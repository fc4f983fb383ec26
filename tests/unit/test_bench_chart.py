"""What the benchmark's chart shows; the drawing itself is matplotlib's."""

from __future__ import annotations

from bench import chart
from bench.report import Result


def flow(server: str, rate: float, clients: int, cost: float | None, **more: int) -> Result:
    """Return a result of the kind that the chart shows."""
    values = {"streams": 1, "size": 200, **more}
    return Result(
        "s", server, "flow", "shared", clients=clients, rate=rate, us_per_delivery=cost, **values
    )


RESULTS = [
    flow("rango", 400, 1000, 0.9),
    flow("rango", 50, 1000, 6.0),
    flow("rango", 50, 5000, 6.5),
    flow("nats", 50, 1000, 9.0),
    flow("nats", 400, 1000, None),
    flow("rango", 400, 1000, 9.9, streams=10),
    flow("rango", 50, 1000, 9.9, size=10240),
    flow("rango", 50, 1000, 9.9, workers=2),
    Result("idle", "rango", "idle", clients=10_000),
]


def test_cost_by_rate_is_of_equal_clients() -> None:
    """The first panel compares rates, by server, everything else being equal."""
    assert chart.by_rate(RESULTS) == {"rango": [(50, 6.0), (400, 0.9)], "nats": [(50, 9.0)]}


def test_cost_by_clients_is_of_equal_rate() -> None:
    """The second panel compares numbers of clients, by server, everything else being equal."""
    assert chart.by_clients(RESULTS) == {"rango": [(1000, 6.0), (5000, 6.5)], "nats": [(1000, 9.0)]}
