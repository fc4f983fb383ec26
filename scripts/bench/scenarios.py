"""The table of scenarios: who connects, what is published, and what it should cost.

Pure. A goal is what this project holds itself to on two cores that carry broker, publisher,
gateway and clients together; on another machine it is a figure to compare with.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Iterable, Mapping, NamedTuple

from rango_gevent.errors import ConfigError

FLOW = "flow"  # connect, publish at a rate, count deliveries
IDLE = "idle"  # connect and stay
CONNECT = "connect"  # connect as fast as it goes
REPLAY = "replay"  # a book waits, then everybody comes
RESUME = "resume"  # events are missed, then everybody comes back
FAIRNESS = "fairness"  # a flow, and newcomers beside it
PUBLISH = "publish"  # no gateway: what publishing costs whoever publishes

SHARED = "shared"  # all clients hold the same streams
OWN = "own"  # each client holds a stream of its own
PRIVATE = "private"  # each client is a user with private messages
NOBODY = "nobody"  # no client holds what is published

FLOOR = "floor"
KOMBU = "kombu"
DEFAULT_SECONDS = 5.0
_UNHEARD_STREAMS = 100
_STOP_DEALS = "stop.trades"  # by its market it is told from the others
_OUTBOX_MB = 1.05  # default of RANGO_OUTBOX_BYTES


class Topics(NamedTuple):
    """The streams of a scenario.

    Attributes:
        held: what a client holds; ``%d`` in a name is the client's index.
        turns: what the messages go to, in turn.
        stops: what gets a last message.
    """

    held: list[str]
    turns: list[str]
    stops: list[str]


@dataclass(frozen=True)
class Goal:
    """A bound for one figure of a result.

    Args:
        metric: field of `report.Result`.
        limit: the bound, in the metric's unit; a factor when ``of`` is given.
        at_least: the bound is a lower one.
        of: compare with the same figure of another scenario, of the floor or of kombu.
    """

    metric: str
    limit: float
    at_least: bool = False
    of: str = ""


@dataclass(frozen=True)
class Scenario:
    """One row.

    Args:
        name: how it is asked for.
        text: what it is, for people.
        kind: one of the kinds above.
        clients: WebSocket connections.
        rate: messages a second over all streams; 0: as fast as it goes.
        burst: messages that go out together, at the rate over all.
        spread_s: seconds over which those of one burst go out.
        messages: number of messages; 0: as many as the rate gives in the time of the run.
        size: bytes of a body.
        streams: streams that the messages take turns in, when they are shared.
        audience: who holds the streams, as above.
        workers: worker processes of our own gateway.
        tokens: every client brings a token of its own.
        login_by: how: ``header``, ``protocol`` or ``message``.
        book: bodies are order books instead of padding.
        deflate: clients offer permessage-deflate.
        deaf: further clients, which subscribe and read nothing.
        batch: messages are published in batches, not one by one.
        backlog: the gateway is stopped until all messages wait for it in the broker.
        viabtc: clients speak ViaBTC's protocol, and bodies are trades.
        settings: further settings of our own gateway.
        goals: what it should cost.
    """

    name: str
    text: str
    kind: str = FLOW
    clients: int = 1000
    rate: float = 0.0
    burst: int = 1
    spread_s: float = 0.0
    messages: int = 0
    size: int = 200
    streams: int = 1
    audience: str = SHARED
    workers: int = 1
    tokens: bool = False
    login_by: str = "header"
    book: bool = False
    deflate: bool = False
    deaf: int = 0
    batch: bool = False
    backlog: bool = False
    viabtc: bool = False
    settings: Mapping[str, str] = field(default_factory=dict)
    goals: tuple[Goal, ...] = ()

    def count(self, seconds: float) -> int:
        """Return the number of messages of a run of so many seconds."""
        return self.messages or max(1, round(self.rate * seconds))

    def expected(self, messages: int) -> int:
        """Return how many deliveries so many messages make."""
        if self.kind == REPLAY:
            return self.clients * (messages + 1)  # the snapshot in front
        if self.audience == NOBODY or self.kind == PUBLISH:
            return 0
        return messages * (self.clients if self.audience == SHARED else 1)

    def topics(self) -> Topics:
        """Return its streams; those of `PRIVATE` begin with the user's id."""
        if self.kind in (CONNECT, PUBLISH):
            return Topics([], [], [])
        if self.kind == REPLAY:
            increments = ["m0.ob-inc"] * self.messages
            return Topics(["m0.ob-inc"], ["m0.ob-snap", *increments], [])
        if self.audience == OWN:
            own = [f"m{i}.trades" for i in range(self.clients)]
            return Topics(["m%d.trades"], own, own)
        if self.audience == PRIVATE:
            own = [f"ID{i}.order" for i in range(self.clients)]
            return Topics(["order"], own, own)
        if self.audience == NOBODY:
            return Topics(["x.end"], [f"m{i}.trades" for i in range(_UNHEARD_STREAMS)], ["x.end"])
        shared = [f"m{i}.trades" for i in range(self.streams)]
        if self.viabtc:
            return Topics([*shared, _STOP_DEALS], shared, [_STOP_DEALS])
        return Topics(shared, shared, shared[:1])


