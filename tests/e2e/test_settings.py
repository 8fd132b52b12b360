"""The compose files and .env.example know every setting, need none of them, and contain no password."""

import json
import os
import re
from typing import Any

import pytest

from service.settings import SETTINGS
from tests.e2e.stack import ROOT, docker

FILES = ["docker-compose.yml", "docker-compose.scale.yml"]
NOT_FOR_CONTAINERS = {"HOLDFAST_HOST", "HOLDFAST_DATA_DIR", "HOLDFAST_ENGINE_ALLOCATOR"}
"""The address in the container is fixed, and there is no embedded engine."""

USABLE = {setting.variable for setting in SETTINGS} - NOT_FOR_CONTAINERS


def config(*files: str, **environment: str) -> Any:
    """Return what compose makes of the files."""
    options = [part for file in files for part in ("-f", file)]
    command = ("compose", "--env-file", os.devnull, *options, "config", "--format", "json")
    return json.loads(docker(*command, environment=environment))


def test_compose_needs_no_settings() -> None:
    services = config(FILES[0])["services"]
    assert {name for name, value in services["api"]["environment"].items() if value is not None} == {
        "HOLDFAST_HOST",
        "HOLDFAST_PORT",
        "HOLDFAST_REDIS_URL_FILE",
        "HOLDFAST_API_KEYS_FILE",
    }


@pytest.mark.parametrize("variable", sorted(USABLE - {"HOLDFAST_PORT"}))
def test_every_setting_can_be_given_to_the_container(variable: str) -> None:
    services = config(FILES[0], **{variable: "chosen"})["services"]
    assert services["api"]["environment"][variable] == "chosen"


def test_the_port_is_the_published_one() -> None:
    service = config(FILES[0], HOLDFAST_PORT="9123")["services"]["api"]
    assert service["environment"]["HOLDFAST_PORT"] == "8000"
    assert [(port["published"], port["target"]) for port in service["ports"]] == [("9123", 8000)]


def test_env_example_names_every_setting_and_sets_none() -> None:
    example = (ROOT / ".env.example").read_text()
    named = set(re.findall(r"^# ([A-Z_]+)=", example, re.MULTILINE))
    assert named == USABLE | {"HOLDFAST_BIND", "HOLDFAST_CLUSTER_NET"}
    assert not re.findall(r"^[^#\n]", example, re.MULTILINE)


@pytest.mark.parametrize("file", FILES)
def test_no_compose_file_has_a_password(file: str) -> None:
    for line in (ROOT / file).read_text().splitlines():
        # Each line about a password reads it from a file of the volume.
        if re.search(r"password|requirepass|auth|on >|://\w+:", line, re.IGNORECASE) and not line.lstrip().startswith(
            "#"
        ):
            assert re.search(r"\$\$\(cat (/secrets/|redis/)\w+\)|'redis://holdfast:%s@", line), line


def test_both_files_together_are_valid_and_publish_only_the_proxy() -> None:
    services = config(*FILES)["services"]
    assert [name for name, service in services.items() if service.get("ports")] == ["proxy"]
    assert services["proxy"]["ports"][0]["host_ip"] == "127.0.0.1"
