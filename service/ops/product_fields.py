"""Shows fields of products and orders as text: in .csv files, and where a row differs from the product in the shop."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from service.domain.errors.refusals import SaleTimeEmpty
from service.domain.money import Cents, format_cents
from service.domain.product import Product, SaleRules
from service.domain.times import Milliseconds, format_timestamp

if TYPE_CHECKING:
    from service.domain.requests import NewProduct

PRODUCT_COLUMNS: Final = (*(name for name in Product._fields if name != "rules"), *SaleRules._fields)
"""The fields of NewProduct. (The export does without pydantic.)"""

_CHANGEABLE: Final = tuple(name for name in PRODUCT_COLUMNS if name not in ("id", "stock"))
"""The fields of ProductChange."""

MAX_SHOWN: Final = 40
"""Characters of a value in a message: the message stays on one line of a terminal."""

_AMOUNTS: Final = ("price", "total_price", "refunded")

_TIMES: Final = ("on_sale_from", "on_sale_until", "created_at", "expires_at", "completed_at")


def product_fields(product: Product) -> Mapping[str, object]:
    """Return all fields of a product, by the names of the columns."""
    return {**product._asdict(), **product.rules._asdict()}


def field_text(name: str, value: object) -> str:
    """Return a field of a product or an order as a .csv file has it. What does not exist is an empty text."""
    match value:
        case None:
            return ""
        case int() if name in _AMOUNTS:
            return format_cents(Cents(value))
        case int() if name in _TIMES:
            return format_timestamp(Milliseconds(value))
        case _:
            return str(value)


def find_differences(product: Product, row: "NewProduct") -> dict[str, Any]:
    """Return the fields of a row that differ from the product and can be changed. The stock is moved by orders."""
    there = product_fields(product)
    names = [name for name in _CHANGEABLE if name in row.model_fields_set]
    return {name: getattr(row, name) for name in names if getattr(row, name) != there[name]}


def find_empty_sale(product: Product, differences: Mapping[str, Any]) -> SaleTimeEmpty | None:
    """Return the refusal of a change after which the sale of the product would end before it begins."""
    given = {name: value for name, value in differences.items() if name in SaleRules._fields}
    _, start, end = product.rules._replace(**given)
    return None if start is None or end is None or start < end else SaleTimeEmpty(start, end)


def describe_differences(product: Product, differences: Mapping[str, object]) -> str:
    """Return what is in the shop and what is in the row: `price is 19.99 there, 18.00 here`."""
    there = product_fields(product)
    parts = []
    for name, value in differences.items():
        old, new = _excerpts(field_text(name, there[name]), field_text(name, value))
        parts.append(f"{name} is {_quote(name, old)} there, {_quote(name, new)} here")
    return "; ".join(parts)


def _excerpts(old: str, new: str) -> tuple[str, str]:
    """Return two texts, shortened so that their first difference is still in them."""
    start = next((place for place, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))
    if start < MAX_SHOWN // 2:
        return shorten(old), shorten(new)
    begin = start - MAX_SHOWN // 4
    return f"...{shorten(old[begin:])}", f"...{shorten(new[begin:])}"


def shorten(text: str, limit: int = MAX_SHOWN) -> str:
    """Return a text with at most `limit` characters. Characters that could disturb a terminal are replaced."""
    text = text if len(text) <= limit else f"{text[: limit - 3]}..."
    return text if text.isprintable() else "".join([sign if sign.isprintable() else "\ufffd" for sign in text])


def _quote(name: str, text: str) -> str:
    if name in ("name", "description"):
        return f'"{text}"'
    return text or "not set"
