"""A book: the last snapshot of a market's depth and every increment since.

A subscriber gets both at once, so that it can follow live increments with no gap and no
duplicate. A book is bounded in increments and in bytes; one that passes a bound is dropped
and stale until the publisher's next snapshot.
"""

from __future__ import annotations

from typing import Callable


class Book:
    """Frames of a snapshot and its increments, ready to send.

    Attributes:
        stale_since: Unix time at which the book was dropped, None while it is good: its live
            increments go on, newcomers get no replay, and the next snapshot is sent to
            everyone who is subscribed.
        bytes: size of all frames held.
    """

    __slots__ = ("_frames", "_joined", "_packed", "_packed_joined", "bytes", "stale_since")

    def __init__(self) -> None:
        self._frames: list[bytes] = []
        self._joined: bytes | None = b""
        self._packed: list[bytes] = []
        self._packed_joined: bytes | None = b""
        self.bytes = 0
        self.stale_since: float | None = None

    def __len__(self) -> int:
        """Return the number of increments held."""
        return max(0, len(self._frames) - 1)

    @property
    def live(self) -> bool:
        """Tell whether there is a snapshot to replay."""
        return bool(self._frames)

    def replace(self, snapshot: bytes) -> None:
        """Start again from a snapshot frame."""
        self._set([snapshot])
        self.bytes = len(snapshot)
        self.stale_since = None

    def append(self, increment: bytes) -> None:
        """Add an increment's frame; only a live book takes one."""
        self._frames.append(increment)
        self._joined = self._packed_joined = None
        self.bytes += len(increment)

    def drop(self, at_s: float) -> None:
        """Forget all frames and be stale until the next snapshot."""
        self._set([])
        self.bytes = 0
        if self.stale_since is None:
            self.stale_since = at_s

    def _set(self, frames: list[bytes]) -> None:
        self._frames, self._packed = frames, []
        self._joined = self._packed_joined = None

    def replay(self) -> bytes:
        """Return the snapshot and all increments as bytes to send; empty when not live.

        The bytes are joined once and shared by all newcomers until the book changes.
        """
        if self._joined is None:
            self._joined = b"".join(self._frames)
        return self._joined

    def packed_replay(self, pack: Callable[[bytes], bytes]) -> bytes:
        """Return the same for clients with compression; each frame is compressed once.

        Args:
            pack: compresses one frame.
        """
        if self._packed_joined is None:
            self._packed += [pack(frame) for frame in self._frames[len(self._packed) :]]
            self._packed_joined = b"".join(self._packed)
        return self._packed_joined
