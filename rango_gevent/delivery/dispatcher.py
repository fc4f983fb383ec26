"""The dispatcher: one greenlet that moves waiting frames from streams to sockets.

It serves clients in turn. All that waits for a client is joined into one buffer and sent at
once; then the client goes to the end of the line as soon as there is more for it. Between two
services frames gather, so what is joined grows with the load by itself: cost per delivery
falls where a send per frame would saturate. A frame that comes while others are served is
sent to those who still stand in line with what they are due anyway, so its age is bounded by
the time of one turn of all.

Small turns are helped to grow: a client is served again only after a rest, a multiple of the
processor time that serving took since (`RANGO_ROUND_REST`), within a bound. A message that
comes after silence is not delayed. Before the line moves on after a rest, the consumer hands
on what has come meanwhile.

The line gives way to the loop every millisecond, so that pings, handshakes and health
checks stay alive while millions of frames flow.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from typing import Callable

import gevent
from gevent.event import Event
from prometheus_client import Histogram

from rango_gevent.delivery.bundle import Bundle
from rango_gevent.delivery.outbox import SlowPolicy
from rango_gevent.hub.hub import Batch, Hub, Mark, Subscriber
from rango_gevent.hub.stream import Stream, Waiting
from rango_gevent.turns import give_way

_READ_REST_S = 0.004
_TURN_S = 0.026  # rests make no turn longer than this
_LEAST_REST = 0.7  # but the rest after a turn that is long by itself is this share of it
_LONG_S = 0.25  # whoever was served longer ago was in no line meanwhile, or in a very long one
_MAX_AHEAD = 200  # frames that may wait in the hub before the consumer is held
_MAX_PACKED = 1000  # compressed frames that are kept for the bundles still in line
_CHECK_EVERY = 32  # clients between two looks at the clock: about 0.15 ms
_GATHER_SHARE = 0.1  # of the time is spent on putting frames to those in line, at most


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
        self._work = Event()
        self._gathered = Event()
        self._read = Event()
        self._pacing = False
        self._taken = 0
        self._gather_after = 0.0
        self._line: deque[Subscriber] = deque()
        self._due: dict[Subscriber, Bundle] = {}
        self._handed = 0
        self._unseen: deque[tuple[int, list[Batch]]] = deque()
        self._packed: dict[int, bytes] = {}
        self._busy_s = 0.0
        self.deflating = 0
        self.slices = 0
        self.frames = 0
        self.bytes = 0
        hub.wake = self._work.set

    def set_policies(self, policies: SlowPolicy) -> None:
        """Say what is done with clients that lag; without a word they are closed."""
        self._slow = None if policies.only_close else policies

    def run(self) -> None:
        """Serve for ever."""
        while True:
            while not self.idle:
                rest_s = self._rest_s()
                if rest_s > 0:
                    gevent.sleep(rest_s)
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

    def flush(self, client: Subscriber) -> None:
        """Hand a client what it is due by now, before its turn.

        Called before its subscriptions change, so that a replay cannot be followed by
        increments which it already contains.
        """
        bundle = self._due.pop(client, None)
        if bundle is not None:
            self._handed += 1
            if not self._offer(client, bundle):
                client.too_slow()

    def pace(self) -> None:
        """Wait until reading more from the broker pays."""
        self._read.clear()
        self._pacing = True
        self._read.wait(_READ_REST_S)
        self._pacing = False
        while self._hub.sequence - self._taken > _MAX_AHEAD:
            self._gathered.clear()
            self._gathered.wait()

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
        most_s = max(_TURN_S - busy_s, _LEAST_REST * busy_s)
        return busy_s + min(most_s, self._rest_factor * busy_s) - since_s

    def _first(self) -> Subscriber | None:
        """Return who is first in line, or will be."""
        if self._due:
            return self._line[0]
        return next(iter(self._hub.dirty[0].subscribers), None)

    def _serve(self) -> None:
        """Gather what came, serve for one slice, give way when that was not all."""
        started_s = time.process_time()  # the processor's time: others' load is not our cost
        now = time.monotonic()
        if self._hub.dirty and (not self._due or now >= self._gather_after):
            self._gather()
            cost_s = time.monotonic() - now
            self._gather_after = now + cost_s / _GATHER_SHARE
        slow = self._send_slice()
        self._busy_s += time.process_time() - started_s
        self.slices += 1
        for client in slow:
            client.too_slow()
        self._observe()
        if self._due:
            give_way()
        else:
            self._line.clear()  # of those who were handed theirs before their turn
            self._packed.clear()

    # -- gathering ----------------------------------------------------------------------

    def _gather(self) -> None:
        """Take all that waits in the hub and put it to what the clients are due."""
        if len(self._packed) > _MAX_PACKED:
            self._packed.clear()  # a busy line is never empty; what is needed again is packed again
        batches = self._hub.take_dirty()
        self._taken = self._hub.sequence
        self._gathered.set()
        self._count(batches)
        if len(batches) > 1 or not self._extend(batches[0]):
            fresh = self._bundle(batches)
            for client in {client for _, _, joined in batches for client in joined}:
                self._take_back(client, batches, fresh)
            self._put(fresh)
        if self._lag is not None:
            self._unseen.append((self._handed + len(self._due), batches))

    def _count(self, batches: list[Batch]) -> None:
        for stream, waiting, _ in batches:
            clients = len(stream.subscribers)
            self.frames += len(waiting) * clients
            self.bytes += sum([len(item.frame) for item in waiting]) * clients

    def _extend(self, batch: Batch) -> bool:
        """Put frames of one stream to bundles that all hold some of it already, if they do.

        Whoever shares such a bundle holds the stream, so nobody in line need be looked at:
        a crowd on one stream costs a third of what `_put` takes.
        """
        stream, waiting, joined = batch
        due = self._due
        bundles = set(due.values())
        if joined or not all(stream in bundle.parts for bundle in bundles):
            return False
        for bundle in bundles:
            bundle.extend(stream, waiting)
        served = [client for client in stream.subscribers if client not in due]
        due.update(dict.fromkeys(served, Bundle({stream: waiting})))
        self._line.extend(served)
        return True

    @staticmethod
    def _bundle(batches: list[Batch]) -> dict[Subscriber, Bundle]:
        """Join across streams: clients with the same dirty streams share one bundle.

        Each set of streams met is a node; a client walks from node to node. So a set is
        joined once, whatever the number of clients that have it.
        """
        # hot path: per client and stream two dict look-ups, no allocation
        nodes: list[tuple[int, ...]] = [()]
        steps: dict[tuple[int, int], int] = {}
        at: dict[Subscriber, int] = {}
        for index, (stream, _, _) in enumerate(batches):
            for client in stream.subscribers:
                step = (at.get(client, 0), index)
                node = steps.get(step)
                if node is None:
                    node = steps[step] = len(nodes)
                    nodes.append((*nodes[step[0]], index))
                at[client] = node
        bundles = [
            Bundle({batches[index].stream: batches[index].waiting for index in node})
            for node in nodes
        ]
        return {client: bundles[node] for client, node in at.items()}

    @staticmethod
    def _take_back(
        client: Subscriber, batches: list[Batch], fresh: dict[Subscriber, Bundle]
    ) -> None:
        """Leave out what a client who joined among the waiting frames has had already."""
        own: dict[Stream, list[Waiting]] = {}
        for stream, waiting, joined in batches:
            if client in stream.subscribers:
                after = joined.get(client, 0)
                frames = [item for item in waiting if item.sequence > after]
                if frames:
                    own[stream] = frames
        if own:
            fresh[client] = Bundle(own)
        else:
            fresh.pop(client, None)

    def _put(self, fresh: dict[Subscriber, Bundle]) -> None:
        """Put bundles to what those in line are due; the others go to the end of the line."""
        due = self._due
        if not due:
            due.update(fresh)
            self._line.extend(fresh)
            return
        # hot path: 0.1 us per client
        sums: dict[tuple[Bundle, Bundle], Bundle] = {}
        for client, bundle in fresh.items():
            held = due.get(client)
            if held is None:
                due[client] = bundle
                self._line.append(client)
                continue
            both = sums.get((held, bundle))
            if both is None:
                both = sums[held, bundle] = held + bundle
            due[client] = both

    # -- sending ------------------------------------------------------------------------

    def _send_slice(self) -> list[Subscriber]:
        """Serve the first in line until the slice is over; return who is too slow."""
        # hot path: of about 6 us per client 5 are the kernel's
        due = self._due
        pop, first = due.pop, self._line.popleft
        slow: list[Subscriber] = []
        now = time.monotonic()
        deadline = now + self._slice_s
        mark = Mark(now, self._busy_s)
        count = 0
        while due:
            client = first()
            bundle = pop(client, None)
            if bundle is None:
                continue  # it was handed over before its turn
            client.served = mark
            if not self._offer(client, bundle):
                slow.append(client)
            count += 1
            if count % _CHECK_EVERY == 0 and time.monotonic() > deadline:
                break
        self._handed += count
        return slow

    def _offer(self, client: Subscriber, bundle: Bundle) -> bool:
        """Hand a client what it is due; False: it is too slow."""
        if self._slow is not None and not client.ready:
            return self._offer_by_stream(client, bundle, self._slow)
        if client.deflate:
            return client.offer(bundle.packed or bundle.pack(self._pack_frame))
        return client.offer(bundle.plain or bundle.join())

    def _offer_by_stream(self, client: Subscriber, bundle: Bundle, policies: SlowPolicy) -> bool:
        """Queue frames for a client that lags, by each stream's policy; False: too slow."""
        for stream, waiting in bundle.parts.items():
            policy = policies.of(stream)
            if client.deflate:
                frames = [self._pack_frame(item) for item in waiting]
            else:
                frames = [item.frame for item in waiting]
            skipped = client.lag(stream, policy, frames)
            if skipped < 0:
                return False
            self.skipped[policy] += skipped
        return True

    def _pack_frame(self, item: Waiting) -> bytes:
        """Compress a frame once, however many bundles it is part of."""
        packed = self._packed.get(item.sequence)
        if packed is None:
            packed = self._packed[item.sequence] = self._hub.pack(item.frame)
        return packed

    def _observe(self) -> None:
        """Observe the lag of messages that the last of their clients was handed by now."""
        now = self._now()
        while self._unseen and self._unseen[0][0] <= self._handed:
            _, batches = self._unseen.popleft()
            for _, waiting, _ in batches:
                for item in waiting:
                    # a publisher's clock may be ahead, and a sum must not fall
                    self._lag.observe(max(0.0, now - item.at_s))  # type: ignore[union-attr]  # nothing is unseen without one
