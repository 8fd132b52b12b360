"""The state machine: the Stores of two workers make random calls, and the model must have the same results."""

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from decimal import Decimal
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from service.domain.errors.refusals import IdempotencyKeyReused, Refusal
from service.domain.errors.stock_refusals import StockLimitExceeded
from service.domain.limits import MAX_PRICE, MAX_STOCK, MAX_TOTAL
from service.domain.money import format_cents
from service.domain.requests import (
    HoldExtension,
    NewOrder,
    NewReturn,
    OrdersQuery,
    ProductChange,
    ProductsQuery,
    StockChange,
    StockCount,
)
from service.domain.times import Milliseconds, format_timestamp
from service.ops.archive import archive
from service.ops.archive_file import ArchiveFile
from service.ops.audit import audit
from service.storage import keys
from service.storage.connection import MultiplexedConnection
from service.storage.orders import PlacedOrder
from service.storage.returns import ReturnedOrder
from service.storage.stock import ChangedStock
from service.storage.store import Store
from tests.model_check.actions import action, actions
from tests.model_check.requests import (
    Lines,
    change_by,
    lines_of_return,
    order_request,
    product_request,
    repeated,
    return_request,
)
from tests.model_check.results import assert_same_result, outcome_name, result_or_refusal
from tests.model_check.strategies import (
    REPETITIONS,
    OrderCalls,
    amounts,
    calls,
    counts,
    customer_limits,
    customers,
    data,
    draw_evenly,
    expectations,
    ids,
    ids_to_add,
    ids_to_withdraw,
    limits,
    lines_to_return,
    names,
    orders,
    prices,
    reasons,
    references,
    sale_times,
    stocks,
    workers,
)
from tests.support.balance import assert_balanced, units_from_events
from tests.support.clock import Clock
from tests.support.fake_redis import FakeRedis
from tests.support.model import Model
from tests.support.model_records import ModelKey, ReturnRequest, StockChangeRequest
from tests.support.redis_content import events_at, hash_at, scores_at
from tests.support.shop import SHOP, make_store

LIMITED, EARLY = 6, 10
"""Products with a limit per customer, and with a sale that begins later."""

NEVER_PLACED = 10**6
"""An order id that no order has."""


