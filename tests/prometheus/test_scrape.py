"""A real Prometheus scrapes a service: the numbers are right, the alerts fire when they should, each query works."""

import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from httpx2 import Response

from tests.prometheus.conftest import WORKERS, Prometheus, StartPrometheus, required
from tests.support.monitoring import OPS, dashboard_queries, document_queries
from tests.support.processes import kill_processes_in
from tests.support.service_process import ServiceProcess, engine_pid, redis_client
from tests.support.waiting import wait_until

ONLY_AFTER_A_SLOW_WRITE = {"Delay by the disk B", "Delay by the disk C"}
ONLY_WHILE_AN_ALERT_FIRES = {"annotation Alerts"}


ONLY_IN_PARTITIONS = {
    *(
        "Orders that wait for units A",
        "Orders that wait for units B",
        "Orders that wait for units C",
        "Changes of products A",
    ),
    *("Transfers between partitions A", "Transfers between partitions B"),
    *("On the way between partitions A", "On the way between partitions B"),
    *("Age of what is on the way A", "Age of what is on the way B"),
}
METRICS_OF_PARTITIONS = (
    "holdfast_units_on_their_way",
    "holdfast_unpropagated_products",
    "holdfast_partition_misses",
    "holdfast_partition_rounds",
)


def promtool(*arguments: str | Path, stdin: str | None = None) -> str:
    """Run promtool. Fail if it finds a fault. Return what it prints."""
    command = [required("promtool", "prometheus"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, input=stdin, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def config(port: int) -> str:
    """Return the example for Prometheus, for this service and with a scrape every second."""
    text = (OPS / "prometheus.yml").read_text()
    assert "localhost:8000" in text
    return re.sub(r"_interval: 15s", "_interval: 1s", text).replace("localhost:8000", f"127.0.0.1:{port}")


def rules() -> str:
    """Return the alerts, all of which fire after a second."""
    return re.sub(r"^( +for:) .*$", r"\1 1s", (OPS / "alerts.yml").read_text(), flags=re.MULTILINE)


def sell(service: ServiceProcess) -> dict[str, int]:
    """Cause each result of an order and several refusals, the most of them "sold out". Return how often each occurs."""
    client = service.client
    product = service.add_product(stock=60)
    limited = service.add_product(limit_per_customer=1)

    def order(status: str = "completed", quantity: int = 1, key: str = "") -> Response:
        lines = [{"product_id": product, "quantity": quantity}]
        headers = {"Idempotency-Key": key} if key else {}
        return client.post("/orders", json={"products": lines, "status": status}, headers=headers)

    placed = [order().json()["id"] for _ in range(20)]
    for number in range(5):
        for _ in range(2):
            assert order(key=f"key-{number}").status_code == 201
    pending = [order("pending").json()["id"] for _ in range(12)]
    for order_id in pending[:4]:
        assert client.post(f"/orders/{order_id}/complete").status_code == 200
    for order_id in pending[4:7]:
        assert client.delete(f"/orders/{order_id}").status_code == 204
    lines = [{"product_id": product, "quantity": 1}]
    for pending_order in pending[7:10]:
        extension = {"hold_seconds": 1}
        assert client.patch(f"/orders/{pending_order}", json=extension).status_code == 200
    for order_id in placed[:2]:
        assert client.post(f"/orders/{order_id}/returns", json={"products": lines}).status_code == 201
    for _ in range(40):
        assert order(quantity=1000).status_code == 409
    assert order(key="key-0").headers["Idempotent-Replayed"] == "true"
    assert client.post("/orders", json={"products": [{"product_id": 999, "quantity": 1}]}).status_code == 404
    assert client.post("/orders", json={"products": [{"product_id": limited, "quantity": 1}]}).status_code == 422
    for path in ("/products", "/products/1", "/livez", "/nowhere"):
        client.get(path)
    return {
        "placed": 25,
        "pending": 12,
        "replayed": 6,
        "completed": 4,
        "cancelled": 3,
        "expired": 3,
        "returned": 2,
        "insufficient-stock": 40,
        "product-not-found": 1,
        "customer-required": 1,
    }


def counted(prometheus: Prometheus) -> dict[str, int]:
    series = prometheus.query("holdfast_orders_total or holdfast_orders_refused_total")
    return {
        labels.get("result") or labels["reason"]: int(value)
        for labels, (_, value) in ((found["metric"], found["value"]) for found in series)
        if int(value)
    }


def test_a_sold_out_sale_is_counted_exactly_and_raises_no_alert_and_each_query_has_a_result(
    service: ServiceProcess, start_prometheus: StartPrometheus
) -> None:
    prometheus = start_prometheus(config(service.port), rules())
    wait_until(lambda: prometheus.value("up") == 1, "the first scrape")
    with redis_client(service.engine_url) as redis:
        redis.xgroup_create("{shop}:events", "shipping", id="0", mkstream=True)
    caused = sell(service)
    wait_until(lambda: counted(prometheus) == caused, f"{counted(prometheus)} to become {caused}")
    sold = 'sum(holdfast_order_revenue_total{result=~"placed|completed"})'
    returned = 'sum(holdfast_order_revenue_total{result="returned"})'
    assert prometheus.value(f"{sold} - {returned}") == pytest.approx((25 + 4 - 2) * 19.99)
    assert prometheus.value('holdfast_order_units_total{result="placed"}') == 25
    assert prometheus.value("holdfast_holds") == 2
    assert prometheus.value("count(holdfast_worker_memory_bytes)") == WORKERS
    [target] = prometheus.get("targets")["activeTargets"]
    assert (target["health"], target["lastError"]) == ("up", "")

    empty = {name: query for name, query in dashboard_queries().items() if not prometheus.query(query)}
    assert empty.keys() <= ONLY_AFTER_A_SLOW_WRITE | ONLY_WHILE_AN_ALERT_FIRES | ONLY_IN_PARTITIONS, empty
    assert len(document_queries()) >= 10
    without_result = [query for query in document_queries() if not prometheus.query(query)]
    assert [query for query in without_result if not any(name in query for name in METRICS_OF_PARTITIONS)] == []
    health = [rule["health"] for group in prometheus.get("rules")["groups"] for rule in group["rules"]]
    assert health == ["ok"] * (OPS / "alerts.yml").read_text().count("- alert:")
    assert (prometheus.alerts("firing"), prometheus.alerts("pending")) == ({}, {})


def test_the_panels_of_partitions_have_a_result_and_no_alert_is_raised(
    tmp_path: Path, start_prometheus: StartPrometheus
) -> None:
    folder = tmp_path / "service"
    folder.mkdir()
    service = ServiceProcess(folder, workers=WORKERS, partitions=3)
    service.wait_until_ready()
    prometheus = start_prometheus(config(service.port), rules())
    product = service.add_product(stock=60)
    for number in range(30):
        lines = [{"product_id": product, "quantity": 2}]
        assert service.client.post("/orders", json={"products": lines, "status": "pending"}).status_code == 201, number
    wait_until(lambda: prometheus.value("sum(holdfast_holds)") == 30, "the scrape")
    wait_until(lambda: prometheus.value("holdfast_catalogue_pushes_total") == 1, "the scrape")
    wait_until(
        lambda: (
            not [
                name
                for name, query in dashboard_queries().items()
                if name in ONLY_IN_PARTITIONS
                if not prometheus.query(query)
            ]
        ),
        "all panels",
    )
    assert prometheus.value("count(max by (partition) (holdfast_holds))") == 3
    assert (prometheus.alerts("firing"), prometheus.alerts("pending")) == ({}, {})
    service.close()
    kill_processes_in(folder)


def test_the_right_alerts_fire_while_redis_takes_no_orders_and_while_it_hangs(
    service: ServiceProcess, start_prometheus: StartPrometheus
) -> None:
    prometheus = start_prometheus(config(service.port), rules())
    product = service.add_product(stock=1000)
    assert service.order(product).status_code == 201
    wait_until(lambda: prometheus.value("holdfast_ready") == 1, "the first scrape")
    with redis_client(service.engine_url) as redis:
        redis.config_set("maxmemory", "1mb")
        for _ in range(20):
            assert service.order(product).status_code == 503
        full = {"HoldfastNotReady", "HoldfastMemoryFull", "HoldfastOrdersFail"}
        wait_until(lambda: prometheus.alerts("firing").keys() == full, "the alerts of a full memory")
        for alert in prometheus.alerts("firing").values():
            text = " ".join(alert["annotations"].values())
            assert not re.search("error (expanding|parsing|executing)|<no value>", text)
        assert "100%" in prometheus.alerts("firing")["HoldfastOrdersFail"]["annotations"]["summary"]
        redis.config_set("maxmemory", "0")
    wait_until(lambda: "HoldfastNotReady" not in prometheus.alerts("firing"), "the end of the alert")
    os.kill(engine_pid(service), signal.SIGSTOP)
    try:
        wait_until(lambda: "HoldfastRedisDown" in prometheus.alerts("firing"), "the alert about Redis")
        assert "HoldfastNotReady" not in prometheus.alerts("firing")
        assert prometheus.value("up") == 1
    finally:
        os.kill(engine_pid(service), signal.SIGCONT)
    wait_until(lambda: "HoldfastRedisDown" not in prometheus.alerts("firing"), "the end of the alert")
    service.close()
    wait_until(lambda: "HoldfastDown" in prometheus.alerts("firing"), "the alert about the service")


def test_promtool_finds_no_fault_in_the_metrics(service: ServiceProcess) -> None:
    service.order(service.add_product())
    text = service.client.get("/metrics").text
    assert promtool("check", "metrics", stdin=text) == ""


def test_promtool_finds_no_fault_in_the_files(tmp_path: Path) -> None:
    shutil.copytree(OPS, tmp_path, dirs_exist_ok=True)
    example = tmp_path / "prometheus.yml"
    promtool("check", "config", example)
    # The comments about compose and Alertmanager are a configuration, too.
    text = re.sub(
        r"^( *)# (dns_sd_|  - |alerting|  alertm|    - static)", r"\1\2", example.read_text(), flags=re.MULTILINE
    )
    example.write_text(re.sub(r" +static_configs:\n +- targets.*\n", "", text, count=1))
    assert "# dns" not in example.read_text()
    promtool("check", "config", example)
    promtool("check", "rules", tmp_path / "alerts.yml")
    promtool("test", "rules", tmp_path / "alerts_test.yml")
