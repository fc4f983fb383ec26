"""Clients that come back by their position, and others that do not, each checking every number.

A stream's messages are numbered by the publisher, from 0 and without holes. Whoever resumes must
see each number of its streams once and in order, over all its connections; who does not, within
each of them.
"""

from __future__ import annotations

import json
import random
import re
import time
from collections import Counter

import gevent

from tests.soak.swarm import Connection, Lost

_EVENT = re.compile(rb'\{"([^"]+)":\{"n":(\d+)\}(?:,"at":"(\d+)-([0-9a-f]{8})")?\}')
_FIRST_WAIT_S = 1.0
_LONGEST_WAIT_S = 4.0
_ERRORS_KEPT = 20


class Tally:
    """What all clients of a run saw.

    Attributes:
        seen: what happened, by word.
        errors: what must not happen; the first few.
        back: monotonic time of each return, and the seconds that this client was away.
    """

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()
        self.errors: list[str] = []
        self.back: list[tuple[float, float]] = []

    def error(self, word: str, text: str) -> None:
        """Note what must not happen."""
        self.seen[word] += 1
        if len(self.errors) < _ERRORS_KEPT:
            self.errors.append(f"{word}: {text}")


class Client:
    """One client: it connects, checks what comes, and comes back for as long as it runs.

    Args:
        port: of the balancer.
        name: for what is said about it.
        streams: what it holds.
        token: of its user, empty for none.
        resumes: it asks for positions and names its last one when it comes back.
        tally: where it notes what it sees.
    """

    def __init__(
        self, port: int, name: str, streams: list[str], token: str, *, resumes: bool, tally: Tally
    ) -> None:
        self.name = name
        self.streams = streams
        self.last: dict[str, int] = dict.fromkeys(streams, -1) if resumes else {}
        self.position = ""
        self.is_there = False
        self._number = -1
        self._port = port
        self._token = token
        self._resumes = resumes
        self._tally = tally
        self._replayed = 0
        self._left_s = 0.0

    def run(self) -> None:
        """Stay connected until it is killed."""
        wait_s = _FIRST_WAIT_S
        while True:
            try:
                self._attend()
            except (Lost, OSError) as error:
                refused = str(error).startswith("HTTP/1.1")
                self._tally.seen["refused" if refused else "lost"] += 1
            if self.is_there:
                wait_s, self._left_s = _FIRST_WAIT_S, time.monotonic()
            self.is_there = False
            gevent.sleep(random.uniform(0, wait_s))
            wait_s = min(_LONGEST_WAIT_S, 2 * wait_s)

    def _attend(self) -> None:
        path = f"/{'private' if self._token else 'public'}?stream={','.join(self.streams)}"
        if self._resumes:
            path += "&resume=1" + (f"&since={self.position}" if self.position else "")
        header = f"Authorization: Bearer {self._token}\r\n" if self._token else ""
        connection = Connection(self._port, path, header)
        self._replayed = 0
        if not self._resumes:
            self.last.clear()
        try:
            while True:
                self._take(connection.receive())
        finally:
            connection.close()

    def _take(self, message: bytes) -> None:
        found = _EVENT.fullmatch(message)
        if found is None:
            self._reply(json.loads(message))
            return
        name, number, at, check = found.groups()
        self._check(name.decode(), int(number))
        if self._resumes and at is not None:
            self._move(int(at), f"{at.decode()}-{check.decode()}")
        elif self._resumes:
            self._tally.seen["without position"] += 1
        elif at is not None:
            self._tally.error("changed", f"{self.name} got a position that it did not ask for")

    def _check(self, name: str, number: int) -> None:
        last = self.last.get(name)
        if last is not None and number != last + 1:
            word = "doubled" if number <= last else "missed"
            self._tally.error(word, f"{self.name} {name}: {number} after {last}")
        self.last[name] = number
        self._tally.seen["events"] += 1
        if not self.is_there:
            self._replayed += 1

    def _move(self, number: int, position: str) -> None:
        if number <= self._number:
            self._tally.error("disorder", f"{self.name}: position {number} after {self._number}")
        self._number, self.position = number, position

    def _reply(self, message: dict[str, object]) -> None:
        if message.get("event") == "position":
            self._notice(message)
            return
        success = message.get("success")
        if not isinstance(success, dict) or success.get("message") != "subscribed":
            self._tally.error("unexpected", f"{self.name}: {message}")
            return
        if self._left_s:
            now_s = time.monotonic()
            self._tally.back.append((now_s, now_s - self._left_s))
            self._left_s = 0.0
        if self._resumes:
            self._resumed(success)
        self.is_there = True

    def _resumed(self, success: dict[str, object]) -> None:
        if self.position and success.get("recovered") is not True:
            self._tally.seen[f"not recovered: {success.get('reason')}"] += 1
            self.last = {}  # whatever comes next is where it goes on
        elif self.position:
            self._tally.seen["recovered"] += 1
            self._tally.seen["replayed"] += self._replayed
            if success.get("events") != self._replayed:
                text = f"{self.name}: {self._replayed} replayed, {success.get('events')} said"
                self._tally.error("miscounted", text)
        self._take_position(success.get("at"))

    def _notice(self, message: dict[str, object]) -> None:
        if message.get("at") is None:
            self._tally.seen[f"history broke: {message.get('reason')}"] += 1
            self.position, self._number = "", -1
        else:
            self._take_position(message["at"])

    def _take_position(self, at: object) -> None:
        if isinstance(at, str):
            self.position, self._number = at, int(at.split("-")[0])
