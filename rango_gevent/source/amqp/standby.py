"""When the log is believed, and when the spare queue: nothing twice, nothing lost in silence.

Each instance has two ways to get an event: the log, and a spare queue of its own that the broker
keeps short and that nobody reads as long as the log delivers. A log that stalls says nothing of
it, and a market may be quiet: so when nothing has come for a second the spare is listened to.
What comes on both is a quiet market; what comes on the spare alone for two seconds is a log that
stalls, and from then on the spare is what clients get.

Both carry the same events, so they are matched like two hands of cards: by hashes, each as often
as it came. That gives all changes from one to the other without a doubled event.

`ASLEEP`   the log delivers, nobody listens to the spare
`LISTENS`  the log delivers, the spare is compared with it
`LIVE`     the spare delivers, the log is compared with it
`SETTLES`  the log delivers again, but for what the spare has delivered before

Pure: times are arguments, in seconds of one clock that only goes forward.
"""

from __future__ import annotations

from collections import deque
from typing import Callable, NamedTuple

from rango_gevent.source.amqp.chain import GAP, Hand

ASLEEP, LISTENS, LIVE, SETTLES = "asleep", "listens", "live", "settles"

QUIET_S = 1.0  # so long without an event the spare is listened to
STALL_S = 2.0  # so long an event may be on the spare alone
SYNC_S = 2.0  # so long the log must keep up to be believed again
LATE_S = 1.0  # what keeping up means
GIVEN_UP_S = 10.0  # an event that is so long on the spare alone the log has lost
_BUSY = 100  # events without a quiet second, and listening costs more than it tells


class Waiting(NamedTuple):
    """An event that came on one of the two, and when."""

    key: str
    body: bytes
    at_s: float
    since: float


