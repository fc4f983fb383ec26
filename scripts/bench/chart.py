"""The chart: cost per delivery against message rate and against clients, as SVG."""

from __future__ import annotations

import importlib.util
from typing import Any, Iterable, Sequence

from bench.report import Result
from rango_gevent.errors import ConfigError

_RATE_CLIENTS = 1000  # clients of the scenarios whose rate varies
_CLIENTS_RATE = 50  # messages a second of the scenarios whose clients vary
_SIZE = 200


def check() -> None:
    """Check that charts can be drawn.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise ConfigError("--chart needs matplotlib: pip install matplotlib, or leave --chart out")


Points = dict[str, list[tuple[float, float]]]


def by_rate(results: Iterable[Result]) -> Points:
    """Return pairs of messages a second and cost, by server."""
    return _points(
        (result.server, result.rate, result.us_per_delivery)
        for result in results
        if _is_plain(result) and result.clients == _RATE_CLIENTS
    )


def by_clients(results: Iterable[Result]) -> Points:
    """Return pairs of clients and cost, by server."""
    return _points(
        (result.server, result.clients, result.us_per_delivery)
        for result in results
        if _is_plain(result) and result.rate == _CLIENTS_RATE
    )


def _is_plain(result: Result) -> bool:
    """Tell whether only rate and clients are special: one stream, usual size, shared by all."""
    return (
        result.size == _SIZE
        and result.streams == 1
        and result.workers in (None, 1)
        and bool(result.rate)
        and result.kind == "flow"
        and result.audience == "shared"
    )


def _points(rows: Iterable[tuple[str, float | None, float | None]]) -> Points:
    found: Points = {}
    for server, x, y in rows:
        if x and y:
            found.setdefault(server, []).append((x, y))
    return {server: sorted(points) for server, points in found.items()}


def draw(path: str, results: Sequence[Result], title: str) -> None:
    """Write the chart.

    Args:
        path: file to write.
        results: of all servers.
        title: a line above, such as the machine.

    Raises:
        ConfigError: the file cannot be written.
    """
    from matplotlib import rc_context  # costly, and wanted for this alone
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.5), layout="constrained")
    rate, clients = figure.subplots(1, 2)
    _panel(rate, by_rate(results), "messages/s to 1000 clients")
    _panel(clients, by_clients(results), "clients, 50 messages/s")
    figure.suptitle(f"Processor time per delivery\n{title}", fontsize=10)
    try:
        with rc_context({"svg.fonttype": "none"}):  # text stays text
            figure.savefig(path, format="svg")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written ({error.strerror})") from None


def _panel(axes: Any, points: Points, label: str) -> None:
    for server, pairs in points.items():
        axes.plot(*zip(*pairs), marker="o", label=server)
    ticks = sorted({x for pairs in points.values() for x, _ in pairs})
    axes.set_xscale("log")
    axes.set_xticks(ticks, [f"{x:g}" for x in ticks])
    axes.minorticks_off()
    axes.set_xlabel(label)
    axes.set_ylabel("us of processor time per delivery")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    if points:
        axes.legend()
