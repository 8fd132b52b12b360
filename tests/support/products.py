"""How a product appears in the API, in Redis, in events and in the replies of scripts.

Each function uses all fields of `mug(**fields)`. Only these functions write a whole product, so a new field needs a
change here only where it appears differently.
"""

from tests.support.shop import mug

REPLY_FIELDS = ("name", "description", "price", "stock")
"""The fields that tests ask scripts to reply with, in this order."""


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
    """Return the hash in Redis of `mug(**fields)`.

    `stock` is what is still in stock; `received` equals it unless it is given.
    """
    added = mug(**fields)
    counters = {"held": held, "sold": sold, "received": added["stock"] if received is None else received}
    return as_text({"id": product_id, **added, **counters, "withdrawn": int(withdrawn)})


def product_added_event(product_id: int, **fields: object) -> dict[str, object]:
    """Return the event that `mug(**fields)` was added, as JSON shows it. It has no description."""
    added = {name: value for name, value in mug(**fields).items() if name != "description"}
    return {"event": "product_added", "product": product_id, **added}


def product_reply(word: str, **fields: object) -> list[str]:
    """Return a script's reply that begins with `word` and continues with the product `mug(**fields)`."""
    values = as_text(mug(**fields))
    return [word, *(values[name] for name in REPLY_FIELDS)]


def as_text(fields: dict[str, object]) -> dict[str, str]:
    """Return the fields as Redis keeps them: prices with two decimals, and no field that has no value."""
    return {name: _text(name, value) for name, value in fields.items() if value is not None}


def _text(name: str, value: object) -> str:
    if name == "price" and isinstance(value, int | float):
        return f"{value:.2f}"
    return str(value)
