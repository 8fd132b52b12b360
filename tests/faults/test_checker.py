"""The checker finds each kind of violation in a history that is right but for one thing. Its mutants fit the code."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.faults.checker import CHECKS, State, violations
from tests.faults.faults import ALL
from tests.faults.history import Attempt, FaultRecord, History
from tests.faults.mutants import MUTANTS
from tests.faults.patches import CHECKOUT, Safeguard
from tests.faults.safeguards import SAFEGUARDS
from tests.faults.world import HEALTHY_SECONDS

AT = 1_795_656_145_000
TEXT = "2026-11-26T01:22:25.000+00:00"


def order(order_id: int, reference: str, **fields: Any) -> dict[str, Any]:
    """Return the answer about an order of one unit of the product 1."""
    lines = [{"product_id": 1, "quantity": 1, "price": 1.0}]
    answer = {"id": order_id, "products": lines, "total_price": 1.0, "status": "completed", "created_at": TEXT}
    return {**answer, "reference": reference, "customer": "anna", **fields}


def row(order_id: int, reference: str, status: str = "completed", **fields: str) -> dict[str, str]:
    """Return the same order as it is in Redis."""
    hash_ = {"id": str(order_id), "status": status, "total_price": "1.00", "products": "1: 1 x 1.00"}
    return {**hash_, "created_at": str(AT), "reference": reference, "customer": "anna", **fields}


def placed(order_id: int, **fields: str) -> tuple[int, dict[str, str]]:
    event = {"event": "order_placed", "order": str(order_id), "products": "1: 1 x 1.00", "customer": "anna"}
    return AT, {**event, **fields}


def add(history: History, kind: str, path: str, *answers: tuple[int | None, Any], **fields: Any) -> None:
    operation = history.begin(0, kind, "POST", path, **fields)
    operation.attempts = [Attempt(1.0, 2.0, status, answer) for status, answer in answers]


def problem(name: str) -> dict[str, str]:
    return {"type": f"/problems/{name}"}


def run() -> tuple[History, State]:
    """Return a history without a violation, and its state: six operations of Anna, who has one unit at the end."""
    history = History()
    body = {"products": [{"product_id": 1, "quantity": 1}], "customer": "anna"}
    first = {**body, "reference": "op-1"}
    add(history, "place", "/orders", (None, "TimeoutError"), (201, order(1, "op-1")), body=first, key="k")
    add(history, "repeat", "/orders", (201, order(1, "op-1")), body=first, key="k", of=1)
    second = {**body, "reference": "op-3", "status": "pending", "hold_seconds": 2}
    pending = order(2, "op-3", status="pending", expires_at=TEXT)
    add(history, "place", "/orders", (201, pending), body=second)
    add(history, "cancel", "/orders/2", (204, None))
    add(history, "move", "/products/1/stock", (503, problem("outcome-unknown")), body={"change": 5, "reason": "op-5"})
    add(history, "price", "/products/1", (200, {}), body={"price": 1.06})
    product = {"stock": "9", "held": "0", "sold": "1", "received": "10", "price": "1.06"}
    state = State(
        now_ms=AT + 10_000,
        products={1: product},
        orders={
            1: row(1, "op-1", idempotency_key="k"),
            2: row(2, "op-3", "cancelled", expires_at=str(AT + 2000)),
        },
        customers={"anna": {"1": "1"}},
        events=[
            (AT, {"event": "product_added", "product": "1", "stock": "10"}),
            placed(1),
            placed(2),
            (AT + 1, {"event": "order_cancelled", "order": "2", "products": "1: 1 x 1.00", "customer": "anna"}),
            (AT + 1, {"event": "product_changed", "product": "1", "price": "1.06"}),
        ],
        listed={1: "completed"},
    )
    return history, state


def test_a_right_history_has_no_violations() -> None:
    assert violations(*run()) == {}


def an_invented_error(history: History, state: State) -> None:
    add(history, "read", "/orders/1", (500, problem("internal-error")))


def a_lost_order(history: History, state: State) -> None:
    del state.orders[1]


def another_content(history: History, state: State) -> None:
    state.orders[1]["products"] = "1: 2 x 1.00"


def an_id_of_two_orders(history: History, state: State) -> None:
    history.operations[2].attempts[0].answer["id"] = 1


def two_effects(history: History, state: State) -> None:
    moved = {"event": "stock_moved", "product": "1", "change": "5", "reason": "op-5", "stock": "14"}
    state.events += [(AT, moved), (AT, moved)]


def an_effect_of_a_refused_request(history: History, state: State) -> None:
    history.operations[2].attempts[0] = Attempt(1.0, 2.0, 409, problem("insufficient-stock"))


def an_effect_of_a_request_that_did_nothing(history: History, state: State) -> None:
    history.operations[2].attempts[0] = Attempt(1.0, 2.0, 503, problem("storage-unavailable"))


def a_key_with_two_orders(history: History, state: State) -> None:
    state.orders[2]["idempotency_key"] = "k"


def a_repeated_key_with_another_result(history: History, state: State) -> None:
    history.operations[1].attempts[0] = Attempt(1.0, 2.0, 409, problem("insufficient-stock"))


def two_ends(history: History, state: State) -> None:
    add(history, "complete", "/orders/2", (200, order(2, "op-3")))


def an_end_that_no_client_wanted(history: History, state: State) -> None:
    history.operations[3].kind = "read"


def an_overdue_hold(history: History, state: State) -> None:
    state.orders[2]["status"] = "pending"


def completed_too_late(history: History, state: State) -> None:
    state.orders[2].update(status="completed", completed_at=str(AT + 2001))


def expired_too_early(history: History, state: State) -> None:
    state.events[3][1]["event"] = "order_expired"


def a_lost_unit(history: History, state: State) -> None:
    state.products[1]["stock"] = "8"


def too_many_for_a_customer(history: History, state: State) -> None:
    state.events[1][1]["products"] = "1: 5 x 1.00"


def more_sold_than_there_is(history: History, state: State) -> None:
    state.events[0][1]["stock"] = "1"


def a_wrong_count_of_a_customer(history: History, state: State) -> None:
    state.customers["anna"] = {"1": "2"}


def a_lost_price(history: History, state: State) -> None:
    state.products[1]["price"] = "1.00"


def an_order_that_is_not_listed(history: History, state: State) -> None:
    state.listed.clear()


def confirmed_by_an_unsafe_redis(history: History, state: State) -> None:
    history.faults.append(FaultRecord("eviction", 0.1, undone=3.0, unsafe_from=0.5))


def not_healthy(history: History, state: State) -> None:
    history.faults.append(FaultRecord("kill_engine", 0.1, undone=3.0, healthy=HEALTHY_SECONDS + 1))


def a_finding_of_the_audit(history: History, state: State) -> None:
    state.audit = "the product 1 is wrong"


def a_traceback(history: History, state: State) -> None:
    state.log.append("Traceback")


@pytest.mark.parametrize(
    ("change", "check"),
    [
        (an_invented_error, "expected_answers"),
        (a_lost_order, "acknowledged_orders"),
        (another_content, "acknowledged_orders"),
        (an_id_of_two_orders, "acknowledged_orders"),
        (two_effects, "one_effect"),
        (an_effect_of_a_refused_request, "one_effect"),
        (an_effect_of_a_request_that_did_nothing, "one_effect"),
        (a_key_with_two_orders, "one_order_per_key"),
        (a_repeated_key_with_another_result, "same_result"),
        (two_ends, "one_end"),
        (an_end_that_no_client_wanted, "one_end"),
        (an_overdue_hold, "deadlines"),
        (completed_too_late, "deadlines"),
        (expired_too_early, "deadlines"),
        (a_lost_unit, "conservation"),
        (too_many_for_a_customer, "never_oversold"),
        (more_sold_than_there_is, "never_oversold"),
        (a_wrong_count_of_a_customer, "customer_counts"),
        (a_lost_price, "prices"),
        (an_order_that_is_not_listed, "list_over_http"),
        (confirmed_by_an_unsafe_redis, "unsafe_redis"),
        (not_healthy, "healthy_again"),
        (a_finding_of_the_audit, "audit_is_clean"),
        (a_traceback, "log_is_clean"),
    ],
)
def test_each_kind_of_violation_is_found(change: Callable[[History, State], None], check: str) -> None:
    history, state = run()
    change(history, state)
    assert check in violations(history, state)


@pytest.mark.parametrize(("ended", "is_missing"), [(True, False), (False, True)], ids=["overdue", "not overdue"])
def test_a_pending_order_must_be_listed_unless_it_is_overdue(ended: bool, is_missing: bool) -> None:
    history, state = run()
    expires_at = state.now_ms - 1 if ended else state.now_ms + 1000
    state.orders[95] = row(95, "op-95", status="pending", expires_at=str(expires_at))
    assert ("list_over_http" in violations(history, state)) == is_missing


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name.replace(" ", "-"))
def test_a_mutant_fits_the_code(mutant: Any) -> None:
    for patch in mutant.patches:
        assert (CHECKOUT / patch.file).read_text().count(patch.right) == 1
    assert mutant.caught_by in CHECKS
    assert set(mutant.faults) <= ALL.keys()


@pytest.mark.parametrize("safeguard", SAFEGUARDS, ids=lambda safeguard: safeguard.name.replace(" ", "-"))
def test_a_broken_safeguard_fits_the_code_and_names_a_test(safeguard: Safeguard) -> None:
    for patch in safeguard.patches:
        assert (CHECKOUT / patch.file).read_text().count(patch.right) == 1
    file, _, name = safeguard.caught_by.partition("::")
    assert f"def {name.partition('[')[0]}(" in (CHECKOUT / file).read_text()


def test_each_mutant_has_a_name_of_its_own() -> None:
    names = [each.name for each in (*MUTANTS, *SAFEGUARDS)]
    assert len(set(names)) == len(names)
