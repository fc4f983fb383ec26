"""URLs of Kafka clusters and rules for keys: what is read, what is refused, what is shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rango_gevent.errors import ConfigError
from rango_gevent.kafka_url import Topic, kafka_keys, read_kafka_url, shown_kafka_keys
from rango_gevent.settings import Settings, load, shown


def test_a_url_names_brokers_topics_and_who_asks() -> None:
    """The port is Kafka's by default; user and password are percent-decoded."""
    place = read_kafka_url(
        "kafkas://me:p%40ss@a.example,[::1]:9093/orders,deals:0?ssl.ca.location=/ca.pem"
    )
    assert place.brokers == "a.example:9092,[::1]:9093"
    assert place.topics == (Topic("orders", None), Topic("deals", 0))
    assert place.properties == {
        "security.protocol": "sasl_ssl",
        "sasl.mechanism": "PLAIN",
        "sasl.username": "me",
        "sasl.password": "p@ss",
        "ssl.ca.location": "/ca.pem",
    }
    assert not place.has_one_order


def test_one_partition_has_one_order() -> None:
    """Only where it is named: a topic may get more of them at any time."""
    assert read_kafka_url("kafka://h/deals:0").has_one_order
    assert not read_kafka_url("kafka://h/deals").has_one_order
    assert read_kafka_url("kafka://h/deals").properties == {}


@pytest.mark.parametrize(
    "url",
    [
        "kafka://", "kafka://h", "kafka://h/", "kafka://h/a,,b", "kafka://h:x/a", "kafka://,/a",
        "kafka://h/a b", "kafka://h/a:x", "amqp://h/a", "h:9092/a", "kafka://h/a,a", "kafka://h/a:0,a:1",
        "kafka://u:p@ss@h/a", "kafka://h/a?group.id=x", "kafka://h/a?debug=all", "kafka://h/a#b",
        "kafka://h/a?enable.auto.commit=true", "kafka://h/a?test.mock.num.brokers=1",
    ],
)  # fmt: skip
def test_what_is_no_url_is_refused(url: str) -> None:
    """And not shown: it may hold a password."""
    with pytest.raises(ConfigError) as caught:
        load({"RANGO_SOURCE": url})
    assert str(caught.value).startswith("RANGO_SOURCE: ")
    assert "p@ss" not in str(caught.value)


def test_a_url_is_shown_without_its_secrets() -> None:
    """Nor what its query holds."""
    url = "kafka://me:hunter2@h:1,i:2/a,b:0?sasl.mechanism=PLAIN&ssl.key.password=hunter2"
    settings = load({"RANGO_SOURCE": url}).settings
    assert shown(settings, "source") == "kafka://me:***@h:1,i:2/a,b:0?***"
    assert "hunter2" not in repr(settings)


def test_it_needs_no_log_of_rabbitmq_s() -> None:
    """It is one itself."""
    with pytest.raises(ConfigError, match="RANGO_SOURCE is a log already; give off"):
        load({"RANGO_SOURCE": "kafka://h/t", "RANGO_LOG": "stream"})


def test_the_rules_of_viabtc_s_topics_are_there() -> None:
    """With one for all others."""
    assert shown_kafka_keys(Settings().kafka_keys) == (
        "orders=private.{body.order.user}.order,balances=private.{body.1}.balance,"
        "deals=public.{body.1|lower}.trades,*={key}"
    )


@pytest.mark.parametrize(
    "value", ["a", "a=", "=b", "a={nothing}", "a={body}", "a={body.}", "a={key", "a=}", "a b=c", "a={key|upper}"]
)  # fmt: skip
def test_what_is_no_rule_is_refused(value: str) -> None:
    """With what a rule looks like."""
    with pytest.raises(ValueError, match="give TOPIC=KEY pairs"):
        kafka_keys(value)


@given(st.text(max_size=40))
def test_what_is_read_is_shown_as_it_was(text: str) -> None:
    """Any text is read or refused; what is read reads the same again."""
    try:
        rules = kafka_keys(text)
    except ValueError:
        return
    assert kafka_keys(shown_kafka_keys(rules)) == rules


@given(st.text(max_size=60))
def test_any_text_is_a_url_or_refused(text: str) -> None:
    """Never another error."""
    try:
        read_kafka_url(f"kafka://{text}")
    except ValueError as error:
        assert str(error)
