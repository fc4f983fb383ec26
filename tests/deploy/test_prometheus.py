"""conf/prometheus.yml and conf/alerts.yml in the real Prometheus, with real gateways to scrape."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import urllib.parse
from pathlib import Path
from typing import Any, Iterator, NamedTuple

from processes import CONF, conf, run, running, yaml_of
from prometheus_client.parser import text_string_to_metric_families
from support import HOST, Server, free_port, http_request, start_gateway, wait_for

HERE = Path(__file__).parent
WORKERS = 2
LONG_S = 60  # for a figure to get there by scrapes a second apart, some of them late

# Rango's own names, which dashboards rely on and promtool would have otherwise.
RANGOS_NAMES = {
    "rango_hub_clients_count",
    "rango_hub_subscriptions_count",
}


class Prometheus(NamedTuple):
    """A running Prometheus: its port and its log."""

    port: int
    log_path: Path

    def api(self, path: str, **arguments: str) -> Any:
        """Return the data of an answer of the HTTP API."""
        query = urllib.parse.urlencode(arguments)
        answer = json.loads(http_request(self.port, f"/api/v1/{path}?{query}").body)
        assert answer["status"] == "success", answer
        return answer["data"]

    def value(self, expression: str) -> float | None:
        """Return the only value of an expression now; None when there is none yet."""
        result = self.api("query", query=expression)["result"]
        assert len(result) <= 1, result
        return float(result[0]["value"][1]) if result else None

    def alerts(self) -> set[tuple[str, str]]:
        """Return name and target of all alerts, pending ones too."""
        labels = [alert["labels"] for alert in self.api("alerts")["alerts"]]
        return {(found["alertname"], found["instance"]) for found in labels}


@contextlib.contextmanager
def start_prometheus(directory: Path, *targets: str) -> Iterator[Prometheus]:
    """Run Prometheus with conf/prometheus.yml, a scrape every second, for some targets."""
    port = free_port()
    text = conf(
        "prometheus.yml",
        {
            "scrape_interval: 15s": "scrape_interval: 1s",
            "evaluation_interval: 15s": "evaluation_interval: 1s",
            '["localhost:4242"]': json.dumps(targets),
        },
    )
    (directory / "prometheus.yml").write_text(text)
    (directory / "alerts.yml").write_text(conf("alerts.yml"))
    command = [
        "/usr/bin/prometheus",
        f"--config.file={directory}/prometheus.yml",
        f"--storage.tsdb.path={directory}/data",
        f"--web.listen-address={HOST}:{port}",
    ]
    with running(command, directory) as process:
        process.wait_for_port(port)
        prometheus = Prometheus(port, process.log_path)
        wait_for(lambda: http_request(port, "/-/ready").status == 200, 60, "Prometheus")
        yield prometheus


def metrics_address(server: Server) -> str:
    """Return host and port of a gateway's metrics."""
    return f"{HOST}:{server.metrics_port}"


def exposition(server: Server) -> str:
    """Return what a scrape gets."""
    return http_request(server.metrics_port, "/metrics").body


def test_scrape_of_two_workers(tmp_path: Path) -> None:
    """Prometheus scrapes without an error, and sees the clients of both workers summed."""
    with contextlib.ExitStack() as stack:
        gateway = stack.enter_context(start_gateway(env={"RANGO_WORKERS": str(WORKERS)}))
        prometheus = stack.enter_context(start_prometheus(tmp_path, metrics_address(gateway)))
        clients = [stack.enter_context(gateway.connect()) for _ in range(6)]
        for client in clients:
            client.receive()
            client.subscribe("btcusd.trades")
        wait_for(lambda: prometheus.value("rango_hub_clients_count") == 6, LONG_S, "six clients")
        wait_for(lambda: prometheus.value('up{job="rango"}') == 1, LONG_S, "a scrape")
        wait_for(lambda: prometheus.value("rango_broker_connected") == WORKERS, LONG_S, "workers")

        gateway.publish("public.btcusd.trades", "[1]")
        for client in clients:
            client.receive()
        wait_for(lambda: prometheus.value("rango_frames_sent_total") == 6, LONG_S, "six frames")
        topic = 'rango_hub_subscriptions_count{type="public",topic="btcusd.trades"}'
        wait_for(lambda: prometheus.value(topic) == 6, LONG_S, "six subscriptions")
        for client in clients[:4]:
            client.close()
        wait_for(lambda: prometheus.value("rango_hub_clients_count") == 2, LONG_S, "two clients")

        assert prometheus.value(FAILED) == 0, prometheus.api("targets")["activeTargets"]
        lines = prometheus.log_path.read_text().splitlines()
        assert [line for line in lines if _is_bad(line)] == []


