"""What a publisher does when the broker, or the path to it, fails: nothing is lost in silence."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path
from typing import Any, Iterator

import pytest
from relay import HOST, Relay
from scene import Login
from support import ROOT, broker_address, wait_for

from rango_gevent.publisher import Publisher, PublishError

sys.path.append(str(ROOT / "scripts"))
from rabbitmq_node import PrivateNode  # noqa: E402 - found on the line before

AT_ONCE_S = 8.0  # milliseconds, on a machine that is not busy
SHORT_S = 3.0  # a deadline that the first event keeps on a busy machine too
PATIENT_S = 8.0  # one that a busy machine keeps in any case
LONG_S = 30.0


class Inbox:
    """A consumer straight at the broker.

    Attributes:
        exchange: its exchange.
        got: body and id of each message.
    """

    def __init__(self, port: int) -> None:
        self.exchange = f"test.publisher.{os.urandom(6).hex()}"
        self.got: list[tuple[str, str]] = []
        self._connection = Login().connect(port)
        self._channel = channel = self._connection.channel()
        channel.exchange_declare(self.exchange, "topic", durable=False, auto_delete=False)
        self._queue = channel.queue_declare(exclusive=True).queue
        channel.queue_bind(self._queue, self.exchange, "#")

    def bodies(self) -> list[str]:
        """Return all bodies that came so far."""
        while (message := self._channel.basic_get(self._queue, no_ack=True)) is not None:
            self.got.append((message.body, message.properties["message_id"]))
        return [body for body, _ in self.got]

    def receives(self, *bodies: str) -> None:
        """Wait until these, and these alone, have come, in this order."""
        wait_for(lambda: len(self.bodies()) >= len(bodies), LONG_S, "what was published")
        assert self.bodies() == list(bodies)

    def close(self) -> None:
        """Leave nothing behind."""
        self._channel.exchange_delete(self.exchange)
        self._connection.close()


@pytest.fixture
def relay() -> Iterator[Relay]:
    """Give a path to the broker that breaks on command."""
    with Relay(broker_address().port) as relay:
        yield relay


@pytest.fixture
def inbox() -> Iterator[Inbox]:
    """Give a consumer."""
    inbox = Inbox(broker_address().port)
    yield inbox
    inbox.close()


@pytest.fixture(scope="module")
def node() -> Iterator[PrivateNode]:
    """Give a broker of our own."""
    with PrivateNode() as node:
        yield node


def publisher(port: int, inbox: Inbox, **options: Any) -> Publisher:
    """Return a publisher that has published."""
    options = {"deadline_s": PATIENT_S, **options}
    one = Publisher(f"amqp://guest:guest@{HOST}:{port}//", exchange=inbox.exchange, **options)
    one.publish("public.a.b", "0")
    return one


def freeze(node: PrivateNode) -> None:
    """Stop a broker where it is, and wait until it stands still."""
    node.freeze()
    stat = Path(f"/proc/{node.pid}/stat")
    wait_for(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T", what="a standstill")


def duration_s(started_s: float) -> float:
    """Return the seconds since then."""
    return time.monotonic() - started_s


# -- a connection that ends ------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["cut", "reset"])
@pytest.mark.parametrize("on_down", ["buffer", "block", "raise"])
def test_an_idle_connection_that_was_cut(
    relay: Relay, inbox: Inbox, how: str, on_down: str
) -> None:
    """By a load balancer, say: the next event takes a new connection, once, whatever the policy."""
    with publisher(relay.port, inbox, on_down=on_down) as one:
        getattr(relay, how)()
        one.publish("public.a.b", "1")
        assert one.stats().retried == 1
    inbox.receives("0", "1")


def test_an_idle_connection_that_was_forgotten(relay: Relay, inbox: Inbox) -> None:
    """One that swallows everything without a word is given up in time for another attempt."""
    with publisher(relay.port, inbox, deadline_s=PATIENT_S) as one:
        idle_until = time.monotonic() + 1.1
        wait_for(lambda: time.monotonic() > idle_until, what="an idle connection")
        relay.black_hole()
        relay.heal()
        one.publish("public.a.b", "1")
    inbox.receives("0", "1")


def test_without_confirms_an_idle_connection_that_was_cut(relay: Relay, inbox: Inbox) -> None:
    """What the end of the connection has told us already is seen before sending."""
    with publisher(relay.port, inbox, confirm=False) as one:
        inbox.receives("0")
        relay.cut()
        one.publish("public.a.b", "1")
    inbox.receives("0", "1")


def test_an_end_before_the_confirm(relay: Relay, inbox: Inbox) -> None:
    """The event is sent again, with the same id: it may come twice, and is never lost."""
    with publisher(relay.port, inbox) as one:
        relay.break_after(5)  # a confirm has 21 bytes
        one.publish("public.a.b", "1")
        assert one.stats().retried == 1
    inbox.receives("0", "1", "1")
    assert inbox.got[1][1] == inbox.got[2][1]


def test_an_end_before_the_confirm_and_no_way_back(relay: Relay, inbox: Inbox) -> None:
    """The error says that the event may have been sent, and which it is."""
    with publisher(relay.port, inbox, on_down="raise") as one:
        relay.refuse()
        relay.break_after(5)
        with pytest.raises(PublishError) as caught:
            one.publish("public.a.b", "1")
        assert caught.value.maybe_sent
        assert caught.value.unconfirmed == (("public.a.b", b"1"),)
    inbox.receives("0", "1")


def test_an_end_in_the_middle_of_a_batch(relay: Relay, inbox: Inbox) -> None:
    """What was confirmed is not sent again, the rest is, and all of it arrives."""
    with publisher(relay.port, inbox, deadline_s=LONG_S) as one:
        relay.break_after(100)
        with one.batch() as batch:
            for number in range(1, 3000):
                batch.publish("public.a.b", str(number))
    wait_for(lambda: len(set(inbox.bodies())) == 3000, LONG_S, "all of the batch")
    firsts = list(dict.fromkeys(inbox.bodies()))
    assert firsts == [str(number) for number in range(3000)]


# -- a broker that is away -------------------------------------------------------------------------


def test_raise(relay: Relay, inbox: Inbox) -> None:
    """The error comes at once, and says that nothing was sent."""
    with publisher(relay.port, inbox, on_down="raise", deadline_s=LONG_S) as one:
        relay.refuse()
        relay.cut()
        started_s = time.monotonic()
        with pytest.raises(PublishError, match="refused") as caught:
            one.publish("public.a.b", "1")
        assert duration_s(started_s) < AT_ONCE_S
        assert not caught.value.maybe_sent
        assert one.stats().failed == 1


def test_block_until_the_deadline(relay: Relay, inbox: Inbox) -> None:
    """It is tried until then, and not any longer."""
    with publisher(relay.port, inbox, on_down="block", deadline_s=SHORT_S) as one:
        relay.refuse()
        relay.cut()
        started_s = time.monotonic()
        with pytest.raises(PublishError):
            one.publish("public.a.b", "1")
        assert 0.3 < duration_s(started_s) < SHORT_S + AT_ONCE_S
        assert one.stats().retried > 1


def test_block_until_it_is_back(relay: Relay, inbox: Inbox) -> None:
    """A short outage only delays."""
    with publisher(relay.port, inbox, on_down="block", deadline_s=LONG_S) as one:
        relay.refuse()
        relay.cut()
        threading.Timer(0.5, relay.heal).start()
        one.publish("public.a.b", "1")
    inbox.receives("0", "1")


@pytest.mark.parametrize("on_down", ["block", "raise"])
def test_a_path_that_swallows_everything(relay: Relay, inbox: Inbox, on_down: str) -> None:
    """The deadline holds, for the old connection and for a new one."""
    with publisher(relay.port, inbox, on_down=on_down, deadline_s=SHORT_S) as one:
        relay.black_hole()
        for reason, maybe_sent in (("late", True), ("away", False)):
            started_s = time.monotonic()
            with pytest.raises(PublishError) as caught:
                one.publish("public.a.b", "1")
            assert duration_s(started_s) < SHORT_S + AT_ONCE_S
            assert (caught.value.reason, caught.value.maybe_sent) == (reason, maybe_sent)


def test_buffer(relay: Relay, inbox: Inbox) -> None:
    """Events wait, in order, past the bound without the oldest, and are sent when it is back."""
    with publisher(relay.port, inbox, on_down="buffer", buffer=3) as one:
        relay.refuse()
        relay.cut()
        started_s = time.monotonic()
        for number in range(1, 6):
            one.publish("public.a.b", str(number))
        assert duration_s(started_s) < AT_ONCE_S
        wait_for(lambda: one.stats()[:4] == (1, 3, 2, 0), LONG_S, "a full buffer")
        with pytest.raises(PublishError):
            one.publish("public.a.b", "7", require_gateway=True)
        relay.heal()
        wait_for(lambda: not one.stats().waiting, LONG_S, "an empty buffer")
        one.publish("public.a.b", "6")
        assert one.stats().published == 5
    inbox.receives("0", "3", "4", "5", "6")


def test_what_waits_at_the_end(
    relay: Relay, inbox: Inbox, caplog: pytest.LogCaptureFixture
) -> None:
    """Closing tries once more, for a bounded time, and says how much is given up."""
    one = publisher(relay.port, inbox, on_down="buffer", deadline_s=SHORT_S)
    relay.refuse()
    relay.cut()
    one.publish("public.a.b", "1")
    started_s = time.monotonic()
    one.close()
    assert duration_s(started_s) < SHORT_S + AT_ONCE_S
    assert "1 events are given up" in caplog.text
    assert one.stats().dropped == 1
    relay.heal()
    one.publish("public.a.b", "2")  # it may be used again
    relay.refuse()
    relay.cut()
    one.publish("public.a.b", "3")
    relay.heal()
    one.close()
    inbox.receives("0", "2", "3")
    assert one.stats().waiting == 0


# -- a broker that takes nothing -------------------------------------------------------------------


def test_a_memory_alarm(node: PrivateNode) -> None:
    """It is told at once, in the broker's words, and not waited for."""
    inbox = Inbox(node.port)
    impatient = publisher(node.port, inbox, on_down="block", deadline_s=LONG_S)
    buffered = publisher(node.port, inbox, on_down="buffer")
    try:
        node.ctl("set_vm_memory_high_watermark", "0.0001")
        alarms = "rabbit_alarm:get_alarms()."
        wait_for(lambda: "memory" in node.ctl("eval", alarms), LONG_S, "the alarm")
        for maybe_sent in (True, False):  # the first one finds it out
            started_s = time.monotonic()
            with pytest.raises(PublishError, match="takes nothing") as caught:
                impatient.publish("public.a.b", "1")
            assert duration_s(started_s) < LONG_S / 2
            assert (caught.value.reason, caught.value.maybe_sent) == ("blocked", maybe_sent)
        buffered.publish("public.a.b", "2")
        assert buffered.stats().waiting == 1
    finally:
        node.ctl("set_vm_memory_high_watermark", "absolute", "1GB")
    wait_for(lambda: not buffered.stats().waiting, LONG_S, "an empty buffer")
    wait_for(lambda: _publishes(impatient), LONG_S, "the end of the alarm")
    assert {"0", "2", "3"} <= set(inbox.bodies())
    impatient.close()
    buffered.close()
    inbox.close()