def _fan(
    name: str, clients: int, rate: float, us: Goal, p99_ms: float = 0, **more: object
) -> Scenario:
    text = f"one stream to {clients} clients, {rate:g} messages/s"
    goals = [us, *([Goal("p99_ms", p99_ms)] if p99_ms else []), Goal("lost", 0)]
    return Scenario(name, text, clients=clients, rate=rate, goals=tuple(goals), **more)  # type: ignore[arg-type]  # fields of Scenario


def _us(limit: float) -> Goal:
    return Goal("us_per_delivery", limit)


def _flow(name: str, text: str, *, goals: Iterable[Goal] = (), **more: object) -> Scenario:
    all_goals = (*goals, Goal("lost", 0))
    return Scenario(name, text, goals=all_goals, **more)  # type: ignore[arg-type]  # fields of Scenario


_FAN_50 = _fan("fan-50", 1000, 50, Goal("us_per_delivery", 1.3, of=FLOOR))

_TABLE = (
    _FAN_50,
    _fan("fan-150", 1000, 150, _us(2.8), 25),
    _fan("fan-400", 1000, 400, _us(0.9), 50),
    _fan("fan-1500", 1000, 1500, _us(0.45), 150),
    _fan("crowd", 5000, 100, _us(1.3), 120),
    _flow(
        "ten-streams",
        "1000 clients, all on the same 10 streams, 400 messages/s over them",
        rate=400,
        streams=10,
        goals=[_us(1.0), Goal("p99_ms", 60)],
    ),
    _flow(
        "own-5000",
        "1000 clients, each on its own stream, 5000 messages/s",
        rate=5000,
        audience=OWN,
        goals=[Goal("us_per_message", 45), Goal("p99_ms", 14)],
    ),
    _flow(
        "own-10000",
        "1000 clients, each on its own stream, 10,000 messages/s",
        rate=10000,
        audience=OWN,
        goals=[Goal("us_per_message", 30), Goal("p99_ms", 50)],
    ),
    _flow(
        "private-5000",
        "1000 users, private messages to each in turn, 5000 messages/s",
        rate=5000,
        audience=PRIVATE,
        tokens=True,
        goals=[Goal("us_per_message", 50), Goal("p99_ms", 14)],
    ),
    Scenario(
        "ingest",
        "60,000 messages as fast as the broker gives them, nobody subscribed",
        clients=1,
        messages=60_000,
        audience=NOBODY,
        goals=(Goal("us_per_message", 6),),
    ),
    Scenario(
        "backlog",
        "60,000 messages that wait in the broker already, nobody subscribed",
        clients=1,
        messages=60_000,
        audience=NOBODY,
        backlog=True,
        goals=(Goal("us_per_message", 6), Goal("messages_per_s", 100_000, at_least=True)),
    ),
    Scenario(
        "idle",
        "10,000 connections, each subscribed to one stream",
        kind=IDLE,
        clients=10_000,
        goals=(Goal("kb_per_connection", 5),),
    ),
    Scenario(
        "connect",
        "10,000 anonymous clients connect as fast as they are let",
        kind=CONNECT,
        clients=10_000,
        goals=(Goal("connects_per_s", 8000, at_least=True),),
    ),
    Scenario(
        "connect-token",
        "5000 clients connect, each with an EdDSA token of its own",
        kind=CONNECT,
        clients=5000,
        audience=PRIVATE,
        tokens=True,
        goals=(Goal("connects_per_s", 3000, at_least=True),),
    ),
    Scenario(
        "connect-protocol",
        "the same, with the token in Sec-WebSocket-Protocol, as a page sends it",
        kind=CONNECT,
        clients=5000,
        audience=PRIVATE,
        tokens=True,
        login_by="protocol",
        goals=(Goal("connects_per_s", 3000, at_least=True),),
    ),
    Scenario(
        "connect-message",
        "the same, with the token in a request behind the handshake, until its answer",
        kind=CONNECT,
        clients=5000,
        audience=PRIVATE,
        tokens=True,
        login_by="message",
        goals=(Goal("connects_per_s", 3000, at_least=True),),
    ),
    Scenario(
        "replay",
        "a book of 1000 increments, replayed to 1000 newcomers",
        kind=REPLAY,
        messages=1000,
        goals=(_us(0.3), Goal("lost", 0)),
    ),
    Scenario(
        "fairness",
        "1.5 million deliveries/s, and a newcomer's handshake and pings meanwhile",
        kind=FAIRNESS,
        rate=1500,
        goals=(Goal("handshake_ms", 250), Goal("ping_ms", 250), Goal("lost", 0)),
    ),
)

