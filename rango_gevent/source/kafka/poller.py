"""Messages from librdkafka to gevent's loop, by batches, and questions to the brokers.

librdkafka waits in C, where gevent cannot switch; so a thread of the system polls. It hands over
one batch at a time and does not poll on before the loop has taken it: so what waits is bounded,
and a loop that is busy gets larger batches instead of more wake-ups. Nothing in that thread
touches gevent but the one call that wakes the loop.

A consumer lets in one call at a time, and a thread that polls leaves others no chance: what is to
be done to it is done in that thread, and questions have a consumer of their own.
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from typing import Any, Callable

import gevent
from confluent_kafka import Consumer, KafkaError, KafkaException
from gevent.event import Event
from gevent.monkey import get_original

BATCH = 500  # messages; beyond it the loop would be held too long between two looks
POLL_S = 0.2
_BRIEF_S = 0.02  # while nothing is assigned yet
_LOOK_S = 0.05


class Poller:
    """A consumer and the thread that polls it, and one for questions.

    Args:
        config: of librdkafka, without ``error_cb``.

    Attributes:
        asker: the consumer for `call`.
        errors: what was said of brokers, in the order of saying.
        idle: polls one after another that brought nothing.

    Raises:
        KafkaException: the configuration is wrong.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        self.errors: deque[KafkaError] = deque(maxlen=100)
        self.idle = 0
        self._batches: deque[list[Any]] = deque()
        self._orders: deque[Callable[[Consumer], object]] = deque()
        self._woken = Event()
        self._wakes: Any = None
        self._taken = get_original("_thread", "allocate_lock")()
        self._taken.acquire()
        self._stopped = False
        self._calls = 0
        self._consumer = Consumer({**config, "error_cb": self._heard})
        self.asker = Consumer(config)

    def start(self) -> None:
        """Begin to poll."""
        self._wakes = gevent.get_hub().loop.async_()
        self._wakes.start(self._woken.set)
        get_original("_thread", "start_new_thread")(self._poll, ())

    def order(self, work: Callable[[Consumer], object]) -> None:
        """Do something to the consumer, such as assigning partitions, before the next poll."""
        self._orders.append(work)

    # -- the thread ----------------------------------------------------------------------

    def _heard(self, error: KafkaError) -> None:
        self.errors.append(error)
        self._wake()

    def _wake(self) -> None:
        with suppress(Exception):  # the watcher may be closed just now
            self._wakes.send()

    def _poll(self) -> None:
        """Poll until stopped; runs in a thread of the system."""
        consumer, wait_s = self._consumer, _BRIEF_S
        while not self._stopped:
            if self._orders:
                self._obey(consumer)
                wait_s = POLL_S
            first = consumer.poll(wait_s)
            if first is None:
                self.idle += 1
                continue
            # more than one at once only where more is there: nobody waits for a batch to fill
            self._batches.append([first, *consumer.consume(BATCH - 1, 0)])
            self.idle = 0
            self._wake()
            self._taken.acquire()
        with suppress(KafkaException, RuntimeError):
            consumer.close()

    def _obey(self, consumer: Consumer) -> None:
        try:
            self._orders.popleft()(consumer)
        except KafkaException as error:
            self._heard(error.args[0])

    # -- the loop ------------------------------------------------------------------------

    def wait(self, timeout_s: float) -> list[Any]:
        """Return a batch, empty when none comes in time; then call `taken`."""
        if not self._batches:
            self._woken.wait(timeout_s)
            self._woken.clear()
        return self._batches.popleft() if self._batches else []

    def taken(self) -> None:
        """Let the thread poll on."""
        self._taken.release()

    def call(
        self, work: Callable[..., Any], *args: Any, until: Callable[[], object] = bool, **more: Any
    ) -> Any:
        """Run what waits, such as a question to the brokers, while others go on.

        Args:
            work: a method of `asker` that ends by itself.
            args: of it.
            until: called now and then meanwhile; raises to wait no longer.
            more: of it.

        Raises:
            KafkaException: what ``work`` raised.
        """
        self._calls += 1
        result = gevent.get_hub().threadpool.spawn(self._run, work, args, more)
        while not result.ready():
            result.wait(_LOOK_S)
            until()
        answer = result.get()
        if isinstance(answer, KafkaException):
            raise answer
        return answer

    def _run(self, work: Callable[..., Any], args: Any, more: Any) -> Any:
        """Run what waits; in a thread of the system, where gevent would print what is raised."""
        try:
            return work(*args, **more)
        except KafkaException as error:
            return error
        finally:
            self._calls -= 1

    def stop(self) -> None:
        """Poll no more. Consumers are closed when their calls have come back, behind our back."""
        self._stopped = True
        with suppress(RuntimeError):  # it does not wait for us
            self._taken.release()
        if self._wakes is not None:
            self._wakes.stop()
            self._wakes.close()
        gevent.spawn(self._close)

    def _close(self) -> None:
        while self._calls:  # to close it meanwhile would crash the process
            gevent.sleep(_LOOK_S)
        self.call(self.asker.close)
