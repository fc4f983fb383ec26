"""Roles for prefixed streams: which role may subscribe under which prefix.

The rules come from the settings ``RANGO_RBAC_<NAME>``; the hub asks `Rbac.allows` for each
prefixed name that a client wants. What is not allowed here is forbidden: an unknown prefix, an
unknown role, an anonymous client.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Mapping

from rango_gevent.errors import ConfigError

RBAC_PREFIX = "RANGO_RBAC_"

# These scopes have a meaning of their own, so a rule for one of them would never be asked.
_RESERVED = frozenset({"public", "global", "private"})
# A prefix is one part of a routing key: no dot, and nothing that AMQP or a shell treats specially.
_PREFIX = re.compile(r"[a-z0-9_-]+")


@dataclass(frozen=True)
class Rbac:
    """Immutable table of prefixes and the roles that may see each.

    Args:
        roles_by_prefix: for each prefix its roles; both are compared exactly.
    """

    roles_by_prefix: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Keep a copy that nobody can change while clients hold streams that it allowed."""
        table = MappingProxyType(dict(self.roles_by_prefix))
        object.__setattr__(self, "roles_by_prefix", table)

    def allows(self, prefix: str, role: str) -> bool:
        """Tell whether `role` may subscribe to streams of `prefix`; an empty role never may."""
        return bool(role) and role in self.roles_by_prefix.get(prefix, frozenset())


def parse_rbac(env: Mapping[str, str]) -> Rbac:
    """Read every ``RANGO_RBAC_<NAME>`` of `env`; all other names are ignored.

    The name, lower-cased, is the prefix; the value is a comma list of roles.

    Raises:
        ConfigError: all problems at once, one line each.
    """
    table: dict[str, frozenset[str]] = {}
    problems: list[str] = []
    for name in sorted(name for name in env if name.startswith(RBAC_PREFIX)):
        prefix = name[len(RBAC_PREFIX) :].lower()
        roles = frozenset(role.strip() for role in env[name].split(",")) - {""}
        found = _problem(prefix, roles, prefix in table)
        if found:
            # Names and values may hold newlines; ascii() keeps each problem on one line.
            problems.append(f"{ascii(name)[1:-1]}={ascii(env[name])}: {found}")
        table[prefix] = roles
    if problems:
        raise ConfigError(*problems)
    return Rbac(table)


def _problem(prefix: str, roles: frozenset[str], is_repeated: bool) -> str:
    """Say what is wrong with one rule; empty if nothing is."""
    if not _PREFIX.fullmatch(prefix):
        return "the name after RANGO_RBAC_ must be letters, digits, _ or -, as in RANGO_RBAC_ADMIN"
    if prefix in _RESERVED:
        return f"the prefix {prefix} can never be reached, it is a scope of its own; rename it"
    if is_repeated:
        return f"the prefix {prefix} is set twice, in upper and lower case; keep one"
    if not roles:
        return "lists no role; name at least one, e.g. admin,superadmin, or remove the setting"
    return ""
