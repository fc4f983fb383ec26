"""``rango marketdata import FILE``: history into the store, with a bar, to be gone on with."""

from __future__ import annotations

import sys
import time
from typing import Callable

from rango_gevent.commands.terminal import say
from rango_gevent.errors import ConfigError
from rango_gevent.marketdata.history import BadFile, History, Progress
from rango_gevent.marketdata.opening import open_store
from rango_gevent.marketdata.store import StoreError, TakenOver
from rango_gevent.urls import mask_url

_BAR = 30
_SHOWN_EVERY_S = 0.2


def bring_in(path: str, url: str, exchange: str, replace: bool) -> int:
    """Bring a file in.

    Args:
        path: of the file.
        url: of the store.
        exchange: whose market data it keeps.
        replace: candles of the file replace those that are there.

    Returns:
        0; or 1 when lines are wrong, or the store fails.

    Raises:
        ConfigError: the file cannot be read, or a worker is at work on the store.
        KeyboardInterrupt: after the summary; the same command goes on.
    """
    try:
        file = open(path, "rb")  # noqa: SIM115 - closed below
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    with file:
        try:
            store = open_store(url, exchange, takes_over=False)
        except StoreError as error:
            say(f"no store at {mask_url(url)}: {error}")
            return 1
        try:
            history = History(store, file, time.time(), replace=replace, tell=_tell(path))
            return _bring_in(history, path)
        except BadFile as error:
            raise ConfigError(f"{path}: {error}") from None
        finally:
            store.close()


def _tell(path: str) -> Callable[[str], None]:
    def tell(text: str) -> None:
        _clear()
        say(f"{path}: {text}")

    return tell


def _bring_in(history: History, path: str) -> int:
    progress = history.progress
    if progress.offset >= history.size:
        say(f"{path} was brought in before: {_summary(progress)}")
        return 0
    if progress.offset:
        say(f"{path}: going on at {progress.offset / history.size:.0%}")
    shown_at, began = 0.0, time.monotonic()
    try:
        for progress in history.steps():
            if time.monotonic() - shown_at > _SHOWN_EVERY_S:
                shown_at = time.monotonic()
                _show(history, progress, shown_at - began)
    except KeyboardInterrupt:
        _clear()
        say(f"interrupted; the same command goes on: {_summary(history.progress)}")
        raise
    except (StoreError, TakenOver) as error:
        _clear()
        why = "another process has taken over the store" if isinstance(error, TakenOver) else error
        say(f"{why}; the same command goes on: {_summary(history.progress)}")
        return 1
    _clear()
    say(f"{path}: {_summary(progress)}")
    return 1 if progress.bad else 0


def _summary(progress: Progress) -> str:
    return (
        f"{progress.taken} lines taken, {progress.known} left out as there is something already, "
        f"{progress.bad} wrong"
    )


def _show(history: History, progress: Progress, seconds: float) -> None:
    if not sys.stderr.isatty():
        return
    part = progress.offset / history.size
    done = (progress.offset - history.begun_at) / max(seconds, 1e-6)
    left_s = (history.size - progress.offset) / max(done, 1)
    bar = f"{'#' * int(part * _BAR):-<{_BAR}}"
    sys.stderr.write(f"\r[{bar}] {part:4.0%} {progress.taken} lines, {left_s:.0f} s left\x1b[K")
    sys.stderr.flush()


def _clear() -> None:
    if sys.stderr.isatty():
        sys.stderr.write("\r\x1b[K")
