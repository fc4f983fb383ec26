"""``rango inject``: publish the lines of a file to the exchange, as a Peatio would.

A line is a routing key, white space and the JSON body, whose bytes go out unchanged. Blank
lines and lines that begin with ``#`` are left out. Every line is checked before the first is
published, with the checks of the gateway, so nothing goes out that it would drop. The broker
confirms each message, so a run that ends early says where to go on.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable
from typing import Callable, NamedTuple

import msgspec

from rango_gevent.commands.arguments import add_setting_flags, decimal, setting_flags, whole
from rango_gevent.commands.terminal import say
from rango_gevent.environment import load_settings
from rango_gevent.errors import ConfigError, PublishError
from rango_gevent.protocol import routing
from rango_gevent.publisher import Publisher
from rango_gevent.settings import Settings
from rango_gevent.urls import mask_url

_MAX_PROBLEMS = 20
_SHOWN_EVERY_S = 0.2
_AT_ONCE = 500  # one wait for so many confirms
_BAR = 20  # characters
_BOM = b"\xef\xbb\xbf"

_check_json = msgspec.json.Decoder(msgspec.Raw).decode


class Message(NamedTuple):
    """A line of the file: routing key and body."""

    key: str
    body: bytes


class BrokerAway(Exception):
    """The broker cannot be reached, refuses, or takes nothing any more; the text says which."""


DESCRIPTION = """\
Publish the lines of a file to the exchange. A line is a routing key, a blank and JSON;
blank lines and lines that begin with # are left out. All lines are checked before the
first goes out. The broker is set as for serve: by RABBITMQ_* or -amqp-addr."""
EXAMPLE = """\
  echo 'public.eurusd.trades {"price":"1.1"}' | rango inject -
  rango inject events.txt --rate 100 --count 0 --wait 1"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    add = parser.add_argument
    add("file", metavar="FILE", help="lines of `routing.key json`; - for standard input")
    add_setting_flags(parser, "amqp-addr", "exchange")
    add("--create", action="store_true", help="declare the exchange if it is missing")
    add(
        "--rate",
        type=decimal(0),
        default=0.0,
        metavar="N",
        help="messages a second; 0: as fast as it goes (default: %(default)g)",
    )
    add(
        "--count",
        type=whole(0),
        default=1,
        metavar="N",
        help="passes over the file; 0: for ever (default: %(default)s)",
    )
    add(
        "--wait",
        type=decimal(0, 86_400),
        default=0.0,
        metavar="S",
        help="seconds between passes (default: %(default)g)",
    )
    add(
        "--skip",
        type=whole(0),
        default=0,
        metavar="N",
        help="leave out the first N messages: what a run that ended early has published",
    )


def run(arguments: argparse.Namespace) -> int:
    """Publish a file.

    Args:
        arguments: ``file`` (path or ``-``), ``rate`` (messages a second, 0: as fast as it
            goes), ``wait`` (seconds between passes), ``count`` (passes, 0: for ever), ``skip``
            (messages to leave out at first), ``create`` (declare an exchange that is missing), and
            flags of the settings, which name the broker.

    Returns:
        0, or 1 when the broker is away or has no such exchange.

    Raises:
        ConfigError: a setting is wrong, the file cannot be read, or a line of it is wrong.
        KeyboardInterrupt: after the summary.
    """
    settings = load_settings(setting_flags(arguments)).settings
    messages = read(arguments.file)
    if arguments.skip > len(messages):
        raise ConfigError(f"--skip {arguments.skip}: there are only {len(messages)} messages")
    progress = Progress(
        sys.stderr.isatty(),
        len(messages) * arguments.count - arguments.skip * bool(arguments.count),
    )
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
        return routing.check_key(raw.decode())
    except UnicodeDecodeError:
        raise ValueError("the routing key is not UTF-8") from None


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
    passes, skip = 0, arguments.skip
    with connect(
        settings.broker_urls,
        settings.exchange,
        settings.broker_timeout_s,
        create=arguments.create,
    ) as publisher:
        progress.start()
        pace = Pace(arguments.rate)  # now: the time of connecting is not made up for
        while True:
            _publish_pass(publisher, messages, skip, pace, progress)
            passes, skip = passes + 1, 0
            if passes == arguments.count:
                break
            if arguments.wait:
                time.sleep(arguments.wait)
                pace.restart()


def connect(
    urls: Iterable[str],
    exchange: str,
    timeout_s: float,
    *,
    create: bool = False,
    confirm: bool = True,
) -> Publisher:
    """Connect to the first broker that lets us.

    Raises:
        BrokerAway: none does, or it has no such exchange; the text names each and why.
        ConfigError: a broker is kombu's in-memory one, which no other process can hear.
    """
    urls = list(urls)
    for url in urls:
        if url.startswith("memory:"):
            raise ConfigError(f"{url}: nobody outside of this process could hear that broker")
    publisher = Publisher(
        ";".join(urls), exchange=exchange, confirm=confirm, deadline_s=timeout_s, declare=create
    )
    try:
        publisher.connect()
    except PublishError as error:
        if error.reason != "no_exchange":
            raise BrokerAway(f"no broker at {error}") from None
        # a gateway would consume another exchange: nobody hears us
        raise BrokerAway(
            f"exchange {exchange!r} does not exist at {mask_url(';'.join(urls))}: check -exchange, "
            "start the gateway or a publisher first, or give --create"
        ) from None
    return publisher


def _publish_pass(
    publisher: Publisher, messages: list[Message], skip: int, pace: Pace, progress: Progress
) -> None:
    """Publish one by one at a rate, and in batches where none is asked for."""
    at_once = 1 if pace.is_kept else _AT_ONCE
    for start in range(skip, len(messages), at_once):
        pace.wait()
        part = messages[start : start + at_once]
        try:
            with publisher.batch() as batch:
                for message in part:
                    batch.publish(message.key, message.body)
        except PublishError as error:
            raise BrokerAway(
                f"the broker is lost: {error}; go on with --skip {start}"
                + (", although what comes next may have been sent" if error.maybe_sent else "")
            ) from None
        progress.add(len(part))


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

    @property
    def is_kept(self) -> bool:
        """Tell whether there is a rate to keep."""
        return self._gap_s > 0

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
        total: messages there will be; 0: nobody knows.
    """

    def __init__(self, live: bool, total: int = 0) -> None:
        self._live = live
        self._total = total
        self._shown_at = 0.0
        self._started_at: float | None = None
        self.published = 0

    def start(self) -> None:
        """Begin to measure the rate."""
        self._started_at = time.monotonic()

    def add(self, count: int = 1) -> None:
        """Count messages."""
        self.published += count
        if self._live and time.monotonic() >= self._shown_at + _SHOWN_EVERY_S:
            self._shown_at = time.monotonic()
            sys.stderr.write(f"\r{self._line()}{self._bar()}\x1b[K")
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

    def _bar(self) -> str:
        if not self._total:
            return ""
        done = min(1.0, self.published / self._total)
        return f" [{'#' * int(done * _BAR):-<{_BAR}}] {done:.0%}"
