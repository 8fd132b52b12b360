"""`holdfast export`: its output."""

import json
import subprocess

from tests.support.command_line import SharedEngineCommand


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
