"""Tokens in band: sent after the gateway's first word, renewed before they expire. Pure."""

from __future__ import annotations

import math
from random import Random
from typing import Callable

from rango_gevent.client.asking import Asker, Outcome, ask_for
from rango_gevent.client.link import Link
from rango_gevent.client.matching import Pending
from rango_gevent.client.model import AUTHENTICATING, LIVE
from rango_gevent.client.wanted import REFUSED
from rango_gevent.client.wire import encode_request, is_unknown_event

_PART = 0.1  # of a token's time that is left when it is renewed,
_FLOOR_S = 5.0  # and no less than this
_AGAIN_S = 30.0


class Renewal:
    """Authenticates connections.

    Args:
        asker: gives ids.
        jitter: spreads renewals of tokens that end together.
        renews: there is a way to get another token.
        failed: called with a connection and the gateway's word when it takes no token.
    """

    def __init__(
        self,
        asker: Asker,
        jitter: Random,
        *,
        renews: bool,
        failed: Callable[[Link, str], object],
    ) -> None:
        self._asker = asker
        self._jitter = jitter
        self._renews = renews
        self._failed = failed

    def send(self, link: Link, token: str, now_s: float) -> None:
        """Send a token, ahead of everything that waits."""
        number = self._asker.number(link)

        def settle(outcome: Outcome) -> None:
            self._answered(link, outcome)

        pending = Pending(number, "auth", settle, is_own=True)
        link.urgent.append(encode_request({"event": "auth", "token": token, "id": number}))
        link.matcher.sent(pending, now_s)

    def _answered(self, link: Link, outcome: Outcome) -> None:
        if isinstance(outcome, Exception):
            return
        reply = outcome[-1]
        if reply.error is None:
            ttl_s = reply.get("ttl")
            self.plan(link, ttl_s if isinstance(ttl_s, (int, float)) else None)
            for stream in list(link.wanted.values()):
                if stream.state == REFUSED:  # it may be allowed now
                    ask_for(link, stream)
        elif is_unknown_event(reply):  # Rango takes tokens with the handshake only
            link.renew_at_s = math.inf
            if link.state == AUTHENTICATING:
                self._failed(link, reply.error)
        else:
            link.renew_at_s = link.heard_at_s + _FLOOR_S if self._renews else math.inf
            self._failed(link, reply.error)
        if link.state == AUTHENTICATING:
            link.greeted(link.heard_at_s)

    def plan(self, link: Link, expires_in_s: float | None) -> None:
        """Set when a token is to be renewed that has so many seconds left."""
        if expires_in_s is None or not self._renews:
            link.renew_at_s = math.inf
            return
        spare_s = max(_FLOOR_S, expires_in_s * _PART)
        spare_s += self._jitter.uniform(0.0, spare_s / 2)
        link.renew_at_s = link.heard_at_s + max(0.0, expires_in_s - spare_s)

    def is_due(self, link: Link, now_s: float) -> bool:
        """Tell, once, that a token is to be got and sent."""
        if link.state != LIVE or now_s < link.renew_at_s:
            return False
        knows_tokens = link.matcher.echoes or link.knows_auth
        # Rango knows neither, and closes for good on a message as long as a token
        link.renew_at_s = now_s + _AGAIN_S if knows_tokens else math.inf  # should the getter fail
        return knows_tokens
