"""One table of the WebSocket paths: what is spoken there, and who may come in."""

from __future__ import annotations

from typing import NamedTuple


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
}
ADMIN = "/admin/ws"
ADMIN_ROUTE = Route("admin", needs_token=False)  # a row only where there are administrators
_OTHERS = ROUTES["/public"]  # Rango takes any path for a public one


def route(path: str, *, has_admins: bool = False) -> Route:
    """Return the row of a path, percent-decoded and without the query."""
    if has_admins and path == ADMIN:
        return ADMIN_ROUTE
    return ROUTES.get(path, _OTHERS)
