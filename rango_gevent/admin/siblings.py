"""Requests between the workers of one parent, over Unix sockets in the directory they share.

That directory is private to the user (mode 0700, `rango_gevent.scrape`), so whoever reaches a
socket is a process that could as well trace this one. Each worker listens at ``<pid>.sock``. A
request is one line of JSON and so is its answer; following a connection is answered by a line for
each portion until either side ends. Everything is bounded in bytes and time, and a worker that
hangs costs whoever asks it `ANSWER_S`.
"""

from __future__ import annotations

import json
import logging
import os
import socket
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Callable, Dict, Generator, Iterator, Tuple

import gevent
from gevent.pool import Pool
from gevent.server import StreamServer

from rango_gevent.admin.requests import TAIL, Place, Wanted, read_place
from rango_gevent.errors import RequestError
from rango_gevent.protocol import codes

log = logging.getLogger(__name__)

ANSWER_S = 1.0
PORTION_S = 5.0  # a sibling says every second that it is still there
_AT_ONCE = 64  # requests of siblings that are served; more wait
MOST_FOLLOWED = 32  # of them those that last: the others have room always
_REQUEST_BYTES = 16 * 1024
_ANSWER_BYTES = 4 << 20
_READ_BYTES = 64 * 1024

Answer = Dict[str, Any]
Portions = Generator[Answer, None, None]
Followed = Tuple[Answer, Portions]


class Siblings:
    """The other workers, and this one for them.

    Args:
        directory: that the workers share.
        do: does a request here.
        follow: follows a connection of this worker.

    Attributes:
        unanswered: requests that a sibling did not answer in time.
    """

    def __init__(
        self,
        directory: Path,
        do: Callable[[Wanted], Answer],
        follow: Callable[[Place], Followed],
    ) -> None:
        self._directory = directory
        self._own = directory / f"{os.getpid()}.sock"
        self._do = do
        self._follow = follow
        self._server: StreamServer | None = None
        self._followed = 0
        self.unanswered = 0

    # -- for the others -----------------------------------------------------------------

    def start(self) -> None:
        """Listen; twice is harmless. What cannot be is logged: the others miss this worker then."""
        if self._server is not None:
            return
        new = self._own.with_suffix(".listen")
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            new.unlink(missing_ok=True)
            listener.bind(str(new))
            listener.listen(_AT_ONCE)
            new.rename(self._own)  # who finds it can connect
        except OSError as error:
            listener.close()
            log.warning(
                "administrators will not see this worker: no socket at %s (%s); give a shorter "
                "TMPDIR that can be written to",
                self._own,
                error,
            )
            return
        self._server = StreamServer(listener, self._serve, spawn=Pool(_AT_ONCE))
        self._server.start()

    def stop(self) -> None:
        """Listen no more."""
        if self._server is not None:
            self._own.unlink(missing_ok=True)
            self._server.stop(timeout=0.2)
            self._server = None

    def _serve(self, sock: Any, address: object) -> None:
        """Answer one request."""
        with suppress(OSError, ValueError):
            sock.settimeout(ANSWER_S)
            wanted = _wanted(next(_lines(sock, _REQUEST_BYTES)))
            if wanted.event == TAIL and wanted.place is not None:
                self._tell(sock, wanted.place)
            else:
                sock.sendall(_line(self._answer(wanted)))

    def _answer(self, wanted: Wanted) -> Answer:
        try:
            return self._do(wanted)
        except RequestError as error:
            return _refusal(error)

    def _tell(self, sock: Any, place: Place) -> None:
        """Tell of a connection until it ends, or whoever listens does not take it any more."""
        self._followed += 1
        try:
            if self._followed > MOST_FOLLOWED:
                raise RequestError("Too many connections are followed already", codes.RATE)
            about, portions = self._follow(place)
            with closing(portions):
                sock.sendall(_line(about))
                for portion in portions:
                    sock.sendall(_line(portion))
        except RequestError as error:
            sock.sendall(_line(_refusal(error)))
        finally:
            self._followed -= 1

    # -- of the others ------------------------------------------------------------------

    def pids(self) -> list[int]:
        """Return the process ids of the other workers, as far as they listen."""
        stems = (path.stem for path in self._directory.glob("*.sock") if path != self._own)
        return sorted(int(stem) for stem in stems if stem.isdigit())

    def ask_all(self, wanted: Wanted) -> dict[int, Answer | None]:
        """Ask all others at once; None for who does not answer in time. The dead are left out."""
        asked = {pid: gevent.spawn(self._ask_alive, pid, wanted) for pid in self.pids()}
        gevent.joinall(list(asked.values()))  # each is bounded in time
        return {
            pid: greenlet.value for pid, greenlet in asked.items() if greenlet.value is not False
        }

    def _ask_alive(self, pid: int, wanted: Wanted) -> Any:
        """Return an answer, None without one, False for a worker that is dead."""
        try:
            return self.ask(pid, wanted)
        except (ConnectionRefusedError, FileNotFoundError):
            self._path(pid).unlink(missing_ok=True)
            return False
        except (OSError, ValueError, RequestError):
            self.unanswered += 1
            return None

    def ask(self, pid: int, wanted: Wanted) -> Answer:
        """Ask one worker.

        Raises:
            OSError, ValueError: it gives no answer.
            RequestError: it refuses.
        """
        with gevent.Timeout(ANSWER_S, TimeoutError("no answer")), self._connect(pid) as sock:
            sock.sendall(_line(_asked(wanted)))
            return _checked(next(_lines(sock, _ANSWER_BYTES)))

    def follow(self, place: Place) -> Followed:
        """Follow a connection of another worker; the iterator must be closed.

        Raises:
            OSError, ValueError: that worker gives no answer.
            RequestError: it refuses.
        """
        sock = self._connect(place.pid)
        try:
            with gevent.Timeout(ANSWER_S, TimeoutError("no answer")):
                sock.sendall(_line(_asked(Wanted(TAIL, place=place))))
                lines = _lines(sock, _ANSWER_BYTES)
                about = _checked(next(lines))
        except BaseException:
            sock.close()
            raise
        portions = _received(sock, lines)
        next(portions)
        return about, portions

    def _path(self, pid: int) -> Path:
        return self._directory / f"{pid}.sock"

    def _connect(self, pid: int) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(ANSWER_S)
        try:
            sock.connect(str(self._path(pid)))
        except OSError:
            sock.close()
            raise
        return sock


