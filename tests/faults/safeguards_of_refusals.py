"""The safeguards that keep the partitions of a shop from refusing wrongly, and from executing a request twice.

Each mutant lacks one safeguard, see safeguards.py.
"""

from typing import Final

from tests.faults.patches import Patch, Safeguard

_ORDERS: Final = "service/storage/orders.py"
_STOCK: Final = "service/storage/stock.py"
_PARTITION: Final = "service/storage/partition.py"
_PRODUCTS: Final = "service/storage/partitioned_catalogue.py"
_PLACING: Final = "service/storage/partitioned_orders.py"
_EXCHANGE: Final = "service/storage/exchange.py"
_PLAN: Final = "service/storage/exchange_plan.py"
_PUSHES: Final = "service/storage/catalogue_pushes.py"
_REFUSE: Final = "lua/refuse.lua"
_STEPS: Final = (
    "tests/model_check/test_partition_steps.py::test_a_step_of_the_model_does_what_the_script_does_on_the_engine"
)
_OF_ORDERS: Final = "tests/storage/test_partitioned_orders.py"
_OF_CATALOGUE: Final = "tests/storage/test_partitioned_catalogue.py"
_FAILURES: Final = "tests/storage/test_partition_failures.py"
_RACES: Final = "tests/storage/test_partition_races.py"
_MESSAGES: Final = "tests/storage/test_partition_messages.py"

