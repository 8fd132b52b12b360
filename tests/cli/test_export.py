"""`holdfast export`: its output."""

import json
import subprocess

import pytest

from tests.support.command_line import HOLDFAST, SharedEngineCommand


def test_orders_are_exported_highest_id_first(holdfast: SharedEngineCommand) -> None:
    holdfast.redis.set("{cli}:ids:orders", 2)
    for order_id in (1, 2):
        order = {"id": order_id, "status": "completed", "total_price": "5", "products": "1: 1 x 5", "created_at": 0}
        holdfast.redis.hset(f"{{cli}}:order:{order_id}", mapping=order)  # type: ignore[arg-type]
    result = holdfast("export", "orders")
    assert (result.returncode, result.stderr) == (0, "")
    assert [json.loads(line) for line in result.stdout.splitlines()] == [
        {
            "id": order_id,
            "products": [{"product_id": 1, "quantity": 1, "price": 5}],
            "total_price": 5,
            "status": "completed",
            "created_at": "1970-01-01T00:00:00.000Z",
        }
        for order_id in (2, 1)
    ]


def test_output_is_utf_8_in_each_locale(holdfast: SharedEngineCommand) -> None:
    holdfast.add_products(1)
    holdfast.redis.hset("{cli}:product:1", "name", "\N{HOT BEVERAGE}")
    holdfast.env["PYTHONIOENCODING"] = "ascii"
    result = holdfast("export", "products", stdin=subprocess.DEVNULL)
    assert (result.returncode, result.stderr) == (0, "")
    assert json.loads(result.stdout)["name"] == "\N{HOT BEVERAGE}"


@pytest.mark.parametrize("what", ["products", "orders"])
def test_csv_begins_with_the_names_of_the_columns(holdfast: SharedEngineCommand, what: str) -> None:
    holdfast.add_products(1)
    holdfast.env["PYTHONIOENCODING"] = "ascii"
    result = subprocess.run(
        [*HOLDFAST, "export", what, "--format", "csv"],
        cwd=holdfast.folder,
        env=holdfast.env,
        capture_output=True,
        check=True,
    )
    header, *rows = result.stdout.split(b"\r\n")
    assert header.startswith(b"id,")
    assert rows == ([b"1,Mug,Holds coffee.,19.99,10,,,", b""] if what == "products" else [b""])


def test_an_unknown_format_is_refused(holdfast: SharedEngineCommand) -> None:
    result = holdfast("export", "products", "--format", "xlsx")
    assert (result.returncode, result.stdout) == (2, "")
    assert "'jsonl', 'csv'" in result.stderr


@pytest.mark.parametrize(
    ("field", "value"), [("price", "cheap"), ("stock", "many"), ("description", None), ("sale_rules", "none")]
)
def test_a_damaged_product_is_left_out_and_counted(
    holdfast: SharedEngineCommand, field: str, value: str | None
) -> None:
    holdfast.add_products(1, 2, 3)
    if value is None:
        holdfast.redis.hdel("{cli}:product:2", field)
    else:
        holdfast.redis.hset("{cli}:product:2", field, value)
    result = holdfast("export", "products")
    assert [json.loads(line)["id"] for line in result.stdout.splitlines()] == [1, 3]
    assert result.stderr == "holdfast: not exported, because damaged: 1 product (`holdfast audit` names them)\n"
    assert result.returncode == 1


def test_products_that_are_no_hash_and_ids_that_are_no_number_are_left_out_and_counted(
    holdfast: SharedEngineCommand,
) -> None:
    holdfast.add_products(1, 2, 3)
    holdfast.redis.delete("{cli}:product:2")
    holdfast.redis.set("{cli}:product:2", "Mug")
    holdfast.redis.zadd("{cli}:products", {"mug": 4})
    result = holdfast("export", "products", "--format", "csv")
    assert [line.partition(",")[0] for line in result.stdout.splitlines()] == ["id", "1", "3"]
    assert "2 products (" in result.stderr
    assert (result.returncode, result.stderr.count("\n")) == (1, 1)


def test_a_damaged_order_is_left_out_and_counted(holdfast: SharedEngineCommand) -> None:
    for order_id, products in ((1, "1: 1 x 5"), (2, "mugs"), (3, "1: 2 x 5")):
        order = {"id": order_id, "status": "completed", "total_price": "5", "products": products, "created_at": 0}
        holdfast.redis.hset(f"{{cli}}:order:{order_id}", mapping=order)  # type: ignore[arg-type]
    result = holdfast("export", "orders")
    assert [json.loads(line)["id"] for line in result.stdout.splitlines()] == [3, 1]
    assert result.stderr == "holdfast: not exported, because damaged: 1 order (`holdfast audit` names them)\n"
    assert result.returncode == 1
