"""Runs `make mutants`: breaks copies of Holdfast, each in one place, and lets the fault campaign or a test find it."""

import argparse
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Final, NamedTuple

from tests.faults.patches import Patch, Safeguard, broken_copy, environment_of, run_tests
from tests.faults.safeguards import SAFEGUARDS
from tests.faults.world import Setup


class Mutant(NamedTuple):
    """A fault of Holdfast. `caught_by`: the check of the campaign that must find it, under these faults."""

    name: str
    patches: tuple[Patch, ...]
    caught_by: str
    faults: tuple[str, ...] = ("flush_scripts",)
    setup: Setup = "own"


_ORDERS: Final = "service/storage/orders.py"
_CONNECTION: Final = "service/storage/connection.py"
_PLACE: Final = "lua/place_order.lua"

MUTANTS: Final = (
    Mutant(
        "units are taken in for a second time",
        (Patch("lua/take_units.lua", "if tonumber(id) > tonumber(last_id) then", "if true then"),),
        "conservation",
        ("freeze_engine", "kill_service"),
        "partitions",
    ),
    Mutant(
        "units on their way are settled, and not taken in",
        (
            Patch(
                "service/storage/exchange_deliveries.py",
                "        taken = await self._partitions[to].take(source, transfers)\n",
                "        await self._partitions[source].settle(to, transfers[-1].id)\n        return\n",
            ),
        ),
        "healthy_again",  # orders wait for units that never arrive
        ("flush_scripts",),
        "partitions",
    ),
    Mutant(
        "a change of a product does not reach the other partitions",
        (Patch("lua/push_product.lua", "and tonumber(old_version) >= tonumber(version) then", "then"),),
        "prices",
        ("flush_scripts",),
        "partitions",
    ),
    Mutant(
        "an id is given back after an unknown outcome",
        (Patch(_ORDERS, "except (StorageUnavailable, Overloaded, UnsupportedRedis):", "except Exception:"),),
        "log_is_clean",
        ("cut_before_reply",),
    ),
    Mutant(
        "a key is replayed without a look at the fingerprint",
        (Patch(_PLACE, "if first_fingerprint and first_fingerprint ~= fingerprint then return {'reused'} end", ""),),
        "expected_answers",
    ),
    Mutant(
        "a cancelled order is released again",
        (
            Patch(
                "lua/cancel_order.lua",
                "if status ~= 'pending' then return {status} end",
                "if status == 'completed' then return {status} end",
            ),
        ),
        "conservation",
    ),
    Mutant(
        "an order is confirmed before Redis has replied",
        (
            Patch(_ORDERS, "from collections.abc import", "import asyncio\nimport time\nfrom collections.abc import"),
            Patch(_ORDERS, 'await client.run(\n                    "place', 'await _early(client,\n "place'),
            Patch(
                _ORDERS,
                "def _counted(",
                "async def _early(client, *args):\n"
                "    task = asyncio.ensure_future(client.run(*args))\n"
                "    done, _ = await asyncio.wait([task], timeout=0.05)\n"
                "    if done:\n"
                "        return task.result()\n"
                "    task.add_done_callback(lambda task: task.exception())\n"
                "    prices = ['1.00'] * sum(':product:' in key for key in args[1])\n"
                "    return ['placed', '1.00', str(int(time.time() * 1000)), '', *prices]\n\n\n"
                "def _counted(",
            ),
        ),
        "acknowledged_orders",
        ("cut_before_write", "freeze_engine"),
    ),
    Mutant(
        "a change is sent again when the connection breaks",
        (
            Patch(
                _CONNECTION,
                "if not pending.safe_to_repeat:\n                self._fail(pending, OutcomeUnknown(reason))",
                "if False:\n                pass",
            ),
        ),
        "one_effect",
        ("cut_before_reply",),
    ),
    Mutant(
        "an unknown outcome is called: nothing was done",
        (
            Patch(
                _CONNECTION,
                "if not pending.safe_to_repeat:\n                self._fail(pending, OutcomeUnknown(reason))",
                "if not pending.safe_to_repeat:\n                self._fail(pending, StorageUnavailable(reason))",
            ),
        ),
        "one_effect",
        ("cut_before_reply",),
    ),
    Mutant(
        "an Idempotency-Key is not written",
        (Patch(_PLACE, "redis.call('HSET', outcome_key, 'fingerprint', fingerprint, 'order', order_id)", ""),),
        "one_order_per_key",
    ),
    Mutant(
        "holds do not expire",
        (Patch("service/storage/sweeper.py", "await expired_holds.expire_due(batch)", "1.0"),),
        "deadlines",
    ),
    Mutant(
        "an order is completed after its deadline",
        (
            Patch("lua/complete_order.lua", "if now_ms >= tonumber(expires_at) then return {'expired'} end", ""),
            Patch("service/storage/sweeper.py", "asyncio.sleep(pause)", "asyncio.sleep(1)"),
        ),
        "deadlines",
        ("freeze_engine",),
    ),
    Mutant(
        "a cancelled order still counts for its customer",
        (Patch("lua/cancel_order.lua", "in ipairs(new_units) do", "in ipairs({}) do"),),
        "customer_counts",
    ),
    Mutant(
        "a customer gets one unit more than the limit",
        (Patch(_PLACE, "already + quantity > tonumber(limit) then", "already + quantity > tonumber(limit) + 1 then"),),
        "never_oversold",
    ),
    Mutant(
        "a Redis that may delete keys is used",
        (Patch("service/storage/requirements.py", 'found.get("maxmemory-policy") != "noeviction"', "False"),),
        "unsafe_redis",
        ("eviction",),
    ),
    Mutant(
        "too few replicas are enough",
        (Patch("service/storage/replication.py", "elif result < replication.replicas:", "elif result < 0:"),),
        "acknowledged_orders",
        ("promote_late_replica",),
        "replica",
    ),
    Mutant(
        "the embedded engine is not started again",
        (Patch("service/engine/launcher.py", "elif self.process.poll() is not None:", "elif False:"),),
        "healthy_again",
        ("kill_engine",),
        "embedded",
    ),
)


