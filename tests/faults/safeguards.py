"""The safeguards of transfers, claims and WAIT, which keep the partitions of a shop from losing units.

Each mutant lacks one safeguard, and names the test that fails without it. The model has similar mutants
(tests/model_check/partitions/mutants.py): with them, the search shows which promise breaks. The other safeguards are in
safeguards_of_refusals.py and safeguards_of_catalogue.py.

Four steps have no mutant without WAIT, because nothing depends on that WAIT: a change of a product (its push reads the
home again, and waits there), the note that all partitions have the change, a settle and a claim.
"""

from typing import Final

from tests.faults.patches import Patch, Safeguard
from tests.faults.safeguards_of_catalogue import CATALOGUE, LOST_DATA
from tests.faults.safeguards_of_refusals import REFUSALS

_GIVE: Final = "lua/give_units.lua"
_TAKE: Final = "lua/take_units.lua"
_EXCHANGE: Final = "service/storage/exchange.py"
_DELIVERIES: Final = "service/storage/exchange_deliveries.py"
_TRANSFERS: Final = "service/storage/transfers.py"
_PARTITION: Final = "service/storage/partition.py"
_PUSHES: Final = "service/storage/catalogue_pushes.py"
_REPLICATION: Final = "service/storage/replication.py"

_STEPS: Final = (
    "tests/model_check/test_partition_steps.py::test_a_step_of_the_model_does_what_the_script_does_on_the_engine"
)
_SCRIPTS: Final = "tests/scripts/test_partition_scripts.py"
_OF_CATALOGUE: Final = "tests/storage/test_partitioned_catalogue.py"
_FAILURES: Final = "tests/storage/test_partition_failures.py"
_MESSAGES: Final = "tests/storage/test_partition_messages.py"
_REPLICAS: Final = "tests/storage/test_partition_safeguards.py"
_ONE_SHOP: Final = "tests/storage/test_replication.py"

