"""The Store against a model of a few dictionaries: whatever the sequence of calls, both say the same."""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from decimal import Decimal
from itertools import product
from typing import Any, TypeVar

from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from service.domain.errors.refusals import IdempotencyKeyReused, Refusal, StockTooHigh
from service.domain.limits import MAX_PRICE, MAX_STOCK, MAX_TOTAL
from service.domain.money import Cents, format_cents
from service.domain.requests import NewOrder, NewProduct, OrdersQuery, ProductChange, ProductsQuery, StockMove
from service.domain.times import Milliseconds
from service.ops.audit import audit
from service.storage import keys
from service.storage.connection import MultiplexedConnection
from service.storage.orders import Placed
from service.storage.stock import Moved
from service.storage.store import Store
from tests.support.books import assert_books_balance, units_from_events
from tests.support.clock import Clock
from tests.support.fake_redis import FakeRedis
from tests.support.model import Model, ModelKey, Move, Request
from tests.support.redis_content import events_at, hash_at, scores_at
from tests.support.shop import SHOP, make_store, new_mug

T = TypeVar("T", int, str)
F = TypeVar("F", bound=Callable[..., None])

Lines = list[tuple[int, int]]
"""Of an order: product id and quantity."""
Calls = list[tuple[int, str]]
"""About one order: worker and verb."""

VERBS = ("get", "complete", "cancel")
HOWS = ("same", "same", "other bytes", "other meaning", "other kind")
"""A key comes again with the same request, the same meaning in other bytes, or a request that it may not have."""

SEEDS = range(6)
NEVER_PLACED = 10**6
"""An order id."""

# Most orders should find their products on sale and in stock, else they all end at the first question.
ids = st.sampled_from([1, 1, 2, 2, 3, 4, 5, 6])
ids_to_add = st.sampled_from([None, 1, 3, 4, 5, 6])
ids_to_withdraw = st.sampled_from([3, 4, 5, 6, 7])
ids_to_order = st.sampled_from([1, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 9])
names = st.sampled_from(["Mug", "Pot", "Ünïcode ☕", "two\nlines", " 'quoted' \"\\ "])
prices = st.sampled_from([0, 1, 29, 700, 1999, MAX_PRICE])
stocks = st.sampled_from([0, 1, 9, 10, 30, 10_000_000, MAX_STOCK])
quantities = st.sampled_from([1, 1, 1, 1, 2, 2, 3, 3, 4, 10, 12, 1_000_000])
lines_of_an_order = st.lists(st.tuples(ids_to_order, quantities), min_size=1, max_size=4)
holds = st.sampled_from([None, None, 1, 2, 60, 900, 86_400])
guards = st.sampled_from([None, None, None, "right", "right", "wrong"])
orders = st.lists(st.tuples(lines_of_an_order, guards, holds, st.booleans()), min_size=1, max_size=3)
amounts = st.sampled_from([1, 25, -1, -2, "all", "more than all", "to the brim", "over the brim", "over the brim"])
reasons = st.sampled_from(["restock", "Ünïcode\nlines"])
limits = st.integers(1, 4)
workers = st.integers(0, 1)
calls = st.lists(st.tuples(workers, st.sampled_from(VERBS)), min_size=1, max_size=3)
data = st.data()

STATES = ("absent", "pending", "overdue", "completed", "cancelled", "expired")

ORDER_REFUSALS = ("UnknownProducts", "InsufficientStock", "PriceChanged", "TotalTooLarge")
MOVE_REFUSALS = ("StockTooLow", "StockTooHigh", "MoveOfUnknownProduct")

# What the runs must come across, each at least once: else the machine would prove less than it seems to.
ALL_OUTCOMES = {
    *(f"{verb} {state}" for verb, state in product(VERBS, STATES)),
    *(f"{verb} pending, a millisecond before its deadline" for verb in VERBS),
    *(f"{verb} overdue, at its deadline" for verb in VERBS),
    "place: pending",
    "place: completed",
    *(f"place: {refusal}" for refusal in ORDER_REFUSALS),
    *(f"place: not with the key of {what}" for what in ("an order", "a move")),
    *(f"place again: {what}" for what in (*STATES[1:], *ORDER_REFUSALS)),
    *(f"move: {what}" for what in ("on sale", *MOVE_REFUSALS)),
    *(f"move: not with the key of {what}" for what in ("an order", "a move")),
    *(f"move again: {what}" for what in ("on sale", "withdrawn", *MOVE_REFUSALS)),
    "move: StockTooHigh only with what is held",
    "stock came back to a withdrawn product",
    *(f"sweep: {what}" for what in ("nothing held", "nothing due", "all that is due", "some of what is due")),
    *(f"page of {status} orders" for status in ("all", "pending", "completed")),
    *(f"page of {status} orders: without overdue ones" for status in ("all", "pending")),
}


