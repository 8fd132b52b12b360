"""Problems, paths, methods and request ids: what all calls have in common."""

import re

import pytest
from httpx2 import AsyncClient
from structlog.testing import capture_logs

from service.api.routes import CALLS
from service.domain.errors.catalog import all_problems
from service.storage.sender import CommandSender
from tests.support.problems import assert_problem
from tests.support.redis_content import nothing_changes
from tests.support.shop import SHOP, add_product, mug, place

ALL_PROBLEMS = {problem.name for problem in all_problems()}

STORAGE_PROBLEMS = {"overloaded", "storage-unavailable", "outcome-unknown"}
"""Provoked with a broken Redis, by the tests of the wire and the store."""

BODY = {"products": [{"product_id": 1, "quantity": 1}]}
KEY = {"Idempotency-Key": "used"}
JSON = {"Content-Type": "application/json"}

PROVOCATIONS: dict[str, tuple[int, str, str, dict[str, object]]] = {
    "malformed-json": (400, "POST", "/orders", {"content": b"{", "headers": JSON}),
    "invalid-idempotency-key": (400, "POST", "/orders", {"json": BODY, "headers": {"Idempotency-Key": ""}}),
    "body-too-large": (413, "POST", "/orders", {"content": b" " * 70_000, "headers": JSON}),
    "unsupported-media-type": (415, "POST", "/orders", {"content": b"{}"}),
    "invalid-request": (422, "POST", "/orders", {"json": {}}),
    "product-not-found": (404, "GET", "/products/9", {}),
    "product-id-taken": (409, "POST", "/products", {"json": mug(id=1)}),
    "order-not-found": (404, "GET", "/orders/9", {}),
    "insufficient-stock": (409, "POST", "/orders", {"json": {"products": [{"product_id": 1, "quantity": 1_000_000}]}}),
    "stock-limit": (409, "POST", "/products/1/stock", {"json": {"change": 1_000_000_000, "reason": "too many"}}),
    "order-completed": (409, "DELETE", "/orders/1", {}),
    "order-cancelled": (410, "GET", "/orders/2", {}),
    "order-expired": (410, "GET", "/orders/3", {}),
    "price-changed": (409, "POST", "/orders", {"json": {**BODY, "total_price": 1}}),
    "total-too-large": (422, "POST", "/orders", {"json": {"products": [{"product_id": 2, "quantity": 1_000_000}]}}),
    "idempotency-key-reused": (422, "POST", "/orders", {"json": {**BODY, "total_price": 7}, "headers": KEY}),
    "not-found": (404, "GET", "/nothing", {}),
    "method-not-allowed": (405, "PUT", "/orders", {"json": BODY}),
    "internal-error": (500, "GET", "/products/3", {}),
}


@pytest.mark.parametrize("name", PROVOCATIONS)
async def test_a_refused_request_is_explained_and_leaves_nothing_behind(
    client: AsyncClient, link: CommandSender, name: str
) -> None:
    await add_product(client, id=1, stock=10)
    await add_product(client, id=2, stock=1_000_000, price=999_999_999.99)
    await add_product(client, id=3)
    await link.send("HSET", f"{{{SHOP}}}:product:3", "price", "corrupt")
    assert (await place(client, (1, 1), key="used")).json()["id"] == 1
    for _ in range(2):
        await place(client, (1, 1), status="pending")
    await client.delete("/orders/2")
    await link.send("HSET", f"{{{SHOP}}}:order:3", "expires_at", "1")
    status, method, path, options = PROVOCATIONS[name]
    async with nothing_changes(link):
        response = await client.request(method, path, **options)  # type: ignore[arg-type]
    problem = assert_problem(response, status, name)
    page = await client.get(problem["type"])
    assert page.status_code == 200
    assert problem["title"] in page.text


def test_every_kind_of_problem_is_provoked_by_some_test() -> None:
    assert set(PROVOCATIONS) | STORAGE_PROBLEMS == ALL_PROBLEMS


@pytest.mark.parametrize("name", sorted(ALL_PROBLEMS))
async def test_the_type_of_a_problem_leads_to_a_page_about_it(client: AsyncClient, name: str) -> None:
    response = await client.get(f"/problems/{name}")
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert f"/problems/{name}" in response.text
    assert "{" not in re.sub("<style>.*</style>", "", response.text, flags=re.DOTALL)  # all of it was filled in


@pytest.mark.parametrize(
    "path",
    ["/problems/unknown", "/problems", "/product", "/productsx", "/orders/1/2", "/PRODUCTS", "/products/1/x", "/%00"],
)
async def test_a_path_that_leads_nowhere_is_a_problem(client: AsyncClient, path: str) -> None:
    assert_problem(await client.get(path), 404, "not-found")


@pytest.mark.parametrize("path", ["/products//", "/orders//", "/products/1//", "//products", "//", "/livez//"])
async def test_a_doubled_slash_is_not_redirected(client: AsyncClient, path: str) -> None:
    assert_problem(await client.get(f"http://holdfast{path}"), 404, "not-found")


@pytest.mark.parametrize(
    ("method", "path"),
    sorted(
        (method, call.path.replace("{name}", "not-found").replace("{id}", "1"))
        for call in CALLS
        for method in {call.method, "HEAD" if call.method == "GET" else call.method}
    ),
)
async def test_every_path_answers_with_a_slash_at_its_end_as_well(client: AsyncClient, method: str, path: str) -> None:
    await add_product(client)
    await place(client, (1, 1))
    plain = await client.request(method, path)
    slashed = await client.request(method, f"{path}/")
    assert slashed.status_code == plain.status_code
    assert slashed.status_code not in (404, 405)
    assert not slashed.has_redirect_location


