"""The tables of the documents name what the code defines: no more, no less, and with the same numbers."""

import os
import re
import subprocess

import pytest

from service.settings import SETTINGS, Settings
from tests.docs import contract
from tests.docs.blocks import ROOT, documents, read_blocks


def section(document: str, heading: str) -> str:
    """Return the text under a heading."""
    text = (ROOT / "docs" / document).read_text()
    match = re.search(rf"^(#+) {re.escape(heading)}\n(.*?)(?=^#{{1,2}} |\Z)", text, re.MULTILINE | re.DOTALL)
    assert match, f"{document} has no heading {heading!r}"
    return match[2]


def rows(document: str, heading: str) -> list[list[str]]:
    """Return the cells of all tables under a heading, without their header rows."""
    found, in_body = [], False
    for line in section(document, heading).splitlines():
        if not line.startswith("|"):
            in_body = False
        elif set(line) <= set("|- :"):
            in_body = True
        elif in_body:
            found.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
    assert found, f"{document} has no table under {heading!r}"
    return found


def code(cell: str) -> list[str]:
    """Return what is printed as code in a cell."""
    return re.findall(r"`([^`]+)`", cell)


def test_the_settings_table_has_the_names_and_defaults_of_the_code() -> None:
    table = [(code(name)[0], (code(default) or [""])[0]) for name, default, *_ in rows("operations.md", "Settings")]
    assert table == [(setting.variable, setting.default) for setting in contract.settings()]


def test_the_table_of_problems_has_the_types_and_statuses_of_the_code() -> None:
    table = {(code(name)[0], int(status)) for name, status, *_ in rows("api.md", "All types")}
    assert table == contract.problem_types()


def test_the_table_of_calls_has_the_calls_of_the_code() -> None:
    table = {tuple(code(call)[0].split("?")[0].split()) for call, *_ in rows("api.md", "Calls")}
    assert table == contract.calls()


def test_the_table_of_calls_has_the_refusals_of_the_code() -> None:
    table = {
        tuple(code(call)[0].split("?")[0].split()): set(code(answers)) for call, _, answers in rows("api.md", "Calls")
    }
    assert table == contract.refusals()


def test_the_table_of_commands_has_the_commands_of_the_code() -> None:
    table = {code(command)[0].split()[1] for command, *_ in rows("operations.md", "Commands")}
    assert table == contract.commands()


def test_the_table_of_keys_has_the_keys_of_the_code() -> None:
    assert {name for key, *_ in rows("data.md", "Keys") for name in code(key)} == contract.key_patterns()


def test_the_table_of_partitions_has_their_keys() -> None:
    named = {code(key)[0] for key, *_ in rows("data.md", "Partitions") if "}:" in key}
    assert named == {key.replace("{shop}", "{shop:p}") for key in contract.key_patterns(in_partitions=True)}


async def test_the_table_of_partitions_has_the_fields_that_only_they_have() -> None:
    named = {code(name)[0] for name, *_ in rows("data.md", "Partitions") if "}:" not in name}
    assert named == await contract.partition_fields()


async def test_the_table_of_keys_has_the_fields_of_each_hash() -> None:
    table = {
        key: set(code(contents)) - contract.order_statuses()
        for cell, key_type, contents in rows("data.md", "Keys")
        for key in code(cell)[:1]
        if key_type == "hash" and key != "{shop}:customer:<customer>"  # its fields are product ids
    }
    results = {code(name)[0] for name, *_ in rows("data.md", "Idempotency keys")}
    first_sentence = section("data.md", "Idempotency keys").partition(",")[0]
    table["{shop}:idempotency:<key>"] = {*code(first_sentence)[1:], *results}
    assert table == await contract.hash_fields()


def test_the_table_of_events_has_the_events_of_the_scripts() -> None:
    assert {name for event, *_ in rows("data.md", "Events") for name in code(event)} == contract.event_types()


def test_the_table_of_events_has_the_fields_of_each_event() -> None:
    table = {code(event)[0]: set(code(fields)) for event, fields in rows("data.md", "Events")}
    assert table == contract.event_fields()