actions: list[st.SearchStrategy[tuple[str, dict[str, Any]]]] = []


def action(**arguments: st.SearchStrategy[Any]) -> Callable[[F], F]:
    """Like Hypothesis' `rule`, but none is left out.

    Hypothesis leaves out rules at random, in many runs all but one or two. Most of ours are nothing
    without the others, so they are one rule to Hypothesis.
    """

    def register(method: F) -> F:
        actions.append(st.tuples(st.just(method.__name__), st.fixed_dictionaries(arguments)))
        return method

    return register


class Shop(RuleBasedStateMachine):
    """Two workers' Stores over one link, and the model. One event loop a machine."""

    def __init__(self, url: str | None, reached: Counter[str]) -> None:
        super().__init__()
        self.reached = reached
        self.sound = True
        """No step has failed. Where one has, it is that which should be shown, not what became of the books."""
        self.runner = asyncio.Runner()
        self.resources = AsyncExitStack()
        self.clock = Clock()
        self.model = Model(self.clock)
        self.link = self.run(self.connect(url))
        self.stores = [make_store(self.link, clock=self.clock) for _ in range(2)]

    async def connect(self, url: str | None) -> FakeRedis | MultiplexedConnection:
        if url is None:
            link = FakeRedis()
            self.resources.push_async_callback(link.client.aclose)
            return link
        wire = await self.resources.enter_async_context(MultiplexedConnection(url, timeout=10, max_in_flight=10_000))
        await wire.send("FLUSHALL")
        return wire

    def teardown(self) -> None:
        try:
            if self.sound:
                self.run(self.assert_the_books())
        finally:
            self.run(self.resources.aclose())
            self.runner.close()

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(coroutine)

    def ask(self, call: Coroutine[Any, Any, Any]) -> Any:
        """The Store's answer: what it gives, or the refusal it raises."""
        return answer(lambda: self.run(call))

    def both(self, call: Coroutine[Any, Any, Any], same: Callable[[], object]) -> Any:
        """The Store's answer, which must be the model's."""
        found = self.ask(call)
        assert_same(found, answer(same))
        return found

    # Products

    @initialize(more=st.lists(st.tuples(prices, stocks), min_size=1, max_size=2))
    def open_the_shop(self, more: list[tuple[int, int]]) -> None:
        for price, stock in [(1999, 30), (700, 100), (MAX_PRICE, MAX_STOCK), *more]:
            self.add_assigned(self.stores[0], "Mug", price, stock)
        # A key of every kind: they made an order or moved stock, or were refused for one reason or another.
        orders: list[tuple[Lines, int | None, int | None]] = [
            *(([(1, 1), (3, 2)], hold, None) for hold in (None, 1, 60, 900)),
            ([(1, 1), (8, 1)], None, None),
            ([(1, 1000)], None, None),
            ([(1, 1)], None, 1),
            ([(3, 1_000_000)], None, None),
        ]
        for lines, hold, total in orders:
            self.place(0, new_order(lines, hold, total), self.fresh_key())
        for product_id, change in ((3, -1), (4, 1), (1, -MAX_STOCK), (1, MAX_STOCK), (8, 1)):
            self.move(0, Move(product_id, StockMove(change=change, reason="restock")), self.fresh_key())

    @action(worker=workers, own_id=ids_to_add, name=names, price=prices, stock=stocks)
    def add(self, worker: int, own_id: int | None, name: str, price: int, stock: int) -> None:
        if own_id is None:
            self.add_assigned(self.stores[worker], name, price, stock)
        else:
            new = new_product(name, price, stock, id=own_id)
            self.both(self.stores[worker].products.add(new), lambda: self.model.add_product(new, own_id))

    def add_assigned(self, store: Store, name: str, price: int, stock: int) -> None:
        new = new_product(name, price, stock)
        product = self.ask(store.products.add(new))
        assert product.id > 0
        assert_same(product, answer(lambda: self.model.add_product(new, product.id)))

    @action(
        worker=workers,
        product_id=ids,
        changes=st.fixed_dictionaries({}, optional={"name": names, "description": names, "price": prices}),
    )
    def change(self, worker: int, product_id: int, changes: dict[str, Any]) -> None:
        members = {**changes, "price": Decimal(format_cents(changes["price"]))} if "price" in changes else changes
        change = ProductChange.model_validate(members)
        self.both(
            self.stores[worker].products.change(product_id, change),
            lambda: self.model.change_product(product_id, change),
        )

    @action(worker=workers, product_id=ids_to_withdraw)
    def withdraw(self, worker: int, product_id: int) -> None:
        self.both(self.stores[worker].products.withdraw(product_id), lambda: self.model.withdraw_product(product_id))

    @action(worker=workers, product_id=ids, amount=amounts, reason=reasons, keyed=st.booleans())
    def move_stock(self, worker: int, product_id: int, amount: int | str, reason: str, keyed: bool) -> None:
        change = amount if isinstance(amount, int) else self.change_by(product_id, amount)
        request = Move(product_id, StockMove(change=change, reason=reason))
        self.move(worker, request, self.fresh_key() if keyed else None)

    def change_by(self, product_id: int, amount: str) -> int:
        """A change that just fits, or just does not. Where there is nothing to go or no room, it is 1."""
        product = self.model.products.get(product_id)
        if product is None:
            return 1
        room = MAX_STOCK - product.stock - product.held
        changes = {
            "all": -product.stock,
            "more than all": -product.stock - 1,
            "to the brim": room,
            "over the brim": room + 1,
        }
        return max(-MAX_STOCK, min(changes[amount], MAX_STOCK)) or 1

    # Orders

    @action(worker=workers, orders=orders)
    def place_orders(self, worker: int, orders: list[tuple[Lines, str | None, int | None, bool]]) -> None:
        for lines, guard, hold, keyed in orders:
            self.place(worker, self.order_of(lines, guard, hold), self.fresh_key() if keyed else None)

    def order_of(self, lines: Lines, guard: str | None, hold: int | None) -> NewOrder:
        """`guard`: the total price is not given, or the right one, or a wrong one."""
        total = None if guard is None else 1
        if guard is not None and all(product_id in self.model.products for product_id, _ in lines):
            right = sum(quantity * self.model.products[product_id].price for product_id, quantity in lines)
            total = min(right + (guard == "wrong"), MAX_TOTAL)
        return new_order(lines, hold, total)

    @action(calls=calls, data=data)
    def read_or_end_an_order(self, calls: Calls, data: st.DataObject) -> None:
        self.call(calls, draw_evenly(data, [*self.model.orders, NEVER_PLACED], self.model.state))

    @action(just_before=calls | st.just([]), just_then=calls, data=data)
    def read_or_end_an_order_at_its_deadline(self, just_before: Calls, just_then: Calls, data: st.DataObject) -> None:
        held = self.model.in_state("pending")
        if not held:
            return
        order_id = data.draw(st.sampled_from(held), label="order")
        deadline = self.model.orders[order_id].expires_at or 0
        self.clock.now = Milliseconds(deadline - 1)
        self.call(just_before, order_id, "a millisecond before its deadline")
        self.clock.now = Milliseconds(deadline)
        self.call(just_then, order_id, "at its deadline")

    @action(seconds=st.sampled_from([0, 0.001, 0.5, 1, 59, 900]), forget=st.booleans())
    def time_passes(self, seconds: float, forget: bool) -> None:
        """`forget`: the engine loses all scripts, as when it restarts."""
        self.clock.forward(seconds)
        if forget and isinstance(self.link, FakeRedis):
            self.link.forget_scripts()
        elif forget:
            self.run(flush_scripts(self.link))

    @action(worker=workers, seconds=st.sampled_from([0, 0, 1, 60, 900]), most=st.sampled_from([1, 2, 100]))
    def sweep(self, worker: int, seconds: int, most: int) -> None:
        """Which of the overdue orders it takes is left to the Store, and the order in which it does."""
        self.clock.forward(seconds)
        due, held = self.model.in_state("overdue"), self.model.in_state("pending")
        expected = min(most, len(due))
        due_in = self.ask(self.stores[worker].holds.expire_due(most))
        events = self.run(events_at(self.link, keys.events(SHOP)))[len(self.model.events) :]
        expired = [int(event["order"]) for event in events]
        assert len(set(expired)) == len(expired) == expected
        assert set(expired) <= set(due)
        for order_id in expired:
            self.note_withdrawn(order_id)
            self.model.end(order_id, "expired")
        deadlines = [self.model.orders[order_id].expires_at or 0 for order_id in held]
        if due:
            assert due_in == 0
        else:
            assert due_in == min(((deadline - self.clock.now) / 1000 for deadline in deadlines), default=float("inf"))
        how = "all that is due" if expected == len(due) else "some of what is due"
        self.reached[f"sweep: {how if due else 'nothing due' if held else 'nothing held'}"] += 1

    # Repeats

    @action(
        repeats=st.lists(st.tuples(workers, st.sampled_from(HOWS), st.integers(0, 2)), min_size=2, max_size=5),
        data=data,
    )
    def repeat_keys(self, repeats: list[tuple[int, str, int]], data: st.DataObject) -> None:
        for worker, how, variant in repeats:
            key = draw_evenly(data, list(self.model.keys), self.became_of)
            request = rewritten(self.model.keys[key].first, how, variant)
            if isinstance(request, Move):
                self.move(worker, request, key)
            else:
                self.place(worker, request, key)

    # Pages

    @action(worker=workers, product_id=ids, limit=limits, in_stock=st.sampled_from([None, "true", "false"]))
    def read_products(self, worker: int, product_id: int, limit: int, in_stock: str | None) -> None:
        self.both(self.stores[worker].products.get(product_id), lambda: self.model.get_product(product_id))
        members = {"limit": str(limit), **({} if in_stock is None else {"in_stock": in_stock})}
        found, after = [], 0
        while True:
            query = ProductsQuery.model_validate({**members, "after": str(after)})
            page, next_after = self.run(self.stores[worker].products.list(query))
            assert len(page) <= limit
            found += page
            if next_after is None:
                break
            assert next_after > after
            after = next_after
        assert found == self.model.list_products(None if in_stock is None else in_stock == "true")

    @action(worker=workers, limit=limits, status=st.sampled_from([None, "pending", "pending", "completed"]))
    def page_through_orders(self, worker: int, limit: int, status: str | None) -> None:
        members = {"limit": str(limit), **({} if status is None else {"status": status})}
        found = []
        while True:
            page, before = self.run(self.stores[worker].orders.list(OrdersQuery.model_validate(members)))
            assert len(page) <= limit
            found += page
            if before is None:
                break
            assert before < int(members.get("before", before + 1))
            members["before"] = str(before)
        assert found == self.model.list_orders(status)
        what = f"page of {status or 'all'} orders"
        self.reached[what] += bool(found)
        self.reached[f"{what}: without overdue ones"] += bool(self.model.in_state("overdue"))

    @rule(what=st.deferred(lambda: st.one_of(actions)))
    def act(self, what: tuple[str, dict[str, Any]]) -> None:
        method, arguments = what
        self.sound = False
        getattr(self, method)(**arguments)
        self.sound = True

    # What must always be so

    @invariant()
    def the_stock_and_the_holds_are_the_models(self) -> None:
        self.sound = False
        self.run(self.assert_the_figures())
        self.sound = True

    async def assert_the_figures(self) -> None:
        """What is quickly read: no orders, and not the events themselves."""
        products = list(self.model.products.values())
        held = [order for order in self.model.orders.values() if order.status == "pending"]
        fields, holds, pending, events = await asyncio.gather(
            asyncio.gather(*(hash_at(self.link, keys.product(SHOP, product.id)) for product in products)),
            scores_at(self.link, keys.holds(SHOP)),
            scores_at(self.link, keys.pending(SHOP)),
            self.link.send("XLEN", keys.events(SHOP)),
        )
        assert fields == [product.fields() for product in products]
        assert holds == {str(order.id): order.expires_at for order in held}
        assert pending == {str(order.id): order.id for order in held}
        assert events == len(self.model.events)

    async def assert_the_books(self) -> None:
        """Every field of every product and order, the audit, and the whole story that the events tell."""
        books = await assert_books_balance(self.link)
        assert books.products == {product.id: product.fields() for product in self.model.products.values()}
        assert books.orders == {order.id: order.fields() for order in self.model.orders.values()}
        report = await audit(self.stores[0], SHOP)
        assert report.findings == []
        assert (report.products, report.orders, report.pending) == (
            len(books.products),
            len(books.orders),
            books.statuses()["pending"],
        )
        events = await events_at(self.link, keys.events(SHOP))
        assert events == self.model.events
        assert units_from_events(events) == books.accounts

    # What several actions do

    def call(self, calls: Calls, order_id: int, when: str = "") -> None:
        """Calls about one order, one after the other."""
        for worker, verb in calls:
            store, state = self.stores[worker], self.model.state(order_id)
            self.reached[f"{verb} {state}"] += 1
            if state in ("pending", "overdue") and when:
                self.reached[f"{verb} {state}, {when}"] += 1
            match verb:
                case "get":
                    self.both(store.orders.get(order_id), lambda: self.model.get_order(order_id))
                case "complete":
                    self.both(store.holds.complete(order_id), lambda: self.model.complete_order(order_id))
                case "cancel":
                    if state in ("pending", "overdue"):
                        self.note_withdrawn(order_id)
                    self.both(store.holds.cancel(order_id), lambda: self.model.cancel_order(order_id))

    def became_of(self, key: str) -> str:
        """What a replay of this key's request gives."""
        known = self.model.keys[key]
        if isinstance(known.outcome, Refusal):
            return kind_of(known.outcome)
        if isinstance(known.first, NewOrder):
            return self.model.state(known.outcome)
        return "on sale" if self.model.products[known.outcome].on_sale else "withdrawn"

    def fresh_key(self) -> str:
        return f"k-{len(self.model.keys) + 1}"

    def place(self, worker: int, new: NewOrder, key: str | None) -> None:
        found = self.ask(self.stores[worker].orders.place(new, key))
        order_id = found.order.id if isinstance(found, Placed) else 0
        known = None if key is None else self.model.keys.get(key)
        assert_same(found, answer(lambda: self.model.place_order(new, key, order_id)))
        self.note_keyed("place", kind_of(found), key, known, found)

    def move(self, worker: int, request: Move, key: str | None) -> None:
        known = None if key is None else self.model.keys.get(key)
        found = self.both(
            self.stores[worker].stock.move(request.product_id, request.move, key),
            lambda: self.model.move_stock(request.product_id, request.move, key),
        )
        self.note_keyed("move", "on sale" if isinstance(found, Moved) else kind_of(found), key, known, found)
        if known is None and isinstance(found, StockTooHigh) and found.stock + found.change <= MAX_STOCK:
            self.reached["move: StockTooHigh only with what is held"] += 1

    def note_keyed(self, verb: str, outcome: str, key: str | None, known: ModelKey | None, found: object) -> None:
        """`known`: what there was to know of the key before."""
        if key is None or known is None:
            self.reached[f"{verb}: {outcome}"] += 1
        elif isinstance(found, IdempotencyKeyReused):
            owner = "an order" if isinstance(known.first, NewOrder) else "a move"
            self.reached[f"{verb}: not with the key of {owner}"] += 1
        else:
            self.reached[f"{verb} again: {self.became_of(key)}"] += 1

    def note_withdrawn(self, order_id: int) -> None:
        """Of an order whose stock comes back."""
        lines = self.model.orders[order_id].lines
        back = any(not self.model.products[line.product_id].on_sale for line in lines)
        self.reached["stock came back to a withdrawn product"] += back