TRANSFERS: Final = (
    Safeguard(
        "units are not noted while they are on their way",
        (Patch(_GIVE, "redis.call('ZADD', outgoing_key, unpack(transfers))", ""),),
        f"{_OF_CATALOGUE}::test_the_sweeper_of_another_worker_brings_units_that_were_given_and_not_taken",
    ),
    Safeguard(
        "a transfer that was taken in is not marked",
        (Patch(_TAKE, "if is_new then redis.call('HSET', taken_key, source, last_id) end", ""),),
        f"{_OF_CATALOGUE}::test_the_sweeper_of_another_worker_brings_units_that_were_given_and_not_taken",
    ),
    Safeguard(
        "a transfer is taken in a second time",
        (Patch(_TAKE, "if tonumber(id) > tonumber(last_id) then", "if true then"),),
        f"{_STEPS}[Take]",
    ),
    Safeguard(
        "the mark of the last transfer is removed when it is settled",
        (
            Patch(
                _DELIVERIES,
                "            await self._partitions[source].settle(to, taken.id)\n",
                "            await self._partitions[source].settle(to, taken.id)\n"
                "            client = self._partitions[to]._client\n"
                '            await client.send("HDEL", "{" + client.shop + "}:taken", source)\n',
            ),
        ),
        f"{_OF_CATALOGUE}::test_the_sweeper_of_another_worker_brings_units_that_were_given_and_not_taken",
    ),
    Safeguard(
        "transfers are settled before they are taken in",
        (
            Patch(
                _DELIVERIES,
                "        taken = await self._partitions[to].take(source, transfers)\n",
                "        await self._partitions[source].settle(to, transfers[-1].id)\n"
                "        taken = await self._partitions[to].take(source, transfers)\n",
            ),
        ),
        f"{_FAILURES}::test_a_silent_partition_does_not_delay_units_on_their_way_between_others",
    ),
    Safeguard(
        "a transfer settles earlier ones that may not have arrived",
        (
            Patch(
                _DELIVERIES,
                "        taken = await self._partitions[to].take(source, transfers)\n",
                "        self._taken[source, to] = transfers[-1].id\n"
                "        taken = await self._partitions[to].take(source, transfers)\n",
            ),
        ),
        f"{_MESSAGES}::test_a_transfer_does_not_settle_an_earlier_one_that_may_not_have_arrived",
    ),
    Safeguard(
        "a give returns only its own transfers, not earlier ones",
        (
            Patch(
                _GIVE,
                "local reply = {'outgoing', unpack(redis.call('ZRANGEBYSCORE', outgoing_key, '(' .. settled, '+inf'))}",
                "local reply = {'outgoing'}",
            ),
        ),
        f"{_MESSAGES}::test_units_whose_give_was_not_answered_arrive_with_the_next_transfer",
    ),
    Safeguard(
        "the sweeper finds only the newest transfer",
        (
            Patch(
                "lua/read_outgoing.lua",
                "redis.call('ZRANGEBYSCORE', KEYS[i], '-inf', '+inf')",
                "redis.call('ZRANGE', KEYS[i], -1, -1)",
            ),
        ),
        f"{_SCRIPTS}::test_what_other_partitions_do_not_have_is_read_the_oldest_first",
    ),
    Safeguard(
        "the service has no sweeper of transfers and changes",
        (
            Patch("service/app.py", "if isinstance(store, PartitionedStore):", "if False:"),
            Patch("tests/support/waiting.py", "PATIENCE = 60.0", "PATIENCE = 5.0"),
        ),
        "tests/api/test_partitions.py::test_a_service_finishes_what_a_stopped_worker_has_begun",
    ),
    Safeguard(
        "the sweeper brings no transfers",
        (Patch(_DELIVERIES, "for to, transfers in outgoing.transfers.items()", "for to, transfers in ()"),),
        f"{_OF_CATALOGUE}::test_the_sweeper_of_another_worker_brings_units_that_were_given_and_not_taken",
    ),
    Safeguard(
        "the id of a transfer is a counter, without the time",
        (Patch(_GIVE, "tonumber(settled) + 1, seconds * 1000000 + microseconds)", "tonumber(settled) + 1)"),),
        f"{_MESSAGES}::test_a_new_transfer_is_taken_in_if_its_source_lost_an_earlier_one_in_a_failover",
    ),
    Safeguard(
        "the id of a transfer is only the time",
        (
            Patch(
                _GIVE,
                "tonumber(redis.call('HGET', sent_key, to) or 0) + 1, tonumber(settled) + 1, seconds",
                "seconds",
            ),
        ),
        f"{_STEPS}[Give]",
    ),
    Safeguard(
        "an order is tried again before its units are given",
        (
            Patch(
                _EXCHANGE,
                "        await self.deliveries.move(plan.wishes)\n",
                '        self._tasks.start(self.deliveries.move(plan.wishes), "move")\n',
            ),
        ),
        "tests/api/test_metrics_partitions.py::test_misses_transfers_and_pushes_are_counted",
    ),
)

CLAIMS: Final = (
    Safeguard(
        "an order claims no units",
        (Patch(_EXCHANGE, "        await self._claim(batch)\n", ""),),
        f"{_REPLICAS}::test_an_order_claims_units_that_another_partition_takes_from_it_again_and_again",
    ),
    Safeguard(
        "a give ignores claims",
        (Patch(_GIVE, "if units > 0 and not is_claimed then", "if units > 0 then"),),
        f"{_STEPS}[Give]",
    ),
    Safeguard(
        "a claim also blocks partitions with a lower number",
        (Patch(_GIVE, " and tonumber(claimed_by) < tonumber(to)", ""),),
        f"{_SCRIPTS}::test_a_claimed_product_is_not_given_to_partitions_with_a_higher_number",
    ),
    Safeguard(
        "a claim never ends",
        (Patch(_GIVE, "tonumber(claimed_until) > now_ms and ", ""),),
        f"{_SCRIPTS}::test_a_claim_ends_by_the_clock_of_the_engine",
    ),
)


