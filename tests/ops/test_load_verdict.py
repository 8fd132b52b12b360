"""The verdict of a rehearsal: each fault of a shop must be found and named, and a shop without fault must pass."""

from dataclasses import replace

import pytest

from service.ops.load.client import HttpClient
from service.ops.load.open_loop import OpenLoop
from service.ops.load.outcomes import Outcome
from service.ops.load.plan import LoadPlan
from service.ops.load.readback import read_back, wait_for_holds, withdraw_products
from service.ops.load.shop import CannotReadBack, RehearsalShop, SeenOrder, StockLevel
from service.ops.load.target import find_target
from service.ops.load.verdict import Units, Verdict, add_units, check_purchase, check_stock
from tests.support.faulty_shop import FaultyShop

PLAN = LoadPlan(
    run_id="test", rate=400, duration=0.1, products=2, stock=1000, buyers=5, hold_share=0, hold_seconds=1, retries=True
)
FEW_UNITS = replace(PLAN, stock=5)
HOLDS = replace(PLAN, hold_share=1)


async def rehearse(shop: FaultyShop, plan: LoadPlan, timeout: float = 5) -> tuple[OpenLoop, Verdict]:  # noqa: ASYNC109
    """Rehearse on a shop, and return the load and the verdict."""
    async with shop.serve() as url:
        target = find_target(url, allow_remote=False)
        async with HttpClient(target, connections=20, timeout=timeout) as client:
            rehearsal = RehearsalShop(client, plan)
            for position in range(plan.products):
                await rehearsal.add_product(position)
            load = OpenLoop(plan, rehearsal)
            await load.run()
            verdict = await read_back(plan, rehearsal, load.ledger)
            await withdraw_products(rehearsal)
    assert shop.withdrawn == set(shop.products)
    return load, verdict


@pytest.mark.parametrize("fault", ["", "is overloaded at first", "hangs up at first"])
async def test_a_shop_that_recovers_from_its_errors_passes(fault: str) -> None:
    shop = FaultyShop(fault)
    load, verdict = await rehearse(shop, PLAN)
    assert (verdict.word, verdict.counts) == ("good", {})
    assert (verdict.purchases, verdict.acknowledged, verdict.unknown) == (40, 40, 0)
    assert len(shop.orders) == 40
    assert load.measured.accepted.count == 40
    if fault:
        assert min(shop.attempts.values()) >= 2


@pytest.mark.parametrize(
    ("fault", "plan", "kind", "words"),
    [
        ("oversells", FEW_UNITS, "oversold", "of 5; stock -"),
        ("hides that it oversells", FEW_UNITS, "oversold", "units in orders, of 5; stock 0"),
        ("loses orders", PLAN, "lost", "was acknowledged, but is not there"),
        ("changes orders", PLAN, "lost", "has the units {"),
        ("does not cancel", HOLDS, "lost", "is completed instead of cancelled"),
        ("places orders twice", PLAN, "double", "rehearsal-test-0 has the orders 1, 2"),
        ("ignores keys", PLAN, "contradiction", "its two answers name the orders"),
        ("ignores keys", PLAN, "double", "has the orders"),
        ("refuses what it places", replace(PLAN, retries=False), "unwanted", "was refused, but has the order"),
        ("keeps cancelled units", HOLDS, "stock", "1000 were added, and the first three must add up"),
    ],
)
async def test_each_fault_is_found_and_named(fault: str, plan: LoadPlan, kind: str, words: str) -> None:
    shop = FaultyShop(fault)
    _, verdict = await rehearse(shop, plan)
    assert verdict.word == "bad"
    assert any(words in sentence for sentence in verdict.examples.get(kind, ())), verdict.examples  # type: ignore[call-overload]


async def test_lost_answers_leave_purchases_unknown_but_their_orders_are_found() -> None:
    load, verdict = await rehearse(FaultyShop("answers 500 after it has placed"), replace(PLAN, retries=False))
    assert load.measured.failures == {"internal-error": 40}
    assert (verdict.word, verdict.unknown, verdict.unknown_placed, verdict.unsure_units) == ("none", 40, 40, 0)


async def test_timeouts_are_counted_and_what_is_not_there_may_still_come() -> None:
    plan = replace(PLAN, rate=100, retries=False)
    load, verdict = await rehearse(FaultyShop("is slow"), plan, timeout=0.4)
    assert load.measured.failures == {"timeout": 10}
    assert (verdict.word, verdict.unknown, verdict.unknown_placed) == ("none", 10, 0)
    assert verdict.unsure_units > 0


async def test_a_shop_that_answers_500_has_no_orders_and_so_no_verdict() -> None:
    load, verdict = await rehearse(FaultyShop("answers 500"), replace(PLAN, retries=False))
    assert load.measured.failures == {"internal-error": 40}
    assert (verdict.word, verdict.acknowledged) == ("none", 0)


