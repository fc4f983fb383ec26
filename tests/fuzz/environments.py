"""Any environment and flags give settings that work, or a ConfigError of readable lines.

That is: nothing else is raised; settings that loaded can be shown, without secrets, and what is
made of them at start, such as the broker's URLs, can be made. Each line of the input is a setting:
a byte that chooses it and its value, or after the byte 255 ``NAME=value``.
"""

from __future__ import annotations

from kombu.utils.url import url_to_parts, urlparts

from rango_gevent.errors import ConfigError
from rango_gevent.settings import Settings, flag_names, load, options, shown

_FLAGS = ("ws-addr", *flag_names())
_NAMES = (
    *(option.env for option in options().values()),
    "RANGO_RBAC_ADMIN",
    "RANGO_RBAC_A-b",
    "RANGO_RBAC_",
)
_SECRET = "hunter2hunter2"


def check(data: bytes) -> None:
    """Load the settings that some lines describe."""
    environ: dict[str, str] = {}
    flags: dict[str, str] = {}
    for line in data.split(b"\n"):
        _add(line, environ, flags)
    try:
        loaded = load(environ, flags)
    except ConfigError as error:
        _check_lines(error.problems or [""])
        return
    _check_lines(loaded.warnings)
    _check_settings(loaded.settings)


def _add(line: bytes, environ: dict[str, str], flags: dict[str, str]) -> None:
    """Set what a line says, decoded as Python decodes an environment and arguments."""
    if not line:
        return
    choice, value = line[0], line[1:].decode("utf-8", "surrogateescape").replace("\0", "\n")
    if choice == 255:
        name, _, value = value.partition("=")
        environ[name] = value
    elif choice < len(_FLAGS):
        flags[_FLAGS[choice]] = value
    else:
        environ[_NAMES[(choice - len(_FLAGS)) % len(_NAMES)]] = value


def _check_lines(lines: list[str]) -> None:
    for line in lines:
        assert line
        assert line.isprintable(), "a line that a log or a terminal might misread"
        assert _SECRET not in line or "AMQP" not in line and "PASSWORD" not in line


def _check_settings(settings: Settings) -> None:
    for url in settings.broker_urls:
        _check_url(settings, url_to_parts(url))
    for name in options():
        text = shown(settings, name)
        text.encode()
        assert not ("password" in name and _SECRET in text)
    settings.exchange.encode()
    settings.origins.allows("https://a.example", "a.example")
    settings.rbac.allows("admin", "superadmin")
    assert settings.pong_timeout_s > settings.ping_interval_s


def _check_url(settings: Settings, parts: urlparts) -> None:
    """Compare a broker's URL, as kombu reads it, with the settings that it was made of."""
    if not settings.amqp_urls:
        assert parts.scheme == "amqp"
        assert parts.port == settings.rabbitmq_port
        assert (parts.username or "") == settings.rabbitmq_user
        assert (parts.password or "") == settings.rabbitmq_password
        assert parts.path == settings.rabbitmq_vhost
        assert (parts.hostname or "").lower() == settings.rabbitmq_host.lower()


def _line(name: str, value: bytes) -> bytes:
    if name in _FLAGS:
        return bytes([_FLAGS.index(name)]) + value
    return bytes([len(_FLAGS) + _NAMES.index(name)]) + value


SEEDS = (
    _line("ws-addr", b"127.0.0.1:8080") + b"\n" + _line("exchange", b"peatio.events.ranger"),
    _line("ws-addr", b"[::1]:0"),
    _line("amqp-addr", b"amqp://user:hunter2hunter2@host:5672/vhost;amqps://b/%2F?heartbeat=1"),
    _line("RANGO_AMQP_URL", b"amqp://u:hunter2hunter2@[::1]:5672//"),
    _line("RABBITMQ_PASSWORD", b"hunter2hunter2\xff") + b"\n" + _line("RABBITMQ_USER", b"\xc3\xa9"),
    _line("RABBITMQ_HOST", b"::1") + b"\n" + _line("RABBITMQ_VHOST", b"/a"),
    _line("RABBITMQ_PORT", b"65536") + b"\n" + _line("RANGER_PORT", b"\xd9\xa1"),
    _line("API_CORS_ORIGINS", b"a.example, https://b.example:8443/x,*"),
    _line("RANGO_TRUSTED_PROXIES", b"10.0.0.0/8, ::1,fe80::/10"),
    _line("RANGO_SLOW_STREAMS", b"*.tickers=latest,[a=close"),
    _line("RANGO_PING_INTERVAL_S", b"60") + b"\n" + _line("RANGO_PONG_TIMEOUT_S", b"60.0"),
    _line("RANGO_RBAC_ADMIN", b"admin, superadmin") + b"\n" + _line("RANGO_RBAC_", b"x"),
    b"\xffRANGO_RBAC_ADMIN=\n\xffRANGO_RBAC_admin=a\n\xffRANGO_TYPO=1\n\xffPATH=/bin",
    _line("RANGO_AMQP_URL", b"amqp:host:5672") + b"\n" + _line("amqp-addr", b"amqp:/s:amqps://1"),
    _line("RABBITMQ_HOST", b"fe80::1%2Feth0"),
    _line("RABBITMQ_HOST", b"fe80::1%\xe2\x80\xa8eth0"),
    _line("RABBITMQ_HOST", b"host:5672") + b"\n\xffRANGO_\0=",
    _line("RANGO_COMPRESSION", b"ON") + b"\n" + _line("LOG_LEVEL", b"loud"),
)
WORDS = (
    b"\n", b"amqp://", b"memory://", b"hunter2hunter2", b"@", b";", b"%2F", b"RANGO_RBAC_",
    b"RANGO_", b"\xff", b"https://", b"=latest", b"10.0.0.0/8", b"0.1", b"1e3", b"\xe2\x80\xa8",
)  # fmt: skip
