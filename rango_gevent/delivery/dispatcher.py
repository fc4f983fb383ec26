"""The dispatcher: one greenlet that moves waiting events from streams to sockets.

It serves clients in turn. All that waits for a client is joined into one buffer and sent at
once; then the client goes to the end of the line as soon as there is more for it. Between two
services events gather, so what is joined grows with the load by itself: cost per delivery
falls where a send per event would saturate. An event that comes while others are served is
sent to those who still stand in line with what they are due anyway, so its age is bounded by
the time of one turn of all.

Small turns are helped to grow: a client is served again only after a rest, a multiple of the
processor time that serving took since (`RANGO_ROUND_REST`), within a bound. The consumer rests
in the same proportion, so that a read brings several messages when many come. A message that
comes after silence is not delayed. Before the line moves on after a rest, the consumer hands
on what has come meanwhile.

Serving gives way to the loop every millisecond, counted in time and in bytes, and so does
putting events to those who are due them: pings, handshakes and health checks stay alive while
millions of frames flow.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from typing import Callable, cast

import gevent
from gevent.event import Event as Signal
from prometheus_client import Histogram

from rango_gevent.delivery.bundle import Bundle, Paths, own_of
from rango_gevent.delivery.outbox import SlowPolicy
from rango_gevent.delivery.outlet import Outlet
from rango_gevent.delivery.session import Mark, Session
from rango_gevent.hub.hub import Hub
from rango_gevent.hub.stream import Batch, Stream
from rango_gevent.turns import give_way

_READ_REST_S = 0.004  # the consumer rests no longer than this
_READ_REST = 2.5  # its rest in parts of the work since, times the factor for clients
_LEAST_REST_S = 0.001  # the loop's timers are no finer: what is owed is added up to this
_TURN_S = 0.026  # rests make no turn longer than this
_SHARE_OF_LONG = 0.7  # but the rest after a turn that is long by itself is this share of it
_LONG_S = 0.25  # whoever was served longer ago was in no line meanwhile, or in a very long one
_MAX_AHEAD = 200  # events that may wait in the hub before the consumer is held
_MAX_AHEAD_BYTES = 1 << 20
_MAX_UNSEEN_BYTES = 32 << 20  # what somebody in line is still due, before the consumer is held
_CHECK_BYTES = 128 * 1024  # sent between two looks at the clock: about 0.15 ms
_BYTES_EACH = 4096  # a client costs as much as these, however little it is due
_HEAVY_BYTES = 64 * 1024  # who is due more stands in a line of its own
_GATHER_SHARE = 0.1  # of the time is spent on putting events to those in line, at most
_VISITS_AT_ONCE = 10000  # subscribers that are put their events in one step


class Dispatcher:
    """Fan-out of one hub.

    Args:
        hub: whose dirty streams are served; its ``wake`` is taken over.
        slice_s: longest time in seconds that serving holds the loop.
        rest_factor: rest of a client between two services, in parts of the processor time
            that serving everybody took meanwhile.
        lag: told the seconds from publishing to the socket of the last client, per message.
        now: the Unix time in seconds.
    """

    def __init__(
        self,
        hub: Hub,
        *,
        slice_s: float = 0.001,
        rest_factor: float = 1.0,
        lag: Histogram | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._hub = hub
        self._slice_s = slice_s
        self._rest_factor = rest_factor
        self._lag = lag
        self._now = now
        self._slow: SlowPolicy | None = None
        self.skipped: Counter[str] = Counter()
        self._work = Signal()
        self._gathered = Signal()
        self._read = Signal()
        self._seen = Signal()
        self._pacing = False
        self._held = Signal()
        self._owed_s = 0.0
        self._paced_cpu_s = self._rested_cpu_s = self._rested_s = 0.0
        self._gather_after = 0.0
        self._gathering: dict[Stream, Batch] = {}
        self._served_before: set[Session] = set()
        self._line: deque[Session] = deque()
        self._heavy: deque[Session] = deque()
        self._heavy_turn = False
        self._due: dict[Session, Bundle] = {}
        self._handed = 0
        self._unseen: deque[tuple[int, int, list[Batch]]] = deque()
        self._unseen_bytes = 0
        self._busy_s = 0.0
        self._started_s = 0.0
        self.slices = 0
        self.frames = 0
        self.bytes = 0
        self.watcher: Callable[[list[Batch]], None] | None = None
        hub.wake = self._work.set

    def set_policies(self, policies: SlowPolicy) -> None:
        """Say what is done with clients that lag; without a word they are closed."""
        self._slow = None if policies.only_close else policies

    def run(self) -> None:
        """Serve for ever."""
        while True:
            while not self.idle:
                rest_s = self._rest_s()
                if rest_s > _LEAST_REST_S / 2:
                    self._rest(rest_s)
                    self._let_read()
                self._serve()
            self._work.wait()
            self._work.clear()

    def serve_all(self) -> None:
        """Serve until nothing waits, without rests."""
        while not self.idle:
            self._serve()

    @property
    def idle(self) -> bool:
        """Tell whether nothing waits to be handed to a client."""
        return not self._due and not self._hub.dirty

    def flush(self, session: Session) -> None:
        """Hand a client what it is due by now, before its turn.

        Called before its subscriptions change, so that a replay cannot be followed by
        increments which it already contains.
        """
        bundle = self._due.pop(session, None)
        if bundle is not None:
            self._handed += 1
            self._hand_over(session, bundle)
        if self._gathering and session not in self._served_before:
            self._served_before.add(session)
            own = own_of(session, self._gathering)
            if own is not None:
                self._hand_over(session, own)

    def _hand_over(self, session: Session, bundle: Bundle) -> None:
        if not self._offer(session, bundle):
            session.outlet.too_slow()

    def pace(self, more: bool) -> None:
        """Wait until reading more from the broker pays, and there is room for it.

        Args:
            more: there is more to read already.
        """
        if not more:
            self._rest_of_the_reader()
        hub = self._hub
        while hub.waiting > _MAX_AHEAD or hub.waiting_bytes > _MAX_AHEAD_BYTES:
            self._held.set()
            self._gathered.clear()
            self._gathered.wait()
        while self._unseen_bytes > _MAX_UNSEEN_BYTES:
            self._seen.clear()
            self._seen.wait()

    def _rest_of_the_reader(self) -> None:
        """Wait in proportion to the work since the last read, so that more is there to read.

        What the reader has waited for messages meanwhile counts: at light load it never rests.
        """
        cpu_s, now_s = time.process_time(), time.monotonic()
        worked_s = cpu_s - self._paced_cpu_s
        idle_s = (now_s - self._rested_s) - (cpu_s - self._rested_cpu_s)
        self._paced_cpu_s = cpu_s
        self._owed_s = max(0.0, self._owed_s + _READ_REST * self._rest_factor * worked_s - idle_s)
        if self._owed_s >= _LEAST_REST_S:
            self._read.clear()
            self._pacing = True
            self._read.wait(min(self._owed_s, _READ_REST_S))
            self._pacing = False
            self._owed_s = 0.0
            cpu_s, now_s = time.process_time(), time.monotonic()
        self._rested_cpu_s, self._rested_s = cpu_s, now_s

    def _rest(self, rest_s: float) -> None:
        """Serve nobody for a while, but take what comes: a reader that is held loses no time."""
        until_s = time.monotonic() + rest_s
        while self._held.wait(until_s - time.monotonic()):
            self._gather()
            if time.monotonic() >= until_s:
                break

    def _let_read(self) -> None:
        """Let the consumer hand on what came: it goes out now instead of a turn later."""
        if self._pacing:
            self._read.set()
            gevent.sleep(0)

    def _rest_s(self) -> float:
        """Return for how long nobody should be served, so that more can be joined."""
        first = self._first()
        if first is None:
            return 0.0
        at_s, before_s = first.served
        since_s = time.monotonic() - at_s
        if since_s > _LONG_S:
            return 0.0  # it has rested, however busy the others were
        busy_s = self._busy_s - before_s
        most_s = max(_TURN_S - busy_s, _SHARE_OF_LONG * busy_s)
        return busy_s + min(most_s, self._rest_factor * busy_s) - since_s

    def _first(self) -> Session | None:
        """Return who is first in line, or will be."""
        if self._due:
            return (self._line or self._heavy)[0]
        return cast("Session | None", next(iter(self._hub.dirty[0].subscribers), None))

    def _serve(self) -> None:
        """Gather what came, serve for one slice, give way when that was not all."""
        self._started_s = time.process_time()  # the processor's: others' load is not our cost
        now = time.monotonic()
        if self._hub.dirty and (not self._due or self._held.is_set() or now >= self._gather_after):
            self._gather()
            cost_s = time.monotonic() - now
            self._gather_after = now + cost_s / _GATHER_SHARE
        slow = self._send_slice()
        self._busy_s += time.process_time() - self._started_s
        self.slices += 1
        for session in slow:
            session.outlet.too_slow()
        self._observe()
        if self._due:
            give_way()
        else:
            self._line.clear()  # of those who were handed theirs before their turn
            self._heavy.clear()

    # -- gathering ----------------------------------------------------------------------

    def _gather(self) -> None:
        """Take all that waits in the hub and put it to what the clients are due."""
        size = self._hub.waiting_bytes
        batches = self._hub.take_dirty()
        self._held.clear()
        self._gathered.set()
        if not batches:
            return
        self._count(batches)
        if len(batches) > 1 or not self._extend(batches[0]):
            self._gathering = {batch.stream: batch for batch in batches}
            try:
                self._put(self._bundle(batches))
            finally:
                self._gathering = {}
                self._served_before.clear()
        self._unseen.append((self._handed + len(self._due), size, batches))
        self._unseen_bytes += size

    def _count(self, batches: list[Batch]) -> None:
        for stream, waiting, size, _ in batches:
            clients = len(stream.subscribers)
            self.frames += len(waiting) * clients
            self.bytes += size * clients
        if self.watcher is not None:  # an administrator looks
            self.watcher(batches)

    def _extend(self, batch: Batch) -> bool:
        """Put events of one stream to bundles that hold nothing else, if all are such.

        Whoever shares such a bundle holds the stream, so nobody in line need be looked at:
        a crowd on one stream costs a third of what `_put` takes.
        """
        stream, joined = batch.stream, batch.joined
        due = self._due
        bundles = set(due.values())
        if joined or not all(bundle.only is stream for bundle in bundles):
            return False
        for bundle in bundles:
            bundle.extend(batch)
        served = [session for session in _crowd(stream) if session not in due]
        due.update(dict.fromkeys(served, Bundle(batch, batch.size, stream)))
        self._line.extend(served)
        return True

    def _bundle(self, batches: list[Batch]) -> dict[Session, Bundle]:
        """Join across streams: clients with the same dirty streams share one bundle.

        Who subscribes or leaves while this gives way was handed its own before (`flush`).
        """
        # hot path: per client and stream three dict look-ups
        paths = Paths(batches)
        nodes: dict[Session, int] = {}
        visits = 0
        for at, crowd in enumerate([_crowd(batch.stream) for batch in batches]):
            if len(crowd) == 1:  # a stream of somebody's own
                nodes[crowd[0]] = paths.add(nodes.get(crowd[0], 0), at)
                visits += 1
                continue
            steps: dict[int, int] = {}  # from a set of batches to the same with this one
            for start in range(0, len(crowd), _VISITS_AT_ONCE):
                part = crowd[start : start + _VISITS_AT_ONCE]
                for session in part:
                    before = nodes.get(session, 0)
                    node = steps.get(before)
                    if node is None:
                        node = steps[before] = paths.add(before, at)
                    nodes[session] = node
                visits += len(part)
                if visits > _VISITS_AT_ONCE:
                    visits = 0
                    self._busy_s += time.process_time() - self._started_s
                    give_way()
                    self._started_s = time.process_time()
        return self._share(paths, nodes)

    def _share(self, paths: Paths, nodes: dict[Session, int]) -> dict[Session, Bundle]:
        """Make a bundle of each set, but not for those who were or are to be served by itself."""
        batches = paths.batches
        only = batches[0].stream if len(batches) == 1 else None
        bundles: dict[int, Bundle] = {}
        fresh: dict[Session, Bundle] = {}
        for session, node in nodes.items():
            bundle = bundles.get(node)
            if bundle is None:
                bundle = bundles[node] = Bundle(paths.tree(node), paths.sizes[node], only)
            fresh[session] = bundle
        for session in cast("set[Session]", {one for batch in batches for one in batch.joined}):
            own = own_of(session, self._gathering)
            if own is not None:
                fresh[session] = own
            else:
                fresh.pop(session, None)
        for session in self._served_before:
            fresh.pop(session, None)
        return fresh

    def _put(self, fresh: dict[Session, Bundle]) -> None:
        """Put bundles to what those in line are due; the others go to the end of the line."""
        due = self._due
        if not due:
            due.update(fresh)
            self._line.extend(fresh)
            return
        # hot path: 0.1 us per client
        sums: dict[tuple[Bundle, Bundle], Bundle] = {}
        for session, bundle in fresh.items():
            held = due.get(session)
            if held is None:
                due[session] = bundle
                self._line.append(session)
                continue
            both = sums.get((held, bundle))
            if both is None:
                both = sums[held, bundle] = held + bundle
            due[session] = both

    # -- sending ------------------------------------------------------------------------

    def _send_slice(self) -> list[Session]:
        """Serve the first in line until the slice is over; return who is too slow."""
        # hot path: of about 6 us per client 5 are the kernel's
        due = self._due
        slow: list[Session] = []
        now = time.monotonic()
        deadline = now + self._slice_s
        mark = Mark(now, self._busy_s)
        policies = self._slow
        line = self._next_line()
        pop, first = due.pop, line.popleft
        count = 0
        budget = _CHECK_BYTES
        while due:
            try:
                session = first()
            except IndexError:  # the other line is not at its end
                line = self._line or self._heavy
                first = line.popleft
                continue
            bundle = pop(session, None)
            if bundle is None:
                continue  # it was handed over before its turn
            if bundle.size > _HEAVY_BYTES and line is self._line:
                due[session] = bundle
                self._heavy.append(session)
                continue
            session.served = mark
            if policies is None:
                is_taken = session.outlet.offer(bundle.segments or bundle.cut())
            else:
                is_taken = self._offer(session, bundle)
            if not is_taken:
                slow.append(session)
            count += 1
            budget -= bundle.size + _BYTES_EACH
            if budget < 0:
                if time.monotonic() > deadline:
                    break
                budget = _CHECK_BYTES
        self._handed += count
        return slow

    def _next_line(self) -> deque[Session]:
        """Return whose slice it is: those who are due much do not hold up those due little."""
        self._heavy_turn = bool(self._heavy) and not self._heavy_turn
        return self._heavy if self._heavy_turn else self._line

    def _offer(self, session: Session, bundle: Bundle) -> bool:
        """Hand a client what it is due; False: it is too slow."""
        outlet = session.outlet
        if self._slow is not None and not outlet.ready and not session.manner.resumes:
            return self._offer_by_stream(outlet, bundle, self._slow)
        return outlet.offer(bundle.segments or bundle.cut())

    def _offer_by_stream(self, outlet: Outlet, bundle: Bundle, policies: SlowPolicy) -> bool:
        """Queue events for a client that lags, by each stream's policy; False: too slow."""
        for stream, events in bundle.parts():
            policy = policies.of(stream)
            skipped = outlet.lag(stream, policy, events)
            if skipped is None:
                return False
            self.skipped[policy] += skipped
        return True

    def _observe(self) -> None:
        """Observe the lag of messages that the last of their clients was handed by now."""
        now = self._now()
        while self._unseen and self._unseen[0][0] <= self._handed:
            _, size, batches = self._unseen.popleft()
            self._unseen_bytes -= size
            self._seen.set()
            if self._lag is None:
                continue
            for batch in batches:
                for event in batch.waiting:
                    # a publisher's clock may be ahead, and a sum must not fall
                    self._lag.observe(max(0.0, now - event.at_s))


def _crowd(stream: Stream) -> list[Session]:
    """Return a stream's subscribers as they are now."""
    return list(cast("dict[Session, None]", stream.subscribers))  # sessions are all there are