@pytest.mark.parametrize("slash", ["", "/"])
async def test_an_order_can_be_placed_with_a_slash_at_the_end_of_the_path(client: AsyncClient, slash: str) -> None:
    await client.post(f"/products{slash}", json=mug())
    response = await client.post(f"/orders{slash}", json=BODY)
    assert response.status_code == 201
    assert response.headers["location"] == "/orders/1"
    assert (await client.get(f"/orders/1{slash}")).json() == response.json()


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/products", {"GET", "HEAD", "POST"}),
        ("/products/1", {"GET", "HEAD", "PATCH", "DELETE"}),
        ("/products/9", {"GET", "HEAD", "PATCH", "DELETE"}),
        ("/orders", {"GET", "HEAD", "POST"}),
        ("/livez", {"GET", "HEAD"}),
        ("/readyz", {"GET", "HEAD"}),
        ("/problems/not-found", {"GET", "HEAD"}),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW"])
async def test_allow_lists_the_methods_that_apply(
    client: AsyncClient, method: str, path: str, allowed: set[str], slash: str
) -> None:
    response = await client.request(method, f"{path}{slash}")
    if method in allowed:
        assert response.status_code != 405
        return
    assert_problem(response, 405, "method-not-allowed")
    assert set(response.headers["allow"].split(", ")) == allowed


@pytest.mark.parametrize(
    "path", ["/products", "/products/1", "/products/9", "/orders", "/orders/1", "/livez", "/nowhere"]
)
async def test_head_answers_what_get_does_without_the_body(client: AsyncClient, path: str) -> None:
    await add_product(client)
    await place(client, (1, 1))
    ids = {"X-Request-Id": "same"}
    get, head = await client.get(path, headers=ids), await client.head(path, headers=ids)
    assert head.status_code == get.status_code
    assert head.headers == get.headers
    assert head.content == b""


# Request ids


@pytest.mark.parametrize("request_id", ["a", "0b1c-2d_3e.4f~5", "x" * 128])
@pytest.mark.parametrize("path", ["/livez", "/products/9", "/nowhere"])
async def test_a_usable_request_id_is_kept(client: AsyncClient, path: str, request_id: str) -> None:
    response = await client.get(path, headers={"X-Request-Id": request_id})
    assert response.headers["x-request-id"] == request_id


@pytest.mark.parametrize("request_id", [b"", b"a b", b"x" * 129, b"\xe9", b"a\nb", b'{"a":1}', b"<b>"])
async def test_an_unusable_request_id_is_replaced(client: AsyncClient, request_id: bytes) -> None:
    responses = [await client.get("/orders/9", headers=[(b"X-Request-Id", request_id)]) for _ in range(2)]
    given = [response.headers.get_list("x-request-id") for response in responses]
    assert all(len(ids) == 1 and re.fullmatch("[0-9a-f]{8}-[0-9a-f]+", ids[0]) for ids in given)
    assert given[0] != given[1]


# What nobody foresaw


@pytest.mark.parametrize(
    ("method", "path", "key", "corruption"),
    [
        ("GET", "/products/1", "product:1", ("HSET", "price", "s3cret")),
        ("GET", "/products", "product:1", ("HSET", "stock", "s3cret")),
        ("GET", "/products", "products", ("SET", "s3cret")),
        ("GET", "/orders/1", "order:1", ("HSET", "products", "s3cret")),
        ("GET", "/orders", "order:1", ("HSET", "total_price", "s3cret")),
        ("POST", "/orders", "product:1", ("HSET", "price", "s3cret")),
        ("POST", "/orders", "product:1", ("SET", "s3cret")),
        ("POST", "/orders", "product:1", ("HDEL", "sold")),
        ("POST", "/orders", "events", ("SET", "s3cret")),
        ("POST", "/products", "events", ("SET", "s3cret")),
        ("POST", "/products", "products", ("SET", "s3cret")),
        ("PATCH", "/products/1", "events", ("SET", "s3cret")),
        ("DELETE", "/products/1", "events", ("SET", "s3cret")),
        ("DELETE", "/products/1", "products", ("SET", "s3cret")),
    ],
)
async def test_corrupt_data_is_an_internal_error_that_changes_and_betrays_nothing(
    client: AsyncClient, link: CommandSender, method: str, path: str, key: str, corruption: tuple[str, ...]
) -> None:
    await add_product(client, stock=10)
    await place(client, (1, 1))
    command, *arguments = corruption
    await link.send(command, f"{{{SHOP}}}:{key}", *arguments)
    bodies = {"/orders": BODY, "/products": mug(), "/products/1": {"name": "Pot"}}
    with capture_logs() as logs:
        async with nothing_changes(link):
            response = await client.request(
                method, path, json=None if method == "GET" else bodies[path], headers={"X-Request-Id": "the-one"}
            )
    problem = assert_problem(response, 500, "internal-error")
    assert problem["instance"] == "the-one"
    for secret in ("s3cret", "Traceback", "WRONGTYPE", ".py", ".lua", "Error"):
        assert secret not in response.text
    [entry] = [entry for entry in logs if entry["event"] == "internal_error"]
    assert entry["request_id"] == "the-one"
    assert (entry["log_level"], entry["method"], entry["path"]) == ("error", method, path)
    assert entry["exc_info"]


async def test_after_an_internal_error_the_next_request_is_served(client: AsyncClient, link: CommandSender) -> None:
    await add_product(client, id=1)
    await add_product(client, id=2)
    await link.send("HSET", f"{{{SHOP}}}:product:1", "price", "corrupt")
    assert_problem(await place(client, (1, 1)), 500, "internal-error")
    assert (await place(client, (2, 1))).status_code == 201
