"""Origin policy: which web pages may open a WebSocket here.

A browser sends cookies and lets any page connect anywhere, so the server must look at the Origin
header (RFC 6455 section 10.2). The list comes from API_CORS_ORIGINS at start-up; the handshake
asks `OriginPolicy.allows` before it answers 101.

Hosts are compared as text, blind to ASCII case, port included: ``a.example`` and
``a.example:443`` differ, as they do in Rango. The scheme of a listed URL is not compared. A text
that is not a well-formed origin is refused, never an error.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from rango_gevent.errors import ConfigError

ANY = "*"
_ANY_PORT = ":*"
_MAX_SHOWN = 80

# No user part, no blanks, no backslash: in each of them readers disagree on where a host begins.
_HOST = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?")
_ORIGIN = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://([^/?#\\@\s]+)(?:[/?#][^\\@\s]*)?")
_WEB_URL = re.compile(r"https?://", re.IGNORECASE)


@dataclass(frozen=True)
class OriginPolicy:
    """Which origins may connect.

    Args:
        hosts: allowed hosts, lower-cased, each with its port if it has one, which may be ``*``;
            empty means that the Origin's host must equal the Host header.
        any_origin: whether every origin may connect, whatever `hosts` says.
    """

    hosts: frozenset[str] = frozenset()
    any_origin: bool = False

    def __str__(self) -> str:
        """Return a list that `parse_origins` reads as this."""
        return ",".join([ANY] * self.any_origin + sorted(self.hosts))

    def allows(self, origin: str | None, host: str | None) -> bool:
        """Tell whether a handshake may go on.

        Args:
            origin: the Origin header; None if there is none, as from anything but a browser.
            host: the Host header.
        """
        if origin is None or self.any_origin:
            return True
        origin_host = _origin_host(origin)
        if origin_host is None:
            return False
        if self.hosts:
            return not self.hosts.isdisjoint((origin_host, _with_any_port(origin_host)))
        # The Origin's host is ASCII; str.lower() alone would fold the Kelvin sign into k.
        return isinstance(host, str) and host.isascii() and origin_host == host.lower()

    @property
    def strict(self) -> OriginPolicy:
        """Return the same without `ANY`: what is not listed must be the page's own host."""
        return OriginPolicy(self.hosts)

    def checks(self, origin: str | None) -> bool:
        """Tell whether an origin that is allowed was compared with anything at all."""
        return origin is not None and not self.any_origin


def parse_origins(text: str, setting: str) -> OriginPolicy:
    """Read a comma list of hosts and http(s) URLs; ``*`` stands for any origin.

    ``host:*`` is that host on any port, as for pages of somebody's own machine.

    Rango has no wildcard; there ``*`` in the list would match nothing and lock every page out,
    which nobody who writes it can mean.

    Args:
        text: the setting's value; blanks around entries and empty entries are dropped.
        setting: its name, for problems.

    Raises:
        ConfigError: one line for each malformed entry.
    """
    entries = [entry.strip() for entry in text.split(",") if entry.strip()]
    problems = [(_shown(entry), _problem(entry)) for entry in entries]
    lines = [f"{setting}: {shown}: {problem}" for shown, problem in problems if problem]
    if lines:
        raise ConfigError(*lines)
    hosts = frozenset(host for host in map(_entry_host, entries) if host)
    return OriginPolicy(hosts, any_origin=ANY in entries)


def _origin_host(origin: object) -> str | None:
    """Return the lower-cased host and port of an Origin header, None if it is malformed."""
    found = _ORIGIN.fullmatch(origin) if isinstance(origin, str) else None
    return _valid_host(found.group(1)) if found else None


def _with_any_port(host: str) -> str:
    """Return how a host is listed whose port does not matter."""
    return re.sub(r":[0-9]+\Z", "", host) + _ANY_PORT


def _entry_host(entry: str) -> str | None:
    """Return the lower-cased host and port of a listed entry, None if it has none."""
    if entry.endswith(_ANY_PORT):
        host = _valid_host(entry[: -len(_ANY_PORT)])
        return host + _ANY_PORT if host and _with_any_port(host) == host + _ANY_PORT else None
    return _origin_host(entry) if _WEB_URL.match(entry) else _valid_host(entry)


def _valid_host(text: str) -> str | None:
    """Return `text` lower-cased if it is a host with an optional port."""
    found = _HOST.fullmatch(text)
    if not found or int(found.group(1) or 0) > 65535:
        return None
    return text.lower()


def _problem(entry: str) -> str:
    """Say what is wrong with one entry; empty if nothing is."""
    if entry == ANY:
        return ""
    if ANY in entry and _entry_host(entry) is None:
        return "a wildcard within a host is not supported; list each host, or * alone for any"
    if entry.lower() == "null":
        return "the origin null cannot be listed; only * lets it in"
    if not entry.isascii():
        return "not ASCII; write the name as browsers send it, in punycode (xn--...)"
    if _entry_host(entry) is None:
        return "malformed; write host, host:port, [IPv6]:port or an http(s) URL"
    return ""


def _shown(entry: str) -> str:
    """Return an entry fit for a line of a log: one line, short, without a user and password."""
    return ascii(entry.rsplit("@", 1)[-1][:_MAX_SHOWN])
