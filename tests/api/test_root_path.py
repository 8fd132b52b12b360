"""HOLDFAST_ROOT_PATH: the service behind a proxy that serves it under a prefix."""

import pytest
from httpx2 import AsyncClient

from service.api.routes import CALLS
from service.settings import API_PATHS, InvalidSettings, parse_settings
from service.storage.sender import CommandSender
from tests.support.documented import DocumentedTransport
from tests.support.shop import add_product, make_store, mug, place, with_state


def client_behind(redis: CommandSender, root_path: str) -> AsyncClient:
    """Return a client of a service that has this prefix."""
    transport = DocumentedTransport(with_state(make_store(redis)), root_path=root_path)
    return AsyncClient(transport=transport, base_url="http://shop.example")


@pytest.mark.parametrize("kept", ["", "/shop/v1"], ids=["the proxy removes the prefix", "the proxy keeps the prefix"])
async def test_every_path_in_an_answer_begins_with_the_prefix(redis: CommandSender, kept: str) -> None:
    async with client_behind(redis, "/shop/v1") as client:
        client.base_url = f"http://shop.example{kept}"
        added = await client.post("/products", json=mug())
        assert (added.status_code, added.headers["Location"]) == (201, "/shop/v1/products/1")
        await add_product(client)
        page = await client.get("/products?limit=1")
        assert page.headers["Link"] == '</shop/v1/products?limit=1&after=1>; rel="next"'
        placed = await place(client, (1, 1))
        assert (placed.status_code, placed.headers["Location"]) == (201, "/shop/v1/orders/1")
        problem = await client.get("/orders/99")
        assert (problem.status_code, problem.json()["type"]) == (404, "/shop/v1/problems/order-not-found")
        assert (await client.get("/problems/order-not-found")).status_code == 200
        assert (await client.get("/nothing")).status_code == 404
        start = await client.get("/")
        assert (start.status_code, start.headers["Location"]) == (307, "/shop/v1/docs")


@pytest.mark.parametrize(
    "path", ["/shop/shop/orders", "/shop/shop/metrics", "/shop/%73hop/livez", "/shop/shop/shop/docs"]
)
async def test_the_prefix_is_removed_once(redis: CommandSender, path: str) -> None:
    async with client_behind(redis, "/shop") as client:
        response = await client.get(path)
        assert (response.status_code, response.json()["type"]) == (404, "/shop/problems/not-found")


@pytest.mark.parametrize("path", ["/shop/shop", "/shopping/orders", "/shoporders"])
async def test_a_path_that_only_resembles_the_prefix_is_not_found(redis: CommandSender, path: str) -> None:
    async with client_behind(redis, "/shop") as client:
        assert (await client.get(path)).status_code == 404


async def test_without_a_prefix_the_paths_are_as_before(redis: CommandSender) -> None:
    async with client_behind(redis, "") as client:
        assert (await client.post("/products", json=mug())).headers["Location"] == "/products/1"
        assert (await client.get("/shop/products")).json()["type"] == "/problems/not-found"


@pytest.mark.parametrize("root_path", ["", "/shop", "/shop/v1.2", "/a_b-c~d", "/ordersystem", "/x/orders"])
def test_a_prefix_may_be_any_plain_path(root_path: str) -> None:
    assert parse_settings({"root_path": root_path}).root_path == root_path


@pytest.mark.parametrize(
    "root_path", ["/", "shop", "/shop/", "//shop", "/sh op", "/shop?x", "/käse", "/..", "/a/../b", "/%41", "/a\n"]
)
def test_a_prefix_that_a_path_cannot_begin_with_is_refused(root_path: str) -> None:
    with pytest.raises(InvalidSettings, match="HOLDFAST_ROOT_PATH: must be a path such as /shop"):
        parse_settings({"root_path": root_path})


def test_no_path_of_the_api_may_be_the_prefix() -> None:
    assert {call.path.split("/")[1] for call in CALLS} - {""} | {"shops"} == set(API_PATHS)
    for name in API_PATHS:
        for root_path in (f"/{name}", f"/{name}/x"):
            with pytest.raises(InvalidSettings):
                parse_settings({"root_path": root_path})
