"""The dispatcher: one greenlet that moves waiting frames from streams to sockets.

It works in rounds. A round takes everything that waits in all dirty streams, joins it into
one buffer per client and sends each client its buffer once. While a round runs the next
frames gather, so rounds grow with the load by themselves: cost per delivery falls where a
send per frame would saturate.

Small rounds are helped to grow: after a round `Dispatcher.pace` keeps the consumer from reading
for a rest, a multiple of the processor time that the round took (`RANGO_ROUND_REST`), within
bounds. A message that comes after silence is not delayed.

A round gives way to the loop every few milliseconds, so that pings, handshakes and health
checks stay alive while millions of frames flow.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import Callable

import gevent
from gevent.event import Event
from prometheus_client import Histogram

from rango_gevent.delivery.outbox import SlowPolicy
from rango_gevent.hub.hub import Batch, Hub, Subscriber
from rango_gevent.hub.stream import Waiting, join
from rango_gevent.turns import give_way

_MIN_REST_S = 0.004
_MAX_REST_S = 0.022  # with thousands of clients a round is long enough by itself
_CHECK_EVERY = 32  # clients between two looks at the clock: about 0.15 ms


class Dispatcher:
    """Fan-out of one hub.

    Args:
        hub: whose dirty streams are served; its ``wake`` is taken over.
        slice_s: longest time in seconds that a round holds the loop.
        rest_factor: rest after a round, in parts of the time that the round took.
        lag: told the seconds from publishing to the socket, per message.
        now: the Unix time in seconds.
    """

    def __init__(
        self,
        hub: Hub,
        *,
        slice_s: float = 0.004,
        rest_factor: float = 1.0,
        lag: Histogram | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._hub = hub
        self._slice_s = slice_s
        self._rest_factor = rest_factor
        self._lag = lag
        self._slow: SlowPolicy | None = None
        self.skipped: Counter[str] = Counter()
        self._now = now
        self._work = Event()
        self._batches: list[Batch] = []
        self._pending: dict[Subscriber, bytes] = {}
        self._packed: dict[bytes, bytes] = {}
        self._between = Event()
        self._between.set()
        self._rest_until = 0.0
        self.deflating = 0
        self.rounds = 0
        self.frames = 0
        self.bytes = 0
        hub.wake = self._work.set

    def set_policies(self, policies: SlowPolicy) -> None:
        """Say what is done with clients that lag; without a word they are closed."""
        self._slow = None if policies.only_close else policies

    def run(self) -> None:
        """Serve rounds for ever."""
        while True:
            self._work.wait()
            self._work.clear()
            self.round()

    @property
    def idle(self) -> bool:
        """Tell whether nothing waits to be handed to a client."""
        return not self._pending and not self._hub.dirty

    def flush(self, client: Subscriber) -> None:
        """Hand a client what the round under way still holds for it.

        Called before its subscriptions change, so that a replay cannot be followed by
        increments which it already contains.
        """
        data = self._pending.pop(client, None)
        if data is not None and not self._offer(client, data):
            client.too_slow()

    def pace(self) -> None:
        """Wait until the round under way has ended, and for its rest."""
        gevent.sleep(_MIN_REST_S)
        self._between.wait()
        rest_s = self._rest_until - time.monotonic()
        if rest_s > 0:
            gevent.sleep(rest_s)

    def round(self) -> None:
        """Take all that waits and send it."""
        self._between.clear()
        try:
            self._round()
        finally:
            self._between.set()  # whatever happened: the consumer must not wait for ever

    def _round(self) -> None:
        started_s = time.process_time()  # the processor's time: others' load is not our cost
        self._packed.clear()
        self._batches = batches = self._hub.take_dirty()
        self._gather(batches)
        self.rounds += 1
        self._send_pending()
        rest_s = min(_MAX_REST_S, self._rest_factor * (time.process_time() - started_s))
        self._rest_until = time.monotonic() + rest_s
        self._batches = []
        if self._lag is not None:
            self._observe(batches)

    def _gather(self, batches: list[Batch]) -> None:
        """Fill ``_pending`` with one buffer per client, frames in the order of publishing."""
        if len(batches) == 1:
            stream, waiting, _ = batches[0]
            data = join(waiting)
            self._pack(data, waiting)
            self._pending = dict.fromkeys(stream.subscribers, data)
            self._count(len(waiting), len(data), len(stream.subscribers))
        else:
            self._pending = self._gather_many(batches)
        for client in {client for _, _, joined in batches for client in joined}:
            self._take_back(client, batches)

    def _count(self, frames: int, size: int, clients: int) -> None:
        self.frames += frames * clients
        self.bytes += size * clients

    def _gather_many(self, batches: list[Batch]) -> dict[Subscriber, bytes]:
        """Join across streams: clients with the same dirty streams share one buffer.

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
        buffers = [self._merge([batches[index][1] for index in node]) for node in nodes]
        for stream, waiting, _ in batches:
            size = sum(len(item.frame) for item in waiting)
            self._count(len(waiting), size, len(stream.subscribers))
        return {client: buffers[node] for client, node in at.items()}

    def _merge(self, parts: list[list[Waiting]]) -> bytes:
        waiting = parts[0] if len(parts) == 1 else sorted(w for part in parts for w in part)
        data = join(waiting)
        self._pack(data, waiting)
        return data

    def _pack(self, data: bytes, waiting: list[Waiting]) -> None:
        """Remember the compressed form of a buffer while any client takes it."""
        if self.deflating:
            self._packed[data] = b"".join([self._pack_frame(item) for item in waiting])

    def _pack_frame(self, item: Waiting) -> bytes:
        """Compress a frame once, however many buffers of this round it is part of."""
        packed = self._packed.get(item.frame)
        if packed is None:
            packed = self._packed[item.frame] = self._hub.pack(item.frame)
        return packed

    def _take_back(self, client: Subscriber, batches: list[Batch]) -> None:
        """Leave out what a client who joined among the waiting frames has had already."""
        own = [
            [item for item in waiting if item.sequence > joined.get(client, 0)]
            for stream, waiting, joined in batches
            if client in stream.subscribers
        ]
        self._pending[client] = self._merge(own)

    def _send_pending(self) -> None:
        """Send every client its buffer; slow ones are dropped after the round."""
        # hot path: of about 5 us per client 4.4 are the kernel's
        pending = self._pending
        take = pending.popitem
        slow: list[Subscriber] = []
        deadline = time.monotonic() + self._slice_s
        count = 0
        while pending:
            client, data = take()
            if not self._offer(client, data):
                slow.append(client)
            count += 1
            if count % _CHECK_EVERY == 0 and time.monotonic() > deadline:
                give_way()
                deadline = time.monotonic() + self._slice_s
        for client in slow:
            client.too_slow()

    def _offer(self, client: Subscriber, data: bytes) -> bool:
        """Hand a client its buffer of this round; False: it is too slow."""
        if self._slow is not None and not client.ready:
            return self._offer_by_stream(client, self._slow)
        return client.offer(self._packed[data] if client.deflate else data)

    def _offer_by_stream(self, client: Subscriber, policies: SlowPolicy) -> bool:
        """Queue frames for a client that lags, by each stream's policy; False: too slow."""
        for stream, waiting, joined in self._batches:
            if client not in stream.subscribers:
                continue
            policy = policies.of(stream)
            after = joined.get(client, 0)
            frames = [
                self._pack_frame(item) if client.deflate else item.frame
                for item in waiting
                if item.sequence > after
            ]
            skipped = client.lag(stream, policy, frames) if frames else 0
            if skipped < 0:
                return False
            self.skipped[policy] += skipped
        return True

    def _observe(self, batches: list[Batch]) -> None:
        now = self._now()
        for _, waiting, _ in batches:
            for item in waiting:
                # a publisher's clock may be ahead, and a sum must not fall
                self._lag.observe(max(0.0, now - item.at_s))  # type: ignore[union-attr]  # checked once per round
