"""The start of `holdfast`: the modules that it imports, and its help."""

import importlib
import json
import subprocess
import sys

import click
import pytest

from service.cli.main import COMMANDS, holdfast
from service.settings import SETTINGS
from tests.support.command_line import environment

SLOW_MODULES = {"aiohttp", "matplotlib", "pydantic", "redis", "starlette", "structlog", "uvicorn"}
RUN_AND_LIST_MODULES = """
import atexit, json, sys
sys.argv[1:] = json.loads(sys.argv[1])
atexit.register(lambda: print("\\n" + json.dumps(sorted(sys.modules))))
from service.__main__ import main
main()
"""


def run_fresh(*arguments: str, **variables: str) -> tuple[int, str, set[str]]:
    """Run `holdfast` in a new interpreter. Return its exit code, its output, and the modules that it imported."""
    command = [sys.executable, "-c", RUN_AND_LIST_MODULES, json.dumps(arguments)]
    result = subprocess.run(
        command, env=environment(**variables), capture_output=True, text=True, timeout=60, check=False
    )
    assert "Traceback" not in result.stderr, result.stderr
    output, _, modules = result.stdout.rstrip("\n").rpartition("\n")
    return result.returncode, output, set(json.loads(modules))


@pytest.mark.parametrize("arguments", [["--help"], [], ["--version"], *([name, "--help"] for name in COMMANDS)])
def test_help_and_version_import_nothing_slow(arguments: list[str]) -> None:
    code, output, modules = run_fresh(*arguments)
    assert code == 0
    assert output.startswith(("Usage: holdfast", "holdfast "))
    assert not modules & SLOW_MODULES


@pytest.mark.parametrize("arguments", [["health"], ["health", "--live"]])
def test_health_imports_only_small_modules(arguments: list[str]) -> None:
    code, _, modules = run_fresh(*arguments, HOLDFAST_PORT="0")
    assert code == 1
    assert not modules & {*SLOW_MODULES, "asyncio", "click", "dataclasses", "argparse", "service.settings"}


def test_a_wrong_command_line_imports_nothing_slow() -> None:
    code, _, modules = run_fresh("audit", "--yaml")
    assert code == 2
    assert not modules & SLOW_MODULES


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_of_commands_and_the_help_of_each_command_agree(name: str) -> None:
    module, line = COMMANDS[name]
    command: click.Command = importlib.import_module(f"service.cli.{module}").command
    assert command.name == name
    assert command.help is not None
    assert command.help.splitlines()[0] == line


def test_each_setting_has_an_option() -> None:
    options = {parameter.name: parameter.opts for parameter in holdfast.params}
    for setting in SETTINGS:
        assert setting.option in options[setting.name]


def test_an_option_that_is_not_given_has_no_value() -> None:
    values = holdfast.make_context("holdfast", ["serve"]).params
    assert [values[setting.name] for setting in SETTINGS] == [None] * len(SETTINGS)
