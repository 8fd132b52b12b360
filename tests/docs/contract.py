"""What the code defines and the documents must name. The only place of these tests that knows the code's modules."""

import ast
import inspect
import re
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from service.api.routes import CALLS
from service.cli.main import COMMANDS
from service.domain import limits as domain_limits
from service.domain.errors.catalog import all_problems
from service.domain.errors.order_refusals import InsufficientStock
from service.domain.event import EVENT_FIELDS
from service.domain.limits import DEFAULT_HOLD_SECONDS
from service.domain.money import Cents, format_cents
from service.domain.order import OrderStatus
from service.domain.requests import NewReturn, StockChange
from service.settings import SETTINGS
from service.storage import keys
from service.storage.records import CATALOGUE_FIELDS
from service.storage.requirements import PARTITIONS_FIELD, check_settings
from service.storage.scripts import load_scripts
from service.storage.shop_mark import begun_field
from tests.support.clock import Clock
from tests.support.fake_redis import FakeRedis
from tests.support.orders import HASH_FIELDS
from tests.support.partitions import home_of, make_partitioned_store
from tests.support.redis_content import dump
from tests.support.scripts import run_mark_batch, run_upgrade_orders
from tests.support.shop import SHOP, expire_all_due, make_store, new_mug, new_order


class Setting(NamedTuple):
    """A setting as the environment has it."""

    variable: str
    default: str


class ProblemType(NamedTuple):
    """The type of a problem, with its status."""

    name: str
    status: int


def settings() -> list[Setting]:
    """Return all settings in the code's order. An empty default: there is none."""
    return [
        Setting(setting.variable, "" if setting.default is None else str(setting.default).replace("False", "false"))
        for setting in SETTINGS
    ]


def problem_types() -> set[ProblemType]:
    """Return all problem types."""
    return {ProblemType(problem.name, problem.status) for problem in all_problems()}


def calls() -> set[tuple[str, str]]:
    """Return method and path of all calls."""
    return {(call.method, call.path) for call in CALLS}


def refusals() -> dict[tuple[str, str], set[str]]:
    """Return the problem types with which each call can refuse, in addition to the general errors."""
    return {(call.method, call.path): {refusal.problem.name for refusal in call.refuses} for call in CALLS}


def commands() -> set[str]:
    """Return the names of all commands."""
    return set(COMMANDS)


PARTITION_KEYS: Final = frozenset({"sent", "outgoing", "taken", "unpropagated"})
"""The functions of `keys` for those that only a shop with partitions has."""


def key_patterns(*, in_partitions: bool = False) -> set[str]:
    """Return the pattern of each key: `{shop}:product:<id>`. Two patterns if a part of it may be left out.

    `in_partitions`: the keys that only a shop with partitions has, instead of all others.
    """
    found = set()
    for function_name, function in inspect.getmembers(keys, inspect.isfunction):
        if function_name in ("partition", "products_with") or (function_name in PARTITION_KEYS) != in_partitions:
            continue
        parameters = inspect.signature(function).parameters.values()
        shown = [
            name if name == "shop" else f"<{re.sub('^(product|order)_|(?<=customer)_id$', '', name)}>"
            for name in [parameter.name for parameter in parameters]
        ]
        found.add(function(*shown))
        required = [parameter for parameter in parameters if parameter.default is inspect.Parameter.empty]
        found.add(function(*shown[: len(required)]))
    return found - {keys.prefix("shop")}


def order_statuses() -> set[str]:
    """Return the statuses of an order."""
    return set(OrderStatus)


def event_types() -> set[str]:
    """Return the types of events."""
    return set(EVENT_FIELDS)


def event_fields() -> dict[str, set[str]]:
    """Return the fields of each type of event, without the field `event`."""
    return {event_type: {*fields.required, *fields.optional} for event_type, fields in EVENT_FIELDS.items()}


