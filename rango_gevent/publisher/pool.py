"""Links that threads and greenlets share, each used by one at a time.

The last one that was given back is taken first: who publishes alone always has the same, and so
keeps the order of what it publishes. Nothing here survives a fork.
"""

from __future__ import annotations

import threading
from typing import Callable

from rango_gevent.publisher.link import Deadline, Failed, Link


class Pool:
    """Links, made when they are needed.

    Args:
        connect: makes a link.
        size: links at once.
    """

    def __init__(self, connect: Callable[[Deadline], Link], size: int) -> None:
        self._connect = connect
        self._size = size
        self._begin()

    def _begin(self) -> None:
        self._free = threading.BoundedSemaphore(self._size)
        self._idle: list[Link] = []
        self._links: set[Link] = set()

    def take(self, deadline: Deadline) -> tuple[Link, bool]:
        """Return a link, and whether it was used before.

        Raises:
            Failed: there is none in time.
        """
        if not self._free.acquire(timeout=deadline.left_s()):
            raise Failed(f"all {self._size} connections are in use", "busy")
        try:
            return self._idle.pop(), True
        except IndexError:
            pass
        try:
            link = self._connect(deadline)
        except BaseException:
            self._free.release()
            raise
        self._links.add(link)
        return link, False

    def give(self, link: Link) -> None:
        """Give a link back."""
        if link not in self._links:  # it was forgotten meanwhile
            link.forget()
            return
        if link.usable:
            self._idle.append(link)
        else:
            self._links.discard(link)
        self._free.release()

    def close(self) -> None:
        """Leave the broker by all links that nobody uses."""
        while self._idle:
            link = self._idle.pop()
            self._links.discard(link)
            link.close()

    def forget(self) -> None:
        """Let go of everything, in a process that was forked."""
        for link in self._links:
            link.forget()
        self._begin()
