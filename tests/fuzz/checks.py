"""Checks of a service that was fuzzed."""

import json

from tests.support.command_line import HoldfastCommand
from tests.support.service_process import ServiceProcess


def errors_in_log(service: ServiceProcess) -> list[str]:
    """Return the lines of the log, which must be JSON, that are errors, or no log lines, as in a traceback."""
    return [
        line for line in service.stderr.splitlines() if not line.startswith("{") or json.loads(line)["level"] == "error"
    ]


def findings_of_audit(service: ServiceProcess) -> str:
    """Return what `holdfast audit` finds in the shop: an empty text if all is balanced."""
    audit = HoldfastCommand(service.folder, HOLDFAST_REDIS_URL=service.engine_url)("audit")
    return (
        ""
        if audit.returncode == 0
        else f"the audit ends with {audit.returncode}: {audit.stdout[-2000:]}{audit.stderr[-2000:]}"
    )
