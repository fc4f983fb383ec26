"""Feeds of what is somebody's own: a user's orders and balances. Pure.

Nothing of it is kept: it is read when somebody holds it, and shown.
"""

from __future__ import annotations

from typing import Callable

from rango_gevent.viabtc import shapes, views, words
from rango_gevent.viabtc.feeds import Feed, Publish
from rango_gevent.viabtc.names import Names


class Orders(Feed):
    """A user's orders.

    Args:
        publish: as `Feed`.
        names: what markets are called.
        uid: whose they are.
    """

    def __init__(self, publish: Publish, names: Names, uid: str) -> None:
        super().__init__(publish)
        self._names = names
        self._uid = uid

    def take(self, body: bytes, at_s: float) -> None:
        """Push an order to who holds its market."""
        found = shapes.order(shapes.read(body), self._names, self._uid)
        if found is None:
            return
        market, params = found
        view = self.views.get(views.Spec(views.ORDER, market, self._uid).address)
        if view is not None:
            self._publish(view, words.push("order.update", params), at_s)


class Balances(Feed):
    """A user's balances.

    Args:
        publish: as `Feed`.
        names: what assets are called.
        uid: whose they are.
        fetch: called with user and asset when an event does not say how much there is.
    """

    def __init__(
        self, publish: Publish, names: Names, uid: str, fetch: Callable[[str, str], None]
    ) -> None:
        super().__init__(publish)
        self._names = names
        self._uid = uid
        self._fetch = fetch

    def take(self, body: bytes, at_s: float) -> None:
        """Push what there is of each asset to who holds it."""
        for name, balance in shapes.balances(shapes.read(body)).items():
            asset = self._names.asset(name)
            if asset is None:
                continue
            if balance is None:
                if views.Spec(views.ASSET, asset, self._uid).address in self.views:
                    self._fetch(self._uid, asset)
            else:
                self.show(asset, balance, at_s)

    def show(self, asset: str, balance: object, at_s: float) -> None:
        """Push what there is of an asset."""
        view = self.views.get(views.Spec(views.ASSET, asset, self._uid).address)
        if view is not None:
            self._publish(view, words.push("asset.update", [{asset: balance}]), at_s)