class ShopMachine(RuleBasedStateMachine):
    """The Stores of two workers on one Redis, and the model. Each machine has its own event loop."""

    def __init__(self, url: str | None, outcomes: Counter[str]) -> None:
        super().__init__()
        self.outcomes = outcomes
        self.no_step_failed = True
        """After a failed step, its error is shown, and not the wrong numbers that follow from it."""
        self.runner = asyncio.Runner()
        self.resources = AsyncExitStack()
        self.folder = Path(self.resources.enter_context(TemporaryDirectory()))
        self.keys_made = 0
        self.clock = Clock()
        self.model = Model(self.clock)
        self.redis = self.run(self.connect(url))
        self.stores = [make_store(self.redis, clock=self.clock) for _ in range(2)]
        self.sweepers = [make_store(self.redis, clock=self.clock) for _ in range(2)]
        """Workers that place no orders: one that finds too many overdue holds would refuse new pending orders."""

    async def connect(self, url: str | None) -> FakeRedis | MultiplexedConnection:
        if url is None:
            fake = FakeRedis()
            self.resources.callback(fake.close)
            return fake
        connection = await self.resources.enter_async_context(
            MultiplexedConnection(url, timeout=10, max_in_flight=10_000)
        )
        await connection.send("FLUSHALL")
        return connection

    def teardown(self) -> None:
        try:
            if self.no_step_failed:
                self.run(self.assert_all_data())
        finally:
            self.run(self.resources.aclose())
            self.runner.close()

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(coroutine)

    def result_of(self, call: Coroutine[Any, Any, Any]) -> Any:
        """Return the result of a Store verb, or the refusal that it raises."""
        return result_or_refusal(lambda: self.run(call))

    def compare(self, call: Coroutine[Any, Any, Any], model_call: Callable[[], object]) -> Any:
        """Assert that Store and model have the same result. Return it."""
        found = self.result_of(call)
        assert_same_result(found, result_or_refusal(model_call))
        return found

    # Products

    @initialize(more=st.lists(st.tuples(prices, stocks), min_size=1, max_size=2))
    def open_the_shop(self, more: list[tuple[int, int]]) -> None:
        for price, stock in [(1999, 30), (700, 100), (MAX_PRICE, MAX_STOCK), *more]:
            self.add_assigned(self.stores[0], "Mug", price, stock)
        # Idempotency-Keys of all requests: of orders, of stock changes, and of each refusal.
        orders: list[tuple[Lines, int | None, int | None]] = [
            *(([(1, 1), (3, 2)], hold, None) for hold in (None, 1, 60, 900)),
            ([(1, 1), (8, 1)], None, None),
            ([(1, 1000)], None, None),
            ([(1, 1)], None, 1),
            ([(3, 1_000_000)], None, None),
        ]
        for lines, hold, total in orders:
            self.place(0, order_request(lines, hold, total), self.fresh_key())
        self.add(0, LIMITED, "Rare", 1000, 30, 2, None)
        self.add(0, EARLY, "Early", 1000, 30, None, 30)
        self.change(0, EARLY, {"on_sale_until": 1}, "any")
        for lines, customer in (
            ([(LIMITED, 2)], None),
            ([(LIMITED, 2)], "anna"),
            ([(LIMITED, 1)], "anna"),
            ([(EARLY, 1)], "ben"),
        ):
            self.place(0, order_request(lines, None, None, customer=customer), self.fresh_key())
        sold, *_, limited = self.model.orders
        held = self.model.in_state("pending")[0]
        full = StockCount(count=MAX_STOCK - self.model.products[3].held, reason="stocktaking")
        self.send_stock_change(0, StockChangeRequest(3, full), None)
        for order_id, lines in (
            (sold, [(1, 1)]),
            (sold, [(3, 1)]),
            (sold, [(3, 9)]),
            (limited, [(LIMITED, 1)]),
            (held, [(1, 1)]),
        ):
            self.send_return(0, ReturnRequest(order_id, return_request(lines, True, None)), self.fresh_key())
        for product_id, change in ((3, -1), (4, 1), (1, -MAX_STOCK), (1, MAX_STOCK), (8, 1)):
            self.send_stock_change(
                0, StockChangeRequest(product_id, StockChange(change=change, reason="restock")), self.fresh_key()
            )

    @action(
        worker=workers,
        chosen_id=ids_to_add,
        name=names,
        price=prices,
        stock=stocks,
        limit=customer_limits,
        start=sale_times,
    )
    def add(
        self,
        worker: int,
        chosen_id: int | None,
        name: str,
        price: int,
        stock: int,
        limit: int | None,
        start: int | None,
    ) -> None:
        if chosen_id is None:
            self.add_assigned(self.stores[worker], name, price, stock)
        else:
            new = product_request(
                name, price, stock, id=chosen_id, limit_per_customer=limit, on_sale_from=self.moment(start)
            )
            self.compare(self.stores[worker].products.add(new), lambda: self.model.add_product(new, chosen_id))

    def moment(self, seconds: int | None) -> str | None:
        """Return the moment so many seconds from now as a request names it."""
        return None if seconds is None else format_timestamp(Milliseconds(self.clock.now + seconds * 1000))

    def add_assigned(self, store: Store, name: str, price: int, stock: int) -> None:
        new = product_request(name, price, stock)
        product = self.result_of(store.products.add(new))
        assert product.id > 0
        assert_same_result(product, result_or_refusal(lambda: self.model.add_product(new, product.id)))

    @action(
        worker=workers,
        product_id=ids,
        changes=st.fixed_dictionaries(
            {},
            optional={
                "name": names,
                "description": names,
                "price": prices,
                "limit_per_customer": customer_limits,
                "on_sale_from": sale_times,
                "on_sale_until": sale_times,
            },
        ),
        expected=expectations,
    )
    def change(self, worker: int, product_id: int, changes: dict[str, Any], expected: str) -> None:
        fields = {**changes, "price": Decimal(format_cents(changes["price"]))} if "price" in changes else {**changes}
        for name in ("on_sale_from", "on_sale_until"):
            if name in fields:
                fields[name] = self.moment(fields[name])
        if fields.get("on_sale_from") and (fields.get("on_sale_until") or "9") <= fields["on_sale_from"]:
            del fields["on_sale_until"]
        change = ProductChange.model_validate(fields)
        versions = self.versions(product_id, expected)
        found = self.compare(
            self.stores[worker].products.change(product_id, change, versions),
            lambda: self.model.change_product(product_id, change, versions),
        )
        self.outcomes[f"change: {outcome_name(found)}"] += 1

    def versions(self, product_id: int, expected: str) -> frozenset[str] | None:
        """Return the catalogue versions that If-Match names."""
        if expected == "any" or product_id not in self.model.products:
            return None
        current = self.model.products[product_id].returned().catalogue_version()
        return frozenset({current if expected == "current" else "0" * 32})

    @action(worker=workers, product_id=ids_to_withdraw, expected=expectations)
    def withdraw(self, worker: int, product_id: int, expected: str) -> None:
        versions = self.versions(product_id, expected)
        found = self.compare(
            self.stores[worker].products.withdraw(product_id, versions),
            lambda: self.model.withdraw_product(product_id, versions),
        )
        self.outcomes[f"withdraw: {outcome_name(found)}"] += 1

    @action(worker=workers, product_id=ids, amount=amounts, reason=reasons, keyed=st.booleans())
    def change_stock(self, worker: int, product_id: int, amount: int | str, reason: str, keyed: bool) -> None:
        change = amount if isinstance(amount, int) else change_by(self.model.products.get(product_id), amount)
        request = StockChangeRequest(product_id, StockChange(change=change, reason=reason))
        self.send_stock_change(worker, request, self.fresh_key() if keyed else None)

    @action(worker=workers, product_id=ids, count=counts, keyed=st.booleans(), expected=expectations)
    def count_stock(self, worker: int, product_id: int, count: int, keyed: bool, expected: str) -> None:
        product = self.model.products.get(product_id)
        stocks = None
        if product is not None and expected != "any":
            stocks = frozenset({product.stock if expected == "current" else product.stock + 1})
        request = StockChangeRequest(product_id, StockCount(count=count, reason="stocktaking"))
        self.send_stock_change(worker, request, self.fresh_key() if keyed else None, stocks)

    # Orders

    @action(worker=workers, orders=orders)
    def place_orders(
        self, worker: int, orders: list[tuple[Lines, str | None, int | None, str | None, str | None, bool]]
    ) -> None:
        for lines, total_kind, hold, customer, reference, keyed in orders:
            new = self.new_order_of(lines, total_kind, hold, customer=customer, reference=reference)
            self.place(worker, new, self.fresh_key() if keyed else None)

    def new_order_of(self, lines: Lines, total_kind: str | None, hold: int | None, **names: str | None) -> NewOrder:
        """Return an order without an expected total, or with the correct total, or with a wrong total."""
        total = None if total_kind is None else 1
        if total_kind is not None and all(product_id in self.model.products for product_id, _ in lines):
            correct = sum(quantity * self.model.products[product_id].price for product_id, quantity in lines)
            total = min(correct + (total_kind == "wrong"), MAX_TOTAL)
        return order_request(lines, hold, total, **names)

    @action(
        worker=workers,
        lines=lines_to_return,
        restock=st.booleans(),
        reason=reasons | st.none(),
        keyed=st.booleans(),
        data=data,
    )
    def return_products(
        self, worker: int, lines: Lines, restock: bool, reason: str | None, keyed: bool, data: st.DataObject
    ) -> None:
        order_id = draw_evenly(data, [*self.model.orders, *self.model.archived, NEVER_PLACED], self.model.state)
        order = self.model.orders.get(order_id)
        new = return_request(lines_of_return(() if order is None else order.lines, lines), restock, reason)
        self.send_return(worker, ReturnRequest(order_id, new), self.fresh_key() if keyed else None)

    @action(calls=calls, data=data)
    def read_or_end_an_order(self, calls: OrderCalls, data: st.DataObject) -> None:
        self.call(calls, draw_evenly(data, [*self.model.orders, *self.model.archived, NEVER_PLACED], self.model.state))

    @action(before_deadline=calls | st.just([]), at_deadline=calls, data=data)
    def read_or_end_an_order_at_its_deadline(
        self, before_deadline: OrderCalls, at_deadline: OrderCalls, data: st.DataObject
    ) -> None:
        held = self.model.in_state("pending")
        if not held:
            return
        order_id = data.draw(st.sampled_from(held), label="order")
        deadline = self.model.orders[order_id].expires_at or 0
        self.clock.now = Milliseconds(deadline - 1)
        self.call(before_deadline, order_id, "a millisecond before its deadline")
        self.clock.now = Milliseconds(deadline)
        self.call(at_deadline, order_id, "at its deadline")

    @action(seconds=st.sampled_from([0, 0.001, 0.5, 1, 59, 900]), forget=st.booleans())
    def time_passes(self, seconds: float, forget: bool) -> None:
        """Let time pass. With `forget`, the engine also loses all scripts, as after a restart."""
        self.clock.forward(seconds)
        if forget and isinstance(self.redis, FakeRedis):
            self.redis.forget_scripts()
        elif forget:
            self.run(flush_scripts(self.redis))

    @action(worker=workers, seconds=st.sampled_from([0, 0, 1, 60, 900]), limit=st.sampled_from([1, 2, 100]))
    def sweep(self, worker: int, seconds: int, limit: int) -> None:
        """Expire overdue orders. The Store chooses the orders and their sequence; the model follows."""
        self.clock.forward(seconds)
        due, held = self.model.in_state("overdue"), self.model.in_state("pending")
        expected = min(limit, len(due))
        due_in = self.result_of(self.sweepers[worker].expired_holds.expire_due(limit))
        events = self.run(events_at(self.redis, keys.events(SHOP)))[len(self.model.events) :]
        expired = [int(event["order"]) for event in events]
        assert len(set(expired)) == len(expired) == expected
        assert set(expired) <= set(due)
        for order_id in expired:
            self.count_return_to_withdrawn(order_id)
            self.model.end(order_id, "expired")
        deadlines = [self.model.orders[order_id].expires_at or 0 for order_id in held]
        if len(due) > expected:
            assert due_in == 0
        else:
            assert due_in == min(((deadline - self.clock.now) / 1000 for deadline in deadlines), default=float("inf"))
        how = "all that are due" if expected == len(due) else "some of those that are due"
        self.outcomes[f"sweep: {how if due else 'none due' if held else 'none held'}"] += 1

    @action(worker=workers, keep=st.sampled_from([0, 60, 900, 900]), age=st.sampled_from([0, 0, 60]))
    def archive(self, worker: int, keep: int, age: int) -> None:
        """Archive the orders that ended long enough ago, always into the same file."""
        before = Milliseconds(self.clock.now - age * 1000)
        limit = min(before, self.clock.now - keep * 1000)
        ended = [id_ for id_, order in self.model.orders.items() if (order.ended_at or limit) < limit]
        with ArchiveFile(self.folder / "orders.jsonl", SHOP) as file:
            report = self.run(archive(self.stores[worker], SHOP, file, before, keep * 1000))
        assert (report.archived, report.changed, report.damaged, report.events) == (len(ended), 0, 0, 0)
        events = self.run(events_at(self.redis, keys.events(SHOP)))[len(self.model.events) :]
        batches = [[int(row.split()[0]) for row in event["orders"].split("\n")] for event in events]
        assert [order_id for batch in batches for order_id in batch] == sorted(ended)
        for batch in batches:
            self.model.archive(batch)
        self.outcomes["archive: some orders"] += bool(ended)
        self.outcomes["archive: no order"] += not ended

    # Repeats

    @action(
        repeats=st.lists(st.tuples(workers, st.sampled_from(REPETITIONS), st.integers(0, 2)), min_size=2, max_size=5),
        data=data,
    )
    def repeat_keys(self, repeats: list[tuple[int, str, int]], data: st.DataObject) -> None:
        for worker, repetition, variant in repeats:
            key, customer = draw_evenly(data, list(self.model.keys), self.replay_outcome)
            request = repeated(self.model.keys[key, customer].first, repetition, variant)
            match request:
                case StockChangeRequest():
                    self.send_stock_change(worker, request, key)
                case ReturnRequest():
                    self.send_return(worker, request, key)
                case _:
                    self.place(worker, request, key)

    # Pages

    @action(worker=workers, product_id=ids, limit=limits, in_stock=st.sampled_from([None, "true", "false"]))
    def read_products(self, worker: int, product_id: int, limit: int, in_stock: str | None) -> None:
        self.compare(self.stores[worker].products.get(product_id), lambda: self.model.get_product(product_id))
        fields = {"limit": str(limit), **({} if in_stock is None else {"in_stock": in_stock})}
        found: list[str] = []
        after = 0
        while True:
            query = ProductsQuery.model_validate({**fields, "after": str(after)})
            page, next_after = self.run(self.stores[worker].products.list(query))
            assert len(page) <= limit
            found += [product.json for product in page]
            if next_after is None:
                break
            assert next_after > after
            after = next_after
        expected = self.model.list_products(None if in_stock is None else in_stock == "true")
        assert found == [product.json() for product in expected]

    @action(
        worker=workers,
        limit=limits,
        status=st.sampled_from([None, "pending", "pending", "completed"]),
        customer=customers | st.none(),
        reference=references,
    )
    def page_through_orders(
        self, worker: int, limit: int, status: str | None, customer: str | None, reference: str | None
    ) -> None:
        given = {"status": status, "customer": customer, "reference": reference}
        fields = {"limit": str(limit), **{name: value for name, value in given.items() if value is not None}}
        found = []
        while True:
            page, before = self.run(self.stores[worker].orders.list(OrdersQuery.model_validate(fields)))
            assert len(page) <= limit
            found += page
            if before is None:
                break
            assert before < int(fields.get("before", before + 1))
            fields["before"] = str(before)
        expected = self.model.list_orders(status, customer, reference)
        assert [order.json for order in found] == [order.json() for order in expected]
        self.outcomes["page of a customer"] += bool(found and customer)
        self.outcomes["page of a reference"] += bool(found and reference)
        if customer or reference:
            return
        page_kind = f"page of {status or 'all'} orders"
        self.outcomes[page_kind] += bool(found)
        self.outcomes[f"{page_kind}: without overdue orders"] += bool(self.model.in_state("overdue"))

    @rule(step=st.deferred(lambda: st.one_of(actions)))
    def act(self, step: tuple[str, dict[str, Any]]) -> None:
        method, arguments = step
        self.no_step_failed = False
        getattr(self, method)(**arguments)
        self.no_step_failed = True

    # What must be true after every step

    @invariant()
    def stock_and_holds_are_those_of_the_model(self) -> None:
        self.no_step_failed = False
        self.run(self.assert_stock_and_holds())
        self.no_step_failed = True

    async def assert_stock_and_holds(self) -> None:
        """Compare what is quick to read: products, holds, and the number of events."""
        products = list(self.model.products.values())
        held = [order for order in self.model.orders.values() if order.status == "pending"]
        fields, holds, pending, events = await asyncio.gather(
            asyncio.gather(*(hash_at(self.redis, keys.product(SHOP, product.id)) for product in products)),
            scores_at(self.redis, keys.holds(SHOP)),
            scores_at(self.redis, keys.pending(SHOP)),
            self.redis.send("XLEN", keys.events(SHOP)),
        )
        assert fields == [product.fields() for product in products]
        assert holds == {str(order.id): order.expires_at for order in held}
        assert pending == {str(order.id): order.id for order in held}
        assert events == len(self.model.events)

    async def assert_all_data(self) -> None:
        """Compare every field of all products, orders and events. The audit must find nothing."""
        contents = await assert_balanced(self.redis)
        assert contents.products == {product.id: product.fields() for product in self.model.products.values()}
        assert contents.orders == {order.id: order.fields() for order in self.model.orders.values()}
        for customer, units in self.model.units_of.items():
            found = await hash_at(self.redis, keys.customer(SHOP, customer))
            archived = self.model.archived_units_of.get(customer, {})
            assert found == {
                **{str(product_id): str(number) for product_id, number in units.items()},
                **{f"archived:{product_id}": str(number) for product_id, number in archived.items() if number},
            }
        lines = path.read_text().splitlines() if (path := self.folder / "orders.jsonl").exists() else []
        assert sorted(json.loads(line)["id"] for line in lines) == sorted(self.model.archived)
        report = await audit(self.stores[0], SHOP)
        assert report.findings == []
        assert (report.products, report.orders, report.pending, report.archived) == (
            len(contents.products),
            len(contents.orders),
            contents.statuses()["pending"],
            len(self.model.archived),
        )
        events = await events_at(self.redis, keys.events(SHOP))
        assert events == self.model.events
        assert units_from_events(events) == contents.units
        self.outcomes.update(f"event: {event['event']}" for event in events)

    # Steps that several actions share

    def call(self, calls: OrderCalls, order_id: int, when: str = "") -> None:
        """Make the calls about one order, one after the other."""
        for worker, verb in calls:
            store, state = self.stores[worker], self.model.state(order_id)
            self.outcomes[f"{verb} {state}"] += 1
            if state in ("pending", "overdue") and when:
                self.outcomes[f"{verb} {state}, {when}"] += 1
            match verb:
                case "get":
                    self.compare(store.orders.get(order_id), lambda: self.model.get_order(order_id))
                case "complete":
                    self.compare(store.holds.complete(order_id), lambda: self.model.complete_order(order_id))
                case "cancel":
                    if state in ("pending", "overdue"):
                        self.count_return_to_withdrawn(order_id)
                    self.compare(store.holds.cancel(order_id), lambda: self.model.cancel_order(order_id))
                case "extend":
                    extension = HoldExtension(hold_seconds=(1, 60, 900, 86_400)[order_id % 4])
                    self.compare(
                        store.holds.extend(order_id, extension),
                        partial(self.model.extend_hold, order_id, extension),
                    )

    def replay_outcome(self, key: tuple[str, str | None]) -> str:
        """Return the outcome of repeating the request of this key."""
        known = self.model.keys[key]
        if isinstance(known.outcome, Refusal):
            return outcome_name(known.outcome)
        if isinstance(known.first, NewOrder):
            return self.model.state(known.outcome)
        if isinstance(known.first, ReturnRequest):
            return "returned"
        return "on sale" if self.model.products[known.outcome].on_sale else "withdrawn"

    def fresh_key(self) -> str:
        self.keys_made += 1
        return f"k-{self.keys_made}"

    def place(self, worker: int, new: NewOrder, key: str | None) -> None:
        found = self.result_of(self.stores[worker].orders.place(new, key))
        order_id = found.order.id if isinstance(found, PlacedOrder) else 0
        known = None if key is None else self.model.keys.get((key, new.customer))
        assert_same_result(found, result_or_refusal(lambda: self.model.place_order(new, key, order_id)))
        self.count_outcome("place", outcome_name(found), key, new.customer, known, found)

    def send_stock_change(
        self, worker: int, request: StockChangeRequest, key: str | None, expected: frozenset[int] | None = None
    ) -> None:
        known = None if key is None else self.model.keys.get((key, None))
        change = request.stock_change
        found = self.compare(
            self.stores[worker].stock.change(request.product_id, change, key, expected),
            lambda: self.model.change_stock(request.product_id, change, key, expected),
        )
        outcome = "on sale" if isinstance(found, ChangedStock) else outcome_name(found)
        self.count_outcome("change stock", outcome, key, None, known, found)
        if known is None and isinstance(found, StockLimitExceeded) and isinstance(change, StockChange):
            self.outcomes["change stock: StockLimitExceeded only because of held units"] += (
                found.stock + change.change <= MAX_STOCK
            )

    def send_return(self, worker: int, request: ReturnRequest, key: str | None) -> None:
        order = self.model.orders.get(request.order_id)
        customer = None if order is None else order.customer
        known = None if key is None or order is None else self.model.keys.get((key, customer))
        new: NewReturn = request.new_return
        found = self.compare(
            self.stores[worker].returns.make(request.order_id, new, key),
            lambda: self.model.return_products(request.order_id, new, key),
        )
        outcome = "returned" if isinstance(found, ReturnedOrder) else outcome_name(found)
        self.count_outcome("return", outcome, key, customer, known, found)

    def count_outcome(
        self, verb: str, outcome: str, key: str | None, customer: str | None, known: ModelKey | None, found: object
    ) -> None:
        """Count the outcome of a call. `known`: what the model knew of the key before the call."""
        if key is None or known is None:
            self.outcomes[f"{verb}: {outcome}"] += 1
        elif isinstance(found, IdempotencyKeyReused):
            owners = {StockChangeRequest: "a stock change", ReturnRequest: "a return"}
            self.outcomes[f"{verb}: key of {owners.get(type(known.first), 'an order')}"] += 1
        else:
            self.outcomes[f"{verb} again: {self.replay_outcome((key, customer))}"] += 1

    def count_return_to_withdrawn(self, order_id: int) -> None:
        """Count it if the stock of this order returns to a withdrawn product."""
        lines = self.model.orders[order_id].lines
        returns = any(not self.model.products[line.product_id].on_sale for line in lines)
        self.outcomes["stock returned to a withdrawn product"] += returns


async def flush_scripts(connection: MultiplexedConnection) -> None:
    await connection.send("SCRIPT", "FLUSH")
