"""The safeguards that keep partitions at one price, and that stop lost data from beginning again with sold units.

Each mutant lacks one safeguard, see safeguards.py.
"""

from typing import Final

from tests.faults.patches import Patch, Safeguard

_PARTITIONED: Final = "service/storage/partitioned.py"
_PRODUCTS: Final = "service/storage/partitioned_catalogue.py"
_PUSHES: Final = "service/storage/catalogue_pushes.py"
_MARK: Final = "service/storage/shop_mark.py"
_PUSH: Final = "lua/push_product.lua"
_NOTE: Final = "lua/note_propagated.lua"
_STEPS: Final = (
    "tests/model_check/test_partition_steps.py::test_a_step_of_the_model_does_what_the_script_does_on_the_engine"
)
_SCRIPTS: Final = "tests/scripts/test_partition_scripts.py"
_OF_CATALOGUE: Final = "tests/storage/test_partitioned_catalogue.py"
_FAILURES: Final = "tests/storage/test_partition_failures.py"
_LOST_PRODUCTS: Final = "tests/storage/test_lost_products.py"
_LOST_PARTITIONS: Final = "tests/storage/test_lost_partitions.py"

_NO_ENTRY: Final = "redis.call('ZADD', unpropagated_key, version, product_id)"

CATALOGUE: Final = (
    Safeguard(
        "a change of a price is answered before all partitions have it",
        (
            Patch(
                _PRODUCTS,
                "versions, by)\n        await self._partitions.pushes.push(product_id)\n        return product",
                "versions, by)\n        return product",
            ),
        ),
        f"{_OF_CATALOGUE}::test_all_partitions_have_a_change_when_it_is_answered_also_one_that_changes_nothing",
    ),
    Safeguard(
        "a new product is answered before all partitions have it",
        (
            Patch(
                _PRODUCTS,
                "await self._partitions.pushes.push(product_id)\n                return product",
                "return product",
            ),
        ),
        f"{_OF_CATALOGUE}::test_a_new_product_begins_with_the_same_units_in_each_partition",
    ),
    Safeguard(
        "a withdrawal is answered before all partitions have it",
        (
            Patch(
                _PRODUCTS,
                "withdraw(product_id, expected_versions, by)\n        await self._partitions.pushes.push(product_id)",
                "withdraw(product_id, expected_versions, by)",
            ),
        ),
        f"{_OF_CATALOGUE}::test_a_withdrawn_product_is_in_no_list_and_no_partition_sells_it",
    ),
    Safeguard(
        "a change of a price is answered although its push has failed",
        (
            Patch(
                _PUSHES,
                "            raise OutcomeUnknown(error.reason) from error\n        client.metrics",
                "            return\n        client.metrics",
            ),
        ),
        f"{_FAILURES}::test_a_change_of_a_product_that_was_made_is_never_answered_with_nothing_was_done",
    ),
    Safeguard(
        "a change to the same price is answered without a push",
        (
            Patch(
                _PRODUCTS,
                "            product = await self._products[home].change(product_id, change, expected_versions, by)\n"
                "        await self._partitions.pushes.push(product_id)\n",
                "            before = await self._products[home].get(product_id)\n"
                "            product = await self._products[home].change(product_id, change, expected_versions, by)\n"
                "        if product.catalogue_version() != before.catalogue_version():\n"
                "            await self._partitions.pushes.push(product_id)\n",
            ),
        ),
        f"{_OF_CATALOGUE}::test_all_partitions_have_a_change_when_it_is_answered_also_one_that_changes_nothing",
    ),
    Safeguard(
        "a push replaces a newer version",
        (
            Patch(
                _PUSH,
                "if old_version and tonumber(old_version) >= tonumber(version) then return {'known'} end",
                "",
            ),
        ),
        f"{_STEPS}[Push]",
    ),
    Safeguard(
        "a push removes the note of a newer version",
        (Patch(_NOTE, "newest and tonumber(newest) > tonumber(version)", "false"),),
        f"{_STEPS}[Propagated]",
    ),
    Safeguard(
        "the version of a change is only the time",
        (
            Patch(
                "lua/change_product.lua",
                "math.max(version + 1, seconds * 1000000 + microseconds)",
                "seconds * 1000000 + microseconds",
            ),
        ),
        f"{_STEPS}[Change]",
    ),
    Safeguard(
        "a change is not noted as unpropagated",
        (Patch("lua/change_product.lua", _NO_ENTRY, ""),),
        f"{_OF_CATALOGUE}::test_the_sweeper_ends_a_change_that_was_interrupted",
    ),
    Safeguard(
        "a new product is not noted as unpropagated",
        (Patch("lua/add_product.lua", _NO_ENTRY, ""),),
        f"{_STEPS}[Add]",
    ),
    Safeguard(
        "a withdrawal is not noted as unpropagated",
        (Patch("lua/withdraw_product.lua", _NO_ENTRY, ""),),
        f"{_STEPS}[Withdraw]",
    ),
    Safeguard(
        "the sweeper pushes no changes",
        (Patch(_PARTITIONED, "*map(self.all.pushes.push, product_ids), ", ""),),
        f"{_OF_CATALOGUE}::test_the_sweeper_ends_a_change_that_was_interrupted",
    ),
    Safeguard(
        "each push adds the first units again",
        (
            Patch(
                _PUSH,
                "if not old_version then\n",
                "if old_version and share ~= '' then\n"
                "  redis.call('HINCRBY', product_key, 'stock', share)\n"
                "  redis.call('HINCRBY', product_key, 'received', share)\n"
                "end\n"
                "if not old_version then\n",
            ),
        ),
        f"{_SCRIPTS}::test_a_newer_version_changes_the_catalogue_part_and_no_units",
    ),
    Safeguard(
        "a new product overwrites units that came before it",
        (
            Patch(
                _PUSH,
                "tonumber(stock or 0) + tonumber(share), tonumber(received or 0) + tonumber(share)",
                "tonumber(share), tonumber(share)",
            ),
        ),
        f"{_SCRIPTS}::test_units_that_come_before_their_product_are_kept_and_not_on_sale",
    ),
)

