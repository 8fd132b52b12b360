"""The Store against a model of a few dictionaries: whatever the sequence of calls, both say the same."""

import asyncio
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from service import keys
from service.errors import (
    IdempotencyKeyReused,
    InsufficientStock,
    OrderNotFound,
    OrderRefused,
    PriceChanged,
    ProductIdTaken,
    ProductNotFound,
    TotalTooLarge,
    UnknownProducts,
)
from service.models import (
    MAX_PRICE,
    MAX_TOTAL,
    NewOrder,
    NewProduct,
    OrdersQuery,
    ProductChange,
    ProductsQuery,
    money,
)
from service.wire import Wire
from tests.books import assert_books_balance, cents, events_at, order_lines
from tests.conftest import FakeLink, make_store

Lines = list[tuple[int, int]]
Outcome = tuple[object, ...]

_shops = count()

# Most orders should find their products on sale and in stock, else they all end at the first question.
ids = st.sampled_from([1, 1, 2, 2, 3, 4, 5, 6])
ids_to_withdraw = st.sampled_from([3, 4, 5, 6, 7])
ids_to_order = st.sampled_from([1, 1, 1, 1, 2, 2, 2, 2, 3, 4, 9])
names = st.sampled_from(["Mug", "Pot", "Ünïcode ☕", "two\nlines", " 'quoted' \"\\ "])
prices = st.sampled_from([0, 1, 29, 700, 1999, MAX_PRICE])
stocks = st.sampled_from([0, 1, 9, 10, 30, 10_000_000, 1_000_000_000])
quantities = st.sampled_from([1, 1, 1, 1, 2, 2, 3, 3, 4, 10, 12, 1_000_000])
lines_of_an_order = st.lists(st.tuples(ids_to_order, quantities), min_size=1, max_size=4)
idempotency_keys = st.sampled_from(["k-1", "k-2", "k-3"])
guards = st.sampled_from([None, None, "right", "right", "wrong"])
limits = st.integers(1, 4)
workers = st.integers(0, 1)


@dataclass
class ModelProduct:
    name: str
    description: str
    price: int
    stock: int
    received: int
    sold: int = 0
    on_sale: bool = True


@dataclass
class ModelOrder:
    lines: list[tuple[int, int, int]]
    total: int
    created_at: int
    key: str | None


@dataclass
class ModelKey:
    """What became of an Idempotency-Key."""

    first: NewOrder
    outcome: Outcome


@dataclass
class Model:
    """What the shop should hold. Amounts in cents."""

    products: dict[int, ModelProduct] = field(default_factory=dict)
    orders: dict[int, ModelOrder] = field(default_factory=dict)
    keys: dict[str, ModelKey] = field(default_factory=dict)

    def listed(self) -> list[int]:
        return sorted(product_id for product_id, product in self.products.items() if product.on_sale)

    def total(self, lines: Lines) -> int:
        return sum(quantity * self.products[product_id].price for product_id, quantity in lines)

    def refusal(self, new: NewOrder) -> Outcome | None:
        """Why the order cannot be placed now, or None."""
        wanted = new.quantities()
        faults: list[tuple[int, int, int, int | None]] = []
        unknown = False
        for product_id, quantity in wanted.items():
            product = self.products.get(product_id)
            first = [line.product_id for line in new.products].index(product_id)
            if product is None or not product.on_sale:
                unknown = True
                faults.append((first, product_id, quantity, None))
            elif product.stock < quantity:
                faults.append((first, product_id, quantity, product.stock))
        if faults:
            return (UnknownProducts if unknown else InsufficientStock, *faults)
        total = self.total(list(wanted.items()))
        if total > MAX_TOTAL:
            return (TotalTooLarge,)
        if new.total_price not in (None, total):
            return (PriceChanged, total, *((product_id, self.products[product_id].price) for product_id in wanted))
        return None


