"""What SIGHUP does: read the settings and the key anew."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rango_gevent import logs
from rango_gevent.environment import load_keys, load_settings
from rango_gevent.errors import ConfigError

if TYPE_CHECKING:  # the gateway is built of this room
    from rango_gevent.gateway import Gateway


def reload_settings(gateway: Gateway, flags: dict[str, str]) -> None:
    """Read the settings and the key anew; wrong ones are logged and change nothing.

    Args:
        gateway: what takes them over.
        flags: the flags that the gateway was started with.
    """
    try:
        settings = load_settings(flags).settings
        gateway.reload(settings, load_keys(settings))
    except ConfigError as error:
        for problem in error.problems:
            logs.log.error("not reloaded: %s", problem)
        return
    logs.configure(settings.log_level, settings.log_format)
