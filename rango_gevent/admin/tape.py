"""What went to and came from one connection, within bounds, with tokens masked. Pure.

A tape takes so many records a second, each cut to so many bytes; what is more is only counted.
Nobody waits for it: a reader takes what is there.
"""

from __future__ import annotations

import json
import re
from typing import Any, Iterable, NamedTuple

import ujson

from rango_gevent.model import Event

SENT = "out"
RECEIVED = "in"

MASK = "***"
_OPCODES = {1: "text", 2: "binary", 8: "close", 9: "ping", 10: "pong"}
_KNOWN = ("event", "id")  # shown whatever else is masked
# a JWT begins with the base64 of `{"`; a part of one is one too, since bodies are cut
_JWT = re.compile(r"eyJ[A-Za-z0-9_-]{6,}(?:\.[A-Za-z0-9_-]*){0,2}")
_SECRET = re.compile(r"token|jwt|bearer|auth|password|secret", re.IGNORECASE)
_WITH_SECRET_PARAMS = re.compile(r"auth|sign", re.IGNORECASE)  # methods of ViaBTC's protocol
_MAX_DEPTH = 20
_SPARE = 4  # characters are bytes at most four times


class TapeLimits(NamedTuple):
    """Bounds on a tape.

    Attributes:
        per_s: records a second.
        bytes: of one message that are shown.
    """

    per_s: int
    bytes: int


class Tape:
    """Records of one connection, for one who reads them.

    Args:
        limits: bounds.

    Attributes:
        skipped: messages that were not recorded, since the last `take`.
        has_ended: the connection is closed; nothing more comes.
    """

    def __init__(self, limits: TapeLimits) -> None:
        self._limits = limits
        self._records: list[dict[str, Any]] = []
        self._second = 0
        self._left = limits.per_s
        self.skipped = 0
        self.has_ended = False

    def received(self, message: bytes, is_text: bool, now_s: float) -> None:
        """Record a message of the client's."""
        if self._has_room(now_s):
            text = cut(masked(message.decode("utf-8", "replace")), self._limits.bytes)
            self._add(now_s, RECEIVED, "text" if is_text else "binary", len(message), text)

    def sent_events(self, events: Iterable[Event], now_s: float) -> None:
        """Record events."""
        for event in events:
            if self._has_room(now_s):
                self._add_frame(now_s, event.frame)

    def sent_frame(self, frame: bytes, now_s: float) -> None:
        """Record a frame of ours: a reply, a control frame."""
        if self._has_room(now_s):
            self._add_frame(now_s, frame)

    def end(self, why: str, now_s: float) -> None:
        """Record that the connection is closed, whatever else there was."""
        if not self.has_ended:
            self.has_ended = True
            self._add(now_s, SENT, "end", 0, why)

    def take(self) -> tuple[list[dict[str, Any]], int]:
        """Return the records since the last time, and how many messages are not among them."""
        taken = self._records, self.skipped
        self._records, self.skipped = [], 0
        return taken

    def _has_room(self, now_s: float) -> bool:
        """Take a place in this second; what finds none is counted."""
        if int(now_s) != self._second:
            self._second, self._left = int(now_s), self._limits.per_s
        # and if nobody takes them, no more than two seconds' are kept
        if self._left <= 0 or len(self._records) >= 2 * self._limits.per_s:
            self.skipped += 1
            return False
        self._left -= 1
        return True

    def _add_frame(self, now_s: float, frame: bytes) -> None:
        start = {126: 4, 127: 10}.get(frame[1], 2)
        kind = _OPCODES.get(frame[0] & 0x0F, "other")
        shown = frame[start : start + _SPARE * self._limits.bytes]
        if kind == "close":
            text = f"{int.from_bytes(shown[:2], 'big')} {shown[2:].decode('utf-8', 'replace')}"
            text = text.strip() if len(shown) >= 2 else ""
        else:
            text = shown.decode("utf-8", "replace")
        text = cut(_JWT.sub(MASK, text), self._limits.bytes)
        self._add(now_s, SENT, kind, len(frame) - start, text)

    def _add(self, now_s: float, way: str, kind: str, size: int, text: str) -> None:
        record = {"at": round(now_s, 3), "way": way, "kind": kind, "size": size, "text": text}
        self._records.append(record)


def cut(text: str, most_bytes: int) -> str:
    """Return the beginning of a text that has at most so many bytes in UTF-8."""
    if len(text) * _SPARE <= most_bytes:
        return text
    data = text.encode("utf-8", "replace")
    return text if len(data) <= most_bytes else data[:most_bytes].decode("utf-8", "ignore") + "…"


def masked(text: str) -> str:
    """Return a client's message without the token that it may hold.

    Members are masked by their names, and all of a request to authenticate; whatever looks like
    a JWT is masked anywhere. What is no JSON and might be such a request is not shown at all.
    """
    try:
        message = ujson.loads(text)
    except (ValueError, OverflowError, RecursionError):
        is_secret = _SECRET.search(text) or _WITH_SECRET_PARAMS.search(text)
        return "(not JSON)" if is_secret else _JWT.sub(MASK, text)
    if not isinstance(message, (dict, list)):
        return _JWT.sub(MASK, text)
    try:
        if isinstance(message, dict) and _WITH_SECRET_PARAMS.search(str(message.get("method"))):
            message["params"] = MASK
            text = json.dumps(message, ensure_ascii=False)
        if _SECRET.search(_unescaped(text, message)):
            text = json.dumps(_hidden(message, 0), ensure_ascii=False)
    except RecursionError:
        return "(too deep)"
    return _JWT.sub(MASK, text)


def _unescaped(text: str, message: object) -> str:
    """Return a text in which members' names can be found, however they were written."""
    return text if "\\" not in text else json.dumps(message, ensure_ascii=False)


def _hidden(value: object, depth: int) -> object:
    if depth > _MAX_DEPTH:
        return MASK
    if isinstance(value, list):
        return [_hidden(each, depth + 1) for each in value]
    if not isinstance(value, dict):
        return value
    shows_all = depth or value.get("event") != "auth"
    return {
        name: _hidden(each, depth + 1)
        if name in _KNOWN or (shows_all and not _SECRET.search(name))
        else MASK
        for name, each in value.items()
    }