# scrapes that failed, but for those that ran out of their second on a busy machine
FAILED = "sum_over_time(((up == bool 0) * (scrape_duration_seconds < bool 0.9))[5m:1s])"


def _is_bad(log_line: str) -> bool:
    return "level=warn" in log_line or "level=error" in log_line


def test_totals_do_not_fall(tmp_path: Path) -> None:
    """What a worker has counted stays in the totals after its end."""
    with contextlib.ExitStack() as stack:
        gateway = stack.enter_context(start_gateway(env={"RANGO_WORKERS": str(WORKERS)}))
        prometheus = stack.enter_context(start_prometheus(tmp_path, metrics_address(gateway)))
        for _ in range(6):
            gateway.connect().close()
        wait_for(lambda: prometheus.value("rango_connections_opened_total") == 6, LONG_S, "six")
        for worker in gateway.workers():
            os.kill(worker, signal.SIGTERM)  # gunicorn starts others in their place
        wait_for(
            lambda: gateway.log().count("stopped") == WORKERS, LONG_S, "the end of the workers"
        )
        gateway.wait_until("/readyz")
        gateway.connect().close()
        wait_for(lambda: prometheus.value("rango_connections_opened_total") == 7, LONG_S, "seven")
        assert prometheus.value("resets(rango_connections_opened_total[5m])") == 0


def test_rules_work_and_are_quiet(tmp_path: Path) -> None:
    """On a healthy gateway every rule can be evaluated and none fires; a dead target does."""
    nowhere = {"RANGO_AMQP_URL": f"amqp://{HOST}:{free_port()}//"}
    with contextlib.ExitStack() as stack:
        good = stack.enter_context(start_gateway())
        lonely = stack.enter_context(start_gateway(env=nowhere, until="/healthz"))
        names = [metrics_address(good), metrics_address(lonely)]
        prometheus = stack.enter_context(start_prometheus(tmp_path, *names))
        away = {("RangoBrokerAway", names[1])}
        wait_for(lambda: prometheus.alerts() == away, LONG_S, "the alert about the broker")
        (group,) = prometheus.api("rules")["groups"]
        states = {(rule["health"], rule.get("lastError", "")) for rule in group["rules"]}
        assert states == {("ok", "")}
        good.stop()
        down = ("RangoDown", names[0])
        wait_for(lambda: down in prometheus.alerts(), LONG_S, "the alert about the dead gateway")


def test_alerts_ask_for_existing_metrics(gateway: Server) -> None:
    """Every metric in an alert's expression is one that the gateway has."""
    rules = yaml_of(CONF / "alerts.yml")["groups"][0]["rules"]
    wanted = {name for rule in rules for name in re.findall(r"\brango_\w+", rule["expr"])}
    offered = set()
    for family in text_string_to_metric_families(exposition(gateway)):
        endings = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}
        offered |= {family.name + ending for ending in endings.get(family.type, [""])}
    assert wanted - offered == set()


def test_alerts_fire_when_they_should() -> None:
    """promtool's unit tests of the rules pass, and there is one for each rule."""
    done = run(["/usr/bin/promtool", "test", "rules", "alerts_test.yml"], HERE)
    assert done.returncode == 0, done.stdout
    rules = yaml_of(CONF / "alerts.yml")["groups"][0]["rules"]
    tests = yaml_of(HERE / "alerts_test.yml")["tests"]
    firing = {
        case["alertname"]
        for test in tests
        for case in test["alert_rule_test"]
        if case.get("exp_alerts")
    }
    assert firing == {rule["alert"] for rule in rules}


def test_promtool_accepts_the_configuration() -> None:
    """promtool finds no fault with prometheus.yml and the rules that it names."""
    done = run(["/usr/bin/promtool", "check", "config", "prometheus.yml"], CONF)
    assert done.returncode == 0, done.stdout


def test_promtool_accepts_the_metrics(tmp_path: Path) -> None:
    """promtool finds no fault with the exposition, but for names that Rango gave."""
    env = {"RANGO_WORKERS": str(WORKERS)}
    with start_gateway(env=env) as gateway, gateway.connect() as client:
        client.receive()
        client.subscribe("btcusd.trades")
        # whichever worker has the client must consume before the message comes
        wait_for(lambda: gateway.metric("rango_ready") == WORKERS, LONG_S, "all workers")
        gateway.publish("nonsense", "[1]")  # for a sample of each kind of counter
        gateway.publish("public.btcusd.trades", "[1]")
        client.receive()
        text = exposition(gateway)
    done = run(["/usr/bin/promtool", "check", "metrics"], tmp_path, stdin=text.encode())
    faults = [line for line in done.stdout.splitlines() if line.split(" ")[0] not in RANGOS_NAMES]
    assert faults == []