def _received(sock: socket.socket, lines: Iterator[bytes]) -> Portions:
    try:
        yield {}
        sock.settimeout(PORTION_S)
        with suppress(OSError, ValueError):
            for line in lines:
                yield json.loads(line)
    finally:
        sock.close()


def _lines(sock: Any, most_bytes: int) -> Iterator[bytes]:
    """Yield lines.

    Raises:
        ValueError: one is too long, or there are no more.
    """
    waiting = b""
    while True:
        line, end, rest = waiting.partition(b"\n")
        if end:
            waiting = rest
            yield line
            continue
        if len(waiting) > most_bytes:
            raise ValueError("too long a line")
        data = sock.recv(_READ_BYTES)
        if not data:
            raise ValueError("no more lines")
        waiting += data


def _line(answer: Answer) -> bytes:
    return json.dumps(answer).encode() + b"\n"


def _asked(wanted: Wanted) -> Answer:
    place = None if wanted.place is None else str(wanted.place)
    return {"event": wanted.event, "conn": place, "field": wanted.field, "value": wanted.value}


def _wanted(line: bytes) -> Wanted:
    """Read what `_asked` wrote.

    Raises:
        ValueError: it is no such line.
    """
    asked = json.loads(line)
    if not isinstance(asked, dict) or set(asked) != {"event", "conn", "field", "value"}:
        raise ValueError("no request")
    place = read_place(asked["conn"])
    return Wanted(
        str(asked["event"]), place=place, field=str(asked["field"]), value=str(asked["value"])
    )


def _refusal(error: RequestError) -> Answer:
    return {"error": str(error), "code": error.code}


def _checked(line: bytes) -> Answer:
    answer: Answer = json.loads(line)
    if "error" in answer:
        raise RequestError(str(answer["error"]), int(answer.get("code", codes.BAD_NAME)))
    return answer
