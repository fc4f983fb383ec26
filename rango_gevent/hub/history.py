"""The ring: recent events of all addresses, in the order of publishing, for who comes back.

Kept is the body as it was published and 32 bytes beside it: an Event for each would take 240. What
belongs to one address is chained backwards, so that a few of many streams are collected without a
look at the others. The frame that those who come back get is made when the first of them does, and
takes the body's place: its first byte is none that JSON begins with.

Positions only grow and may have holes. Where somebody stands is proven by number and check: it is
that of an event held, or of the one before all that are held, or the newest. Of anything else
nobody can say what was missed, so nothing is replayed.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import deque
from typing import Callable, NamedTuple, Sequence, TypeVar

from rango_gevent.model import make_position, number_of
from rango_gevent.protocol import frames, routing

# Why nothing is replayed, in the words of the protocol.
TOO_OLD = "too_old"
OTHER_HISTORY = "other_history"
AHEAD = "ahead"
GAP = "gap"
TOO_MANY = "too_many"
BAD_POSITION = "bad_position"
NO_LOG = "no_log"
REASONS = (TOO_OLD, OTHER_HISTORY, AHEAD, GAP, TOO_MANY, BAD_POSITION, NO_LOG)

_CHECK = (1 << 32) - 1
_T = TypeVar("_T")
_ONE = 1 << 32  # from one number to the next
_SLOT_BYTES = 32  # of an event in the lists below
_BODY_BYTES = 40  # what Python adds to an object of bytes
_TRAIL_BYTES = 260  # of an address, with its place in a dict
_FIRST_SLOTS = 1 << 10
_FRAME = 0x81  # a frame's first byte
_MOST_SLOTS = 1 << 31
_LEAST_S = 1.0  # between two marks of the time
_MARKS = 1000  # about as many as are kept
_LOOK_EACH = 64 << 10  # bytes
_STEPS = 256  # to keep a bound so large a part of what is held goes at once


class HistoryLimits(NamedTuple):
    """Bounds of a history: bytes of all that it takes, events, seconds."""

    bytes: int = 64 << 20
    events: int = 1_000_000
    seconds: float = 600.0


class Replay(NamedTuple):
    """What was missed.

    Attributes:
        reason: why nobody can say, one of `REASONS`; empty: it is known.
        frames: of the events, with their positions, in the order of publishing.
        size: bytes of these.
    """

    reason: str = ""
    frames: Sequence[bytes] = ()
    size: int = 0


class _Trail:
    """The events of one address: what is before their bodies, and where the last one is."""

    __slots__ = ("head", "key", "last")

    def __init__(self, key: str, head: bytes, last: int) -> None:
        self.key = key
        self.head = head
        self.last = last

    @property
    def size(self) -> int:
        """Return about how many bytes it takes."""
        return _TRAIL_BYTES + len(self.key) + len(self.head)


_SIGNS = {kind: str(number) for number, kind in enumerate(routing.KINDS)}
_NOBODY = _Trail("", b"", -1)


def track(kind: str, address: str, action: int = routing.EVENT) -> str:
    """Return what an address is kept under: the same text may be one of several kinds.

    Snapshots of books are apart from their increments, since they have a name of their own.
    """
    return ("s" if action == routing.SNAPSHOT else _SIGNS[kind]) + address


def _doubled(held: list[_T], part: int, is_low: bool, blank: _T) -> list[_T]:
    """Return twice as many slots, where what was before a part comes behind what was after it."""
    before = held[:part] + [blank] * (len(held) - part)
    after = [blank] * part + held[part:]
    return after + before if is_low else before + after


class History:
    """Recent events.

    Args:
        limits: bounds.
        now: monotonic time in seconds.
        check: makes this a history of its own, told from others by this number of 32 bits:
            it gives the positions, and begins when the first client asks for them. None: the
            source gives positions, the same to all who read it.

    Attributes:
        newest: position of the last event; 0 while there is none.
        is_own: it gives the positions itself.
    """

    def __init__(
        self, limits: HistoryLimits, now: Callable[[], float], check: int | None = None
    ) -> None:
        self.limits = limits
        self.newest = 0
        self.is_own = check is not None
        self._now = now
        self._check = check or 0
        self._is_stalled = False
        self._lost_by = OTHER_HISTORY
        self._before = 0  # position of the event before the first
        self._cut = 0  # the newest position that was ever forgotten at once
        self._trails: dict[str, _Trail] = {}
        self._marks: deque[tuple[float, int]] = deque()  # times, and the next index then
        self._first = self._next = 0  # indexes count on for ever
        self._start()

    def _start(self) -> None:
        """Begin with nothing: an event's slot is its index modulo their number."""
        slots = _FIRST_SLOTS
        self._mask = slots - 1
        self._bodies: list[bytes] = [b""] * slots  # whole frames where they are made
        self._of = [_NOBODY] * slots
        self._numbers = array("q", bytes(8 * slots))
        self._checks = array("I", bytes(4 * slots))
        self._back = array("I", bytes(4 * slots))  # to the one before of its address; 0: none
        self._used = 0  # by bodies and addresses, with what is allowed before the next look
        self._left = 0

    # -- what there is ------------------------------------------------------------------

    def __len__(self) -> int:
        """Return the number of events held."""
        return self._next - self._first

    @property
    def size(self) -> int:
        """Return about how many bytes all of it takes."""
        return self._used - self._left + (self._mask + 1) * _SLOT_BYTES

    def reach_s(self) -> float:
        """Return for how many seconds back events are held, to a second or so."""
        self.expire()
        return self._now() - self._marks[0][0] if len(self) else 0.0

    # -- publishers ---------------------------------------------------------------------

    def begin(self) -> None:
        """Let a history of its own begin, when the first client asks where it stands."""
        if self.is_own and not self.newest:
            self.newest = self._before = make_position(1, self._check)

    def append(self, key: str, head: bytes, body: bytes, position: int) -> int:
        """Add an event.

        Args:
            key: its `track`.
            head: the bytes before its body, as in its frame.
            body: as it was published.
            position: as the source gives it; 0 while it reads no log.

        Returns:
            Its position; 0 for none.
        """
        # hot path: 0.35 us
        if self.is_own:
            position = self.newest
            if not position:
                return 0  # nobody has asked yet
            position += _ONE
        elif position <= self.newest | _CHECK:
            if not position:
                self._stall()
                return 0
            self.clear(OTHER_HISTORY)
        self.newest = position
        self._left = left = self._left - len(body) - _BODY_BYTES
        if left < 0:
            self._look()
        here = self._next
        self._next = here + 1
        at = here & self._mask
        try:
            trail = self._trails[key]
        except KeyError:
            trail = self._trails[key] = _Trail(key, head, here)
            self._left -= trail.size
        self._bodies[at] = body
        self._of[at] = trail
        self._numbers[at] = position >> 32
        self._checks[at] = position & _CHECK
        self._back[at] = here - trail.last
        trail.last = here
        return position

    def _stall(self) -> None:
        """Note that an event has no position: nobody knows what follows what before it."""
        if not self._is_stalled or self.newest:
            self.clear(GAP)
            self._is_stalled = True  # until there is a newest event

    def clear(self, reason: str) -> None:
        """Forget all events, since what comes does not follow them.

        Args:
            reason: told those who stand before, one of `REASONS`.
        """
        self._lost_by = reason
        self._is_stalled = False
        self._trails.clear()
        self._marks.clear()
        self._first = self._next
        self._start()
        newest, self.newest = self.newest, 0
        self._before = 0
        self._cut = max(self._cut, newest)
        if self.is_own and newest:  # a place of its own, between what was and what comes
            self.newest = self._before = newest + (1 << 32)

    # -- bounds -------------------------------------------------------------------------

    def expire(self) -> None:
        """Let go what is too old; publishing does it too, but it may have ceased."""
        now_s, marks = self._now(), self._marks
        if not marks or now_s - marks[-1][0] >= max(_LEAST_S, self.limits.seconds / _MARKS):
            marks.append((now_s, self._next))
        first = self._first
        while len(marks) > 1 and now_s - marks[1][0] > self.limits.seconds:
            first = max(first, marks[1][1])
            marks.popleft()
        while self._first < first:
            self._let_go(first - self._first)

    def _look(self) -> None:
        """Make room for an event whose bytes are taken already, and keep within the bounds."""
        self._used -= self._left
        self._left = 0
        self.expire()
        limits = self.limits
        while len(self) and self._used > self._most():
            self._let_go(max(1, len(self) // _STEPS))
        least = max(1, min(len(self), limits.events) // _STEPS)  # to have an allowance for
        while len(self) and len(self) + least > limits.events:
            self._let_go(least)
        slots = self._mask + 1
        if len(self) + least > slots:
            if slots < _MOST_SLOTS and self._used <= self._most() - slots * _SLOT_BYTES:
                self._grow(2 * slots)
            else:
                self._let_go(least)
        self._allow()

    def _allow(self) -> None:
        """Say how many bytes may come before the next look; no event takes fewer than some."""
        free = min(self._mask + 1, self.limits.events) - len(self) - 1
        self._left = max(0, min(self._most() - self._used, _LOOK_EACH, free * _BODY_BYTES))
        self._used += self._left

    def _most(self) -> int:
        """Return how many bytes bodies may take."""
        return self.limits.bytes - (self._mask + 1) * _SLOT_BYTES

    def _let_go(self, most: int) -> None:
        """Forget some of the oldest events, at least one."""
        # hot path: 0.1 us an event
        first, low = self._first, self._first & self._mask
        count = min(most, len(self), self._mask + 1 - low)
        high = low + count
        self._used -= sum(map(len, self._bodies[low:high])) + count * _BODY_BYTES
        self._bodies[low:high] = [b""] * count
        trails = self._trails
        for index, trail in enumerate(self._of[low:high], first):
            if trail.last == index:
                del trails[trail.key]
                self._used -= trail.size
        self._before = make_position(self._numbers[high - 1], self._checks[high - 1])
        self._first = first = first + count
        marks = self._marks
        while len(marks) > 1 and marks[1][1] <= first:
            marks.popleft()

    def _grow(self, slots: int) -> None:
        """Double the slots, which are all full: each index finds its new one."""
        old, part = self._mask + 1, self._first & self._mask
        is_low = self._first & (slots - 1) < old  # so are all that follow it up to the end
        self._bodies = _doubled(self._bodies, part, is_low, b"")
        self._of += self._of  # each is where it must be, and where it does no harm
        self._numbers += self._numbers
        self._checks += self._checks
        self._back += self._back
        self._mask = slots - 1

    # -- clients ------------------------------------------------------------------------

    def is_ahead(self, position: int) -> bool:
        """Tell whether a position may come to be known soon, since others are further."""
        if self.is_own or (not self.newest and (self._is_stalled or self._cut)):
            return False
        return position >> 32 > max(self.newest, self._cut) >> 32

    def since(
        self, position: int, keys: Sequence[str], most_events: int, most_bytes: int
    ) -> Replay:
        """Return the events of some addresses that came after a position.

        Args:
            position: where a client says that it stands.
            keys: the `track` of each address.
            most_events: that are replayed to one client at once.
            most_bytes: of their frames.
        """
        self.expire()
        start, reason = self._place(position)
        if reason:
            return Replay(reason)
        found = self._collect(keys, start, most_events)
        if found is None:
            return Replay(TOO_MANY)
        replayed = self._frames(found)
        size = sum(map(len, replayed))
        return Replay(TOO_MANY) if size > most_bytes else Replay("", replayed, size)

    def _place(self, position: int) -> tuple[int, str]:
        """Return the index of the first event after a position, or why nobody can say."""
        if self._is_stalled and not self.newest:
            return 0, NO_LOG
        if not position or (self.is_own and position & _CHECK != self._check):
            return 0, OTHER_HISTORY
        if position == self.newest:
            return self._next, ""
        if position == self._before:
            return self._first, ""
        number = number_of(position)
        if number > self.newest >> 32:
            return 0, self._lost_by if self.is_own or number <= self._cut >> 32 else AHEAD
        index = self._index_of(number)
        if index < self._first:
            return 0, self._lost_by if number <= self._cut >> 32 else TOO_OLD
        at = index & self._mask
        if self._numbers[at] != number or self._checks[at] != position & _CHECK:
            return 0, OTHER_HISTORY  # another event, or a hole: it was never told of here
        return index + 1, ""

    def _index_of(self, number: int) -> int:
        """Return the index of the last event with this number or a lower one."""
        first, mask = self._first, self._mask
        low, high = first & mask, min(mask + 1, (first & mask) + len(self))
        index = bisect_right(self._numbers, number, low, high)
        rest = len(self) - (high - low)  # begins at slot 0 again
        if index == high and rest:
            return first + (high - low) + bisect_right(self._numbers, number, 0, rest) - 1
        return first + index - low - 1

    def _collect(self, keys: Sequence[str], start: int, most: int) -> list[int] | None:
        """Return the indexes of the events of some addresses from an index on; None: too many."""
        # hot path: 0.07 us an event
        mask, back = self._mask, self._back
        start = max(start, self._first)
        found: list[int] = []
        add = found.append
        for key in keys:
            trail = self._trails.get(key)
            index = trail.last if trail is not None else -1
            for _ in range(most + 1 - len(found)):
                if index < start:
                    break
                add(index)
                step = back[index & mask]
                if not step:
                    break
                index -= step
            else:
                return None
        found.sort()
        return found if len(found) <= most else None

    def _frames(self, found: list[int]) -> list[bytes]:
        """Return frames with positions; those that nobody had yet are made, and kept."""
        # hot path: 0.05 us an event when all are made already
        mask, bodies = self._mask, self._bodies
        held = [bodies[index & mask] for index in found]
        if held and min(held)[0] != _FRAME:  # JSON begins with a lower byte
            for at in [index & mask for index in found]:
                if bodies[at][0] != _FRAME:
                    self._make(at)
            held = [bodies[index & mask] for index in found]
        return held

    def _make(self, at: int) -> None:
        body = self._bodies[at]
        frame = self._bodies[at] = frames.event_at(
            self._of[at].head, body, self._numbers[at], self._checks[at]
        )
        self._used += len(frame) - len(body) - self._left
        self._left = 0  # the next event looks if it is too much
