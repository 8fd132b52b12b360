"""Compares what clients were told with what is there at the end. Pure functions; each check has a name."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from tests.faults.history import History
from tests.faults.workload import LIMITS
from tests.faults.world import HEALTHY_SECONDS
from tests.support.balance import order_lines, units_of_text

MARGIN_MS: Final = 2000
"""By so much may the release of an overdue hold be late."""


@dataclass
class State:
    """What is there at the end: everything in Redis, what HTTP shows, and what the audit and the log say."""

    now_ms: int
    products: dict[int, dict[str, str]]
    orders: dict[int, dict[str, str]]
    customers: dict[str, dict[str, str]]
    events: list[tuple[int, dict[str, str]]]
    """Each with its time in ms."""
    listed: dict[int, str]
    """The status of each order in the list over HTTP."""
    audit: str = ""
    """What the audit found, empty if nothing."""
    log: list[str] = field(default_factory=list)
    """Lines that must not be in the log."""
    events_have_one_clock: bool = True
    """False: they are of several partitions, and the clocks were changed. Then their times do not give a sequence."""
    reads_are_confirmed: bool = True
    """False: what a read showed may be lost with the primary (docs/operations.md, HOLDFAST_WAIT_REPLICAS)."""

    def events_of(self, kind: str) -> Iterator[dict[str, str]]:
        return (event for _, event in self.events if event["event"] == kind)


_ENDS: Final = {"order-completed": "completed", "order-cancelled": "cancelled", "order-expired": "expired"}
_PLACED: Final = frozenset({"insufficient-stock", "price-changed", "customer-limit", "customer-required"})
_GONE: Final = frozenset({"order-cancelled", "order-expired"})
_EXPECTED: Final[dict[str, frozenset[str]]] = {
    "place": _PLACED | _GONE,  # gone: it was placed, and has ended before the client knew
    "repeat": _PLACED | _GONE,
    "reuse": frozenset({"idempotency-key-reused"}),
    "complete": _GONE,
    "cancel": frozenset({"order-completed", "order-expired"}),
    "extend": _GONE | {"order-completed"},
    "give_back": _GONE | {"order-pending", "return-exceeds-order"},
    "move": frozenset({"insufficient-stock"}),
    "price": frozenset(),
    "read": _GONE,
}
"""The refusals that are possible for each kind of operation. Further answers: 2xx, and 503."""


def expected_answers(history: History, state: State) -> Iterator[str]:
    """No answer is an invented one: no 500, and no refusal that cannot be."""
    for operation, attempt in history.attempts():
        known = _EXPECTED[operation.kind] | {"storage-unavailable", "overloaded", "outcome-unknown"}
        if attempt.problem is not None and attempt.problem not in known:
            yield f"{operation.name} {operation.kind}: {attempt.status} {attempt.answer}"
        if operation.kind == "reuse" and attempt.is_done:
            yield f"{operation.name}: the key of another request was accepted"


def acknowledged_orders(history: History, state: State) -> Iterator[str]:
    """Each acknowledged order is there with its content, and each id belongs to one operation."""
    owner: dict[int, int] = {}
    for operation, attempt in history.attempts():
        if operation.kind not in ("place", "repeat") or not attempt.is_done:
            continue
        answer, first = attempt.answer, operation.of or operation.number
        if owner.setdefault(answer["id"], first) != first:
            yield f"the order {answer['id']} belongs to op-{first} and op-{owner[answer['id']]}"
        row = state.orders.get(answer["id"])
        if row is None:
            yield f"{operation.name}: the order {answer['id']} is lost"
            continue
        lines = [(line["product_id"], line["quantity"], round(line["price"] * 100)) for line in answer["products"]]
        wanted = [(line["product_id"], line["quantity"]) for line in operation.body["products"]]
        asked = (row.get("reference"), row.get("customer"), row.get("idempotency_key"))
        if order_lines(row["products"]) != lines or [line[:2] for line in lines] != wanted:
            yield f"{operation.name}: the order {answer['id']} has {row['products']!r}, the answer {lines}"
        if asked != (f"op-{first}", operation.body.get("customer"), operation.key):
            yield f"{operation.name}: the order {answer['id']} is that of {asked}"
        if round(answer["total_price"] * 100) != sum(quantity * price for _, quantity, price in lines):
            yield f"{operation.name}: the total of the order {answer['id']} is wrong"
        if f"{answer['total_price']:.2f}" != row["total_price"] or _ms(answer["created_at"]) != int(row["created_at"]):
            yield f"{operation.name}: the order {answer['id']} has another total or time: {row}"


def one_effect(history: History, state: State) -> Iterator[str]:
    """Each operation takes effect once if it was confirmed, never if it was refused, and never twice."""
    effects = {
        "place": Counter(row.get("reference", "") for row in state.orders.values()),
        "move": Counter(event["reason"] for event in state.events_of("stock_moved")),
        "give_back": Counter(event.get("reason", "") for event in state.events_of("order_returned")),
    }
    effects["reuse"] = effects["place"]
    for operation in history.operations:
        if operation.kind not in effects:
            continue
        count, outcome = effects[operation.kind][operation.name], operation.outcome
        if count > 1 or (outcome == "done") > count or (count and outcome in ("refused", "nothing")):
            yield f"{operation.name} {operation.kind} was answered as {outcome!r}, and took effect {count} times"


def one_order_per_key(history: History, state: State) -> Iterator[str]:
    """No Idempotency-Key of a customer has two orders."""
    keys = Counter(
        (row.get("customer"), row["idempotency_key"]) for row in state.orders.values() if "idempotency_key" in row
    )
    yield from (f"{key} has {count} orders" for key, count in keys.items() if count > 1)


def same_result(history: History, state: State) -> Iterator[str]:
    """A repeated key gets the order or the refusal of the first request."""
    for operation in history.operations:
        if operation.kind != "repeat":
            continue
        first = history.operations[(operation.of or 0) - 1]
        for attempt in operation.attempts:
            if first.placed_id and attempt.is_known:
                order = attempt.answer if attempt.is_done else attempt.answer.get("order", {})
                if order.get("id") != first.placed_id:
                    yield f"{operation.name} repeats {first.name}, and got {attempt.status} {attempt.answer}"
            elif attempt.is_known and attempt.problem != first.attempts[-1].problem:
                yield f"{operation.name} repeats {first.name}, which was refused, and got {attempt.answer}"


def one_end(history: History, state: State) -> Iterator[str]:
    """Each order ends once: all answers name the same end, it is the end in Redis, and somebody wanted it."""
    # If the clock of Redis is set back before an overdue hold is released, an order that was only read as expired is
    # pending again (docs/guarantees.md).
    steps = [fault for fault in history.faults if fault.name == "step_clocks" and fault.undone is not None]
    told: dict[int, set[str]] = defaultdict(set)
    tried: set[tuple[int, str]] = set()
    for operation, attempt in history.attempts():
        order_id = operation.order_id
        answer = attempt.answer if isinstance(attempt.answer, dict) else {}
        if order_id is None and operation.kind in ("place", "repeat"):
            order_id = answer.get("id") or answer.get("order", {}).get("id")
        if order_id is None:
            continue
        if operation.kind == "complete":
            tried.add((order_id, "completed"))
        elif operation.kind == "cancel":
            tried.add((order_id, "cancelled"))
        elif operation.kind in ("read", "repeat") and not state.reads_are_confirmed:
            continue
        is_read = operation.kind in ("read", "repeat", "place")
        if (
            is_read
            and attempt.problem == "order-expired"
            and any(step.began - MARGIN_MS / 1000 < (attempt.answered or 0) < (step.undone or 0) for step in steps)
        ):
            continue
        if attempt.problem in _ENDS:
            told[order_id].add(_ENDS[attempt.problem])
        elif attempt.is_done and (operation.kind in ("complete", "give_back") or answer.get("status") == "completed"):
            told[order_id].add("completed")
        elif attempt.is_done and operation.kind == "cancel":
            told[order_id].add("cancelled")
    for order_id, ends in told.items():
        found = state.orders.get(order_id, {}).get("status")
        if ends != {found}:
            yield f"the order {order_id} is {found}, and clients were told {sorted(ends)}"
    for order_id, row in state.orders.items():
        was_pending = "completed_at" in row or row["status"] == "cancelled"
        if was_pending and (order_id, row["status"]) not in tried:
            yield f"the order {order_id} is {row['status']}, which no client wanted"


def deadlines(history: History, state: State) -> Iterator[str]:
    """No order is pending past its deadline, or completed after it, or expired before it; extensions are there."""
    deadline: dict[int, int] = {}
    extended: dict[int, set[int]] = defaultdict(set)
    for operation in history.operations:
        if operation.kind == "place" and operation.done and "hold_seconds" in operation.body:
            answer = operation.done.answer
            deadline[answer["id"]] = _ms(answer["created_at"]) + operation.body["hold_seconds"] * 1000
    for event in state.events_of("order_extended"):
        deadline[int(event["order"])] = int(event["expires_at"])
        extended[int(event["order"])].add(int(event["expires_at"]))
    for operation in history.operations:
        if operation.kind == "extend" and operation.done:
            answer = operation.done.answer
            if _ms(answer["expires_at"]) not in extended[answer["id"]]:
                yield f"{operation.name}: the extension of the order {answer['id']} is lost"
    for order_id, row in state.orders.items():
        if row["status"] == "pending" and int(row["expires_at"]) < state.now_ms - MARGIN_MS:
            yield f"the order {order_id} is pending {state.now_ms - int(row['expires_at'])} ms after its deadline"
        if int(row.get("completed_at", 0)) > deadline.get(order_id, 1 << 60):
            yield f"the order {order_id} was completed after its deadline"
    for at, event in state.events:
        if event["event"] == "order_expired" and at < deadline.get(int(event["order"]), 0):
            yield f"the order {event['order']} expired {deadline[int(event['order'])] - at} ms too early"


def conservation(history: History, state: State) -> Iterator[str]:
    """For each product, received = stock + held + sold, and these are the sums over orders and events."""
    held, sold, lost, received = (Counter[int]() for _ in range(4))
    for row in state.orders.values():
        if row["status"] in ("pending", "completed"):
            units = held if row["status"] == "pending" else sold
            for product, quantity, _ in order_lines(row["products"]):
                units[product] += quantity
            sold.subtract(units_of_text(row.get("returned")))
            lost.update(units_of_text(row.get("written_off")))
    for event in (*state.events_of("product_added"), *state.events_of("stock_moved")):
        received[int(event["product"])] += int(event.get("change", event["stock"]))
    received.subtract(lost)
    for product, row in state.products.items():
        found = {name: int(row[name]) for name in ("stock", "held", "sold", "received")}
        expected = {"held": held[product], "sold": sold[product], "received": received[product]}
        expected["stock"] = received[product] - held[product] - sold[product]
        if found != expected or found["stock"] < 0:
            yield f"the product {product} has {found}; orders and events say {expected}"


def never_oversold(history: History, state: State) -> Iterator[str]:
    """At each event, no stock is below 0, and no customer has more than the limit."""
    stock: Counter[int] = Counter()
    units: Counter[tuple[str, int]] = Counter()
    signs = {"order_placed": 1, "order_cancelled": -1, "order_expired": -1, "order_returned": -1}
    for _, event in state.events:
        if event["event"] in ("product_added", "stock_moved"):
            stock[int(event["product"])] += int(event.get("change", event["stock"]))
        sign = signs.get(event["event"], 0)
        for product, quantity, _ in order_lines(event["products"]) if sign else ():
            stock[product] -= sign * quantity if event.get("restock") != "0" else 0
            units[event.get("customer", ""), product] += sign * quantity
            if stock[product] < 0 and state.events_have_one_clock:
                yield f"the stock of the product {product} is {stock[product]} after {event}"
            if "customer" in event and units[event["customer"], product] > LIMITS.get(product, 1 << 30):
                yield f"{event['customer']} has {units[event['customer'], product]} of the product {product}: {event}"


def customer_counts(history: History, state: State) -> Iterator[str]:
    """What each customer has is the sum over the orders."""
    counts: dict[str, Counter[int]] = defaultdict(Counter)
    for row in state.orders.values():
        if "customer" in row and row["status"] in ("pending", "completed"):
            for product, quantity, _ in order_lines(row["products"]):
                counts[row["customer"]][product] += quantity
            counts[row["customer"]].subtract(units_of_text(row.get("returned")))
    for customer in counts.keys() | state.customers.keys():
        expected = {product: number for product, number in counts[customer].items() if number}
        found = {int(product): int(number) for product, number in state.customers.get(customer, {}).items()}
        if found != expected:
            yield f"{customer} has {found} in Redis; the orders say {expected}"


def prices(history: History, state: State) -> Iterator[str]:
    """Each confirmed price was set, and each product has the last price of its events."""
    events = [event for event in state.events_of("product_changed") if "price" in event]
    last = {int(event["product"]): event["price"] for event in events}
    for product, price in last.items():
        if state.products[product]["price"] != price:
            yield f"the product {product} costs {state.products[product]['price']}, and the last event says {price}"
    found = {event["price"] for event in events}
    for operation in history.operations:
        if operation.kind == "price" and operation.done and f"{operation.body['price']:.2f}" not in found:
            yield f"{operation.name}: the price {operation.body['price']} is lost"


def list_over_http(history: History, state: State) -> Iterator[str]:
    """The list over HTTP shows the pending and completed orders that are in Redis. An overdue order may be missing."""
    expected = {id_: row["status"] for id_, row in state.orders.items() if row["status"] in ("pending", "completed")}
    overdue = {
        id_
        for id_, row in state.orders.items()
        if row["status"] == "pending" and int(row["expires_at"]) <= state.now_ms
    }
    for order_id in (expected.keys() ^ state.listed.keys()) - overdue:
        if state.listed.get(order_id) != "pending":  # it may expire between the two looks
            yield f"the order {order_id}: {expected.get(order_id)} in Redis, {state.listed.get(order_id)} in the list"


def unsafe_redis(history: History, state: State) -> Iterator[str]:
    """While the settings of Redis are unsafe, nothing is confirmed."""
    for fault in history.faults:
        if fault.unsafe_from is None or fault.undone is None:
            continue
        for operation, attempt in history.attempts():
            answered = fault.undone if attempt.answered is None else attempt.answered
            if attempt.is_done and fault.unsafe_from < attempt.sent and answered < fault.undone:
                yield f"{operation.name} was confirmed during {fault.name}"
                break


def healthy_again(history: History, state: State) -> Iterator[str]:
    """After each fault, all workers work again soon."""
    for fault in history.faults:
        if fault.healthy is not None and fault.healthy > HEALTHY_SECONDS:
            yield f"{fault.healthy:.1f} s passed after {fault.name} until the service was healthy"


def audit_is_clean(history: History, state: State) -> Iterator[str]:
    """`holdfast audit` finds nothing."""
    if state.audit:
        yield state.audit


def log_is_clean(history: History, state: State) -> Iterator[str]:
    """The log has no traceback, and no order id was used twice."""
    yield from state.log


Check = Callable[[History, State], Iterable[str]]
CHECKS: Final[dict[str, Check]] = {
    check.__name__: check
    for check in (
        *(expected_answers, acknowledged_orders, one_effect, one_order_per_key, same_result, one_end, deadlines),
        *(conservation, never_oversold, customer_counts, prices, list_over_http),
        *(unsafe_redis, healthy_again, audit_is_clean, log_is_clean),
    )
}


def violations(history: History, state: State) -> dict[str, list[str]]:
    """Return what each check found, without those that found nothing."""
    found = {name: list(check(history, state)) for name, check in CHECKS.items()}
    return {name: texts for name, texts in found.items() if texts}


def _ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)


def summary(history: History) -> dict[str, Any]:
    """Return the figures of a run."""
    answers = Counter(str(attempt.problem or attempt.status or attempt.answer) for _, attempt in history.attempts())
    return {
        "operations": len(history.operations),
        "requests": sum(len(operation.attempts) for operation in history.operations),
        "outcomes": dict(Counter(operation.outcome for operation in history.operations)),
        "answers": dict(answers.most_common()),
        "faults": len(history.faults),
        "longest_until_healthy": max((fault.healthy or 0 for fault in history.faults), default=0),
    }
