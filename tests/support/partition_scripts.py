"""Run the scripts of a shop with several partitions without the Store. The partition that they run in is SHOP."""

from collections.abc import Sequence
from typing import Any

from service.storage import keys
from service.storage.catalogue_pushes import note_propagated_args, push_product_args
from service.storage.partition import refuse_args
from service.storage.sender import CommandSender
from service.storage.transfers import (
    claim_units_args,
    give_units_args,
    read_outgoing_args,
    settle_units_args,
    take_units_args,
)
from tests.support.redis_content import scores_at
from tests.support.scripts import SCRIPTS, run_script
from tests.support.shop import SHOP

SENT, TAKEN, UNPROPAGATED = keys.sent(SHOP), keys.taken(SHOP), keys.unpropagated(SHOP)


async def run_give_units(
    sender: CommandSender, to: int, *wishes: tuple[int, int, int, int], settled: str = "0", max_on_their_way: int = 100
) -> list[str]:
    """Run lua/give_units.lua. A wish: product id, need, wish, keep."""
    names = [SENT, keys.outgoing(SHOP, to), *[keys.product(SHOP, wish[0]) for wish in wishes]]
    numbers = [number for wish in wishes for number in wish]
    args = give_units_args(to=to, settled=settled, max_on_their_way=max_on_their_way, wishes=numbers)
    return await run_script(sender, "give_units", names, args)


async def run_take_units(sender: CommandSender, source: int, *transfers: str) -> list[str]:
    """Run lua/take_units.lua. A transfer: its id, product id and units, as in the reply of give_units."""
    rows = [transfer.split() for transfer in transfers]
    names = [TAKEN, *[keys.product(SHOP, int(product_id)) for _, product_id, _ in rows]]
    args = take_units_args(source=source, ids_and_units=[part for id_, _, units in rows for part in (id_, units)])
    return await run_script(sender, "take_units", names, args)


async def run_settle_units(sender: CommandSender, to: int, settled: str) -> list[str]:
    """Run lua/settle_units.lua."""
    return await run_script(sender, "settle_units", [keys.outgoing(SHOP, to)], settle_units_args(settled=settled))


async def run_read_outgoing(sender: CommandSender, *partitions: int, max_pushes: int = 100) -> Any:
    """Run lua/read_outgoing.lua for transfers to these partitions. Return its reply, which has lists."""
    names = [UNPROPAGATED, SENT, TAKEN, *[keys.outgoing(SHOP, to) for to in partitions]]
    args = read_outgoing_args(max_pushes=max_pushes)
    return await sender.send("EVAL", SCRIPTS["read_outgoing"].source, len(names), *names, *args)


async def run_claim_units(
    sender: CommandSender, *product_ids: int, partition: int = 0, claim_ms: int = 60_000
) -> list[str]:
    """Run lua/claim_units.lua."""
    names = [keys.product(SHOP, product_id) for product_id in product_ids]
    return await run_script(sender, "claim_units", names, claim_units_args(partition=partition, claim_ms=claim_ms))


async def run_push_product(
    sender: CommandSender, product_id: int, version: int, *pairs: str, share: int | None = 0, withdrawn: bool = False
) -> list[str]:
    """Run lua/push_product.lua with a field, its value, a field, its value, ..."""
    args = push_product_args(
        product_id=product_id,
        version=str(version),
        share="" if share is None else str(share),
        withdrawn=str(int(withdrawn)),
        pairs=pairs,
    )
    return await run_script(sender, "push_product", [keys.product(SHOP, product_id), keys.products(SHOP)], args)


async def run_note_propagated(sender: CommandSender, product_id: int, version: int) -> list[str]:
    """Run lua/note_propagated.lua."""
    args = note_propagated_args(product_id=product_id, version=str(version))
    return await run_script(sender, "note_propagated", [keys.product(SHOP, product_id), UNPROPAGATED], args)


async def run_refuse(
    sender: CommandSender,
    key: str,
    refusal: str = "short\n0",
    *,
    fingerprint: str = "f1",
    refusal_ms: int = 60_000,
    refusals_max: int = 1000,
) -> list[str]:
    """Run lua/refuse.lua."""
    args = refuse_args(
        fingerprint=fingerprint,
        refusal=refusal,
        refusal_ms=refusal_ms,
        short_refusal_ms=1000,
        refusals_max=refusals_max,
    )
    return await run_script(sender, "refuse", [keys.refusals(SHOP), keys.idempotency(SHOP, key)], args)


async def put_outgoing(sender: CommandSender, to: int, transfers: Sequence[str]) -> None:
    """Put transfers on their way to another partition, without taking their units from anywhere."""
    for transfer in transfers:
        await sender.send("ZADD", keys.outgoing(SHOP, to), transfer.split()[0], transfer)


async def outgoing_at(sender: CommandSender, to: int) -> list[str]:
    """Return the transfers on their way to another partition, oldest first. The score of each is its id."""
    scores = await scores_at(sender, keys.outgoing(SHOP, to))
    assert all(transfer.split()[0] == str(score) for transfer, score in scores.items())
    return list(scores)
