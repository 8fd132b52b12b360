"""The start of `holdfast`: the modules that it imports, and its help."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import click
import pytest

from service.cli.main import COMMANDS, holdfast
from service.settings import SETTINGS
from tests.support.command_line import SharedEngineCommand, environment

SLOW_MODULES = {"aiohttp", "matplotlib", "pydantic", "redis", "starlette", "structlog", "uvicorn"}
RUN_AND_LIST_MODULES = """
import atexit, json, sys
sys.argv[1:] = json.loads(sys.argv[1])
atexit.register(lambda: print("\\n" + json.dumps(sorted(sys.modules))))
from service.__main__ import main
main()
"""


def run_fresh(*arguments: str, folder: Path | None = None, **variables: str) -> tuple[int, str, set[str]]:
    """Run `holdfast` in a new interpreter. Return its exit code, its output, and the modules that it imported."""
    command = [sys.executable, "-c", RUN_AND_LIST_MODULES, json.dumps(arguments)]
    result = subprocess.run(
        command, cwd=folder, env=environment(**variables), capture_output=True, text=True, timeout=60, check=False
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


@pytest.mark.parametrize(
    "arguments",
    [
        *(["audit"], ["audit", "--json"], ["doctor"], ["events"], ["export", "products"], ["export", "orders"]),
        *(["export", "products", "--format", "csv"], ["sales", "--by", "product"], ["upgrade"]),
        *(["archive", "--before", "2020-01-01", "--to", "old.jsonl"], ["key", "list"]),
    ],
    ids=" ".join,
)
def test_a_command_imports_nothing_slow(holdfast: SharedEngineCommand, arguments: list[str]) -> None:
    """Each of these modules takes longer to import than the whole command takes otherwise."""
    holdfast.write_products("products.jsonl", 1)
    assert holdfast("import", "products.jsonl").returncode == 0
    (holdfast.folder / "keys").touch()
    variables = {name: value for name, value in holdfast.env.items() if name.startswith("HOLDFAST_")}
    variables["HOLDFAST_API_KEYS_FILE"] = str(holdfast.folder / "keys")
    code, _, modules = run_fresh(*arguments, folder=holdfast.folder, **variables)
    assert code == 0
    assert not modules & {*SLOW_MODULES, "tqdm", "multiprocessing"}


def test_an_import_needs_pydantic_only(holdfast: SharedEngineCommand) -> None:
    holdfast.write_products("products.jsonl", 1)
    variables = {name: value for name, value in holdfast.env.items() if name.startswith("HOLDFAST_")}
    code, _, modules = run_fresh("import", "products.jsonl", folder=holdfast.folder, **variables)
    assert code == 0
    assert modules & SLOW_MODULES == {"pydantic"}


def test_the_server_is_not_imported_before_the_engine_starts(tmp_path: Path) -> None:
    """While the engine loads its data, there is time for it."""
    (tmp_path / "data").touch()  # no engine can start here
    code, _, modules = run_fresh("serve", folder=tmp_path)
    assert code == 1
    assert not modules & (SLOW_MODULES - {"structlog"})


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
