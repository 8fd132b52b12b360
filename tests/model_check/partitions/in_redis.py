"""A partition of the model as it is in Redis, and its requests as runs of the scripts in lua/."""

import asyncio
from collections.abc import Callable
from typing import Any, Final

from service.storage import keys
from service.storage.sender import CommandSender
from tests.model_check.partitions.steps import (
    ABSENT,
    Add,
    Change,
    Claim,
    ClaimUnits,
    Give,
    Move,
    Partition,
    Place,
    Product,
    Propagated,
    Push,
    Refuse,
    Reply,
    Settle,
    Take,
    Transfer,
    Withdraw,
)
from tests.support.partition_scripts import SENT, TAKEN, UNPROPAGATED
from tests.support.redis_content import hash_at, scores_at
from tests.support.scripts import run_script
from tests.support.shop import SHOP

PARTITIONS: Final = 3
PRODUCTS: Final = 2
KEYS: Final = 3
"""The first two Idempotency-Keys are those of orders, the last is that of a stock change."""

_FIRST_ID: Final = 1
"""The product 0 of the model has this id."""

_MAX_STOCK: Final = 10**15
_MAX_EVENTS: Final = 1000


async def write(redis: CommandSender, partition: Partition) -> None:
    """Write a partition into an empty Redis."""
    commands: list[tuple[Any, ...]] = []
    for number, product in enumerate(partition.products):
        if fields := _fields_of(number, product):
            commands.append(("HSET", _product(number), *[part for pair in fields.items() for part in pair]))
        if not product.withdrawn:
            commands.append(("ZADD", keys.products(SHOP), number + _FIRST_ID, number + _FIRST_ID))
        if version := partition.unpropagated[number]:
            commands.append(("ZADD", UNPROPAGATED, version, number + _FIRST_ID))
    for other in range(PARTITIONS):
        commands += [
            ("HSET", name, other, ids[other])
            for name, ids in ((SENT, partition.sent), (TAKEN, partition.taken))
            if ids[other]
        ]
        commands += [
            ("ZADD", keys.outgoing(SHOP, other), one.id, f"{one.id} {one.product + _FIRST_ID} {one.units}")
            for one in partition.outgoing[other]
        ]
    for key, outcome in enumerate(partition.outcomes):
        if outcome:
            record = {"refused": ("refusal", "short\n0"), "moved": ("product", 1)}.get(outcome, ("order", 100 + key))
            commands.append(("HSET", _key(key), "fingerprint", f"f{key}", *record))
            if record[0] == "order":
                commands.append(("HSET", keys.order(SHOP, 100 + key), "status", outcome))
    await asyncio.gather(*(redis.send(*command) for command in commands))


def _fields_of(number: int, product: Product) -> dict[str, Any]:
    if product == ABSENT:
        return {}
    stock, held, sold, received, moved, version, price, share, withdrawn, claim = product
    fields: dict[str, Any] = {"stock": stock, "held": held, "sold": sold, "received": received}
    fields["withdrawn"] = int(withdrawn)
    fields |= {"moved": moved} if moved else {}
    fields |= {"claim": f"{claim.until_ms} {claim.by}"} if claim else {}
    if version:
        fields |= {"id": number + _FIRST_ID, "name": "Mug", "price": f"{price}.00", "version": version}
        fields |= {} if share is None else {"share": share}
    return fields


async def read(redis: CommandSender) -> Partition:
    """Return the partition that is in Redis."""
    hashes = [hash_at(redis, name) for name in (*map(_product, range(PRODUCTS)), SENT, TAKEN)]
    waiting = [scores_at(redis, keys.outgoing(SHOP, other)) for other in range(PARTITIONS)]
    *fields, sent, taken = await asyncio.gather(*hashes)
    products = [_product_of(found) for found in fields]
    on_sale = {str(number + _FIRST_ID) for number, product in enumerate(products) if not product.withdrawn}
    assert (await scores_at(redis, keys.products(SHOP))).keys() == on_sale
    unpropagated = await scores_at(redis, UNPROPAGATED)
    outgoing = []
    for transfers in await asyncio.gather(*waiting):
        outgoing.append(tuple(_transfer(text) for text in transfers))
        assert [transfer.id for transfer in outgoing[-1]] == list(transfers.values())
    return Partition(
        products=tuple(products),
        sent=tuple(int(sent.get(str(other), 0)) for other in range(PARTITIONS)),
        outgoing=tuple(outgoing),
        taken=tuple(int(taken.get(str(other), 0)) for other in range(PARTITIONS)),
        unpropagated=tuple(unpropagated.get(str(number + _FIRST_ID), 0) for number in range(PRODUCTS)),
        outcomes=tuple(await asyncio.gather(*(_outcome(redis, key) for key in range(KEYS)))),
    )


def _product_of(fields: dict[str, str]) -> Product:
    if not fields:
        return ABSENT
    names = ("stock", "held", "sold", "received", "moved", "version")
    return Product(
        **{name: int(fields.get(name, 0)) for name in names},
        share=int(fields["share"]) if "share" in fields else None,
        price=int(float(fields.get("price", 0))),
        withdrawn=fields["withdrawn"] == "1",
        claim=Claim(*map(int, fields["claim"].split())) if "claim" in fields else None,
    )


