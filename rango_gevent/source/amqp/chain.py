"""Positions in the log: what all instances compute alike, and what two of them tell.

RabbitMQ's offsets are not enough: a queue that was deleted and declared again counts from 0,
one that lost its tail uses offsets again, and nothing in AMQP tells the lives of a log apart.
So a position has a check beside the offset: the CRC32 of all bodies since the last offset that
256 divides, up to and with this one. Whoever reads a block of 256 from its start computes the
same, whatever was read before; where two differ, the histories differ.

Pure. Offsets have gaps: the broker itself takes one at each roll of a segment.
"""

from __future__ import annotations

from typing import Callable
from zlib import crc32

from rango_gevent.model import make_position

BLOCK = 256
_MASK = BLOCK - 1
_ROLL = 1  # offsets that a roll of a segment takes

Hand = Callable[[str, bytes, float, int], object]
"""Takes routing key, body, Unix time of publishing and position, 0 for none."""

# Why history breaks, in the words that clients hear
GAP = "gap"
OTHER = "other_history"
BREAKS = (GAP, OTHER)


def block_of(offset: int) -> int:
    """Return where the block of an offset starts."""
    return offset & ~_MASK


class Chain:
    """Follows one log.

    Args:
        hand: where events go.
        on_break: told `GAP` or `OTHER` when what comes does not join what was there.

    Attributes:
        last: offset of the newest event; -1: none yet.
        count: events that came on this attachment, those too that were not handed on.
    """

    def __init__(self, hand: Hand, on_break: Callable[[str], object]) -> None:
        self._on = hand
        self._on_break = on_break
        self._hand = hand  # or `_pass_by`
        self.last = -1
        self.count = 0
        self._next = -1
        self._check = 0
        self._known = False  # the block was read from its start
        self._goal = 0, 0  # offset up to which events pass by, and its position; 0: any
        self._left = 0  # bytes still to come of a body that is not collected
        self._skipped = 0
        self._undo = 0, False

    @property
    def position(self) -> int:
        """Return the position of the last event; 0: none, or not known."""
        return make_position(self.last, self._check) if self._known and self.last >= 0 else 0

    @property
    def joining(self) -> bool:
        """Tell whether events still pass by."""
        return self._hand is not self._on

    def hand_to(self, hand: Hand) -> None:
        """Hand events to somebody else from now on."""
        if not self.joining:
            self._hand = hand
        self._on = hand

    # -- attaching -----------------------------------------------------------------------

    def begin(self, upto: int = -1) -> None:
        """Expect the events of a log that is not known yet.

        Args:
            upto: events up to this offset are not handed on; the first of their block must come.
        """
        self._forget()
        self.count = 0
        if upto >= 0:
            self._goal = upto, 0
            self._hand = self._pass_by

    def resume(self, position: int) -> None:
        """Stand where somebody stood before; `join` comes next.

        Args:
            position: of the last event that was taken then.
        """
        self.begin(position >> 32)
        self.last = position >> 32
        self._goal = self.last, position

    def join(self) -> int:
        """Expect the block of the last event once more, and what follows it.

        Its events pass by, and the check of the last one tells whether it is the same log.

        Returns:
            The offset to attach at.
        """
        if self._left:  # half a body came
            self._check, self._known = self._undo
        last, position = self._goal if self.joining else (self.last, self.position)
        self.begin(last)
        self._goal = last, position or -1  # what was not known cannot be found again
        self.last = last
        return block_of(last)

    def _forget(self) -> None:
        self.last = self._next = -1
        self._check = self._left = 0
        self._known = False
        self._hand = self._on

    # -- events --------------------------------------------------------------------------

    def take(self, key: str, body: bytes, at_s: float, offset: int) -> None:
        """Take the next event and hand it on.

        Args:
            key: routing key.
            body: bytes that were published.
            at_s: Unix time of publishing.
            offset: in the log.
        """
        # hot path: 0.4 us for a body of 200 bytes, half of it for the CRC
        self.count += 1
        if offset != self._next or not offset & _MASK:
            self._look(offset)
        self._next = offset + 1
        self.last = offset
        self._check = check = crc32(body, self._check)
        self._hand(key, body, at_s, offset << 32 | check if self._known else 0)

    def _look(self, offset: int) -> None:
        """Look at an offset that begins a block, or is not the next one."""
        if self._next >= 0 and not self._next <= offset <= self._next + _ROLL:
            self._broken(GAP if offset > self._next else OTHER)
        start = block_of(offset)
        if self._next < 0:
            self._check = 0
            self._known = offset - start <= _ROLL  # the first of its block: there is no other
        elif start >= self._next:
            self._check = 0
            self._known = True

    def _broken(self, why: str) -> None:
        self._forget()
        self._on_break(why)

    def _pass_by(self, key: str, body: bytes, at_s: float, position: int) -> None:
        """Stand in for who takes events, until the goal is reached."""
        if self._arrived(position):
            self._on(key, body, at_s, position)

    def _arrived(self, position: int) -> bool:
        """Look whether the goal is reached, and joins; return whether the event is past it."""
        goal, expected = self._goal
        if self.last < goal:
            return False
        self._hand = self._on
        if expected and position != expected:
            self._on_break(OTHER if position else GAP)
        return self.last > goal

    # -- bodies that are not collected ---------------------------------------------------

    def skip(self, offset: int, size: int) -> None:
        """Begin an event whose body comes in parts and goes nowhere.

        Args:
            offset: in the log.
            size: bytes of the body.
        """
        self._undo = self._check, self._known
        if offset != self._next or not offset & _MASK:
            self._look(offset)
        self._skipped, self._left = offset, size

    def skip_part(self, data: bytes) -> None:
        """Take the next bytes of such a body; the last ones make it an event of the chain."""
        self._check = crc32(data, self._check)
        self._left -= len(data)
        if not self._left:
            self.count += 1
            self.last, self._next = self._skipped, self._skipped + 1
            if self.joining:
                self._arrived(self.position)
