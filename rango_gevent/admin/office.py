"""The office: who is logged in as an administrator, and what is done for them in all workers.

Closed unless roles are set (`RANGO_ADMIN_ROLES`). Who did what to whom is written to the log, as
warnings, so that no usual level of the log leaves it out.
"""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Dict, Generator, Mapping, NamedTuple

import gevent

from rango_gevent.admin import requests
from rango_gevent.admin.merging import TOLD, merge
from rango_gevent.admin.reading import silent
from rango_gevent.admin.requests import CONNECTIONS, DISCONNECT, OVERVIEW, TAIL, Place, Wanted
from rango_gevent.admin.session import AdminSession
from rango_gevent.admin.siblings import Siblings
from rango_gevent.admin.tape import TapeLimits
from rango_gevent.admin.worker import Worker, no_such_connection
from rango_gevent.auth.identity import Identity
from rango_gevent.errors import RequestError
from rango_gevent.protocol import close, codes
from rango_gevent.throttle import ThrottledLog

if TYPE_CHECKING:
    from rango_gevent.gateway import Gateway

log = logging.getLogger("rango_gevent.admin")

_REFUSALS_EVERY_S = 1.0
_TOLD = "told"
_SKIPPED = "skipped"

Answer = Dict[str, Any]
Portions = Generator[Answer, None, None]


class AdminLimits(NamedTuple):
    """Bounds on administrators.

    Attributes:
        connections: that are logged in at once, in this worker.
        tape: on what is recorded of a connection.
    """

    connections: int
    tape: TapeLimits