def test_each_setting_that_a_document_names_exists() -> None:
    known = {setting.variable for setting in contract.settings()}
    known |= set(re.findall(r"^#? ?(\w+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
    known |= {"HOLDFAST_API_KEY", "HOLDFAST_REDIS_URL_FILE", "HOLDFAST_TEST_ENGINE"}
    for path in documents():
        assert set(re.findall(r"\bHOLDFAST_[A-Z_]+[A-Z]\b", path.read_text())) <= known, path


def test_each_problem_type_that_a_document_prints_exists() -> None:
    known = {problem.name for problem in contract.problem_types()}
    for path in documents():
        for block in read_blocks(path):
            named = set(re.findall(r"/problems/([a-z-]+)", "\n".join(block.lines)))
            assert named <= known, block.place


def test_the_table_of_limits_has_the_limits_of_the_code() -> None:
    table = " ".join(" ".join(row) for row in rows("api.md", "Limits"))
    for name, limit in contract.limits().items():
        assert limit in table, name


def conf_blocks() -> list[list[str]]:
    return [block.lines for block in read_blocks(ROOT / "docs" / "operations.md") if block.language == "conf"]


def test_the_redis_configuration_of_the_document_is_safe_enough() -> None:
    [settings] = [lines for lines in conf_blocks() if lines[0].startswith("appendonly")]
    contract.check_engine_settings(dict(line.split(" ", 1) for line in settings))


def compose_user() -> str:
    """Return the definition of the API's Redis user in docker-compose.yml."""
    user = (ROOT / "docker-compose.yml").read_text().partition("user holdfast on")[2].partition("END")[0]
    return user.replace("$$HOLDFAST_SHOP", "shop")


def permissions(user: str) -> list[str]:
    """Return the keys and the commands that the definition of a Redis user allows."""
    return re.findall(r"[~+][\w{}:*|]+", user)


def test_the_redis_user_in_the_documents_has_the_permissions_of_the_user_in_compose() -> None:
    [[user]] = [lines for lines in conf_blocks() if lines[0].startswith("user")]
    assert permissions(user) == permissions(compose_user())


def test_the_redis_user_in_compose_may_run_exactly_the_commands_of_the_code() -> None:
    commands = [permission[1:] for permission in permissions(compose_user()) if permission.startswith("+")]
    assert len(commands) == len(set(commands))
    assert set(commands) == contract.redis_commands()


def test_the_redis_user_of_the_cluster_may_use_the_keys_of_each_shop_and_of_its_partitions() -> None:
    compose = (ROOT / "docker-compose.cluster.yml").read_text()
    [program] = [line.strip() for line in compose.splitlines() if line.strip().startswith("keys=$$(")]
    shell = ["sh", "-euc", program.replace("$$", "$") + '; printf "%s" "$keys"']
    done = subprocess.run(
        shell, env=os.environ | {"HOLDFAST_SHOPS": "berlin,paris"}, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["~{berlin}:*", "~{berlin:*}:*", "~{paris}:*", "~{paris:*}:*"]


@pytest.mark.parametrize("file", ["docker-compose.scale.yml", "docs/operations.md"])
def test_nginx_ends_idle_connections_earlier_than_the_service(file: str) -> None:
    seconds = [int(number) for number in re.findall(r"keepalive_timeout (\d+)s;", (ROOT / file).read_text())]
    assert seconds
    assert max(seconds) + 10 <= Settings().keep_alive_timeout


def test_compose_passes_every_setting_to_the_container_and_the_example_names_it() -> None:
    compose, example = ((ROOT / file).read_text() for file in ("docker-compose.yml", ".env.example"))
    # In the container, the address is fixed, and there is no embedded engine.
    for setting in SETTINGS:
        if setting.name not in ("host", "port", "data_dir", "engine_allocator"):
            line = rf"^      {setting.variable}:( [$].{setting.variable}-.*)?$"
            assert re.search(line, compose, re.MULTILINE), setting.variable
            assert re.search(rf"^# {setting.variable}=", example, re.MULTILINE), setting.variable


def test_the_measured_numbers_of_the_readme_are_in_the_benchmark() -> None:
    bench = (ROOT / "bench" / "README.md").read_text()
    table = bench.partition("### Orders, 100 products")[2]
    row = re.findall(r"^\| 2 lines \| Holdfast \|.*$", table, re.MULTILINE)[0]
    readme = (ROOT / "README.md").read_text().partition("## Start")[0]
    cells = [cell.strip() for cell in row.split("|")]
    rate, p50, p99, ratio = cells[3], cells[7], cells[8], cells[-2]
    assert f"{rate} orders per second, each for two products" in re.sub(r"\s+", " ", readme)
    assert re.search(rf"within {p50} ms, 99 % within {p99} ms", re.sub(r"\s+", " ", readme))
    assert f"{ratio} times as many as FastAPI with PostgreSQL" in re.sub(r"\s+", " ", readme)
