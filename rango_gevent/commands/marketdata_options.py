"""The settings of ``rango marketdata``: one table, of its own flags and RANGO_MARKETDATA_*.

Broker, exchange, log level and the address of the metrics port are those of the gateway.
"""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass
from typing import Any, Callable, Mapping, Tuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from rango_gevent.errors import ConfigError
from rango_gevent.marketdata.history import CANDLES, TRADES
from rango_gevent.marketdata.periods import DAY, HOUR, MINUTE, MONTH, NAMES, PARTS, PERIODS
from rango_gevent.parsers import Problem, filled, one_of, seconds, whole
from rango_gevent.settings.option import Option, parse_all, row, rows
from rango_gevent.urls import mask_url

Keep = Tuple[Tuple[int, int], ...]
"""Periods and how long their candles are kept, in seconds; 0: for ever."""

PREFIX = "RANGO_MARKETDATA_"
_UNITS = {"s": 1, "m": MINUTE, "h": HOUR, "d": DAY, "y": 365 * DAY}
_YEAR = 365 * DAY
_MARGIN_S = 120
_LONGEST_MONTH_S = 31 * DAY


def _option(default: Any, name: str, parse: Callable[[str], Any], about: str, **more: Any) -> Any:
    flag = name.lower().replace("_", "-")
    return row(default, Option(PREFIX + name, parse, about, flag=flag, **more))


def _periods(value: str) -> frozenset[int]:
    if value == "all":
        return frozenset(NAMES)
    names = [name.strip() for name in value.split(",") if name.strip()]
    if not names or not set(names) <= set(PERIODS):
        raise Problem(f"give all, or a comma list of {', '.join(PERIODS)}")
    return frozenset(PERIODS[name] for name in names)


def _shown_periods(value: frozenset[int]) -> str:
    return ",".join(NAMES[period] for period in sorted(value))


def _names(value: str) -> tuple[str, ...]:
    return tuple(name.strip().lower() for name in value.split(",") if name.strip())


def _zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise Problem(
            "give the name of a time zone that this machine knows, such as Asia/Shanghai "
            "(Debian: apt install tzdata)"
        ) from None
    return value


_KEEP = {
    period: DAY if period == 1 else 90 * DAY if period == MINUTE
    else _YEAR if period < HOUR else 10 * _YEAR if period < DAY else 0
    for period in NAMES
}  # fmt: skip


def _keep(value: str) -> Keep:
    """Parse ``1s=1d,1m=90d``: a period and how long its candles are kept, 0 for ever."""
    found = dict(_KEEP)
    for entry in filter(None, (entry.strip() for entry in value.split(","))):
        name, _, length = entry.partition("=")
        number = re.fullmatch(r"([0-9]{1,9})([smhdy]?)", length)
        if name not in PERIODS or number is None or (not number[2] and number[1] != "0"):
            raise Problem("give PERIOD=TIME, such as 1s=1d,1m=90d,1h=10y, a time of 0 for ever")
        found[PERIODS[name]] = int(number[1]) * _UNITS[number[2] or "s"]
    return tuple(found.items())


def _shown_keep(value: Keep) -> str:
    return ",".join(f"{NAMES[period]}={_shown_time(time)}" for period, time in value)


def _shown_time(value: int) -> str:
    for unit in reversed(_UNITS):
        if value and value % _UNITS[unit] == 0:
            return f"{value // _UNITS[unit]}{unit}"
    return "0"


@dataclass(frozen=True)
class Options:
    """The values that a worker runs with."""

    store: str = _option(
        "sqlite:///marketdata.db",
        "STORE",
        filled,
        "Where state is kept: sqlite:///path, postgresql://user:password@host/name or "
        "redis://host/0",
        show=mask_url,
    )
    source: str = _option(
        "auto",
        "SOURCE",
        one_of("auto", "stream", "live"),
        "Where trades come from: stream, the log that gateways share; live, a queue that has "
        "what is published while it is there; auto: stream with RANGO_LOG=stream, else live",
    )
    begin: str = _option(
        "first",
        "BEGIN",
        one_of("first", "next"),
        "Where in the log to begin without state: at its first trade, or at the next one to come",
    )
    periods: frozenset[int] = _option(
        frozenset(NAMES),
        "PERIODS",
        _periods,
        "Periods whose candles are published, comma list; all are kept and can be asked for",
        show=_shown_periods,
    )
    publish_s: float = _option(
        0.5, "PUBLISH_S", seconds(0.05, 60), "Seconds from one publishing of candles to the next"
    )
    tickers_s: float = _option(
        1.0, "TICKERS_S", seconds(0.05, 600), "Seconds from one publishing of tickers to the next"
    )
    flush_s: float = _option(
        1.0, "FLUSH_S", seconds(0.05, 60), "Seconds from one saving of state to the next"
    )
    silent: str = _option(
        "flat",
        "SILENT",
        one_of("flat", "none"),
        "What a period has in which nothing traded: a flat candle of the last price, or none",
    )
    timezone: str = _option(
        "UTC", "TIMEZONE", _zone, "Time zone in which today begins; candles begin in UTC"
    )
    quotes: tuple[str, ...] = _option(
        ("usdt", "usdc", "usd", "eur", "gbp", "jpy", "cny", "btc", "eth"),
        "QUOTES",
        _names,
        "Quote currencies, comma list: what a market's name ends with, for tickers",
        show=",".join,
    )
    late_s: float = _option(
        3600.0,
        "LATE_S",
        seconds(1, 604_800),
        "Seconds that a trade or correction may lie behind the newest trade of its market",
    )
    ahead_s: float = _option(
        60.0, "AHEAD_S", seconds(0, 86_400), "Seconds that a trade may lie ahead of the clock"
    )
    trades: int = _option(
        2000,
        "TRADES",
        whole(10, 1_000_000),
        "Newest trades of a market that are known: for deals.query, duplicates and corrections",
    )
    markets: int = _option(
        1000, "MARKETS", whole(1, 100_000), "Markets at most; trades of more are dropped"
    )
    unsaved: int = _option(
        200_000,
        "UNSAVED",
        whole(1000, 100_000_000),
        "Trades that may wait for the store; with more the broker is left until they are saved",
    )
    keep: Keep = _option(
        tuple(_KEEP.items()),
        "KEEP",
        _keep,
        "How long candles are kept by period, comma list of PERIOD=TIME; 0: for ever",
        show=_shown_keep,
    )
    prune_s: float = _option(
        600.0, "PRUNE_S", seconds(1, 86_400), "Seconds from one removal of old candles to the next"
    )
    points: int = _option(10_000, "POINTS", whole(1, 1_000_000), "Candles in one answer at most")
    rpc_queue: str = _option(
        "rango.marketdata.rpc", "RPC_QUEUE", filled, "Queue that questions come to"
    )
    rpc_waiting: int = _option(
        1000, "RPC_WAITING", whole(1, 1_000_000), "Questions that may wait in it"
    )
    rpc_wait_s: float = _option(
        5.0, "RPC_WAIT_S", seconds(0.1, 3600), "Seconds that one may wait there"
    )
    metrics_port: int = _option(
        4243, "METRICS_PORT", whole(0, 65_535), "Port of the metrics listener; 0: none"
    )


