"""Products and orders as JSON: exact decimals, and the fields in the order of the contract."""

import json
from decimal import Decimal
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from service.domain.limits import MAX_STOCK
from service.domain.money import Cents
from service.domain.order import Order, OrderLine
from service.domain.product import NO_RULES, Product, SaleRules, parse_sale_rules
from service.domain.times import Milliseconds, format_timestamp
from tests.support.orders import ids, orders, prices, times

UNICODE = st.text(st.characters(exclude_categories=["Cs"]))
RULES = st.builds(SaleRules, st.none() | st.integers(1, MAX_STOCK), st.none() | times, st.none() | times)
PRODUCTS = st.builds(Product, ids, UNICODE, UNICODE, prices, st.integers(0, MAX_STOCK), st.just(NO_RULES) | RULES)


def parse(text: str) -> Any:
    """Return the JSON with exact fractions. Refuse NaN and a field that is given twice."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        assert len(dict(pairs)) == len(pairs), pairs
        return dict(pairs)

    def no_constant(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    text.encode()  # no lone surrogates
    return json.loads(text, parse_float=Decimal, parse_constant=no_constant, object_pairs_hook=unique)


def assert_amount(value: object, cents: int) -> None:
    """Assert that the JSON number is exactly this amount, written with two decimals."""
    assert isinstance(value, Decimal)
    assert value * 100 == cents
    assert value.as_tuple().exponent == -2


@given(PRODUCTS)
def test_product_as_json_is_exact_and_in_the_order_of_the_contract(product: Product) -> None:
    document = parse(product.json())
    assert list(document)[:5] == ["id", "name", "description", "price", "stock"]
    assert_amount(document.pop("price"), product.price)
    assert (
        document.items()
        >= {
            "id": product.id,
            "name": product.name,
            "description": product.description,
            "stock": product.stock,
        }.items()
    )


@given(RULES)
def test_only_rules_that_exist_are_members_of_a_product(rules: SaleRules) -> None:
    product = Product(7, "Mug", "", Cents(1999), 10, rules)
    document = parse(product.json())
    given_rules = {name: value for name, value in rules._asdict().items() if value is not None}
    assert list(document)[5:] == list(given_rules)
    assert document.get("limit_per_customer") == rules.limit_per_customer
    for name in ("on_sale_from", "on_sale_until"):
        moment = getattr(rules, name)
        assert document.get(name) == (None if moment is None else format_timestamp(moment))
    assert rules == NO_RULES or parse_sale_rules(rules.text()) == rules


def test_the_catalogue_version_changes_with_everything_but_the_stock() -> None:
    mug = Product(7, "Mug", "Holds coffee.", Cents(1999), 10)
    assert mug._replace(stock=3).catalogue_version() == mug.catalogue_version()
    others = [
        mug._replace(name="Cup"),
        mug._replace(description=""),
        mug._replace(price=Cents(2000)),
        mug._replace(rules=SaleRules(limit_per_customer=2)),
        mug._replace(rules=SaleRules(on_sale_from=Milliseconds(2))),
        mug._replace(rules=SaleRules(on_sale_until=Milliseconds(2))),
    ]
    assert len({product.catalogue_version() for product in [mug, *others]}) == 1 + len(others)


def test_order_as_json_has_its_optional_fields_only_if_they_are_given() -> None:
    order = Order(41, (OrderLine(7, 2, Cents(1999)),), Cents(3998), "completed", Milliseconds(1000))
    assert list(parse(order.json())) == ["id", "products", "total_price", "status", "created_at"]
    whole = order._replace(
        lines=(OrderLine(7, 2, Cents(1999), returned=1),),
        expires_at=Milliseconds(1001),
        completed_at=Milliseconds(1002),
        reference='cart "1"',
        customer="Änna",
        refunded=Cents(1999),
    )
    document = parse(whole.json())
    assert list(document)[5:] == ["expires_at", "completed_at", "reference", "customer", "refunded"]
    assert document["products"] == [{"product_id": 7, "quantity": 2, "price": Decimal("19.99"), "returned": 1}]
    assert (document["reference"], document["customer"]) == ('cart "1"', "Änna")
    assert (document["completed_at"], document["refunded"]) == ("1970-01-01T00:00:01.002Z", Decimal("19.99"))


@given(orders(expires_at=st.none() | times))
def test_order_as_json_is_exact_and_in_the_order_of_the_contract(order: Order) -> None:
    document = parse(order.json())
    names = ["id", "products", "total_price", "status", "created_at"]
    assert list(document) == (names if order.expires_at is None else [*names, "expires_at"])
    assert (document["id"], document["status"]) == (order.id, order.status)
    assert_amount(document["total_price"], order.total_price)
    assert len(document["products"]) == len(order.lines)
    for shown, line in zip(document["products"], order.lines, strict=True):
        assert list(shown) == ["product_id", "quantity", "price"]
        assert (shown["product_id"], shown["quantity"]) == (line.product_id, line.quantity)
        assert_amount(shown["price"], line.price)


def test_product_and_order_look_as_in_the_contract() -> None:
    product = Product(7, 'Mug "blue"', "Holds coffee. ☕\n", Cents(1999), 10)
    assert product.json() == (
        '{"id":7,"name":"Mug \\"blue\\"","description":"Holds coffee. ☕\\n","price":19.99,"stock":10}'
    )
    lines = (OrderLine(7, 2, Cents(1999)), OrderLine(3, 1, Cents(5)))
    order = Order(41, lines, Cents(4003), "pending", Milliseconds(1_000), Milliseconds(901_000))
    assert order.json() == (
        '{"id":41,"products":[{"product_id":7,"quantity":2,"price":19.99},{"product_id":3,"quantity":1,"price":0.05}],'
        '"total_price":40.03,"status":"pending","created_at":"1970-01-01T00:00:01.000Z",'
        '"expires_at":"1970-01-01T00:15:01.000Z"}'
    )
