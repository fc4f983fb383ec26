"""One GET within bounds of time and size, by urllib3.

urllib3 because it keeps connections, checks certificates and host names, needs nothing beside
the standard library's sockets, which gevent has patched, and is kept up by many. Redirects are
not followed: a token goes to the place that the operator named, and nowhere else.
"""

from __future__ import annotations

from typing import Mapping, NamedTuple

import urllib3
from gevent.timeout import Timeout

from rango_gevent.errors import RangoError

_MAX_BYTES = 256 * 1024


class Unreachable(RangoError):
    """No answer within the bounds; the text is one word or two about why, and no secret."""


class Answer(NamedTuple):
    """An answer of whatever status."""

    status: int
    body: bytes


class Fetcher:
    """Gets one URL.

    Args:
        url: http or https.
        timeout_s: seconds for all of it, names and certificates included.
        at_once: connections that are kept.
    """

    def __init__(self, url: str, timeout_s: float, at_once: int = 1) -> None:
        self._url = url
        self._timeout_s = timeout_s
        self._pools = urllib3.PoolManager(
            num_pools=1, maxsize=at_once, headers={"User-Agent": "rango_gevent"}
        )

    def get(self, headers: Mapping[str, str] | None = None) -> Answer:
        """Ask once, and wait for the answer.

        Raises:
            Unreachable: there is none in time, or it is too large.
        """
        sent = {**self._pools.headers, **(headers or {})}
        try:
            with Timeout(self._timeout_s):  # urllib3's own begins anew with each byte that comes
                return self._get(sent)
        except Timeout:
            problem = "timeout"
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            problem = type(error).__name__
        raise Unreachable(problem)  # outside the handler: an error may quote what was sent

    def _get(self, headers: dict[str, str]) -> Answer:
        response = self._pools.request(
            "GET",
            self._url,
            headers=headers,
            redirect=False,
            retries=False,
            preload_content=False,
            timeout=self._timeout_s,
        )
        try:
            body = response.read(_MAX_BYTES + 1)
            if len(body) > _MAX_BYTES:
                raise Unreachable("too large")
            response.release_conn()
            return Answer(response.status, body)
        finally:
            if response.connection is not None:
                response.close()  # what is left of it belongs to nobody
