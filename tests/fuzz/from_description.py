"""Starts a service on an empty shop, and lets schemathesis send requests to it: also in sequences, along links."""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.fuzz.checks import errors_in_log, findings_of_audit
from tests.support.service_process import ServiceProcess

HERE = Path(__file__).parent
CHECKOUT = HERE.parents[1]

_PATHS = ("--exclude-path=/events",)
"""Its answer has no end, and schemathesis waits for it. Its tests: tests/api/test_events.py."""

_CHECKS = ("--checks=all", "--exclude-checks=positive_data_acceptance")
"""Instead of the excluded one: valid_data_is_refused_only_for_the_state_of_the_shop in hooks.py."""


def run(*options: str) -> tuple[subprocess.CompletedProcess[str], set[tuple[str, str]]]:
    """Run `st run` with options, on all calls and with all checks. It ends with 0 if it found nothing.

    Also return the calls that were made: method and path.
    """
    with tempfile.TemporaryDirectory() as folder:
        service = ServiceProcess(Path(folder), durability="none", log_format="json")
        try:
            service.wait_until_ready()
            for stock in (10, 1000):  # 1 and 2: the ids of the examples
                service.add_product(stock=stock)
                service.order(1)
            done = subprocess.run(
                [
                    str(Path(sys.executable).with_name("st")),
                    *("run", f"http://127.0.0.1:{service.port}/openapi.json", "--no-color"),
                    *("--generation-database=none", *_CHECKS, *_PATHS, *options),
                ],
                cwd=folder,
                env={
                    **os.environ,
                    "SCHEMATHESIS_HOOKS": "tests.fuzz.hooks",
                    "PYTHONPATH": str(CHECKOUT),
                    # Hypothesis keeps tables of Unicode there, which take five seconds of CPU.
                    "HYPOTHESIS_STORAGE_DIRECTORY": str(CHECKOUT / ".hypothesis"),
                },
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
            )
            assert not errors_in_log(service), f"the service logged an error: {errors_in_log(service)[0][:3000]}"
            assert not findings_of_audit(service)
            calls = re.findall(r'http_requests_total{method="(.+?)",route="(.+?)"', service.client.get("/metrics").text)
            return done, set(calls)
        finally:
            service.close()
