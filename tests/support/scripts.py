"""lua/*.lua, called without the Store: here alone tests know the order of a script's keys and arguments."""

from service import keys
from service.scripts import load_scripts
from service.store import Link
from tests.support.products import as_text
from tests.support.shop import SHOP, mug

SCRIPTS = load_scripts()
NOW = 1_754_000_000_123
"""The time that `place` tells its script unless a test names another: ms since 1970."""


async def run_script(link: Link, name: str, keys: list[str], args: list[str | int]) -> list[str]:
    """Run lua/<name>.lua and return its reply."""
    return [str(part) for part in await link.send("EVAL", SCRIPTS[name].source, len(keys), *keys, *args)]


async def add(link: Link, product_id: int, *, events_max: int = 1000, **fields: object) -> list[str]:
    """Run add_product with `mug(**fields)`."""
    names = [keys.product(SHOP, product_id), keys.products(SHOP), keys.events(SHOP)]
    added = as_text(mug(**fields))
    args = [added[field] for field in ("name", "description", "price", "stock")]
    return await run_script(link, "add_product", names, [product_id, *args, events_max])


async def change(link: Link, product_id: int, *pairs: str, events_max: int = 1000) -> list[str]:
    """Run change_product with pairs of a field and its new value."""
    names = [keys.product(SHOP, product_id), keys.events(SHOP)]
    return await run_script(link, "change_product", names, [product_id, events_max, *pairs])


async def withdraw(link: Link, product_id: int, events_max: int = 1000) -> list[str]:
    """Run withdraw_product."""
    names = [keys.product(SHOP, product_id), keys.products(SHOP), keys.events(SHOP)]
    return await run_script(link, "withdraw_product", names, [product_id, events_max])


async def place(
    link: Link,
    *lines: tuple[int, int],
    order_id: int = 41,
    hold: int | None = None,
    expected: int | None = None,
    key: str = "",
    fingerprint: str = "f1",
    refusal_lifetime: int = 60_000,
    events_max: int = 1000,
    now: int | None = NOW,
) -> list[str]:
    """Run place_order. `hold` and `refusal_lifetime` in ms, `expected` in cents; `now` None: the time of Redis."""
    names = [keys.order(SHOP, order_id), keys.events(SHOP), keys.holds(SHOP), keys.pending(SHOP)]
    names += [keys.product(SHOP, product_id) for product_id, _ in lines]
    names += [keys.idempotency(SHOP, key)] if key else []
    options = ["" if value is None else value for value in (hold, expected)]
    clock = "" if now is None else now
    args = [order_id, *options, key, fingerprint if key else "", refusal_lifetime, events_max, clock]
    return await run_script(link, "place_order", names, [*args, *(part for line in lines for part in line)])