def _publishes(publisher: Publisher) -> bool:
    try:
        publisher.publish("public.a.b", "3")
    except PublishError:
        return False
    return True


def test_a_broker_that_hangs(node: PrivateNode) -> None:
    """A confirm that comes too late is not taken for that of a later event."""
    inbox = Inbox(node.port)
    one = publisher(node.port, inbox, deadline_s=SHORT_S)
    freeze(node)
    try:
        started_s = time.monotonic()
        with pytest.raises(PublishError) as caught:
            one.publish("public.a.b", "1")
        assert duration_s(started_s) < SHORT_S + AT_ONCE_S
        assert caught.value.maybe_sent
    finally:
        node.thaw()
    wait_for(lambda: _publishes(one), LONG_S, "a broker that goes on")
    assert inbox.bodies()[-1] == "3"
    one.close()
    inbox.close()


def test_a_broker_that_is_killed_before_the_confirm(node: PrivateNode) -> None:
    """With a buffer the event is kept, and published to the broker that comes in its place."""
    inbox = Inbox(node.port)
    one = publisher(node.port, inbox, on_down="buffer", deadline_s=LONG_S)
    freeze(node)
    thread = threading.Thread(target=one.publish, args=("public.a.b", "1"))
    thread.start()
    node.kill()
    thread.join(LONG_S)
    assert one.stats().waiting == 1
    node.start()
    wait_for(lambda: not one.stats().waiting, LONG_S, "an empty buffer")
    assert one.stats().dropped == 0
    one.close()
