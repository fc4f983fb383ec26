"""From settings to the plain values that the rooms take: one function for each room's bounds."""

from __future__ import annotations

import random
import resource
import sys
import time
from functools import partial
from typing import Callable

from rango_gevent.admin.office import AdminLimits
from rango_gevent.admin.tape import TapeLimits
from rango_gevent.delivery.admission import AdmissionLimits
from rango_gevent.delivery.heartbeat import Heartbeat
from rango_gevent.delivery.inbound import InboundLimits
from rango_gevent.delivery.outbox import SlowPolicy
from rango_gevent.delivery.registry import ClientLimits
from rango_gevent.delivery.sender import ConnectionLimits
from rango_gevent.delivery.session import SessionLimits
from rango_gevent.hub.history import History, HistoryLimits
from rango_gevent.hub.hub import HubLimits
from rango_gevent.kafka_url import read_kafka_url
from rango_gevent.protocol import frames
from rango_gevent.protocol.messages import NameLimits
from rango_gevent.settings import Settings
from rango_gevent.source.base import BrokerLimits, Log, LogLimits, QueueLimits
from rango_gevent.source.bindings import AUTO, EVERYTHING, Bindings

SPARE_FILES = 80  # for the broker, logs, what is accepted to be closed


def pack(settings: Settings) -> Callable[[bytes], bytes]:
    """Return what compresses a frame."""
    return partial(
        frames.packed,
        min_bytes=settings.compression_min_bytes,
        level=settings.compression_level,
    )


def admin(settings: Settings) -> tuple[frozenset[str], AdminLimits]:
    """Return the roles of administrators, and the bounds on what they see."""
    tape = TapeLimits(settings.admin_tail_per_s, settings.admin_tail_bytes)
    return frozenset(settings.admin_roles), AdminLimits(settings.admin_connections, tape)


def slow_policy(settings: Settings) -> SlowPolicy:
    """Return what is done with clients that lag."""
    return SlowPolicy(settings.slow_client, settings.slow_streams)


def hub_limits(settings: Settings) -> HubLimits:
    """Return the bounds of the hub."""
    return HubLimits(
        subscriptions=settings.max_subscriptions,
        queue_frames=settings.queue_frames,
        event_bytes=settings.max_event_bytes,
        names=settings.max_streams,
        books=settings.max_books,
        books_bytes=settings.books_bytes,
        book_increments=settings.book_increments,
        book_bytes=settings.book_bytes,
    )


def history(settings: Settings) -> History | None:
    """Return what keeps recent events.

    Where the source gives none it gives positions of its own, told from those of other instances.
    """
    if not settings.history_bytes or settings.bindings == (AUTO,):
        return None  # events of streams that nobody held would be missing
    limits = HistoryLimits(settings.history_bytes, settings.history_events, settings.history_s)
    is_shared = bool(settings.source) and read_kafka_url(settings.source).has_one_order
    is_own = settings.log == "off" and not is_shared
    own = random.SystemRandom().getrandbits(32) if is_own else None
    return History(limits, time.monotonic, check=own)


def bindings(settings: Settings) -> Bindings:
    """Return what a queue is bound to; what instances are told by is among it always."""
    control = (settings.control_key,) if settings.control_key else ()
    if settings.bindings != (AUTO,):
        is_all = EVERYTHING in settings.bindings
        return Bindings((*settings.bindings, *(() if is_all else control)), follows=False)
    return Bindings(
        control, follows=True, most=settings.bindings_max, keep_s=settings.bindings_keep_s
    )


def log(settings: Settings, on_break: Callable[[str], None]) -> Log | None:
    """Return what a source does with a log; None: it has none.

    Args:
        settings: with the log's bounds.
        on_break: told why what comes does not follow what came.
    """
    if settings.log == "off":
        return None
    limits = LogLimits(
        settings.log_bytes,
        settings.log_segment_bytes,
        settings.log_window_s,
        settings.log_fill_s,
        settings.log_spare,
    )
    return Log(limits, on_break)


def _most_sockets(metrics_connections: int) -> int:
    """Return how many clients the process may open files for."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    spare = SPARE_FILES + metrics_connections
    return sys.maxsize if soft == resource.RLIM_INFINITY else max(soft - spare, soft // 2)


def client_limits(settings: Settings) -> ClientLimits:
    """Return the bounds on clients."""
    return ClientLimits(
        admission=AdmissionLimits(
            settings.max_connections,
            settings.max_per_address,
            settings.max_per_uid,
            _most_sockets(settings.metrics_connections),
        ),
        connection=ConnectionLimits(
            settings.outbox_bytes,
            settings.slow_after_s,
            settings.write_timeout_s,
            settings.send_buffer_bytes,
            settings.resume_s,
        ),
        session=SessionLimits(
            settings.requests_per_s,
            settings.requests_burst,
            settings.reply_bytes_per_s,
            NameLimits(settings.max_streams, settings.max_name_bytes),
            settings.max_bad_tokens,
            settings.resume_events,
            settings.resume_bytes,
        ),
        inbound=InboundLimits(settings.max_message_bytes, settings.max_fragments),
        close_timeout_s=settings.close_timeout_s,
    )


def heartbeat(settings: Settings) -> Heartbeat:
    """Return who pings clients."""
    return Heartbeat(
        ping_interval_s=settings.ping_interval_s,
        pong_timeout_s=settings.pong_timeout_s,
        max_age_s=settings.max_age_s,
    )


def broker_limits(settings: Settings) -> BrokerLimits:
    """Return the bounds on what the broker is asked."""
    return BrokerLimits(
        timeout_s=settings.broker_timeout_s,
        heartbeat_s=settings.broker_heartbeat_s,
        queue=QueueLimits(settings.broker_queue_length, settings.broker_queue_ttl_s),
    )
