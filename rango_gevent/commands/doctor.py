"""``rango doctor``: look at everything that a gateway needs, from where this runs.

A check is a row of `CHECKS`: a function that takes a `Case` and yields findings. One that fails
does not keep the others from being tried, unless they stand on it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from typing import Callable, Iterator, NamedTuple

from rango_gevent.client.wire import checked_token, endpoint
from rango_gevent.commands import examine_path, examine_process
from rango_gevent.commands.alert import try_sinks
from rango_gevent.commands.arguments import (
    add_setting_flags,
    add_token_arguments,
    decimal,
    given_token,
    setting_flags,
)
from rango_gevent.commands.examine_path import Way
from rango_gevent.commands.findings import FAIL, OK, WARN, Finding
from rango_gevent.commands.identify import examine
from rango_gevent.commands.probe import probe_brokers, probe_keys
from rango_gevent.commands.terminal import escaped, is_utf8
from rango_gevent.environment import load_settings
from rango_gevent.errors import ConfigError
from rango_gevent.settings import Loaded

_FAILED = 1
_NO_URL = "give --url, the address that clients use, such as wss://shop.example"
_NO_TOKEN = "give --token-file, or RANGO_TOKEN"  # noqa: S105 - no token, but where it comes from


class Case(NamedTuple):
    """What is looked at.

    Attributes:
        loaded: the settings; None when they are wrong.
        problems: what is wrong with them.
        way: to the gateway; None when no URL is given.
        token: empty for none.
        alerts: the alert sinks are tried.
    """

    loaded: Loaded | None
    problems: tuple[str, ...]
    way: Way | None
    token: str
    alerts: bool


class Check(NamedTuple):
    """A row of the table.

    Attributes:
        name: of the check.
        run: yields what it finds.
        after: another check that must not have failed.
    """

    name: str
    run: Callable[[Case], Iterator[Finding]]
    after: str = ""


def _settings(case: Case) -> Iterator[Finding]:
    for problem in case.problems:
        yield Finding(FAIL, problem)
    if case.loaded is not None:
        for warning in case.loaded.warnings:
            yield Finding(WARN, warning)
        named = sum(source != "default" for source in case.loaded.sources.values())
        yield Finding(OK, f"{named} settings are set; `rango config` shows all")


def _keys(case: Case) -> Iterator[Finding]:
    assert case.loaded is not None
    yield from probe_keys(case.loaded.settings)


def _token(case: Case) -> Iterator[Finding]:
    assert case.loaded is not None
    if case.token:
        yield examine(case.loaded.settings, case.token)
    else:
        yield Finding(WARN, "no token is tried", _NO_TOKEN)


def _broker(case: Case) -> Iterator[Finding]:
    assert case.loaded is not None
    yield from probe_brokers(case.loaded.settings)


def _files(case: Case) -> Iterator[Finding]:
    assert case.loaded is not None
    yield from examine_process.files(case.loaded.settings)


def _patches(case: Case) -> Iterator[Finding]:
    yield from examine_process.patches()


def _alerts(case: Case) -> Iterator[Finding]:
    if case.alerts:
        assert case.loaded is not None
        yield from try_sinks(case.loaded.settings)


def _on_the_way(look: Callable[[Way], Iterator[Finding]]) -> Callable[[Case], Iterator[Finding]]:
    """Return a check that is tried only where a URL is given."""

    def run(case: Case) -> Iterator[Finding]:
        if case.way is not None:
            yield from look(case.way)

    return run


def _websocket(case: Case) -> Iterator[Finding]:
    if case.way is None:
        yield Finding(WARN, "no WebSocket is tried", _NO_URL)
    else:
        yield from examine_path.websocket(case.way)


CHECKS = (
    Check("settings", _settings),
    Check("files", _files, "settings"),
    Check("patches", _patches),
    Check("keys", _keys, "settings"),
    Check("token", _token, "keys"),
    Check("broker", _broker, "settings"),
    Check("alerts", _alerts, "settings"),
    Check("websocket", _websocket),
    Check("authorization", _on_the_way(examine_path.authorization), "websocket"),
    Check("origins", _on_the_way(examine_path.origins), "websocket"),
    Check("clock", _on_the_way(examine_path.clock), "websocket"),
    Check("idle", _on_the_way(examine_path.idle), "websocket"),
)


DESCRIPTION = """\
Look at everything that a gateway needs, from where this runs: settings, open files,
gevent's patches, keys, a token, the broker with exchange and rights; with --url also
the way that clients take: upgrade, ping, the token's header, origins, clocks, silence.
Each line is OK, WARN or FAIL, with the cure. Exit code 0, or 1 when something failed.
No secret is printed."""
EXAMPLE = """\
  RANGO_TOKEN="$(rango token)" rango doctor --url wss://shop.example --idle 65"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    add = parser.add_argument
    add("--url", help="of the gateway as clients reach it, through its proxy (default: not tried)")
    add_token_arguments(parser)
    add("--origin", action="append", default=[], metavar="URL",
        help="a site whose pages shall be able to connect; may come several times")  # fmt: skip
    add("--idle", type=decimal(0, 3600), default=5.0, metavar="S",
        help="seconds of silence to try on a connection (default: %(default)g)")  # fmt: skip
    add("--alert", action="store_true", help="also send a test to every sink of RANGO_ALERT_URLS")
    add("--json", action="store_true", help="print one JSON object a line")
    add_setting_flags(parser)


def run(arguments: argparse.Namespace) -> int:
    """Make all checks and print what they find.

    Args:
        arguments: ``url``, ``token``, ``token_file``, ``origin`` (a list), ``idle`` (seconds),
            ``alert``, ``json``, and Rango's flags.

    Returns:
        0, or 1 when one check failed.

    Raises:
        ConfigError: the URL is none, or the token cannot be read.
    """
    show = _print_json if arguments.json else _print_line
    has_failed = False
    for name, finding in examine_all(_case(arguments)):
        show(name, finding)
        has_failed = has_failed or finding.level == FAIL
    return _FAILED if has_failed else 0


def _case(arguments: argparse.Namespace) -> Case:
    text = checked_token(given_token(arguments, os.environ))
    way = None
    if arguments.url:
        endpoint(arguments.url, private=False)  # tells what is wrong with it
        way = Way(arguments.url, text, tuple(arguments.origin), arguments.idle)
    try:
        return Case(load_settings(setting_flags(arguments)), (), way, text, arguments.alert)
    except ConfigError as error:
        return Case(None, tuple(error.problems), way, text, arguments.alert)


def examine_all(case: Case) -> Iterator[tuple[str, Finding]]:
    """Yield the name of each check and what it finds, as it finds it."""
    failed: set[str] = set()
    for check in CHECKS:
        if check.after in failed:
            failed.add(check.name)
            continue
        for finding in check.run(case):
            if finding.level == FAIL:
                failed.add(check.name)
            yield check.name, finding


def _print_line(name: str, finding: Finding) -> None:
    text = f"{finding.level.ljust(4)}  {name.ljust(13)}  {finding.text}"
    ascii_only = not is_utf8(sys.stdout)
    print(escaped(text, ascii_only=ascii_only), flush=True)
    if finding.cure:
        print(escaped(f"{'':21}{finding.cure}", ascii_only=ascii_only), flush=True)


def _print_json(name: str, finding: Finding) -> None:
    value = {"at": round(time.time(), 3), "check": name, **finding._asdict()}
    print(json.dumps(value), flush=True)
