"""Routing keys of Kafka's messages: ViaBTC's topics, rules of one's own, and bodies that lie."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rango_gevent.settings import Settings
from rango_gevent.source.kafka.keys import Keys, NoKey

_ORDER = b'{"event":1,"order":{"id":7,"market":"BTCBCH","user":12,"left":"0.5"},"stock":"BTC"}'
_BALANCE = b'[1492358400.1, 12, "BTC", "deposit", "1.5"]'
_DEAL = b'[1492358400.1, "BTCBCH", 1, 2, 3, 4, "7000", "1", "0", "0", 2, 9, "BTC", "BCH"]'
default = Keys(dict(Settings().kafka_keys))


@pytest.mark.parametrize(
    ("topic", "body", "wanted"),
    [
        ("orders", _ORDER, "private.12.order"),
        ("balances", _BALANCE, "private.12.balance"),
        ("deals", _DEAL, "public.btcbch.trades"),
    ],
)
def test_viabtc_s_topics(topic: str, body: bytes, wanted: str) -> None:
    """Ready-made."""
    assert default.of(topic, None, body) == wanted


def test_the_record_s_key_is_the_routing_key_of_all_others() -> None:
    """Its topic can stand before it, or anything else."""
    assert default.of("anything", b"public.btcusd.trades", b"{}") == "public.btcusd.trades"
    keys = Keys({"a": "{topic}.{key}", "b": "public.{key|lower}.x", "*": "public.{body.m.0}.y"})
    assert keys.of("a", b"k", b"") == "a.k"
    assert keys.of("b", b"BTC", b"") == "public.btc.x"
    assert keys.of("c", None, b'{"m":["Q"]}') == "public.Q.y"
    with pytest.raises(NoKey, match="no rule for the topic"):
        Keys({"a": "{key}"}).of("b", b"k", b"")


@pytest.mark.parametrize(
    ("topic", "key", "body", "why"),
    [
        ("orders", None, b"{", "the body is no JSON"),
        ("orders", None, b"", "the body is no JSON"),
        ("orders", None, b"\xff", "the body is no JSON"),
        ("orders", None, b"[" * 100_000, "the body is no JSON"),
        ("orders", None, b"[]", "the body has no order.user"),
        ("orders", None, b'{"order":{}}', "the body has no order.user"),
        ("orders", None, b'{"order":null}', "the body has no order.user"),
        ("orders", None, b'{"order":{"user":1.5}}', "order.user in the body is no word"),
        ("orders", None, b'{"order":{"user":true}}', "order.user in the body is no word"),
        ("orders", None, b'{"order":{"user":""}}', "order.user in the body is no word"),
        ("orders", None, b'{"order":{"user":"1.order"}}', "order.user in the body is no word"),
        ("balances", None, b"[1]", "the body has no 1"),
        ("balances", None, b'"text"', "the body has no 1"),
        ("others", None, b"{}", "the record has no key"),
        ("others", b"", b"{}", "the record has no key"),
        ("others", b"\xff", b"{}", "the record's key is no UTF-8"),
    ],
)
def test_what_has_no_key_says_why(topic: str, key: bytes | None, body: bytes, why: str) -> None:
    """A user of somebody else's cannot be named by a dot."""
    with pytest.raises(NoKey) as caught:
        default.of(topic, key, body)
    assert str(caught.value) == why


@given(st.binary(max_size=40), st.none() | st.binary(max_size=9), st.sampled_from(["deals", "x"]))
def test_any_message_has_a_key_or_none(body: bytes, key: bytes | None, topic: str) -> None:
    """Never another error."""
    try:
        assert isinstance(default.of(topic, key, body), str)
    except NoKey as error:
        assert str(error)
