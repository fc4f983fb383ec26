"""``rango load`` without a gateway: what it asks for, and the stamp of its events."""

from __future__ import annotations

import json
import ssl

import pytest

from rango_gevent import cli
from rango_gevent.commands import load
from rango_gevent.commands.load_plan import Plan, make_plan
from rango_gevent.errors import ConfigError


def plan(*words: str, **environ: str) -> Plan:
    """Return the plan of a command line."""
    return make_plan(cli.parse(["load", *words]), environ)


def test_streams_go_into_the_url_behind_the_path_of_a_proxy() -> None:
    """Names are encoded, each once; a token leads to /private."""
    made = plan("wss://shop.example/ws", "a.b", "a.b", "c d&e")
    assert made.url == "wss://shop.example/ws/public?stream=a.b&stream=c%20d%26e"
    assert made.names == ("a.b", "c d&e")
    assert made.tls.verify_mode == ssl.CERT_REQUIRED
    made = plan("ws://h?x=1", "order", "--insecure", RANGO_TOKEN="Bearer abc")
    assert (made.url, made.token) == ("ws://h/private?x=1&stream=order", "abc")
    assert made.tls.verify_mode == ssl.CERT_NONE


def test_a_run_that_publishes_has_a_stream_of_its_own() -> None:
    """It is a public one, no book, and another for each run."""
    one, other = (plan("ws://h", "--publish", "amqp://b") for _ in range(2))
    assert one.own != other.own
    assert one.names == (one.own,)
    assert one.own.startswith("load-")
    assert one.own.endswith(".events")


def test_nothing_to_listen_to_is_told() -> None:
    """Without a stream and without --publish there would be nothing to measure."""
    with pytest.raises(ConfigError, match="name a stream"):
        plan("ws://h")


def test_more_files_than_the_system_allows_are_told() -> None:
    """The line names what is needed and the cure."""
    with pytest.raises(ConfigError, match=r"need \d+ open files, .*ulimit"):
        load.allow_files(10**9)


@pytest.mark.parametrize("number", [0, 7, 10**9])
def test_a_stamped_event_is_known_again(number: int) -> None:
    """Number and time come back out of the frame, also when a gateway has written it anew."""
    body = load.stamp(number, 123_456)
    assert len(body) == pytest.approx(200, abs=5)
    anew = json.dumps(json.loads(body), separators=(",", ":"), sort_keys=True).encode()
    for text in (body, anew):
        found = load._stamped("load-1.events").match(b'{"load-1.events":' + text + b"}")
        assert found is not None
        assert (int(found[1]), int(found[2])) == (number, 123_456)


def test_other_events_are_no_stamps() -> None:
    """Those of other streams, and all of them when nothing is published."""
    event = b'{"load-1.events":' + load.stamp(1, 2) + b"}"
    assert load._stamped("load-2.events").match(event) is None
    assert load._stamped("").match(event) is None
