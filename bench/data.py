"""The products that all servers sell: products 1 to n, which differ only in their number."""

from typing import Final

PRICE: Final = 20
"""Without cents, so that the price is the same number in every notation."""
LARGE_STOCK: Final = 1_000_000_000
"""So much stock that no measurement sells it out: the largest number that Holdfast accepts."""
DESCRIPTION: Final = "Stoneware, holds 0.3 l of coffee. Safe in the dishwasher and in the microwave."


def product_name(number: int) -> str:
    """Return the name of a product."""
    return f"Mug {number}"


def product_json(number: int) -> str:
    """Return a product as the API shows it."""
    return (
        f'{{"id":{number},"name":"{product_name(number)}","description":"{DESCRIPTION}",'
        f'"price":{PRICE}.00,"stock":{LARGE_STOCK}}}'
    )