class Office:
    """The administrators of one worker.

    Args:
        gateway: whose.
        roles: that may come in; empty: nobody.
        limits: bounds.
        directory: that the workers share; None for a single one.

    Attributes:
        roles: the same.
        admins: who is logged in.
        requests: by event, or ``error``.
        records: of followed connections, by whether they were told or skipped.
    """

    def __init__(
        self,
        gateway: Gateway,
        roles: frozenset[str],
        limits: AdminLimits,
        directory: Path | None = None,
    ) -> None:
        self.roles = roles
        self._limits = limits
        self._worker = Worker(gateway, limits.tape, self._count)
        self._siblings: Siblings | None = None
        if directory is not None:
            self._siblings = Siblings(directory, self._worker.do, self._worker.follow)
        self._refusals = ThrottledLog(log, _REFUSALS_EVERY_S)
        self.admins: dict[AdminSession, None] = {}
        self.requests: Counter[str] = Counter()
        self.records: Counter[str] = Counter()
        gateway.registry.dialects["admin"] = self.session

    # -- life ---------------------------------------------------------------------------

    def start(self) -> None:
        """Let the other workers ask this one, if anybody may come in at all."""
        if self.roles and self._siblings is not None:
            self._siblings.start()

    def stop(self) -> None:
        """End all tails, and let nobody ask."""
        for session in self.admins:
            session.end_tail()
        if self._siblings is not None:
            self._siblings.stop()

    def set(self, roles: frozenset[str], limits: AdminLimits) -> None:
        """Change who may come in; whose role may not any more has to go at once."""
        self.roles, self._limits = roles, limits
        self._worker.tape_limits = limits.tape
        for session in self._present():
            if not self.has_role(session.identity):
                session.end_tail()
                session.connection.close(close.REVOKED)
        self.start()

    @property
    def is_open(self) -> bool:
        """Tell whether anybody may come in."""
        return bool(self.roles)

    def reading(self) -> dict[str, float | Mapping[str, int]]:
        """Return what was counted, for a scrape."""
        return {
            "rango_admin_connections": self._count(),
            "rango_admin_requests": Counter(
                {**dict.fromkeys((*requests.EVENTS, "error"), 0), **self.requests}
            ),
            "rango_admin_records": Counter({_TOLD: 0, _SKIPPED: 0, **self.records}),
            "rango_admin_unanswered": self._siblings.unanswered if self._siblings else 0,
        }

    # -- who is here --------------------------------------------------------------------

    def has_role(self, identity: Identity) -> bool:
        """Tell whether somebody is an administrator."""
        return identity.uid is not None and identity.role in self.roles

    def session(self, *args: Any, **more: Any) -> AdminSession:
        """Make a session for a connection that comes by the administrators' path."""
        return AdminSession(self, *args, **more)

    def _present(self) -> list[AdminSession]:
        for session in [session for session in self.admins if session.ended]:
            del self.admins[session]
        return list(self.admins)

    def _count(self) -> int:
        return len(self._present())

    def admit(self, session: AdminSession) -> None:
        """Count an administrator in; twice is harmless.

        Raises:
            RequestError: there are as many as may be.
        """
        if session not in self.admins and self._count() >= self._limits.connections:
            raise RequestError("Too many administrators are logged in", codes.RATE)
        self.admins[session] = None

    def audit(self, session: AdminSession, text: str, *args: object) -> None:
        """Write down who does what; what strangers can repeat at will is written once a second."""
        extra = session.connection.labels
        if session.uid is None:
            self._refusals.warning(text, f"administrator: {text}", *args, extra=extra)
        else:
            log.warning(f"administrator: {text}", *args, extra=extra)

    # -- requests -----------------------------------------------------------------------

    def do(self, session: AdminSession, wanted: Wanted) -> Answer:
        """Do what an administrator wants, in all workers.

        Raises:
            RequestError: it cannot be done.
        """
        return _DOES[wanted.event](self, session, wanted)

    def _ask_all(self, wanted: Wanted) -> dict[int, Answer | None]:
        """Ask this worker and its siblings; None for who does not answer."""
        asked = gevent.spawn(self._siblings.ask_all, wanted) if self._siblings else None
        answers: dict[int, Answer | None] = {os.getpid(): self._worker.do(wanted)}
        if asked is not None:
            answers.update(asked.get())
        return dict(sorted(answers.items()))

    def _overview(self, session: AdminSession, wanted: Wanted) -> Answer:
        answers = self._ask_all(wanted)
        readings = [answer or silent(pid) for pid, answer in answers.items()]
        return {"at": round(time.time(), 3), "pid": os.getpid(), **merge(readings)}

    def _connections(self, session: AdminSession, wanted: Wanted) -> Answer:
        answers = self._ask_all(wanted)
        rows = [row for answer in answers.values() if answer for row in answer["rows"]]
        rows.sort(key=lambda row: float(row["age_s"]))
        return {
            "total": sum(answer["total"] for answer in answers.values() if answer),
            "connections": rows[:TOLD],
            "unanswered": _unanswered(answers),
        }

    def _disconnect(self, session: AdminSession, wanted: Wanted) -> Answer:
        if wanted.place is None:
            self.audit(session, "disconnects uid %r", wanted.value)
            answers = self._ask_all(wanted)
        else:
            self.audit(session, "disconnects connection %s", wanted.place)
            answers = {wanted.place.pid: self._ask_one(wanted.place, wanted)}
        closed = sum(answer["closed"] for answer in answers.values() if answer)
        return {"closed": closed, "unanswered": _unanswered(answers)}

    def _ask_one(self, place: Place, wanted: Wanted) -> Answer | None:
        if place.pid == os.getpid():
            return self._worker.do(wanted)
        answer: Answer = self._of_sibling(place, lambda siblings: siblings.ask(place.pid, wanted))
        return answer

    def _of_sibling(self, place: Place, ask: Callable[[Siblings], Any]) -> Any:
        """Return what another worker says.

        Raises:
            RequestError: there is no such worker, it refuses, or it does not answer.
        """
        if self._siblings is None or place.pid not in self._siblings.pids():
            raise no_such_connection()
        try:
            return ask(self._siblings)
        except (ConnectionRefusedError, FileNotFoundError):
            raise no_such_connection() from None
        except (OSError, ValueError):
            self._siblings.unanswered += 1
            raise RequestError(f"Worker {place.pid} does not answer", codes.RATE) from None

    # -- following a connection ---------------------------------------------------------

    def _tail(self, session: AdminSession, wanted: Wanted) -> Answer:
        place = wanted.place
        assert place is not None, "a request to tail names one"
        session.end_tail()
        about, portions = self._follow(place)
        self.audit(session, "tails connection %s of uid %r", place, about["uid"])
        if session.ended:
            portions.close()
            raise no_such_connection()
        session.tail = gevent.spawn(self._tell, session, place, portions)
        return {"connection": about}

    def _follow(self, place: Place) -> tuple[Answer, Portions]:
        if place.pid == os.getpid():
            return self._worker.follow(place)
        found: tuple[Answer, Portions] = self._of_sibling(
            place, lambda siblings: siblings.follow(place)
        )
        return found

    def _tell(self, session: AdminSession, place: Place, portions: Portions) -> None:
        """Hand on what goes to and comes from a connection, until somebody ends it."""
        ended = False
        with closing(portions):
            for portion in portions:
                if not session.is_here:
                    return
                ended = bool(portion.get("ended"))
                self._hand_on(session, place, portion)
        if not ended:
            session.tell({"event": TAIL, "conn": str(place), "lost": True})

    def _hand_on(self, session: AdminSession, place: Place, portion: Answer) -> None:
        records, skipped = portion.get("records", []), portion.get("skipped", 0)
        if not records and not skipped:
            return
        notice = {
            "event": TAIL,
            "conn": str(place),
            "records": records,
            "skipped": skipped + session.missed,
        }
        if session.tell(notice):
            session.missed = 0
            self.records[_TOLD] += len(records)
            self.records[_SKIPPED] += skipped
        else:
            session.missed += len(records) + skipped
            self.records[_SKIPPED] += len(records) + skipped

    def _untail(self, session: AdminSession, wanted: Wanted) -> Answer:
        session.end_tail()
        return {}


_DOES: dict[str, Callable[[Office, AdminSession, Wanted], Answer]] = {
    OVERVIEW: Office._overview,
    CONNECTIONS: Office._connections,
    DISCONNECT: Office._disconnect,
    TAIL: Office._tail,
    requests.UNTAIL: Office._untail,
}


def _unanswered(answers: Mapping[int, Answer | None]) -> list[int]:
    return [pid for pid, answer in answers.items() if answer is None]