REFUSALS: Final = (
    Safeguard(
        "one partition alone refuses an order",
        (Patch(_PARTITION, "totals = await self.gather(quantities, found, tries)", "totals = found"),),
        f"{_OF_ORDERS}::test_an_order_for_more_than_one_partition_has_gets_units_of_all",
    ),
    Safeguard(
        "one partition alone refuses a stock change",
        (Patch(_STOCK, 'if reply[0] == "short":', "if False:"),),
        f"{_OF_CATALOGUE}::test_units_are_added_and_removed_wherever_they_are",
    ),
    Safeguard(
        "one partition alone refuses an order for its price",
        (Patch(_PARTITION, "if not await self.is_current(quantities, tries):", "if False:"),),
        f"{_OF_CATALOGUE}::test_an_order_at_the_new_price_is_placed_though_its_partition_has_the_old_one",
    ),
    Safeguard(
        "one partition alone calls the product of a stock change unknown",
        (Patch(_STOCK, 'elif reply[0] != "absent" or await partition.is_current([product_id], tries):', "else:"),),
        f"{_RACES}::test_a_stock_change_is_not_refused_for_a_product_that_comes_while_it_is_decided",
    ),
    Safeguard(
        "an order is compared with the catalogue only after its try",
        (Patch(_PUSHES, "return bool(away)", "return any(found[id_] > here[id_] for id_ in away)"),),
        f"{_RACES}::test_an_order_is_not_refused_for_a_price_that_its_partition_has_not_any_more",
    ),
    Safeguard(
        "the first refusal of an order is remembered",
        (Patch(_ORDERS, "REFUSAL_MS if partition is None else 0", "REFUSAL_MS"),),
        f"{_OF_ORDERS}::test_an_order_for_more_than_one_partition_has_gets_units_of_all",
    ),
    Safeguard(
        "the first refusal of a stock change is remembered",
        (Patch(_STOCK, "fingerprint, None, by, 0)", "fingerprint, None, by, REFUSAL_MS)"),),
        f"{_OF_CATALOGUE}::test_a_stock_change_with_a_key_is_made_once_and_its_refusal_is_remembered",
    ),
    Safeguard(
        "an order's look counts no units on their way",
        (Patch(_PLAN, "row[id_].stock - row[id_].moved for row", "row[id_].stock for row"),),
        f"{_OF_CATALOGUE}::test_units_on_their_way_are_sold",
    ),
    Safeguard(
        "a stock change's look counts no units on their way",
        (Patch(_PARTITION, 'number - moved if field in ("stock", "received") else number', "number"),),
        f"{_MESSAGES}::test_units_on_their_way_can_be_removed_from_the_stock",
    ),
    Safeguard(
        "an order gets the result of a look that began before it",
        (
            Patch(
                _EXCHANGE,
                "            looks = await self.looks.look(product_ids)\n",
                "            looks = await self.looks.look(product_ids)\n"
                "            others += self._waiting\n"
                "            self._waiting.clear()\n",
            ),
        ),
        f"{_MESSAGES}::test_an_order_is_not_refused_because_of_a_look_that_began_before_it",
    ),
    # Two patches: a silent partition also looks as if a product is being added, and that alone prevents a refusal.
    Safeguard(
        "an order is refused although a partition is silent",
        (
            Patch(_EXCHANGE, "if too_few and not silent:", "if too_few:"),
            Patch(_PLAN, "Units(0, 0, is_known=False)", "Units(0, 0, is_known=True)"),
        ),
        f"{_FAILURES}::test_an_order_is_placed_with_the_units_of_the_partitions_that_answer",
    ),
    Safeguard(
        "the stock is added up although a partition is silent",
        (
            Patch(
                _PARTITION,
                "rows = await asyncio.gather(*reads)",
                "rows = await asyncio.gather(*reads, return_exceptions=True)\n"
                "        rows = [row for row in rows if not isinstance(row, BaseException)]",
            ),
        ),
        f"{_FAILURES}::test_a_stock_change_that_was_made_is_never_answered_with_nothing_was_done",
    ),
    Safeguard(
        "an order is refused while its product is being added",
        (Patch(_EXCHANGE, "if lacking := plan.incomplete(too_few):", "if lacking := []:"),),
        f"{_RACES}::test_an_order_gets_the_units_of_a_product_whose_add_was_interrupted",
    ),
    Safeguard(
        "a stock change is refused while its product is being added",
        (Patch(_PARTITION, "        await self.all.pushes.finish(product_id)", "        pass"),),
        f"{_RACES}::test_units_are_removed_from_a_product_whose_add_was_interrupted",
    ),
    Safeguard(
        "a refusal replaces the order of its key",
        (Patch(_REFUSE, "if order_id or product_id then return {'replayed', order_id or product_id} end", ""),),
        f"{_MESSAGES}::test_a_request_that_another_worker_has_done_meanwhile_is_not_refused",
    ),
    Safeguard(
        "a refusal replaces an earlier refusal of its key",
        (Patch(_REFUSE, "if refusal_text then return {'refused', refusal_text} end", ""),),
        f"{_STEPS}[Refuse]",
    ),
    Safeguard(
        "an order gets a refusal that its key does not remember",
        (
            Patch(
                _PARTITION,
                'return settled if remembered[0] == "remembered" else remembered',
                "return settled",
            ),
        ),
        f"{_MESSAGES}::test_a_request_that_another_worker_has_done_meanwhile_is_not_refused",
    ),
    Safeguard(
        "a stock change gets a refusal that its key does not remember",
        (Patch(_STOCK, 'return reply if remembered[0] == "remembered" else remembered', "return reply"),),
        f"{_FAILURES}::test_a_repeated_stock_change_is_not_called_undone_if_its_first_result_cannot_be_read",
    ),
    Safeguard(
        "the key of a stock change is not remembered",
        (
            Patch(
                "lua/move_stock.lua",
                "redis.call('HSET', outcome_key, 'fingerprint', fingerprint, 'product', product_id)",
                "redis.call('HGET', outcome_key, 'fingerprint')",
            ),
        ),
        f"{_OF_CATALOGUE}::test_a_stock_change_with_a_key_is_made_once_and_its_refusal_is_remembered",
    ),
    Safeguard(
        "an order with a key may go to any partition",
        (
            Patch(
                _PLACING,
                "return await orders[partitions.of_text(text)].place(new, idempotency_key, by)",
                "return await orders[partitions.next()].place(new, idempotency_key, by)",
            ),
        ),
        f"{_OF_ORDERS}::test_a_repeated_key_gets_the_first_result",
    ),
    Safeguard(
        "a stock change with a key may go to any partition",
        (
            Patch(
                _PRODUCTS,
                "number = partitions.next() if idempotency_key is None else",
                "number = partitions.next() or",
            ),
        ),
        f"{_OF_CATALOGUE}::test_a_stock_change_with_a_key_is_made_once_and_its_refusal_is_remembered",
    ),
    Safeguard(
        "an order that may have been placed is placed in another partition",
        (
            Patch(
                _PLACING,
                "import Overloaded, StorageUnavailable,",
                "import Overloaded, StorageError, StorageUnavailable,",
            ),
            Patch(
                _PLACING,
                "except (StorageUnavailable, Overloaded, UnsupportedRedis):  # nothing was done",
                "except StorageError:  # nothing was done",
            ),
        ),
        f"{_MESSAGES}::test_an_order_that_may_have_been_placed_is_not_placed_in_another_partition",
    ),
)
