"""A book: the last snapshot of a market's depth and every increment since.

A subscriber gets both at once, so that it can follow live increments with no gap and no
duplicate. A book is bounded in increments and in bytes; one that passes a bound is dropped
and stale until the publisher's next snapshot. All books together are the `Shelf`'s.
"""

from __future__ import annotations

from typing import Callable


class Book:
    """Frames of a snapshot and its increments, ready to send.

    Attributes:
        frames: the snapshot's and the increments'; none while the book is stale.
        stale_since: Unix time at which the book was dropped, None while it is good: its live
            increments go on, newcomers get no replay, and the next snapshot is sent to
            everyone who is subscribed.
        bytes: size of all frames held.
        copies: size of what is kept beside them, joined and compressed for newcomers.
        is_held: somebody is subscribed; the shelf's to change.
    """

    __slots__ = (
        "_joined",
        "_packed",
        "_packed_joined",
        "bytes",
        "copies",
        "frames",
        "is_held",
        "stale_since",
    )

    def __init__(self, is_held: bool = False) -> None:
        self.is_held = is_held
        self.frames: list[bytes] = []
        self._joined: bytes | None = b""
        self._packed: list[bytes] = []
        self._packed_joined: bytes | None = b""
        self.bytes = 0
        self.copies = 0
        self.stale_since: float | None = None

    def __len__(self) -> int:
        """Return the number of increments held."""
        return max(0, len(self.frames) - 1)

    @property
    def live(self) -> bool:
        """Tell whether there is a snapshot to replay."""
        return bool(self.frames)

    @property
    def weight(self) -> int:
        """Return the bytes that it takes, its copies among them."""
        return self.bytes + self.copies

    def replace(self, snapshot: bytes) -> None:
        """Start again from a snapshot frame."""
        self._set([snapshot])
        self.stale_since = None

    def append(self, increment: bytes) -> int:
        """Add an increment's frame; only a live book takes one. Return the change of weight."""
        # hot path: nothing is joined but where a newcomer came just before
        size = len(increment)
        self.frames.append(increment)
        self.bytes += size
        if self._joined is not None or self._packed_joined is not None:
            return size - self._forget_joined()
        return size

    def _forget_joined(self) -> int:
        size = len(self._joined or b"") + len(self._packed_joined or b"")
        self._joined = self._packed_joined = None
        self.copies -= size
        return size

    def forget_copies(self) -> None:
        """Keep the frames alone."""
        self._packed = []
        self._joined = self._packed_joined = None
        self.copies = 0

    def drop(self, at_s: float) -> None:
        """Forget all frames and be stale until the next snapshot."""
        self._set([])
        if self.stale_since is None:
            self.stale_since = at_s

    def _set(self, frames: list[bytes]) -> None:
        self.frames = frames
        self.bytes = sum(map(len, frames))
        self.forget_copies()

    def replay(self) -> bytes:
        """Return the snapshot and all increments as bytes to send; empty when not live.

        The bytes are joined once and shared by all newcomers until the book changes.
        """
        if self._joined is None:
            self._joined = b"".join(self.frames)
            self.copies += len(self._joined)
        return self._joined

    def packed_replay(self, pack: Callable[[bytes], bytes]) -> bytes:
        """Return the same for clients with compression; each frame is compressed once.

        Args:
            pack: compresses one frame.
        """
        if self._packed_joined is None:
            more = [pack(frame) for frame in self.frames[len(self._packed) :]]
            self._packed += more
            self._packed_joined = b"".join(self._packed)
            self.copies += sum(map(len, more)) + len(self._packed_joined)
        return self._packed_joined
