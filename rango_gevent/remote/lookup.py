"""Opaque tokens: another service is asked whose they are.

``GET`` with ``Authorization: <the token as it was given>``; it answers
``{"code":0,"message":null,"data":{"user_id":1}}`` or ``{"uid":"..","role":".."}``. Rules:

* A token is asked about once at a time, whoever brings it, and its answer is kept for a while:
  under a digest, so that no token is kept. A refusal is kept for a shorter one.
* Requests at once, and those that wait for their turn, are bounded; past that, and while the
  service does not answer, a token is "unavailable" at once.
* Each request runs in a greenlet of its own: who brought the token may leave meanwhile.
"""

from __future__ import annotations

import hashlib
import logging
import re
import time
from collections import Counter, OrderedDict
from typing import Callable, NamedTuple, Union, cast

import gevent
import msgspec
from gevent.event import AsyncResult
from gevent.lock import BoundedSemaphore

from rango_gevent.auth.identity import Identity
from rango_gevent.auth.tokens import MALFORMED, SIGNATURE, UNAVAILABLE
from rango_gevent.errors import TokenError
from rango_gevent.remote.breaker import Breaker
from rango_gevent.remote.fetch import Answer, Late, Unreachable
from rango_gevent.throttle import ThrottledLog

log = logging.getLogger(__name__)

GOOD = "good"
REFUSED = "refused"
CACHED = "cached"
FAILED = "failed"
SHED = "shed"
RESTING = "resting"
OUTCOMES = (GOOD, REFUSED, CACHED, FAILED, SHED, RESTING)

_EVERY_S = 10.0
_FAILURES = 5
_REST_S = 5.0
_NOT_WELL = (408, 429)  # RFC 9110 section 15.5.9, RFC 6585 section 4
_MAX_UID_BYTES = 255
_MAX_MESSAGE = 100
_FIT = re.compile(r"[\x21-\x7e]([\x20-\x7e]{0,8190}[\x21-\x7e])?")  # fit for a header's value


class LookupLimits(NamedTuple):
    """Bounds on asking.

    Attributes:
        timeout_s: seconds that a token may wait for its turn.
        at_once: requests under way.
        waiting: tokens that wait for one.
        good_s: seconds for which an answer is kept.
        bad_s: the same for a refusal.
        kept: answers that are kept.
    """

    timeout_s: float
    at_once: int
    waiting: int
    good_s: float
    bad_s: float
    kept: int


class Refused(NamedTuple):
    """The service does not know the token; what it said is told to the client."""

    message: str


class Silent(NamedTuple):
    """There is no answer: it did not come in time, or none can be had."""

    is_late: bool


Verdict = Union[Identity, Refused, Silent]
_AWAY = Silent(is_late=False)
_LATE = Silent(is_late=True)


class _Kept(NamedTuple):
    verdict: Verdict
    until_s: float


