"""The Store against a model of a few dictionaries: after random actions, both have the same results."""

from collections import Counter
from itertools import product

import pytest
from hypothesis import HealthCheck, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from service.domain.errors.order_refusals import ORDER_REFUSALS
from service.domain.errors.return_refusals import RETURN_REFUSALS
from service.domain.errors.stock_refusals import STOCK_REFUSALS
from service.domain.event import EVENT_FIELDS
from tests.model_check.partitioned_shop_machine import PartitionedShopMachine
from tests.model_check.shop_machine import ShopMachine
from tests.model_check.strategies import VERBS

pytestmark = pytest.mark.slow

SEEDS = range(4)
"""With these, all outcomes occur. They are the same at each run."""

STATES = ("absent", "archived", "pending", "overdue", "completed", "cancelled", "expired")

OF_ORDERS, OF_STOCK, OF_RETURNS = (
    [refusal.__name__ for refusal in refusals] for refusals in (ORDER_REFUSALS, STOCK_REFUSALS, RETURN_REFUSALS)
)

ALL_OUTCOMES = {
    *(f"{verb} {state}" for verb, state in product(VERBS, STATES)),
    *(f"{verb} pending, a millisecond before its deadline" for verb in VERBS),
    *(f"{verb} overdue, at its deadline" for verb in VERBS),
    "place: pending",
    "place: completed",
    *(f"place: {refusal}" for refusal in OF_ORDERS),
    *(f"place: key of {owner}" for owner in ("an order", "a stock change")),
    *(f"place again: {outcome}" for outcome in (*STATES[2:], *OF_ORDERS)),
    *(f"change stock: {outcome}" for outcome in ("on sale", *OF_STOCK)),
    *(f"change stock: key of {owner}" for owner in ("an order", "a stock change")),
    *(f"change stock again: {outcome}" for outcome in ("on sale", "withdrawn", *OF_STOCK)),
    *(
        f"return: {outcome}"
        for outcome in ("returned", "OrderNotFound", "OrderArchived", "OrderCancelled", "OrderExpired", *OF_RETURNS)
    ),
    *(f"return: key of {owner}" for owner in ("a stock change", "a return")),
    *(f"return again: {outcome}" for outcome in ("returned", *OF_RETURNS)),
    *(f"change: {outcome}" for outcome in ("Product", "ProductNotFound", "ProductHasChanged", "SaleTimeEmpty")),
    *(f"withdraw: {outcome}" for outcome in ("NoneType", "ProductHasChanged")),
    "page of a customer",
    "page of a reference",
    "change stock: StockLimitExceeded only because of held units",
    "stock returned to a withdrawn product",
    *(f"sweep: {outcome}" for outcome in ("none held", "none due", "all that are due", "some of those that are due")),
    "archive: some orders",
    "archive: no order",
    *(f"event: {event_type}" for event_type in EVENT_FIELDS if event_type != "shop_restored"),
    *(f"page of {status} orders" for status in ("all", "pending", "completed")),
    *(f"page of {status} orders: without overdue orders" for status in ("all", "pending")),
}
"""Each must occur at least once in the runs. Otherwise the test would check less than it seems to.

`shop_restored` is not written by a running shop: tests/storage/test_restored.py.
"""


def run_machine(
    url: str | None, seeds: range, machine: type[ShopMachine] = ShopMachine, examples: int = 10
) -> Counter[str]:
    """Run the machine with each seed, on the engine at `url` or on fakeredis. Count the outcomes."""
    outcomes = Counter[str]()

    class MachineOnRedis(machine):  # type: ignore[valid-type, misc]
        def __init__(self) -> None:
            super().__init__(url, outcomes)

    for number in seeds:
        # Few runs with each seed: from the eleventh run on, most runs are mutations of an earlier run.
        run_state_machine_as_test(
            seed(number)(MachineOnRedis),
            settings=settings(
                max_examples=examples,
                stateful_step_count=50,
                derandomize=True,
                database=None,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
    return outcomes


def test_store_on_fakeredis_agrees_with_the_model_after_random_actions() -> None:
    """The first runs of the first seed: the engine runs the same actions and many more, three times as fast."""
    run_machine(None, SEEDS[:1], examples=4)


def test_store_on_the_engine_agrees_with_the_model_after_random_actions(engine_url: str) -> None:
    outcomes = run_machine(engine_url, SEEDS)
    assert {outcome for outcome in ALL_OUTCOMES if not outcomes[outcome]} == set()


def test_a_shop_with_partitions_agrees_with_the_model_after_random_actions(engine_url: str) -> None:
    """On the engine, which is faster, and with few runs: each action asks three partitions."""
    outcomes = run_machine(engine_url, SEEDS[:1], PartitionedShopMachine, examples=4)
    assert {f"place: {status}" for status in ("pending", "completed")} < outcomes.keys()
    assert {f"place: {refusal}" for refusal in OF_ORDERS} <= outcomes.keys()
    assert {"change stock: on sale", "return: returned"} < outcomes.keys()
