"""What is wrong with a cluster, in one line with what helps: refusals apart from faults."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from confluent_kafka import KafkaError

from rango_gevent.kafka_url import Topic
from rango_gevent.source.base import SourceError, SourceRefused
from rango_gevent.source.kafka.source import _partitions_of
from rango_gevent.source.kafka.words import as_source_error, most_telling


def _cluster(*leaders: int, error: KafkaError | None = None) -> SimpleNamespace:
    partitions = {number: SimpleNamespace(leader=leader) for number, leader in enumerate(leaders)}
    return SimpleNamespace(topics={"t": SimpleNamespace(partitions=partitions, error=error)})


def test_the_partitions_that_are_wanted_are_found() -> None:
    """All, or the one that is named."""
    assert _partitions_of(Topic("t", None), _cluster(1, 2)) == [("t", 0), ("t", 1)]
    assert _partitions_of(Topic("t", 1), _cluster(-1, 2)) == [("t", 1)]


@pytest.mark.parametrize(
    ("topic", "cluster", "kind", "said"),
    [
        (Topic("t", None), _cluster(1, -1), SourceError, "t:1 has no leader: check the cluster's brokers"),
        (Topic("t", 5), _cluster(1), SourceRefused, "topic t has no partition 5: correct RANGO_SOURCE"),
        (Topic("u", None), _cluster(1), SourceRefused,
         "topic u: Broker: Unknown topic or partition: create it, or correct RANGO_SOURCE"),
        (Topic("t", None), _cluster(error=KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)), SourceRefused,
         "topic t: Broker: Topic authorization failed: give the user the right to read and to describe "
         "it: kafka-acls --add --operation Read"),
    ],
)  # fmt: skip
def test_what_a_topic_lacks_is_told(
    topic: Topic, cluster: SimpleNamespace, kind: type[SourceError], said: str
) -> None:
    """What settings or rights must cure is a refusal, which is tried less often."""
    with pytest.raises(SourceError) as caught:
        _partitions_of(topic, cluster)
    assert type(caught.value) is kind
    assert str(caught.value) == said


def test_an_error_is_one_line() -> None:
    """Whatever librdkafka writes."""
    error = as_source_error(KafkaError(KafkaError._SSL, "handshake failed:\n  certificate\n"))
    assert isinstance(error, SourceRefused)
    assert str(error).startswith("handshake failed: certificate: check the certificates; ")


def test_that_all_are_down_says_least() -> None:
    """Which one, and why, was said too."""
    down, refused = KafkaError(KafkaError._ALL_BROKERS_DOWN), KafkaError(KafkaError._TRANSPORT)
    assert most_telling([down, refused]) is refused
    assert most_telling([refused, down]) is refused
    assert most_telling([]) is None