class Lookup:
    """Tells whose a token is, by asking.

    Args:
        ask: makes the request with a token, may wait; raises `Unreachable`.
        limits: bounds.
        now: monotonic time in seconds.
        wall: the Unix time in seconds.
        setting: that names the service, for the log.

    Attributes:
        outcomes: tokens by what became of them.
    """

    def __init__(
        self,
        ask: Callable[[str], Answer],
        limits: LookupLimits,
        now: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        setting: str = "RANGO_AUTH_URL",
    ) -> None:
        self._ask = ask
        self._setting = setting
        self._limits = limits
        self._now = now
        self._wall = wall
        self._breaker = Breaker(_FAILURES, _REST_S, now)
        self._places = BoundedSemaphore(limits.at_once)
        self._under_way: dict[bytes, AsyncResult[Verdict]] = {}
        self._kept: OrderedDict[bytes, _Kept] = OrderedDict()
        self._told = ThrottledLog(log, _EVERY_S)
        self.outcomes: Counter[str] = Counter()

    def __len__(self) -> int:
        """Return how many answers are kept."""
        return len(self._kept)

    def identify(self, token: str) -> Identity:
        """Return whose a token is; may wait.

        Raises:
            TokenError: nobody's, or the service cannot be asked now.
        """
        if not _FIT.fullmatch(token):
            raise TokenError("the token is malformed", MALFORMED)
        digest = hashlib.sha256(token.encode()).digest()
        verdict = self._remembered(digest) or self._found_out(digest, token)
        if isinstance(verdict, Silent):
            text = "the service that knows tokens does not answer"
            raise TokenError(text, UNAVAILABLE, is_late=verdict.is_late)
        if isinstance(verdict, Refused):
            told = "" if token in verdict.message else verdict.message
            raise TokenError("the token is not known", SIGNATURE, told)
        return verdict

    def forget(self, uid: str) -> None:
        """Ask anew about the tokens of a user."""
        for digest, (verdict, _) in list(self._kept.items()):
            if isinstance(verdict, Identity) and verdict.uid == uid:
                del self._kept[digest]

    def _remembered(self, digest: bytes) -> Verdict | None:
        kept = self._kept.get(digest)
        if kept is None:
            return None
        if kept.until_s <= self._now():
            del self._kept[digest]
            return None
        self.outcomes[CACHED] += 1
        return kept.verdict

    def _found_out(self, digest: bytes, token: str) -> Verdict:
        result = self._under_way.get(digest)
        if result is None:
            if len(self._under_way) >= self._limits.at_once + self._limits.waiting:
                self.outcomes[SHED] += 1
                return _AWAY
            result = self._under_way[digest] = AsyncResult()
            gevent.spawn(self._run, digest, token, result)
        return cast("Verdict", result.get())

    def _run(self, digest: bytes, token: str, result: AsyncResult[Verdict]) -> None:
        verdict: Verdict = _AWAY
        try:
            if not self._places.acquire(timeout=self._limits.timeout_s):
                self.outcomes[SHED] += 1
                verdict = _LATE
                return
            try:
                verdict = self._request(token)
            finally:
                self._places.release()
            if not isinstance(verdict, Silent):
                self._keep(digest, verdict)
        finally:
            del self._under_way[digest]
            result.set(verdict)

    def _request(self, token: str) -> Verdict:
        """Ask, unless those before had no answer."""
        if not self._breaker.allows:
            self.outcomes[RESTING] += 1
            return _AWAY
        asked_s = self._wall()  # what is revoked while it is asked about was known before
        try:
            verdict = read_answer(self._ask(token), asked_s)
        except (Unreachable, ValueError) as error:
            text = "%s does not say whose a token is: %s"
            self._told.warning(FAILED, text, self._setting, error)
            self.outcomes[FAILED] += 1
            self._breaker.failed()
            return _LATE if isinstance(error, Late) else _AWAY
        self._breaker.succeeded()
        self.outcomes[GOOD if isinstance(verdict, Identity) else REFUSED] += 1
        return verdict

    def _keep(self, digest: bytes, verdict: Verdict) -> None:
        limits = self._limits
        keep_s = limits.good_s if isinstance(verdict, Identity) else limits.bad_s
        self._kept[digest] = _Kept(verdict, self._now() + keep_s)
        while len(self._kept) > limits.kept:
            self._kept.popitem(last=False)


def read_answer(answer: Answer, at_s: float) -> Verdict:
    """Read what the service says.

    Args:
        answer: of any status; one of 400 and more refuses the token, unless it says that the
            service is not well: else whoever sends odd tokens could make us leave it alone.
        at_s: Unix time at which it was asked.

    Raises:
        ValueError: it is no such answer.
    """
    status = answer.status
    if 400 <= status < 500 and status not in _NOT_WELL:
        return Refused("")
    if status != 200:
        raise ValueError(f"status {status}")
    try:
        said = msgspec.json.decode(answer.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ValueError("not JSON") from None
    if not isinstance(said, dict):
        raise ValueError("not an object")
    if "code" not in said:
        return _identity(said.get("uid"), said.get("role"), at_s)
    if said["code"] != 0:
        return Refused(_shown(said.get("message")))
    data = said.get("data")
    if not isinstance(data, dict):
        raise ValueError("no data")
    return _identity(data.get("user_id"), data.get("role"), at_s)


def _identity(uid: object, role: object, at_s: float) -> Identity:
    if isinstance(uid, int) and not isinstance(uid, bool):
        uid = str(uid)
    if not isinstance(uid, str) or not 0 < len(uid.encode()) <= _MAX_UID_BYTES:
        raise ValueError("no uid")
    if role is not None and not isinstance(role, str):
        raise ValueError("role")
    return Identity(uid, role or "", None, at_s)


def _shown(message: object) -> str:
    """Return a message fit to be told: short, and on one line."""
    text = message if isinstance(message, str) else ""
    return "".join(c for c in text[:_MAX_MESSAGE] if c.isprintable())
