"""Attacks by clients that come back: as far back as may be, again and again, and without reading."""

from __future__ import annotations

import contextlib
import json
import socket
from collections import deque

from tests.torment.target import Target, bodies

_SMALL_BUFFER = 4096  # a deaf client's: what it does not read stays at the gateway
_MISSED = "torment-missed.t"


def deaf_resumes(target: Target) -> None:
    """Clients come back to much that they missed and read none of it; the oldest make room."""
    since = _standing(target.websocket(f"/public?resume=1&stream={_MISSED}"))
    for body, _ in zip(bodies(target.size["bytes"]), range(target.size["events"])):
        target.publish(f"public.{_MISSED}", body)
    target.begin()
    deaf: deque[socket.socket] = deque()
    path = f"/public?resume=1&stream={_MISSED}&since={since}"
    came = 0
    for _ in target.until_over():
        with contextlib.suppress(OSError):
            deaf.append(target.websocket(path, _SMALL_BUFFER))
            came += 1
        if len(deaf) > target.size["clients"]:
            deaf.popleft().close()
    recovered = target.metric("rango_resumes_total", outcome="recovered")
    target.note(f"{came} came back, {recovered:.0f} were given what they missed")


def far_resumes(target: Target) -> None:
    """A crowd says that it stands where nobody is yet, each again as soon as it is answered."""
    target.begin()
    waiting: deque[socket.socket] = deque()
    for number in target.until_over():
        with contextlib.suppress(OSError):
            since = f"{(1 << 62) + number}-{number:08x}"
            waiting.append(target.websocket(f"/public?resume=1&stream=a.b&since={since}"))
        if len(waiting) > target.size["clients"]:
            waiting.popleft().close()


def _standing(sock: socket.socket) -> str:
    """Read the reply to a subscription, and return the position in it."""
    reply = b""
    while not reply.endswith(b"}}"):
        data = sock.recv(4096)
        if not data:
            raise ConnectionError("no reply")
        reply += data
    found: str = json.loads(reply[reply.index(b"{") :])["success"]["at"]
    return found
