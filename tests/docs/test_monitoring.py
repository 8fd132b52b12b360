"""The table of metrics, the alerts and the dashboard name what /metrics shows."""

import re

import pytest
from httpx2 import AsyncClient
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from service.storage.sender import CommandSender
from tests.docs.test_links import anchors
from tests.docs.test_reference import code, rows
from tests.support.monitoring import DOCUMENT, OPS, dashboard, dashboard_queries, metrics_in, panels
from tests.support.partitions import make_partitioned_store
from tests.support.shop import add_product, http_client

ALERTS = (OPS / "alerts.yml").read_text()
SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}


@pytest.fixture
async def scraped(client: AsyncClient, redis: CommandSender) -> list[Metric]:
    """What /metrics shows of a shop with a product and a consumer group."""
    await add_product(client)
    await redis.send("XGROUP", "CREATE", "{test}:events", "shipping", "0")
    text = (await client.get("/metrics")).text
    return list(text_string_to_metric_families(text))


@pytest.fixture
async def scraped_partitions(redis: CommandSender) -> list[Metric]:
    """What /metrics shows of a shop with partitions."""
    store = make_partitioned_store(redis, count=2)
    async with http_client(store) as client:
        await add_product(client)
        return list(text_string_to_metric_families((await client.get("/metrics")).text))


def documented(heading: str) -> list[list[str]]:
    """Return the rows about metrics below a heading, also those in sections below it."""
    return [row for row in rows("observability.md", heading) if len(row) == 4]


def of_partitions() -> list[list[str]]:
    return documented("Metrics of partitions")


def full_name(metric: Metric) -> str:
    return f"{metric.name}_total" if metric.type == "counter" else metric.name


def alerts() -> list[str]:
    return re.findall(r"^ *- alert: (\w+)$", ALERTS, re.MULTILINE)


@pytest.mark.parametrize("redis", ["engine"], indirect=True)
async def test_the_table_of_metrics_has_the_metrics_of_a_scrape(scraped: list[Metric]) -> None:
    table = {code(name)[0]: (kind, set(code(labels))) for name, kind, labels, _ in documented("All metrics")}
    table = {name: row for name, row in table.items() if name not in {code(each[0])[0] for each in of_partitions()}}
    assert table.keys() == {full_name(metric) for metric in scraped}
    for metric in scraped:
        kind, labels = table[full_name(metric)]
        assert metric.type == kind, metric.name
        for sample in metric.samples:
            assert sample.labels.keys() - {"le"} == labels, metric.name


@pytest.mark.parametrize("redis", ["engine"], indirect=True)
async def test_the_table_of_metrics_of_partitions_has_those_that_only_they_have(
    scraped: list[Metric], scraped_partitions: list[Metric]
) -> None:
    table = {code(name)[0]: kind for name, kind, _, _ in of_partitions()}
    known = {full_name(metric) for metric in scraped}
    assert table == {full_name(each): each.type for each in scraped_partitions if full_name(each) not in known}
    labelled = {sample.name for each in scraped_partitions for sample in each.samples if "partition" in sample.labels}
    assert labelled >= {"holdfast_ready", "holdfast_holds", "holdfast_engine_memory_bytes"}


@pytest.mark.parametrize("redis", ["engine"], indirect=True)
async def test_alerts_and_dashboard_and_document_name_only_metrics_of_a_scrape(
    scraped: list[Metric], scraped_partitions: list[Metric]
) -> None:
    scraped = [*scraped, *scraped_partitions]
    known = {metric.name + suffix for metric in scraped for suffix in SUFFIXES.get(metric.type, ("",))}
    assert metrics_in(ALERTS) <= known
    for name, query in dashboard_queries().items():
        assert metrics_in(query) <= known, name
    families = {full_name(metric) for metric in scraped}
    assert metrics_in(DOCUMENT.read_text()) <= known | families


def test_the_table_of_alerts_has_the_alerts_of_the_file_and_each_has_its_section() -> None:
    severities = re.findall(r"severity: (\w+)}", ALERTS)
    table = [(code(name)[0], severity) for name, severity, _ in rows("observability.md", "Alerts")[: len(alerts())]]
    assert table == list(zip(alerts(), severities, strict=True))
    assert re.findall(r"runbook: (.*)", ALERTS) == [f"docs/observability.md#{name.lower()}" for name in alerts()]
    assert {name.lower() for name in alerts()} <= anchors(DOCUMENT)


def test_panels_have_different_ids_and_do_not_overlap() -> None:
    everything = dashboard()["panels"]
    assert len({panel["id"] for panel in everything}) == len(everything)
    taken: set[tuple[int, int]] = set()
    for panel in everything:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells


def test_each_panel_says_what_it_shows_and_asks_the_chosen_instances() -> None:
    for panel in panels():
        assert len(panel["description"]) > 20, panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        for target in panel["targets"]:
            selectors = target["expr"].count('{job="$job", instance=~"$instance"')
            assert selectors == target["expr"].count("{") == len(re.findall(r"\bholdfast_\w+", target["expr"]))


def test_each_metric_is_on_the_dashboard_or_raises_an_alert() -> None:
    used = metrics_in(ALERTS).union(*map(metrics_in, dashboard_queries().values()))
    used = {re.sub("_(bucket|sum|count)$", "", name) for name in used}
    in_table = {code(row[0])[0] for row in documented("All metrics")}
    assert in_table - used == UNUSED


UNUSED = {
    "holdfast_engine_clients",
    "holdfast_engine_info",
    "holdfast_engine_replicas",
    "holdfast_engine_uptime_seconds",
}
"""Metrics to look up by hand. That a new one is none of them must be decided."""
