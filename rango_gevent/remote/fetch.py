"""One request within bounds of time and size, by urllib3.

urllib3 because it keeps connections, checks certificates and host names, needs nothing beside
the standard library's sockets, which gevent has patched, and is kept up by many. Redirects are
not followed: a token goes to the place that the operator named, and nowhere else.
"""

from __future__ import annotations

from typing import Mapping, NamedTuple
from urllib.parse import urlencode

import urllib3
from gevent.timeout import Timeout

from rango_gevent.errors import RangoError

_MAX_BYTES = 256 * 1024


class Unreachable(RangoError):
    """No answer within the bounds; the text is one word or two about why, and no secret."""


class Late(Unreachable):
    """It did not come in time."""


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
        max_bytes: size of an answer.
    """

    def __init__(
        self, url: str, timeout_s: float, at_once: int = 1, max_bytes: int = _MAX_BYTES
    ) -> None:
        self._max_bytes = max_bytes
        self._url = url
        self._timeout_s = timeout_s
        self._pools = urllib3.PoolManager(
            num_pools=1, maxsize=at_once, headers={"User-Agent": "rango_gevent"}
        )

    def get(
        self, headers: Mapping[str, str] | None = None, query: Mapping[str, str] | None = None
    ) -> Answer:
        """Ask once, and wait for the answer.

        Args:
            headers: to send beside our own.
            query: to put behind that of the URL.

        Raises:
            Unreachable: there is none in time, or it is too large.
        """
        url = self._url
        if query:
            url += ("&" if "?" in url else "?") + urlencode(query)
        return self._ask("GET", url, headers or {}, None)

    def post(self, body: bytes) -> Answer:
        """Send JSON, and wait for the answer.

        Raises:
            Unreachable: as `get`.
        """
        return self._ask("POST", self._url, {"Content-Type": "application/json"}, body)

    def _ask(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> Answer:
        sent = {**self._pools.headers, **headers}
        try:
            with Timeout(self._timeout_s):  # urllib3's own begins anew with each byte that comes
                return self._request(method, url, sent, body)
        except Timeout:
            is_late, problem = True, "timeout"
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            problem = type(error).__name__
            # one that is refused counts among urllib3's timeouts
            is_late = isinstance(error, urllib3.exceptions.TimeoutError) and not isinstance(
                error, urllib3.exceptions.NewConnectionError
            )
        # outside the handler: an error may quote what was sent
        raise Late(problem) if is_late else Unreachable(problem)

    def _request(
        self, method: str, url: str, headers: dict[str, str], body: bytes | None
    ) -> Answer:
        response = self._pools.request(
            method,
            url,
            headers=headers,
            body=body,
            redirect=False,
            retries=False,
            preload_content=False,
            timeout=self._timeout_s,
        )
        try:
            data = response.read(self._max_bytes + 1)
            if len(data) > self._max_bytes:
                raise Unreachable("too large")
            response.release_conn()
            return Answer(response.status, data)
        finally:
            if response.connection is not None:
                response.close()  # what is left of it belongs to nobody