def find(mutant: Mutant, seed: int) -> set[str]:
    """Run a short campaign with a broken copy of Holdfast, and return the checks that found something."""
    with broken_copy(mutant.patches) as copy:
        command = [sys.executable, "-m", "tests.faults", "--plain", "--setup", mutant.setup, "--workers", "1"]
        command += ["--faults", "3", "--seed", str(seed), "--folder", str(copy / "run"), "--only", *mutant.faults]
        done = subprocess.run(command, cwd=copy, env=environment_of(copy), capture_output=True, text=True, check=False)
        found = set(re.findall(r"VIOLATED (\w+)", done.stdout))
        if not found:
            print(done.stdout[-2000:], done.stderr[-2000:])
        return found


def try_mutant(mutant: Mutant, seed: int) -> bool:
    """Return whether the campaign finds a mutant, and print what finds it."""
    began = time.monotonic()
    found = find(mutant, seed)
    others = ", ".join(sorted(found - {mutant.caught_by})) or "none"
    is_caught = mutant.caught_by in found
    _print_result(is_caught, mutant.name, began, f"by {mutant.caught_by}; also by: {others}")
    return is_caught


def try_safeguard(safeguard: Safeguard) -> bool:
    """Return whether the test of a safeguard fails without it, and print which test and why."""
    began = time.monotonic()
    run = run_tests(safeguard.patches, [safeguard.caught_by])
    if not run.failure:
        print(run.output[-4000:])
    _print_result(bool(run.failure), safeguard.name, began, f"by {run.failure or safeguard.caught_by}"[:200])
    return bool(run.failure)


def _print_result(is_caught: bool, name: str, began: float, text: str) -> None:
    seconds = time.monotonic() - began
    print(f"{'caught' if is_caught else 'NOT CAUGHT':10} {name:65} {text} ({seconds:.0f} s)", flush=True)


def tests_pass(safeguards: Sequence[Safeguard]) -> bool:
    """Return whether the tests pass on a copy with all safeguards. Otherwise, their failures would prove nothing."""
    if not safeguards:
        return True
    run = run_tests((), sorted({safeguard.caught_by for safeguard in safeguards}))
    if not run.passed:
        print(run.output[-4000:])
    return run.passed


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.mutants", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="of the campaigns")
    parser.add_argument("--only", default="", help="a part of the name")
    parser.add_argument(
        "--by", choices=("campaign", "tests"), help="only the mutants that the campaign, or tests, must find"
    )
    options = parser.parse_args()
    mutants = [mutant for mutant in MUTANTS if options.only in mutant.name and options.by != "tests"]
    safeguards = [each for each in SAFEGUARDS if options.only in each.name and options.by != "campaign"]
    if not tests_pass(safeguards):
        return 1
    results = [try_safeguard(safeguard) for safeguard in safeguards]
    results += [try_mutant(mutant, options.seed) for mutant in mutants]
    print(f"{sum(results)} of {len(results)} mutants are caught")
    return 0 if all(results) else 1


if __name__ == "__main__":
    raise SystemExit(main())
