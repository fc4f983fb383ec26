"""A client that comes back by a position: what it is given, and what it is told of where it stands.

Pure. `subscribe` is one step from the moment that it has waited for a position: what was missed is
collected, the streams are subscribed, and what waited for the client is taken; so there is no gap,
no duplicate, and the position that it is told is that of everything published by then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rango_gevent.delivery.outlet import Part
from rango_gevent.hub import recovery
from rango_gevent.hub.history import BAD_POSITION, NO_LOG, TOO_MANY, Replay
from rango_gevent.model import Segment, cut, position_text, read_position, stretches
from rango_gevent.protocol import codes, messages
from rango_gevent.protocol.messages import Id

if TYPE_CHECKING:
    from rango_gevent.delivery.session import Session

RECOVERED = "recovered"
_LOOK_BYTES = 100  # as which the client pays for each event that was looked for in vain


def subscribe(
    session: Session, names: tuple[str, ...], id: Id = None, since: str | None = None
) -> list[Part]:
    """Subscribe one who may come back: what it missed, or books afresh; then the reply.

    Raises:
        RequestError: with these all clients together would hold too many.
    """
    desk = session.desk
    if desk.hub.history is not None:
        desk.hub.history.begin()
    position = 0 if since is None else _awaited(session, since)
    replay = None if since is None else _missed(session, names, position)
    parts = session.replay(names, recovered=replay is not None and not replay.reason)
    if parts is None:
        return []
    session.stands = True
    more = standing(session)
    code = None
    if replay is not None and replay.reason == TOO_MANY:
        # nothing is sent for it, but to look cost about as much as if there were
        parts.append(Segment([], _LOOK_BYTES * desk.limits.replay_events))
    if replay is not None and replay.reason:
        more.update(recovered=False, reason=replay.reason)
        code = session.code(codes.NOT_RECOVERED)
    elif replay is not None:
        more.update(recovered=True, events=len(replay.frames))
        parts += stretches(replay.frames)
        desk.replayed += len(replay.frames)
    if replay is not None:
        desk.resumes[replay.reason or RECOVERED] += 1
    reply = messages.held(messages.SUBSCRIBED, desk.hub.names(session), id, more, code)
    return [*parts, reply]


def _awaited(session: Session, since: str) -> int:
    """Read a position, and wait a while for the event that is there; 0: it is none."""
    position = read_position(since) or 0
    if position:
        session.stands = False  # it stands where this instance is not yet
        session.desk.await_position(position)
    return position


def _missed(session: Session, names: tuple[str, ...], position: int) -> Replay:
    hub, limits = session.desk.hub, session.desk.limits
    if not position:
        return Replay(BAD_POSITION)
    if hub.history is None:
        return Replay(NO_LOG)
    keys = recovery.tracks(hub, session, names)
    return hub.history.since(position, keys, limits.replay_events, limits.replay_bytes)


def take_due(session: Session) -> list[Part]:
    """Take what waits in the hub for a client, so that it stands at the newest position."""
    return [*cut(recovery.take_due(session.desk.hub, session))]


def standing(session: Session) -> dict[str, object]:
    """Return the member of a reply that says where a client stands; null where there is no log."""
    history = session.desk.hub.history
    newest = history.newest if history is not None else 0
    return {"at": position_text(newest) if newest else None}


def notice(session: Session) -> list[Part]:
    """Return what tells a client that hears nothing where it stands, behind what it is due."""
    history = session.desk.hub.history
    if not session.stands or history is None or not history.newest:
        return []
    session.desk.flush(session)
    return [*take_due(session), messages.stands(position_text(history.newest))]


def broken(session: Session, reason: str) -> list[Part]:
    """Return what tells a client that history broke, behind what it is due."""
    if not session.stands:
        return []
    session.desk.flush(session)
    return [*take_due(session), messages.history_broke(reason)]