class Shop(RuleBasedStateMachine):
    """Two workers' Stores over one link, and the model. One event loop a machine."""

    def __init__(self, url: str | None) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.resources = AsyncExitStack()
        self.now = 1_754_000_000_000
        self.shop = f"machine-{next(_shops)}"
        self.model = Model()
        self.link = self.run(self.connect(url))
        self.stores = [make_store(self.link, shop=self.shop, clock=self.clock) for _ in range(2)]

    async def connect(self, url: str | None) -> FakeLink | Wire:
        if url is not None:
            return await self.resources.enter_async_context(Wire(url, timeout=10, max_in_flight=10_000))
        link = FakeLink()
        self.resources.push_async_callback(link.client.aclose)
        return link

    def teardown(self) -> None:
        self.run(self.resources.aclose())
        self.runner.close()

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(coroutine)

    def clock(self) -> int:
        return self.now

    @initialize(more=st.lists(st.tuples(prices, stocks), max_size=2))
    def open_the_shop(self, more: list[tuple[int, int]]) -> None:
        for price, stock in [(1999, 30), (700, 100), (MAX_PRICE, 1_000_000_000), *more]:
            self.add_assigned(0, "Mug", price, stock)

    @rule(worker=workers, product_id=ids, name=names, price=prices, stock=stocks)
    def add_with_own_id(self, worker: int, product_id: int, name: str, price: int, stock: int) -> None:
        new = new_product(name, price, stock, id=product_id)
        if product_id in self.model.products:
            with pytest.raises(ProductIdTaken):
                self.run(self.stores[worker].add_product(new))
        else:
            assert self.run(self.stores[worker].add_product(new)).id == product_id
            self.model.products[product_id] = ModelProduct(name, "", price, stock, received=stock)

    @rule(worker=workers, name=names, price=prices, stock=stocks)
    def add_assigned(self, worker: int, name: str, price: int, stock: int) -> None:
        product = self.run(self.stores[worker].add_product(new_product(name, price, stock)))
        assert product.id not in self.model.products
        assert product.id > 0
        self.model.products[product.id] = ModelProduct(name, "", price, stock, received=stock)

    @rule(
        worker=workers,
        product_id=ids,
        changes=st.fixed_dictionaries({}, optional={"name": names, "description": names, "price": prices}),
    )
    def change(self, worker: int, product_id: int, changes: dict[str, Any]) -> None:
        members = {**changes, "price": Decimal(money(changes["price"]))} if "price" in changes else changes
        change = ProductChange.model_validate(members)
        if product_id not in self.model.listed():
            with pytest.raises(ProductNotFound):
                self.run(self.stores[worker].change_product(product_id, change))
            return
        product = self.run(self.stores[worker].change_product(product_id, change))
        expected = self.model.products[product_id]
        for name, value in changes.items():
            setattr(expected, name, value)
        assert (product.id, product.name, product.description, product.price, product.stock) == (
            product_id,
            expected.name,
            expected.description,
            expected.price,
            expected.stock,
        )

    @rule(worker=workers, product_id=ids_to_withdraw)
    def withdraw(self, worker: int, product_id: int) -> None:
        if product_id in self.model.products:
            self.run(self.stores[worker].withdraw_product(product_id))
            self.model.products[product_id].on_sale = False
        else:
            with pytest.raises(ProductNotFound):
                self.run(self.stores[worker].withdraw_product(product_id))

    @rule(worker=workers, lines=lines_of_an_order, guard=guards)
    def place(self, worker: int, lines: Lines, guard: str | None) -> None:
        new = self.new_order(lines, guard)
        refusal = self.model.refusal(new)
        outcome, replayed = self.call_place(worker, new, None)
        assert not replayed
        self.assert_outcome(outcome, new, None, refusal)

    @rule(worker=workers, key=idempotency_keys, lines=lines_of_an_order, guard=guards)
    def place_with_key(self, worker: int, key: str, lines: Lines, guard: str | None) -> None:
        self.place_keyed(worker, key, self.new_order(lines, guard))

    @rule(worker=workers, key=idempotency_keys, how=st.sampled_from(["same", "reversed", "split"]))
    def repeat_a_key(self, worker: int, key: str, how: str) -> None:
        """The same meaning in the same or in other bytes."""
        if key not in self.model.keys:
            return
        first = self.model.keys[key].first
        lines = [(line.product_id, line.quantity) for line in first.products]
        if how == "reversed":
            lines.reverse()
        elif how == "split":
            lines = [
                (product_id, part)
                for product_id, quantity in lines
                for part in (quantity // 2, quantity - quantity // 2)
                if part > 0
            ]
        self.place_keyed(worker, key, order_of(lines, first.total_price), same=how == "same")

    @rule(worker=workers, product_id=ids)
    def read_a_product(self, worker: int, product_id: int) -> None:
        if product_id not in self.model.listed():
            with pytest.raises(ProductNotFound):
                self.run(self.stores[worker].get_product(product_id))
            return
        product = self.run(self.stores[worker].get_product(product_id))
        expected = self.model.products[product_id]
        assert (product.name, product.price, product.stock) == (expected.name, expected.price, expected.stock)

    @rule(worker=workers, data=st.data())
    def read_an_order(self, worker: int, data: st.DataObject) -> None:
        order_id = data.draw(st.sampled_from([*self.model.orders, 10**6]))
        if order_id not in self.model.orders:
            with pytest.raises(OrderNotFound):
                self.run(self.stores[worker].get_order(order_id))
            return
        self.assert_order(self.run(self.stores[worker].get_order(order_id)))

    @rule(worker=workers, limit=limits, in_stock=st.sampled_from([None, "true", "false"]))
    def page_through_products(self, worker: int, limit: int, in_stock: str | None) -> None:
        members = {"limit": str(limit), **({} if in_stock is None else {"in_stock": in_stock})}
        found, after = [], 0
        while True:
            query = ProductsQuery.model_validate({**members, "after": str(after)})
            page, next_after = self.run(self.stores[worker].list_products(query))
            assert len(page) <= limit
            found += [product.id for product in page]
            if next_after is None:
                break
            assert next_after > after
            after = next_after
        assert found == [
            product_id
            for product_id in self.model.listed()
            if in_stock is None or (self.model.products[product_id].stock > 0) == (in_stock == "true")
        ]

    @rule(worker=workers, limit=limits)
    def page_through_orders(self, worker: int, limit: int) -> None:
        found, members = [], {"limit": str(limit)}
        while True:
            page, before = self.run(self.stores[worker].list_orders(OrdersQuery.model_validate(members)))
            assert len(page) <= limit
            for order in page:
                self.assert_order(order)
            found += [order.id for order in page]
            if before is None:
                break
            members["before"] = str(before)
        assert found == sorted(self.model.orders, reverse=True)

    @rule()
    def forget_all_scripts(self) -> None:
        if isinstance(self.link, FakeLink):
            self.link.taught.clear()
        else:
            self.run(flush_scripts(self.link))

    @invariant()
    def the_books_say_what_the_model_says(self) -> None:
        books = self.run(assert_books_balance(self.link, self.shop))
        assert books.products == {
            product_id: {
                "id": str(product_id),
                "name": product.name,
                "description": product.description,
                "price": money(product.price),
                "stock": str(product.stock),
                "held": "0",
                "sold": str(product.sold),
                "received": str(product.received),
                "withdrawn": "0" if product.on_sale else "1",
            }
            for product_id, product in self.model.products.items()
        }
        assert books.orders == {
            order_id: {
                "id": str(order_id),
                "status": "completed",
                "total_price": money(order.total),
                "products": readable(order.lines),
                "created_at": str(order.created_at),
                **({} if order.key is None else {"idempotency_key": order.key}),
            }
            for order_id, order in self.model.orders.items()
        }

    @invariant()
    def the_events_tell_the_whole_story(self) -> None:
        stock: dict[str, int] = {}
        shown: dict[str, dict[str, str]] = {}
        orders: dict[str, tuple[str, str]] = {}
        for event in self.run(events_at(self.link, keys.events(self.shop))):
            kind, product = event.pop("event"), event.pop("product", "")
            match kind:
                case "product_added":
                    assert event.keys() == {"name", "price", "stock"}
                    stock[product] = int(event.pop("stock"))
                    shown[product] = {**event, "description": ""}
                case "product_changed":
                    assert any(shown[product][name] != value for name, value in event.items())
                    shown[product] |= event
                case "product_withdrawn":
                    del shown[product]
                case "order_placed":
                    assert event["status"] == "completed"
                    assert event["order"] not in orders
                    orders[event["order"]] = (event["total_price"], event["products"])
                    for product_id, quantity, price in order_lines(event["products"]):
                        stock[str(product_id)] -= quantity
                        assert cents(shown[str(product_id)]["price"]) == price
                case _:
                    raise AssertionError(f"an unknown event: {kind}")
        model = self.model
        assert stock == {str(product_id): product.stock for product_id, product in model.products.items()}
        assert shown == {
            str(product_id): {
                "name": model.products[product_id].name,
                "description": model.products[product_id].description,
                "price": money(model.products[product_id].price),
            }
            for product_id in model.listed()
        }
        assert orders == {
            str(order_id): (money(order.total), readable(order.lines)) for order_id, order in model.orders.items()
        }

    def new_order(self, lines: Lines, guard: str | None) -> NewOrder:
        """`guard`: the total price is not given, or the right one, or a wrong one."""
        if guard is None or any(product_id not in self.model.products for product_id, _ in lines):
            return order_of(lines, None if guard is None else 1)
        return order_of(lines, min(self.model.total(lines) + (guard == "wrong"), MAX_TOTAL))

    def place_keyed(self, worker: int, key: str, new: NewOrder, same: bool = False) -> None:
        """`same`: the very request of before, so that its answer is the very same, too."""
        known = self.model.keys.get(key)
        refusal = self.model.refusal(new)
        if known is not None and meaning(new) != meaning(known.first):
            with pytest.raises(IdempotencyKeyReused):
                self.run(self.stores[worker].place_order(new, key))
            return
        outcome, replayed = self.call_place(worker, new, key)
        assert replayed == (known is not None)
        if known is None:
            self.assert_outcome(outcome, new, key, refusal)
            self.model.keys[key] = ModelKey(new, outcome)
        elif same or outcome[0] == "placed":
            assert outcome == known.outcome
        else:
            assert outcome[0] == known.outcome[0]

    def call_place(self, worker: int, new: NewOrder, key: str | None) -> tuple[Outcome, bool]:
        self.now += 1000
        try:
            placed = self.run(self.stores[worker].place_order(new, key))
        except OrderRefused as error:
            return outcome_of(error), error.replayed
        return ("placed", placed.order), placed.replayed

    def assert_outcome(self, outcome: Outcome, new: NewOrder, key: str | None, refusal: Outcome | None) -> None:
        """Of an order that is not a repeated one. Writes it into the model."""
        if refusal is not None:
            assert outcome == refusal
            return
        assert outcome[0] == "placed", outcome
        order: Any = outcome[1]
        assert order.id not in self.model.orders
        wanted = new.quantities()
        lines = [
            (product_id, quantity, self.model.products[product_id].price) for product_id, quantity in wanted.items()
        ]
        self.model.orders[order.id] = ModelOrder(lines, self.model.total(list(wanted.items())), self.now, key)
        for product_id, quantity in wanted.items():
            self.model.products[product_id].stock -= quantity
            self.model.products[product_id].sold += quantity
        self.assert_order(order)

    def assert_order(self, order: Any) -> None:
        expected = self.model.orders[order.id]
        assert [(line.product_id, line.quantity, line.price) for line in order.lines] == expected.lines
        assert (order.total_price, order.status, order.created_at) == (
            expected.total,
            "completed",
            expected.created_at,
        )


def new_product(name: str, price: int, stock: int, **members: int) -> NewProduct:
    document = {"name": name, "description": "", "price": Decimal(money(price)), "stock": stock, **members}
    return NewProduct.model_validate(document)


def order_of(lines: Lines, total: int | None) -> NewOrder:
    products = [{"product_id": product_id, "quantity": quantity} for product_id, quantity in lines]
    guard = {} if total is None else {"total_price": Decimal(money(total))}
    return NewOrder.model_validate({"products": products, **guard})


def meaning(new: NewOrder) -> object:
    return new.quantities(), new.total_price


def outcome_of(error: OrderRefused) -> Outcome:
    match error:
        case UnknownProducts() | InsufficientStock():
            lines = [(line.index, line.product_id, line.requested, line.available) for line in error.lines]
            return (type(error), *lines)
        case PriceChanged():
            return (PriceChanged, error.total, *((price.product_id, price.price) for price in error.prices))
        case _:
            return (type(error),)


def readable(lines: list[tuple[int, int, int]]) -> str:
    return "\n".join(f"{product_id}: {quantity} x {money(price)}" for product_id, quantity, price in lines)


async def flush_scripts(wire: Wire) -> None:
    await wire.send("SCRIPT", "FLUSH")


def run_machine(url: str | None) -> None:
    class ShopThere(Shop):
        def __init__(self) -> None:
            super().__init__(url)

    run_state_machine_as_test(
        ShopThere,
        settings=settings(
            max_examples=80,
            stateful_step_count=40,
            derandomize=True,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_any_sequence_of_calls_on_fakeredis_leaves_what_the_model_says() -> None:
    run_machine(None)


def test_any_sequence_of_calls_on_the_engine_leaves_what_the_model_says(engine_url: str) -> None:
    run_machine(engine_url)
