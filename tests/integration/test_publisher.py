"""The publisher against a real broker: what arrives, what is raised, who may share it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest
from support import ROOT, Server, amqp_url, broker_channel, free_port, wait_for

from rango_gevent.publisher import Market, Publisher, PublishError
from rango_gevent.publisher.link import Deadline


class Inbox:
    """A queue of our own, bound to an exchange of our own.

    Attributes:
        exchange: its name.
    """

    def __init__(self) -> None:
        self.exchange = f"test.publisher.{uuid.uuid4().hex[:12]}"
        self._channel = broker_channel()
        self.queue = ""

    def bind(self, key: str = "#", **arguments: Any) -> Inbox:
        """Declare the exchange and a queue; both go with the test."""
        self._channel.exchange_declare(self.exchange, "topic", durable=False, auto_delete=False)
        self.queue = self._channel.queue_declare(exclusive=True, arguments=arguments or None).queue
        self._channel.queue_bind(self.queue, self.exchange, key)
        return self

    def take(self) -> Any:
        """Return the next message; None when there is none."""
        return self._channel.basic_get(self.queue, no_ack=True)

    def all(self, count: int) -> list[tuple[str, Any]]:
        """Return key and body of so many messages, and see that no more come."""
        found: list[tuple[str, Any]] = []

        def is_enough() -> bool:
            while (message := self.take()) is not None:
                found.append((message.delivery_info["routing_key"], json.loads(message.body)))
            return len(found) >= count

        while not is_enough():  # one by one, which takes its time for thousands
            wait_for(self._has_more, what=f"more than {len(found)} of {count} messages")
        assert len(found) == count
        return found

    def _has_more(self) -> bool:
        return bool(self._channel.queue_declare(self.queue, passive=True).message_count)

    def close(self) -> None:
        """Delete queue and exchange."""
        if self.queue:
            self._channel.queue_delete(self.queue)
        self._channel.exchange_delete(self.exchange)


@pytest.fixture
def inbox() -> Iterator[Inbox]:
    """Give a queue; it is bound by those who want it bound."""
    inbox = Inbox()
    yield inbox
    inbox.close()


@pytest.fixture
def publisher(inbox: Inbox) -> Iterator[Publisher]:
    """Give a publisher to the inbox's exchange."""
    with Publisher(amqp_url(), exchange=inbox.exchange, deadline_s=60) as publisher:
        yield publisher


# -- what arrives -----------------------------------------------------------------------------


def test_what_a_message_carries(inbox: Inbox, publisher: Publisher) -> None:
    """Key, body, type, the time of publishing and an id; it is not stored."""
    before_ms = int(time.time() * 1000)
    inbox.bind()
    publisher.publish("public.btcusd.trades", {"trades": [{"tid": 7}]})
    message = inbox.take()
    assert message.delivery_info["routing_key"] == "public.btcusd.trades"
    assert message.body == '{"trades":[{"tid":7}]}'
    properties = message.properties
    assert properties["content_type"] == "application/json"
    assert properties["delivery_mode"] == 1
    assert properties["message_id"]
    assert before_ms <= properties["application_headers"]["timestamp_in_ms"] <= time.time() * 1000


def test_a_body_larger_than_a_frame(inbox: Inbox, publisher: Publisher) -> None:
    """It goes in several frames and arrives as it was."""
    inbox.bind()
    publisher.publish("public.a.b", {"x": "y" * 1_000_000})
    assert inbox.all(1) == [("public.a.b", {"x": "y" * 1_000_000})]


@pytest.mark.parametrize("confirm", [True, False])
def test_a_batch_keeps_its_order(inbox: Inbox, confirm: bool) -> None:
    """With confirms by ``multiple`` and without any."""
    inbox.bind()
    with Publisher(
        amqp_url(), exchange=inbox.exchange, confirm=confirm, deadline_s=60
    ) as publisher:
        with publisher.batch() as batch:
            for number in range(12_000):
                batch.publish("public.a.b", number)
        assert publisher.stats().published == 12_000
    assert [body for _, body in inbox.all(12_000)] == list(range(12_000))


def test_a_batch_that_ends_by_an_exception(inbox: Inbox, publisher: Publisher) -> None:
    """It publishes nothing more, and the exception goes on."""
    inbox.bind()
    with pytest.raises(KeyError), publisher.batch() as batch:
        batch.publish("public.a.b", 1)
        raise KeyError("x")
    publisher.publish("public.a.b", 2)
    assert [body for _, body in inbox.all(1)] == [2]


