"""How a product looks in each place, made from the fields that were added. Nowhere else does a test spell one out.

Each form carries all fields of `mug(**fields)`, so a new field changes nothing here unless a place shows it otherwise.
"""

from tests.support.shop import mug

ANSWERED = ("name", "description", "price", "stock")
"""The fields that tests ask the scripts for, in this order."""


def product_response(product_id: int, **fields: object) -> dict[str, object]:
    """Return the product as the API shows it, after `mug(**fields)` was added."""
    return {"id": product_id, **mug(**fields)}


def product_hash(
    product_id: int,
    *,
    held: int = 0,
    sold: int = 0,
    received: int | None = None,
    withdrawn: bool = False,
    **fields: object,
) -> dict[str, str]:
    """Return the hash in Redis after `mug(**fields)` was added. `stock` is what is left, `received` all there was."""
    added = mug(**fields)
    counters = {"held": held, "sold": sold, "received": added["stock"] if received is None else received}
    return as_text({"id": product_id, **added, **counters, "withdrawn": int(withdrawn)})


def product_added(product_id: int, **fields: object) -> dict[str, object]:
    """Return the event of adding `mug(**fields)`, as JSON shows it. The description is not part of it."""
    added = {name: value for name, value in mug(**fields).items() if name != "description"}
    return {"event": "product_added", "product": product_id, **added}


def product_answer(word: str, **fields: object) -> list[str]:
    """Return a script's reply that begins with `word` and continues with the product `mug(**fields)`."""
    shown = as_text(mug(**fields))
    return [word, *(shown[name] for name in ANSWERED)]


def as_text(fields: dict[str, object]) -> dict[str, str]:
    """Return the fields as Redis keeps them: prices with two decimals, and no field that has no value."""
    return {name: _text(name, value) for name, value in fields.items() if value is not None}


def _text(name: str, value: object) -> str:
    if name == "price" and isinstance(value, int | float):
        return f"{value:.2f}"
    return str(value)
