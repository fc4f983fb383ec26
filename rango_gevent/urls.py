"""URLs as they may be logged and shown: where the broker is and who connects, and no secret."""

from __future__ import annotations

from urllib.parse import urlsplit


def mask_url(url: str) -> str:
    """Return a URL, or several separated by ``;``, without its password."""
    return ";".join(_mask_one(part) for part in url.split(";"))


def _mask_one(url: str) -> str:
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    user, colon, _ = user.partition(":")
    netloc = f"{user}{colon and ':***'}{at}{host}"
    # a query may hold secrets too, such as the password of a TLS key
    return f"{parts.scheme}://{netloc}{parts.path}{'?***' if parts.query else ''}"


def mask_sink(url: str) -> str:
    """Return the URL of an alert sink as it may be shown.

    Of redis and udp where it is; of all others no more than the kind, as hosts and paths of
    slack://, tgram:// and the like are the secrets.
    """
    scheme, _, rest = url.partition("://")
    if scheme.lower() not in ("udp", "redis", "rediss"):
        return f"{scheme}://***"
    return f"{scheme}://{'***@' if '@' in rest else ''}{rest.rpartition('@')[2].partition('?')[0]}"
