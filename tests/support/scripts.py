"""Run the scripts in lua/ without the Store."""

from collections.abc import Sequence

from service.storage import keys
from service.storage.archive import archive_orders_args
from service.storage.client import move_counter_args
from service.storage.expired_holds import expire_orders_args
from service.storage.holds import end_hold_args, extend_hold_args
from service.storage.layout import upgrade_orders_args
from service.storage.orders import place_order_args
from service.storage.products import add_product_args, change_product_args, withdraw_product_args
from service.storage.restored import mark_restored_args
from service.storage.returns import return_order_args
from service.storage.scripts import load_scripts
from service.storage.sender import CommandSender
from service.storage.stock import move_stock_args
from tests.support.products import REPLY_FIELDS, as_text
from tests.support.redis_content import hash_at
from tests.support.shop import SHOP, mug

SCRIPTS = load_scripts()
NOW_MS = 1_754_000_000_123
"""The time that the scripts of orders get by default: ms since 1970."""


async def run_script(sender: CommandSender, name: str, keys: Sequence[str], args: Sequence[str | int]) -> list[str]:
    """Run lua/<name>.lua and return its reply."""
    return [str(part) for part in await sender.send("EVAL", SCRIPTS[name].source, len(keys), *keys, *args)]


async def run_add_product(
    sender: CommandSender,
    product_id: int,
    *,
    events_max: int = 1000,
    by: str = "",
    partitions: int = 1,
    **fields: object,
) -> list[str]:
    """Run lua/add_product.lua with the fields of `mug(**fields)`. Each of the other partitions gets a share."""
    names = [keys.product(SHOP, product_id), keys.products(SHOP), keys.events(SHOP), *_unpropagated(partitions)]
    added = as_text(mug(**fields))
    stock = int(added.pop("stock"))
    pairs = [part for pair in added.items() for part in pair]
    args = add_product_args(
        product_id=product_id,
        stock=stock,
        events_max=events_max,
        by=by,
        others=partitions - 1,
        share=stock // partitions,
        pairs=pairs,
    )
    return await run_script(sender, "add_product", names, args)


async def run_change_product(
    sender: CommandSender,
    product_id: int,
    *pairs: str,
    expected: Sequence[str] = (),
    events_max: int = 1000,
    by: str = "",
    partitions: int = 1,
) -> list[str]:
    """Run lua/change_product.lua with a field, its new value, a field, its new value, ...

    `expected`: a field, the value that it must have, ...
    """
    names = [keys.product(SHOP, product_id), keys.events(SHOP), *_unpropagated(partitions)]
    args = change_product_args(
        product_id=product_id, events_max=events_max, by=by, fields=REPLY_FIELDS, changes=pairs, expected_pairs=expected
    )
    return await run_script(sender, "change_product", names, args)


async def run_withdraw_product(
    sender: CommandSender,
    product_id: int,
    *,
    expected: Sequence[str] = (),
    events_max: int = 1000,
    by: str = "",
    partitions: int = 1,
) -> list[str]:
    """Run lua/withdraw_product.lua. `expected`: a field, the value that it must have, ..."""
    names = [keys.product(SHOP, product_id), keys.products(SHOP), keys.events(SHOP), *_unpropagated(partitions)]
    args = withdraw_product_args(product_id=product_id, events_max=events_max, by=by, expected_pairs=expected)
    return await run_script(sender, "withdraw_product", names, args)


def _unpropagated(partitions: int) -> list[str]:
    return [keys.unpropagated(SHOP)] if partitions > 1 else []


