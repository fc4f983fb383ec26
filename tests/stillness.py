"""How long this machine stood still, as somebody notices who has nothing to do but to look."""

from __future__ import annotations

import threading
import time
from types import TracebackType

_LOOK_S = 0.01


class Stillness:
    """Looks, for the length of a ``with`` block, whether it is kept from looking.

    What the product promises in seconds is promised for a machine that runs. Where the standard
    library is patched by gevent, a loop that is late counts too.
    """

    def __init__(self) -> None:
        self._worst_s = 0.0
        self._looked_s = time.monotonic()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Stillness:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Look no more."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        self._looked_s = time.monotonic()
        while not self._stopping.wait(_LOOK_S):
            now_s = time.monotonic()
            self._worst_s = max(self._worst_s, now_s - self._looked_s - _LOOK_S)
            self._looked_s = now_s

    def mark(self) -> None:
        """Begin anew."""
        self._worst_s = 0.0

    @property
    def worst_s(self) -> float:
        """Return the longest time for which it was kept from looking."""
        return max(self._worst_s, time.monotonic() - self._looked_s - _LOOK_S)