def test_a_market_reaches_clients(gateway: Server, market: str) -> None:
    """A newcomer to the book gets the snapshot and what follows, byte for byte in order."""
    with Publisher(amqp_url(), exchange=gateway.exchange, deadline_s=60) as publisher:
        one = Market(publisher, market)
        one.snapshot([("9001.0", "0.4")], [("8999.5", "1.2")])
        one.increment(asks=[("9001.0", "0.1")])
        gateway.catch_up()
        with gateway.connect(f"/public?stream={market}.ob-inc") as client:
            first = client.receive_json()[f"{market}.ob-snap"]
            second = client.receive_json()[f"{market}.ob-inc"]
    assert (first["sequence"], first["bids"]) == (1, [["8999.5", "1.2"]])
    assert second == {"asks": [["9001.0", "0.1"]], "bids": [], "sequence": 2}


# -- the exchange -----------------------------------------------------------------------------


def test_a_missing_exchange_is_declared_as_peatio_does(inbox: Inbox, publisher: Publisher) -> None:
    """So that whoever declares it so after us is let in: not durable, not auto-deleted."""
    publisher.publish("public.a.b", 1)
    inbox.bind()  # with other arguments it would be 406
    publisher.publish("public.a.b", 2)
    assert [body for _, body in inbox.all(1)] == [2]


def test_a_durable_exchange_is_taken_as_it_is(inbox: Inbox, publisher: Publisher) -> None:
    """No 406."""
    broker_channel().exchange_declare(inbox.exchange, "topic", durable=True, auto_delete=False)
    publisher.publish("public.a.b", 1)


def test_an_exchange_that_must_be_there(inbox: Inbox) -> None:
    """Nothing is declared, and trying again is not even thought of."""
    with (
        Publisher(amqp_url(), exchange=inbox.exchange, declare=False, deadline_s=30) as publisher,
        pytest.raises(PublishError, match="does not exist") as caught,
    ):
        publisher.publish("public.a.b", 1)
    assert (caught.value.reason, caught.value.maybe_sent) == ("no_exchange", False)


def test_connecting_ahead(inbox: Inbox, publisher: Publisher) -> None:
    """What is wrong is told before there is an event; what is right is used for the first."""
    publisher.connect()
    inbox.bind()
    publisher.publish("public.a.b", 1)
    assert len(inbox.all(1)) == 1
    with Publisher(f"amqp://127.0.0.1:{free_port()}//", on_down="buffer") as away:
        with pytest.raises(PublishError, match="refused") as caught:
            away.connect()
        assert (caught.value.reason, caught.value.unconfirmed) == ("away", ())


def test_an_exchange_that_is_deleted_under_us(inbox: Inbox, publisher: Publisher) -> None:
    """It is declared again, and the event is published."""
    publisher.publish("public.a.b", 1)
    broker_channel().exchange_delete(inbox.exchange)
    publisher.publish("public.a.b", 2)
    assert publisher.stats().published == 2
    inbox.bind()


def test_the_exchange_s_name_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """RANGO_EXCHANGE, else Peatio's."""
    monkeypatch.setenv("RANGO_EXCHANGE", "other")
    assert Publisher(amqp_url()).exchange == "other"
    monkeypatch.delenv("RANGO_EXCHANGE")
    assert Publisher(amqp_url()).exchange == "peatio.events.ranger"


# -- what is raised ---------------------------------------------------------------------------


def test_no_gateway(inbox: Inbox, publisher: Publisher) -> None:
    """Who asks for one is told that there is none, and that nothing was sent to anybody."""
    with pytest.raises(PublishError, match="no gateway") as caught:
        publisher.publish("public.a.b", 1, require_gateway=True)
    assert (caught.value.reason, caught.value.maybe_sent) == ("no_gateway", False)
    assert caught.value.unconfirmed == (("public.a.b", b"1"),)
    inbox.bind()
    publisher.publish("public.a.b", 2, require_gateway=True)
    assert [body for _, body in inbox.all(1)] == [2]


def test_no_gateway_for_some_of_a_batch(inbox: Inbox, publisher: Publisher) -> None:
    """The error names those; the others are there."""
    inbox.bind("public.a.#")
    with pytest.raises(PublishError) as caught, publisher.batch() as batch:
        for key in ("public.a.b", "public.c.d", "public.a.c"):
            batch.publish(key, 1, require_gateway=True)
    assert caught.value.unconfirmed == (("public.c.d", b"1"),)
    assert [key for key, _ in inbox.all(2)] == ["public.a.b", "public.a.c"]


