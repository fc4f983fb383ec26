"""From environment and flags to `Settings`, or every problem at once.

Pure: both come in as mappings; who reads them from the process and from a file is
`rango_gevent.environment`.
"""

from __future__ import annotations

from typing import Any, Mapping, NamedTuple

from rango_gevent.auth.rbac import RBAC_PREFIX, parse_rbac
from rango_gevent.errors import ConfigError
from rango_gevent.parsers import Problem, utf8
from rango_gevent.settings.option import Option, parse_all
from rango_gevent.settings.table import Settings, options

ENV_FILE = "RANGO_ENV_FILE"  # read before the table: see `rango_gevent.environment`
_NOT_OURS = {ENV_FILE, "RANGO_TOKEN"}  # the second is `rango tail`'s
_OTHERS = (RBAC_PREFIX, "RANGO_MARKETDATA_")  # the second are those of `rango marketdata`


class Loaded(NamedTuple):
    """Settings, where each value came from, and notes that are no errors."""

    settings: Settings
    sources: dict[str, str]
    warnings: list[str]


def load(environ: Mapping[str, str], flags: Mapping[str, str] | None = None) -> Loaded:
    """Read settings: a flag wins over the environment, which wins over the default.

    Args:
        environ: the environment.
        flags: values by flag name without dashes, ``ws-addr`` among them.

    Raises:
        ConfigError: with every problem at once.
    """
    flags = dict(flags or {})
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    problems: list[str] = []
    if "ws-addr" in flags:
        _take_address(flags["ws-addr"], values, sources, problems)
    given: dict[str, tuple[str, str]] = {}
    for name, option in options().items():
        if name not in values:
            sources[name], text = _given(option, environ, flags)
            if text is not None:
                given[name] = sources[name], text
    parsed, wrong = parse_all(options(), given)
    values.update(parsed)
    problems += wrong
    try:
        values["rbac"] = parse_rbac(environ)
    except ConfigError as error:
        problems += error.problems
    problems += _contradictions(values)
    if problems:
        raise ConfigError(*problems)
    return Loaded(Settings(**values), sources, _unknown(environ))


def _given(
    option: Option, environ: Mapping[str, str], flags: Mapping[str, str]
) -> tuple[str, str | None]:
    """Return where a setting's text comes from, and the text; None: nobody gave one."""
    if option.flag in flags:
        return f"-{option.flag}", flags[option.flag]
    # an empty variable is an unset one: that is how compose files and systemd unset things
    if environ.get(option.env):
        return option.env, environ[option.env]
    return "default", None


def _take_address(
    value: str, values: dict[str, Any], sources: dict[str, str], problems: list[str]
) -> None:
    host, colon, port = value.rpartition(":")
    try:
        utf8(host)
        values["ws_port"] = options()["ws_port"].parse(utf8(port))
    except Problem:
        values["ws_port"] = 0
        problems.append(f"-ws-addr={value!r}: give HOST:PORT, such as 0.0.0.0:8080")
    sources["ws_port"] = "-ws-addr"
    if colon:  # a port alone leaves the host to RANGER_HOST
        values["ws_host"] = host.strip("[]") or "0.0.0.0"  # Go's ":8080"
        sources["ws_host"] = "-ws-addr"


def _contradictions(values: Mapping[str, Any]) -> list[str]:
    found = []
    if values.get("log") == "stream" and values.get("source"):
        found.append("RANGO_LOG=stream: RANGO_SOURCE is a log already; give off")
    if values.get("log") == "stream":
        if "memory:" in "".join(values.get("amqp_urls", ())):
            cure = "an embedded broker keeps no log; name a RabbitMQ, or give off"
            found.append(f"RANGO_LOG=stream: {cure}")
        keys = values.get("bindings", Settings.bindings)
        if keys != Settings.bindings:
            cure = "a log holds everything that is published; leave RANGO_BINDINGS out"
            found.append(f"RANGO_BINDINGS={','.join(keys)}: {cure}")
    ping = values.get("ping_interval_s", Settings.ping_interval_s)
    pong = values.get("pong_timeout_s", Settings.pong_timeout_s)
    if pong <= ping:
        cure = f"give more than RANGO_PING_INTERVAL_S, which is {ping:g}"
        found.append(f"RANGO_PONG_TIMEOUT_S={pong:g}: {cure}")
    return found


def _unknown(environ: Mapping[str, str]) -> list[str]:
    known = {option.env for option in options().values()} | _NOT_OURS
    return [
        f"{ascii(name)[1:-1]} is not a setting: see `rango config`"  # on one line
        for name in sorted(environ)
        if name.startswith("RANGO_") and not name.startswith(_OTHERS) and name not in known
    ]
