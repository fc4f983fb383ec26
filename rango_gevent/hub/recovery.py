"""What somebody who comes back by a position is given: the second half of `Hub.subscribe`.

As all of the hub, each of these is one step; called one after another, without giving way, they
leave neither a gap nor a duplicate between what was missed and what comes.
"""

from __future__ import annotations

from operator import attrgetter
from typing import Iterable

from rango_gevent.hub.history import track
from rango_gevent.hub.hub import Hub
from rango_gevent.hub.stream import Subscriber
from rango_gevent.model import Event
from rango_gevent.protocol import routing

_in_order = attrgetter("sequence")


def tracks(hub: Hub, subscriber: Subscriber, names: Iterable[str]) -> list[str]:
    """Return what is kept under those names that a subscriber may have and does not hold.

    Of what it holds it has missed nothing.
    """
    found: list[str] = []
    for name in names:
        kind = routing.kind_of(name)
        if name not in subscriber.streams and hub.may_have(subscriber, kind, name):
            is_own = kind == routing.PRIVATE
            address = routing.private_address(subscriber.uid or "", name) if is_own else name
            found.append(track(kind, address))
            if routing.is_book(name):
                found.append(track(kind, address, routing.SNAPSHOT))
    return found


def take_due(hub: Hub, subscriber: Subscriber) -> list[Event]:
    """Take what waits in the hub for one subscriber, before others are served.

    Then it has all that was published so far, and stands at the newest position.
    """
    if not hub.dirty:
        return []
    found: list[Event] = []
    for stream in subscriber.streams.values():
        queue = stream.queue
        if queue is None:
            continue
        after = (stream.joined or {}).get(subscriber, 0)
        waiting = [queue.get_nowait() for _ in range(queue.qsize())]
        for event in waiting:
            queue.put_nowait(event)
        found += [event for event in waiting if event.sequence > after]
        stream.add(subscriber, hub.sequence)
    found.sort(key=_in_order)
    return found
