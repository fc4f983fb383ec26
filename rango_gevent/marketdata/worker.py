"""The process: trades in, state saved, candles and tickers published, questions answered.

One greenlet reads trades, one saves once a second, one publishes, one answers. None of them works
on the market data while another is in the middle of it (`Worker._turn`): reading a store may wait
for a socket, and others run then. Where one of them ends, all end, and so does the process.
"""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from typing import Any, Callable, NamedTuple

import gevent
from gevent.event import Event
from gevent.lock import BoundedSemaphore

from rango_gevent.errors import PublishError
from rango_gevent.marketdata.announcer import Announcement, Announcer
from rango_gevent.marketdata.desk import Desk, Limits
from rango_gevent.marketdata.feed import WORDS, LiveTrades, LoggedTrades, accepts, place_of
from rango_gevent.marketdata.periods import start_of
from rango_gevent.marketdata.queries import Queries
from rango_gevent.marketdata.rpc import RpcServer
from rango_gevent.marketdata.store import Store, StoreError, TakenOver
from rango_gevent.publisher import Publisher
from rango_gevent.source.base import BrokerLimits, LogLimits, QueueLimits, SourceError
from rango_gevent.source.supervisor import Supervisor
from rango_gevent.throttle import ThrottledLog

log = logging.getLogger(__name__)

_SAY_AGAIN_S = 60.0
_GATHER_S = 0.005
_SEEN_S = 5.0  # a store hears so often that we are there
_BEHIND_S = 5.0  # behind the end of the log by more, nothing is live
_JUMP_S = 2.0
_PUBLISH_DEADLINE_S = 5.0
_STOP_S = 5.0
_STALE_S = 15.0


class Plan(NamedTuple):
    """What a worker does, in plain values; `commands.marketdata` tells what each means."""

    urls: list[str]
    exchange: str
    broker: BrokerLimits
    log_limits: LogLimits | None
    from_end: bool
    limits: Limits
    max_unsaved: int
    flush_s: float
    publish_s: float
    tickers_s: float
    periods: frozenset[int]
    quotes: tuple[str, ...]
    is_flat: bool
    midnight: Callable[[float], int]
    keep_s: dict[int, int]
    prune_s: float
    max_points: int
    rpc_queue: str
    rpc_limits: QueueLimits


class ClockWatch:
    """Finds out when the clock was set.

    Args:
        wall_s: Unix time.
        steady_s: of a clock that nobody sets.

    Attributes:
        jumps: how often it was.
    """

    def __init__(self, wall_s: float, steady_s: float) -> None:
        self._offset_s = wall_s - steady_s
        self.jumps = 0

    def look(self, wall_s: float, steady_s: float) -> float:
        """Return by how many seconds it was set since the last look; 0 for no more than drift."""
        before_s, self._offset_s = self._offset_s, wall_s - steady_s
        jump_s = self._offset_s - before_s
        if abs(jump_s) <= _JUMP_S:
            return 0.0
        self.jumps += 1
        return jump_s


