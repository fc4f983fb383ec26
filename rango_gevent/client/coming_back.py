"""Positions: how far each stream is whole, so that it can go on from there. Pure.

A gateway that was asked by ``resume=1`` says with each event where it stands in the history that
all streams share, and replays from there to whoever comes back. Rules:

* A stream that is held is whole up to where its connection stands (`Link.position`): events of a
  connection come in the order of publishing, so any of them tells for all. One that is not held is
  whole up to its own `Wanted.since`, which moves with each event that is replayed to it. So a cut
  in the middle of a replay loses nothing and doubles nothing, and a stream may go to any other
  connection: it takes its own position along.
* A connection's position only moves forward: books that are sent afresh carry old ones.
* A book goes on where its levels are those of the position; else it wants its snapshot.
* Who comes back to a connection that holds the stream still is given nothing of what arrives until
  the gateway has let it go: the same will be replayed.
"""

from __future__ import annotations

from collections.abc import Sequence

from rango_gevent.client.link import Link
from rango_gevent.client.wanted import ACTIVE, SNAPSHOT_END, Wanted
from rango_gevent.client.wire import Reply

_SHOWN = 5  # names


def is_later(position: str, than: str | None) -> bool:
    """Tell whether a position comes after another one.

    Their numbers sort within a history; what has another form is taken as it comes.
    """
    if than is None:
        return True
    try:
        return int(position.partition("-")[0]) > int(than.partition("-")[0])
    except ValueError:
        return True


def takers(link: Link, streams: Sequence[Wanted], position: str | None) -> list[Wanted]:
    """Return those of an event's streams that it is for.

    A name and a pattern may have the same event. What is new is for those that are held, as the
    others will get it replayed; what is replayed is for those that were asked for, each from where
    it stood, even when nobody wants it any more.
    """
    here = [one for one in streams if one.link is link]
    if position is None:
        return here
    held = [one for one in here if one.state == ACTIVE]
    if not (link.is_returning or link.asked):  # hot path: nearly every event
        return held
    if held and is_later(position, link.position):
        return held
    asked = [one for one in here if one in link.asked and _may_take(one, position)]
    return asked + [one for one in held if one.is_book]


def _may_take(stream: Wanted, position: str) -> bool:
    """Tell whether an event may be one of those that a stream has asked for."""
    return stream.is_book or is_later(position, stream.since)


def note(link: Link, stream: Wanted, name: str, position: str) -> None:
    """Note where a stream stands after an event.

    Args:
        link: that it came from.
        stream: whose it is.
        name: that it came under.
        position: that it carried.
    """
    if stream.state == ACTIVE:
        if is_later(position, link.position):
            link.position = position
    elif name.endswith(SNAPSHOT_END) or is_later(position, stream.since):
        stream.since = position


def pause(link: Link, stream: Wanted, why: str) -> None:
    """Keep where a stream of a lost connection stands, if it can go on from there."""
    was_active = stream.state == ACTIVE
    heard = [sink.paused(why) for sink in stream.sinks]  # by each of them, whatever the first says
    is_whole = all(heard)
    is_awaited = stream.name in link.resyncs or stream.name in link.replaying
    position = link.position if was_active else stream.since
    stream.since = position if is_whole and not is_awaited else None
    stream.lose(link.heard_wall_s, why)
    if stream.since is None and (was_active or (stream.is_book and is_whole)):
        for sink in stream.sinks:
            sink.lost(why)


def broke(link: Link) -> list[Wanted]:
    """Take word that nobody knows what was published before; return the streams that may miss some.

    Books are told that by word of their own.
    """
    link.position = None
    return [
        one
        for one in link.wanted.values()
        if one.state == ACTIVE and not one.is_book and not one.is_guest
    ]


def recovered(streams: list[Wanted], reply: Reply) -> str:
    """Say for people what was recovered."""
    names = [one.name for one in streams]
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"recovered {', '.join(names[:_SHOWN])}{more}: {reply.get('events') or 0} events"
