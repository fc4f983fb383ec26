"""What one worker does for an administrator: tells, finds, disconnects, follows a connection.

Its own administrators ask it directly, those of its siblings by `rango_gevent.admin.siblings`.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, Callable, Dict, Generator

import gevent
from gevent.lock import BoundedSemaphore

from rango_gevent.admin import reading
from rango_gevent.admin.rates import RateMeter
from rango_gevent.admin.requests import (
    ADDRESS,
    CONNECTIONS,
    DISCONNECT,
    OVERVIEW,
    STREAM,
    UID,
    Place,
    Wanted,
)
from rango_gevent.admin.session import AdminSession
from rango_gevent.admin.tailed import leave, listen
from rango_gevent.admin.tape import Tape, TapeLimits
from rango_gevent.errors import RequestError
from rango_gevent.protocol import close, codes

if TYPE_CHECKING:
    from rango_gevent.delivery.connection import Connection
    from rango_gevent.gateway import Gateway

FRESH_S = 1.0  # a state this young is told again
TOLD_EVERY_S = 0.25  # records go out together
ALIVE_EVERY_S = 1.0  # and so often, though there are none, to find out who is gone

Portions = Generator[Dict[str, Any], None, None]


class Worker:
    """One worker's part.

    Args:
        gateway: whose.
        tape_limits: bounds on what is recorded of one connection.
        admins: tells how many administrators are logged in here.
    """

    def __init__(
        self, gateway: Gateway, tape_limits: TapeLimits, admins: Callable[[], int]
    ) -> None:
        self._gateway = gateway
        self.tape_limits = tape_limits
        self._admins = admins
        self._rates = RateMeter(time.monotonic, self._stop_counting)
        self._reading: tuple[float, dict[str, Any]] | None = None
        self._turn = BoundedSemaphore()

    def do(self, wanted: Wanted) -> dict[str, Any]:
        """Return what this worker has to say to a request.

        Raises:
            RequestError: it cannot be done.
        """
        if wanted.event == OVERVIEW:
            return self._overview()
        if wanted.event == CONNECTIONS:
            return reading.find(self._gateway, _suits(wanted.field, wanted.value))
        if wanted.event == DISCONNECT:
            return {"answers": True, "closed": self._disconnect(wanted)}
        raise RequestError("Workers do not do that for one another", codes.NO_SUCH_EVENT)

    def _overview(self) -> dict[str, Any]:
        """Gather a state, or tell the last one while it is fresh: many may look at once."""
        with self._turn:
            if self._reading is None or time.monotonic() - self._reading[0] > FRESH_S:
                self._gateway.dispatcher.watcher = self._rates.count
                rates = self._rates.read()
                found = reading.read(self._gateway, rates, self._admins())
                self._reading = time.monotonic(), found
            return self._reading[1]

    def _stop_counting(self) -> None:
        self._gateway.dispatcher.watcher = None
        self._reading = None

    def _disconnect(self, wanted: Wanted) -> int:
        if wanted.place is not None:
            self._connection(wanted.place).close(close.REVOKED)
            return 1
        uid = wanted.value
        return self._gateway.registry.disconnect(lambda identity: identity.uid == uid)

    def _connection(self, place: Place) -> Connection:
        """Return a connection of this worker.

        Raises:
            RequestError: there is none.
        """
        if place.pid == os.getpid():
            for connection in reading.sliced(self._gateway.registry):
                if connection.id == place.number and connection.open:
                    return connection
        raise no_such_connection()

    def follow(self, place: Place) -> tuple[dict[str, Any], Portions]:
        """Listen to a connection of this worker.

        Returns:
            Its row, and what goes to and comes from it in portions, some of them empty, until it
            ends. Whoever has enough closes the iterator.

        Raises:
            RequestError: there is none, or it is an administrator's.
        """
        connection = self._connection(place)
        if isinstance(connection.session, AdminSession):
            raise RequestError("Administrators are not listened to", codes.ROLE)
        tape = Tape(self.tape_limits)
        if not listen(connection, tape):
            raise no_such_connection()
        portions = _portions(connection, tape)
        next(portions)  # so that closing it leaves the connection
        return reading.row(connection), portions


def _portions(connection: Connection, tape: Tape) -> Portions:
    told_s = time.monotonic()
    try:
        yield {}
        while True:
            records, skipped = tape.take()
            if records or skipped or time.monotonic() - told_s >= ALIVE_EVERY_S:
                told_s = time.monotonic()
                yield {"records": records, "skipped": skipped, "ended": tape.has_ended}
            if tape.has_ended:
                return
            gevent.sleep(TOLD_EVERY_S)
    finally:
        leave(connection, tape)


def no_such_connection() -> RequestError:
    """Make the error for a connection that is not there any more, or never was."""
    return RequestError("No such connection", codes.BAD_NAME)


def _suits(field: str, value: str) -> Callable[[Connection], bool]:
    if field == UID:
        return lambda connection: connection.session.uid == value
    if field == ADDRESS:
        return lambda connection: connection.peer == value
    if field == STREAM:
        return lambda connection: value in connection.session.streams
    return lambda connection: True
