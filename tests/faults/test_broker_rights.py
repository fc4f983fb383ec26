"""Users of the broker who may do little: what is enough, and what is told when it is not."""

from __future__ import annotations

import shlex
import subprocess
import sys
from typing import Any, Iterator

import amqp
import pytest
from scene import Login
from support import HEALTHY, READY, ROOT, Server, server_env, start_gateway, wait_for

sys.path.append(str(ROOT / "scripts"))
from rabbitmq_node import PrivateNode  # noqa: E402 - found on the line before

EXCHANGE = "market.events"
QUEUES = r"^rango\.instance\..*$"
READS = r"^(rango\.instance\..*|market\.events)$"
READER = Login("reader", "secret")


@pytest.fixture(scope="module")
def node() -> Iterator[PrivateNode]:
    """A broker with a user who may do no more than consume one exchange."""
    node = PrivateNode()
    try:
        node.start()
        node.ctl("add_user", READER.user, READER.password)
        node.ctl("set_permissions", READER.user, QUEUES, QUEUES, READS)
        yield node
    finally:
        node.stop()


@pytest.fixture
def channel(node: PrivateNode) -> Iterator[Any]:
    """A channel of a user who may do everything."""
    channel = Login().connect(node.port).channel()
    yield channel
    channel.exchange_delete(EXCHANGE)
    channel.connection.close()


def settings(node: PrivateNode) -> dict[str, str]:
    """Return the settings of a gateway that logs in as the reader."""
    return {"RANGO_AMQP_URL": READER.url(node.port)}


def is_served(gateway: Server, channel: Any) -> None:
    """Check that a message comes through."""
    with gateway.connect("/public?stream=a.b") as client:
        client.receive()
        channel.basic_publish(amqp.basic_message.Message("1"), EXCHANGE, "public.a.b")
        assert client.receive() == '{"a.b":1}'


def test_few_rights_are_enough(node: PrivateNode, channel: Any) -> None:
    """Who may not configure the exchange cannot ask for its type: it is taken for a topic one."""
    channel.exchange_declare(EXCHANGE, "topic", auto_delete=False)
    with start_gateway(exchange=EXCHANGE, env=settings(node)) as gateway:
        assert f"exchange {EXCHANGE} is taken for one of type topic" in gateway.log()
        is_served(gateway, channel)


def test_a_missing_exchange_and_few_rights(node: PrivateNode, channel: Any) -> None:
    """What is missing and may not be declared is told as that, and found when it comes."""
    with start_gateway(exchange=EXCHANGE, env=settings(node), until=HEALTHY) as gateway:
        text = f"exchange '{EXCHANGE}' does not exist, and this user may not declare it"
        wait_for(lambda: text in gateway.get(READY).body, what="the reason")
        channel.exchange_declare(EXCHANGE, "topic", auto_delete=False)
        gateway.wait_until(READY)
        is_served(gateway, channel)


def test_missing_rights_are_told_with_the_command_that_gives_them(
    node: PrivateNode, channel: Any
) -> None:
    """`rango config --check --connect` says what to type, and that is enough."""
    login = Login("blind", "secret")
    node.ctl("add_user", login.user, login.password)
    node.ctl("set_permissions", login.user, "^$", "^$", "^$")
    channel.exchange_declare(EXCHANGE, "topic", auto_delete=False)
    env = server_env(EXCHANGE, {"RANGO_AMQP_URL": login.url(node.port)})
    words = [sys.executable, "-m", "rango_gevent", "config", "--check", "--connect"]

    def check() -> subprocess.CompletedProcess[str]:
        return subprocess.run(words, env=env, capture_output=True, text=True, timeout=60)

    told = check()
    assert told.returncode == 1
    (line,) = [line for line in told.stdout.splitlines() if line.startswith("failed: rights: ")]
    doctor = subprocess.run(
        [*words[:3], "doctor"], env=env, capture_output=True, text=True, timeout=60
    )
    assert doctor.returncode == 1
    assert "taken for topic: may not ask" in doctor.stdout
    assert line.partition("`")[2] in doctor.stdout  # the same command
    command = shlex.split(line.partition("`rabbitmqctl ")[2].rstrip("`"))
    node.ctl(*command)
    assert check().returncode == 0


def test_the_rights_of_a_log_are_tried_without_declaring_it(
    node: PrivateNode, channel: Any
) -> None:
    """Those of a queue for each worker are not enough, and the line says which are."""
    login = Login("logless", "secret")
    own = r"^rango\.instance\."
    node.ctl("add_user", login.user, login.password)
    node.ctl("set_permissions", login.user, own, own, f"^(rango\\.instance\\..*|{EXCHANGE})$")
    channel.exchange_declare(EXCHANGE, "topic", auto_delete=False)
    given = {"RANGO_AMQP_URL": login.url(node.port), "RANGO_LOG": "stream"}
    words = [sys.executable, "-m", "rango_gevent", "config", "--check", "--connect"]

    def check() -> subprocess.CompletedProcess[str]:
        env = server_env(EXCHANGE, given)
        return subprocess.run(words, env=env, capture_output=True, text=True, timeout=60)

    told = check()
    assert told.returncode == 1
    assert f"failed: this user may not use the log rango.log.{EXCHANGE}: give it" in told.stdout
    rights = r"^rango\..*"
    node.ctl("set_permissions", login.user, rights, rights, f"^(rango\\..*|{EXCHANGE})$")
    told = check()
    assert told.returncode == 0, told.stdout
    assert f"rights for the log rango.log.{EXCHANGE}; the gateway declares it" in told.stdout
    assert "rango.log" not in node.ctl("list_queues", "name")