class Standby:
    """Decides what is handed on.

    Args:
        hand: where events go.
        on_break: told why positions before and behind do not belong together.
        most: events to remember; the spare must hold no more.
        keep_s: seconds that an event can wait in the spare.

    Attributes:
        state: one of the words above.
        missed: events that the spare has delivered and the log never had.
        heard_at: when the log has delivered last.
        on_step: told what takes events of the log from now on, to spare them the way by `log`.
    """

    def __init__(
        self, hand: Hand, on_break: Callable[[str], object], *, most: int, keep_s: float
    ) -> None:
        self._hand = hand
        self._on_break = on_break
        self._most = most
        self._keep_s = keep_s
        self.state = ASLEEP
        self.missed = 0
        self._now = 0.0
        self.heard_at = 0.0
        self._since = 0.0  # of the state
        self._handed: deque[int] = deque(maxlen=most)  # hashes of the newest that were handed on
        self._older: deque[int] = deque()  # those before, as far as the spare may still hold them
        self._turned = 0.0
        self._patient_until = 0.0
        self._revived = 0.0  # when the log has delivered again after a quiet time
        self._known: dict[int, int] = {}  # of those, what the spare may still bring
        self._owed: dict[int, list[Waiting]] = {}  # the spare only
        self._ahead: dict[int, list[Waiting]] = {}  # the log only
        self._synced = 0.0  # since when the log keeps up, 0 for not at all
        self._busy = 0
        self._steps = {
            ASLEEP: self._asleep,
            LISTENS: self._listens,
            LIVE: self._live,
            SETTLES: self._settles,
        }
        self._step: Hand = self._asleep
        self.on_step: Callable[[Hand], object] = lambda step: None

    @property
    def listening(self) -> bool:
        """Tell whether the spare must be read."""
        return self.state in (LISTENS, LIVE)

    def begin(self, now: float, patience_s: float, *, again: bool) -> None:
        """Take note of a spare that is new and empty: its connection is.

        Args:
            now: the time.
            patience_s: how long the log may take to be attached.
            again: there was one before; a broker that has just started may route to the spare
                what it does not route to the log yet, so they are compared.
        """
        self._now = now
        self._patient_until = now + patience_s
        self.heard_at = max(self.heard_at, now)
        self._turned = now
        self._owed.clear()
        self._ahead.clear()
        self._handed.clear()
        self._older.clear()
        self._become(LISTENS if again else ASLEEP)

    # -- events --------------------------------------------------------------------------

    def log(self, key: str, body: bytes, at_s: float, position: int) -> None:
        """Take an event of the log."""
        self._step(key, body, at_s, position)

    def _asleep(self, key: str, body: bytes, at_s: float, position: int) -> None:
        # hot path: 0.3 us, most of it for the hash
        self._handed.append(hash((key, body)))
        self._hand(key, body, at_s, position)

    def _empties(self, key: str, body: bytes, at_s: float, position: int) -> None:
        """Take an event while the log owes some from before the spare was left alone."""
        self._pop(self._owed, hash((key, body)))
        if not self._owed:
            self._go_by(self._asleep)
        self._asleep(key, body, at_s, position)

    def _listens(self, key: str, body: bytes, at_s: float, position: int) -> None:
        if not self._pop(self._owed, hash((key, body))):
            self._wait(self._ahead, Waiting(key, body, at_s, self._now))
        self._busy += 1
        self._asleep(key, body, at_s, position)

    def _live(self, key: str, body: bytes, at_s: float, position: int) -> None:
        if not self._pop(self._owed, hash((key, body))):
            self._wait(self._ahead, Waiting(key, body, at_s, self._now))
        elif not self._synced:
            self._synced = self._now

    def _settles(self, key: str, body: bytes, at_s: float, position: int) -> None:
        if not self._pop(self._owed, hash((key, body))):
            self._asleep(key, body, at_s, 0)
        if not self._owed:
            self._settled()

    def spare(self, key: str, body: bytes, at_s: float) -> None:
        """Take an event of the spare."""
        mark = hash((key, body))
        if self._known.get(mark):
            self._known[mark] -= 1
        elif self.listening:
            if not self._pop(self._ahead, mark):
                self._wait(self._owed, Waiting(key, body, at_s, self._now))
            if self.state == LIVE:
                self._asleep(key, body, at_s, 0)

    def _wait(self, which: dict[int, list[Waiting]], event: Waiting) -> None:
        which.setdefault(hash((event.key, event.body)), []).append(event)
        if len(which) > self._most:
            del which[next(iter(which))]

    def _bound(self, which: dict[int, list[Waiting]]) -> None:
        """Forget the first of too many; those that look alike stand under one hash."""
        total = sum(map(len, which.values()))
        while total > self._most:
            total -= len(which.pop(next(iter(which))))

    @staticmethod
    def _pop(which: dict[int, list[Waiting]], mark: int) -> bool:
        events = which.get(mark)
        if events is None:
            return False
        events.pop(0)
        if not events:
            del which[mark]
        return True

    # -- time ----------------------------------------------------------------------------

    def heard(self, now: float) -> None:
        """Note that the log delivers."""
        if now - self.heard_at >= QUIET_S:
            self._busy = 0
            self._revived = now
        self._now = self.heard_at = now

    def attached(self, now: float) -> None:
        """Take note that the log is attached."""
        self._now = self._patient_until = now

    def detached(self, now: float) -> None:
        """Take note that the log is not attached any more: listen to the spare at once."""
        self._now = now
        if self.state == ASLEEP and now >= self._patient_until:
            self._become(LISTENS)

    def broken(self) -> None:
        """Take note that the log goes on elsewhere: what it owes it may never give."""
        if self.state == LISTENS and self._owed:
            self._go_live()

    def look(self, now: float) -> None:
        """Change the state if it is time; to be called a few times a second.

        Args:
            now: the time.
        """
        self._now = now
        self._bound(self._owed)
        self._bound(self._ahead)
        if now - self._turned >= self._keep_s:
            self._older, self._handed, self._turned = self._handed, deque(maxlen=self._most), now
        if self.state == ASLEEP:
            if self._owed and self._give_up(now, GIVEN_UP_S):
                self._on_break(GAP)
            if now - self.heard_at >= QUIET_S and now >= self._patient_until:
                self._become(LISTENS)
        elif self.state == LISTENS:
            self._compare(now)
        elif self.state == LIVE:
            self._forget_known(now)
            self._give_up(now, LATE_S)
            self._try_the_log(now)
        elif self.state == SETTLES and now - self._since >= SYNC_S:
            self._become(LIVE)  # it stalls again

    def _go_by(self, step: Hand) -> None:
        self._step = step
        self.on_step(step)

    def _become(self, state: str) -> None:
        before, self.state = self.state, state
        self._since = self._now
        self._go_by(self._steps[state])
        self._busy = 0
        self._synced = 0.0
        self._known = {}
        if self.listening and before in (
            ASLEEP,
            SETTLES,
        ):  # what waits there was handed on, but for the newest
            for mark in (*self._older, *self._handed):
                self._known[mark] = self._known.get(mark, 0) + 1

    def _compare(self, now: float) -> None:
        self._forget_known(now)
        if self._give_up(now, GIVEN_UP_S):
            self._on_break(GAP)
        if self._stalls(now):
            self._on_break(GAP)
            self._go_live()
        elif (
            self._busy >= _BUSY
            and self._oldest(now) < LATE_S
            and now - max(self._since, self._patient_until) >= SYNC_S
        ):
            self._ahead.clear()
            self._become(ASLEEP)
            self._go_by(self._empties)

    def _forget_known(self, now: float) -> None:
        """Give up what was not in the spare any more: what comes later only looks like it."""
        if now - self._since >= QUIET_S:
            self._known = {}

    def _stalls(self, now: float) -> bool:
        """Tell whether an event waits for the log that has delivered nothing since it came."""
        latest = now - STALL_S
        if now < self._patient_until:
            return False
        return self.heard_at <= latest and any(
            self.heard_at <= events[0].since <= latest for events in self._owed.values()
        )

    def _oldest(self, now: float) -> float:
        """Return for how many seconds the first event that the log owes is owed."""
        for events in self._owed.values():
            return now - events[0].since
        return 0.0

    def _go_live(self) -> None:
        self._ahead.clear()
        self._become(LIVE)
        for event in [event for events in self._owed.values() for event in events]:
            self._asleep(event.key, event.body, event.at_s, 0)

    def _give_up(self, now: float, after_s: float) -> bool:
        """Count what the log never had, and forget what the spare has not had in a while."""
        missed = self.missed
        for mark, events in list(self._owed.items()):
            if self.heard_at - max(events[0].since, self._revived) < GIVEN_UP_S:
                break
            self.missed += len(self._owed.pop(mark))
        for mark, events in list(self._ahead.items()):
            if now - events[0].since < after_s:
                break
            del self._ahead[mark]
        return self.missed > missed

    def _try_the_log(self, now: float) -> None:
        if self._oldest(now) >= LATE_S or now - self.heard_at >= GIVEN_UP_S:
            self._synced = 0.0
        elif (
            self._synced
            and now - self._synced >= SYNC_S
            and (not self._owed or now - self.heard_at < LATE_S / 2)
        ):
            ahead = [event for events in self._ahead.values() for event in events]
            self._ahead.clear()
            self._become(SETTLES)
            for event in ahead:
                self._asleep(event.key, event.body, event.at_s, 0)
            if not self._owed:
                self._settled()

    def _settled(self) -> None:
        self._owed.clear()
        self._on_break(GAP)
        self._become(ASLEEP)
