"""Reads back over HTTP what a rehearsal left in the service, and collects the verdict."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Final, TypeVar

from service.ops.load.outcomes import Ledger, Outcome
from service.ops.load.plan import LoadPlan
from service.ops.load.shop import RehearsalShop, StockLevel
from service.ops.load.verdict import Finding, Units, Verdict, add_units, check_purchase, check_stock

_CONCURRENCY: Final = 16
"""Reads at the same time: more are not faster on two cores."""

_PATIENCE_SECONDS: Final = 10.0
"""After the end of the last hold, and after each change of the held units. The service needs about a second."""

_POLL_SECONDS: Final = 0.25

T = TypeVar("T")


async def wait_for_holds(shop: RehearsalShop, hold_seconds: float) -> None:
    """Wait until no unit is held any more: each pending order has then ended. Raise CannotReadBack.

    Return earlier if that lasts longer than `hold_seconds`, and nothing has changed for ten seconds after that.
    """
    clock = asyncio.get_running_loop().time
    end = clock() + hold_seconds + _PATIENCE_SECONDS
    before = -1
    while clock() < end:
        held = sum([level.held for level in await _read_levels(shop)])
        if held == 0:
            return
        if held != before:
            before, end = held, max(end, clock() + _PATIENCE_SECONDS)
        await asyncio.sleep(_POLL_SECONDS)


async def read_back(
    plan: LoadPlan, shop: RehearsalShop, ledger: Ledger, progress: Callable[[int], object] = lambda count: None
) -> Verdict:
    """Read every order of the rehearsal and the stock of its products, and compare. Raise CannotReadBack.

    Call `progress` with the number of purchases that were compared.
    """
    verdict = Verdict(stocked=plan.stock * plan.products)
    units = {product_id: Units() for product_id in shop.product_ids}
    verdict.add(
        Finding("contradiction", f"{plan.reference(number)}: {sentence}") for number, sentence in ledger.contradictions
    )

    async def check(sent: tuple[int, Outcome, int]) -> None:
        number, outcome, order_id = sent
        wanted = shop.units_by_id(plan.purchase(number))
        listed = await shop.orders_of(number)
        acknowledged = await shop.find_order(order_id) if order_id else None
        verdict.add(check_purchase(plan.reference(number), wanted, outcome, acknowledged, listed))
        add_units(units, wanted, outcome, acknowledged, listed)
        verdict.purchases += 1
        verdict.acknowledged += bool(order_id)
        if outcome is Outcome.UNKNOWN:
            verdict.unknown += 1
            verdict.unknown_placed += bool(listed)
        progress(1)

    await _for_each(check, ledger.sent())
    # After the orders: an order that is placed late, by a request without an answer, is then in the stock, too.
    verdict.levels = await _read_levels(shop)
    for product_id, level in zip(shop.product_ids, verdict.levels, strict=True):
        verdict.add(check_stock(product_id, plan.stock, units[product_id], level))
    verdict.unsure_units = sum(product.unsure for product in units.values())
    return verdict


async def withdraw_products(shop: RehearsalShop) -> None:
    """Withdraw the products of the rehearsal from sale. Raise CannotReadBack if that fails."""
    await _for_each(shop.withdraw, shop.product_ids)


async def _read_levels(shop: RehearsalShop) -> list[StockLevel]:
    levels: dict[int, StockLevel] = {}

    async def read(product_id: int) -> None:
        levels[product_id] = await shop.stock_level(product_id)

    await _for_each(read, shop.product_ids)
    return [levels[product_id] for product_id in shop.product_ids]


async def _for_each(work: Callable[[T], Coroutine[Any, Any, None]], items: Iterable[T]) -> None:
    """Do some work for each item, a few items at a time. After an error, stop and raise it."""
    remaining = iter(items)

    async def work_on_some() -> None:
        for item in remaining:
            await work(item)

    tasks = [asyncio.create_task(work_on_some()) for _ in range(_CONCURRENCY)]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
