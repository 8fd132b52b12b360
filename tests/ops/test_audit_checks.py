"""service/ops/audit_checks.py: rows that scripts can write have no findings; each changed field has a finding."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.limits import MAX_LINES, MAX_PRICE
from service.domain.money import Cents, format_cents
from service.domain.order import Order, OrderLine
from service.domain.times import Milliseconds
from service.ops.audit_checks import check_indexed_order, check_order, check_product, lines_of
from service.ops.audit_keys import check_members, check_names, check_type, expected_types
from service.ops.audit_report import Finding
from service.ops.ledger import Units
from service.storage.inspection import OrderRow, ProductRow, Unreadable
from service.storage.sender import CommandSender
from tests.support.orders import order_hash, order_lines, orders
from tests.support.products import product_hash
from tests.support.shop import SHOP, make_store

INDEX, HOLDS, PENDING = "{test}:products", "{test}:holds", "{test}:pending"
DEADLINE = "1700000900000"


def order_row(
    order: Order, holds_score: str | None = None, pending_score: str | None = None, **fields: str
) -> OrderRow:
    """Return the row of an order. `fields` replace fields of its hash."""
    values = {**order_hash(order, **fields), "holds_score": holds_score, "pending_score": pending_score}
    return OrderRow(**{name: values.get(name) for name in OrderRow._fields})


def product_row(product_id: int, index_score: str | None, **fields: Any) -> ProductRow:
    """Return the row of `product_hash(product_id, **fields)`."""
    values = {**product_hash(product_id, **fields), "index_score": index_score}
    return ProductRow(**{name: values.get(name) for name in ProductRow._fields})


MUG = product_row(1, "1", stock=10, held=3, sold=2, received=15)
MUG_UNITS = Units(held=3, sold=2)
LINES = (OrderLine(1, 2, Cents(1999)), OrderLine(2, 1, Cents(500)))
COMPLETED = order_row(Order(7, LINES, Cents(4498), "completed", Milliseconds(1_700_000_000_000)))
HELD = COMPLETED._replace(status="pending", expires_at=DEADLINE, holds_score=DEADLINE, pending_score="7")
NO_ORDER = OrderRow(*[None] * len(OrderRow._fields))
NO_PRODUCT = ProductRow(*[None] * len(ProductRow._fields))

NOT_NUMBERS = ["-1", "", "many", "1.5", "1e3", " 7", "7\n", "0x10", "\N{ARABIC-INDIC DIGIT SEVEN}", "9" * 19, "nan"]


def order_findings(row: OrderRow | Unreadable, order_id: int = 7) -> list[str]:
    findings = check_order(SHOP, order_id, row, lines_of(row))
    assert {finding.key for finding in findings} <= {f"{{test}}:order:{order_id}"}
    return [finding.what for finding in findings]


def product_findings(row: ProductRow | Unreadable, units: Units = MUG_UNITS) -> list[str]:
    findings = check_product(SHOP, 1, row, units)
    assert {finding.key for finding in findings} <= {"{test}:product:1"}
    return [finding.what for finding in findings]


# --- Rows -------------------------------------------------------------------------------------------------------------


async def test_a_row_has_the_fields_of_the_reply_in_the_same_order(redis: CommandSender) -> None:
    store = make_store(redis)
    for key in ("{test}:order:1", "{test}:product:1"):
        for name in {*OrderRow._fields, *ProductRow._fields}:
            await redis.send("HSET", key, name, f"the {name}")
    for score, index in enumerate((INDEX, HOLDS, PENDING), 1):
        await redis.send("ZADD", index, score, 1)
    _, [order] = await store.inspection.audit_orders([1])
    scores = {"holds_score": "2", "pending_score": "3"}
    assert order == OrderRow(**{name: f"the {name}" for name in OrderRow._fields} | scores)
    _, [product] = await store.inspection.audit_products([1])
    scores = {"index_score": "1"}
    assert product == ProductRow(**{name: f"the {name}" for name in ProductRow._fields} | scores)


async def test_the_row_of_a_key_of_another_type_is_unreadable(redis: CommandSender) -> None:
    store = make_store(redis)
    for key in ("{test}:order:1", "{test}:product:1"):
        await redis.send("SET", key, "text")
    _, [order] = await store.inspection.audit_orders([1])
    _, [product] = await store.inspection.audit_products([1])
    assert isinstance(order, Unreadable)
    assert order == product
    assert "WRONGTYPE" in order.error


@pytest.mark.parametrize("products", [None, "", "two mugs", "1: 2 x 19.99\n", "1: -2 x 19.99", "1: 2 x 1.005"])
def test_unreadable_order_lines_are_returned_as_none(products: str | None) -> None:
    assert lines_of(COMPLETED._replace(products=products)) is None


# --- Orders -----------------------------------------------------------------------------------------------------------


@given(orders(), st.data())
def test_an_order_that_agrees_with_its_indexes_has_no_findings(order: Order, data: st.DataObject) -> None:
    lines = data.draw(order_lines(max_size=MAX_LINES))
    order = order._replace(lines=lines, total_price=Cents(sum(line.quantity * line.price for line in lines)))
    if order.status == "pending":
        row = order_row(order, holds_score=str(order.expires_at), pending_score=str(order.id))
    else:
        row = order_row(order)
    assert lines_of(row) == order.lines
    assert order_findings(row, order.id) == []


def test_an_order_that_ended_may_keep_its_deadline() -> None:
    assert order_findings(COMPLETED._replace(expires_at=DEADLINE)) == []


@given(st.integers(min_value=0, max_value=10**12).filter(lambda cents: cents != 4498))
def test_a_total_that_is_not_the_sum_of_the_lines_is_found(cents: int) -> None:
    assert order_findings(COMPLETED._replace(total_price=format_cents(Cents(cents)))) == [
        f"has total_price {format_cents(Cents(cents))}, but the sum of its lines is 44.98"
    ]


@pytest.mark.parametrize("field", ["id", "status", "total_price", "products", "created_at"])
def test_a_missing_field_of_an_order_is_found(field: str) -> None:
    assert order_findings(COMPLETED._replace(**{field: None})) == [f"has no field {field}"]


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("id", "8", "7"),
        ("id", "07", "7"),
        ("status", "lost", "one of pending, completed, cancelled, expired"),
        ("status", "", "one of pending, completed, cancelled, expired"),
        ("total_price", "much", "an amount like 19.99"),
        ("total_price", "44.980", "an amount like 19.99"),
        ("products", "two mugs", "lines like 7: 2 x 19.99"),
        *(("created_at", value, "a whole number, 0 or more") for value in NOT_NUMBERS),
    ],
)
def test_an_impossible_value_in_an_order_is_found(field: str, value: str, expected: str) -> None:
    assert order_findings(COMPLETED._replace(**{field: value})) == [f"has {field} {value!r}, expected {expected}"]


@pytest.mark.parametrize("value", NOT_NUMBERS)
def test_a_deadline_that_is_not_a_number_is_found(value: str) -> None:
    assert order_findings(HELD._replace(expires_at=value)) == [
        f"has expires_at {value!r}, expected a whole number, 0 or more"
    ]


@pytest.mark.parametrize("score", ["1700000900001", "1700000900000.5", "0", "inf", "-inf"])
def test_a_deadline_that_differs_from_the_hold_is_found(score: str) -> None:
    assert order_findings(HELD._replace(holds_score=score)) == [
        f"has expires_at {DEADLINE}, but its score in {HOLDS} is {score}"
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"holds_score": None}, f"is pending, but is not in {HOLDS}: it would never expire"),
        ({"pending_score": None}, f"is pending, but is not in {PENDING}"),
        ({"pending_score": "8"}, f"is pending, but its score in {PENDING} is 8, expected 7"),
        ({"pending_score": "7.5"}, f"is pending, but its score in {PENDING} is 7.5, expected 7"),
    ],
)
def test_a_wrong_index_member_of_a_pending_order_is_found(changes: dict[str, str | None], message: str) -> None:
    assert order_findings(HELD._replace(**changes)) == [message]


@pytest.mark.parametrize("status", ["completed", "cancelled", "expired"])
def test_an_index_member_of_an_order_that_is_not_pending_is_found(status: str) -> None:
    row = COMPLETED._replace(status=status, holds_score="5", pending_score="7")
    assert order_findings(row) == [f"is {status}, but is in {HOLDS}", f"is {status}, but is in {PENDING}"]


def test_all_findings_of_an_order_are_reported_together() -> None:
    assert len(order_findings(NO_ORDER)) == 4
    row = HELD._replace(id="8", total_price="1.00", created_at="", holds_score=None, pending_score=None)
    assert len(order_findings(row)) == 5


def test_an_order_that_cannot_be_read_has_one_finding() -> None:
    assert order_findings(Unreadable("WRONGTYPE")) == ["cannot be read: WRONGTYPE"]


def test_only_the_beginning_of_a_long_value_is_shown() -> None:
    [message] = order_findings(COMPLETED._replace(products="x" * 1_000_000))
    assert len(message) < 200


# --- Products ---------------------------------------------------------------------------------------------------------


@given(st.integers(0, 10**9), st.integers(0, 10**9), st.integers(0, 10**15), st.integers(0, MAX_PRICE), st.booleans())
def test_a_product_that_agrees_with_its_orders_has_no_findings(
    stock: int, held: int, sold: int, price: int, withdrawn: bool
) -> None:
    counters = {"stock": stock, "held": held, "sold": sold, "received": stock + held + sold}
    row = product_row(1, None if withdrawn else "1", price=format_cents(Cents(price)), withdrawn=withdrawn, **counters)
    assert product_findings(row, Units(held, sold)) == []


@given(st.sampled_from(["stock", "held", "sold", "received"]), st.integers(0, 10**9))
def test_a_counter_with_a_wrong_number_is_found(counter: str, number: int) -> None:
    row = MUG._replace(**{counter: str(number)})
    assert (product_findings(row) == []) == (row == MUG)


@pytest.mark.parametrize(
    ("changes", "messages"),
    [
        ({"stock": "9"}, ["has received 15, but stock 9 + held 3 + sold 2 is 14"]),
        ({"stock": "9", "held": "4"}, ["has held 4, but its orders add up to 3"]),
        (
            {"held": "2", "sold": "3"},
            ["has held 2, but its orders add up to 3", "has sold 3, but its orders add up to 2"],
        ),
        ({"price": "free"}, ["has price 'free', expected an amount like 19.99"]),
        ({"id": "2"}, ["has id '2', expected 1"]),
        ({"withdrawn": "2"}, ["has withdrawn '2', expected 0 or 1"]),
        ({"withdrawn": "1"}, [f"is withdrawn, but is in {INDEX}"]),
        ({"index_score": None}, [f"is on sale, but is not in {INDEX}"]),
        ({"index_score": "1.5"}, [f"is on sale, but its score in {INDEX} is 1.5, expected 1"]),
        ({"withdrawn": "1", "index_score": None}, []),
    ],
)
def test_a_wrong_product_is_found(changes: dict[str, str | None], messages: list[str]) -> None:
    assert product_findings(MUG._replace(**changes)) == messages


@pytest.mark.parametrize("field", ["id", "price", "stock", "held", "sold", "received", "withdrawn"])
def test_a_missing_field_of_a_product_is_found(field: str) -> None:
    assert product_findings(MUG._replace(**{field: None})) == [f"has no field {field}"]


@pytest.mark.parametrize("counter", ["stock", "held", "sold", "received"])
@pytest.mark.parametrize("value", NOT_NUMBERS)
def test_a_counter_that_is_not_a_number_is_found(counter: str, value: str) -> None:
    assert product_findings(MUG._replace(**{counter: value})) == [
        f"has {counter} {value!r}, expected a whole number, 0 or more"
    ]


def test_a_product_that_cannot_be_read_has_one_finding() -> None:
    assert product_findings(Unreadable("WRONGTYPE")) == ["cannot be read: WRONGTYPE"]


def test_a_missing_product_that_orders_name_is_found() -> None:
    assert product_findings(NO_PRODUCT) == ["does not exist, but its orders hold 3 units and have sold 2"]


def test_a_missing_product_that_the_index_names_is_found() -> None:
    findings = check_product(SHOP, 1, NO_PRODUCT._replace(index_score="1"), MUG_UNITS)
    assert findings == [Finding(INDEX, "has the member 1, but there is no such product")]


def test_a_missing_product_without_orders_has_no_findings() -> None:
    assert product_findings(NO_PRODUCT, Units(0, 0)) == []


# --- Keys and indexes -------------------------------------------------------------------------------------------------


def test_keys_with_another_prefix_are_ignored() -> None:
    names = ["{test}:order:5", "{test}:order:12", "{test}:orders", "{test}:product:3", "{other}:order:old"]
    assert check_names(names, "{test}:order:") == ([5, 12], [])


@pytest.mark.parametrize("end", ["", "0", "007", "mug", "1:old", "-1", "1\n", "\N{ARABIC-INDIC DIGIT SEVEN}", "1" * 17])
def test_a_key_that_does_not_end_in_an_id_is_found(end: str) -> None:
    key = f"{{test}}:order:{end}"
    assert check_names([key, "{test}:order:5"], "{test}:order:") == ([5], [Finding(key, "does not end in an id")])


def test_an_index_member_that_is_not_an_id_is_found() -> None:
    ids, findings = check_members(HOLDS, ["5", "01", "12", "five"])
    assert ids == [5, 12]
    assert findings == [
        Finding(HOLDS, "has the member '01', which is not an id"),
        Finding(HOLDS, "has the member 'five', which is not an id"),
    ]


def test_an_index_member_without_an_order_is_found() -> None:
    row = NO_ORDER._replace(holds_score="5")
    assert check_indexed_order(HOLDS, 5, row) == [Finding(HOLDS, "has the member 5, but there is no such order")]


@pytest.mark.parametrize("row", [COMPLETED, HELD, NO_ORDER._replace(status="pending"), Unreadable("WRONGTYPE")])
def test_an_index_member_with_an_existing_order_has_no_finding(row: OrderRow | Unreadable) -> None:
    assert check_indexed_order(HOLDS, 7, row) == []


@pytest.mark.parametrize("actual", ["string", "list", "set", "zset", "hash", "stream"])
def test_a_key_of_another_type_is_found(actual: str) -> None:
    for key, expected in expected_types(SHOP).items():
        findings = check_type(key, actual, expected)
        assert findings == [] if actual == expected else findings[0].what.startswith(f"is a {actual}, not a ")


def test_a_key_that_does_not_exist_has_no_findings() -> None:
    assert not any(check_type(key, "none", expected) for key, expected in expected_types(SHOP).items())
