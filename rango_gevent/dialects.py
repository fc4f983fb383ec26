"""The dialects that the settings switch on, beside Rango's own protocol.

What is off is not imported.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Callable

from rango_gevent.access import Access, lookup_limits
from rango_gevent.auth.identity import Identity
from rango_gevent.auth.tokens import REVOKED
from rango_gevent.delivery.registry import Registry
from rango_gevent.errors import TokenError
from rango_gevent.hub.hub import Hub
from rango_gevent.remote.fetch import Fetcher
from rango_gevent.settings import Settings

if TYPE_CHECKING:
    from rango_gevent.rpc.caller import Caller
    from rango_gevent.rpc.desk import Desk
    from rango_gevent.viabtc.backend import Signer
    from rango_gevent.viabtc.dialect import Dialect


OnHeld = Callable[[str, str, bool], None]


def viabtc(
    settings: Settings, hub: Hub, registry: Registry, access: Access, on_held: OnHeld
) -> Dialect | None:
    """Return ViaBTC's protocol; None where it is off.

    Args:
        settings: what to run with.
        hub: whose events it shows.
        registry: whose clients may speak it.
        access: who is let in.
        on_held: told kind and address of a stream that it needs now, or no more.
    """
    if not settings.viabtc:
        return None
    from rango_gevent.viabtc.board import BoardLimits
    from rango_gevent.viabtc.dialect import Dialect
    from rango_gevent.viabtc.methods import DepthForms
    from rango_gevent.viabtc.names import PERIODS, STREAMS, NameRules, Names

    periods = {int(seconds): name for seconds, name in settings.viabtc_periods}
    rules = NameRules(
        is_lower=settings.viabtc_case == "lower",
        markets=dict(settings.viabtc_markets),
        periods={**PERIODS, **periods},
        streams={**STREAMS, **dict(settings.viabtc_streams)},
    )
    limits = BoardLimits(
        topics=settings.viabtc_topics,
        kept_bytes=settings.viabtc_kept_bytes,
        deals=settings.viabtc_deals,
        candles=settings.viabtc_candles,
        levels=settings.viabtc_levels,
        depth_levels=settings.viabtc_depth_levels,
        depth_interval_s=settings.viabtc_depth_interval_s,
        depth_whole_s=settings.viabtc_depth_whole_s,
    )

    def check(identity: Identity) -> None:
        if access.revocations.cover(identity):
            raise TokenError("the user is revoked", REVOKED)

    forms = DepthForms(tuple(map(int, settings.viabtc_depth_limits)), settings.viabtc_depth_merges)
    desk, caller = _desk(settings)
    return Dialect(
        hub,
        registry,
        names=Names(rules),
        limits=limits,
        forms=forms,
        desk=desk,
        caller=caller,
        signer=_signer(settings),
        check=check,
        most_pending=settings.viabtc_pending,
        on_held=on_held,
    )


def _desk(settings: Settings) -> tuple[Desk, Caller | None]:
    """Return who answers questions, and the connection for those that go by AMQP."""
    from rango_gevent.rpc.caller import Caller, CallerLimits
    from rango_gevent.rpc.desk import CacheLimits, Desk, Row, by_http

    timeout_s, waiting = settings.viabtc_rpc_timeout_s, settings.viabtc_rpc_waiting
    caller = None
    rows = []
    for pattern, to in settings.viabtc_rpc:
        if to.startswith(("http://", "https://")):
            at_once = settings.viabtc_rpc_concurrency
            fetcher = Fetcher(to, timeout_s, at_once, settings.viabtc_rpc_answer_bytes)
            rows.append(Row(pattern, by_http(fetcher, at_once, timeout_s)))
            continue
        if caller is None:
            limits = CallerLimits(
                timeout_s=timeout_s,
                waiting=waiting,
                answer_bytes=settings.viabtc_rpc_answer_bytes,
                connect_s=settings.broker_timeout_s,
                heartbeat_s=settings.broker_heartbeat_s,
            )
            caller = Caller(settings.broker_urls, limits)
        rows.append(Row(pattern, partial(caller.ask, to)))
    cache = CacheLimits(
        keep_s=settings.viabtc_rpc_cache_s,
        size=settings.viabtc_rpc_cache_bytes,
        waiting=waiting,
    )
    return Desk(rows, cache), caller


def _signer(settings: Settings) -> Signer | None:
    if not settings.sign_url:
        return None
    from rango_gevent.viabtc.backend import Signer

    fetcher = Fetcher(settings.sign_url, settings.auth_timeout_s, settings.auth_concurrency)
    return Signer(fetcher, lookup_limits(settings))