class Worker:
    """Runs until it is stopped, or one of its parts ends.

    Args:
        plan: what to do.
        store: where state is kept.

    Attributes:
        failure: why it ended by itself; None: it was stopped.
        gaps, gap_s: times when trades may have been missed, and the seconds of them.
    """

    def __init__(self, plan: Plan, store: Store) -> None:
        self.plan = plan
        self.store = store
        self.failure: BaseException | None = None
        self.gaps = 0
        self.gap_s = 0.0
        self.save_s = 0.0
        self.saved_at = time.monotonic()
        self.save_failures = 0
        self.published = 0
        self.publish_failures = 0
        self.clock = ClockWatch(time.time(), time.monotonic())
        self._say = ThrottledLog(log, _SAY_AGAIN_S)
        self._turn = BoundedSemaphore()
        self._wake = Event()
        self._ended = Event()
        self._running: list[gevent.Greenlet[..., Any]] = []
        self.desk = Desk(store.read, plan.limits, self._dropped)
        self.desk.restore(store.load())
        self._saved_place = self.desk.place
        self._lost_at_s = float(store.note("seen") or 0)
        self.announcer = Announcer(
            self.desk,
            periods=plan.periods,
            quotes=plan.quotes,
            is_flat=plan.is_flat,
            midnight=plan.midnight,
        )
        self._queries = Queries(
            self.desk,
            time.time,
            plan.midnight,
            is_flat=plan.is_flat,
            max_points=plan.max_points,
        )
        self._source = self._open_source()
        self.trades = Supervisor(self._source, self._lost)
        self.rpc_server = RpcServer(
            plan.urls, plan.rpc_queue, self._ask, plan.broker._replace(queue=plan.rpc_limits)
        )
        self.rpc = Supervisor(self.rpc_server)
        self._publisher = Publisher(
            ";".join(plan.urls),
            exchange=plan.exchange,
            deadline_s=_PUBLISH_DEADLINE_S,
            on_down="raise",
            connections=1,
        )
        self._prune_at = time.monotonic() + plan.prune_s / 10

    def _open_source(self) -> LiveTrades | LoggedTrades:
        plan = self.plan
        if plan.log_limits is None:
            return LiveTrades(
                plan.urls,
                plan.exchange,
                self._take,
                plan.broker,
                self._pace,
                on_heard=self._came_back,
            )
        return LoggedTrades(
            plan.urls,
            plan.exchange,
            self._take,
            plan.broker,
            self._pace,
            accepts,
            place=self.desk.place,
            from_end=plan.from_end,
            on_break=self._broke,
            log_limits=plan.log_limits,
        )

    # -- life -------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin."""
        for name, run in (
            ("trades", self.trades.run),
            ("rpc", self.rpc.run),
            ("save", self._save_for_ever),
            ("publish", self._publish_for_ever),
        ):
            greenlet = gevent.spawn(run)
            greenlet.name = f"marketdata-{name}"
            greenlet.link(self._one_ended)
            self._running.append(greenlet)

    def _one_ended(self, greenlet: gevent.Greenlet[..., Any]) -> None:
        if not self._ended.is_set():
            self.failure = greenlet.exception or RuntimeError(f"{greenlet.name} ended")
            self._ended.set()

    def wait(self) -> None:
        """Wait until it was stopped or has failed."""
        self._ended.wait()

    def end(self) -> None:
        """Let `wait` return."""
        self._ended.set()

    def stop(self) -> None:
        """Stop, and save and publish what there is, in bounded time."""
        self._ended.set()
        self.trades.stop()
        self.rpc.stop()
        gevent.killall(self._running, timeout=_STOP_S)
        if not isinstance(self.failure, TakenOver):
            with suppress(TakenOver):
                self._save()
            self._publish(tickers=True)
        self._publisher.close()
        self.store.close()

    @property
    def lag_s(self) -> float:
        """Return how old the last trade was when it was taken."""
        return max(0.0, self.desk.taken_at_s - self.desk.last_at_s)

    @property
    def problem(self) -> str:
        """Return why it is not ready; empty when it is."""
        if time.monotonic() - self.saved_at > _STALE_S:
            return "the store takes nothing: see the log"
        return self.trades.problem or self.rpc.problem

    # -- trades -----------------------------------------------------------------------------------

    def _take(self, key: str, body: bytes, at_s: float, position: int) -> None:
        # hot path: once a message
        with self._turn:
            self.desk.take(key, body, time.time(), place_of(position))

    def _pace(self, more: bool) -> None:
        """Let messages gather; and read no further when nothing is saved."""
        if self.desk.waiting >= self.plan.max_unsaved:
            raise SourceError("the store takes nothing, and no more trades can wait for it")
        if self.desk.waiting >= self.plan.max_unsaved // 4:
            self._wake.set()
        gevent.sleep(0 if more else _GATHER_S)

    def _came_back(self) -> None:
        """Tell of the time in which nothing was heard; a queue of our own has none of it."""
        lost_at_s, self._lost_at_s = self._lost_at_s, 0.0
        if not lost_at_s:
            return  # this is the beginning
        seconds = max(0.0, time.time() - lost_at_s)
        self.gaps += 1
        self.gap_s += seconds
        log.warning(
            "trades of %.1f s since %s were not heard; RANGO_LOG=stream would have kept them, "
            "and `rango marketdata import --replace` brings candles of that time in",
            seconds,
            time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(lost_at_s)),
        )

    def _lost(self) -> None:
        self._lost_at_s = time.time()

    def _broke(self, why: str) -> None:
        self.gaps += 1
        log.error("%s", WORDS[why])

    def _dropped(self, reason: str, key: str, text: str) -> None:
        self._say.warning(reason, "dropped (%s) on %s: %s", reason, key, text)

    def _ask(self, method: object, params: object) -> Any:
        with self._turn:
            return self._queries.ask(method, params)

    # -- saving -----------------------------------------------------------------------------------

    def _save_for_ever(self) -> None:
        while True:
            self._wake.wait(self.plan.flush_s)
            self._wake.clear()
            self._save()
            self._prune()

    def _save(self) -> None:
        """Save what changed; what cannot be saved is saved the next time.

        Raises:
            TakenOver: another process owns the store.
        """
        with self._turn:
            changes = self.desk.collect()
        is_idle = not changes.markets and changes.place == self._saved_place
        if is_idle and time.monotonic() - self.saved_at < _SEEN_S:
            return
        if self.trades.connected:
            changes = changes._replace(notes={"seen": f"{time.time():.3f}"})
        began = time.monotonic()
        try:
            self.store.save(changes)
        except StoreError as error:
            with self._turn:
                self.desk.not_saved(changes)
            self.save_failures += 1
            self._say.error("save", "the store takes nothing: %s", error)
            return
        with self._turn:
            self.desk.saved(changes)
        self._saved_place = changes.place
        self.saved_at = time.monotonic()
        self.save_s = self.saved_at - began

    def _prune(self) -> None:
        """Remove what is older than is to be kept, one market after another."""
        if time.monotonic() < self._prune_at:
            return
        self._prune_at = time.monotonic() + self.plan.prune_s
        for market in list(self.desk.markets.values()):
            oldest = {
                period: start_of(period, market.newest_s - keep_s)
                for period, keep_s in self.plan.keep_s.items()
                if keep_s
            }
            try:
                self.store.prune(market.name, oldest)
            except StoreError as error:
                self._say.error("prune", "old candles stay: %s", error)
                return
            gevent.sleep(0.01)

    # -- publishing -------------------------------------------------------------------------------

    def _publish_for_ever(self) -> None:
        tickers_at = 0.0
        while True:
            gevent.sleep(self.plan.publish_s)
            jump_s = self.clock.look(time.time(), time.monotonic())
            if jump_s:
                log.warning("the clock jumped by %+.1f s", jump_s)
            is_due = time.monotonic() >= tickers_at
            if is_due:
                tickers_at = time.monotonic() + self.plan.tickers_s
            self._publish(tickers=is_due)

    def _publish(self, *, tickers: bool) -> None:
        """Publish what changed; what is not taken is published the next time, as it is then."""
        now_s = time.time()
        with self._turn:
            found = self.announcer.klines(now_s, is_live=self._is_live)
            if tickers:
                found += self.announcer.tickers(now_s)
        if not found:
            return
        try:
            self._publish_all(found)
        except PublishError as error:
            self.publish_failures += 1
            self._say.warning("publish", "candles are not published: %s", error)
            with self._turn:
                self.announcer.not_published(found)
        else:
            self.published += len(found)

    def _publish_all(self, found: list[Announcement]) -> None:
        with self._publisher.batch() as batch:
            for one in found:
                batch.publish(one.key, one.body)

    @property
    def _is_live(self) -> bool:
        if not self.trades.connected:
            return False
        if isinstance(self._source, LoggedTrades):
            return self._source.caught_up and self._source.behind_s() < _BEHIND_S
        return True

    @property
    def behind(self) -> float:
        """Return how many messages of the log are still to be read."""
        return self._source.behind if isinstance(self._source, LoggedTrades) else 0.0
