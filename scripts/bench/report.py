"""Results: their figures, the table, the goals. Pure."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Iterable, Mapping, NamedTuple, Sequence

from bench.scenarios import FLOOR, KOMBU, Goal, Scenario

_BUSY = 0.9  # share of a core from which a load client may have been what was measured
_WAITING = 0.5  # share of the time that it had to wait for a core


@dataclass
class Result:
    """What one scenario on one server came to; None: not measured there.

    Attributes:
        scenario: name of the scenario.
        server: what was measured.
        kind: the scenario's kind.
        audience: the scenario's audience.
        clients: clients that were connected.
        refused: clients that were not let in.
        gone: clients that were cut while the messages came.
        messages: messages published.
        size: bytes of a body.
        streams: streams that the messages took turns in.
        workers: worker processes, as far as this command chose them.
        rate: messages a second asked for; 0: as fast as it goes.
        messages_per_s: messages a second from the first sent to the last that arrived.
        deliveries: messages that arrived at clients.
        lost: deliveries that did not arrive.
        deliveries_per_s: from the first to the last arrival.
        bytes_per_delivery: bytes of WebSocket frames for each delivery.
        cpu_s: processor time of the server's processes.
        broker_us_per_message: processor time of the broker for each message published.
        us_per_delivery: the same in microseconds for each delivery.
        us_per_message: the same for each message published.
        us_per_connection: the same for each connection, of connecting them all.
        p50_ms: median age of a message at its arrival.
        p99_ms: 99th percentile of it.
        max_ms: largest of it.
        connects_per_s: from the first client's start to the last one's response.
        back_s: from the first client's start to the last missed event that arrived, in seconds.
        kb_per_connection: growth of the server's resident memory for each connection.
        growth_mb: growth of that memory while messages came.
        kernel_kb_per_deaf: most memory of the kernel behind the sockets of clients that read
            nothing, on the server's side, for each of them.
        rss_mb: the server's resident memory at the end.
        handshake_ms: longest time from a newcomer's connect to its response.
        ping_ms: longest time from a ping to its answer.
        probes: number of newcomers and pings that those two are taken from.
        client_busy: share of a core that the busiest thread of the load client used.
        client_waiting: share of the time that it was ready and had no core.
        machine_busy: share of all cores that was in use by anybody.
        others_busy: share of all cores that was in use by what has no part in this.
        load: the machine's load average of one minute at the start.
        notes: what else there is to say.
        error: why there is no result.
    """

    scenario: str
    server: str
    kind: str = ""
    audience: str = ""
    clients: int = 0
    refused: int = 0
    gone: int = 0
    messages: int | None = None
    size: int | None = None
    streams: int = 0
    workers: int | None = None
    rate: float | None = None
    messages_per_s: float | None = None
    deliveries: int | None = None
    lost: int | None = None
    deliveries_per_s: float | None = None
    bytes_per_delivery: float | None = None
    cpu_s: float | None = None
    broker_us_per_message: float | None = None
    us_per_delivery: float | None = None
    us_per_message: float | None = None
    us_per_connection: float | None = None
    p50_ms: float | None = None
    p99_ms: float | None = None
    max_ms: float | None = None
    connects_per_s: float | None = None
    back_s: float | None = None
    kb_per_connection: float | None = None
    growth_mb: float | None = None
    kernel_kb_per_deaf: float | None = None
    rss_mb: float | None = None
    handshake_ms: float | None = None
    ping_ms: float | None = None
    probes: int | None = None
    client_busy: float | None = None
    client_waiting: float | None = None
    machine_busy: float | None = None
    others_busy: float | None = None
    load: float = 0.0
    notes: list[str] = field(default_factory=list)
    error: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return it with figures of sensible length."""
        return {name: _rounded(value) for name, value in dataclasses.asdict(self).items()}


def _rounded(value: Any) -> Any:
    return float(f"{value:.5g}") if isinstance(value, float) else value


def percentile(ages: Sequence[tuple[int, int]], share: float) -> float | None:
    """Return a percentile of a histogram; None when it is empty.

    Args:
        ages: pairs of value and count, by rising value.
        share: from 0 to 1.

    Returns:
        The smallest value that at least this share of all does not exceed.
    """
    total = sum(count for _, count in ages)
    seen = 0
    for value, count in ages:
        seen += count
        if seen >= share * total:
            return value
    return None


def per(amount: float, count: float | None) -> float | None:
    """Return an amount for each of so many; None when there are none."""
    return amount / count if count else None


def fill_ages(result: Result, ages: Sequence[tuple[int, int]], max_ns: int) -> None:
    """Set the ages' percentiles from a histogram in ns."""
    p50, p99 = percentile(ages, 0.5), percentile(ages, 0.99)
    if p50 is not None and p99 is not None:
        # a bucket stands for its middle, which may lie past the largest value in it
        result.p50_ms, result.p99_ms = min(p50, max_ns) / 1e6, min(p99, max_ns) / 1e6
        result.max_ms = max_ns / 1e6


