"""The client of openapi-typescript and openapi-fetch, compiled and run with Node.js: `make test-e2e`."""

import shutil
import subprocess
from pathlib import Path

import pytest

from service.api.openapi import openapi_text
from tests.support.service_process import ServiceProcess

pytestmark = pytest.mark.e2e

SOURCES = Path(__file__).with_name("typescript")


def test_a_generated_client_is_compiled_and_reads_a_typed_error(tmp_path: Path) -> None:
    if shutil.which("npm") is None:
        pytest.exit("these tests need npm (Debian: apt install npm)", returncode=1)
    project = tmp_path / "project"
    shutil.copytree(SOURCES, project, ignore=shutil.ignore_patterns("node_modules", "built", "*.d.ts"))
    (project / "openapi.json").write_text(openapi_text(""))
    for command in (
        "npm ci --no-audit --no-fund",
        "npx openapi-typescript openapi.json -o holdfast.d.ts",
        "npx tsc -p .",
    ):
        done = subprocess.run(command.split(), cwd=project, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    folder = tmp_path / "service"
    folder.mkdir()
    service = ServiceProcess(folder, durability="none")
    try:
        service.wait_until_ready()
        address = f"http://127.0.0.1:{service.port}"
        used = subprocess.run(
            ["node", "built/order.js", address], cwd=project, capture_output=True, text=True, check=False
        )
    finally:
        service.close()
    assert used.stdout == "1: 9 requested, 3 available\n", used.stderr
