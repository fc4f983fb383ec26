"""``rango config``: show the effective settings, check them, print an environment example."""

from __future__ import annotations

from rango_gevent.environment import load_key
from rango_gevent.settings import Loaded, Settings, options, shown

_ENV_FILE = "File of `NAME=value` lines that win over the environment; a reload reads it anew"


def show(loaded: Loaded) -> str:
    """Return every setting with its value and where that came from; secrets are masked."""
    lines = []
    for name, option in options().items():
        value = shown(loaded.settings, name)
        lines.append(f"{option.env}={value}  # {loaded.sources[name]}")
    for prefix in sorted(loaded.settings.rbac.prefixes):
        lines.append(f"RANGO_RBAC_{prefix.upper()}=...  # roles for {prefix}.*.*")
    lines += [f"warning: {warning}" for warning in loaded.warnings]
    return "\n".join(lines)


def check(loaded: Loaded) -> str:
    """Check everything that can be checked without starting.

    Raises:
        ConfigError: the key is missing or no public key.
    """
    key = load_key(loaded.settings)
    return "\n".join([*loaded.warnings, f"ok: {key.kind} key, fingerprint {key.fingerprint}"])


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
    lines = ["| environment | flag | default | what it does |", "|---|---|---|---|"]
    for name, option in options().items():
        default = "" if option.secret else shown(Settings(), name)
        flag = f"`-{option.flag}`" if option.flag else ""
        if name in ("ws_host", "ws_port"):
            flag = "`-ws-addr`"
        shown_default = f"`{default}`" if default else ""
        lines.append(f"| `{option.env}` | {flag} | {shown_default} | {option.text} |")
    lines.append("| `RANGO_RBAC_<NAME>` | | | Roles that may subscribe to `<name>.*.*` |")
    lines.append(f"| `RANGO_ENV_FILE` | | | {_ENV_FILE} |")
    return "\n".join(lines)