async def test_a_redirect_is_not_followed() -> None:
    shop = FaultyShop("redirects")
    load, _ = await rehearse(shop, PLAN)
    assert (load.measured.failures, shop.leaked) == ({"redirect (status 307)": 40}, 0)


async def test_a_service_that_cannot_be_read_gives_no_verdict() -> None:
    shop = FaultyShop("stock cannot be read")
    async with (
        shop.serve() as url,
        HttpClient(find_target(url, allow_remote=False), connections=2, timeout=5) as client,
    ):
        rehearsal = RehearsalShop(client, PLAN, read_attempts=2)
        await rehearsal.add_product(0)
        with pytest.raises(CannotReadBack, match=r"GET /products/1/stock was answered with status 500, internal-error"):
            await wait_for_holds(rehearsal, 1)


def order(order_id: int = 1, status: str = "completed", units: int = 2) -> SeenOrder:
    return SeenOrder(order_id, status, {7: units}, 20 * units)


@pytest.mark.parametrize(
    ("outcome", "acknowledged", "listed", "kinds"),
    [
        (Outcome.SOLD, order(), [order()], []),
        (Outcome.SOLD, order(), [], ["lost"]),
        (Outcome.SOLD, order(units=3), [order(units=3)], ["lost"]),
        (Outcome.SOLD, order()._replace(total=41), [order()], ["lost"]),
        (Outcome.SOLD, order(), [order(), order(2)], ["double"]),
        (Outcome.PENDING, order(status="expired"), [], []),
        (Outcome.PENDING, order(status="pending"), [order(status="pending")], []),
        (Outcome.PENDING, order(status="completed"), [order()], ["lost"]),
        (Outcome.CANCELLED, order(status="cancelled"), [], []),
        (Outcome.CANCELLED, order(status="cancelled"), [order(2)], ["double"]),
        (Outcome.EXPIRED, order(), [order()], ["lost"]),
        (Outcome.MAYBE_SOLD, order(), [order()], []),
        (Outcome.MAYBE_SOLD, order(status="expired"), [], []),
        (Outcome.MAYBE_CANCELLED, order(), [order()], ["lost"]),
        (Outcome.UNKNOWN, None, [], []),
        (Outcome.UNKNOWN, None, [order()], []),
        (Outcome.UNKNOWN, None, [order(units=3)], ["lost"]),
        (Outcome.UNKNOWN, None, [order(), order(2)], ["double"]),
        (Outcome.REFUSED, None, [], []),
        (Outcome.REFUSED, None, [order()], ["unwanted"]),
    ],
)
def test_what_a_buyer_was_told_decides_which_orders_may_exist(
    outcome: Outcome, acknowledged: SeenOrder | None, listed: list[SeenOrder], kinds: list[str]
) -> None:
    assert [kind for kind, _ in check_purchase("r", {7: 2}, outcome, acknowledged, listed)] == kinds


@pytest.mark.parametrize(
    ("outcome", "acknowledged", "listed", "expected"),
    [
        (Outcome.SOLD, order(), [order()], Units(2, 0)),
        (Outcome.SOLD, order(), [order(), order(2)], Units(4, 0)),
        (Outcome.PENDING, order(status="pending"), [order(status="pending")], Units(0, 2)),
        (Outcome.PENDING, order(status="expired"), [order(status="pending")], Units(0, 0)),
        (Outcome.CANCELLED, order(status="cancelled"), [], Units(0, 0)),
        (Outcome.UNKNOWN, None, [], Units(0, 2)),
        (Outcome.UNKNOWN, None, [order()], Units(2, 0)),
        (Outcome.REFUSED, None, [], Units(0, 0)),
    ],
)
def test_units_of_unknown_and_pending_orders_are_not_certain(
    outcome: Outcome, acknowledged: SeenOrder | None, listed: list[SeenOrder], expected: Units
) -> None:
    units = {7: Units()}
    add_units(units, {7: 2}, outcome, acknowledged, listed)
    assert units == {7: expected}


@pytest.mark.parametrize(
    ("units", "level", "kinds"),
    [
        (Units(6, 0), StockLevel(4, 0, 6, 10), []),
        (Units(4, 2), StockLevel(5, 1, 4, 10), []),
        (Units(4, 2), StockLevel(3, 0, 7, 10), ["stock"]),
        (Units(6, 0), StockLevel(5, 0, 5, 10), ["stock"]),
        (Units(6, 0), StockLevel(4, 0, 6, 11), ["stock"]),
        (Units(6, 0), StockLevel(5, 0, 6, 11), ["stock"]),
        (Units(11, 0), StockLevel(-1, 0, 11, 10), ["oversold"]),
        (Units(11, 0), StockLevel(0, 0, 10, 10), ["oversold", "stock"]),
    ],
)
def test_the_stock_must_be_that_of_the_orders(units: Units, level: StockLevel, kinds: list[str]) -> None:
    assert [kind for kind, _ in check_stock(1, 10, units, level)] == kinds
