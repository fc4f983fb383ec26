"""One scenario on one server: start, connect, publish, count, look at /proc, end."""

from __future__ import annotations

import contextlib
import os
import resource
import tempfile
import time
from dataclasses import dataclass
from typing import Any, Iterator

from bench import machine, publishing, scenarios
from bench.probe import Aside, Newcomers, coming_back, deaf, standing
from bench.report import Result, fill_ages, per
from bench.scenarios import Scenario
from bench.servers import HOST, Server, Work
from bench.tools import BenchError, Load, Shown, Tool

_CONNECT_LIMIT_S = 90.0
_QUIET_S = 3.0  # without any arrival: what is missing then is lost
_LATE_S = 30.0  # for what waits in queues behind the last message
_PROBE_EVERY_S = 0.1
_SPARE_FILES = 100


@dataclass(frozen=True)
class Options:
    """How to run.

    Args:
        tools: paths of the C tools by name.
        seconds: length of the flow of scenarios with a rate.
        client_threads: threads of the load client.
        broker_pids: the broker's process; empty: unknown.
        show: told what happens, for people.
    """

    tools: dict[str, str]
    seconds: float
    client_threads: int
    broker_pids: list[int]
    show: Shown

    def broker_of(self, server: Server) -> list[int]:
        """Return the broker's process if it works for this server."""
        return self.broker_pids if server.uses_broker else []


class Looks:
    """Processes, looked at before and after.

    Args:
        server: ids of the server's.
        broker: ids of the broker's; empty: unknown.
    """

    def __init__(self, server: list[int], broker: list[int]) -> None:
        self._server = server
        self._broker = broker
        self.start()

    def start(self, load: list[int] | None = None) -> None:
        """Measure from now on.

        Args:
            load: ids of the load client's processes; they have a part in this like our own.
        """
        self._tools = [os.getpid(), *(load or [])]
        self._cpu_s = machine.cpu_s(self._server)
        self._broker_cpu_s = machine.cpu_s(self._broker)
        self._tools_cpu_s = machine.cpu_s(self._tools)
        self._rss_kb = machine.rss_kb(self._server)
        self._busy_s, self._all_s = machine.busy_s()

    def settle(self) -> None:
        """Wait until the server does next to nothing."""
        machine.settle(self._server)

    def take_work(self, result: Result, pump_s: float = 0.0) -> float:
        """Set the processor time since the start.

        Args:
            result: where.
            pump_s: processor time of the publisher, which has ended, in seconds.

        Returns:
            That of the server, in seconds.
        """
        cpu_s = machine.cpu_s(self._server) - self._cpu_s
        broker_s = machine.cpu_s(self._broker) - self._broker_cpu_s
        tools_s = machine.cpu_s(self._tools) - self._tools_cpu_s + pump_s
        busy_s, all_s = (now - then for now, then in
                         zip(machine.busy_s(), (self._busy_s, self._all_s)))  # fmt: skip
        result.cpu_s = cpu_s
        result.machine_busy = per(busy_s, all_s)
        if self._broker:
            result.broker_us_per_message = per(1e6 * broker_s, result.messages)
        result.others_busy = per(max(0.0, busy_s - cpu_s - broker_s - tools_s), all_s)
        return cpu_s

    def take_memory(self, result: Result) -> None:
        """Set the growth of the server's memory since the start."""
        rss_kb = machine.rss_kb(self._server)
        result.kb_per_connection = per(rss_kb - self._rss_kb, result.clients)
        result.rss_mb = rss_kb / 1024

    def take_growth(self, result: Result) -> None:
        """Set the growth of the server's memory since the start, whatever the clients."""
        rss_kb = machine.rss_kb(self._server)
        result.growth_mb = (rss_kb - self._rss_kb) * 1024 / 1e6
        result.rss_mb = rss_kb / 1024


def run(scenario: Scenario, server: Server, options: Options) -> Result:
    """Measure; what goes wrong is in the result's ``error``."""
    result = Result(scenario.name, server.name, scenario.kind, scenario.audience)
    result.clients = scenario.clients
    result.load = machine.load()[0]
    try:
        _check_files(scenario)
        if isinstance(server, publishing.Library):
            publishing.measure(scenario, server, result)
        elif scenario.kind in (scenarios.IDLE, scenarios.CONNECT):
            _connect_only(scenario, server, options, result)
        elif scenario.kind == scenarios.REPLAY:
            _replay(scenario, server, options, result)
        elif scenario.kind == scenarios.RESUME:
            _resume(scenario, server, options, result)
        else:
            _flow(scenario, server, options, result)
    except (BenchError, ProcessLookupError, OSError) as error:
        result.error = str(error) or type(error).__name__
    return result


