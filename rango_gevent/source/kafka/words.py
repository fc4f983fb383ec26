"""What librdkafka says went wrong, as an error of a source: one line, with what helps."""

from __future__ import annotations

from typing import Iterable

from confluent_kafka import KafkaError

from rango_gevent.source.base import SourceError, SourceRefused

_ACL = "give the user the right to read and to describe it: kafka-acls --add --operation Read"
_LOGIN = "check user, password and sasl.mechanism in RANGO_SOURCE"
_REFUSED = {
    KafkaError.UNKNOWN_TOPIC_OR_PART: "create it, or correct RANGO_SOURCE",
    KafkaError._UNKNOWN_TOPIC: "create it, or correct RANGO_SOURCE",
    KafkaError._UNKNOWN_PARTITION: "correct RANGO_SOURCE",
    KafkaError.TOPIC_AUTHORIZATION_FAILED: _ACL,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: _ACL,
    KafkaError._AUTHENTICATION: _LOGIN,
    KafkaError.SASL_AUTHENTICATION_FAILED: _LOGIN,
    KafkaError.UNSUPPORTED_SASL_MECHANISM: "correct sasl.mechanism in RANGO_SOURCE",
    KafkaError._SSL: "check the certificates; ssl.ca.location in RANGO_SOURCE names an authority",
    KafkaError._INVALID_ARG: "correct what RANGO_SOURCE has after its ?",
}
_FAULTS = {
    KafkaError._RESOLVE: "check the hosts in RANGO_SOURCE, and those that the brokers advertise",
    KafkaError._ALL_BROKERS_DOWN: "check that one runs and can be reached",
    KafkaError._TRANSPORT: "check that it runs and can be reached",
    KafkaError._TIMED_OUT: "check that it runs and can be reached",
}


def as_source_error(error: KafkaError, about: str = "") -> SourceError:
    """Return what a source raises for an error of librdkafka.

    Args:
        error: of a broker, a topic or the configuration.
        about: what it is about, such as a topic; empty: the error says it.
    """
    code = error.code()
    cure = _REFUSED.get(code) or _FAULTS.get(code)
    said = " ".join(error.str().split())
    text = ": ".join(part for part in (about, said, cure) if part)
    return (SourceRefused if code in _REFUSED else SourceError)(text)


def most_telling(errors: Iterable[KafkaError]) -> KafkaError | None:
    """Return the error that says most: which broker, where another says that all are down."""
    found = None
    for error in errors:
        if found is None or found.code() == KafkaError._ALL_BROKERS_DOWN:
            found = error
    return found
