"""The files of ops/ for tests: the queries in the dashboard, and the metrics that a query names."""

import json
import re
from pathlib import Path
from typing import Any, Final

OPS: Final = Path(__file__).parents[2] / "ops"
DOCUMENT: Final = OPS.parent / "docs" / "observability.md"

_VARIABLES: Final = {"$job": "holdfast", "$instance": ".*", "$__rate_interval": "10s", "$__range": "1m"}
"""What Grafana puts into a query. Prometheus scrapes every second in the tests."""


def dashboard() -> dict[str, Any]:
    """Return the dashboard of Grafana."""
    document: dict[str, Any] = json.loads((OPS / "grafana.json").read_text())
    return document


def panels() -> list[dict[str, Any]]:
    """Return the panels of the dashboard that show something."""
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def dashboard_queries() -> dict[str, str]:
    """Return the queries of the dashboard, as Grafana sends them, by the title of the panel and the id of the query."""
    found = {f"{panel['title']} {target['refId']}": target["expr"] for panel in panels() for target in panel["targets"]}
    for annotation in dashboard()["annotations"]["list"]:
        if "target" in annotation:
            found[f"annotation {annotation['name']}"] = annotation["target"]["expr"]
    for variable in dashboard()["templating"]["list"]:
        if variable["type"] == "query":
            [query] = re.findall(r"label_values\((.*), \w+\)", variable["query"]["query"])
            found[f"variable {variable['name']}"] = query
    return {name: _with_variables(query) for name, query in found.items()}


def document_queries() -> list[str]:
    """Return the queries of docs/observability.md: the lines of its promql block that are no comments."""
    [block] = re.findall(r"^```promql\n(.*?)^```$", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
    return [line for line in block.splitlines() if line and not line.startswith("#")]


def _with_variables(query: str) -> str:
    for variable, value in _VARIABLES.items():
        query = re.sub(rf"{re.escape(variable)}\b", value, query)
    return query


def metrics_in(text: str) -> set[str]:
    """Return the names of the metrics of Holdfast in a text."""
    return set(re.findall(r"\bholdfast_[a-z_]+\b(?!…)", text))