async def hash_fields() -> dict[str, set[str]]:
    """Return all fields of the hashes of a shop, by the pattern of their keys.

    The shop has a product with all fields, orders in every status, and Idempotency-Keys with every possible result.
    """
    redis, clock = FakeRedis(), Clock()
    store = make_store(redis, clock=clock)
    product_id = (await store.products.add(new_mug(on_sale_until="9999-01-01T00:00:00Z"))).id
    bought = (await store.orders.place(new_order((product_id, 2), customer="anna", reference="cart-1"), "bought")).order
    lines = [{"product_id": product_id, "quantity": 1}]
    await store.returns.make(bought.id, NewReturn.model_validate({"products": lines, "restock": False}), "returned")
    await store.stock.change(product_id, StockChange(change=1, reason="counted"), "stock-change")
    order_ids = []
    for number, status in enumerate(("completed", "pending", "pending", "pending")):
        placed = await store.orders.place(new_order((product_id, 1), status=status), f"placed-{number}")
        order_ids.append(placed.order.id)
    with pytest.raises(InsufficientStock):
        await store.orders.place(new_order((product_id, 1000)), "refused")
    await store.orders.place(new_order((product_id, 1)), "of an API key", by="backend")
    await store.holds.complete(order_ids[1])
    await store.holds.cancel(order_ids[2])
    clock.forward(DEFAULT_HOLD_SECONDS)
    await expire_all_due(store)
    await run_mark_batch(redis)
    await run_upgrade_orders(redis)
    # The fields that an archive adds to a product and a customer, and before, the fields of what it removes.
    [ended] = await store.archive.read([bought.id])
    before = await dump(redis)
    assert ended is not None
    assert await store.archive.remove([ended], 0) == ["removed"]
    found: dict[str, set[str]] = {}
    for name, (key_type, value, _) in [*before.items(), *(await dump(redis)).items()]:
        if key_type == "hash" and isinstance(value, dict):
            pattern = re.sub(r":(\d+)$", ":<id>", name.replace(f"{{{SHOP}}}", "{shop}"))
            pattern = re.sub(r":idempotency[:@].*", ":idempotency:<key>", pattern)
            if pattern == keys.customer("shop", "anna"):
                continue  # its fields are product ids
            found.setdefault(pattern, set()).update(value)
    orders = found["{shop}:order:<id>"]
    assert orders <= HASH_FIELDS
    orders |= HASH_FIELDS  # a field that only other changes write
    return found


async def partition_fields() -> set[str]:
    """Return the fields of hashes that only partitions have."""
    redis = FakeRedis()
    store = make_partitioned_store(redis, count=2)
    product_id = (await store.products.add(new_mug(stock=2))).id
    await store.orders.place(new_order((product_id, 2)))
    await store.all.exchange.partitions[0].claim(0, [product_id])
    await home_of(store, 9).products.add(new_mug(id=9))  # and it has not reached the other yet
    found = {PARTITIONS_FIELD, begun_field(1)}
    for name, (_, value, _) in (await dump(redis)).items():
        if name.endswith((f":product:{product_id}", ":product:9")):
            assert isinstance(value, dict)
            found |= set(value)
    return found - {"id", *CATALOGUE_FIELDS, "stock", "held", "sold", "received", "withdrawn"}


def redis_commands() -> set[str]:
    """Return the Redis commands that the scripts and the Store use, in the form of an ACL: `config|get`."""
    found = set()
    for script in load_scripts().values():
        found |= set(re.findall(r"redis\.p?call\('(\w+)'", script.source))
    for path in Path(keys.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(func=ast.Attribute(attr="send" | "_send" | "_try"), args=[*command]):
                    found |= _command(command)
                case ast.Call(func=ast.Name(id="execute"), args=[ast.Constant(value="PING")]):  # on each new connection
                    found.add("PING")
                # In the list of commands with their checks, in engine_check.
                case ast.Tuple(elts=[ast.Tuple(elts=[ast.Constant(), *_] as command), *_]):
                    found |= _command(command)
    return {command.lower() for command in found} - {"hello"}  # which every user may run


def _command(words: list[ast.expr]) -> set[str]:
    match words:
        case [ast.Constant(value=str(name)), ast.Constant(value=str(part)), *_] if name in (
            "CLIENT",
            "CONFIG",
            "LATENCY",
            "XINFO",
        ):
            return {f"{name}|{part}"}
        case [ast.Constant(value=str(name)), *_]:
            return {name}
        case [ast.Starred(value=ast.Name(id="command")), *_] | []:  # found where the tuple is written
            return set()
    raise AssertionError(f"not known which command is sent: {ast.unparse(words[0])}")


def limits() -> dict[str, str]:
    """Return the numbers of the contract as documents print them."""
    numbers = {name: value for name, value in vars(domain_limits).items() if re.match("MAX_|DEFAULT_", name)}
    cents = {"MAX_PRICE"}
    powers = {"MAX_ID", "MAX_TOTAL"}
    return {
        name: "2⁵³" if name in powers else format_cents(Cents(value)) if name in cents else f"{value:,}"
        for name, value in numbers.items()
    } | {"MAX_PRICE": "999,999,999.99"}


def check_engine_settings(found: dict[str, str]) -> None:
    """Raise an error if an engine with these settings is not safe enough for `always`."""
    check_settings([part for pair in found.items() for part in pair], "always")