def _no_wait_after(script: str, caught_by: str) -> Safeguard:
    """Return the mutant that uses the replies of one script before replicas have what the script wrote."""
    return Safeguard(
        f"no WAIT after {script}",
        (
            Patch(
                _REPLICATION,
                "if not pending.safe_to_repeat:",
                "if not pending.safe_to_repeat and not any(\n"
                f'                text.encode() in pending.packed for text in load_scripts()["{script}"]\n'
                "            ):",
            ),
        ),
        caught_by,
    )


WAITS: Final = (
    Safeguard(
        "no WAIT at all",
        (Patch(_REPLICATION, "        batch = _Batch(self)\n", "        return\n        batch = _Batch(self)\n"),),
        f"{_ONE_SHOP}::test_the_outcome_of_a_change_that_the_replica_does_not_have_is_unknown",
    ),
    # WAIT only covers what its connection wrote. Without the mark, it says nothing about data that were only read.
    Safeguard(
        "WAIT only after writes",
        (
            Patch(
                _REPLICATION, "        sent.append(PendingCommand(pack(mark), False, times_out_at, _Mark(batch)))\n", ""
            ),
            Patch(_REPLICATION, "elif not self._is_marked:", "elif False:"),
        ),
        f"{_ONE_SHOP}::test_a_replayed_order_of_another_worker_is_answered_only_when_the_replica_has_it",
    ),
    _no_wait_after(
        "place_order", f"{_ONE_SHOP}::test_the_outcome_of_a_change_that_the_replica_does_not_have_is_unknown"
    ),
    _no_wait_after(
        "give_units", f"{_REPLICAS}::test_units_that_are_given_are_not_taken_if_no_replica_knows_that_they_left"
    ),
    _no_wait_after("take_units", f"{_REPLICAS}::test_units_are_not_settled_if_no_replica_knows_that_they_arrived"),
    _no_wait_after("refuse", f"{_REPLICAS}::test_a_refusal_that_no_replica_has_is_not_answered"),
    _no_wait_after(
        "push_product",
        f"{_REPLICAS}::test_a_change_counts_as_unpropagated_if_no_replica_of_another_partition_has_it",
    ),
    Safeguard(
        "no WAIT after the sweeper's look",
        (Patch(_TRANSFERS, "safe_to_repeat=not self._client.waits_for_replicas", "safe_to_repeat=True"),),
        f"{_REPLICAS}::test_a_sweeper_brings_no_units_of_which_no_replica_knows_that_they_were_given",
    ),
    Safeguard(
        "no WAIT after an order's look",
        (Patch(_TRANSFERS, "self._client.read_confirmed(", "self._client.read_hashes("),),
        f"{_REPLICAS}::test_a_look_is_not_believed_that_no_replica_confirms",
    ),
    Safeguard(
        "no WAIT after the look of a stock change",
        (Patch(_PARTITION, "client.read_confirmed(", "client.read_hashes("),),
        f"{_REPLICAS}::test_a_stock_change_is_not_refused_after_a_look_that_no_replica_confirms",
    ),
    Safeguard(
        "no WAIT after a product is read at home for a push",
        (
            Patch(
                _PUSHES,
                "[[version, share, withdrawn, *values]] = await client.read_confirmed(",
                "[[version, share, withdrawn, *values]] = await client.read_hashes(",
            ),
        ),
        f"{_REPLICAS}::test_a_change_is_not_pushed_that_no_replica_of_its_home_has",
    ),
    Safeguard(
        "no WAIT after a version is read at home for a refusal",
        (
            Patch(
                _PUSHES,
                'await client.read_confirmed(names, ("version",))',
                'await client.read_hashes(names, ("version",))',
            ),
        ),
        f"{_REPLICAS}::test_a_product_is_not_called_unknown_after_a_look_at_its_home_that_no_replica_confirms",
    ),
)

SAFEGUARDS: Final = (*TRANSFERS, *CLAIMS, *REFUSALS, *CATALOGUE, *LOST_DATA, *WAITS)