def test_a_broker_that_refuses_a_message(inbox: Inbox, publisher: Publisher) -> None:
    """A negative confirm is an error; what it was about may be in other queues."""
    inbox.bind(**{"x-max-length": 1, "x-overflow": "reject-publish"})
    publisher.publish("public.a.b", 1)
    with pytest.raises(PublishError, match="refused") as caught:
        publisher.publish("public.a.b", 2)
    assert (caught.value.reason, caught.value.maybe_sent) == ("nacked", True)
    assert [body for _, body in inbox.all(1)] == [1]


def test_wrong_arguments(publisher: Publisher) -> None:
    """They are told at once, and nothing is connected to."""
    for key, body in (("trades", 1), ("public.a.b", float("nan")), ("public.a.b", "no json")):
        with pytest.raises(ValueError):  # noqa: PT011 - each with its own text
            publisher.publish(key, body)
    with pytest.raises(ValueError, match=r"memory:.*amqps"):
        Publisher("memory://")
    for arguments in ({"on_down": "wait"}, {"deadline_s": 0}, {"buffer": 0}):
        with pytest.raises(ValueError):  # noqa: PT011
            Publisher(amqp_url(), **arguments)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="confirm"):
        Publisher(amqp_url(), confirm=False).publish("public.a.b", 1, require_gateway=True)


def test_wrong_password() -> None:
    """It is told at once, not tried until the deadline, not buffered, and not in the text."""
    url = amqp_url().replace("guest:guest@", "guest:secret@")
    for on_down in ("buffer", "block", "raise"):
        with Publisher(url, on_down=on_down, deadline_s=30) as publisher:
            with pytest.raises(PublishError) as caught:
                publisher.publish("public.a.b", 1)
            assert caught.value.reason == "misconfigured"
            assert "ACCESS_REFUSED" in str(caught.value)
            assert "secret" not in str(caught.value)


def test_the_next_broker(inbox: Inbox) -> None:
    """Of several that are named the first that is there is taken."""
    inbox.bind()
    away = f"amqp://guest:guest@127.0.0.1:{free_port()}//"
    with Publisher(
        f"{away};{amqp_url()}", exchange=inbox.exchange, on_down="raise", deadline_s=60
    ) as publisher:
        publisher.publish("public.a.b", 1)
    assert len(inbox.all(1)) == 1


def test_options_stay_the_caller_s(inbox: Inbox) -> None:
    """Kombu writes into the options that it gets."""
    options: dict[str, object] = {"client_properties": {"connection_name": "shop"}}
    with Publisher(
        amqp_url(), exchange=inbox.exchange, options=options, deadline_s=60
    ) as publisher:
        publisher.publish("public.a.b", 1)
    assert options == {"client_properties": {"connection_name": "shop"}}


# -- who shares it ----------------------------------------------------------------------------


