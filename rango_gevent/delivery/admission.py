"""Who may still come in: connections in all, per address and per user.

Behind a proxy the address is the proxy's, so a list of trusted networks says whose word
about the client's address is taken: of X-Forwarded-For, or Forwarded (RFC 7239), the last
address that is not itself a trusted proxy's.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from typing import Callable, Iterable, Mapping, NamedTuple, Union

from rango_gevent.errors import Refused
from rango_gevent.protocol import refusals
from rango_gevent.protocol.refusals import Refusal

Network = Union[ipaddress.IPv4Network, ipaddress.IPv6Network]

_MAX_HOPS = 32


class AdmissionLimits(NamedTuple):
    """What may be at once.

    Attributes:
        connections: connections in all.
        per_address: connections from one address, and as many handshakes; 0: no limit.
        per_uid: connections of one user; 0: no limit.
        sockets: connections and handshakes that the process may open files for.
    """

    connections: int
    per_address: int
    per_uid: int
    sockets: int = 1 << 30


class Admission:
    """Counts connections and refuses those over a limit.

    Args:
        limits: bounds.
        trusted: networks whose forwarding headers are believed.

    Attributes:
        open: newcomers are let in.
        fills: tells whether what comes from the source is still old; asked until it no more is.
    """

    def __init__(self, limits: AdmissionLimits, trusted: Iterable[Network] = ()) -> None:
        self.limits = limits
        self.open = True
        self.fills: Callable[[], object] | None = None
        self._trusted = list(trusted)
        self._handshakes = 0
        self._handshakes_of: Counter[str] = Counter()
        self._count = 0
        self._by_address: Counter[str] = Counter()
        self._by_uid: Counter[str] = Counter()

    def set_limits(self, limits: AdmissionLimits, trusted: Iterable[Network]) -> None:
        """Change the bounds; who is in stays in."""
        self.limits = limits
        self._trusted = list(trusted)

    @property
    def by_uid(self) -> Mapping[str, int]:
        """Return the connections of each user."""
        return self._by_uid

    @property
    def by_address(self) -> Mapping[str, int]:
        """Return the connections of each address."""
        return self._by_address

    def begin_handshake(self, peer: str) -> Refusal | None:
        """Count a socket that was accepted, or say why it is closed at once.

        Sockets that never say anything are within no other limit, and a process without
        files to open cannot even refuse.

        Args:
            peer: address of the other end; a trusted proxy's is nobody's own and has no limit.
        """
        limits = self.limits
        if self._count + self._handshakes >= limits.sockets:
            return refusals.TOO_MANY_FILES
        is_over = 0 < limits.per_address <= self._handshakes_of[peer]
        if is_over and not self._speaks_for_others(peer):
            return refusals.TOO_MANY_OF_ADDRESS
        self._handshakes += 1
        self._handshakes_of[peer] += 1
        return None

    def end_handshake(self, peer: str) -> None:
        """Count it out: it is a client now, or closed."""
        self._handshakes -= 1
        _decrement(self._handshakes_of, peer)

    def check(self, address: str, uid: str | None) -> None:
        """Check that one more connection may come.

        Raises:
            Refused: 503 when the gateway is full, fills or drains, 429 when the address or the
                user has its share.
        """
        limits = self.limits
        if not self.open:
            raise Refused(refusals.DRAINING)
        if self.fills is not None:
            if self.fills():
                raise Refused(refusals.FILLING)
            self.fills = None
        if self._count >= limits.connections:
            raise Refused(refusals.TOO_MANY_CONNECTIONS)
        if limits.per_address and self._by_address[address] >= limits.per_address:
            raise Refused(refusals.TOO_MANY_OF_ADDRESS)
        if uid is not None and limits.per_uid and self._by_uid[uid] >= limits.per_uid:
            raise Refused(refusals.TOO_MANY_OF_UID)

    def enter(self, address: str, uid: str | None) -> None:
        """Count a connection."""
        self._count += 1
        self._by_address[address] += 1
        if uid is not None:
            self._by_uid[uid] += 1

    def move(self, old: str | None, new: str | None) -> bool:
        """Count a connection for another user; False, and no change: that one has its share."""
        most = self.limits.per_uid
        if new is not None:
            if most and self._by_uid[new] >= most:
                return False
            self._by_uid[new] += 1
        if old is not None:
            _decrement(self._by_uid, old)
        return True

    def leave(self, address: str, uid: str | None) -> None:
        """Count it out; what falls to zero is forgotten."""
        self._count -= 1
        _decrement(self._by_address, address)
        if uid is not None:
            _decrement(self._by_uid, uid)

    def address_of(self, peer: str, environ: Mapping[str, object]) -> str:
        """Return the client's address: the peer's own, or what a trusted proxy says.

        Args:
            peer: address of the other end of the socket; empty for a Unix socket, which
                counts as trusted when any network is.
            environ: WSGI environment of the handshake.
        """
        if not self._speaks_for_others(peer):
            return peer
        for hop in reversed(_hops(environ)[-_MAX_HOPS:]):
            address = _plain_address(hop)
            if address is None:
                break
            if not self._is_trusted(address):
                return address
        return peer

    def _speaks_for_others(self, peer: str) -> bool:
        """Tell whether the other end is a trusted proxy."""
        return bool(self._trusted) and (not peer or self._is_trusted(peer))

    def _is_trusted(self, address: str) -> bool:
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(parsed in network for network in self._trusted)


def _decrement(counts: Counter[str], key: str) -> None:
    counts[key] -= 1
    if counts[key] <= 0:
        del counts[key]


def _hops(environ: Mapping[str, object]) -> list[str]:
    """Return the addresses that proxies wrote down, the nearest last."""
    forwarded = environ.get("HTTP_X_FORWARDED_FOR")
    if isinstance(forwarded, str):
        return forwarded.split(",")
    forwarded = environ.get("HTTP_FORWARDED")
    if not isinstance(forwarded, str):
        return []
    elements = [element.split(";") for element in forwarded.split(",")]
    pairs = [pair.strip().partition("=") for element in elements for pair in element]
    return [value.strip('"') for name, _, value in pairs if name.lower() == "for"]


def _plain_address(hop: str) -> str | None:
    """Return an address without port and brackets in its usual form; None for anything else."""
    hop = hop.strip()
    if hop.startswith("["):
        hop = hop[1:].partition("]")[0]
    elif hop.count(":") == 1:
        hop = hop.partition(":")[0]
    try:
        return str(ipaddress.ip_address(hop))
    except ValueError:
        return None
