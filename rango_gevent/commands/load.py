"""``rango load``: clients on a deployment, through whatever is in front of it, and what they get.

Each client is a greenlet that reads; what they count is in one `Tally`. With ``--publish`` this
process publishes too, to a stream that nobody else knows: each event has a number and the time
of publishing, so that latency needs one clock and every loss shows.

One process has its limits, which are not the gateway's: its processor time and its own lateness
are measured beside everything else.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import resource
import sys
import time
from collections.abc import Iterator
from typing import Any, Callable

import gevent
from gevent.event import Event

from rango_gevent.client.connection import Connection
from rango_gevent.client.model import ConnectionLost
from rango_gevent.client.wire import held_names, split_event
from rango_gevent.commands import inject
from rango_gevent.commands.arguments import (
    add_setting_flags,
    add_token_arguments,
    decimal,
    setting_flags,
    whole,
)
from rango_gevent.commands.load_figures import Histogram, Sequence, Tally
from rango_gevent.commands.load_plan import Plan, make_plan
from rango_gevent.commands.terminal import say
from rango_gevent.environment import load_settings
from rango_gevent.errors import ConfigError, PublishError, Refused
from rango_gevent.publisher import Publisher
from rango_gevent.settings import Settings
from rango_gevent.turns import give_way

_FAILED = 1
_SPARE_FILES = 50
_EVENT_BYTES = 200
_REPLIES = (b'{"success":', b'{"error":')
_REPLY_S = 15.0  # for the last client's handshake and reply
_QUIET_S = 3.0  # without any arrival: what is missing then is lost
_LEAVE_S = 3.0
_SLACK_S = 1.0  # by which publishing may last longer than it should
_LOOK_S = 0.02
_SHOWN_EVERY_S = 1.0


DESCRIPTION = """\
Connect clients, through whatever is in front of the gateway, and count connects,
refusals, messages and closes. With --publish it also publishes to the exchange, on a
stream of its own, and measures latency from there to the clients, and what is lost.
Exit code 0 when nothing was lost, 1 when something was. It is one process, and says so
when the figures are its own limit and not the gateway's."""
EXAMPLE = """\
  rango load wss://shop.example/ws eurusd.trades --clients 1000 --connect-rate 200
  rango load ws://127.0.0.1:8080 --publish amqp://localhost --rate 100 --seconds 30"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    add = parser.add_argument
    add("url", metavar="URL", help="of the gateway or its proxy; /public or /private is added")
    add("streams", nargs="*", metavar="STREAM", help="name of a stream, such as eurusd.trades")
    add_token_arguments(parser)
    add("--insecure", action="store_true", help="take any certificate of a wss:// URL, unchecked")
    numbers: tuple[tuple[str, Callable[[str], float], float, str, str], ...] = (
        ("clients", whole(1, 60_000), 100, "N", "connections"),
        ("connect-rate", decimal(0.1, 100_000), 100, "N", "of them to make a second"),
        ("seconds", decimal(0.1, 86_400), 10, "S", "to publish or listen once all are connected"),
        ("rate", decimal(0.1, 100_000), 50, "N", "events to publish a second"),
    )
    for name, kind, default, metavar, text in numbers:
        add(f"--{name}", type=kind, default=default, metavar=metavar,
            help=f"{text} (default: %(default)g)")  # fmt: skip
    add(
        "--publish",
        metavar="AMQP_URL",
        help="publish stamped events to a stream of this run's own, and count what arrives of them",
    )
    add_setting_flags(parser, "exchange")
    add("--json", action="store_true", help="print the figures as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Measure and print.

    Args:
        arguments: those that ``rango load --help`` lists.

    Returns:
        0 when nothing was lost, 1 when something was, or nobody was let in.

    Raises:
        ConfigError: an argument is wrong, or there are not enough open files.
        KeyboardInterrupt: after the figures so far.
    """
    settings = load_settings(setting_flags(arguments)).settings
    plan = make_plan(arguments, os.environ)
    allow_files(plan.clients)
    tally = Tally(wanted=plan.clients)
    try:
        with _publisher(arguments.publish, settings) as publisher:
            _Run(plan, tally, publisher).all()
    except (Refused, inject.BrokerAway) as error:
        say(f"rango: {error}")
        return _FAILED
    except ConnectionLost as error:
        say(f"rango: cannot connect to {plan.url.partition('?')[0]}: {error}")
        return _FAILED
    finally:
        if tally.up:  # what was measured until Ctrl-C counts too
            print(json.dumps(tally.as_json(), indent=1) if arguments.json else tally.table())
    return 0 if tally.is_whole else _FAILED


