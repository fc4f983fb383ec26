"""One alert to one sink, in a process that lives for that alone.

``python -m rango_gevent.alerts.deliver`` reads a job as JSON from standard input and prints one
line of JSON: what went wrong, empty when nothing did. It may hang, in DNS or in a library, or
crash: who started it waits so long and no longer. apprise and redis-py are imported here, and
nowhere else. The sinks' URLs come by standard input, so they are in no list of processes.
"""

from __future__ import annotations

import json
import logging
import os
import select
import socket
import subprocess  # nosec B404
import sys
from typing import IO, Callable, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

from rango_gevent.alerts.letter import Letter

MAGIC = b"373d26968a5a2b698045"  # what alertcenter wants in front of each line
MAX_DATAGRAM = 10_240  # alertcenter's bound, bytes
_MAX_ANSWER = 4096
_MAX_WORDS = 300
_REFUSAL_S = 0.2  # a port that is closed says so by then, if it does at all
_END_S = 1.0
_NEEDS = {"redis": "redis", "rediss": "redis", "udp": ""}


class Failed(Exception):
    """A sink did not take an alert; the text says why."""


class Job(NamedTuple):
    """What a process is to deliver.

    Attributes:
        url: of the sink.
        host: name of the gateway.
        timeout_s: seconds for each step.
        letter: the message; None: only look whether the URL is one.
    """

    url: str
    host: str
    timeout_s: float
    letter: Letter | None


class Delivery:
    """A process that delivers.

    Args:
        job: what it is to do.
    """

    def __init__(self, job: Job) -> None:
        with _job_file(job) as given:
            self._process = subprocess.Popen(  # nosec B603
                [sys.executable, "-m", "rango_gevent.alerts.deliver"],
                stdin=given,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,  # what libraries say there may hold secrets
                start_new_session=True,
            )

    def fileno(self) -> int:
        """Return what can be read when it is over."""
        assert self._process.stdout is not None
        return self._process.stdout.fileno()

    def problem(self) -> str:
        """Return what went wrong, once it is over; empty when it was delivered."""
        said = os.read(self.fileno(), _MAX_ANSWER)  # written at once, or never
        self.kill(wait_s=_END_S)
        try:
            return str(json.loads(said))
        except ValueError:
            return f"the process that delivers ended with {self._process.returncode}"

    def wait(self, timeout_s: float) -> str:
        """Wait until it is over, and return what went wrong; empty when it was delivered."""
        if select.select([self], [], [], timeout_s)[0]:
            return self.problem()
        self.kill()
        return f"it takes longer than {timeout_s:g} s"

    def kill(self, wait_s: float = 0.0) -> None:
        """End it, if it does not end by itself."""
        try:
            self._process.wait(wait_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


def _job_file(job: Job) -> IO[bytes]:
    """Return a file in memory: writing to it never waits, and no disk sees the URL."""
    file = os.fdopen(os.memfd_create("rango-alert"), "w+b")
    file.write(json.dumps(job).encode())
    file.seek(0)
    return file


def missing(urls: tuple[str, ...]) -> set[str]:
    """Return the libraries that sinks need, by their names on PyPI."""
    schemes = [urlsplit(url).scheme.lower() for url in urls]
    return {_NEEDS.get(scheme, "apprise") for scheme in schemes} - {""}


def main() -> None:
    """Do the job of standard input."""
    url, host, timeout_s, letter = json.load(sys.stdin)
    job = Job(url, host, timeout_s, letter and Letter(*letter))
    try:
        _sink(urlsplit(url).scheme.lower())(job)
        problem = ""
    except ImportError as error:
        problem = f"{error.name} is not installed: pip install 'rango-gevent[alerts]'"
    except Exception as error:  # of any library
        words = str(error) or type(error).__name__
        problem = without_secrets(words, url)[:_MAX_WORDS]
    sys.stdout.write(json.dumps(problem))
    sys.stdout.flush()
    os._exit(0)  # whatever threads a library has left


def without_secrets(text: str, url: str) -> str:
    """Return a text without what a URL holds: users, passwords, paths and queries."""
    parts = urlsplit(url)
    shows_host = parts.scheme in ("udp", "redis", "rediss")
    found = [*parts.path.split("/"), *(value for _, value in parse_qsl(parts.query))]
    found += [parts.query, parts.fragment, parts.username or "", parts.password or ""]
    found += [] if shows_host else [parts.netloc, parts.hostname or ""]
    words = {word for part in found for word in (part, unquote(part)) if len(word) > 2}
    for word in sorted(words, key=len, reverse=True):
        text = text.replace(word, "***")
    return " ".join(text.split())


def _sink(scheme: str) -> Callable[[Job], None]:
    return {"udp": _udp, "redis": _redis, "rediss": _redis}.get(scheme, _apprise)


def datagram(host: str, line: str) -> bytes:
    """Return a line as ViaBTC's alertcenter takes it: magic head, host, colon, blank, text.

    What is too long is cut before the end of the line, without which alertcenter waits for more.
    """
    text = f"{host}: {line}".encode("utf-8", "replace")
    most = MAX_DATAGRAM - len(MAGIC) - 1
    cut = text if len(text) <= most else text[:most].decode("utf-8", "ignore").encode()
    return MAGIC + cut + b"\n"


def _udp(job: Job) -> None:
    parts = urlsplit(job.url)
    found = socket.getaddrinfo(parts.hostname, parts.port, type=socket.SOCK_DGRAM)
    family, kind, number, _, address = found[0]
    with socket.socket(family, kind, number) as sock:
        sock.connect(address)
        if job.letter is None:
            return
        sock.send(datagram(job.host, job.letter.line))
        sock.settimeout(_REFUSAL_S)
        try:
            sock.recv(1)
        except socket.timeout:
            return  # nobody said no, which is all that UDP tells
        except ConnectionRefusedError:
            raise Failed("nobody listens there") from None


def _redis(job: Job) -> None:
    import redis

    parts = urlsplit(job.url)
    *database, key = unquote(parts.path).strip("/").split("/")
    place = parts._replace(path=f"/{database[0] if database else 0}").geturl()
    client = redis.Redis.from_url(
        place, socket_timeout=job.timeout_s, socket_connect_timeout=job.timeout_s
    )
    try:
        if job.letter is None:
            client.ping()
        else:
            text = f"{job.host}: {job.letter.subject}\n{job.letter.body}"
            client.rpush(key, text.encode("utf-8", "replace"))
    finally:
        client.close()


class _Heard(logging.Handler):
    """Keeps the last complaint of a library."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.last = ""

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it."""
        self.last = record.getMessage()


def _apprise(job: Job) -> None:
    import apprise

    heard = _Heard()
    logger = logging.getLogger("apprise")
    logger.propagate = False
    logger.addHandler(heard)
    asset = apprise.AppriseAsset(app_id="rango", app_desc="rango", storage_mode="memory")
    sinks = apprise.Apprise(asset=asset)
    if not sinks.add(job.url):
        raise Failed(heard.last or "apprise knows no such URL")
    if job.letter is not None:
        _, body, _ = job.letter
        if not sinks.notify(body=body, title=job.letter.subject):
            raise Failed(heard.last or "it was not taken")


if __name__ == "__main__":
    main()
