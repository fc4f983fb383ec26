"""Stores told apart by their URLs; the library of one is imported when it is asked for."""

from __future__ import annotations

from urllib.parse import urlsplit

from rango_gevent.errors import ConfigError
from rango_gevent.marketdata.store import Store, StoreRefused
from rango_gevent.urls import mask_url

_SQL = ("sqlite", "postgresql", "postgres")
_REDIS = ("redis", "rediss", "unix")


def open_store(url: str, exchange: str, *, takes_over: bool = True) -> Store:
    """Open a store, make it if it is not there, and own it.

    Args:
        url: ``sqlite:///path``, ``postgresql://…``, ``redis://…``.
        exchange: whose market data it keeps: a store is of one exchange.
        takes_over: own it even if another process is at work on it.

    Raises:
        ConfigError: the URL or what is behind it is wrong; the text names the cure.
        StoreError: nobody answers there, or not as it should; that may pass.
    """
    scheme = urlsplit(url).scheme.partition("+")[0]
    try:
        if scheme in _SQL:
            from rango_gevent.marketdata.sqlstore import SqlStore

            return SqlStore(url, exchange, takes_over=takes_over)
        if scheme in _REDIS:
            from rango_gevent.marketdata.redisstore import RedisStore

            return RedisStore(url, exchange, takes_over=takes_over)
    except ImportError as error:
        raise ConfigError(
            f"RANGO_MARKETDATA_STORE={mask_url(url)!r} needs {error.name}: "
            "pip install 'rango-gevent[marketdata]'"
        ) from None
    except StoreRefused as error:
        raise ConfigError(f"RANGO_MARKETDATA_STORE={mask_url(url)!r}: {error}") from None
    raise ConfigError(
        f"RANGO_MARKETDATA_STORE={mask_url(url)!r}: give sqlite:///path, postgresql://host/name "
        "or redis://host/0"
    )