def allow_files(clients: int) -> None:
    """Let this process open as many files as the clients need.

    Raises:
        ConfigError: the system does not allow as many.
    """
    need = clients + _SPARE_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < need:
        raise ConfigError(
            f"{clients} clients need {need} open files, and the limit is {hard}: raise it "
            "(ulimit -Hn), or give a smaller --clients"
        )
    if soft != resource.RLIM_INFINITY and soft < need:
        resource.setrlimit(resource.RLIMIT_NOFILE, (need, hard))


@contextlib.contextmanager
def _publisher(url: str | None, settings: Settings) -> Iterator[Publisher | None]:
    """Connect to the broker for the length of a ``with`` block; without a URL to none."""
    if not url:
        yield None
        return
    # what the broker did not get is lost at the listeners: nobody waits for its confirms
    with inject.connect(
        url.split(";"), settings.exchange, settings.broker_timeout_s, confirm=False
    ) as publisher:
        yield publisher


class _Listener:
    """A client.

    Args:
        plan: what to do.
        tally: where everything is counted.

    Attributes:
        settled: set when its subscription was answered, or it was not let in.
        sequence: what it got of this run's events.
        is_up: it is connected.
        is_leaving: its end is ours.
        arrived_ns: when the last event came.
    """

    def __init__(self, plan: Plan, tally: Tally) -> None:
        self._plan = plan
        self._tally = tally
        self._stamped = _stamped(plan.own)
        self._connection = Connection(plan.url, plan.token, plan.tls, self._take)
        self.settled = Event()
        self.sequence = Sequence()
        self.is_up = self.is_leaving = False
        self.arrived_ns = 0

    def open(self) -> None:
        """Connect.

        Raises:
            Refused: the handshake was refused.
            ConnectionLost: there is no connection.
        """
        started_ns = time.monotonic_ns()
        self._connection.open()
        now_ns = time.monotonic_ns()
        self.is_up = True
        self._tally.up += 1
        self._tally.handshakes.add((now_ns - started_ns) // 1000)
        self._tally.connect_s = (now_ns - self._plan.start_ns) / 1e9

    def run(self) -> None:
        """Connect and read, and count how that ends."""
        try:
            self.open()
        except Refused as error:
            self._tally.refused[error.status] += 1
        except ConnectionLost as error:
            self._tally.failed[str(error)] += 1
        else:
            self.serve()
        finally:
            self.settled.set()

    def serve(self) -> None:
        """Read until the connection ends."""
        code = self._connection.serve()
        self.is_up = False
        if not self.is_leaving:
            self._tally.closed[code] += 1

    def leave(self) -> None:
        """Close the connection in good order."""
        self.is_leaving = True
        self._connection.leave()

    def _take(self, text: bytes, now_ns: int) -> None:
        if text.startswith(_REPLIES):
            self._take_reply(text)
            return
        tally = self._tally
        tally.messages += 1
        tally.received_bytes += len(text)
        if self.arrived_ns:
            tally.gaps.add((now_ns - self.arrived_ns) // 1000)
        self.arrived_ns = now_ns
        stamp = self._stamped.match(text)
        if stamp:
            self.sequence.take(int(stamp[1]))
            tally.latency.add((now_ns - self._plan.start_ns) // 1000 - int(stamp[2]))

    def _take_reply(self, text: bytes) -> None:
        event = split_event(text.decode("utf-8", "replace"))
        held = held_names(event) if event else None
        if held is not None:
            self._tally.not_held.update(set(self._plan.names) - set(held))
            self.settled.set()


def _stamped(own: str) -> re.Pattern[bytes]:
    """Return what an event of `stamp` looks like when it arrives; its keys are sorted already."""
    name = re.escape(own.encode()) if own else rb"(?!)"  # matches nothing
    return re.compile(rb'\{"' + name + rb'":\{"n":(\d+),"p":"x*","t":(\d+)\}\}')


def stamp(number: int, now_us: int) -> bytes:
    """Return the body of an event: its number and the time of publishing."""
    body = f'{{"n":{number},"p":"%s","t":{now_us}}}'
    return (body % ("x" * (_EVENT_BYTES - len(body)))).encode()


class _Run:
    """One run.

    Args:
        plan: what to do.
        tally: where everything is counted.
        publisher: the way to the exchange; None: listen only.
    """

    def __init__(
        self,
        plan: Plan,
        tally: Tally,
        publisher: Publisher | None,
    ) -> None:
        self._plan = plan
        self._tally = tally
        self._publisher = publisher
        self._listeners: list[_Listener] = []
        self._greenlets: list[gevent.Greenlet[..., Any]] = []

    def all(self) -> None:
        """Connect, let events flow, leave.

        Raises:
            Refused: the first client was refused.
            ConnectionLost: the first client found no gateway.
        """
        live = [gevent.spawn(self._show)] if sys.stderr.isatty() else []
        try:
            self._connect()
            self._flow()
        finally:
            gevent.killall(live)
            self._leave()

    def _connect(self) -> None:
        """Connect one client, whose failure ends everything, and then the others."""
        plan = self._plan
        first, *others = self._listeners = [
            _Listener(plan, self._tally) for _ in range(plan.clients)
        ]
        first.open()
        self._greenlets.append(gevent.spawn(first.serve))
        pace = inject.Pace(plan.connects_per_s)
        pace.wait()
        for listener in others:
            pace.wait()
            self._greenlets.append(gevent.spawn(listener.run))
        gevent.wait([listener.settled for listener in self._listeners], _REPLY_S)
        silent = sum(not listener.settled.is_set() for listener in self._listeners)
        if silent:
            self._tally.notes.append(f"{silent} clients got no reply to their subscription")

    def _flow(self) -> None:
        """Publish or listen, with everything counted afresh."""
        tally = self._tally
        tally.messages = tally.received_bytes = 0
        tally.gaps = Histogram()
        listeners = [listener for listener in self._listeners if listener.is_up]
        for listener in listeners:
            listener.arrived_ns = 0
        started_s, started_cpu_s = time.monotonic(), time.process_time()
        watcher = gevent.spawn(self._watch_loop)
        try:
            if self._publisher is None:
                gevent.joinall(self._greenlets, self._plan.seconds)
            else:
                self._publish(self._publisher)
                self._wait_for_rest(listeners)
        finally:
            watcher.kill()
            tally.seconds = time.monotonic() - started_s
            tally.cpu = (time.process_time() - started_cpu_s) / tally.seconds
            if tally.published is not None:
                got = [listener.sequence.got for listener in listeners]
                tally.lost = len(listeners) * tally.published - sum(got)
                tally.repeated = sum(listener.sequence.repeated for listener in listeners)

    def _publish(self, publisher: Publisher) -> None:
        plan, tally = self._plan, self._tally
        tally.published, tally.rate = 0, plan.rate
        key = f"public.{plan.own}"
        pace = inject.Pace(plan.rate)
        started_s = time.monotonic()
        try:
            for number in range(max(1, round(plan.rate * plan.seconds))):
                pace.wait()
                if time.monotonic() > started_s + plan.seconds + _SLACK_S:
                    break  # it cannot keep the pace: the figures say so
                body = stamp(number, (time.monotonic_ns() - plan.start_ns) // 1000)
                publisher.publish(key, body)
                tally.published += 1
                give_way()  # a pace that cannot be kept leaves no wait in which the others read
            pace.wait()  # the last event has its share of the time too
        except PublishError as error:
            tally.notes.append(f"the broker is lost: {error}")
        finally:
            tally.publish_s = time.monotonic() - started_s

    def _wait_for_rest(self, listeners: list[_Listener]) -> None:
        """Wait until everybody has the last event, or nothing has come for a while."""
        total = self._tally.published or 0
        seen, since_s = -1, time.monotonic()
        while any(one.is_up and not one.sequence.is_done(total) for one in listeners):
            if seen != self._tally.messages:
                seen, since_s = self._tally.messages, time.monotonic()
            if time.monotonic() > since_s + _QUIET_S:
                return
            gevent.sleep(_LOOK_S)

    def _watch_loop(self) -> None:
        """Measure by how much this process wakes up too late."""
        while True:
            due_s = time.monotonic() + _LOOK_S
            gevent.sleep(_LOOK_S)
            self._tally.late.add(round(1e6 * (time.monotonic() - due_s)))

    def _show(self) -> None:
        """Show a line every second."""
        seen, started_s = 0, time.monotonic()
        while True:
            gevent.sleep(_SHOWN_EVERY_S)
            up = sum(listener.is_up for listener in self._listeners)
            came, seen = max(0, self._tally.messages - seen), self._tally.messages
            say(f"{time.monotonic() - started_s:.0f} s: {up} clients, {came} messages")

    def _leave(self) -> None:
        for listener in self._listeners:
            if listener.is_up:
                listener.leave()
        gevent.joinall(self._greenlets, _LEAVE_S)
        gevent.killall(self._greenlets)
