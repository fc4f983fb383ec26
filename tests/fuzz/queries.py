"""Any query of a handshake gives names within the limits or a RequestError, and reads back alike.

That is: the names, written as a query again, are read as the same names.
"""

from __future__ import annotations

from urllib.parse import quote

from rango_gevent.errors import RequestError
from rango_gevent.model import read_position
from rango_gevent.protocol.messages import NameLimits, names_in_query, since_in_query
from tests.fuzz.common import check_names

_LIMITS = NameLimits(max_names=8, max_name_bytes=60)


def check(data: bytes) -> None:
    """Read a query as WSGI has it: bytes as Latin-1."""
    since = since_in_query(data.decode("latin-1"))
    assert since is None or read_position(since) is None or len(since) <= 40
    try:
        names = names_in_query(data.decode("latin-1"), _LIMITS)
    except RequestError:
        return
    check_names(names, _LIMITS)
    assert all(names), "an empty name"
    again = "&".join(f"stream={quote(name, safe='')}" for name in names)
    assert names_in_query(again, _LIMITS) == names


SEEDS = (
    b"stream=eurusd.trades,global.tickers&stream=order",
    b"stream=eurusd.ob-inc%2Corder&cli=1",
    b"stream=%C3%A9+%2B&stream=&stream",
    b"stream=%zz%&stream=%ff",
    b"stream=a&&=b;stream=c",
    b"stream=\xe2\x82\xac",
    b"notices=1&stream=a%00b",
    b"stream=%E2%80%A8",
    b"resume=1&since=12-0000ffff&stream=a.b",
)
WORDS = (b"stream=", b"&", b"%2C", b"%E2%82%AC", b"%00", b"+", b",", b";", b"%25", b"%ED")
