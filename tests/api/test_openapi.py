"""The description of the API: it is valid, it is complete, and its examples are true.

Every answer in all tests of the API is compared with it, too: tests/support/documented.py.
"""

import json
from typing import Any

import pytest
from httpx2 import AsyncClient, Response
from openapi_spec_validator import validate

from service.api.routes import CALLS
from service.domain.errors.catalog import all_problems
from service.domain.limits import MAX_PRICE
from tests.support.documented import assert_documented, document
from tests.support.shop import add_product, place


def operations() -> dict[str, dict[str, Any]]:
    return {operation["operationId"]: operation for path in document()["paths"].values() for operation in path.values()}


@pytest.mark.parametrize("root_path", ["", "/shop"])
def test_the_description_is_valid_openapi(root_path: str) -> None:
    validate(document(root_path))
    assert document(root_path)["openapi"].startswith("3.1")


def test_each_row_of_the_table_of_calls_is_described() -> None:
    described = {(method.upper(), path) for path, methods in document()["paths"].items() for method in methods}
    assert described == {(call.method, call.path) for call in CALLS}
    for operation in operations().values():
        assert operation["summary"].endswith(".")
        assert "(GET" not in operation["summary"]


def test_each_problem_is_an_answer_of_a_call_or_of_the_server() -> None:
    text = json.dumps(document()["paths"])
    missing = {problem.name for problem in all_problems() if f'"{problem.name}": {{"value"' not in text}
    # A call has a path, a method and a version of HTTP: these are about requests that are none.
    assert missing == {"method-not-allowed", "shop-not-found", "unsupported-http-version"}


def test_money_is_a_number_with_two_decimals_and_not_an_integer() -> None:
    schemas = document()["components"]["schemas"]
    price = schemas["NewProduct"]["properties"]["price"]
    assert price == {"type": "number", "minimum": 0, "maximum": MAX_PRICE / 100, "multipleOf": 0.01}
    for name, member in (("Product", "price"), ("OrderLine", "price"), ("Order", "total_price"), ("Order", "refunded")):
        assert schemas[name]["properties"][member]["type"] == "number"


def test_a_field_that_exists_only_for_its_error_is_not_described() -> None:
    assert document()["components"]["schemas"]["StockCount"]["properties"].keys() == {"count", "reason"}


async def test_each_example_of_a_body_is_accepted(client: AsyncClient) -> None:
    await add_product(client, id=1, stock=100)
    await place(client, (1, 9))
    await place(client, (1, 1), status="pending")
    for path, methods in document()["paths"].items():
        for method, operation in methods.items():
            for media_type, content in operation.get("requestBody", {}).get("content", {}).items():
                for example in content["examples"].values():
                    address = path.replace("{id}", "2" if operation["operationId"] == "extend_hold" else "1")
                    headers = {"Content-Type": media_type}
                    body = json.dumps(example["value"])
                    response = await client.request(method.upper(), address, content=body, headers=headers)
                    assert response.status_code < 300, (operation["operationId"], response.text)


def test_each_example_of_an_answer_is_one() -> None:
    for path, methods in document()["paths"].items():
        for method, operation in methods.items():
            for status, answer in operation["responses"].items():
                for media_type, content in answer.get("content", {}).items():
                    examples = [content["example"]] if "example" in content else []
                    examples += [example["value"] for example in content.get("examples", {}).values()]
                    for example in examples:
                        headers = {"Content-Type": media_type}
                        assert_documented(
                            method.upper(),
                            path.replace("{id}", "1").replace("{name}", "overloaded").replace("{file}", "docs.js"),
                            Response(int(status), headers=headers, content=json.dumps(example).encode()),
                        )


@pytest.mark.parametrize(
    ("status", "body", "what"),
    [
        (200, '{"id":1,"name":"Mug","description":"","price":1.5}', "stock"),
        (200, '{"id":1,"name":"Mug","description":"","price":"1.50","stock":1}', "1.50"),
        (200, '{"id":1,"name":"Mug","description":"","price":1.5,"stock":1,"new":1}', "new"),
        (201, "{}", "not documented"),
        (409, "{}", "not documented"),
    ],
)
def test_an_answer_that_is_not_described_is_noticed(status: int, body: str, what: str) -> None:
    response = Response(status, headers={"Content-Type": "application/json"}, content=body)
    with pytest.raises(AssertionError, match=what):
        assert_documented("GET", "/products/1", response)


async def test_the_description_is_served_with_an_etag(client: AsyncClient) -> None:
    response = await client.get("/openapi.json")
    assert response.json() == document()
    again = await client.get("/openapi.json", headers={"If-None-Match": response.headers["etag"]})
    assert again.status_code == 304