_NO_SHARE_LEFT: Final = Patch(_NOTE, "if has_share then redis.call('HDEL', product_key, 'share') end", "")
_NO_CHECK_OF_SHARE: Final = Patch(
    _PUSHES, "if share is not None and not await self._is_unpropagated(product_id):", "if False:"
)

LOST_DATA: Final = (
    # Each of two safeguards prevents a share that comes twice. The second one is for data of older programs.
    Safeguard(
        "a lost product begins again with its first units",
        (_NO_SHARE_LEFT, _NO_CHECK_OF_SHARE),
        f"{_LOST_PRODUCTS}::test_no_unit_is_sold_twice_whichever_partition_loses_a_product",
    ),
    Safeguard(
        "the share of a product is kept after all partitions have it",
        (_NO_SHARE_LEFT,),
        f"{_STEPS}[Propagated]",
    ),
    Safeguard(
        "a share that an older program left behind is given again",
        (_NO_CHECK_OF_SHARE,),
        f"{_LOST_PRODUCTS}::test_a_share_that_an_older_program_has_not_removed_is_given_to_nobody",
    ),
    Safeguard(
        "a lost product begins again without units",
        (
            Patch(
                _PUSH,
                "if not old_version and share == '' then return {'lost'} end",
                "if share == '' then share = 0 end",
            ),
        ),
        f"{_LOST_PRODUCTS}::test_orders_for_a_lost_product_are_placed_in_the_other_partitions",
    ),
    Safeguard(
        "a product that its home has lost is called unknown",
        (Patch(_PUSHES, "if self.home(id_) == partition and found[id_] and not here[id_]:", "if False:"),),
        f"{_LOST_PRODUCTS}::test_a_lost_product_is_never_called_unknown",
    ),
    Safeguard(
        "a partition that has lost its data begins again",
        (
            Patch(
                "service/storage/engine_check.py",
                "if version is None and self._beginning is not None and await self._beginning.has_begun():",
                "if False:",
            ),
        ),
        f"{_LOST_PARTITIONS}::test_a_partition_whose_data_are_lost_is_not_begun_again",
    ),
    Safeguard(
        "the beginning of a partition is not noted",
        (Patch(_MARK, 'await self._send("HSETNX", self._key, begun_field(number), 1)', "pass"),),
        f"{_LOST_PARTITIONS}::test_a_partition_whose_data_are_lost_is_not_begun_again",
    ),
    Safeguard(
        "a shop that has lost its mark begins again",
        (Patch(_MARK, "return await self._mark.any_partition_has_data()", "return False"),),
        f"{_LOST_PARTITIONS}::test_a_shop_is_not_begun_again_if_its_mark_is_lost_with_the_first_partition",
    ),
)
