"""A worker's state as an administrator sees it, gathered in slices.

Ten thousand connections and a hundred thousand topics are looked at in steps of a millisecond,
between which everything else has its turn; what is told is bounded by `merging.TOLD` and the
number of reasons.
"""

from __future__ import annotations

import heapq
import os
import time
from itertools import chain
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterable, Iterator, Tuple, TypeVar

from rango_gevent.admin.merging import ROWS, TOLD, book_order
from rango_gevent.admin.rates import Rate
from rango_gevent.admin.requests import Place
from rango_gevent.hub.book import Book
from rango_gevent.hub.stream import Stream
from rango_gevent.turns import give_way

if TYPE_CHECKING:
    from rango_gevent.delivery.connection import Connection
    from rango_gevent.gateway import Gateway

_STEP_S = 0.001
_LOOK_EVERY = 64  # items between two looks at the clock: about 0.05 ms
_NONE = Rate(0.0, 0.0)

T = TypeVar("T")
Rates = Dict[Tuple[str, str], Rate]


def sliced(items: Iterable[T]) -> Iterator[T]:
    """Yield the items as they are now, and give way each millisecond."""
    until_s = time.monotonic() + _STEP_S
    for count, item in enumerate(list(items)):
        if count % _LOOK_EVERY == 0 and time.monotonic() > until_s:
            give_way()
            until_s = time.monotonic() + _STEP_S
        yield item


def read(gateway: Gateway, rates: Rates, admins: int) -> dict[str, Any]:
    """Return what this worker has to tell.

    Args:
        gateway: whose worker this is.
        rates: of its busy streams.
        admins: administrators that are logged in here.
    """
    registry, hub = gateway.registry, gateway.hub
    by_uid, by_address = registry.admission.by_uid, registry.admission.by_address
    return {
        "answers": True,
        "worker": _worker(gateway, admins),
        "closed": dict(registry.closed),
        "refused": dict(registry.refused),
        "dropped": dict(hub.dropped),
        "users": heapq.nlargest(TOLD, sliced(by_uid.items()), key=itemgetter(1)),
        "addresses": heapq.nlargest(TOLD, sliced(by_address.items()), key=itemgetter(1)),
        "streams": _streams(gateway, rates),
        "rates": _busy(gateway, rates),
        "slow": _slow(gateway),
        "books": _books(gateway),
    }


def _worker(gateway: Gateway, admins: int) -> dict[str, Any]:
    """Return a worker's figures; counters only grow, so that rates can be made of them."""
    registry, hub, source = gateway.registry, gateway.hub, gateway.source
    users = sum(registry.admission.by_uid.values())
    return {
        "pid": os.getpid(),
        "answers": True,
        "at": time.time(),
        "problem": gateway.readiness(),
        "connections": len(registry),
        "authenticated": users,
        "anonymous": len(registry) - users,
        "users": len(registry.admission.by_uid),
        "admins": admins,
        "subscriptions": hub.topics.total,
        "streams": sum(map(len, hub.streams.values())),
        "lagging": len(registry.lagging),
        "late_s": round(gateway.heartbeat.late_s, 4),
        "books": len(hub.books),
        "stale": hub.shelf.stale,
        "broker": {
            "connected": source.connected,
            "problem": source.problem,
            "connects": source.connects,
            "failures": source.failures,
            "away_s": round(source.away_s(), 1),
        },
        "counts": {
            "opened": registry.opened,
            "closed": sum(registry.closed.values()),
            "refused": sum(registry.refused.values()),
            "requests": sum(registry.requests.values()),
            "received": sum(hub.received.values()),
            "frames": gateway.dispatcher.frames,
            "bytes": gateway.dispatcher.bytes,
        },
    }


def silent(pid: int) -> dict[str, Any]:
    """Return what stands for a worker that does not answer."""
    return {"answers": False, "worker": {"pid": pid, "answers": False}}


def _stream(stream: Stream, rates: Rates) -> dict[str, Any]:
    rate = rates.get((stream.kind, stream.address), _NONE)
    return {
        "kind": stream.kind,
        "name": stream.address,
        "subscribers": len(stream.subscribers),
        "rate": round(rate.events, 2),
        "bytes": round(rate.bytes),
    }


def _streams(gateway: Gateway, rates: Rates) -> list[dict[str, Any]]:
    streams = chain.from_iterable(sliced(held.values()) for held in gateway.hub.streams.values())
    most = heapq.nlargest(TOLD, streams, key=lambda stream: len(stream.subscribers))
    return [_stream(stream, rates) for stream in most]


def _busy(gateway: Gateway, rates: Rates) -> list[dict[str, Any]]:
    busy = heapq.nlargest(TOLD, sliced(rates.items()), key=itemgetter(1))
    found = (gateway.hub.streams[kind].get(address) for (kind, address), _ in busy)
    return [_stream(stream, rates) for stream in found if stream is not None]


def _slow(gateway: Gateway) -> list[dict[str, Any]]:
    lagging = [(one.outbox_bytes, one) for one in sliced(gateway.registry.lagging)]
    most = heapq.nlargest(ROWS, lagging, key=itemgetter(0))
    return [row(connection) for _, connection in most if connection.open]


def row(connection: Any) -> dict[str, Any]:
    """Return what is told of a connection."""
    session = connection.session
    now_s = time.monotonic()
    since_s = connection.waits_since_s
    return {
        "conn": str(Place(os.getpid(), connection.id)),
        "uid": session.uid,
        "role": session.role,
        "address": connection.peer,
        "age_s": round(max(0.0, now_s - connection.opened_s), 1),
        "streams": len(session.streams),
        "bytes": connection.outbox_bytes,
        "waits_s": None if since_s is None else round(max(0.0, now_s - since_s), 1),
    }


def _books(gateway: Gateway) -> list[dict[str, Any]]:
    """Return the books that an administrator should look at first."""
    now_s = time.time()
    first = heapq.nlargest(
        ROWS,
        sliced(gateway.hub.books.items()),
        key=lambda item: book_order(*_ages(item[1], now_s)),
    )
    return [_book(name, book, now_s) for name, book in first]


def _ages(book: Book, now_s: float) -> tuple[float | None, float | None]:
    """Return how long a book has been stale, and how old its newest event is."""
    stale_s = None if book.stale_since is None else max(0.0, now_s - book.stale_since)
    return stale_s, max(0.0, now_s - book.newest.at_s) if book.live else None


def _book(name: str, book: Book, now_s: float) -> dict[str, Any]:
    stale_s, age_s = _ages(book, now_s)
    return {
        "name": name,
        "age_s": None if age_s is None else round(age_s, 1),
        "stale_s": None if stale_s is None else round(stale_s, 1),
        "events": book.count,
        "bytes": book.bytes,
        "held": book.is_held,
    }


def find(gateway: Gateway, suits: Callable[[Connection], bool]) -> dict[str, Any]:
    """Return how many connections suit, and the newest of them."""
    found = [one for one in sliced(gateway.registry) if one.open and suits(one)]
    return {"answers": True, "total": len(found), "rows": [row(one) for one in found[-TOLD:][::-1]]}
