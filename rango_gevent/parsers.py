"""From the text of a setting to its value: one small parser for each kind of value.

A parser raises `Problem`, which says what is wanted; who called it knows which setting it is.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Callable
from urllib.parse import urlsplit

SLOW_POLICIES = ("close", "drop-oldest", "latest")


class Problem(ValueError):
    """A value is not what a setting wants; the text says what it wants."""


def whole(low: int, high: int) -> Callable[[str], int]:
    """Parse a whole number within bounds."""

    def parse(value: str) -> int:
        # int() takes underscores and other scripts' digits: an operator means neither
        if not re.fullmatch(r"[0-9]{1,15}", value) or not low <= int(value) <= high:
            raise Problem(f"give a whole number from {low} to {high}")
        return int(value)

    return parse


def decimal(low: float, high: float, what: str = "a number") -> Callable[[str], float]:
    """Parse a decimal number within bounds."""

    def parse(value: str) -> float:
        if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,6})?", value) or not low <= float(value) <= high:
            raise Problem(f"give {what} from {low:g} to {high:g}")
        return float(value)

    return parse


def patterns(value: str) -> str:
    """Check a comma list of PATTERN=POLICY; it is read where it is used."""
    for entry in value.split(","):
        pattern, _, policy = entry.strip().rpartition("=")
        if entry.strip() and (not pattern or policy not in SLOW_POLICIES):
            raise Problem(f"give PATTERN=POLICY, a policy being one of {', '.join(SLOW_POLICIES)}")
    return value


def seconds(low: float, high: float) -> Callable[[str], float]:
    """Parse seconds within bounds."""
    return decimal(low, high, "seconds")


def networks(value: str) -> str:
    """Check a comma list of networks; it is read where it is used."""
    try:
        for entry in value.split(","):
            if entry.strip():
                ipaddress.ip_network(entry.strip(), strict=False)
    except ValueError:
        raise Problem("give networks such as 10.0.0.0/8, separated by commas") from None
    return value


def one_of(*choices: str) -> Callable[[str], str]:
    """Parse one of some words, in any case."""

    def parse(value: str) -> str:
        if value.lower() not in choices:
            raise Problem(f"give one of {', '.join(choices)}")
        return value.lower()

    return parse


def utf8(value: str) -> str:
    """Refuse other bytes, which Python brings through the environment as lone surrogates."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Problem("give text in UTF-8") from None
    return value


def text(value: str) -> str:
    """Take any text."""
    return value


def filled(value: str) -> str:
    """Take text that is not empty."""
    if not value.strip():
        raise Problem("give a value that is not empty, or unset it")
    return value


def host(value: str) -> str:
    """Take a host's name or IP address, which must fit into a URL; no port."""
    bare = value[1:-1] if value.startswith("[") and value.endswith("]") else value
    try:
        if not re.fullmatch(r"[A-Za-z0-9._-]+", bare):
            ipaddress.IPv6Address(bare)
            if not re.fullmatch(r"[!-~]+", bare):  # a zone that no URL can hold
                raise ValueError(bare)
    except ValueError:
        raise Problem("give the name or the IP address of a host, without a port") from None
    return bare


_URL_WANTED = "give URLs such as amqp://user:password@host:5672/vhost"


def amqp_url(value: str) -> str:
    """Check one or several URLs of brokers, and take the blanks between them away."""
    parts = [part.strip() for part in value.split(";")]
    for part in parts:
        try:
            url = urlsplit(part)
            port = url.port  # a check by urllib
        except ValueError:
            raise Problem(_URL_WANTED) from None
        known = url.scheme in ("amqp", "amqps", "pyamqp", "memory")
        if not known or port == 0 or not part.lower().startswith(f"{url.scheme}://"):
            raise Problem(_URL_WANTED)
        if "@" in url.path + url.query + url.fragment:  # a password with / ? or # in it
            raise Problem("give user, password and vhost percent-encoded, such as %2F for /")
    return ";".join(parts)
