"""What all servers sell: products 1 to n, alike but for their number."""

from typing import Final

PRICE: Final = 20
"""Whole, so that it is the same number in every notation."""
PLENTY: Final = 1_000_000_000
"""Stock that no measurement sells out, the most that Holdfast takes."""
DESCRIPTION: Final = "Stoneware, holds 0.3 l of coffee. Safe in the dishwasher and in the microwave."


def product_name(number: int) -> str:
    return f"Mug {number}"


def product_json(number: int) -> str:
    """As the contract shows it."""
    return (
        f'{{"id":{number},"name":"{product_name(number)}","description":"{DESCRIPTION}",'
        f'"price":{PRICE}.00,"stock":{PLENTY}}}'
    )