def warnings(result: Result) -> list[str]:
    """Return what makes a result doubtful."""
    found = list(result.notes)
    if (result.client_busy or 0) >= _BUSY:
        found.append(
            f"the load client used {100 * (result.client_busy or 0):.0f} % of a core and may have "
            "been the bottleneck; try --client-threads"
        )
    elif (result.client_busy or 0) + (result.client_waiting or 0) >= _BUSY and (
        (result.client_waiting or 0) >= _WAITING
    ):
        found.append(
            "the load client had to wait for a core most of the time: "
            "the ages of messages hold its waiting too"
        )
    if result.refused:
        found.append(f"{result.refused} clients were refused")
    if result.gone:
        found.append(f"{result.gone} clients were cut")
    return found


# -- the table ------------------------------------------------------------------------------


class Column(NamedTuple):
    """A column: its title, the field of `Result` and the digits behind the point."""

    title: str
    name: str
    digits: int = 0
    factor: float = 1


COLUMNS = (
    Column("clients", "clients"),
    Column("us/delivery", "us_per_delivery", 2),
    Column("us/message", "us_per_message", 1),
    Column("p50 ms", "p50_ms", 2),
    Column("p99 ms", "p99_ms", 2),
    Column("max ms", "max_ms", 1),
    Column("deliveries/s", "deliveries_per_s"),
    Column("messages/s", "messages_per_s"),
    Column("lost", "lost"),
    Column("connects/s", "connects_per_s"),
    Column("back s", "back_s", 1),
    Column("KB/conn", "kb_per_connection", 1),
    Column("KB/deaf", "kernel_kb_per_deaf"),
    Column("client %", "client_busy", 0, 100),
    Column("others %", "others_busy", 0, 100),
)


def table(results: Iterable[Result]) -> str:
    """Lay results out as text, with notes below.

    ``client %`` is the load client's share of one core, ``others %`` the share of all cores
    that went to what has no part in the run: the more, the less a figure is worth.
    """
    rows = [["scenario", "server", *(column.title for column in COLUMNS)]]
    notes = []
    for result in results:
        cells = [_cell(getattr(result, column.name), column) for column in COLUMNS]
        rows.append([result.scenario, result.server, *cells])
        said = [f"failed: {result.error}"] if result.error else warnings(result)
        notes += [f"{result.scenario}, {result.server}: {text}" for text in said]
    return "\n".join([*align(rows, left=2), *notes])


def _cell(value: float | None, column: Column) -> str:
    return "-" if value is None else f"{value * column.factor:,.{column.digits}f}"


def align(rows: Sequence[Sequence[str]], left: int) -> list[str]:
    """Return rows as lines of columns; the first so many columns are set to the left."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths))
        ).rstrip()
        for row in rows
    ]


# -- the goals ------------------------------------------------------------------------------


class Verdict(NamedTuple):
    """A goal, what it means here and what was measured."""

    scenario: str
    metric: str
    measured: float
    bound: float
    at_least: bool

    @property
    def met(self) -> bool:
        """Tell whether the measured figure is within the bound."""
        return self.measured >= self.bound if self.at_least else self.measured <= self.bound

    def as_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {**self._asdict(), "met": self.met, "ratio": _rounded(self.ratio)}

    @property
    def ratio(self) -> float | None:
        """Return measured to bound; None for a bound of 0."""
        return per(self.measured, self.bound)


def verdicts(
    scenarios: Iterable[Scenario], results: Iterable[Result], server: str
) -> list[Verdict]:
    """Compare one server's results with the goals; goals without a figure are left out."""
    by_place = {(result.scenario, result.server): result for result in results}
    found = []
    for scenario in scenarios:
        result = by_place.get((scenario.name, server))
        for goal in scenario.goals if result is not None else ():
            measured = getattr(result, goal.metric)
            bound = _bound(goal, scenario.name, server, by_place)
            if measured is not None and bound is not None:
                found.append(Verdict(scenario.name, goal.metric, measured, bound, goal.at_least))
    return found


def _bound(
    goal: Goal, scenario: str, server: str, by_place: Mapping[tuple[str, str], Result]
) -> float | None:
    if not goal.of:
        return goal.limit
    place = (scenario, goal.of) if goal.of in (FLOOR, KOMBU) else (goal.of, server)
    other = by_place.get(place)
    value = getattr(other, goal.metric) if other is not None else None
    return None if value is None else goal.limit * float(value)


def goals_table(found: Iterable[Verdict]) -> str:
    """Lay verdicts out as text."""
    rows = [["goal", "figure", "measured", "bound", "ratio", ""]]
    for verdict in found:
        sign = ">=" if verdict.at_least else "<="
        ratio = verdict.ratio
        rows.append(
            [
                verdict.scenario,
                verdict.metric,
                f"{verdict.measured:,.4g}"
                if verdict.measured < 1000
                else f"{verdict.measured:,.0f}",
                f"{sign} {verdict.bound:,.4g}"
                if verdict.bound < 1000
                else f"{sign} {verdict.bound:,.0f}",
                "-" if ratio is None else f"{ratio:.2f}",
                "met" if verdict.met else "MISSED",
            ]
        )
    return "\n".join(align(rows, left=2))