_CLIENTS = (
    _flow("clients-2000", "one stream to 2000 clients, 50 messages/s", clients=2000, rate=50),
    _flow("clients-5000", "one stream to 5000 clients, 50 messages/s", clients=5000, rate=50),
    _flow("clients-10000", "one stream to 10,000 clients, 50 messages/s", clients=10_000, rate=50),
)

_STREAMS = (
    _flow("streams-100", "1000 clients on the same 100 streams, 400/s", rate=400, streams=100),
)

_SIZES = tuple(
    _flow(
        f"size-{name}", f"one stream to 1000 clients, 50 messages/s of {name}B", rate=50, size=size
    )
    for name, size in (("100", 100), ("1k", 1024), ("10k", 10240))
)

_WORKERS = tuple(
    _flow(
        f"workers-2-{rate}",
        f"two workers: one stream to 1000 clients, {rate} messages/s",
        rate=rate,
        workers=2,
    )
    for rate in (400, 1500)
)

_BOOKS = (
    _flow(
        "book-plain", "order books of 2 KB to 1000 clients, 150/s", rate=150, size=2048, book=True
    ),
    _flow(
        "book-deflate",
        "the same to clients that take permessage-deflate",
        rate=150,
        size=2048,
        book=True,
        deflate=True,
        settings={"RANGO_COMPRESSION": "on"},
        goals=[
            Goal("us_per_delivery", 1.3, of="book-plain"),
            Goal("bytes_per_delivery", 0.35, of="book-plain"),
        ],
    ),
)

_SLOW = tuple(
    _flow(
        f"deaf-{deaf}",
        f"150 messages/s of 2 KB for 15 s to 950 clients, and to {deaf} that read nothing",
        clients=950,
        rate=150,
        size=2048,
        messages=2250,  # after 9 s the sockets of the deaf are full, after 13 s their outboxes
        deaf=deaf,
        goals=[Goal("p99_ms", 1.3, of="deaf-0"), Goal("growth_mb", deaf * _OUTBOX_MB)]
        if deaf
        else (),
    )
    for deaf in (0, 50)
)


def _light(name: str, clients: int, rate: float, *goals: Goal, **more: object) -> Scenario:
    who = "1 client" if clients == 1 else f"{clients} clients"
    text = f"one stream to {who}, {rate:g} messages/s: how old a message is when nobody is busy"
    return _flow(name, text, clients=clients, rate=rate, goals=goals, **more)


_NO_REST = {"RANGO_ROUND_REST": "0"}

_LIGHT = (
    _light("light-1x1000", 1, 1000, Goal("p50_ms", 0.6)),
    _light("light-1x20", 1, 20, Goal("p50_ms", 0.8)),
    _light("light-100x50", 100, 50, Goal("p50_ms", 1.5)),
    _light("light-200x500", 200, 500),
    _light("quick-1x1000", 1, 1000, Goal("p50_ms", 0.4), Goal("p99_ms", 1), settings=_NO_REST),
    _light(
        "quick-200x500",
        200,
        500,
        *(Goal("p50_ms", 1.2), Goal("p99_ms", 4), _us(7)),
        settings=_NO_REST,
    ),
)


_STREAM = {"RANGO_LOG": "stream"}

_LOG = (
    *(
        Scenario(
            f"log-{name}",
            f"{name} by the log that all instances share",
            clients=1,
            messages=60_000,
            audience=NOBODY,
            backlog=name == "backlog",
            settings=_STREAM,
            goals=(Goal("us_per_message", 1.3, of=name),),
        )
        for name in ("ingest", "backlog")
    ),
    _light("log-1x1000", 1, 1000, Goal("p50_ms", 1), Goal("p99_ms", 2), settings=_STREAM),
)


