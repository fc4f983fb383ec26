"""From the text of a setting to its value: one small parser for each kind of value.

A parser raises `Problem`, which says what is wanted; who called it knows which setting it is.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Callable, Union
from urllib.parse import urlsplit

_MOST_URL_BYTES = 16_384
SLOW_POLICIES = ("close", "drop-oldest", "latest")

Network = Union[ipaddress.IPv4Network, ipaddress.IPv6Network]


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


def patterns(value: str) -> tuple[tuple[str, str], ...]:
    """Parse a comma list of PATTERN=POLICY into pairs, in their order."""
    found = []
    for entry in _entries(value):
        pattern, _, policy = entry.rpartition("=")
        if not pattern or policy not in SLOW_POLICIES:
            raise Problem(f"give PATTERN=POLICY, a policy being one of {', '.join(SLOW_POLICIES)}")
        found.append((pattern, policy))
    return tuple(found)


def shown_patterns(value: tuple[tuple[str, str], ...]) -> str:
    """Return what `patterns` reads as that."""
    return ",".join(f"{pattern}={policy}" for pattern, policy in value)


def pairs(what: str, left: str, right: str) -> Callable[[str], tuple[tuple[str, str], ...]]:
    """Parse a comma list of LEFT=RIGHT into pairs, in their order.

    Args:
        what: an entry in words, for who gave another.
        left: a regular expression for what stands on the left.
        right: the same for the right.
    """

    def parse(value: str) -> tuple[tuple[str, str], ...]:
        found = []
        for entry in _entries(value):
            one, _, other = entry.partition("=")
            if not re.fullmatch(left, one) or not re.fullmatch(right, other):
                raise Problem(f"give a comma list of {what}")
            found.append((one, other))
        return tuple(found)

    return parse


def listed(what: str, pattern: str) -> Callable[[str], tuple[str, ...]]:
    """Parse a comma list of words that match a regular expression."""

    def parse(value: str) -> tuple[str, ...]:
        words = tuple(dict.fromkeys(_entries(value)))
        if not words or not all(re.fullmatch(pattern, word) for word in words):
            raise Problem(f"give a comma list of {what}")
        return words

    return parse


def _entries(value: str) -> list[str]:
    return [entry.strip() for entry in value.split(",") if entry.strip()]


_MAX_KEY_BYTES = 255  # a short string of AMQP


def bindings(value: str) -> tuple[str, ...]:
    """Parse a comma list of binding keys of a topic exchange; ``auto`` stands alone."""
    found = tuple(_entries(value))
    if not found or (len(found) > 1 and "auto" in found) or not all(map(_is_key, found)):
        raise Problem("give #, keys of bindings such as public.#,private.#, or auto")
    return found


def _is_key(text: str) -> bool:
    return len(utf8(text).encode()) <= _MAX_KEY_BYTES and text.isprintable() and " " not in text


def seconds(low: float, high: float) -> Callable[[str], float]:
    """Parse seconds within bounds."""
    return decimal(low, high, "seconds")


def networks(value: str) -> tuple[Network, ...]:
    """Parse a comma list of networks or single addresses."""
    try:
        return tuple(ipaddress.ip_network(entry, strict=False) for entry in _entries(value))
    except ValueError:
        raise Problem("give networks such as 10.0.0.0/8, separated by commas") from None


def shown_networks(value: tuple[Network, ...]) -> str:
    """Return what `networks` reads as that."""
    return ",".join(map(str, value))


def one_of(*choices: str) -> Callable[[str], str]:
    """Parse one of some words, in any case."""

    def parse(value: str) -> str:
        if value.lower() not in choices:
            raise Problem(f"give one of {', '.join(choices)}")
        return value.lower()

    return parse


def some_of(*choices: str) -> Callable[[str], tuple[str, ...]]:
    """Parse a comma list of words out of a few."""

    def parse(value: str) -> tuple[str, ...]:
        words = tuple(dict.fromkeys(_entries(value)))
        if not set(words) <= set(choices):
            raise Problem(f"give a comma list of {', '.join(choices)}")
        return words

    return parse


def names(value: str) -> tuple[str, ...]:
    """Read a comma list of names; blanks around them, and empty ones, are left out."""
    return tuple(dict.fromkeys(_entries(value)))


def http_url(value: str) -> str:
    """Parse a URL of http or https; a user in it would be in the token's place."""
    if value and not re.fullmatch(r"https?://[^\s/?#@]+([/?][^\s#@]*)?", value):
        raise Problem("give a URL such as https://auth.example/verify, without user and fragment")
    return value


def alert_urls(value: str) -> tuple[str, ...]:
    """Parse URLs of alert sinks, separated by ``;``; which kinds there are, apprise knows."""
    if len(value.encode()) > _MOST_URL_BYTES:  # they are handed on in one message
        raise Problem(f"give at most {_MOST_URL_BYTES} bytes")
    urls = tuple(part.strip() for part in value.split(";") if part.strip())
    for number, url in enumerate(urls, 1):
        problem = _sink_problem(url)
        if problem:  # by its number: a URL of a sink is a secret
            raise Problem(f"URL {number} of {len(urls)}: {problem}")
    return urls


def _sink_problem(url: str) -> str:
    wanted = "give one such as mailto://user:password@example.com, percent-encoded"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return wanted
    if not re.match(r"[A-Za-z][A-Za-z0-9+.-]*://\S", url) or re.search(r"[\s\x00-\x1f]", url):
        return wanted
    if parts.scheme == "udp" and not (parts.hostname and port and not parts.path.strip("/")):
        return "give udp://HOST:PORT"
    if parts.scheme in ("redis", "rediss") and not (
        parts.hostname and re.fullmatch(r"(/[0-9]{1,6})?/[^/]+", parts.path)
    ):
        return "give redis://HOST:PORT/KEY, such as redis://127.0.0.1:6379/alert:message"
    return ""


def cookie_name(value: str) -> str:
    """Parse the name of a cookie (RFC 6265 section 4.1.1)."""
    if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{0,255}", value, re.ASCII):
        raise Problem("give the name of a cookie, such as token")
    return value


def switch(value: str) -> bool:
    """Parse on or off."""
    return one_of("on", "off")(value) == "on"


def shown_switch(value: bool) -> str:
    """Return what `switch` reads as that."""
    return "on" if value else "off"


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
            _check_ipv6(bare)
    except ValueError:
        raise Problem("give the name or the IP address of a host, without a port") from None
    return bare


def _check_ipv6(address: str) -> None:
    """Raise ValueError for what is none; in a URL its zone may hold few characters, RFC 6874."""
    ipaddress.IPv6Address(address)
    zone = address.partition("%")[2]
    if not re.fullmatch(r"[A-Za-z0-9._~-]*", zone):
        raise ValueError("no zone")


_URL_WANTED = "give URLs such as amqp://user:password@host:5672/vhost"


def amqp_urls(value: str) -> tuple[str, ...]:
    """Parse one or several URLs of brokers, separated by ``;``."""
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
    if len({part.startswith("memory") for part in parts}) > 1:
        raise Problem("give brokers of one kind: memory:// is none beside others")
    return tuple(parts)