async def run_place_order(
    sender: CommandSender,
    *lines: tuple[int, int],
    order_id: int = 41,
    hold_ms: int | None = None,
    expected_cents: int | None = None,
    customer: str = "",
    reference: str = "",
    key: str = "",
    fingerprint: str = "f1",
    refusal_ms: int = 60_000,
    refusals_max: int = 1000,
    events_max: int = 1000,
    by: str = "",
    now_ms: int | None = NOW_MS,
) -> list[str]:
    """Run lua/place_order.lua for `(product id, quantity)` lines. Without `now_ms`, it uses the time of Redis."""
    names = [keys.order(SHOP, order_id), keys.events(SHOP)]
    names += [keys.product(SHOP, product_id) for product_id, _ in lines]
    names += [keys.holds(SHOP), keys.pending(SHOP)] if hold_ms is not None else []
    names += [keys.customer(SHOP, customer), keys.customer_orders(SHOP, customer)] if customer else []
    names += [keys.reference_orders(SHOP, reference)] if reference else []
    names += [keys.refusals(SHOP), keys.idempotency(SHOP, key, customer or None)] if key else []
    options: dict[str, str | int | None] = {
        "hold_ms": hold_ms,
        "expected_cents": expected_cents,
        "customer": customer or None,
        "reference": reference or None,
        "by": by or None,
        "now_ms": now_ms,
    }
    if key:
        options |= {"idempotency_key": key, "fingerprint": fingerprint}
        options |= {"refusal_ms": refusal_ms, "short_refusal_ms": 1000, "refusals_max": refusals_max}
    args = place_order_args(
        order_id=order_id,
        events_max=events_max,
        options=[part for name, value in options.items() if value is not None for part in (name, value)],
        ids_and_quantities=[part for line in lines for part in line],
    )
    return await run_script(sender, "place_order", names, args)


async def run_mark_batch(sender: CommandSender) -> list[str]:
    """Run lua/mark_batch.lua."""
    return await run_script(sender, "mark_batch", [keys.meta(SHOP)], [])


async def run_move_counter(sender: CommandSender, *, expected: str, step: int) -> list[str]:
    """Run lua/move_counter.lua on the counter of product ids."""
    args = move_counter_args(expected=expected, step=step)
    return await run_script(sender, "move_counter", [keys.product_ids(SHOP)], args)


async def run_mark_restored(
    sender: CommandSender,
    *,
    expected_order: str = "",
    expected_product: str = "",
    event_id: str = f"{2 * NOW_MS}-0",
    events_max: int = 1000,
) -> list[str]:
    """Run lua/mark_restored.lua: the ids 41 to 1000 are skipped."""
    names = [keys.order_ids(SHOP), keys.product_ids(SHOP), keys.skipped(SHOP), keys.meta(SHOP), keys.events(SHOP)]
    args = mark_restored_args(
        expected_order=expected_order,
        expected_product=expected_product,
        order_step=1000 - int(expected_order or 0),
        product_step=1000 - int(expected_product or 0),
        first_skipped=41,
        last_skipped=1000,
        data_id="other",
        last_event="1-1",
        event_id=event_id,
        events_max=events_max,
    )
    return await run_script(sender, "mark_restored", names, args)


async def run_upgrade_orders(sender: CommandSender, *moments: tuple[int, str, int], position: str = "1-1") -> list[str]:
    """Run lua/upgrade_orders.lua. A moment: the id of an order, a field, and its value."""
    names = [keys.meta(SHOP), *[keys.order(SHOP, order_id) for order_id, _, _ in moments]]
    pairs = [part for _, field, value in moments for part in (field, value)]
    return await run_script(
        sender, "upgrade_orders", names, upgrade_orders_args(position=position, fields_and_moments=pairs)
    )