def _bursts(name: str, text: str, *goals: Goal, **more: object) -> Scenario:
    # as fast as the broker passes them on without a queue: at full speed a bare consumer gets the
    # last one after 40 to 90 ms, spread like this after 7 to 13 ms
    three = {"size": 4096, "rate": 750, "burst": 1500, "spread_s": 0.1, "messages": 4500}
    return _flow(name, text, goals=goals, **three, **more)


_BURSTS = (
    _bursts(
        "burst-deaf",
        "three bursts of 1500 x 4 KB in 0.1 s each, to 10 clients and to 50 that read nothing",
        Goal("max_ms", 50),
        Goal("kernel_kb_per_deaf", 512),
        clients=10,
        deaf=50,
    ),
    _bursts(
        "burst-read",
        "the same bursts to 50 clients that read",
        Goal("max_ms", 60),
        clients=50,
    ),
)

_RESUME = tuple(
    Scenario(
        f"resume-{clients}",
        f"{clients:,} clients come back to 10 streams, of which each has missed {missed} events",
        RESUME,
        clients,
        messages=missed,
        streams=10,
        goals=(*goals, Goal("lost", 0), Goal("ping_ms", 150), Goal("back_s", 15)),
    )
    for clients, missed, goals in ((1000, 1000, (_us(0.5),)), (10_000, 100, ()))
)

_VIABTC = tuple(
    scenario
    for rate in (50, 400, 1500)
    for scenario in (
        _flow(
            f"deals-{rate}",
            f"one stream to 1000 clients, {rate} messages/s of 187 bytes",
            rate=rate,
            size=172,
        ),
        _flow(
            f"viabtc-{rate}",
            "deals of the same size to clients that speak ViaBTC's protocol",
            rate=rate,
            viabtc=True,
            settings={"RANGO_VIABTC": "on"},
            goals=[Goal("us_per_delivery", 1.15, of=f"deals-{rate}")],
        ),
    )
)

_PUBLISHING = tuple(
    Scenario(name, text, PUBLISH, 0, messages=count, batch=batch, goals=(goal, Goal("lost", 0)))
    for name, text, count, batch, goal in (
        ("publish-single", "5000 events, one by one", 5000, False, Goal("p50_ms", 1.2, of=KOMBU)),
        (
            "publish-batch",
            "40,000 events in batches",
            40_000,
            True,
            Goal("messages_per_s", 20_000, at_least=True),
        ),
    )
)

_BY_NAME = {
    scenario.name: scenario
    for scenario in (
        *_TABLE,
        *_LIGHT,
        *_CLIENTS,
        *_STREAMS,
        *_SIZES,
        *_WORKERS,
        *_BOOKS,
        *_SLOW,
        *_BURSTS,
        *_LOG,
        *_RESUME,
        *_VIABTC,
        *_PUBLISHING,
    )
}

GROUPS: Mapping[str, tuple[str, ...]] = {
    "table": tuple(scenario.name for scenario in _TABLE),
    "light": tuple(scenario.name for scenario in _LIGHT),
    "clients": ("fan-50", *(scenario.name for scenario in _CLIENTS)),
    "streams": ("fan-400", "ten-streams", *(scenario.name for scenario in _STREAMS)),
    "size": tuple(scenario.name for scenario in _SIZES),
    "workers": ("fan-400", "fan-1500", *(scenario.name for scenario in _WORKERS)),
    "compression": tuple(scenario.name for scenario in _BOOKS),
    "slow": tuple(scenario.name for scenario in (*_SLOW, *_BURSTS)),
    "log": ("ingest", "backlog", "light-1x1000", *(scenario.name for scenario in _LOG)),
    "resume": tuple(scenario.name for scenario in _RESUME),
    "viabtc": tuple(scenario.name for scenario in _VIABTC),
    "publish": tuple(scenario.name for scenario in _PUBLISHING),
    "all": tuple(_BY_NAME),
}
DEFAULT_GROUPS = ("table", "light", "clients")


def every() -> list[Scenario]:
    """Return all scenarios."""
    return list(_BY_NAME.values())


def select(names: Iterable[str]) -> list[Scenario]:
    """Return the scenarios of names and of groups' names, each once.

    Raises:
        ConfigError: a name is neither.
    """
    wanted: dict[str, None] = {}
    unknown = []
    for name in list(names) or DEFAULT_GROUPS:
        if name in GROUPS:
            wanted.update(dict.fromkeys(GROUPS[name]))
        elif name in _BY_NAME:
            wanted[name] = None
        else:
            unknown.append(f"no scenario is called {name!r}; `make bench ARGS=--list` shows them")
    if unknown:
        raise ConfigError(*unknown)
    return [_BY_NAME[name] for name in wanted]