def _check_files(scenario: Scenario) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < scenario.clients + _SPARE_FILES:
        raise BenchError(
            f"{scenario.clients} clients need {scenario.clients + _SPARE_FILES} open files, and "
            f"the limit is {hard}: raise it (ulimit -Hn), or use --max-clients"
        )


def time_limit_s(scenario: Scenario, options: Options) -> float:
    """Return the seconds after which a scenario's publisher gives up."""
    count = scenario.count(options.seconds)
    return _LATE_S + (5 * count / scenario.rate if scenario.rate else count / 1000)


@contextlib.contextmanager
def _load(
    scenario: Scenario,
    server: Server,
    options: Options,
    clients: int,
    expect: int,
    stops: bool,
    since: str = "",
) -> Iterator[Load]:
    """Run the load client, its tokens in a file for as long."""
    dial = server.dial(scenario)
    dial = coming_back(dial, since) if since else dial
    command = [
        options.tools["wsload"],
        f"host={HOST}",
        f"port={dial.port}",
        f"path={dial.path}",
        f"speak={dial.speaks}",
        f"clients={clients}",
        f"threads={min(options.client_threads, clients)}",
        f"expect={expect}",
        f"stops={int(stops)}",
        f"quiet={_QUIET_S}",
        f"deflate={int(scenario.deflate)}",
        f"token_by={scenario.login_by}",
    ]
    limit_s = _CONNECT_LIMIT_S + time_limit_s(scenario, options) + 60
    with contextlib.ExitStack() as stack:
        tokens = server.tokens(scenario)
        for name, text in (("hello", dial.hello), ("tokens", "\n".join(tokens))):
            if text:
                file = stack.enter_context(tempfile.NamedTemporaryFile(prefix="rango-bench-"))
                file.write(text.encode())
                file.flush()
                command.append(f"{name}={file.name}")
        load = Load(command, limit_s, options.show)
        stack.enter_context(load)
        yield load


def _take_ready(result: Result, ready: dict[str, Any]) -> None:
    result.clients, result.refused = ready["up"], ready["refused"]
    if not result.clients:
        raise BenchError(f"no client was let in: {ready['refusal'] or 'connections were closed'}")
    if result.refused and ready["refusal"]:
        result.notes.append(f"refused with: {ready['refusal']}")


def _connect_only(scenario: Scenario, server: Server, options: Options, result: Result) -> None:
    looks = Looks(server.pids, options.broker_of(server))
    looks.settle()
    with _load(scenario, server, options, scenario.clients, 0, False) as load:
        looks.start([load.process.pid])
        ready = load.ready(_CONNECT_LIMIT_S)
        cpu_s = looks.take_work(result)
        _take_ready(result, ready)
        looks.settle()
        looks.take_memory(result)
    result.us_per_connection = per(1e6 * cpu_s, result.clients)
    if scenario.kind == scenarios.CONNECT:
        result.connects_per_s = per(result.clients, ready["connect_s"])
        result.client_busy, result.client_waiting = ready["busy"], ready["waiting"]


def _flow(scenario: Scenario, server: Server, options: Options, result: Result) -> None:
    count = scenario.count(options.seconds)
    limit_s = time_limit_s(scenario, options)
    looks = Looks(server.pids, options.broker_of(server))
    expect = scenario.expected(count)
    with contextlib.ExitStack() as stack:
        load = stack.enter_context(_load(scenario, server, options, scenario.clients, expect, True))
        _take_ready(result, load.ready(_CONNECT_LIMIT_S))
        result.messages = count
        aside = _aside(scenario, server, stack)
        looks.settle()
        looks.take_memory(result)
        looks.start([load.process.pid])
        work = Work(scenario, count, options.tools["pump"], limit_s)
        with _held(scenario, server) as released_ns, server.flow(work) as pump:
            published = _watch(pump, load, aside)
        if scenario.backlog:
            (published["start_ns"],) = released_ns
        done = load.done(limit_s)
        cpu_s = looks.take_work(result, published.get("cpu_s", 0.0))
        looks.take_growth(result)
        aside.take(result)
    _take_counts(result, scenario, published, done)
    result.us_per_delivery = per(1e6 * cpu_s, result.deliveries)
    result.us_per_message = per(1e6 * cpu_s, count)


def _aside(scenario: Scenario, server: Server, stack: contextlib.ExitStack) -> Aside:
    """Return what is beside the flow, connected until the stack is left."""
    if scenario.deaf:
        return stack.enter_context(deaf(server.dial(scenario), scenario.deaf))
    return Newcomers(server.dial(scenario)) if scenario.kind == scenarios.FAIRNESS else Aside()