async def run_move_stock(
    sender: CommandSender,
    product_id: int,
    change: int | str,
    *,
    count: int | str = "",
    expected_stocks: str = "",
    max_stock: int = 1000,
    key: str = "",
    fingerprint: str = "f1",
    refusal_ms: int = 60_000,
    refusals_max: int = 1000,
    events_max: int = 1000,
    by: str = "",
) -> list[str]:
    """Run lua/move_stock.lua."""
    names = [keys.product(SHOP, product_id), keys.events(SHOP)]
    names += [keys.refusals(SHOP), keys.idempotency(SHOP, key)] if key else []
    args = move_stock_args(
        product_id=product_id,
        change=change,
        count=count,
        expected_stocks=expected_stocks,
        reason="counted",
        max_stock=max_stock,
        idempotency_key=key,
        fingerprint=fingerprint if key else "",
        refusal_ms=refusal_ms,
        short_refusal_ms=1000,
        refusals_max=refusals_max,
        events_max=events_max,
        by=by,
        fields=REPLY_FIELDS,
    )
    return await run_script(sender, "move_stock", names, args)


async def run_complete_order(
    sender: CommandSender,
    order_id: int,
    *lines: tuple[int, int],
    pairs: Sequence[int] | None = None,
    events_max: int = 1000,
    by: str = "",
    now_ms: int = NOW_MS,
) -> list[str]:
    """Run lua/complete_order.lua for an order of `(product id, quantity)` lines, or with other pairs in ARGV."""
    args = end_hold_args(
        order_id=order_id, events_max=events_max, by=by, now_ms=now_ms, ids_and_quantities=_pairs(lines, pairs)
    )
    return await run_script(sender, "complete_order", _keys_of_hold(order_id, lines), args)


async def run_cancel_order(
    sender: CommandSender,
    order_id: int,
    *lines: tuple[int, int],
    pairs: Sequence[int] | None = None,
    customer: str = "",
    events_max: int = 1000,
    by: str = "",
    now_ms: int = NOW_MS,
) -> list[str]:
    """Run lua/cancel_order.lua for an order of `(product id, quantity)` lines, or with other pairs in ARGV."""
    names = _keys_of_hold(order_id, lines) + ([keys.customer(SHOP, customer)] if customer else [])
    args = end_hold_args(
        order_id=order_id, events_max=events_max, by=by, now_ms=now_ms, ids_and_quantities=_pairs(lines, pairs)
    )
    return await run_script(sender, "cancel_order", names, args)


def _pairs(lines: Sequence[tuple[int, int]], pairs: Sequence[int] | None) -> Sequence[int]:
    return [part for line in lines for part in line] if pairs is None else pairs


async def run_extend_hold(
    sender: CommandSender,
    order_id: int,
    hold_ms: int,
    *,
    max_hold_ms: int = 86_400_000,
    events_max: int = 1000,
    by: str = "",
    now_ms: int | None = NOW_MS,
) -> list[str]:
    """Run lua/extend_hold.lua. Without `now_ms`, it uses the time of Redis."""
    args = extend_hold_args(
        order_id=order_id,
        hold_ms=hold_ms,
        max_hold_ms=max_hold_ms,
        events_max=events_max,
        by=by,
        now_ms="" if now_ms is None else now_ms,
    )
    names = [keys.order(SHOP, order_id), keys.events(SHOP), keys.holds(SHOP)]
    return await run_script(sender, "extend_hold", names, args)


async def run_return_order(
    sender: CommandSender,
    order_id: int,
    *lines: tuple[int, int, int, str],
    restock: bool = True,
    reason: str = "",
    customer: str = "",
    max_stock: int = 1000,
    key: str = "",
    fingerprint: str = "f1",
    refusal_ms: int = 60_000,
    refusals_max: int = 1000,
    events_max: int = 1000,
    by: str = "",
    now_ms: int | None = NOW_MS,
) -> list[str]:
    """Run lua/return_order.lua for lines of product id, units to take back, units bought, price."""
    names = [keys.order(SHOP, order_id), keys.events(SHOP), *[keys.product(SHOP, line[0]) for line in lines]]
    names += [keys.customer(SHOP, customer)] if customer else []
    names += [keys.refusals(SHOP), keys.idempotency(SHOP, key, customer or None)] if key else []
    args = return_order_args(
        order_id=order_id,
        restock=int(restock),
        reason=reason,
        max_stock=max_stock,
        idempotency_key=key,
        fingerprint=fingerprint if key else "",
        refusal_ms=refusal_ms,
        short_refusal_ms=1000,
        refusals_max=refusals_max,
        events_max=events_max,
        by=by,
        now_ms="" if now_ms is None else now_ms,
        lines=[part for line in lines for part in line],
    )
    return await run_script(sender, "return_order", names, args)


