"""``rango config``: show the effective settings, check them, print an environment example.

What `--check --connect` tries is in `rango_gevent.commands.probe`.
"""

from __future__ import annotations

from rango_gevent.auth.keys import described
from rango_gevent.auth.rbac import RBAC_PREFIX
from rango_gevent.environment import load_keys
from rango_gevent.settings import Loaded, Settings, options, shown

_ENV_FILE = "File of `NAME=value` lines that win over the environment; a reload reads it anew"


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
