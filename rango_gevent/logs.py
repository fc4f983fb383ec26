"""Logging: text by default, JSON by setting, the connection's id on every line about one.

Callers use the standard library's loggers and pass ``extra={"conn": id, "peer": address}``, and
the ``uid`` where there is one.
Control characters are escaped, so that nobody outside can write lines of their own. Where
several processes write to one stream each line has the pid, gunicorn's own lines too.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any, TextIO

log = logging.getLogger("rango_gevent")

_LEVELS = {
    "trace": logging.DEBUG,
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "error": logging.ERROR,
    "fatal": logging.CRITICAL,
    "panic": logging.CRITICAL,
}
_EXTRA = ("conn", "peer", "uid")
_shows_pid = False
_handler: logging.Handler | None = None


def _escaped(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class TextFormatter(logging.Formatter):
    """``2026-01-31T12:00:00.123Z info pid=12 conn=7 peer=1.2.3.4 message``."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line, and the lines of a traceback behind it when there is one."""
        fields = [_stamp(record), _level(record)]
        fields += [f"{name}={value}" for name, value in _extra(record).items()]
        lines = [_escaped(" ".join([*fields, record.getMessage()]))]
        if record.exc_info:
            # set off: an exception's text may hold lines that look like records
            trace = self.formatException(record.exc_info).split("\n")
            lines += ["  " + _escaped(line) for line in trace]
        return "\n".join(lines)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, pid, conn, peer, uid, exception."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as JSON."""
        fields: dict[str, Any] = {
            "time": _stamp(record),
            "level": _level(record),
            "logger": record.name,
            "message": record.getMessage(),
        }
        fields.update(_extra(record))
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields)


def _extra(record: logging.LogRecord) -> dict[str, Any]:
    """Return the fields that only some records have."""
    found = {"pid": record.process} if _shows_pid else {}
    return {**found, **{name: record.__dict__[name] for name in _EXTRA if name in record.__dict__}}


def _stamp(record: logging.LogRecord) -> str:
    seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{seconds}.{int(record.msecs):03d}Z"


def _level(record: logging.LogRecord) -> str:
    return {"WARNING": "warn", "CRITICAL": "fatal"}.get(record.levelname, record.levelname.lower())


def configure(level: str, log_format: str, stream: TextIO | None = None) -> None:
    """Send this package's log to a stream, standard error by default; other handlers stay."""
    global _handler
    others = [handler for handler in log.handlers if handler is not _handler]
    _handler = handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    log.handlers[:] = [handler, *others]
    log.setLevel(_LEVELS[level])
    log.propagate = False


def show_pid() -> None:
    """Put the process's id on each line from now on, here and in processes forked from here."""
    global _shows_pid
    _shows_pid = True


def for_gunicorn(level: str, log_format: str) -> dict[str, Any]:
    """Return gunicorn's ``logconfig_dict``: its lines look like ours and go where they go."""
    formatter = JsonFormatter if log_format == "json" else TextFormatter
    logger = {"level": _LEVELS[level], "handlers": ["ours"], "propagate": False}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "root": {"handlers": []},
        "formatters": {"ours": {"()": formatter}},
        "handlers": {"ours": {"class": "logging.StreamHandler", "formatter": "ours"}},
        "loggers": {"gunicorn.error": logger, "gunicorn.access": logger},
    }


class AsFile:
    """A file that a library writes its complaints to; each line becomes a log line.

    Args:
        name: who complains.
    """

    def __init__(self, name: str) -> None:
        self._log = log.getChild(name)

    def write(self, text: str) -> None:
        """Log a line."""
        if text.strip():
            self._log.warning("%s", text.strip())

    def flush(self) -> None:
        """Do nothing: nothing is buffered."""
