"""The dialect put together, for the gateway: what it takes, runs and has counted."""

from __future__ import annotations

import time
from functools import partial
from typing import Callable, Mapping

import gevent

from rango_gevent.auth.identity import Identity
from rango_gevent.delivery.registry import Registry
from rango_gevent.hub.hub import Hub
from rango_gevent.remote import lookup
from rango_gevent.rpc import desk as rpc
from rango_gevent.rpc.caller import Caller
from rango_gevent.rpc.desk import Desk
from rango_gevent.viabtc import shapes
from rango_gevent.viabtc.backend import RpcBackend, Signer
from rango_gevent.viabtc.board import Board, BoardLimits
from rango_gevent.viabtc.methods import DepthForms, Signed
from rango_gevent.viabtc.names import Names
from rango_gevent.viabtc.session import Hall, ViabtcSession
from rango_gevent.viabtc.words import Wrong

_MAX_FETCHES = 1000  # balances that are asked for at once


class Dialect:
    """The protocol, at one gateway.

    Args:
        hub: whose events it shows.
        registry: whose clients may speak it.
        names: what things are called.
        limits: bounds of what is kept and shown.
        forms: which views of books there may be.
        desk: who answers what the gateway does not hold.
        caller: its connection, None where it needs none.
        signer: who knows signatures.
        check: raises TokenError for an identity that was taken back.
        most_pending: queries of one client that a backend may be asked about at once.
        on_held: told kind and address of a stream that views are made of now, or no more.
    """

    def __init__(
        self,
        hub: Hub,
        registry: Registry,
        *,
        names: Names,
        limits: BoardLimits,
        forms: DepthForms,
        desk: Desk,
        caller: Caller | None,
        signer: Signer | None,
        check: Callable[[Identity], None],
        most_pending: int,
        on_held: Callable[[str, str, bool], None] = lambda kind, address, is_held: None,
    ) -> None:
        self.board = Board(hub, names, limits, self._fetch, on_held)
        self.board.pause = registry.reading.wait
        self._registry = registry
        self._desk = desk
        self._backend = RpcBackend(desk, names)
        self._caller = caller
        self._signer = signer
        self._check = check
        self._fetches: dict[tuple[str, str], bool] = {}  # whether there was another event since
        hall = Hall(
            self.board,
            forms,
            self._backend,
            sign=None if signer is None else self._sign,
            spawn=registry.spawn,
            now=time.monotonic,
            most_pending=most_pending,
        )
        registry.dialects["viabtc"] = partial(_make_session, hall)
        self.take = self.board.take
        self.lost = self.board.lost

    def work(self) -> dict[str, Callable[[], None]]:
        """Return what has to run as long as the gateway, by name."""
        found: dict[str, Callable[[], None]] = {"viabtc": self.board.painter.run}
        if self._caller is not None:
            found["rpc"] = self._caller.run
        return found

    def _sign(self, signed: Signed) -> Identity:
        assert self._signer is not None, "who signs is known"
        identity = self._signer(signed)
        self._check(identity)
        return identity

    def _fetch(self, uid: str, asset: str) -> None:
        """Ask what a user has of an asset, once at a time, and show it."""
        wanted = (uid, asset)
        if wanted in self._fetches:
            self._fetches[wanted] = True
        elif len(self._fetches) < _MAX_FETCHES and self._backend.knows("asset.query"):
            self._fetches[wanted] = True
            gevent.spawn(self._show_all, uid, asset)

    def _show_all(self, uid: str, asset: str) -> None:
        """Ask until nothing has happened since."""
        wanted = (uid, asset)
        try:
            while self._fetches[wanted]:
                self._fetches[wanted] = False
                self._show(uid, asset)
        finally:
            del self._fetches[wanted]

    def _show(self, uid: str, asset: str) -> None:
        try:
            result = self._backend.ask("asset.query", [asset], uid)
        except Wrong:
            return  # it is counted; the next event asks again
        said = shapes.balances(shapes.read(result)).get(asset)
        if said is not None:
            self.board.show_balance(uid, asset, said)

    def reading(self) -> dict[str, float | Mapping[str, int]]:
        """Return what was counted, for a scrape."""
        board, desk = self.board, self._desk
        values: dict[str, float | Mapping[str, int]] = {
            "rango_viabtc_views": len(board),
            "rango_viabtc_depth_levels": board.depth_levels,
            "rango_viabtc_refused": board.refused,
            "rango_viabtc_pushes": board.pushes,
            "rango_viabtc_kept_bytes": board.size,
            "rango_viabtc_forgotten": board.evicted,
            "rango_rpc_questions": {**dict.fromkeys(rpc.OUTCOMES, 0), **desk.outcomes},
            "rango_rpc_cache_bytes": desk.size,
        }
        if self._caller is not None:
            values["rango_rpc_connected"] = float(self._caller.connected)
            values["rango_rpc_connects"] = self._caller.connects
        if self._signer is not None:
            outcomes = self._signer.lookup.outcomes
            values["rango_signatures"] = {**dict.fromkeys(lookup.OUTCOMES, 0), **outcomes}
        return values


def _make_session(hall: Hall, desk: object, *args: object, **more: object) -> ViabtcSession:
    return ViabtcSession(desk, hall, *args, **more)  # type: ignore[arg-type]
