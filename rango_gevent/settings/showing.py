"""From `Settings` to text for people and logs: values, and what a reload changed. No secrets."""

from __future__ import annotations

from rango_gevent.auth.rbac import RBAC_PREFIX
from rango_gevent.settings.table import Settings, options


def changes(before: Settings, after: Settings) -> list[str]:
    """Return the names of the fields with a row that differ."""
    return [name for name in options() if getattr(before, name) != getattr(after, name)]


def told_changes(before: Settings, after: Settings) -> list[str]:
    """Return what differs as text that may be logged: of secrets only the names."""
    told = []
    for name in changes(before, after):
        option = options()[name]
        told.append(f"{option.env}{'' if option.secret else f'={shown(after, name)}'}")
    roles = before.rbac.roles_by_prefix, after.rbac.roles_by_prefix
    for prefix in sorted({*roles[0], *roles[1]}):
        if roles[0].get(prefix) != roles[1].get(prefix):
            told.append(
                f"{RBAC_PREFIX}{prefix.upper()}={','.join(sorted(roles[1].get(prefix, ())))}"
            )
    return told


def shown(settings: Settings, name: str) -> str:
    """Return a value as text that may be printed: secrets masked."""
    value = getattr(settings, name)
    option = options()[name]
    if option.secret and option.show is str:
        return "***" if value else ""
    if isinstance(value, float):
        return f"{value:.6f}".rstrip("0").rstrip(".")
    return option.show(value)