def draw_evenly(data: st.DataObject, things: list[T], kind: Callable[[T], str]) -> T:
    """One of any kind, the rare kinds as often as the others."""
    drawn_kind = data.draw(st.sampled_from(sorted({kind(thing) for thing in things})), label="kind")
    drawn: T = data.draw(st.sampled_from([thing for thing in things if kind(thing) == drawn_kind]))
    return drawn


def answer(call: Callable[[], object]) -> Any:
    """What it gives, or the refusal it raises."""
    try:
        return call()
    except Refusal as refusal:
        return refusal


def assert_same(found: object, expected: object) -> None:
    """Refusals are the same if they are of one kind and say the same."""
    if isinstance(found, Refusal) and isinstance(expected, Refusal):
        assert (type(found), vars(found)) == (type(expected), vars(expected))
    else:
        assert found == expected


def kind_of(found: object) -> str:
    return found.order.status if isinstance(found, Placed) else type(found).__name__


def new_product(name: str, price: int, stock: int, **members: int) -> NewProduct:
    return new_mug(name=name, price=format_cents(price), stock=stock, **members)


def new_order(lines: Lines, hold: int | None, total: int | None) -> NewOrder:
    """Held for so many seconds, or completed at once."""
    document: dict[str, object] = {
        "products": [{"product_id": product_id, "quantity": quantity} for product_id, quantity in lines]
    }
    if hold is not None:
        document |= {"status": "pending", "hold_seconds": hold}
    if total is not None:
        document["total_price"] = Decimal(format_cents(total))
    return NewOrder.model_validate(document)


