"""Run the scripts in lua/ without the Store."""

from collections.abc import Sequence

from service.storage import keys
from service.storage.client import move_counter_args
from service.storage.holds import end_hold_args, expire_orders_args
from service.storage.orders import place_order_args
from service.storage.products import add_product_args, change_product_args, withdraw_product_args
from service.storage.scripts import load_scripts
from service.storage.sender import CommandSender
from service.storage.stock import move_stock_args
from tests.support.products import REPLY_FIELDS, as_text
from tests.support.shop import SHOP, mug

SCRIPTS = load_scripts()
NOW_MS = 1_754_000_000_123
"""The time that the scripts of orders get by default: ms since 1970."""


async def run_script(sender: CommandSender, name: str, keys: Sequence[str], args: Sequence[str | int]) -> list[str]:
    """Run lua/<name>.lua and return its reply."""
    return [str(part) for part in await sender.send("EVAL", SCRIPTS[name].source, len(keys), *keys, *args)]


async def run_add_product(
    sender: CommandSender, product_id: int, *, events_max: int = 1000, **fields: object
) -> list[str]:
    """Run lua/add_product.lua with the fields of `mug(**fields)`."""
    names = [keys.product(SHOP, product_id), keys.products(SHOP), keys.events(SHOP)]
    added = as_text(mug(**fields))
    stock = int(added.pop("stock"))
    pairs = [part for pair in added.items() for part in pair]
    args = add_product_args(product_id=product_id, stock=stock, events_max=events_max, pairs=pairs)
    return await run_script(sender, "add_product", names, args)


async def run_change_product(sender: CommandSender, product_id: int, *pairs: str, events_max: int = 1000) -> list[str]:
    """Run lua/change_product.lua with a field, its new value, a field, its new value, ..."""
    names = [keys.product(SHOP, product_id), keys.events(SHOP)]
    args = change_product_args(product_id=product_id, events_max=events_max, fields=REPLY_FIELDS, pairs=pairs)
    return await run_script(sender, "change_product", names, args)


async def run_withdraw_product(sender: CommandSender, product_id: int, events_max: int = 1000) -> list[str]:
    """Run lua/withdraw_product.lua."""
    names = [keys.product(SHOP, product_id), keys.products(SHOP), keys.events(SHOP)]
    args = withdraw_product_args(product_id=product_id, events_max=events_max)
    return await run_script(sender, "withdraw_product", names, args)


async def run_place_order(
    sender: CommandSender,
    *lines: tuple[int, int],
    order_id: int = 41,
    hold_ms: int | None = None,
    expected_cents: int | None = None,
    key: str = "",
    fingerprint: str = "f1",
    refusal_ms: int = 60_000,
    refusals_max: int = 1000,
    events_max: int = 1000,
    now_ms: int | None = NOW_MS,
) -> list[str]:
    """Run lua/place_order.lua for `(product id, quantity)` lines. Without `now_ms`, it uses the time of Redis."""
    names = [keys.order(SHOP, order_id), keys.events(SHOP), keys.holds(SHOP), keys.pending(SHOP)]
    names += [keys.product(SHOP, product_id) for product_id, _ in lines]
    names += [keys.refusals(SHOP), keys.idempotency(SHOP, key)] if key else []
    args = place_order_args(
        order_id=order_id,
        hold_ms="" if hold_ms is None else hold_ms,
        expected_cents="" if expected_cents is None else expected_cents,
        idempotency_key=key,
        fingerprint=fingerprint if key else "",
        refusal_ms=refusal_ms,
        short_refusal_ms=1000,
        refusals_max=refusals_max,
        events_max=events_max,
        now_ms="" if now_ms is None else now_ms,
        ids_and_quantities=[part for line in lines for part in line],
    )
    return await run_script(sender, "place_order", names, args)


async def run_move_counter(sender: CommandSender, *, expected: str, step: int) -> list[str]:
    """Run lua/move_counter.lua on the counter of product ids."""
    args = move_counter_args(expected=expected, step=step)
    return await run_script(sender, "move_counter", [keys.product_ids(SHOP)], args)


async def run_move_stock(
    sender: CommandSender,
    product_id: int,
    change: int,
    *,
    max_stock: int = 1000,
    key: str = "",
    fingerprint: str = "f1",
    refusal_ms: int = 60_000,
    refusals_max: int = 1000,
    events_max: int = 1000,
) -> list[str]:
    """Run lua/move_stock.lua."""
    names = [keys.product(SHOP, product_id), keys.events(SHOP)]
    names += [keys.refusals(SHOP), keys.idempotency(SHOP, key)] if key else []
    args = move_stock_args(
        product_id=product_id,
        change=change,
        reason="counted",
        max_stock=max_stock,
        idempotency_key=key,
        fingerprint=fingerprint if key else "",
        refusal_ms=refusal_ms,
        short_refusal_ms=1000,
        refusals_max=refusals_max,
        events_max=events_max,
        fields=REPLY_FIELDS,
    )
    return await run_script(sender, "move_stock", names, args)


async def run_complete_order(
    sender: CommandSender,
    order_id: int,
    *lines: tuple[int, int],
    quantities: Sequence[int] | None = None,
    events_max: int = 1000,
    now_ms: int = NOW_MS,
) -> list[str]:
    """Run lua/complete_order.lua for an order of `(product id, quantity)` lines, or with other quantities."""
    given = [quantity for _, quantity in lines] if quantities is None else quantities
    args = end_hold_args(order_id=order_id, events_max=events_max, now_ms=now_ms, quantities=given)
    return await run_script(sender, "complete_order", _keys_of_hold(order_id, lines), args)


async def run_cancel_order(
    sender: CommandSender,
    order_id: int,
    *lines: tuple[int, int],
    quantities: Sequence[int] | None = None,
    events_max: int = 1000,
    now_ms: int = NOW_MS,
) -> list[str]:
    """Run lua/cancel_order.lua for an order of `(product id, quantity)` lines, or with other quantities."""
    given = [quantity for _, quantity in lines] if quantities is None else quantities
    args = end_hold_args(order_id=order_id, events_max=events_max, now_ms=now_ms, quantities=given)
    return await run_script(sender, "cancel_order", _keys_of_hold(order_id, lines), args)


async def run_expire_orders(
    sender: CommandSender,
    order_ids: Sequence[int],
    *lines: tuple[int, int],
    events_max: int = 1000,
    now_ms: int = NOW_MS,
) -> list[str]:
    """Run lua/expire_orders.lua for orders that all have these `(product id, quantity)` lines."""
    names = [keys.events(SHOP), keys.holds(SHOP), keys.pending(SHOP)]
    fixed = [part for number, (_, quantity) in enumerate(lines) for part in (len(names) + number + 1, quantity)]
    args = expire_orders_args(
        events_max=events_max,
        now_ms=now_ms,
        first_order=len(names) + len(lines) + 1,
        orders=[part for order_id in order_ids for part in (order_id, len(lines), *fixed)],
    )
    names += [keys.product(SHOP, product_id) for product_id, _ in lines]
    names += [keys.order(SHOP, order_id) for order_id in order_ids]
    return await run_script(sender, "expire_orders", names, args)


def _keys_of_hold(order_id: int, lines: Sequence[tuple[int, int]]) -> list[str]:
    names = [keys.order(SHOP, order_id), keys.events(SHOP), keys.holds(SHOP), keys.pending(SHOP)]
    return names + [keys.product(SHOP, product_id) for product_id, _ in lines]
