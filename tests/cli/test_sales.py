"""`holdfast sales`: its output and its exit codes."""

import json
import os
import subprocess

import pytest

from tests.support.command_line import HOLDFAST, SharedEngineCommand, assert_failed

ORDER = {"id": 1, "status": "completed", "total_price": "39.98", "products": "1: 2 x 19.99", "created_at": 0}


def add_order(holdfast: SharedEngineCommand, order_id: int, **fields: object) -> None:
    holdfast.redis.set("{cli}:ids:orders", order_id)
    order = {**ORDER, "id": order_id, **fields}
    holdfast.redis.hset(f"{{cli}}:order:{order_id}", mapping=order)  # type: ignore[arg-type]


def test_sales_are_printed_as_a_table_as_csv_and_as_json(holdfast: SharedEngineCommand) -> None:
    holdfast.add_products(1)
    add_order(holdfast, 1)
    add_order(holdfast, 2, completed_at=86_400_000, returned="1: 1", refunded="19.99")
    table = holdfast("sales", "--by", "day")
    assert (table.returncode, table.stderr) == (0, "")
    assert [line.split() for line in table.stdout.splitlines()] == [
        ["period", "orders", "units", "revenue", "returned", "refunded"],
        ["1970-01-01", "1", "2", "39.98", "0", "0.00"],
        ["1970-01-02", "1", "2", "39.98", "1", "19.99"],
        ["total", "2", "4", "79.96", "1", "19.99"],
    ]
    exported = subprocess.run(
        [*HOLDFAST, "sales", "--by", "product", "--format", "csv"],
        env=holdfast.env,
        cwd=holdfast.folder,
        capture_output=True,
        check=True,
    )
    assert exported.stdout == (b"product_id,name,orders,units,revenue,returned,refunded\r\n1,Mug,2,4,79.96,1,19.99\r\n")
    until = holdfast("sales", "--until", "1970-01-02", "--format", "json")
    [row] = json.loads(until.stdout)
    assert (row["orders"], row["revenue"]) == (1, 39.98)


def test_damaged_orders_are_counted_and_give_exit_code_1_though_nobody_reads_the_output(
    holdfast: SharedEngineCommand,
) -> None:
    add_order(holdfast, 1)
    add_order(holdfast, 2, products="two mugs")
    reader, writer = os.pipe()
    os.close(reader)
    result = holdfast("sales", stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert result.returncode == 1
    assert "not in the sums, because damaged: 1 order" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--from", "yesterday"), 2, "'yesterday' is not a date such as 2026-11-26"),
        (("--from", "2026-11-26", "--until", "2026-11-26T00:00:00Z"), 2, "--until must be later than --from"),
    ],
)
def test_wrong_times_are_wrong_usage(
    holdfast: SharedEngineCommand, arguments: tuple[str, ...], code: int, message: str
) -> None:
    result = holdfast("sales", *arguments)
    assert result.returncode == code
    assert message in result.stderr


def test_an_archive_that_is_a_named_pipe_is_refused_instead_of_waiting_for_its_writer(
    holdfast: SharedEngineCommand,
) -> None:
    holdfast.add_products(1)
    os.mkfifo(holdfast.folder / "pipe")
    assert_failed(holdfast("sales", "--archive", "pipe"), 1, "pipe is a named pipe")


def test_an_archive_may_come_from_a_pipe_of_the_shell(holdfast: SharedEngineCommand) -> None:
    holdfast.add_products(1)
    result = holdfast("sales", "--archive", "/dev/stdin", input="")
    assert (result.returncode, result.stdout) == (0, "There were no sales.\n")


def test_a_shop_that_does_not_exist_is_reported(holdfast: SharedEngineCommand) -> None:
    assert_failed(holdfast("sales"), 1, "there is no shop 'cli' in this Redis")
