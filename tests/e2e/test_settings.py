"""The compose files and .env.example name the same settings, and contain no password."""

import json
import os
import re

import pytest

from tests.e2e.stack import ROOT, docker

FILES = ["docker-compose.yml", "docker-compose.scale.yml"]
PASSWORDS = ["HOLDFAST_REDIS_PASSWORD", "REDIS_ADMIN_PASSWORD"]


def used_variables() -> set[str]:
    return {name for file in FILES for name in re.findall(r"(?<!\$)\$\{(\w+)", (ROOT / file).read_text())}


@pytest.mark.parametrize("missing", PASSWORDS)
def test_compose_without_a_password_names_the_variable(missing: str) -> None:
    environment = {name: "x" for name in PASSWORDS if name != missing}
    output = docker("compose", "--env-file", os.devnull, "config", check=False, environment=environment)
    assert re.search(f"required variable {missing} is missing", output), output


def test_env_example_names_every_variable_and_gives_no_password() -> None:
    example = (ROOT / ".env.example").read_text()
    named = dict(re.findall(r"^(?:# )?([A-Z_]+)=(.*)$", example, re.MULTILINE))
    assert named.keys() == used_variables()
    assert [named[name] for name in PASSWORDS] == ["", ""]


@pytest.mark.parametrize("file", FILES)
def test_no_compose_file_has_a_password_or_a_default_password(file: str) -> None:
    text = (ROOT / file).read_text()
    for name in PASSWORDS:
        assert set(re.findall(rf"\$\{{{name}(.)", text)) <= {":"}, "the variable is not required"
        assert not re.search(rf"\$\{{{name}:?[-+]", text), "the variable has a default"
    # Each line about a password uses a variable: `$$NAME` of the container, or `${NAME:?...}` of compose.
    for line in text.splitlines():
        if re.search("password|requirepass|auth", line, re.IGNORECASE) and not line.lstrip().startswith("#"):
            assert re.search(r"\$\$?\{?[A-Z_]+", line), line


def test_both_files_together_are_valid_and_publish_only_the_proxy() -> None:
    files = [part for file in FILES for part in ("-f", file)]
    passwords = dict.fromkeys(PASSWORDS, "x")
    config = docker("compose", "--env-file", os.devnull, *files, "config", "--format", "json", environment=passwords)
    services = json.loads(config)["services"]
    assert [name for name, service in services.items() if service.get("ports")] == ["proxy"]
    assert services["proxy"]["ports"][0]["host_ip"] == "127.0.0.1"
