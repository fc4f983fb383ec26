"""One table of the WebSocket paths: what is spoken there, and who may come in."""

from __future__ import annotations

from typing import Collection, NamedTuple


class Route(NamedTuple):
    """A row of the table.

    Attributes:
        dialect: which protocol its clients speak.
        needs_token: whether a valid token is needed; where not, a client without is anonymous.
    """

    dialect: str
    needs_token: bool


ROUTES = {
    "/public": Route("rango", needs_token=False),
    "/private": Route("rango", needs_token=True),
    "/viabtc": Route("viabtc", needs_token=False),
}
DIALECTS = ("rango",)  # that are spoken whatever the settings are
ADMIN = "/admin/ws"
ADMIN_ROUTE = Route("admin", needs_token=False)  # a row only where there are administrators
_OTHERS = ROUTES["/public"]  # Rango takes any path for a public one


def route(path: str, dialects: Collection[str] = DIALECTS, *, has_admins: bool = False) -> Route:
    """Return the row of a path.

    Args:
        path: percent-decoded and without the query.
        dialects: that are spoken; the path of another one is as any that nobody knows.
        has_admins: there is a path for administrators.
    """
    if has_admins and path == ADMIN:
        return ADMIN_ROUTE
    row = ROUTES.get(path, _OTHERS)
    return row if row.dialect in dialects else _OTHERS
