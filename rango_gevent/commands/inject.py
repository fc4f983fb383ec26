"""``rango inject``: publish the lines of a file to the exchange, as a Peatio would.

A line is a routing key, white space and the JSON body, whose bytes go out unchanged. Blank
lines and lines that begin with ``#`` are left out. Every line is checked before the first is
published, with the checks of the gateway, so nothing goes out that it would drop.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable
from typing import Callable, NamedTuple

import msgspec
from gevent.timeout import Timeout

from rango_gevent import broker
from rango_gevent.commands.terminal import say
from rango_gevent.errors import ConfigError
from rango_gevent.protocol import routing
from rango_gevent.settings import Settings
from rango_gevent.source.base import SourceError
from rango_gevent.source.publisher import Publisher
from rango_gevent.urls import mask_url

_MAX_KEY_BYTES = 255  # a short string of AMQP
_MAX_PROBLEMS = 20
_SHOWN_EVERY_S = 0.2
_BOM = b"\xef\xbb\xbf"

_check_json = msgspec.json.Decoder(msgspec.Raw).decode


class Message(NamedTuple):
    """A line of the file: routing key and body."""

    key: str
    body: bytes


class SettlingPublisher(Publisher):
    """A publisher that can tell whether its messages have arrived."""

    def settle(self) -> None:
        """Wait until the broker has taken all that was published.

        Publishing gets no answer, so the first messages to a broker that is gone seem to go
        out. A question on the same channel is answered after all that went before it.
        """
        assert self._producer is not None, "connect first"
        broker.exchange(self._producer.channel, self._exchange, passive=True)


class BrokerAway(Exception):
    """The broker cannot be reached, refuses, or takes nothing any more; the text says which."""


def run(arguments: argparse.Namespace, settings: Settings) -> int:
    """Publish a file.

    Args:
        arguments: ``file`` (path or ``-``), ``rate`` (messages a second, 0: as fast as it
            goes), ``wait`` (seconds between passes), ``count`` (passes, 0: for ever),
            ``create`` (declare an exchange that is missing).
        settings: where to.

    Returns:
        0, or 1 when the broker is away or has no such exchange.

    Raises:
        ConfigError: the file cannot be read, or a line of it is wrong.
        KeyboardInterrupt: after the summary.
    """
    messages = read(arguments.file)
    progress = Progress(sys.stderr.isatty())
    try:
        _publish_passes(messages, arguments, settings, progress)
    except BrokerAway as error:
        progress.clear()
        say(f"rango: {error}")
        return 1
    finally:
        progress.finish(f"to {settings.exchange}")
    return 0


# -- the file ---------------------------------------------------------------------------


def read(path: str) -> list[Message]:
    """Read and check a whole file; ``-`` is standard input.

    Raises:
        ConfigError: it cannot be read, holds no message, or a line is wrong.
    """
    try:
        if path == "-":
            return parse(sys.stdin.buffer.read(), "stdin")
        with open(path, "rb") as file:
            return parse(file.read(), path)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None


def parse(text: bytes, name: str) -> list[Message]:
    """Parse lines of ``routing.key json``.

    Args:
        text: the file.
        name: its name, for problems.

    Raises:
        ConfigError: with the wrong lines as ``name:line``, or that there is no message.
    """
    messages, problems = [], []
    for number, line in enumerate(text[len(_BOM) * text.startswith(_BOM) :].split(b"\n"), 1):
        line = line.strip()
        if line and not line.startswith(b"#"):
            try:
                messages.append(parse_line(line))
            except ValueError as error:
                problems.append(f"{name}:{number}: {error}")
    if problems:
        more = len(problems) - _MAX_PROBLEMS
        raise ConfigError(
            *problems[:_MAX_PROBLEMS], *([f"{name}: {more} more lines are wrong"] * (more > 0))
        )
    if not messages:
        raise ConfigError(f"{name}: no message in it; a line is a routing key, a blank and JSON")
    return messages


def parse_line(line: bytes) -> Message:
    """Parse one line that holds a message.

    Raises:
        ValueError: it is not a routing key and JSON; the text says why.
    """
    key, *rest = line.split(None, 1)
    if not rest:
        raise ValueError("give a routing key, a blank and JSON")
    return Message(_checked_key(key), _checked_body(rest[0]))


def _checked_key(raw: bytes) -> str:
    try:
        key = raw.decode()
    except UnicodeDecodeError:
        raise ValueError("the routing key is not UTF-8") from None
    if len(raw) > _MAX_KEY_BYTES:
        raise ValueError(f"the routing key is longer than {_MAX_KEY_BYTES} bytes")
    if routing.parse_key(key) is None:
        raise ValueError(f"{key!r} fits no stream; give scope.stream.type or scope.type")
    return key


def _checked_body(body: bytes) -> bytes:
    try:
        _check_json(body)
        body.decode()  # msgspec does not look inside strings
    except UnicodeDecodeError:
        raise ValueError("the body is not UTF-8") from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(f"the body is not JSON: {error}") from None
    return body


# -- publishing -------------------------------------------------------------------------


def _publish_passes(
    messages: list[Message], arguments: argparse.Namespace, settings: Settings, progress: Progress
) -> None:
    """Publish all messages as often as asked for.

    Raises:
        BrokerAway: the broker is not there, or no longer.
    """
    publisher = connect(
        settings.broker_urls,
        settings.exchange,
        settings.broker_timeout_s,
        create=arguments.create,
    )
    pace = Pace(arguments.rate)
    passes = 0
    try:
        progress.start()
        while True:
            _publish_pass(publisher, messages, settings.broker_timeout_s, pace, progress)
            passes += 1
            if passes == arguments.count:
                break
            if arguments.wait:
                time.sleep(arguments.wait)
                pace.restart()
    finally:
        leave(publisher, settings.broker_timeout_s)


def connect(
    urls: Iterable[str], exchange: str, timeout_s: float, *, create: bool = False
) -> SettlingPublisher:
    """Connect to the first broker that lets us.

    Raises:
        BrokerAway: none does, or it has no such exchange; the text names each and why.
        ConfigError: a broker is kombu's in-memory one, which no other process can hear.
    """
    failed = []
    for url in urls:
        if url.startswith("memory:"):
            raise ConfigError(f"{url}: nobody outside of this process could hear that broker")
        publisher = SettlingPublisher(url, exchange, timeout_s, create=create)
        try:
            within(timeout_s, publisher.connect)
        except SourceError as error:  # a gateway would consume another exchange: nobody hears us
            leave(publisher, timeout_s)
            raise BrokerAway(
                f"{error} at {mask_url(url)}: check -exchange, start the gateway or a publisher "
                "first, or give --create"
            ) from None
        except BrokerAway as error:
            failed.append(f"no broker at {mask_url(url)}: {error}")
            leave(publisher, timeout_s)
        else:
            return publisher
    raise BrokerAway("; ".join(failed))


def _publish_pass(
    publisher: SettlingPublisher,
    messages: list[Message],
    timeout_s: float,
    pace: Pace,
    progress: Progress,
) -> None:
    for message in messages:
        pace.wait()
        try:
            within(timeout_s, publisher.publish, message.key, message.body)
        except BrokerAway as error:
            raise BrokerAway(f"the broker is lost: {error}") from None
        progress.add()
    try:
        within(timeout_s, publisher.settle)
    except BrokerAway as error:
        raise BrokerAway(f"the broker is lost, and perhaps the last messages: {error}") from None


def within(timeout_s: float, call: Callable[..., object], *arguments: object) -> None:
    """Call the broker, for a bounded time.

    Raises:
        BrokerAway: it failed or took too long.
        SourceError: the exchange is missing.
    """
    try:
        with Timeout(timeout_s, BrokerAway(f"no answer within {timeout_s:g} s")):
            call(*arguments)
    except (BrokerAway, SourceError):
        raise
    except Exception as error:  # kombu's own list of connection errors is not whole
        raise BrokerAway(str(error) or type(error).__name__) from None


def leave(publisher: Publisher, timeout_s: float) -> None:
    """Close the connection; a broker that is gone cannot be left any better."""
    try:
        within(timeout_s, publisher.close)
    except BrokerAway:
        return


class Pace:
    """Spreads messages evenly over time.

    Args:
        per_s: messages a second; 0: no waiting.
        now: monotonic time in seconds.
        sleep: waits for so many seconds.
    """

    def __init__(
        self,
        per_s: float,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._gap_s = 1 / per_s if per_s else 0.0
        self._now = now
        self._sleep = sleep
        self.restart()

    def restart(self) -> None:
        """Let the next message go at once."""
        self._due = self._now()

    def wait(self) -> None:
        """Wait until the next message is due; what is late is not made up for in a burst."""
        if not self._gap_s:
            return
        late_s = self._now() - self._due
        if late_s < 0:
            self._sleep(-late_s)
        # a sleep that ends some milliseconds late must not slow the whole thing down
        self._due = max(self._due, self._now() - 1.0) + self._gap_s


class Progress:
    """Counts messages and shows the count while it grows.

    Args:
        live: standard error is a terminal: show a line that is written over and over.
    """

    def __init__(self, live: bool) -> None:
        self._live = live
        self._shown_at = 0.0
        self._started_at: float | None = None
        self.published = 0

    def start(self) -> None:
        """Begin to measure the rate."""
        self._started_at = time.monotonic()

    def add(self) -> None:
        """Count a message."""
        self.published += 1
        if self._live and time.monotonic() >= self._shown_at + _SHOWN_EVERY_S:
            self._shown_at = time.monotonic()
            sys.stderr.write(f"\r{self._line()}\x1b[K")
            sys.stderr.flush()

    def clear(self) -> None:
        """Take the live line away, for another line in its place."""
        if self._live and self._shown_at:
            sys.stderr.write("\r\x1b[K")
            self._shown_at = 0.0

    def finish(self, where: str) -> None:
        """Say how it went; nothing when there was no connection at all."""
        self.clear()
        if self._started_at is not None:
            say(f"{self._line()} {where}")

    def _line(self) -> str:
        seconds = time.monotonic() - (self._started_at or 0.0)
        rate = self.published / max(seconds, 1e-6)
        return f"published {self.published} messages in {seconds:.1f} s ({rate:.0f}/s)"
