"""The Kafka source: every partition of its topics, each gateway for itself, nothing committed.

It begins at the end, and after a lost connection behind the last message that it took, so that a
cluster that comes back has everything still to tell. What it cannot tell any more is said: history
breaks. With one partition (``topic:N``) all gateways get the same messages in the same order, and
positions that any of them understands: Kafka's offset, and the check of `chain`.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from typing import Any, Callable, Mapping

import gevent
from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, KafkaError, KafkaException, TopicPartition

from rango_gevent.kafka_url import Topic, read_kafka_url
from rango_gevent.source.amqp.chain import GAP, OTHER, Chain, block_of
from rango_gevent.source.base import (
    Accepts,
    BrokerLimits,
    KafkaWishes,
    Sink,
    SourceError,
    SourceRefused,
)
from rango_gevent.source.kafka.keys import Keys, NoKey
from rango_gevent.source.kafka.poller import BATCH, POLL_S, Poller
from rango_gevent.source.kafka.words import as_source_error, most_telling
from rango_gevent.throttle import ThrottledLog
from rango_gevent.turns import give_way
from rango_gevent.urls import mask_url

log = logging.getLogger(__name__)

_LOOK_S = 0.5
_ASK_S = 2.0
_ENDS_S = 10.0
_SLICE_S = 0.004
_SLICE = 50
_NO_KEY_EACH_S = 10.0
_IN_WORDS = {
    GAP: "messages are missing, which the cluster does not hold any more",
    OTHER: "the cluster does not have what was read last: it is another log",
}


class KafkaSource:
    """A source of some topics.

    Args:
        urls: one URL of a cluster.
        exchange: not used; topics are in the URL.
        sink: where messages go.
        limits: bounds; those of the queue do not hold here.
        pace: called after each batch, and told if more is there; waits until reading pays again.
        accepts: not asked: a body is there as a whole.
        wishes: what else it is asked for.

    Attributes:
        exchange: names of the topics.
        place: the URL, without secrets.
    """

    def __init__(
        self,
        urls: list[str],
        exchange: str,
        sink: Sink,
        limits: BrokerLimits,
        pace: Callable[[bool], None],
        accepts: Accepts,
        wishes: KafkaWishes,
    ) -> None:
        self._named = read_kafka_url(urls[0])
        self.exchange = ", ".join(topic.name for topic in self._named.topics)
        self.place = mask_url(urls[0])
        self._sink = sink
        self._timeout_s = limits.timeout_s
        self._pace = pace
        self._wishes = wishes
        self._keys = Keys(wishes.keys)
        self._no_keys = ThrottledLog(log, _NO_KEY_EACH_S)
        self._chain = Chain(self._hand_on, self._broken) if self._named.has_one_order else None
        self._poller: Poller | None = None
        self._asking: Any = None
        self._trouble: SourceError | None = None
        self._was_connected = False
        self._next: dict[tuple[str, int], int] = {}  # offsets still to come
        self._ends: dict[tuple[str, int], int] = {}  # as they were seen last
        self._gone: set[tuple[str, int]] = set()  # where what was to come next is not there
        self._goal = 0  # the end of the one partition when we came
        self._fills = False
        self._slice_end = 0.0
        self._unroutable = 0
        self._breaks: Counter[str] = Counter()

    @property
    def waits_for(self) -> str:
        """Why clients should wait though messages can come; empty when they should not."""
        return "reading what was published lately" if self._fills else ""

    def reading(self) -> dict[str, float | Mapping[str, int]]:
        """Return what the source has counted, by the names of the table of metrics."""
        return {
            "rango_kafka_behind": self._behind(),
            "rango_kafka_unroutable": self._unroutable,
            "rango_kafka_breaks": {**dict.fromkeys(_IN_WORDS, 0), **self._breaks},
        }

    def _behind(self) -> int:
        """Return how many messages were still to come when the ends were last asked for."""
        return sum(max(0, end - self._next[place]) for place, end in self._ends.items())

    # -- connecting ----------------------------------------------------------------------

    def connect(self, *, hasty: bool) -> None:
        """Look for all partitions, and begin to read them; messages can come then."""
        try:
            self._poller = poller = Poller(self._config())
        except KafkaException as error:
            raise as_source_error(error.args[0]) from None
        poller.start()
        found = self._partitions(self._metadata(poller))
        places = [self._begin(poller, *place) for place in found]
        poller.order(lambda consumer: consumer.assign(places))
        self._gone.clear()
        self._was_connected = True

    def _config(self) -> dict[str, Any]:
        return {
            "bootstrap.servers": self._named.brokers,
            "client.id": "rango",
            "socket.timeout.ms": int(self._timeout_s * 1000),
            "socket.connection.setup.timeout.ms": max(1000, int(self._timeout_s * 1000)),
            "socket.keepalive.enable": True,
            "reconnect.backoff.ms": 50,
            "reconnect.backoff.max.ms": 500,  # a cluster that is back is found within a second
            "fetch.wait.max.ms": 500,
            "fetch.error.backoff.ms": 100,
            **self._named.properties,
            "group.id": "rango",  # librdkafka wants one; nothing joins it, nothing is committed
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "error",
            "allow.auto.create.topics": False,
            "queued.max.messages.kbytes": max(1, self._wishes.buffer_bytes // 1024),
            "log_level": 0,  # it would write to standard error; what it says comes as errors too
        }

    def _metadata(self, poller: Poller) -> Any:
        """Ask for the topics.

        Raises:
            SourceError: nobody answers, for a reason that is told as well as it is known.
        """
        heard: list[KafkaError] = []

        def listen() -> None:
            """Wait no longer once it is known that it is no use."""
            while poller.errors:
                heard.append(poller.errors.popleft())
                refused = as_source_error(heard[-1])
                if isinstance(refused, SourceRefused):
                    raise refused

        ask, timeout_s = poller.asker.list_topics, self._timeout_s
        try:
            return poller.call(ask, timeout=timeout_s, until=listen)
        except KafkaException as error:
            raise as_source_error(most_telling(heard) or error.args[0]) from None

    def _partitions(self, metadata: Any) -> list[tuple[str, int]]:
        found: list[tuple[str, int]] = []
        for topic in self._named.topics:
            found += _partitions_of(topic, metadata)
        return found

    def _begin(self, poller: Poller, topic: str, number: int) -> TopicPartition:
        """Return where to begin in a partition."""
        place = TopicPartition(topic, number)
        first, end = self._bounds(poller, place)
        if self._chain is not None:
            place.offset = self._begin_chain(poller, self._chain, place, first, end)
        else:
            place.offset = self._begin_partition(topic, number, first, end)
        self._next[topic, number] = place.offset
        self._ends[topic, number] = end
        return place

    def _bounds(self, poller: Poller, place: TopicPartition) -> tuple[int, int]:
        """Ask for the first offset of a partition, and the one behind its last."""
        ask = poller.asker.get_watermark_offsets
        try:
            first, end = poller.call(ask, place, timeout=self._timeout_s)
        except KafkaException as error:
            raise as_source_error(error.args[0], f"{place.topic}:{place.partition}") from None
        return first, end

    def _begin_partition(self, topic: str, number: int, first: int, end: int) -> int:
        """Return where to go on, or the end at the first time."""
        known = self._next.get((topic, number))
        if known is None:
            return first if self._was_connected else end  # a partition that is new, or all are
        if known < first:
            self._broken(GAP)
            return first
        if known > end or (topic, number) in self._gone:
            self._broken(OTHER)
            return end
        return known

    def _begin_chain(
        self, poller: Poller, chain: Chain, place: TopicPartition, first: int, end: int
    ) -> int:
        """Return where to begin in the one partition, so that positions are known."""
        self._fills, self._goal = chain.last < 0, end
        if chain.last < 0:
            chain.begin()
            return max(first, block_of(self._window(poller, place, end)))
        if first > chain.last:
            self._broken(GAP)
            chain.begin()
            return first
        if chain.last >= end or (place.topic, place.partition) in self._gone:
            self._broken(OTHER)
            chain.begin(end - 1)
            return max(first, block_of(end))
        return max(first, chain.join())

    def _window(self, poller: Poller, place: TopicPartition, end: int) -> int:
        """Return the offset of what was published first within the window."""
        since_ms = int((time.time() - self._wishes.window_s) * 1000)
        asked = TopicPartition(place.topic, place.partition, since_ms)
        ask = poller.asker.offsets_for_times
        try:
            (found,) = poller.call(ask, [asked], timeout=self._timeout_s)
        except KafkaException as error:
            raise as_source_error(error.args[0], place.topic) from None
        return end if found.offset < 0 or found.offset > end else int(found.offset)

    # -- messages ------------------------------------------------------------------------

    def pump(self) -> None:
        """Hand messages to the sink; ends by an exception only."""
        poller = self._poller
        assert poller is not None, "connect first"
        self._trouble = None
        self._asking = gevent.spawn(self._keep_asking, poller)
        while True:
            batch = poller.wait(_LOOK_S)
            if batch:
                self._take(batch)
                self._pace(len(batch) >= BATCH)
                poller.taken()
            self._look(poller)

    def _take(self, batch: list[Any]) -> None:
        # hot path: with a chain or without, 3 to 5 us a message, the hub's part included
        for index, message in enumerate(batch):
            if message.error() is not None:
                self._refuse(message)
            self._take_one(message, message.value() or b"")
            if not index % _SLICE and time.monotonic() >= self._slice_end:
                give_way()
                self._slice_end = time.monotonic() + _SLICE_S

    def _take_one(self, message: Any, body: bytes) -> None:
        topic, offset = message.topic(), message.offset()
        kind, at_ms = message.timestamp()
        at_s = time.time() if kind == TIMESTAMP_NOT_AVAILABLE else at_ms / 1000
        try:
            key = self._keys.of(topic, message.key(), body)
        except NoKey as error:
            key = ""
            self._has_no_key(topic, offset, error)
        if self._chain is not None:
            self._chain.take(key, body, at_s, offset)
        elif key:
            self._sink(key, body, at_s, 0)
        self._next[topic, message.partition()] = offset + 1

    def _hand_on(self, key: str, body: bytes, at_s: float, position: int) -> None:
        if key:
            self._sink(key, body, at_s, position)

    def _has_no_key(self, topic: str, offset: int, error: NoKey) -> None:
        self._unroutable += 1
        text = "dropped a message of %s, offset %d: %s; see RANGO_KAFKA_KEYS"
        self._no_keys.warning(f"{topic} {error}", text, topic, offset, error)

    def _refuse(self, message: Any) -> None:
        """Raise what a partition has to say instead of a message."""
        error = message.error()
        place = f"{message.topic()}:{message.partition()}"
        if error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
            self._gone.add((message.topic(), message.partition()))
            raise SourceError(f"{place} does not hold any more what was to come next")
        raise as_source_error(error, place)

    def _look(self, poller: Poller) -> None:
        """Look at what was said of brokers, and whether the past was read."""
        if self._trouble is not None:
            raise self._trouble
        while poller.errors:
            error = poller.errors.popleft()
            refused = as_source_error(error)
            if isinstance(refused, SourceRefused) or error.code() == KafkaError._ALL_BROKERS_DOWN:
                raise refused
        if self._chain is not None:
            self._look_at_chain(poller, self._chain)

    def _look_at_chain(self, poller: Poller, chain: Chain) -> None:
        is_silent = poller.idle * POLL_S >= self._timeout_s
        if chain.joining and is_silent:
            self._gone.update(self._next)
            raise SourceError("what was read last is not there any more")
        if self._fills:
            # the last offsets may be a transaction's, of which nothing comes
            self._fills = chain.last < self._goal - 1 and not is_silent

    def _keep_asking(self, poller: Poller) -> None:
        """Ask now and then whether all partitions have somebody who serves them.

        It is how a broker is noticed that holds its connections and says nothing, and how new
        partitions are found.
        """
        looked_at = 0.0
        while self._trouble is None:
            gevent.sleep(_ASK_S)
            try:
                self._ask(poller)
                if time.monotonic() - looked_at >= _ENDS_S:
                    looked_at = time.monotonic()
                    self._look_at_ends(poller)
            except KafkaException as error:
                self._trouble = as_source_error(error.args[0])
            except SourceError as error:
                self._trouble = error

    def _look_at_ends(self, poller: Poller) -> None:
        for place in list(self._ends):
            _, self._ends[place] = self._bounds(poller, TopicPartition(*place))

    def _ask(self, poller: Poller) -> None:
        metadata = poller.call(poller.asker.list_topics, timeout=self._timeout_s)
        found = self._partitions(metadata)
        new = [place for place in found if place not in self._next]
        for topic, number in new:
            log.info("%s has a new partition: %d", topic, number)
            self._next[topic, number] = self._ends[topic, number] = 0
        if new:
            places = [TopicPartition(*place, 0) for place in new]
            poller.order(lambda consumer: consumer.incremental_assign(places))

    def _broken(self, why: str) -> None:
        self._breaks[why] += 1
        log.warning("history breaks in %s: %s", self.exchange, _IN_WORDS[why])
        self._wishes.on_break(why)

    # -- the end -------------------------------------------------------------------------

    def leave(self) -> None:
        """Say goodbye, in bounded time."""
        self.drop()

    def drop(self) -> None:
        """Close the connection, if there is one, at once and without a word."""
        asking, self._asking = self._asking, None
        if asking is not None:
            asking.kill(block=False)
        poller, self._poller = self._poller, None
        if poller is not None:
            poller.stop()


def _partitions_of(topic: Topic, metadata: Any) -> list[tuple[str, int]]:
    """Return the partitions of a topic that are wanted.

    Raises:
        SourceError: it has none, or one that nobody serves.
    """
    told = metadata.topics.get(topic.name)
    if told is None:
        raise as_source_error(KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART), f"topic {topic.name}")
    if told.error is not None:
        raise as_source_error(told.error, f"topic {topic.name}")
    numbers = sorted(told.partitions) if topic.partition is None else [topic.partition]
    for number in numbers:
        partition = told.partitions.get(number)
        if partition is None:
            text = f"topic {topic.name} has no partition {number}: correct RANGO_SOURCE"
            raise SourceRefused(text)
        if partition.leader < 0:
            raise SourceError(f"{topic.name}:{number} has no leader: check the cluster's brokers")
    return [(topic.name, number) for number in numbers]