def test_threads(inbox: Inbox, publisher: Publisher) -> None:
    """Each thread's events arrive in its order, and none is lost or mixed up."""
    inbox.bind()

    def run(name: int) -> None:
        for number in range(100):
            publisher.publish(f"public.t{name}.x", number)

    threads = [threading.Thread(target=run, args=(name,)) for name in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert publisher.stats()[:2] == (2000, 0)
    found = inbox.all(2000)
    for name in range(20):
        assert [body for key, body in found if key == f"public.t{name}.x"] == list(range(100))


def test_more_threads_than_connections(inbox: Inbox) -> None:
    """They wait for one until the deadline, and an error says why there was none."""
    with Publisher(amqp_url(), exchange=inbox.exchange, connections=1, deadline_s=3) as publisher:
        publisher.connect()
        link, _ = publisher._pool.take(Deadline(30.0))
        with pytest.raises(PublishError) as caught:
            publisher.publish("public.a.b", 1)
        assert (caught.value.reason, caught.value.maybe_sent) == ("busy", False)
        publisher._pool.give(link)
        publisher.publish("public.a.b", 1)


_PARTS = """
import json, os, sys
from rango_gevent.publisher import Publisher

publisher = Publisher(os.environ["AMQP_URL"], deadline_s=60)
"""


@pytest.fixture
def run(inbox: Inbox, tmp_path: Path) -> Callable[[str], str]:
    """Give a way to run a script, which must end well."""
    env = {**os.environ, "AMQP_URL": amqp_url(), "RANGO_EXCHANGE": inbox.exchange}

    def run(script: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", script],
            cwd=tmp_path,
            env={**env, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    return run


def test_nothing_of_the_server_is_imported(run: Callable[[str], str]) -> None:
    """Nor gevent."""
    printed = run(_PARTS + "print(json.dumps(sorted(sys.modules)))")
    modules = set(json.loads(printed))
    assert not modules & {"gevent", "geventwebsocket", "msgspec", "websockets", "jwt"}
    ours = {name for name in modules if name.startswith("rango_gevent.")}
    rooms = {name.split(".")[1] for name in ours}
    assert rooms == {"publisher", "protocol", "broker", "backoff", "throttle", "urls", "errors"}


def test_greenlets(inbox: Inbox, run: Callable[[str], str]) -> None:
    """Under gevent they wait for their confirms side by side, each on a connection."""
    inbox.bind()
    run(
        "from gevent import monkey; monkey.patch_all()\nimport gevent\n"
        + _PARTS
        + """
def work(name):
    for number in range(50):
        publisher.publish(f"public.g{name}.x", number)

gevent.joinall([gevent.spawn(work, name) for name in range(30)], timeout=90, raise_error=True)
assert publisher.stats().published == 1500
"""
    )
    found = inbox.all(1500)
    for name in range(30):
        assert [body for key, body in found if key == f"public.g{name}.x"] == list(range(50))


def test_a_fork_with_an_open_connection(inbox: Inbox, run: Callable[[str], str]) -> None:
    """The child connects anew; the parent's connection is neither used nor ended by it."""
    inbox.bind()
    printed = run(
        _PARTS
        + """
publisher.publish("public.a.b", '"before"')
(link,) = publisher._pool._idle
for number in range(3):
    pid = os.fork()
    if not pid:
        publisher.publish("public.a.b", number)
        assert publisher.stats().retried == 0
        publisher.close()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    publisher.publish("public.a.b", number)
assert publisher._pool._idle == [link]
print(publisher.stats().retried)
"""
    )
    assert printed == "0\n"
    assert len(inbox.all(7)) == 7


def test_a_fork_while_others_publish(inbox: Inbox, run: Callable[[str], str]) -> None:
    """Whatever a thread held at that moment, the child is free of it."""
    inbox.bind()
    run(
        _PARTS
        + """
import threading
ends = threading.Event()
def work():
    while not ends.is_set():
        publisher.publish("public.a.busy", 1)
threads = [threading.Thread(target=work) for _ in range(4)]
[thread.start() for thread in threads]
for number in range(10):
    pid = os.fork()
    if not pid:
        publisher.publish("public.a.b", number)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
ends.set()
[thread.join() for thread in threads]
assert publisher.stats().retried == 0 and publisher.stats().failed == 0
"""
    )


def test_ids_differ_in_every_process(inbox: Inbox, run: Callable[[str], str]) -> None:
    """A forked process does not count on where its parent stood."""
    inbox.bind()
    run(
        _PARTS
        + """
publisher.publish("public.a.b", 0)
for _ in range(2):
    if not os.fork():
        publisher.publish("public.a.b", 1)
        os._exit(0)
    assert os.wait()[1] == 0
publisher.publish("public.a.b", 2)
"""
    )
    messages = [inbox.take() for _ in range(4)]
    assert len({message.properties["message_id"] for message in messages}) == 4


_DJANGO = """
import django
from django.conf import settings
settings.configure(DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}})
django.setup()
from django.db import transaction
"""


def test_publish_on_commit(inbox: Inbox, run: Callable[[str], str]) -> None:
    """An event goes out when the transaction is committed, and not if it is rolled back."""
    inbox.bind()
    run(
        _PARTS
        + _DJANGO
        + """
order = {"state": "wait"}
with transaction.atomic():
    publisher.publish_on_commit("private.ID1.order", order)
    order["state"] = "changed later"
    assert publisher.stats().published == 0
try:
    with transaction.atomic():
        publisher.publish_on_commit("private.ID1.order", {"state": "never"})
        raise KeyError
except KeyError:
    pass
publisher.publish_on_commit("private.ID1.order", {"state": "outside"})
assert publisher.stats().published == 2
"""
    )
    assert [body["state"] for _, body in inbox.all(2)] == ["wait", "outside"]


def test_publish_on_commit_without_a_broker(run: Callable[[str], str]) -> None:
    """What is committed is done: the failure is logged and counted, and not raised."""
    printed = run(
        _PARTS
        + _DJANGO
        + """
import logging
logging.basicConfig()
publisher = Publisher("amqp://127.0.0.1:1//", on_down="raise")
with transaction.atomic():
    publisher.publish_on_commit("private.ID1.order", {"id": 1})
print(publisher.stats().failed)
"""
    )
    assert "private.ID1.order was committed and is not published" in printed
    assert printed.endswith("1\n")