@contextlib.contextmanager
def _held(scenario: Scenario, server: Server) -> Iterator[list[int]]:
    """Keep the server from running, if that is the scenario; the list gets the time of its end."""
    released_ns: list[int] = []
    if scenario.backlog:
        server.hold()
    try:
        yield released_ns
    finally:
        if scenario.backlog:
            released_ns.append(time.monotonic_ns())
            server.release()


def _watch(pump: Tool, load: Load, aside: Aside) -> dict[str, Any]:
    """Wait until everything is published, and look aside meanwhile."""
    published = None
    while published is None:
        aside.look()
        load.look(_PROBE_EVERY_S)
        published = pump.poll(0)
    return published


def _take_counts(
    result: Result,
    scenario: Scenario,
    published: dict[str, Any],
    done: dict[str, Any],
) -> None:
    count = result.messages or 0
    result.rate, result.size, result.streams = scenario.rate, scenario.size, scenario.streams
    expected = scenario.expected(count) * result.clients // scenario.clients
    result.deliveries = done["frames"]
    result.lost = expected - done["frames"]
    result.gone = done["gone"]
    result.bytes_per_delivery = per(done["bytes"], done["frames"])
    result.deliveries_per_s = per(done["frames"], (done["last_ns"] - done["first_ns"]) / 1e9)
    end_ns = max(done["last_ns"], done["stop_ns"])
    result.messages_per_s = per(count, (end_ns - published["start_ns"]) / 1e9 if end_ns else None)
    result.client_busy, result.client_waiting = done["busy"], done["waiting"]
    fill_ages(result, done["ages"], done["max_ns"])
    if scenario.audience == scenarios.NOBODY and not done["stopped"]:
        raise BenchError("the last message did not arrive")
    if scenario.deflate and not done["packed"]:
        raise BenchError("the server does not compress: it did not take permessage-deflate")
    if done["close_code"]:
        result.notes.append(f"the server closed clients with {done['close_code']}")


def _replay(scenario: Scenario, server: Server, options: Options, result: Result) -> None:
    """Fill a book while one client watches, then let everybody come."""
    looks = Looks(server.pids, options.broker_of(server))
    result.messages = scenario.messages
    _fill(scenario, server, options, scenario.messages + 1)
    looks.settle()
    expect = scenario.expected(scenario.messages)
    started_ns = time.monotonic_ns()
    with _load(scenario, server, options, scenario.clients, expect, False) as load:
        looks.start([load.process.pid])
        load.tell()
        _take_ready(result, load.ready(_CONNECT_LIMIT_S))
        done = load.done(_LATE_S)
        cpu_s = looks.take_work(result)
        looks.take_memory(result)
    _take_counts(result, scenario, {"start_ns": started_ns}, done)
    result.p50_ms = result.p99_ms = result.max_ms = None  # the age of a stored message is no delay
    result.messages_per_s = None
    result.us_per_delivery = per(1e6 * cpu_s, result.deliveries)


def _fill(scenario: Scenario, server: Server, options: Options, count: int) -> None:
    """Publish so many messages while one client watches."""
    with _load(scenario, server, options, 1, scenario.messages, False) as witness:
        witness.ready(_CONNECT_LIMIT_S)
        limit_s = time_limit_s(scenario, options)
        work = Work(scenario, count, options.tools["pump"], limit_s)
        with server.flow(work) as pump:
            pump.answer(limit_s)
        filled = witness.done(limit_s)
    if filled["frames"] < scenario.messages:  # some gateways send it the first snapshot too
        raise BenchError(f"{filled['frames']} of {scenario.messages} messages arrived live")


def _resume(scenario: Scenario, server: Server, options: Options, result: Result) -> None:
    """Publish what everybody misses, then let everybody come back; newcomers come beside them."""
    looks = Looks(server.pids, options.broker_of(server))
    result.messages = scenario.messages
    since = standing(server.dial(scenario))
    _fill(scenario, server, options, scenario.messages)
    looks.settle()
    expect = scenario.expected(scenario.messages)
    aside = Newcomers(server.dial(scenario))
    started_ns = time.monotonic_ns()
    with _load(scenario, server, options, scenario.clients, expect, False, since) as load:
        looks.start([load.process.pid])
        load.tell()
        events: dict[str, Any] = {}
        while "done" not in events:
            aside.look()
            event = load.poll(_PROBE_EVERY_S)
            events.update({event["event"]: event} if event is not None else {})
        cpu_s = looks.take_work(result)
        looks.take_memory(result)
    _take_ready(result, events["ready"])
    aside.take(result)
    done = events["done"]
    _take_counts(result, scenario, {"start_ns": started_ns}, done)
    result.p50_ms = result.p99_ms = result.max_ms = None  # as above
    result.messages_per_s = None
    result.back_s = (done["last_ns"] - started_ns) / 1e9
    result.us_per_delivery = per(1e6 * cpu_s, result.deliveries)