def rewritten(first: Request, how: str, variant: int) -> Request:
    match how, first:
        case "other kind", Move():
            return new_order([(first.product_id, 1)], None, None)
        case "other kind", NewOrder():
            return Move(first.products[0].product_id, StockMove(change=1, reason="restock"))
        case "other meaning", Move():
            return another_move(first, variant)
        case "other meaning", NewOrder():
            return another_order(first, variant)
        case "other bytes", NewOrder():
            return in_other_bytes(first, variant)
    return first


def in_other_bytes(first: NewOrder, variant: int) -> NewOrder:
    """Lines in another order, or split, or both."""
    lines = [(line.product_id, line.quantity) for line in first.products]
    if variant != 0:
        lines = [
            (product_id, part)
            for product_id, quantity in lines
            for part in (quantity // 2, quantity - quantity // 2)
            if part > 0
        ]
    if variant != 1:
        lines.reverse()
    return new_order(lines, hold_of(first), first.total_price)


def another_order(first: NewOrder, variant: int) -> NewOrder:
    """Differs in one point."""
    lines = [(line.product_id, line.quantity) for line in first.products]
    hold, total = hold_of(first), first.total_price
    match variant:
        case 0:
            lines[0] = (lines[0][0], lines[0][1] % 10 + 1)
        case 1:
            hold = 61 if hold is None else None if hold == 60 else 60
        case _:
            total = Cents(5) if total is None else None
    return new_order(lines, hold, total)


def another_move(first: Move, variant: int) -> Move:
    """Differs in one point."""
    product_id, change, reason = first.product_id, first.move.change, first.move.reason
    match variant:
        case 0:
            change = 1 if change == 2 else 2
        case 1:
            product_id += 1
        case _:
            reason += "!"
    return Move(product_id, StockMove(change=change, reason=reason))


def hold_of(order: NewOrder) -> int | None:
    """What new_order() makes such an order of."""
    return order.hold_seconds if order.status == "pending" else None


async def flush_scripts(wire: MultiplexedConnection) -> None:
    await wire.send("SCRIPT", "FLUSH")


def run_machine(url: str | None) -> None:
    reached = Counter[str]()

    class ShopThere(Shop):
        def __init__(self) -> None:
            super().__init__(url, reached)

    for number in SEEDS:
        # Few runs with each: from the eleventh on most would be but mutations of one before.
        run_state_machine_as_test(
            seed(number)(ShopThere),
            settings=settings(
                max_examples=10,
                stateful_step_count=50,
                derandomize=True,
                database=None,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
    assert {outcome for outcome in ALL_OUTCOMES if not reached[outcome]} == set()


def test_any_sequence_of_calls_on_fakeredis_leaves_what_the_model_says() -> None:
    run_machine(None)


def test_any_sequence_of_calls_on_the_engine_leaves_what_the_model_says(engine_url: str) -> None:
    run_machine(engine_url)
