"""The client of openapi-python-client."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from service.api.openapi import openapi_text
from tests.support.service_process import ServiceProcess

pytestmark = pytest.mark.process


def test_a_generated_client_adds_a_product_orders_it_and_reads_a_typed_error(tmp_path: Path) -> None:
    (tmp_path / "openapi.json").write_text(openapi_text(""))
    tools = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"}  # the generator runs ruff
    generated = subprocess.run(
        [
            str(tools / "openapi-python-client"),
            *(
                "generate",
                "--path",
                "openapi.json",
                "--output-path",
                "generated",
                "--meta",
                "none",
                "--fail-on-warning",
            ),
        ],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert generated.returncode == 0, generated.stdout + generated.stderr
    folder = tmp_path / "service"
    folder.mkdir()
    service = ServiceProcess(folder, durability="none")
    try:
        service.wait_until_ready()
        script = Path(__file__).with_name("order_with_python.py")
        used = subprocess.run(
            [sys.executable, str(script), f"http://127.0.0.1:{service.port}"],
            env={**os.environ, "PYTHONPATH": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        service.close()
    assert used.returncode == 0, used.stderr
    assert used.stdout == "1: 9 requested, 3 available\n"
