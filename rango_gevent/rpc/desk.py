"""Who answers which question: a table, a cache before it, one question for all who ask the same.

``{"method":"kline.query","params":[…]}`` goes out, with ``"uid"`` where it is about somebody's own;
``{"error":null,"result":…}`` or ``{"error":{"code":1,"message":"…"}}`` comes back. Answers about
nobody's own are kept for a while, within bounds.
"""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from fnmatch import fnmatchcase
from typing import Any, Callable, NamedTuple, Optional, cast

import gevent
import msgspec
from gevent.event import AsyncResult
from gevent.lock import BoundedSemaphore

from rango_gevent.remote import fetch
from rango_gevent.remote.fetch import Fetcher
from rango_gevent.rpc.errors import Answered, Away, Busy, Late, RpcError

GOOD = "good"
CACHED = "cached"
REFUSED = "refused"
AWAY = "away"
LATE = "late"
BUSY = "busy"
OUTCOMES = (GOOD, CACHED, REFUSED, AWAY, LATE, BUSY)
_WORDS: dict[type[RpcError], str] = {Answered: REFUSED, Away: AWAY, Late: LATE, Busy: BUSY}

Ask = Callable[[bytes], bytes]
Shape = Callable[[bytes], bytes]


class Row(NamedTuple):
    """A row of the table: methods by a shell pattern, and who answers them."""

    pattern: str
    ask: Ask


class CacheLimits(NamedTuple):
    """Bounds of the cache: seconds, answers, and bytes of all of them; and of questions at once."""

    keep_s: float = 0.5
    answers: int = 1000
    size: int = 16 << 20
    waiting: int = 1000


class _Error(msgspec.Struct):
    code: int
    message: str = ""


class _Answer(msgspec.Struct):
    error: Optional[_Error] = None
    result: msgspec.Raw = msgspec.Raw(b"null")


_read = msgspec.json.Decoder(_Answer).decode


class Desk:
    """Answers questions.

    Args:
        rows: the first whose pattern matches counts.
        limits: bounds of the cache.
        now: monotonic time in seconds.

    Attributes:
        outcomes: questions by what became of them.
        size: bytes of the answers that are kept.
    """

    def __init__(
        self,
        rows: list[Row],
        limits: CacheLimits | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rows = rows
        self._limits = limits or CacheLimits()
        self._now = now
        self._kept: OrderedDict[bytes, tuple[float, bytes]] = OrderedDict()
        self._under_way: dict[bytes, AsyncResult[bytes]] = {}
        self._at_once = 0
        self.size = 0
        self.outcomes: Counter[str] = Counter()

    def _row(self, method: str) -> Row | None:
        return next((row for row in self._rows if fnmatchcase(method, row.pattern)), None)

    def knows(self, method: str) -> bool:
        """Tell whether somebody answers a method."""
        return self._row(method) is not None

    def ask(
        self,
        method: str,
        params: list[Any],
        uid: str | None = None,
        shape: Shape | None = None,
    ) -> bytes:
        """Return the result as JSON; waits for it.

        Args:
            method: what is asked.
            params: about what.
            uid: about whose own; None: about nobody's, and the answer may be a moment old.
            shape: changes a result about nobody's own, once for all who ask the same.

        Raises:
            RpcError: there is no good answer.
        """
        row = self._row(method)
        if row is None:
            raise Away("nobody answers this")
        try:
            if uid is None:
                question = {"method": method, "params": params}
                return self._shared(row, msgspec.json.encode(question), shape)
            question = {"method": method, "params": params, "uid": uid}
            result = self._asked(row, msgspec.json.encode(question))
        except RpcError as error:
            self.outcomes[_WORDS[type(error)]] += 1
            raise
        self.outcomes[GOOD] += 1
        return result

    def _shared(self, row: Row, question: bytes, shape: Shape | None) -> bytes:
        kept = self._kept.get(question)
        if kept is not None and kept[0] > self._now():
            self.outcomes[CACHED] += 1
            return kept[1]
        under_way = self._under_way.get(question)
        if under_way is None:
            under_way = self._under_way[question] = AsyncResult()
            gevent.spawn(self._run, row, question, under_way, shape)
        result = cast("bytes", under_way.get())
        self.outcomes[GOOD] += 1
        return result

    def _run(
        self, row: Row, question: bytes, under_way: AsyncResult[bytes], shape: Shape | None
    ) -> None:
        """Ask for all who wait, in a greenlet that belongs to none of them."""
        try:
            result = self._asked(row, question)
            if shape is not None:
                result = shape(result)
        except Exception as error:
            known = isinstance(error, RpcError)
            under_way.set_exception(error if known else Away("the question failed"))
        else:
            self._keep(question, result)
            under_way.set(result)
        finally:
            del self._under_way[question]

    def _asked(self, row: Row, question: bytes) -> bytes:
        if self._at_once >= self._limits.waiting:
            raise Busy("too many questions wait")
        self._at_once += 1
        try:
            return read_answer(row.ask(question))
        finally:
            self._at_once -= 1

    def _keep(self, question: bytes, result: bytes) -> None:
        limits = self._limits
        old = self._kept.pop(question, None)
        if old is not None:
            self.size -= len(old[1])
        self._kept[question] = (self._now() + limits.keep_s, result)
        self.size += len(result)
        while self._kept and (len(self._kept) > limits.answers or self.size > limits.size):
            self.size -= len(self._kept.popitem(last=False)[1][1])


def read_answer(body: bytes) -> bytes:
    """Return the result of an answer.

    Raises:
        Answered: it is an error.
        Away: it is no answer.
    """
    try:
        answer = _read(body)
        body.decode()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Away("no answer that could be read") from None
    if answer.error is not None:
        raise Answered(answer.error.code, answer.error.message[:200])
    return bytes(answer.result)


def by_http(fetcher: Fetcher, at_once: int, timeout_s: float) -> Ask:
    """Return what asks a URL by POST.

    Args:
        fetcher: of the URL.
        at_once: requests under way.
        timeout_s: seconds that a question may wait for its turn.
    """
    places = BoundedSemaphore(at_once)

    def ask(question: bytes) -> bytes:
        if not places.acquire(timeout=timeout_s):
            raise Late("others took too long")
        try:
            answer = fetcher.post(question)
        except fetch.Late:
            raise Late("no answer in time") from None
        except fetch.Unreachable as error:
            raise Away(str(error)) from None
        finally:
            places.release()
        if answer.status != 200:
            raise Away(f"status {answer.status}")
        return answer.body

    return ask
