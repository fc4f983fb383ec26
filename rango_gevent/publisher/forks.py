"""What a process that is forked must leave to its parent, and when it may be forked.

kombu's own hooks see forks by multiprocessing and billiard alone, and not a plain `os.fork`, such
as gunicorn's. And a fork in the middle of another thread's connecting would leave the child with
locks that nobody releases any more: of imports, of the look-up of names. So a fork waits for that.
"""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from typing import Iterator, Protocol

_PATIENCE_S = 5.0  # longer than that nobody waits for a fork


class Heir(Protocol):
    """What must begin anew in a process that is forked."""

    def after_fork(self) -> None:
        """Leave to the parent what is the parent's."""


_heirs: weakref.WeakSet[Heir] = weakref.WeakSet()


def tell(heir: Heir) -> None:
    """Call an object's method in every process that is forked, for as long as it lives."""
    _heirs.add(heir)


@contextlib.contextmanager
def none_meanwhile() -> Iterator[None]:
    """Keep other threads from forking for the length of a ``with`` block."""
    state = _state
    with state.changed:
        state.busy += 1
    try:
        yield
    finally:
        with state.changed:
            state.busy -= 1
            state.changed.notify_all()


class _State:
    """How many connect just now; held by a fork from before to after."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.busy = 0


_state = _State()


def _before() -> None:
    _state.changed.acquire()
    _state.changed.wait_for(lambda: not _state.busy, _PATIENCE_S)


def _after_in_parent() -> None:
    _state.changed.release()


def _after_in_child() -> None:
    global _state  # its lock is the parent's
    _state = _State()
    for heir in list(_heirs):
        heir.after_fork()


os.register_at_fork(
    before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child
)