def options() -> dict[str, Option]:
    """Return the table: field name to row."""
    return rows(Options)


def add_arguments(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    """Add a flag for each row, and ``import``; return both parsers, for flags of others."""
    _add_flags(parser, options())
    importing = parser.add_subparsers(dest="action", metavar="import").add_parser(
        "import",
        help="bring in a file of trades or candles, instead of running",
        description="Bring in history: CSV of trades or candles, whose first line names columns\n"
        f"({','.join(TRADES)},side or {','.join(CANDLES)},deal).\n"
        "What is there already is left out; after an interruption the same command goes on.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,  # what was said before the word stays
        allow_abbrev=False,
    )
    importing.add_argument("file", metavar="FILE", help="CSV of trades or candles")
    importing.add_argument(
        "--replace",
        action="store_true",
        default=False,
        help="let candles of the file replace those that were made from trades",
    )
    _add_flags(importing, {"store": options()["store"]})
    return [parser, importing]


def _add_flags(parser: argparse.ArgumentParser, table: Mapping[str, Option]) -> None:
    defaults = Options()
    for name, option in table.items():
        value = option.show(getattr(defaults, name))
        about = f"{option.text} (environment: {option.env}; default: {value})"
        parser.add_argument(
            f"--{option.flag}", dest=f"md_{name}", metavar="VALUE", help=about.replace("%", "%%")
        )


def table() -> str:
    """Return the table as Markdown, for docs/MARKETDATA.md."""
    lines = ["| variable | flag | default | meaning |", "|---|---|---|---|"]
    defaults = Options()
    for name, option in options().items():
        value = option.show(getattr(defaults, name))
        lines.append(f"| `{option.env}` | `--{option.flag}` | `{value}` | {option.text} |")
    return "\n".join(lines)


def load(arguments: argparse.Namespace, environ: Mapping[str, str]) -> Options:
    """Read the options: a flag wins over the environment, which wins over the default.

    Raises:
        ConfigError: with every problem at once.
    """
    given: dict[str, tuple[str, str]] = {}
    for name, option in options().items():
        flag = getattr(arguments, f"md_{name}", None)
        source = option.env if flag is None else f"--{option.flag}"
        text = environ.get(option.env) if flag is None else flag
        if text:
            given[name] = source, text
    values, problems = parse_all(options(), given)
    known = {option.env for option in options().values()}
    problems += [
        f"{name} is not a setting: see `rango marketdata --help`"
        for name in sorted(environ)
        if name.startswith(PREFIX) and name not in known
    ]
    if not problems:
        problems = _too_short(Options(**values))
    if problems:
        raise ConfigError(*problems)
    return Options(**values)


def _too_short(options: Options) -> list[str]:
    """Return what is not kept for as long as other things need it."""
    late_s = int(options.late_s) + _MARGIN_S
    needed = dict.fromkeys(NAMES, 0)
    for whole_, part in PARTS.items():
        length = _LONGEST_MONTH_S if whole_ == MONTH else whole_
        needed[part] = max(needed[part], length + late_s)
    needed[MINUTE] = max(needed[MINUTE], 2 * DAY)
    needed[HOUR] = max(needed[HOUR], 8 * DAY)
    keep = dict(options.keep)
    return [
        f"{PREFIX}KEEP: {NAMES[period]}={_shown_time(keep[period])} is too short: longer "
        f"candles and corrections need {least} s"
        for period, least in needed.items()
        if 0 < keep[period] < least
    ]
