"""Every setting of the gateway, in one table: a row is a field of `Settings`.

A row has the default, the environment variable, what reads its text, and what it does, for
people; see `rango_gevent.settings.option`. The README's table, the example environment and the
checks are made from it.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import partial
from typing import Any, Callable
from urllib.parse import quote

from rango_gevent.auth import ways
from rango_gevent.auth.origin import OriginPolicy, parse_origins
from rango_gevent.auth.rbac import Rbac, parse_rbac
from rango_gevent.kafka_url import kafka_keys, kafka_url, shown_kafka_keys
from rango_gevent.parsers import (
    SLOW_POLICIES,
    Network,
    alert_urls,
    amqp_urls,
    bindings,
    cookie_name,
    decimal,
    filled,
    host,
    http_url,
    listed,
    names,
    networks,
    one_of,
    pairs,
    patterns,
    seconds,
    shown_networks,
    shown_patterns,
    shown_switch,
    some_of,
    switch,
    text,
    whole,
)
from rango_gevent.settings.option import Option, row, rows
from rango_gevent.urls import mask_sink, mask_url

LOG_LEVELS = ("trace", "debug", "info", "warn", "error", "fatal", "panic")  # Rango's names
_PORT = whole(1, 65535)


def _option(default: Any, env: str, parse: Callable[[str], Any], text: str, **more: Any) -> Any:
    return row(default, Option(env, parse, text, **more))


_fixed = partial(_option, reload=False)  # needs a restart to change


@dataclass(frozen=True)
class Settings:
    """The values that a gateway runs with."""

    # -- the listener
    ws_host: str = _fixed(
        "0.0.0.0", "RANGER_HOST", filled, "Address of the WebSocket listener"
    )  # Rango's default
    ws_port: int = _fixed(8080, "RANGER_PORT", _PORT, "Port of the WebSocket listener")

    # -- where events come from
    amqp_urls: tuple[str, ...] = _fixed(
        (),
        "RANGO_AMQP_URL",
        amqp_urls,
        "Broker as a kombu URL; several, separated by `;`, are tried in turn. "
        "Wins over the RABBITMQ_* parts",
        flag="amqp-addr",
        secret=True,
        show=lambda urls: ";".join(map(mask_url, urls)),
    )
    source: str = _fixed(
        "",
        "RANGO_SOURCE",
        kafka_url,
        "Topics of Kafka in place of RabbitMQ's exchange: kafka://HOST:PORT,.../TOPIC,..., "
        "kafkas:// for TLS; see docs/KAFKA.md",
        secret=True,
        show=mask_url,
    )
    kafka_keys: tuple[tuple[str, str], ...] = _fixed(
        kafka_keys(
            "orders=private.{body.order.user}.order,balances=private.{body.1}.balance,"
            "deals=public.{body.1|lower}.trades,*={key}"
        ),
        "RANGO_KAFKA_KEYS",
        kafka_keys,
        "Routing keys of the messages of topics, comma list of TOPIC=KEY with {key}, {topic} and "
        "{body.NAME} in it; * is every other topic",
        show=shown_kafka_keys,
    )
    kafka_window_s: float = _fixed(
        60.0,
        "RANGO_KAFKA_WINDOW_S",
        seconds(0, 86_400),
        "Seconds of the past that are read before clients come, of one partition",
    )
    kafka_buffer_bytes: int = _fixed(
        16 << 20,
        "RANGO_KAFKA_BUFFER_BYTES",
        whole(64 << 10, 2 << 30),
        "Bytes of messages that may wait in the process for each partition of RANGO_SOURCE",
    )
    rabbitmq_host: str = _fixed("localhost", "RABBITMQ_HOST", host, "Host of RabbitMQ")
    rabbitmq_port: int = _fixed(5672, "RABBITMQ_PORT", _PORT, "Port of RabbitMQ")
    rabbitmq_user: str = _fixed("guest", "RABBITMQ_USER", text, "User at RabbitMQ")
    rabbitmq_password: str = _fixed(
        "guest", "RABBITMQ_PASSWORD", text, "Password at RabbitMQ", secret=True
    )
    rabbitmq_vhost: str = _fixed("/", "RABBITMQ_VHOST", filled, "Virtual host at RabbitMQ")
    exchange: str = _fixed(
        "peatio.events.ranger",
        "RANGO_EXCHANGE",
        filled,
        "Topic exchange to consume",
        flag="exchange",
    )

    # -- who may come: keys, who is asked, tokens, origins
    jwt_public_key: str = _option(
        "",
        "JWT_PUBLIC_KEY",
        text,
        "Public key that tokens are checked with: base64 of a PEM, or of several while keys are "
        "rotated. Wins over the file",
        secret=True,  # a private one may be put here by mistake
    )
    public_key_file: str = _option(
        "config/ed25519-key.pub",
        "RANGO_PUBLIC_KEY_FILE",
        filled,
        "File of the public key that tokens are checked with, one PEM or several; "
        "JWT_PUBLIC_KEY wins over it",
        flag="pubKey",
    )
    jwt_secret: str = _option(
        "",
        "JWT_SECRET",
        text,
        "Secret that is shared with who signs tokens by HS256, at least 32 bytes",
        secret=True,
    )
    jwks_url: str = _fixed(
        "",
        "JWT_JWKS_URL",
        http_url,
        "List of public keys (JWKS), http(s); fetched now and then, and when a token names a key "
        "that is not known",
        secret=True,
        show=mask_url,
    )
    jwks_refresh_s: float = _fixed(
        300.0,
        "RANGO_JWKS_REFRESH_S",
        seconds(10, 86_400),
        "Seconds from one fetch of JWT_JWKS_URL to the next",
    )
    auth_url: str = _fixed(
        "",
        "RANGO_AUTH_URL",
        http_url,
        "Service that is asked about tokens that are no JWT, or about all where no key is set",
        secret=True,
        show=mask_url,
    )
    auth_timeout_s: float = _fixed(
        1.0,
        "RANGO_AUTH_TIMEOUT_S",
        seconds(0.1, 30),
        "Seconds for RANGO_AUTH_URL or JWT_JWKS_URL to answer",
    )
    auth_concurrency: int = _fixed(
        16, "RANGO_AUTH_CONCURRENCY", whole(1, 1000), "Requests to RANGO_AUTH_URL at once"
    )
    auth_queue: int = _fixed(
        1000,
        "RANGO_AUTH_QUEUE",
        whole(0, 1_000_000),
        "Tokens that may wait for one; more cannot be checked then",
    )
    auth_cache_s: float = _fixed(
        30.0,
        "RANGO_AUTH_CACHE_S",
        seconds(0, 3600),
        "Seconds for which what RANGO_AUTH_URL says of a token is kept",
    )
    auth_negative_cache_s: float = _fixed(
        5.0, "RANGO_AUTH_NEGATIVE_CACHE_S", seconds(0, 3600), "The same for a token that it refuses"
    )
    auth_cached: int = _fixed(
        10_000, "RANGO_AUTH_CACHED", whole(1, 10_000_000), "Tokens of which it is kept"
    )
    jwt_issuer: str = _option(
        "", "JWT_ISSUER", text, "Issuer (iss) that a token must name; empty: any or none"
    )
    jwt_audience: str = _option(
        "",
        "JWT_AUDIENCE",
        text,
        "Audience (aud) that a token must name, one of a comma list; empty: any or none",
    )
    auth_ways: tuple[str, ...] = _option(
        ways.DEFAULT,
        "RANGO_AUTH_WAYS",
        some_of(*ways.NAMES),
        f"Ways in which a token may come, comma list of {', '.join(ways.NAMES)}; see docs/AUTH.md",
        show=",".join,
    )
    auth_cookie: str = _option(
        "",
        "RANGO_AUTH_COOKIE",
        cookie_name,
        "Name of the cookie that holds a token; empty: none does. It counts for pages whose "
        "origin is checked, so not under API_CORS_ORIGINS=*",
    )
    private_grace_s: float = _option(
        0.0,
        "RANGO_PRIVATE_GRACE_S",
        seconds(0, 600),
        "Seconds for a client of /private without a valid token to send one in a message, else "
        "it is closed with 4401; 0: it is answered 401",
    )
    token_expiry: str = _option(
        "close",
        "RANGO_TOKEN_EXPIRY",
        one_of("close", "downgrade", "ignore"),
        "What happens to a client whose token expires: close (4401); downgrade: it becomes "
        "anonymous; ignore",
    )
    token_grace_s: float = _option(
        25.0,
        "RANGO_TOKEN_GRACE_S",
        seconds(0, 3600),
        "Seconds for a client whose token has expired to send another one",
    )
    control_key: str = _option(
        "",
        "RANGO_CONTROL_KEY",
        text,
        "Routing key of messages that revoke tokens and disconnect users; who may publish there "
        "may do so. Empty: none",
    )
    max_revocations: int = _option(
        100_000,
        "RANGO_MAX_REVOCATIONS",
        whole(1, 100_000_000),
        "Users whose revoked tokens are remembered; of more the first to be revoked is forgotten",
    )
    max_bad_tokens: int = _option(
        5,
        "RANGO_MAX_BAD_TOKENS",
        whole(1, 1000),
        "Tokens that may be refused to a client one after another before it is closed with 4401",
    )
    jwt_leeway_s: float = _option(
        0.0, "RANGO_JWT_LEEWAY_S", seconds(0, 300), "Clock skew allowed in tokens, seconds"
    )
    origins: OriginPolicy = _option(
        OriginPolicy(),
        "API_CORS_ORIGINS",
        partial(parse_origins, setting="API_CORS_ORIGINS"),
        "Origins that may connect, comma separated hosts or URLs, host:* for any port; "
        "empty: the page's host must be the gateway's",
    )

    # -- pages
    console: bool = _fixed(
        False,
        "RANGO_CONSOLE",
        switch,
        "The page /console, to look at streams with a browser: on or off",
        show=shown_switch,
    )
    admin_roles: tuple[str, ...] = _option(
        (),
        "RANGO_ADMIN_ROLES",
        names,
        "Roles whose users may see and end everybody's connections at /admin, comma separated; "
        "empty: nobody, and there is no such page",
        show=",".join,
    )
    admin_connections: int = _option(
        8,
        "RANGO_ADMIN_CONNECTIONS",
        whole(1, 1000),
        "Administrators that are logged in at once, in each worker",
    )
    admin_login_s: float = _option(
        10.0,
        "RANGO_ADMIN_LOGIN_S",
        seconds(1, 60),
        "Seconds for an administrator who connects to log in",
    )
    admin_tail_per_s: int = _option(
        100,
        "RANGO_ADMIN_TAIL_PER_S",
        whole(1, 10_000),
        "Messages a second that an administrator is shown of a connection; more are counted",
    )
    admin_tail_bytes: int = _option(
        1024,
        "RANGO_ADMIN_TAIL_BYTES",
        whole(16, 64 * 1024),
        "Bytes of one such message that are shown",
    )

    # -- what is told: log lines and metrics
    log_level: str = _option(
        "info", "LOG_LEVEL", one_of(*LOG_LEVELS), f"Log level: {', '.join(LOG_LEVELS)}"
    )
    log_format: str = _option(
        "text", "RANGO_LOG_FORMAT", one_of("text", "json"), "Log format: text or json"
    )
    metrics_host: str = _fixed(
        "0.0.0.0",  # Rango's default
        "RANGO_METRICS_HOST",
        filled,
        "Address of the metrics listener",
    )
    metrics_port: int = _fixed(
        4242, "RANGO_METRICS_PORT", whole(0, 65535), "Port of the metrics listener; 0: none"
    )
    metrics_connections: int = _fixed(
        20,
        "RANGO_METRICS_CONNECTIONS",
        whole(1, 10_000),
        "Connections to the metrics port at once; more are refused",
    )
    metrics_topics: int = _fixed(
        500,
        "RANGO_METRICS_TOPICS",
        whole(0, 10_000),
        "Topics with a series of their own in rango_hub_subscriptions_count, of those that were "
        "published on; the others are summed as `_other`",
    )

    # -- processes
    workers: int = _fixed(
        1, "RANGO_WORKERS", whole(1, 256), "Worker processes; more than one needs gunicorn"
    )
    worker_timeout_s: int = _fixed(
        15,
        "RANGO_WORKER_TIMEOUT_S",
        whole(2, 3600),
        "Seconds without a sign of life after which a worker is taken for hung and replaced",
    )

    # -- how many, and how much each may ask for
    max_connections: int = _option(
        10_000,
        "RANGO_MAX_CONNECTIONS",
        whole(1, 10_000_000),
        "WebSocket connections at once per worker; more are answered 503",
    )
    max_per_address: int = _option(
        0,
        "RANGO_MAX_CONNECTIONS_PER_ADDRESS",
        whole(0, 10_000_000),
        "The same from one address, more are answered 429; 0: no limit. "
        "Behind a proxy set RANGO_TRUSTED_PROXIES first",
    )
    max_per_uid: int = _option(
        1000,
        "RANGO_MAX_CONNECTIONS_PER_UID",
        whole(0, 10_000_000),
        "The same of one user, more are answered 429; 0: no limit",
    )
    trusted_proxies: tuple[Network, ...] = _option(
        (),
        "RANGO_TRUSTED_PROXIES",
        networks,
        "Networks of proxies whose X-Forwarded-For or Forwarded is believed, comma list",
        show=shown_networks,
    )
    requests_per_s: float = _option(
        50.0,
        "RANGO_MAX_REQUESTS_PER_S",
        decimal(0.1, 1_000_000),
        "Frames that a client may send a second in the long run; "
        "more get an error, much more close with 4029",
    )
    requests_burst: int = _option(
        200, "RANGO_REQUESTS_BURST", whole(1, 10_000_000), "Frames that it may send at once"
    )
    reply_bytes_per_s: int = _option(
        4 << 20,
        "RANGO_MAX_REPLY_BYTES_PER_S",
        whole(1024, 1 << 30),
        "Bytes of replies and books that a client is answered a second in the long run; "
        "further requests of one that asked for more wait",
    )
    max_age_s: float = _fixed(
        0.0,
        "RANGO_MAX_AGE_S",
        seconds(0, 10_000_000),
        "Seconds after which a connection is closed with 4011; 0: never",
    )
    max_message_bytes: int = _option(
        8192,
        "RANGO_MAX_MESSAGE_BYTES",
        whole(125, 16 << 20),
        "Size of a client's message, bytes; a larger one closes with 1009",
    )
    max_fragments: int = _option(
        64,
        "RANGO_MAX_FRAGMENTS",
        whole(1, 1_000_000),
        "Fragments of a client's message; more close with 4010",
    )
    max_streams: int = _option(
        1000,
        "RANGO_MAX_STREAMS",
        whole(1, 1_000_000),
        "Streams that one client may hold; more are answered with an error",
    )
    name_patterns: bool = _fixed(
        False,
        "RANGO_PATTERNS",
        switch,
        "Public names such as *.trades and btcusd.* stand for all that match: on or off",
        show=shown_switch,
    )
    max_subscriptions: int = _option(
        2_000_000,
        "RANGO_MAX_SUBSCRIPTIONS",
        whole(1, 1_000_000_000),
        "The same of all clients of a worker together",
    )
    max_name_bytes: int = _option(
        255, "RANGO_MAX_NAME_BYTES", whole(1, 8192), "Size of a stream's name, bytes"
    )

    # -- clients that lag, and clients that are gone
    outbox_bytes: int = _option(
        1 << 20,
        "RANGO_OUTBOX_BYTES",
        whole(1024, 1 << 30),
        "Bytes that may wait for one client; past it the client is slow and closed with 4008",
    )
    slow_after_s: float = _option(
        1.0,
        "RANGO_SLOW_AFTER_S",
        seconds(0, 60),
        "Seconds that more than RANGO_OUTBOX_BYTES may wait for a client before it is slow; "
        "events that it shares with others only, and never 16 times as much",
    )
    send_buffer_bytes: int = _option(
        256 * 1024,
        "RANGO_SEND_BUFFER_BYTES",
        whole(0, 64 << 20),
        "Memory that the kernel may take for what is on its way to one client, bytes; "
        "more serves long fat paths; 0: as the system has it",
    )
    slow_client: str = _option(
        "close",
        "RANGO_SLOW_CLIENT",
        one_of(*SLOW_POLICIES),
        "What happens to a client that lags: close; drop-oldest: frames past the bound are left "
        "out; latest: only the newest frame of each stream waits. Books are sent afresh instead",
    )
    slow_streams: tuple[tuple[str, str], ...] = _option(
        (),
        "RANGO_SLOW_STREAMS",
        patterns,
        "The same for streams by pattern, such as *.tickers=latest,*.kline-*=latest",
        show=shown_patterns,
    )
    write_timeout_s: float = _option(
        10.0,
        "RANGO_WRITE_TIMEOUT_S",
        seconds(0.1, 600),
        "Seconds that a client may take no byte while some wait for it",
    )
    handshake_timeout_s: float = _option(
        10.0,
        "RANGO_HANDSHAKE_TIMEOUT_S",
        seconds(0.1, 600),
        "Seconds for a client to send its request and take the answer",
    )
    close_timeout_s: float = _option(
        5.0,
        "RANGO_CLOSE_TIMEOUT_S",
        seconds(0.1, 600),
        "Seconds for a client to answer a close frame",
    )
    ping_interval_s: float = _fixed(
        54.0, "RANGO_PING_INTERVAL_S", seconds(1, 3600), "Seconds between pings of a client"
    )
    pong_timeout_s: float = _fixed(
        60.0,
        "RANGO_PONG_TIMEOUT_S",
        seconds(2, 7200),
        "Seconds from one ping to the end of a client that answers none (4009); "
        "it has the difference to RANGO_PING_INTERVAL_S to answer",
    )
    drain_s: float = _option(
        10.0,
        "RANGO_DRAIN_S",
        seconds(0, 600),
        "Seconds over which clients are told of a shutdown (close 1012)",
    )
    round_rest: float = _fixed(
        2.0,
        "RANGO_ROUND_REST",
        decimal(0, 10),
        "Rest of a client between two sends to it, in parts of the processor time that serving "
        "all took meanwhile: more joins more messages into one send, and delays them longer",
    )

    # -- compression
    compression: bool = _option(
        False,
        "RANGO_COMPRESSION",
        switch,
        "permessage-deflate for clients that ask for it: on or off",
        show=shown_switch,
    )
    compression_min_bytes: int = _option(
        256,
        "RANGO_COMPRESSION_MIN_BYTES",
        whole(1, 1 << 20),
        "Messages below this size go uncompressed, bytes",
    )
    compression_level: int = _option(
        6, "RANGO_COMPRESSION_LEVEL", whole(1, 9), "zlib's level, 1 (fast) to 9 (small)"
    )

    # -- what the hub holds: queues, books
    queue_frames: int = _option(
        10_000,
        "RANGO_STREAM_QUEUE",
        whole(1, 10_000_000),
        "Frames that may wait in one stream's queue; more are dropped and counted",
    )
    max_event_bytes: int = _option(
        1 << 20,
        "RANGO_MAX_EVENT_BYTES",
        whole(64, 128 << 20),
        "Size of a published body, bytes; a larger one is dropped and counted",
    )
    max_books: int = _option(
        10_000,
        "RANGO_MAX_BOOKS",
        whole(1, 10_000_000),
        "Books held at once; past it one goes, first of those that nobody holds, and of them "
        "the one that was not used for longest",
    )
    books_bytes: int = _option(
        256 << 20,
        "RANGO_BOOKS_BYTES",
        whole(1024, 1 << 40),
        "Bytes held for all books; past it books go likewise",
    )
    book_increments: int = _option(
        10_000,
        "RANGO_BOOK_INCREMENTS",
        whole(1, 10_000_000),
        "Increments held for one book; past it the book is stale until the next snapshot",
    )
    book_bytes: int = _option(
        16 << 20,
        "RANGO_BOOK_BYTES",
        whole(1024, 1 << 32),
        "Bytes held for one book; past it the book is stale until the next snapshot",
    )

    # -- recent events, for who comes back
    history_bytes: int = _fixed(
        64 << 20,
        "RANGO_HISTORY_BYTES",
        whole(0, 1 << 40),
        "Memory for recent events, from which clients with ?resume=1 get what they missed, bytes; "
        "taken when the first of them comes; 0: none",
    )
    history_events: int = _fixed(
        1_000_000,
        "RANGO_HISTORY_EVENTS",
        whole(1000, 1_000_000_000),
        "Recent events that are kept",
    )
    history_s: float = _fixed(
        600.0, "RANGO_HISTORY_S", seconds(1, 604_800), "Seconds for which they are kept"
    )
    resume_events: int = _option(
        10_000,
        "RANGO_RESUME_EVENTS",
        whole(1, 10_000_000),
        "Missed events that one client is sent when it comes back; of more it gets none",
    )
    resume_bytes: int = _option(
        8 << 20, "RANGO_RESUME_BYTES", whole(1024, 1 << 30), "Bytes of these, in all"
    )
    resume_s: float = _option(
        120.0,
        "RANGO_RESUME_S",
        seconds(1, 3600),
        "Seconds for a client to take them; one that takes longer is slow",
    )

    # -- the broker: calls, queues
    broker_heartbeat_s: int = _fixed(
        10, "RANGO_BROKER_HEARTBEAT_S", whole(2, 3600), "AMQP heartbeat, seconds"
    )
    broker_timeout_s: float = _fixed(
        5.0, "RANGO_BROKER_TIMEOUT_S", seconds(0.1, 600), "Seconds for any call to the broker"
    )
    broker_queue_length: int = _fixed(
        100_000,
        "RANGO_BROKER_QUEUE_LENGTH",
        whole(1, 1 << 31),
        "Messages that may wait for a worker in the broker; the oldest are dropped there",
    )
    broker_queue_ttl_s: float = _fixed(
        60.0,
        "RANGO_BROKER_QUEUE_TTL_S",
        seconds(1, 86_400),
        "Seconds that a message may wait for a worker in the broker",
    )

    # -- alerts
    alert_urls: tuple[str, ...] = _fixed(
        (),
        "RANGO_ALERT_URLS",
        alert_urls,
        "Where alerts go, URLs separated by `;`: mailto://, slack://, tgram://, json:// and all "
        "that apprise knows, redis://HOST:PORT/KEY, udp://HOST:PORT; see docs/ALERTS.md",
        secret=True,
        show=lambda urls: ";".join(map(mask_sink, urls)),
    )
    alert_name: str = _fixed(
        "", "RANGO_ALERT_NAME", text, "What alerts call this gateway; empty: the host's name"
    )
    alert_interval_s: float = _fixed(
        60.0,
        "RANGO_ALERT_INTERVAL_S",
        seconds(1, 86_400),
        "Seconds from one alert to the next; what happens meanwhile is gathered and counted",
    )
    alert_timeout_s: float = _fixed(
        10.0, "RANGO_ALERT_TIMEOUT_S", seconds(0.5, 300), "Seconds for a sink to take an alert"
    )
    alert_lines: int = _fixed(
        50,
        "RANGO_ALERT_LINES",
        whole(1, 1000),
        "Different lines in one alert; those beyond are only counted",
    )
    alert_not_ready_s: float = _fixed(
        30.0,
        "RANGO_ALERT_NOT_READY_S",
        seconds(1, 86_400),
        "Seconds without being ready, such as without the broker, after which that is CRITICAL",
    )

    # -- bindings of a worker's queue
    bindings: tuple[str, ...] = _fixed(
        ("#",),
        "RANGO_BINDINGS",
        bindings,
        "What a worker's queue in RabbitMQ is bound to: `#` everything, keys such as "
        "`public.#,private.#`, or `auto`: what clients hold, by market, user and prefix, which "
        "leaves no events to come back by; RANGO_CONTROL_KEY then needs a restart to change",
        show=",".join,
    )
    bindings_max: int = _fixed(
        1000,
        "RANGO_BINDINGS_MAX",
        whole(1, 1_000_000),
        "With `auto`: bindings to markets, to users and to prefixes; where more would be needed "
        "all of that kind is bound",
    )
    bindings_keep_s: float = _fixed(
        60.0,
        "RANGO_BINDINGS_KEEP_S",
        seconds(0, 86400),
        "With `auto`: seconds for which a binding stays that nobody needs any more",
    )

    # -- the log that instances share
    log: str = _fixed(
        "off",
        "RANGO_LOG",
        one_of("off", "stream"),
        "off: each worker has a queue of its own; stream: all read one log, RabbitMQ's stream "
        "queue `rango.log.<exchange>`, and no lost connection loses events; see docs/CONTINUITY.md",
    )
    log_bytes: int = _fixed(
        1_000_000_000,
        "RANGO_LOG_BYTES",
        whole(1_000_000, 1 << 50),
        "Bytes of the log, as it is declared; the broker lets whole segments go",
    )
    log_segment_bytes: int = _fixed(
        50_000_000,
        "RANGO_LOG_SEGMENT_BYTES",
        whole(100_000, 3_000_000_000),
        "Bytes of a segment of the log, as it is declared",
    )
    log_window_s: float = _fixed(
        60.0,
        "RANGO_LOG_WINDOW_S",
        seconds(0, 86_400),
        "Seconds of the log that a worker reads before it is ready",
    )
    log_fill_s: float = _fixed(
        30.0,
        "RANGO_LOG_FILL_S",
        seconds(0.1, 3600),
        "Seconds that reading up to the end of the log may take; then the rest is left out",
    )
    log_spare: int = _fixed(
        10_000,
        "RANGO_LOG_SPARE",
        whole(1, 1_000_000),
        "Messages that wait in the broker, for a worker each, in case that the log stalls",
    )

    # -- ViaBTC's protocol
    viabtc: bool = _fixed(
        False,
        "RANGO_VIABTC",
        switch,
        "The protocol of ViaBTC's exchange server at /viabtc: on or off; see docs/VIABTC.md",
        show=shown_switch,
    )
    viabtc_case: str = _fixed(
        "lower",
        "RANGO_VIABTC_CASE",
        one_of("lower", "same"),
        "lower: the streams of market BTCBCH begin with btcbch; same: with BTCBCH",
    )
    viabtc_markets: tuple[tuple[str, str], ...] = _fixed(
        (),
        "RANGO_VIABTC_MARKETS",
        pairs("MARKET=STREAM, such as BTCBCH=bchbtc", r"[^\s.,=:]{1,15}", r"[^\s.,=:*#]{1,64}"),
        "Markets of that protocol whose streams begin with something else",
        show=shown_patterns,
    )
    viabtc_periods: tuple[tuple[str, str], ...] = _fixed(
        (),
        "RANGO_VIABTC_PERIODS",
        pairs("SECONDS=NAME, such as 60=1m", r"[1-9][0-9]{0,6}", r"[0-9A-Za-z]{1,16}"),
        "Intervals of candles whose streams have other names than those of Peatio",
        show=shown_patterns,
    )
    viabtc_streams: tuple[tuple[str, str], ...] = _fixed(
        (),
        "RANGO_VIABTC_STREAMS",
        pairs(
            "FAMILY=TYPE, a family being one of deals, kline, depth, ticker, order, asset",
            "deals|kline|depth|ticker|order|asset",
            r"[0-9A-Za-z_-]{1,32}",
        ),
        "Last parts of routing keys, where they are not deals=trades, kline=kline, depth=ob, "
        "ticker=tickers, order=order, asset=balance",
        show=shown_patterns,
    )
    viabtc_depth_limits: tuple[str, ...] = _fixed(
        ("1", "5", "10", "20", "30", "50", "100"),
        "RANGO_VIABTC_DEPTH_LIMITS",
        listed("whole numbers from 1 to 1000", r"[1-9][0-9]{0,2}|1000"),
        "Levels a side that depth.subscribe may ask for",
        show=",".join,
    )
    viabtc_depth_merges: tuple[str, ...] = _fixed(
        ("0", *(f"0.{'0' * zeros}1" for zeros in range(7, -1, -1))),
        "RANGO_VIABTC_DEPTH_MERGES",
        listed("decimal numbers", r"0|[1-9][0-9]{0,8}|[0-9]{1,9}\.[0-9]{0,15}[1-9]"),
        "Steps of prices that depth.subscribe may ask for; 0: as they are",
        show=",".join,
    )
    viabtc_depth_interval_s: float = _fixed(
        0.1,
        "RANGO_VIABTC_DEPTH_INTERVAL_S",
        seconds(0, 60),
        "Seconds from one depth.update of a view to the next, at least",
    )
    viabtc_depth_whole_s: float = _fixed(
        60.0,
        "RANGO_VIABTC_DEPTH_WHOLE_S",
        seconds(1, 3600),
        "Seconds from one whole book in a depth.update to the next",
    )
    viabtc_depth_levels: int = _fixed(
        50_000,
        "RANGO_VIABTC_DEPTH_LEVELS",
        whole(1000, 1 << 32),
        "Levels that all views of books together may show: those of all clients, of one a tenth",
    )
    viabtc_levels: int = _fixed(
        20_000,
        "RANGO_VIABTC_LEVELS",
        whole(100, 1_000_000),
        "Levels of one side of a book that is followed; of a larger one no depth is shown",
    )
    viabtc_topics: int = _fixed(
        10_000,
        "RANGO_VIABTC_TOPICS",
        whole(1, 1_000_000),
        "Topics of which deals or candles are kept for queries and first pushes",
    )
    viabtc_deals: int = _fixed(
        200, "RANGO_VIABTC_DEALS", whole(1, 10_000), "Events with deals that are kept of a market"
    )
    viabtc_candles: int = _fixed(
        500,
        "RANGO_VIABTC_CANDLES",
        whole(1, 10_000),
        "Candles that are kept of a market and interval",
    )
    viabtc_kept_bytes: int = _fixed(
        64 << 20,
        "RANGO_VIABTC_KEPT_BYTES",
        whole(1 << 20, 1 << 40),
        "Bytes of all that is kept; past it topics that nobody holds are forgotten",
    )
    viabtc_pending: int = _fixed(
        16,
        "RANGO_VIABTC_PENDING",
        whole(1, 10_000),
        "Queries of one client that a backend may be asked about at once; more get error 3",
    )
    viabtc_rpc: tuple[tuple[str, str], ...] = _fixed(
        (),
        "RANGO_VIABTC_RPC",
        pairs(
            "METHOD=QUEUE or METHOD=URL, such as kline.query=rango.marketdata.rpc",
            r"[a-z*?.]{1,32}",
            r"(?!https?:)[^\s,=]{1,255}|https?://[^\s/?#@,]+([/?][^\s#@,]*)?",
        ),
        "Who is asked about what the gateway does not hold, by method or pattern: a queue by AMQP, "
        "or a URL; the first that matches counts",
        secret=True,
        show=lambda rows: ",".join(f"{method}={mask_url(to)}" for method, to in rows),
    )
    viabtc_rpc_timeout_s: float = _fixed(
        1.0, "RANGO_VIABTC_RPC_TIMEOUT_S", seconds(0.05, 60), "Seconds for the answer (error 5)"
    )
    viabtc_rpc_waiting: int = _fixed(
        1000,
        "RANGO_VIABTC_RPC_WAITING",
        whole(1, 1_000_000),
        "Such questions of all clients at once; more get error 3",
    )
    viabtc_rpc_concurrency: int = _fixed(
        16,
        "RANGO_VIABTC_RPC_CONCURRENCY",
        whole(1, 1000),
        "Requests to one URL at once; other questions wait for their turn",
    )
    viabtc_rpc_answer_bytes: int = _fixed(
        1 << 20,
        "RANGO_VIABTC_RPC_ANSWER_BYTES",
        whole(1024, 128 << 20),
        "Size of an answer, bytes; a larger one is none (error 2)",
    )
    viabtc_rpc_cache_s: float = _fixed(
        0.5,
        "RANGO_VIABTC_RPC_CACHE_S",
        seconds(0, 3600),
        "Seconds for which an answer about nobody's own is kept",
    )
    viabtc_rpc_cache_bytes: int = _fixed(
        16 << 20, "RANGO_VIABTC_RPC_CACHE_BYTES", whole(1024, 1 << 40), "Bytes of those answers"
    )
    sign_url: str = _fixed(
        "",
        "RANGO_SIGN_URL",
        http_url,
        "Service that is asked about the signatures of server.sign; within the bounds of "
        "RANGO_AUTH_URL",
        secret=True,
        show=mask_url,
    )
    rbac: Rbac = dataclasses.field(default_factory=lambda: parse_rbac({}))

    @property
    def broker_urls(self) -> list[str]:
        """Return the broker's URLs, to be tried in turn."""
        if self.amqp_urls:
            return list(self.amqp_urls)
        user, password = quote(self.rabbitmq_user, ""), quote(self.rabbitmq_password, "")
        vhost = quote(self.rabbitmq_vhost, "")
        host = quote(self.rabbitmq_host, ":")  # the % of an IPv6 zone, RFC 6874
        host = f"[{host}]" if ":" in host else host
        return [f"amqp://{user}:{password}@{host}:{self.rabbitmq_port}/{vhost}"]

    @property
    def asked(self) -> list[str]:
        """Return whom tokens are checked with beside the keys that are set, in words."""
        jwks, service = "keys by JWT_JWKS_URL", "tokens by RANGO_AUTH_URL"
        return [jwks] * bool(self.jwks_url) + [service] * bool(self.auth_url)


def options() -> dict[str, Option]:
    """Return the table: field name to row."""
    return rows(Settings)


def flag_names() -> dict[str, str]:
    """Return flag to field name, without ``ws-addr``, which sets two fields."""
    return {option.flag: name for name, option in options().items() if option.flag}
