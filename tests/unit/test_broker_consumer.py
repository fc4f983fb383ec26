"""The consumer between connections: how long it waits, what it says, when silence is too long."""

from __future__ import annotations

import logging
import time

import pytest
from amqp.exceptions import AccessRefused

from rango_gevent.broker import consumer as module
from rango_gevent.broker.connection import BrokerTimeout, Overtaken
from rango_gevent.broker.consumer import (
    FIRST_WAIT_S,
    MAX_WAIT_S,
    PATIENT_WAIT_S,
    REFUSED_WAIT_S,
    BrokerLimits,
    Consumer,
    published_at,
)
from rango_gevent.broker.topology import QueueLimits

URL = "amqp://user:secret@broker.example//"


class Clock:
    """A monotonic clock that moves when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Put a clock in place of the machine's."""
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    return clock


@pytest.fixture
def consumer(clock: Clock) -> Consumer:
    """Return a consumer that has not run yet."""
    limits = BrokerLimits(5.0, 10, QueueLimits(100, 10.0))
    return Consumer([URL], "exchange", lambda key, body, at_s: None, limits)


def waits(consumer: Consumer, error: Exception, count: int) -> list[float]:
    """Fail so often, and return how long it would wait each time."""
    found = []
    for _ in range(count):
        consumer._failed(URL, error)
        found.append(consumer._next_wait())
    return found


def test_an_absent_broker_is_tried_twice_a_second(consumer: Consumer, clock: Clock) -> None:
    """The first attempt comes at once, and none waits longer than half a second, ever."""
    found = waits(consumer, ConnectionRefusedError("refused"), 50)
    assert found[0] <= FIRST_WAIT_S
    clock.now += 86_400
    assert max(found + waits(consumer, ConnectionRefusedError("refused"), 50)) <= MAX_WAIT_S
    assert min(found[5:]) >= MAX_WAIT_S / 2, "jitter halves it at most"
    assert len(set(found)) > 40, "many gateways must not come back in step"


def test_a_refusing_broker_is_spared_after_a_minute(consumer: Consumer, clock: Clock) -> None:
    """A wrong password is retried quickly while somebody may be changing it, and then slowly."""
    refused = AccessRefused("wrong password")
    assert REFUSED_WAIT_S / 2 <= max(waits(consumer, refused, 50)) <= REFUSED_WAIT_S
    clock.now += 61
    assert PATIENT_WAIT_S / 2 <= max(waits(consumer, refused, 50)) <= PATIENT_WAIT_S


def test_after_an_attempt_that_was_overtaken_the_next_comes_at_once(consumer: Consumer) -> None:
    """The broker has just answered a probe: there is nothing to wait for."""
    waits(consumer, BrokerTimeout("no answer"), 50)
    assert waits(consumer, Overtaken("no answer"), 1)[0] <= FIRST_WAIT_S


def test_a_failure_is_logged_once_a_minute(
    consumer: Consumer, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """The same text is said once a minute, another at once, a misconfiguration as an error."""
    caplog.set_level(logging.WARNING)
    waits(consumer, OSError("first"), 20)
    waits(consumer, AccessRefused("second"), 20)
    assert [record.levelname for record in caplog.records] == ["WARNING", "ERROR"]
    clock.now += 61
    waits(consumer, AccessRefused("second"), 20)
    assert len(caplog.records) == 3
    assert "secret" not in caplog.text
    assert consumer.problem == "broker: second"
    assert consumer.failures == 60


def test_a_bug_is_logged_with_its_traceback(
    consumer: Consumer, caplog: pytest.LogCaptureFixture
) -> None:
    """What no broker can cause is not hidden behind a word about the broker."""
    try:
        raise KeyError("bug")
    except KeyError as error:
        consumer._failed(URL, error)
    assert "Traceback" in caplog.text


def test_silence_is_counted_in_periods(clock: Clock) -> None:
    """A broker is lost after one and a half heartbeats of reading in vain, and not before."""
    beat = module._Beat(10)
    for _ in range(37):
        beat.silence()
    beat.heard()
    clock.now += 3600  # a process that was stopped for an hour has heard what waits for it
    for _ in range(37):
        beat.silence()
    with pytest.raises(BrokerTimeout, match=r"nothing heard for 15\.2 s"):
        beat.silence()


def test_tasks_are_due_once_a_second(clock: Clock) -> None:
    """Busy or silent, a second never passes without them, and they are not much more frequent."""
    times: list[float] = []
    beat = module._Beat(0, lambda: times.append(clock.now))
    for _ in range(10_000):
        beat.heard()
        clock.now += 0.001
    for _ in range(25):
        beat.silence()
        clock.now += 0.4
    gaps = [after - before for before, after in zip(times, times[1:])]
    assert min(gaps) >= 0.6
    assert max(gaps) <= 1.0


def test_the_time_of_publishing_is_the_header() -> None:
    """Milliseconds from the header, and now where there is none or it is no number."""
    assert published_at({"timestamp_in_ms": 1_700_000_000_123}) == pytest.approx(1_700_000_000.123)
    for headers in (None, {}, {"timestamp_in_ms": "soon"}):
        assert published_at(headers) == pytest.approx(time.time(), abs=5)
