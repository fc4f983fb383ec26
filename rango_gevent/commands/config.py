"""``rango config``: show the effective settings, check them, print an environment example.

What `--check --connect` tries is in `rango_gevent.commands.probe`.
"""

from __future__ import annotations

import argparse

from rango_gevent.auth.keys import described
from rango_gevent.auth.rbac import RBAC_PREFIX
from rango_gevent.commands.arguments import add_setting_flags, setting_flags
from rango_gevent.commands.terminal import print_findings
from rango_gevent.environment import load_keys, load_settings
from rango_gevent.errors import ConfigError
from rango_gevent.settings import Loaded, Settings, options, shown

_ENV_FILE = "File of `NAME=value` lines that win over the environment; a reload reads it anew"


DESCRIPTION = "Show every setting, its value and where that came from; secrets are masked."
EXAMPLE = "  RABBITMQ_HOST=rabbit rango config --check --connect"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    add_setting_flags(parser)
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--check", action="store_true", help="check only; exit code 2 when bad")
    form.add_argument("--env-example", action="store_true", help="print an environment file")
    form.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    parser.add_argument(
        "--connect",
        action="store_true",
        help="with --check: try key, broker, exchange and rights too; exit code 1 when one fails",
    )


def run(arguments: argparse.Namespace) -> int:
    """Print what is asked for; return 0, or 1 when something cannot be reached.

    Raises:
        ConfigError: a setting is wrong.
    """
    if arguments.env_example:
        print(env_example())
    elif arguments.markdown:
        print(markdown_table())
    elif arguments.check and arguments.connect:
        return _probe(load_settings(setting_flags(arguments)))
    elif arguments.connect:
        raise ConfigError("--connect goes with --check")
    else:
        loaded = load_settings(setting_flags(arguments))
        print(check(loaded) if arguments.check else show(loaded))
    return 0


def _probe(loaded: Loaded) -> int:
    from rango_gevent.commands.probe import probe  # it needs the broker's library

    for warning in loaded.warnings:
        print(warning)
    return print_findings(probe(loaded.settings))


def show(loaded: Loaded) -> str:
    """Return every setting with its value and where that came from; secrets are masked."""
    lines = []
    for name, option in options().items():
        value = shown(loaded.settings, name)
        restart = "" if option.reload else "; needs a restart to change"
        lines.append(f"{option.env}={value}  # {loaded.sources[name]}{restart}")
    for prefix, roles in sorted(loaded.settings.rbac.roles_by_prefix.items()):
        names = ",".join(sorted(roles))
        lines.append(f"{RBAC_PREFIX}{prefix.upper()}={names}  # may subscribe to {prefix}.*.*")
    lines += [f"warning: {warning}" for warning in loaded.warnings]
    return "\n".join(lines)


def check(loaded: Loaded) -> str:
    """Check everything that can be checked without starting.

    Raises:
        ConfigError: the key is missing or no public key.
    """
    settings = loaded.settings
    keys = described([*load_keys(settings), *settings.asked])
    return "\n".join([*loaded.warnings, f"ok: {keys}"])


def env_example() -> str:
    """Return the table of settings as an environment file, every line a comment."""
    lines = ["# Settings of rango_gevent. An empty value is an unset one."]
    for name, option in options().items():
        default = shown(Settings(), name) if not option.secret else ""
        lines += ["", f"# {option.text}.", f"#{option.env}={default}"]
    lines += ["", "# Roles that may subscribe to admin.*.* (any prefix in place of ADMIN)."]
    lines += ["#RANGO_RBAC_ADMIN=admin,superadmin"]
    lines += ["", f"# {_ENV_FILE}.", "#RANGO_ENV_FILE="]
    return "\n".join(lines)


def markdown_table() -> str:
    """Return the table of settings for the README."""
    lines = ["| environment | flag | default | a change needs | what it does |"]
    lines.append("|---|---|---|---|---|")
    for name, option in options().items():
        default = "" if option.secret else shown(Settings(), name)
        flag = f"`-{option.flag}`" if option.flag else ""
        if name in ("ws_host", "ws_port"):
            flag = "`-ws-addr`"
        shown_default = f"`{default}`" if default else ""
        needs = "reload" if option.reload else "restart"
        cells = (f"`{option.env}`", flag, shown_default, needs, option.text)
        lines.append(f"| {' | '.join(cells)} |")
    lines.append("| `RANGO_RBAC_<NAME>` | | | reload | Roles that may subscribe to `<name>.*.*` |")
    lines.append(f"| `RANGO_ENV_FILE` | | | restart | {_ENV_FILE} |")
    return "\n".join(lines)
