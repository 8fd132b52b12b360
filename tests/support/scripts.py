"""lua/*.lua, called without the Store."""

from collections.abc import Sequence

from service.storage import keys
from service.storage.orders import place_order_args
from service.storage.products import add_product_args, change_product_args, withdraw_product_args
from service.storage.scripts import load_scripts
from service.storage.sender import CommandSender
from tests.support.products import ANSWERED, as_text
from tests.support.shop import SHOP, mug

SCRIPTS = load_scripts()
NOW = 1_754_000_000_123
"""The time that `place` tells its script unless a test names another: ms since 1970."""


async def run_script(link: CommandSender, name: str, keys: Sequence[str], args: Sequence[str | int]) -> list[str]:
    """Run lua/<name>.lua and return its reply."""
    return [str(part) for part in await link.send("EVAL", SCRIPTS[name].source, len(keys), *keys, *args)]


async def add(link: CommandSender, product_id: int, *, events_max: int = 1000, **fields: object) -> list[str]:
    """Run add_product with `mug(**fields)`."""
    names = [keys.product(SHOP, product_id), keys.products(SHOP), keys.events(SHOP)]
    added = as_text(mug(**fields))
    stock = int(added.pop("stock"))
    pairs = [part for pair in added.items() for part in pair]
    args = add_product_args(product_id=product_id, stock=stock, events_max=events_max, pairs=pairs)
    return await run_script(link, "add_product", names, args)


async def change(link: CommandSender, product_id: int, *pairs: str, events_max: int = 1000) -> list[str]:
    """Run change_product with pairs of a field and its new value."""
    names = [keys.product(SHOP, product_id), keys.events(SHOP)]
    args = change_product_args(product_id=product_id, events_max=events_max, fields=ANSWERED, pairs=pairs)
    return await run_script(link, "change_product", names, args)


async def withdraw(link: CommandSender, product_id: int, events_max: int = 1000) -> list[str]:
    """Run withdraw_product."""
    names = [keys.product(SHOP, product_id), keys.products(SHOP), keys.events(SHOP)]
    args = withdraw_product_args(product_id=product_id, events_max=events_max)
    return await run_script(link, "withdraw_product", names, args)


async def place(
    link: CommandSender,
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
    args = place_order_args(
        order_id=order_id,
        hold_ms="" if hold is None else hold,
        expected_cents="" if expected is None else expected,
        idempotency_key=key,
        fingerprint=fingerprint if key else "",
        refusal_ms=refusal_lifetime,
        events_max=events_max,
        now_ms="" if now is None else now,
        ids_and_quantities=[part for line in lines for part in line],
    )
    return await run_script(link, "place_order", names, args)
