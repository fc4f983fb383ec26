"""What the doctor looks at in this process: the files that it may open, and gevent's patches."""

from __future__ import annotations

import resource
import socket
import ssl
import sys
import threading
from typing import Iterator

from gevent import monkey

from rango_gevent.bounds import SPARE_FILES
from rango_gevent.commands.findings import FAIL, OK, WARN, Finding
from rango_gevent.settings import Settings

_PATCHED = ("socket", "ssl", "threading", "select", "time", "os", "subprocess", "queue")
_ORIGINALS = (("socket", "socket"), ("ssl", "SSLContext"), ("threading", "Event"))
_OWNERS = {"socket", "_socket", "ssl", "_ssl", "threading"}
_SHOWN = 5


def files(settings: Settings) -> Iterator[Finding]:
    """Compare the files that a process may open with the clients that it takes."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]  # serving raises the soft limit to it
    need = settings.max_connections + settings.metrics_connections + SPARE_FILES
    if hard == resource.RLIM_INFINITY or hard >= need:
        most = "any number of" if hard == resource.RLIM_INFINITY else str(hard)
        yield Finding(OK, f"{most} files may be open, {need} are wanted for all clients")
        return
    yield Finding(
        WARN,
        f"{hard} files may be open, and RANGO_MAX_CONNECTIONS={settings.max_connections} wants "
        f"{need}: clients past that are turned away",
        f"raise it where the gateway is started (systemd: LimitNOFILE={need}, Docker: --ulimit "
        f"nofile={need}, a shell: ulimit -n {need}), or lower RANGO_MAX_CONNECTIONS",
    )


def patches() -> Iterator[Finding]:
    """See whether gevent has patched the standard library before anybody took things from it."""
    missing = [name for name in _PATCHED if not monkey.is_module_patched(name)]
    early = _early()
    if missing:
        yield Finding(
            FAIL,
            f"gevent has not patched {', '.join(missing)}: one client's wait would stop all",
            "start by `rango`, or under gunicorn with conf/gunicorn.conf.py; a program of your own "
            "calls gevent.monkey.patch_all() in its first line",
        )
    elif early:
        more = f" and {len(early) - _SHOWN} more" if len(early) > _SHOWN else ""
        yield Finding(
            WARN,
            f"imported before gevent patched: {', '.join(early[:_SHOWN])}{more}; what they do "
            "by network stops all clients meanwhile",
            "see which .pth file, sitecustomize or agent imports them when Python starts",
        )
    else:
        yield Finding(OK, "gevent has patched the standard library before it was used")


def _early() -> list[str]:
    """Return the modules that hold what was replaced by patching."""
    kept = [
        (name, monkey.get_original(module, name))
        for module, name in _ORIGINALS
        if getattr({"socket": socket, "ssl": ssl, "threading": threading}[module], name)
        is not monkey.get_original(module, name)
    ]
    return sorted(
        module
        for module, found in list(sys.modules.items())
        if module.split(".")[0] not in (*_OWNERS, "gevent", "asyncio")
        and any(vars(found).get(name) is original for name, original in kept)
    )
