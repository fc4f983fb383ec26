"""The URL of a Kafka cluster, taken apart, and what to make of its topics' messages.

``kafka://[USER:PASSWORD@]HOST:PORT[,HOST:PORT...]/TOPIC[,TOPIC...][?PROPERTY=VALUE...]``, or kafkas://
for TLS. ``TOPIC:N`` is one partition of it. Properties are librdkafka's own, such as
``ssl.ca.location``. Pure; it is read by the settings and by the source.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

from rango_gevent.parsers import Problem

KAFKA_SCHEMES = ("kafka", "kafkas")
_PORT = 9092
_TOPIC = r"[A-Za-z0-9._-]{1,249}(:[0-9]{1,6})?"  # Kafka's own rule, and a partition
_BROKER = r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?"
_OURS = re.compile(
    r"(group\.|enable\.|auto\.|queued\.|bootstrap\.|metadata\.broker|test\.|debug|log|plugin\.|.*_cb$)"
)
_URL_WANTED = "give kafka://HOST:PORT/TOPIC, several hosts and topics separated by commas"
_KEYS_WANTED = (
    "give TOPIC=KEY pairs separated by commas, such as deals=public.{body.1|lower}.trades; in a "
    "KEY stand {key}, {topic} and {body.NAME}, each may end in |lower"
)
_FIELD = r"\{(?:key|topic|body(?:\.[^.{}|,=\s]+)+)(?:\|lower)?\}"


class Topic(NamedTuple):
    """A topic, and one partition of it or None for all."""

    name: str
    partition: int | None


class KafkaPlace(NamedTuple):
    """What a URL names.

    Attributes:
        brokers: ``host:port`` with commas, as librdkafka wants them.
        topics: at least one.
        properties: of librdkafka, by name.
    """

    brokers: str
    topics: tuple[Topic, ...]
    properties: dict[str, str]

    @property
    def has_one_order(self) -> bool:
        """Tell whether all who read it get the same messages in the same order."""
        return len(self.topics) == 1 and self.topics[0].partition is not None


def read_kafka_url(url: str) -> KafkaPlace:
    """Take a URL apart.

    Raises:
        Problem: it is none.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        raise Problem(_URL_WANTED) from None
    login, at, hosts = parts.netloc.rpartition("@")
    brokers = hosts.split(",")
    topics = parts.path[1:].split(",")
    if (
        parts.scheme not in KAFKA_SCHEMES
        or parts.fragment
        or not all(re.fullmatch(_BROKER, broker) for broker in brokers)
        or not all(re.fullmatch(_TOPIC, topic) for topic in topics)
    ):
        raise Problem(_URL_WANTED)
    if "@" in parts.path + parts.query or "@" in login:
        raise Problem("give user and password percent-encoded, such as %2F for /")
    named = tuple(_topic(topic) for topic in topics)
    if len({topic.name for topic in named}) < len(named):
        raise Problem("give each topic once")
    properties = _security(parts.scheme == "kafkas", login if at else None)
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if _OURS.match(name):
            raise Problem(f"{name} cannot be set here")
        properties[name] = value
    return KafkaPlace(",".join(map(_with_port, brokers)), named, properties)


def _topic(text: str) -> Topic:
    name, colon, partition = text.partition(":")
    return Topic(name, int(partition) if colon else None)


def _with_port(broker: str) -> str:
    return broker if re.search(r":[0-9]+$", broker.rpartition("]")[2]) else f"{broker}:{_PORT}"


def _security(tls: bool, login: str | None) -> dict[str, str]:
    if login is None:
        return {"security.protocol": "ssl"} if tls else {}
    user, _, password = login.partition(":")
    return {
        "security.protocol": "sasl_ssl" if tls else "sasl_plaintext",
        "sasl.mechanism": "PLAIN",
        "sasl.username": unquote(user),
        "sasl.password": unquote(password),
    }


def kafka_url(value: str) -> str:
    """Parse a setting: a URL, or nothing."""
    if value:
        read_kafka_url(value)
    return value


def kafka_keys(value: str) -> tuple[tuple[str, str], ...]:
    """Parse a setting: TOPIC=KEY pairs, in their order; the topic * is every other one."""
    found = []
    for pair in filter(None, (part.strip() for part in value.split(","))):
        topic, _, key = pair.partition("=")
        if not re.fullmatch(r"\*|[A-Za-z0-9._-]{1,249}", topic):
            raise Problem(_KEYS_WANTED)
        if not re.fullmatch(rf"(?:{_FIELD}|[^{{}}\s])+", key):
            raise Problem(_KEYS_WANTED)
        found.append((topic, key))
    return tuple(found)


def shown_kafka_keys(value: tuple[tuple[str, str], ...]) -> str:
    """Return what `kafka_keys` reads as that."""
    return ",".join(f"{topic}={key}" for topic, key in value)
