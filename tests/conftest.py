"""Fixtures that all tests share, and the servers' logs in the reports of failed tests."""

from __future__ import annotations

import itertools
from typing import Iterator

import psycopg
import pytest
import redis
import support
from asyncapi import SERVER, kinds
from databases import postgres_server, redis_server
from support import Client, Server, start_gateway

_LOG_LINES = 60
_numbers = itertools.count()


@pytest.fixture(scope="session")
def gateway() -> Iterator[Server]:
    """One server with default limits, shared by all tests that leave it as they found it.

    Only the rate of requests is higher, since tests are faster than people.
    """
    env = {
        "RANGO_RBAC_ADMIN": "admin,superadmin",
        "RANGO_RBAC_PRIVATEER": "admin",
        "RANGO_MAX_REQUESTS_PER_S": "1000000",
        "RANGO_REQUESTS_BURST": "1000000",
    }
    with start_gateway(env=env) as server:
        yield server


@pytest.fixture(scope="session")
def redis_server_url() -> Iterator[str]:
    """Run one Redis for all tests that want one."""
    with redis_server() as url:
        yield url


@pytest.fixture(scope="session")
def postgresql_server_url() -> Iterator[str]:
    """Run one PostgreSQL for all tests that want one."""
    with postgres_server() as url:
        yield url


@pytest.fixture
def redis_url(redis_server_url: str) -> str:
    """Return the URL of a Redis that is empty."""
    redis.Redis.from_url(redis_server_url).flushall()
    return redis_server_url


@pytest.fixture
def postgresql_url(postgresql_server_url: str) -> str:
    """Return the URL of a database of PostgreSQL that is empty."""
    name = f"t{next(_numbers)}"
    with psycopg.connect(postgresql_server_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return postgresql_server_url.rpartition("/")[0] + "/" + name


@pytest.fixture
def documented(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """All that clients of a test are sent is one message of docs/asyncapi.yaml each."""
    heard: list[str] = []
    receive = Client.receive

    def note(client: Client, timeout_s: float = support.PATIENCE_S) -> str:
        heard.append(receive(client, timeout_s))
        return heard[-1]

    monkeypatch.setattr(Client, "receive", note)
    yield
    strange = {text for text in set(heard) if len(kinds(text, SERVER)) != 1}
    assert strange == set()


@pytest.fixture
def market() -> str:
    """Return a name of streams that no other test uses."""
    return f"m{next(_numbers)}"


def pytest_sessionfinish() -> None:
    """Leave no durable queue in a broker that may be somebody's."""
    support.delete_logs()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Show the end of the log of every server that ran during a failed test."""
    report: pytest.TestReport = yield  # type: ignore[assignment]  # the hook's result
    if report.failed:
        for server in support.started:
            tail = "\n".join(server.log().splitlines()[-_LOG_LINES:])
            report.sections.append((f"log of the server with pid {server.process.pid}", tail))
    if call.when == "teardown":
        support.started[:] = [server for server in support.started if not server.has_ended]
    return report  # type: ignore[return-value]  # as above
