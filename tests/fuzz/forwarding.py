"""Any forwarding headers give the peer's address or one that a trusted proxy wrote, never an error.

That is: who is no trusted proxy cannot choose an address, what a trusted one names is an IP address
that is no trusted proxy's, and it stands in the headers. The first byte chooses the peer, the
others are X-Forwarded-For and, behind a NUL, Forwarded.
"""

from __future__ import annotations

import ipaddress

from rango_gevent.delivery.admission import Admission, AdmissionLimits
from rango_gevent.parsers import networks

_NETWORKS = networks("10.0.0.0/8, 127.0.0.1, fd00::/8, ::1")
_TRUSTED = ("10.1.2.3", "127.0.0.1", "fd00::7", "")
_PEERS = (*_TRUSTED, "192.0.2.1", "2001:db8::1", "fe80::1%eth0", "pipe")
_BEHIND = Admission(AdmissionLimits(5, 2, 2), _NETWORKS)
_DIRECT = Admission(AdmissionLimits(5, 2, 2))


def check(data: bytes) -> None:
    """Ask for the address of a client whose handshake has such headers."""
    if not data:
        return
    peer = _PEERS[data[0] % len(_PEERS)]
    forwarded_for, separator, forwarded = data[1:].decode("latin-1").partition("\0")
    environ: dict[str, object] = {}
    if forwarded_for:
        environ["HTTP_X_FORWARDED_FOR"] = forwarded_for
    if separator:
        environ["HTTP_FORWARDED"] = forwarded
    assert _DIRECT.address_of(peer, environ) == peer
    address = _BEHIND.address_of(peer, environ)
    if address != peer:
        assert peer in _TRUSTED
        _check_named(address, forwarded_for or forwarded)
    _count(address)


def _check_named(address: str, header: str) -> None:
    parsed = ipaddress.ip_address(address)
    assert str(parsed) == address
    assert not any(parsed in network for network in _NETWORKS)
    if parsed.version == 4:
        assert address in header


def _count(address: str) -> None:
    """Let a connection of that address come and go; nothing remains."""
    _BEHIND.check(address, address)
    _BEHIND.enter(address, address)
    _BEHIND.leave(address, address)
    assert not _BEHIND._by_address
    assert not _BEHIND._by_uid


SEEDS = (
    b"\x00192.0.2.1",
    b"\x01192.0.2.1, 10.0.0.1 ,127.0.0.1",
    b"\x022001:db8::1, [2001:db8::2]:443",
    b"\x03192.0.2.1:8080",
    b"\x00unknown, 10.0.0.1",
    b'\x00\0for=192.0.2.1;proto=https;by=10.0.0.1, For="[2001:db8::1]:4711"',
    b"\x01\0for=_hidden, for=unknown",
    b"\x04192.0.2.9\0for=192.0.2.8",
    b"\x00" + b"10.0.0.1," * 40,
    b"\x00::ffff:10.0.0.1, fe80::1%eth0",
)
WORDS = (b"for=", b'"[', b']"', b"10.0.0.1", b"::ffff:10.0.0.1", b"%", b":80", b",", b";")
