"""What tests of the log do to a broker's stream queue."""

from __future__ import annotations

from typing import Any

import amqp
from rabbitmq_node import PrivateNode
from scene import KEY, Login

_LOOK_UP = (
    '{{ok, Q}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"/">>, queue, <<"{name}">>)), '
    "sys:{what}(amqqueue:get_pid(Q))."
)


class LogQueue:
    """The log of one exchange, seen from outside.

    Args:
        node: the broker.
        exchange: name of the exchange.
    """

    def __init__(self, node: PrivateNode, exchange: str) -> None:
        self.node = node
        self.exchange = exchange
        self.name = f"rango.log.{exchange}"

    def delete(self) -> None:
        """Delete the queue with all that is in it."""
        self.node.ctl("delete_queue", self.name)

    def freeze(self) -> None:
        """Stop the process that writes the log; nobody is told."""
        self.node.ctl("eval", _LOOK_UP.format(name=self.name, what="suspend"))

    def thaw(self) -> None:
        """Let it go on."""
        self.node.ctl("eval", _LOOK_UP.format(name=self.name, what="resume"))

    def declare(self, **arguments: Any) -> None:
        """Declare and bind it as a gateway does."""
        with Login().connect(self.node.port) as connection:
            channel = connection.channel()
            stream = {
                "x-queue-type": "stream",
                "x-max-length-bytes": 1_000_000_000,
                "x-stream-max-segment-size-bytes": 50_000_000,
                "x-queue-leader-locator": "client-local",
            }
            channel.queue_declare(
                self.name, durable=True, auto_delete=False, arguments={**stream, **arguments}
            )
            channel.queue_bind(self.name, self.exchange, "#")

    def publish(self, bodies: list[str]) -> None:
        """Publish to the exchange, with the broker's confirmation of the last."""
        with Login().connect(self.node.port) as connection:
            channel = connection.channel()
            *first, last = bodies
            for body in first:
                channel.basic_publish(amqp.basic_message.Message(body), self.exchange, KEY)
            message = amqp.basic_message.Message(last)
            channel.basic_publish_confirm(message, self.exchange, KEY)

    def publish_unconfirmed(self, connection: amqp.Connection, bodies: list[str]) -> None:
        """Publish to the exchange without waiting for anything."""
        channel = connection.channel()
        for body in bodies:
            channel.basic_publish(amqp.basic_message.Message(body), self.exchange, KEY)
