"""The dashboard of Grafana fits Grafana's own types. No Grafana can be installed from Debian, PyPI or npm."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.prometheus.conftest import required
from tests.support.monitoring import dashboard

CheckDashboard = Callable[[dict[str, Any]], str]


@pytest.fixture(scope="module")
def type_errors(tmp_path_factory: pytest.TempPathFactory) -> CheckDashboard:
    """Return the type errors of a dashboard: TypeScript compares it with @grafana/schema."""
    folder = tmp_path_factory.mktemp("grafana") / "check"
    shutil.copytree(Path(__file__).with_name("grafana"), folder)
    npm = required("npm", "npm")
    subprocess.run([npm, "ci", "--no-audit", "--no-fund"], cwd=folder, check=True, timeout=120)

    def check(document: dict[str, Any]) -> str:
        head = "import type { HoldfastDashboard } from './model';\nexport const dashboard: HoldfastDashboard ="
        (folder / "dashboard.ts").write_text(f"{head} {json.dumps(document, indent=1)};\n")
        command = ["node_modules/.bin/tsc", "--project", "."]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
        assert (done.returncode == 0) == (done.stdout == ""), done.stderr
        return done.stdout

    return check


def test_the_dashboard_has_only_fields_and_values_that_grafana_knows(type_errors: CheckDashboard) -> None:
    assert type_errors(dashboard()) == ""


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["graphTooltip"], 7),
        (["panels", 1, "options", "colorMode"], "colour"),
        (["panels", 1, "fieldConfig", "defaults", "units"], "s"),
        (["panels", 1, "targets", 0, "query"], "up"),
        (["panels", 1, "type"], "singlestat"),
    ],
)
def test_a_dashboard_with_a_mistake_is_noticed(
    type_errors: CheckDashboard, path: list[str | int], value: object
) -> None:
    document: Any = dashboard()
    *parents, last = path
    place = document
    for step in parents:
        place = place[step]
    place[last] = value
    assert f'"{last}"' in type_errors(document) or "is not assignable" in type_errors(document)