async def run_expire_orders(
    sender: CommandSender,
    order_ids: Sequence[int],
    *lines: tuple[int, int],
    customer: str = "",
    events_max: int = 1000,
    now_ms: int = NOW_MS,
) -> list[str]:
    """Run lua/expire_orders.lua for orders of one customer that all have these `(product id, quantity)` lines."""
    names = [keys.events(SHOP), keys.holds(SHOP), keys.pending(SHOP)]
    fixed = [part for number, (_, quantity) in enumerate(lines) for part in (len(names) + number + 1, quantity)]
    first_customer = len(names) + len(lines) + 1
    args = expire_orders_args(
        events_max=events_max,
        now_ms=now_ms,
        first_customer=first_customer,
        first_order=first_customer + bool(customer),
        orders=[
            part for order_id in order_ids for part in (order_id, first_customer if customer else 0, len(lines), *fixed)
        ],
    )
    names += [keys.product(SHOP, product_id) for product_id, _ in lines]
    names += [keys.customer(SHOP, customer)] if customer else []
    names += [keys.order(SHOP, order_id) for order_id in order_ids]
    return await run_script(sender, "expire_orders", names, args)


async def run_archive_orders(
    sender: CommandSender,
    order_ids: Sequence[int],
    *lines: tuple[int, int, int],
    fields_of: dict[int, dict[str, str]] | None = None,
    customer: str = "",
    reference: str = "",
    key: str = "",
    keep_ms: int = 1000,
    events_max: int = 1000,
    now_ms: int | None = NOW_MS + 1000,
) -> list[str]:
    """Run lua/archive_orders.lua for orders of one customer and reference, each with these lines.

    `lines`: product id, sold units, units that were written off. `fields_of`: the hashes as they are in the file; those
    of Redis by default. `key`: the Idempotency-Key of each order.
    """
    names = [keys.events(SHOP), keys.archived(SHOP), *[keys.product(SHOP, line[0]) for line in lines]]
    first_customer = len(names) + 1
    names += [keys.customer(SHOP, customer), keys.customer_orders(SHOP, customer)] if customer else []
    first_reference = len(names) + 1
    names += [keys.reference_orders(SHOP, reference)] if reference else []
    first_order = len(names) + 1
    names += [keys.order(SHOP, order_id) for order_id in order_ids]
    names += [keys.idempotency(SHOP, key, customer or None) for _ in order_ids if key]
    args: list[str | int] = []
    for order_id in order_ids:
        stored = await hash_at(sender, keys.order(SHOP, order_id)) if fields_of is None else fields_of[order_id]
        where = (first_customer if customer else 0, first_reference if reference else 0)
        args += (order_id, *where, int(bool(key)), len(stored), len(lines))
        args += [part for pair in stored.items() for part in pair]
        args += [part for number, line in enumerate(lines) for part in (number + 3, *line)]
    args = list(
        archive_orders_args(
            events_max=events_max,
            keep_ms=keep_ms,
            now_ms="" if now_ms is None else now_ms,
            first_customer=first_customer,
            first_reference=first_reference,
            first_order=first_order,
            id_step=1,
            orders=args,
        )
    )
    return await run_script(sender, "archive_orders", names, args)


def _keys_of_hold(order_id: int, lines: Sequence[tuple[int, int]]) -> list[str]:
    names = [keys.order(SHOP, order_id), keys.events(SHOP), keys.holds(SHOP), keys.pending(SHOP)]
    return names + [keys.product(SHOP, product_id) for product_id, _ in lines]