async def _outcome(redis: CommandSender, key: int) -> str:
    record = await hash_at(redis, _key(key))
    if "order" in record:
        return (await hash_at(redis, keys.order(SHOP, int(record["order"]))))["status"]
    return "moved" if "product" in record else "refused" if "refusal" in record else ""


def _transfer(text: str) -> Transfer:
    transfer_id, product_id, units = map(int, text.split())
    return Transfer(transfer_id, product_id - _FIRST_ID, units)


def _product(number: int) -> str:
    return keys.product(SHOP, number + _FIRST_ID)


def _key(key: int) -> str:
    return keys.idempotency(SHOP, f"k-{key}")


# Requests: the name of the script, KEYS and ARGV

_Run = tuple[str, list[str], list[Any]]


def _place(request: Place) -> _Run:
    order_id = 200 + request.key  # a repeated request comes with another id than the order that it placed
    names = [keys.order(SHOP, order_id), keys.events(SHOP), *[_product(product) for product, _ in request.lines]]
    names += [keys.holds(SHOP), keys.pending(SHOP)] if request.is_pending else []
    names += [keys.refusals(SHOP), _key(request.key)]
    options = ["hold_ms", 1000] if request.is_pending else []
    options += ["idempotency_key", f"k-{request.key}", "fingerprint", f"f{request.key}"]
    options += ["refusal_limits", "0 0 0"]
    args = [order_id, _MAX_EVENTS, len(options), *options]
    return "place_order", names, args + [n for product, units in request.lines for n in (product + _FIRST_ID, units)]


def _move(request: Move) -> _Run:
    names = [_product(request.product), keys.events(SHOP), keys.refusals(SHOP), _key(request.key)]
    args = [request.product + _FIRST_ID, request.change, "", "", "counted", _MAX_STOCK]
    return "move_stock", names, [*args, f"k-{request.key}", f"f{request.key}", 0, 0, 0, _MAX_EVENTS, "", "stock"]


def _refuse(request: Refuse) -> _Run:
    return "refuse", [keys.refusals(SHOP), _key(request.key)], [f"f{request.key}", "short\n0", 60_000, 1000, 1000]


def _give(request: Give) -> _Run:
    names = [SENT, keys.outgoing(SHOP, request.to), *[_product(wish[0]) for wish in request.wishes]]
    numbers = [n for product, *wish in request.wishes for n in (product + _FIRST_ID, *wish)]
    return "give_units", names, [request.to, request.settled, request.max_waiting, *numbers]


def _take(request: Take) -> _Run:
    names = [TAKEN, *[_product(transfer.product) for transfer in request.transfers]]
    return "take_units", names, [request.source, *[n for one in request.transfers for n in (one.id, one.units)]]


def _settle(request: Settle) -> _Run:
    return "settle_units", [keys.outgoing(SHOP, request.to)], [request.settled]


def _claim(request: ClaimUnits) -> _Run:
    return "claim_units", [_product(product) for product in request.products], [request.by, request.ms]


def _add(request: Add) -> _Run:
    names = [_product(request.product), keys.products(SHOP), keys.events(SHOP), UNPROPAGATED]
    args = [request.product + _FIRST_ID, request.stock, _MAX_EVENTS, "", request.others, request.share]
    return "add_product", names, [*args, "name", "Mug", "price", f"{request.price}.00"]


def _change(request: Change) -> _Run:
    args = [request.product + _FIRST_ID, _MAX_EVENTS, "", 1, 2, "price", "price", f"{request.price}.00"]
    return "change_product", [_product(request.product), keys.events(SHOP), UNPROPAGATED], args


def _withdraw(request: Withdraw) -> _Run:
    names = [_product(request.product), keys.products(SHOP), keys.events(SHOP), UNPROPAGATED]
    return "withdraw_product", names, [request.product + _FIRST_ID, _MAX_EVENTS, ""]


def _push(request: Push) -> _Run:
    args = [request.product + _FIRST_ID, request.version, "" if request.share is None else request.share]
    return (
        "push_product",
        [_product(request.product), keys.products(SHOP)],
        [*args, int(request.withdrawn), "name", "Mug", "price", f"{request.price}.00"],
    )


def _propagated(request: Propagated) -> _Run:
    return "note_propagated", [_product(request.product), UNPROPAGATED], [request.product + _FIRST_ID, request.version]


_RUNS: dict[type, Callable[[Any], _Run]] = {
    Place: _place,
    Move: _move,
    Refuse: _refuse,
    Give: _give,
    Take: _take,
    Settle: _settle,
    ClaimUnits: _claim,
    Add: _add,
    Change: _change,
    Withdraw: _withdraw,
    Push: _push,
    Propagated: _propagated,
}


async def run(redis: CommandSender, request: Any) -> Reply:
    """Run the script of a request. Return its reply as the model gives it."""
    word, *rest = await run_script(redis, *_RUNS[type(request)](request))
    if word == "outgoing":
        return word, tuple(_transfer(text) for text in rest)
    return (word, *map(int, rest)) if word == "taken" and type(request) is Take else (word,)
